"""A generator of Chicago-like taxi trips: CSV files by day, the same bytes every time.

The columns are those of the Chicago taxi sample that TFX's examples use, in its order
and style, so that one pipeline runs on both. What the columns follow:

- *Places*: 22 of Chicago's community areas, drawn by their share of pick-ups; a quarter
  of the trips end in the area they began in. Each area has four points.
- *Time*: a quarter of an hour of the day, by hourly shares that differ on weekends.
  `trip_start_day` is 1 on Sundays. Times are local, written as if they were UTC.
- *Distance*: along the street grid, lengthened by 0 to 30 %. Many meters record 0
  miles, depending on the company. *Duration*: distance at a pace that depends on the
  hour, in whole minutes.
- *Fare*: 3.25 dollars and steps of 0.20 for distance and time. 3 % of the trips end
  where they begin and cost 3.25.
- *Payment*: a third by credit card, more for high fares and in the center; cash else,
  with about 1 % of four rare kinds.
- *Tips*: recorded for credit cards only, as in the original: round dollars (most often
  2) or 20, 25 or 30 % of the fare; 5 % give none. A tip is over 20 % of the fare for
  22 to 23 % of all trips.
- *Missing*: the company (34 %), the drop-off census tract (28 %) and, for 3 % of the
  trips, all about the drop-off; the pick-up census tract is there once in 15,000.

Only additions, multiplications, divisions and comparisons follow the random draws, so
that the bytes depend on no library's exponentials.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from penstock.schemas.errors import PipelineError, did_you_mean, quoted

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Floats: TypeAlias = npt.NDArray[np.float64]
    Ints: TypeAlias = npt.NDArray[np.int64]

Fault = Literal["new_payment_type", "shifted_fare", "missing_coordinates"]
"""What can be wrong with the last day.

