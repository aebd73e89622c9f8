"""Detectors of concept drift against the formulas of their papers, one value at a time.

What is written here looks at one value after another as the papers do, keeps all that
it saw, and computes every number anew.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components.monitoring.quality import concept
from penstock.components.monitoring.quality.concept import Detector, Signals
from penstock.schemas.errors import DataError, PipelineError

Seen = tuple[list[int], list[int]]  # warnings, drifts


def ddm(values: list[float]) -> Seen:
    """Gama et al. 2004: p + s against the least of it, from 30 rows on."""
    warnings: list[int] = []
    drifts: list[int] = []
    kept: list[float] = []
    least_rate = least_deviation = math.inf
    for place, value in enumerate(values):
        kept.append(value)
        rate = sum(kept) / len(kept)
        deviation = math.sqrt(rate * (1 - rate) / len(kept))
        if len(kept) < 30:
            continue
        if rate + deviation < least_rate + least_deviation:
            least_rate, least_deviation = rate, deviation
        height = rate + deviation
        if height <= least_rate + least_deviation:
            continue
        if height >= least_rate + 3 * least_deviation:
            drifts.append(place)
            kept, least_rate, least_deviation = [], math.inf, math.inf
        elif height >= least_rate + 2 * least_deviation:
            warnings.append(place)
    return warnings, drifts


def eddm(values: list[float]) -> Seen:
    """Baena-García et al. 2006: distances between errors, from 30 errors on."""
    warnings: list[int] = []
    drifts: list[int] = []
    distances: list[int] = []
    rows = last = 0
    greatest, warns = 0.0, False
    for place, value in enumerate(values):
        rows += 1
        if value:
            distances.append(rows - last)
            last = rows
            if len(distances) >= 30:
                height = float(np.mean(distances) + 2 * np.std(distances))
                greatest = max(greatest, height)
                warns = bool(height / greatest < 0.95)
                if height / greatest < 0.90:
                    drifts.append(place)
                    distances, rows, last = [], 0, 0
                    greatest, warns = 0.0, False
                    continue
        if warns:
            warnings.append(place)
    return warnings, drifts


def page_hinkley(values: list[float], tolerance: float, threshold: float) -> Seen:
    """Page 1954: the sum of what is above the running mean, above its least."""
    drifts: list[int] = []
    kept: list[float] = []
    height, least = 0.0, math.inf
    for place, value in enumerate(values):
        kept.append(value)
        height += value - sum(kept) / len(kept) - tolerance
        least = min(least, height)
        if len(kept) >= 30 and height - least > threshold:
            drifts.append(place)
            kept, height, least = [], 0.0, math.inf
    return [], drifts


def cusum(
    values: list[float], mean: float, deviation: float, k: float, h: float
) -> Seen:
    """Page 1954: g = max(0, g + z - k)."""
    drifts: list[int] = []
    height = 0.0
    for place, value in enumerate(values):
        height = max(0.0, height + (value - mean) / deviation - k)
        if height > h:
            drifts.append(place)
            height = 0.0
    return [], drifts


def adwin(values: list[float], delta: float, most: int, every: int) -> Seen:
    """Bifet & Gavaldà 2007, with buckets that keep their values."""
    drifts: list[int] = []
    buckets: list[list[float]] = []  # the oldest first
    for place, value in enumerate(values):
        buckets.append([value])
        size = 1
        while sum(len(each) == size for each in buckets) > most:
            first = next(i for i, each in enumerate(buckets) if len(each) == size)
            buckets[first : first + 2] = [buckets[first] + buckets[first + 1]]
            size *= 2
        if (place + 1) % every:
            continue
        while _differ(buckets, delta):
            if not drifts or drifts[-1] != place:
                drifts.append(place)
            buckets.pop(0)
    return [], drifts


def _differ(buckets: list[list[float]], delta: float) -> bool:
    window = [value for each in buckets for value in each]
    if len(window) <= 10:
        return False
    variance = float(np.var(window))
    cut = 0
    for bucket in buckets[:-1]:
        cut += len(bucket)
        old, new = window[:cut], window[cut:]
        if min(len(old), len(new)) < 5:
            continue
        harmonic = 1 / (1 / len(old) + 1 / len(new))
        log = math.log(2 / (delta / math.log(len(window))))
        bound = math.sqrt(2 / harmonic * variance * log) + 2 / (3 * harmonic) * log
        if abs(np.mean(old) - np.mean(new)) > bound:
            return True
    return False


def sea(
    random: np.random.Generator, rows: int, *, threshold: float, noise: float = 0.1
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Errors of a model that learnt concept 8 of SEA (Street & Kim 2001).

    Two features of three count, and the label is whether their sum is at most a
    threshold; the model goes on with the threshold of 8.
    """
    features = random.uniform(0, 10, (rows, 3))
    labels = features[:, 0] + features[:, 1] <= threshold
    labels ^= random.random(rows) < noise
    said = features[:, 0] + features[:, 1] <= 8
    found: np.ndarray[tuple[int], np.dtype[np.float64]] = np.asarray(
        said != labels, np.float64
    )
    return found