- `new_payment_type`: one trip in 20 is paid by 'Mobile'.
- `shifted_fare`: fares are in cents, as if the sender had changed the unit.
- `missing_coordinates`: half of the trips have no pick-up coordinates.
"""

COLUMNS = (
    "pickup_community_area",
    "fare",
    "trip_start_month",
    "trip_start_hour",
    "trip_start_day",
    "trip_start_timestamp",
    "pickup_latitude",
    "pickup_longitude",
    "dropoff_latitude",
    "dropoff_longitude",
    "trip_miles",
    "pickup_census_tract",
    "dropoff_census_tract",
    "payment_type",
    "company",
    "trip_seconds",
    "dropoff_community_area",
    "tips",
)

FIRST_DAY = datetime.date(2013, 5, 1)

_BLOCK_ROWS = 250_000  # part of what the bytes depend on: draws are made block by block

# Community area, share of pick-ups, latitude and longitude of its middle.
_AREAS = (
    (1, 0.005, 42.009, -87.670),
    (2, 0.004, 42.002, -87.695),
    (3, 0.019, 41.965, -87.656),
    (4, 0.004, 41.975, -87.687),
    (5, 0.009, 41.948, -87.683),
    (6, 0.077, 41.944, -87.654),
    (7, 0.063, 41.922, -87.646),
    (8, 0.315, 41.896, -87.628),
    (14, 0.004, 41.968, -87.722),
    (16, 0.005, 41.954, -87.724),
    (21, 0.004, 41.939, -87.712),
    (22, 0.015, 41.922, -87.695),
    (24, 0.044, 41.901, -87.671),
    (28, 0.090, 41.880, -87.649),
    (31, 0.002, 41.851, -87.667),
    (32, 0.208, 41.881, -87.627),
    (33, 0.023, 41.857, -87.619),
    (35, 0.002, 41.836, -87.619),
    (41, 0.005, 41.793, -87.591),
    (56, 0.020, 41.788, -87.757),
    (76, 0.055, 41.979, -87.906),
    (77, 0.012, 41.986, -87.664),
)
_CENTRAL_AREAS = (8, 28, 32, 33, 56, 76)  # the center and the two airports
_POINTS_PER_AREA = 4

# Name, share of trips, share of its meters that record no miles.
_COMPANIES = (
    ("", 0.343, 0.03),
    ("Taxi Affiliation Services", 0.347, 0.43),
    ("Dispatch Taxi Affiliation", 0.109, 0.25),
    ("Blue Ribbon Taxi Association Inc.", 0.073, 0.77),
    ("Choice Taxi Association", 0.058, 0.28),
    ("Northwest Management LLC", 0.037, 0.30),
    ("KOAM Taxi Association", 0.016, 0.02),
    ("Top Cab Affiliation", 0.009, 0.07),
    ("Chicago Elite Cab Corp.", 0.003, 0.10),
    ("Chicago Medallion Leasing INC", 0.003, 0.10),
    ("Chicago Medallion Management", 0.002, 0.10),
)

_CASH, _CREDIT, _MOBILE = 0, 1, 6
_PAYMENT_TYPES = (
    "Cash",
    "Credit Card",
    "No Charge",
    "Unknown",
    "Dispute",
    "Pcard",
    "Mobile",
)
_RARE_SHARES = (0.0055, 0.0020, 0.0004, 0.0003)  # of No Charge ... Pcard

# Shares of the 24 hours, on weekdays and on weekends.
_WEEKDAY_HOURS = (
    *(0.024, 0.018, 0.013, 0.010, 0.010, 0.011, 0.017, 0.029, 0.045, 0.050, 0.049),
    *(0.046, 0.053, 0.051, 0.052, 0.053, 0.057, 0.062, 0.068, 0.069, 0.062, 0.054),
    *(0.052, 0.045),
)
_WEEKEND_HOURS = (
    *(0.071, 0.069, 0.056, 0.036, 0.018, 0.008, 0.007, 0.009, 0.018, 0.031, 0.038),
    *(0.040, 0.043, 0.043, 0.043, 0.040, 0.043, 0.046, 0.055, 0.064, 0.060, 0.055),
    *(0.055, 0.052),
)

_MILES_PER_DEGREE_NORTH, _MILES_PER_DEGREE_EAST = 69.0, 51.5  # at Chicago's latitude


def write_trips(
    folder: Path,
    *,
    rows: int = 5_000,
    days: int = 5,
    seed: int = 0,
    fault: Fault | None = None,
    first_day: datetime.date = FIRST_DAY,
) -> list[Path]:
    """Write one CSV file of trips per day, `trips-2013-05-01.csv` and so on.

    A day's bytes depend on its date, `rows`, `seed` and, for the last day, `fault`:
    asking for more days does not change the earlier ones.

    Args:
        folder: Where to write; made if it does not exist.
        rows: Trips of each day.
        days: How many days in a row.
        seed: Which of the many possible weeks; at least 0.
        fault: What is wrong with the last day, if anything.
        first_day: The first day.

    Returns:
        The files, by day.

    Raises:
        PipelineError: If a number is out of range, or there is no such fault.
    """
    for name, value, least in (("rows", rows, 0), ("days", days, 1), ("seed", seed, 0)):
        if value < least:
            raise PipelineError(
                f"Trips cannot be generated with {name}={value}: it is at least "
                f"{least}. Pass a larger number."
            )
    if fault is not None and fault not in get_args(Fault):
        raise PipelineError(
            f"Fault '{fault}' is unknown (there are {quoted(get_args(Fault))})."
            f"{did_you_mean(fault, get_args(Fault))}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number in range(days):
        day = first_day + datetime.timedelta(days=number)
        file = folder / f"trips-{day.isoformat()}.csv"
        with open(file, "wb") as out:
            out.write((",".join(COLUMNS) + "\n").encode())
            for block in _blocks(
                day, rows, seed, fault if number == days - 1 else None
            ):
                out.write(block)
        files.append(file)
    return files


def _blocks(
    day: datetime.date, rows: int, seed: int, fault: Fault | None
) -> Iterator[Any]:
    """Yield the lines of a day as buffers of bytes, in order of their start."""
    import numpy as np

    rng = np.random.default_rng([seed, day.toordinal()])
    weekend = day.isoweekday() >= 6
    hour = _drawn(rng, rows, _WEEKEND_HOURS if weekend else _WEEKDAY_HOURS)
    quarter = np.sort(hour * 4 + (rng.random(rows) * 4).astype(np.int64))
    for start in range(0, rows, _BLOCK_ROWS):
        yield _lines(rng, day, quarter[start : start + _BLOCK_ROWS], fault)


def _lines(
    rng: np.random.Generator, day: datetime.date, quarter: Ints, fault: Fault | None
) -> pa.Buffer:
    """Return the CSV lines of trips that start at quarters of an hour of a day."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = len(quarter)
    hour = quarter // 4
    shares = [share for _, share, _, _ in _AREAS]
    pickup = _drawn(rng, rows, shares)
    stays = rng.random(rows) < 0.12
    dropoff = np.where(stays, pickup, _drawn(rng, rows, shares))
    latitude, longitude = _points()
    pickup_point = pickup * _POINTS_PER_AREA + _integers(rng, rows, _POINTS_PER_AREA)
    dropoff_point = dropoff * _POINTS_PER_AREA + _integers(rng, rows, _POINTS_PER_AREA)
    north = np.abs(latitude[pickup_point] - latitude[dropoff_point])
    east = np.abs(longitude[pickup_point] - longitude[dropoff_point])
    grid = north * _MILES_PER_DEGREE_NORTH + east * _MILES_PER_DEGREE_EAST
    around = 0.3 + rng.random(rows) * 0.7
    miles = (grid * 0.9 + around) * (1.0 + 0.3 * rng.random(rows))

    busy = (hour >= 7) & (hour < 20)
    pace = np.where(busy, 280.0, 210.0) * (0.6 + 0.8 * _bell(rng, rows))
    minutes = np.rint((60.0 + miles * pace / (1.0 + miles / 12.0)) / 60.0)
    aborted = rng.random(rows) < 0.03
    minutes = np.where(aborted, 0.0, minutes).astype(np.int64)
    miles = np.where(aborted, 0.0, miles)
    steps = np.rint((miles * 1.8 + minutes * 0.12) / 0.20).astype(np.int64)
    fare = 325 + 20 * steps  # in cents

    company = _drawn(rng, rows, [share for _, share, _ in _COMPANIES])
    unrecorded = np.array([zero for _, _, zero in _COMPANIES])[company]
    hundredths = np.rint(miles * 10).astype(np.int64) * 10
    exact = rng.random(rows) < 0.03
    hundredths = np.where(exact, np.rint(miles * 100).astype(np.int64), hundredths)
    hundredths = np.where(rng.random(rows) < unrecorded, 0, hundredths)

    areas = np.array([area for area, *_ in _AREAS])
    central = np.isin(areas, _CENTRAL_AREAS)[pickup]
    payment = _payment(rng, fare, central)
    tips = _tips(rng, fare, payment)

    nowhere = rng.random(rows) < 0.033
    no_tract = nowhere | (rng.random(rows) < 0.25)
    no_pickup_tract = rng.random(rows) >= 1 / 15_000
    if fault == "new_payment_type":
        payment = np.where(rng.random(rows) < 0.05, _MOBILE, payment)
    no_coordinates = np.zeros(rows, bool)
    if fault == "missing_coordinates":
        no_coordinates = rng.random(rows) < 0.5

    midnight = (day - datetime.date(1970, 1, 1)).days * 86_400
    weekday = day.isoweekday() % 7 + 1  # Sunday is 1
    hundreds = fare * 100 if fault == "shifted_fare" else fare
    columns = [
        _chosen([str(area) for area in areas], pickup),
        _decimals(hundreds),
        pa.array([str(day.month)]).take(pa.array(np.zeros(rows, np.int64))),
        _chosen([str(number) for number in range(24)], hour),
        pa.array([str(weekday)]).take(pa.array(np.zeros(rows, np.int64))),
        _chosen([str(midnight + number * 900) for number in range(96)], quarter),
        _chosen(_coordinates(latitude), pickup_point, no_coordinates),
        _chosen(_coordinates(longitude), pickup_point, no_coordinates),
        _chosen(_coordinates(latitude), dropoff_point, nowhere),
        _chosen(_coordinates(longitude), dropoff_point, nowhere),
        _decimals(hundredths),
        _chosen(_tracts(areas), pickup_point, no_pickup_tract),
        _chosen(_tracts(areas), dropoff_point, no_tract),
        _chosen(_PAYMENT_TYPES, payment),
        _chosen([name for name, *_ in _COMPANIES], company),
        _chosen([str(number * 60) for number in range(minutes.max() + 1)], minutes),
        _chosen([str(area) for area in areas], dropoff, nowhere),
        _decimals(tips, end="\n"),
    ]
    # The lines of an Arrow array lie one after the other: its data are the file's.
    lines = pc.binary_join_element_wise(*columns, ",")
    length = pc.sum(pc.binary_length(lines)).as_py()
    return lines.buffers()[2].slice(0, length)