MADE: dict[str, Callable[[], Detector]] = {
    "DDM": concept.DDM,
    "EDDM": concept.EDDM,
    "Page-Hinkley": lambda: concept.PageHinkley(threshold=8.0),
    "CUSUM": lambda: concept.CUSUM(mean=0.1, deviation=0.3, threshold=8.01),
    "ADWIN": lambda: concept.ADWIN(every=8),
}
ORACLES: dict[str, Callable[[list[float]], Seen]] = {
    "DDM": ddm,
    "EDDM": eddm,
    "Page-Hinkley": lambda values: page_hinkley(values, 0.005, 8.0),
    "CUSUM": lambda values: cusum(values, 0.1, 0.3, 0.05, 8.01),
    "ADWIN": lambda values: adwin(values, 0.002, 5, 8),
}


def _stream(seed: int) -> list[float]:
    """Errors whose rate goes up and down."""
    random = np.random.default_rng([seed, 1])
    rates = np.repeat(random.uniform(0.02, 0.6, 4), random.integers(50, 400, 4))
    found: list[float] = (random.random(len(rates)) < rates).astype(float).tolist()
    return found


def _seen(found: Signals) -> Seen:
    return list(found.warnings), list(found.drifts)


@pytest.mark.parametrize("name", sorted(MADE))
def test_it_says_what_its_paper_says(name: str) -> None:
    drifts = 0
    for seed in range(10):
        stream = _stream(seed)
        expected = ORACLES[name](stream)
        assert _seen(MADE[name]().update(np.array(stream))) == expected, seed
        drifts += len(expected[1])
    assert drifts > 5  # there was something to see


@pytest.mark.parametrize("name", sorted(MADE))
@settings(max_examples=25)
@given(data=st.data())
def test_it_goes_on_from_a_stored_state(name: str, data: st.DataObject) -> None:
    stream = np.array(_stream(data.draw(st.integers(0, 20))))
    cut = data.draw(st.integers(0, len(stream)))
    first, second = MADE[name](), MADE[name]()
    one = first.update(stream[:cut])
    second.restore(json.loads(json.dumps(first.state())))
    two = second.update(stream[cut:])
    whole = MADE[name]().update(stream)
    assert list(whole.drifts) == [*one.drifts, *(cut + each for each in two.drifts)]
    assert list(whole.warnings) == [
        *one.warnings,
        *(cut + each for each in two.warnings),
    ]


def test_adwin_keeps_what_is_alike() -> None:
    random = np.random.default_rng(0)
    found = concept.ADWIN()
    found.update((random.random(3_000) < 0.1).astype(float))
    assert found.width == 3_000
    found.update((random.random(3_000) < 0.5).astype(float))
    assert 2_500 < found.width < 3_600
    assert found.mean == pytest.approx(0.5, abs=0.05)
    assert math.isnan(concept.ADWIN().mean)


@pytest.mark.parametrize("run_length", [1_000, 20_000])
def test_cusum_has_the_run_length_that_it_is_designed_for(run_length: int) -> None:
    random = np.random.default_rng(run_length)
    made = concept.CUSUM.for_run_length(
        run_length, mean=0.0, deviation=1.0, allowance=0.1
    )
    values = random.normal(size=run_length * 100)
    drifts = len(made.update(values).drifts)
    assert 70 <= drifts <= 135  # 100 on average, and Siegmund's figure is near


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.4])
def test_cusum_of_errors_has_the_run_length_too(rate: float) -> None:
    random = np.random.default_rng(int(rate * 100))
    made = concept.CUSUM.for_errors(10_000, rate=rate, allowance=0.05)
    errors = (random.random(10_000 * 100) < rate).astype(float)
    assert 65 <= len(made.update(errors).drifts) <= 140  # 100 on average


def test_steady_errors_of_no_kind_are_no_drift() -> None:
    assert concept.DDM().update(np.zeros(500)) == Signals((), (), "ok")
    assert concept.EDDM().update(np.zeros(500)) == Signals((), (), "ok")
    assert concept.DDM().update(np.ones(500)) == Signals((), (), "ok")


def test_sea_drift_is_seen_and_how_soon() -> None:
    """Concept 8 to 9.5 after 5,000 rows, where the error rate goes from 10 to 18 %."""
    made = {name: concept.detector(name, rate=0.1, run_length=150_000) for name in MADE}
    late = dict.fromkeys(made, 0)
    for seed in range(10):
        random = np.random.default_rng(seed)
        stream = np.concatenate(
            [sea(random, 5_000, threshold=8), sea(random, 5_000, threshold=9.5)]
        )
        for name in ("ADWIN", "CUSUM", "Page-Hinkley"):
            fresh = concept.detector(name, rate=0.1, run_length=150_000)
            drifts = [each for each in fresh.update(stream).drifts if each >= 5_000]
            late[name] = max(late[name], drifts[0] - 5_000 if drifts else 10**9)
    assert late["CUSUM"] < 1_000
    assert late["ADWIN"] < 1_500
    assert late["Page-Hinkley"] < 3_000


@pytest.mark.long
def test_delays_and_false_alarms_on_sea_for_the_docs() -> None:
    """Prints the table of docs/quality-over-time.md, and holds what it says."""
    month = 152_000  # rows of a month at 5,000 a day
    false = dict.fromkeys(MADE, 0)
    delays: dict[str, list[float]] = {name: [] for name in MADE}
    for seed in range(40):
        random = np.random.default_rng([seed, 9])
        steady = sea(random, month, threshold=8)
        for name in MADE:
            made = concept.detector(name, rate=0.1, run_length=month)
            false[name] += len(made.update(steady).drifts)
            made = concept.detector(name, rate=0.1, run_length=month)
            stream = np.concatenate([steady[:10_000], sea(random, 20_000, threshold=9)])
            drifts = [each for each in made.update(stream).drifts if each >= 10_000]
            delays[name].append(drifts[0] - 10_000 if drifts else math.inf)
    for name in sorted(MADE):
        missed = np.isinf(delays[name]).mean()
        print(
            f"{name}: {false[name] / 40:.2f} false drifts a month, median delay "
            f"{np.median(delays[name]):,.0f} rows, missed {missed:.0%}"
        )
    assert false["CUSUM"] / 40 < 1.5
    assert false["ADWIN"] / 40 < 0.3
    assert np.median(delays["CUSUM"]) < 3_000


def test_values_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        concept.ADWIN().update(np.array([0.0, math.nan]))
    assert str(caught.value) == (
        "ADWIN got nan as value 1, which is no number to look at. Leave such rows out."
    )


def test_what_is_no_error_is_refused_by_who_takes_errors() -> None:
    with pytest.raises(DataError) as caught:
        concept.DDM().update(np.array([0.0, 0.5]))
    assert str(caught.value) == (
        "DDM looks at errors, 1 for wrong and 0 for right, and got 0.5 as value 1. "
        "Give whether predictions were wrong."
    )
    assert concept.PageHinkley().update(np.array([0.0, 0.5])).level == "ok"


def test_the_state_of_another_detector_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        concept.EDDM().restore(concept.DDM().state())
    assert str(caught.value) == (
        "A state of detector 'DDM' was given to EDDM. Give what EDDM.state() returned."
    )


def test_values_that_do_not_vary_are_refused_by_cusum() -> None:
    with pytest.raises(PipelineError, match=r"CUSUM\.deviation is 0.* above 0"):
        concept.CUSUM(mean=0.1, deviation=0)


def test_an_unknown_detector_gets_a_near_miss() -> None:
    with pytest.raises(PipelineError) as caught:
        concept.check_names(("ADWIM",), "QualityMonitor.concept")
    assert str(caught.value) == (
        "QualityMonitor.concept has 'ADWIM', and there is no such detector (they are "
        "'ADWIN', 'CUSUM', 'DDM', 'EDDM', 'Page-Hinkley'). Did you mean 'ADWIN'? Name "
        "one of them."
    )