def _payment(
    rng: np.random.Generator, fare: Ints, central: npt.NDArray[np.bool_]
) -> Ints:
    """Return indexes into the payment types for fares in cents."""
    import numpy as np

    rows = len(fare)
    likely = np.minimum(0.18 + fare * 0.00012, 0.60) * np.where(central, 1.1, 0.8)
    likely = np.where(fare == 325, 0.06, likely)
    payment = np.where(rng.random(rows) < likely, _CREDIT, _CASH)
    rare = _drawn(rng, rows, [1.0 - sum(_RARE_SHARES), *_RARE_SHARES])
    return np.where(rare > 0, rare + 1, payment)


def _tips(rng: np.random.Generator, fare: Ints, payment: Ints) -> Ints:
    """Return tips in cents: 0 unless paid by credit card."""
    import numpy as np

    rows = len(fare)
    dollars = np.select(
        [fare < 1_000, fare < 2_000],
        [
            np.array([1, 2, 2, 2, 2, 2, 2, 2, 3, 3])[_integers(rng, rows, 10)],
            np.array([2, 2, 2, 2, 2, 3, 3, 3, 4, 5])[_integers(rng, rows, 10)],
        ],
        np.array([4, 5, 5, 6, 7, 8, 8, 10, 10, 12])[_integers(rng, rows, 10)],
    )
    percent = np.array([18, 20, 20, 25, 25, 30])[_integers(rng, rows, 6)]
    fives = -(-fare * percent // 500)  # rounded up to 5 cents
    by_percent = rng.random(rows) < np.where(fare < 1_000, 0.25, 0.45)
    tips = np.where(by_percent, fives * 5, dollars * 100)
    none = rng.random(rows) < 0.05
    return np.where((payment == _CREDIT) & ~none, tips, 0)


def _drawn(rng: np.random.Generator, rows: int, shares: Sequence[float]) -> Ints:
    """Return indexes drawn by shares, which need not add up to 1."""
    import numpy as np

    edges = np.cumsum(np.array(shares))
    # The last edge is not compared with: no draw falls behind it by rounding.
    found = np.searchsorted(edges[:-1], rng.random(rows) * edges[-1], side="right")
    indexes: Ints = found.astype(np.int64)
    return indexes


def _integers(rng: np.random.Generator, rows: int, below: int) -> Ints:
    """Return integers from 0 to below `below`, each as likely as the others."""
    import numpy as np

    integers: Ints = (rng.random(rows) * below).astype(np.int64)
    return integers


def _bell(rng: np.random.Generator, rows: int) -> Floats:
    """Return numbers from 0 to 1, mostly near 0.5: means of three uniform ones."""
    mean: Floats = (rng.random(rows) + rng.random(rows) + rng.random(rows)) / 3.0
    return mean


def _points() -> tuple[Floats, Floats]:
    """Return latitudes and longitudes of every area's points, in degrees."""
    import numpy as np

    offsets = (
        (0.000150155, -0.000312006),
        (0.004103271, 0.003287969),
        (-0.003690838, 0.002912418),
        (0.002345298, -0.004513863),
    )
    latitude = [north + dn for _, _, north, _ in _AREAS for dn, _ in offsets]
    longitude = [east + de for _, _, _, east in _AREAS for _, de in offsets]
    return np.array(latitude), np.array(longitude)


def _coordinates(degrees: Floats) -> list[str]:
    return [f"{value:.9f}" for value in degrees]


def _tracts(areas: Ints) -> list[str]:
    """Return made-up census tracts of Cook County, one for every point."""
    return [
        str(17_031_000_000 + int(area) * 10_000 + (number + 1) * 100)
        for area in areas
        for number in range(_POINTS_PER_AREA)
    ]


def _chosen(
    texts: Sequence[str], index: Ints, missing: npt.NDArray[np.bool_] | None = None
) -> pa.Array:
    """Return the texts at indexes; empty where missing."""
    import numpy as np
    import pyarrow as pa

    if missing is not None:
        texts = [*texts, ""]
        index = np.where(missing, len(texts) - 1, index)
    return pa.array(texts, pa.string()).take(pa.array(index))


def _decimals(hundredths: Ints, end: str = "") -> pa.Array:
    """Return hundredths as the shortest texts that read back as the same floats."""
    import numpy as np

    values, index = np.unique(hundredths, return_inverse=True)
    return _chosen([f"{int(value) / 100}{end}" for value in values], index)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write trips as the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m penstock.pipelines.taxi.trips",
        description="Write Chicago-like taxi trips, one CSV file per day.",
    )
    parser.add_argument("folder", type=Path, help="where to write")
    parser.add_argument("--rows", type=int, default=5_000, help="trips of each day")
    parser.add_argument("--days", type=int, default=5, help="how many days")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--fault", choices=get_args(Fault), help="what is wrong with the last day"
    )
    given = parser.parse_args(arguments)
    for file in write_trips(
        given.folder,
        rows=given.rows,
        days=given.days,
        seed=given.seed,
        fault=given.fault,
    ):
        print(file)


if __name__ == "__main__":
    main()
