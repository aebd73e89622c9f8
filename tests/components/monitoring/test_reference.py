import dataclasses
import datetime
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.components.columns import parquet, tfrecord
from penstock.components.monitoring.grid import Grid
from penstock.components.monitoring.profile import ColumnProfile, merged
from penstock.components.monitoring.profiling import profile_table
from penstock.components.monitoring.reference import (
    Reference,
    read_reference,
    write_reference,
)
from penstock.components.monitoring.windows import DAY, UNDATED, Window
from penstock.schemas.artifacts import Examples
from penstock.schemas.errors import DataError

MONDAY = Window.day("2026-11-02")


def day(number: int) -> Window:
    return Window(MONDAY.start + number * DAY, MONDAY.start + (number + 1) * DAY)


def traffic(first: int, days: int, rows: int = 2_000, seed: int = 0) -> pa.Table:
    """Return rows of some days: at the weekend fares are higher and trips fewer."""
    rng = np.random.default_rng([seed, first])
    number = first + np.sort(rng.integers(0, days, rows * days))
    weekend = number % 7 >= 5
    return pa.table(
        {
            "time": MONDAY.start + (number + rng.random(len(number))) * DAY,
            "fare": rng.normal(size=len(number)) + 2.0 * weekend,
            "company": np.where(weekend & (rng.random(len(number)) < 0.3), "b", "a"),
        }
    )


def distance(one: ColumnProfile, other: ColumnProfile) -> float:
    """Return the two-sample Kolmogorov-Smirnov distance over its critical value."""
    shares = [np.cumsum(each.counts) / each.counts.sum() for each in (one, other)]
    sizes = [each.counts.sum() for each in (one, other)]
    # The level is 1 in 100,000.
    critical = math.sqrt(-math.log(1e-5 / 2) / 2 * sum(sizes) / math.prod(sizes))
    return float(np.abs(shares[0] - shares[1]).max() / critical)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.of(
        traffic(0, 28),
        model="taxi",
        version="7",
        time_column="time",
        season="weekday",
        created=5.0,
    )


def test_a_reference_is_made_of_the_windows_of_its_rows(reference: Reference) -> None:
    assert (reference.model, reference.version, reference.rows) == ("taxi", "7", 56_000)
    assert [each.window for each in reference.history] == [day(n) for n in range(28)]
    assert list(reference.grid.columns) == ["fare", "company"]
    assert reference.profile == merged(reference.history)
    assert reference.profile["fare"].counts[[0, -1]].tolist() == [0, 0]


def test_a_weekday_pattern_is_no_difference_from_the_same_weekday(
    reference: Reference,
) -> None:
    plain = dataclasses.replace(reference, season="")
    for number in range(28, 28 + 28):
        rows = traffic(number, 1, seed=1)
        profile = profile_table(reference.grid, rows, day(number), model="taxi")
        seasonal = reference.for_window(profile.window)
        assert distance(seasonal.profile["fare"], profile["fare"]) < 1
        assert plain.for_window(profile.window) is plain
        if number % 7 >= 5:
            assert distance(plain.profile["fare"], profile["fare"]) > 1
    assert seasonal.rows < reference.rows / 6
    assert len(seasonal.history) == 4
    assert {each.window.weekday for each in seasonal.history} == {6}
    assert seasonal.whole == reference.id
    assert seasonal.for_window(day(0)) is seasonal


def test_an_hourly_pattern_has_references_by_the_hour() -> None:
    rows = traffic(0, 7)
    by_hour = Reference.of(rows, time_column="time", seconds=3_600, season="hour")
    found = by_hour.for_window(Window.hour("2026-12-01", 13))
    assert [each.window.hour_of_day for each in found.history] == [13] * 7
    both = dataclasses.replace(by_hour, season="weekday and hour")
    found = both.for_window(Window.hour("2026-12-01", 13))
    assert [each.window for each in found.history] == [Window.hour("2026-11-03", 13)]


def test_a_season_that_the_history_lacks_gets_a_sentence() -> None:
    short = Reference.of(
        traffic(0, 2), model="taxi", time_column="time", season="weekday"
    )
    with pytest.raises(
        DataError,
        match=r"^The reference of model 'taxi' has no window on a Wednesday, and "
        r"'2026-11-04' is one\. Make it of a longer history\.$",
    ):
        short.for_window(day(2))
    hour = Window.hour("2026-11-04", 7)
    with pytest.raises(DataError, match="no window at 07:00 UTC, and"):
        dataclasses.replace(short, season="hour").for_window(hour)
    with pytest.raises(DataError, match="no window on a Wednesday at 07:00 UTC"):
        dataclasses.replace(short, season="weekday and hour").for_window(hour)
    with pytest.raises(DataError, match="A reference by weekday needs a history"):
        Reference.of({"x": [1.0]}, season="weekday")


def test_the_id_is_of_the_content_and_of_nothing_else(reference: Reference) -> None:
    assert reference.id.startswith("sha256:")
    assert dataclasses.replace(reference, created=6.0).id == reference.id
    again = Reference.of(
        traffic(0, 28), model="taxi", version="7", time_column="time", season="weekday"
    )
    assert again.id == reference.id
    column = reference.profile["fare"]
    counts = column.counts.copy()
    counts[5] += 1
    changed = dataclasses.replace(
        reference.profile,
        columns={
            **reference.profile.columns,
            "fare": dataclasses.replace(column, counts=counts),
        },
    )
    others: list[dict[str, Any]] = [
        {"profile": changed},
        {"season": ""},
        {"history": reference.history[1:]},
        {"profile": dataclasses.replace(reference.profile, versions={"8": 1})},
    ]
    ids = {dataclasses.replace(reference, **each).id for each in others}
    assert len(ids | {reference.id}) == 5


def test_what_is_read_is_what_was_written(reference: Reference, tmp_path: Path) -> None:
    folder = tmp_path / "reference"
    write_reference(reference, folder)
    again = read_reference(folder)
    assert again.id == reference.id
    assert again.profile == reference.profile
    assert again.history == reference.history
    assert (again.season, again.created) == ("weekday", 5.0)
    assert dataclasses.replace(again).id == reference.id  # computed, not believed
    write_reference(reference, folder)
    assert len(list(folder.rglob("*.grid"))) == 1


def test_the_history_can_be_left_unread(tmp_path: Path) -> None:
    whole = Reference.of(traffic(0, 5), time_column="time")
    write_reference(whole, tmp_path)
    again = read_reference(tmp_path, history=False)
    assert (again.history, again.id) == ((), whole.id)


def test_a_reference_is_not_overwritten(reference: Reference, tmp_path: Path) -> None:
    write_reference(reference, tmp_path)
    with pytest.raises(DataError, match=r"holds reference sha256:.* never overwritten"):
        write_reference(Reference.of({"x": [1.0]}), tmp_path)


def test_a_write_that_was_cut_off_leaves_no_reference(
    reference: Reference, tmp_path: Path
) -> None:
    write_reference(reference, tmp_path)
    (tmp_path / "reference.json").unlink()
    with pytest.raises(DataError, match="There is no reference in"):
        read_reference(tmp_path)
    shorter = dataclasses.replace(reference, history=reference.history[:7])
    write_reference(shorter, tmp_path)
    assert read_reference(tmp_path).id == shorter.id


def test_damaged_and_foreign_files_get_a_sentence(
    reference: Reference, tmp_path: Path
) -> None:
    write_reference(reference, tmp_path / "good")
    about = json.loads((tmp_path / "good" / "reference.json").read_text())

    def damaged(text: str | None, name: str = "reference.json") -> Path:
        folder = tmp_path / "bad"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "good", folder)
        if text is not None:
            (folder / name).write_text(text)
        return folder

    for content, expected in [
        ("{", "is damaged: it does not belong to the reference's id"),
        ("[]", "is no reference that penstock wrote"),
        (
            json.dumps({**about, "version": 2}),
            "is of format 2, and this penstock reads",
        ),
        (json.dumps({**about, "season": "hour"}), "is damaged: it does not belong"),
        (json.dumps({**about, "id": "sha256:0"}), "is damaged: it does not belong"),
    ]:
        with pytest.raises(DataError, match=expected):
            read_reference(damaged(content))
    folder = damaged(None)
    first, second = (folder / f"history-0000{each}.profile" for each in (0, 1))
    first.write_bytes(second.read_bytes())
    with pytest.raises(DataError, match=r"00000\.profile' is damaged: it does not"):
        read_reference(folder)
    first.unlink()
    with pytest.raises(DataError, match="There is no profile"):
        read_reference(folder)


def test_a_window_that_cannot_be_compared_gets_a_sentence(reference: Reference) -> None:
    rows = {"fare": [1.0], "company": ["a"]}
    good = profile_table(reference.grid, rows, MONDAY, model="taxi")
    reference.check(good)

    def on(grid: Grid, model: str = "taxi") -> None:
        columns = {name: [1.0] if name != "company" else ["a"] for name in grid.columns}
        reference.check(profile_table(grid, columns, MONDAY, model=model))

    with pytest.raises(
        DataError, match=r"is of model 'bus', and the reference of 'taxi'"
    ):
        on(reference.grid, "bus")
    with pytest.raises(
        DataError,
        match=r"^Column 'fares' of window '2026-11-02' is not in the reference \(it "
        r"has 'company', 'fare'\)\. Did you mean 'fare'\? Make the reference again",
    ):
        on(Grid.of({"fares": [1.0]}))
    with pytest.raises(
        DataError,
        match=r"'fare' is a category in window '2026-11-02' and numeric in the ref",
    ):
        on(Grid.of({"fare": ["a"]}))
    with pytest.raises(
        DataError, match=r"'2026-11-02' was counted on grid sha256:.* is sha256:"
    ):
        on(Grid.of({"fare": [1.0], "company": ["a"]}))
    with pytest.raises(
        DataError,
        match=r"^The thresholds were made with reference sha256:1, and this one is sha",
    ):
        reference.check_id("sha256:1", "The thresholds")
    reference.check_id(reference.id, "The thresholds")
    reference.for_window(MONDAY).check_id(reference.id, "The thresholds")


def test_rows_without_a_column_or_with_another_type_get_a_sentence(
    reference: Reference,
) -> None:
    good = pa.schema({"fare": pa.float32(), "company": pa.string(), "more": pa.null()})
    reference.check_columns(good, MONDAY)
    with pytest.raises(
        DataError,
        match=r"'2026-11-02' have no column 'fare', .* Did you mean 'fair'\?$",
    ):
        reference.check_columns(pa.schema({"fair": pa.float32()}), MONDAY)
    wrong = pa.schema({"fare": pa.string(), "company": pa.string()})
    with pytest.raises(
        DataError,
        match=r"^Column 'fare' is double in the reference and string in window '2026-",
    ):
        reference.check_columns(wrong, MONDAY)


def test_a_history_on_another_grid_gets_a_sentence(reference: Reference) -> None:
    other = Reference.of(traffic(1, 3), model="taxi", time_column="time")
    with pytest.raises(DataError, match=r"'2026-11-03' of the history was counted on"):
        dataclasses.replace(reference, history=other.history)


@pytest.mark.parametrize("as_parquet", [True, False], ids=["parquet", "tfrecord"])
def test_a_reference_is_made_of_training_examples(
    as_parquet: bool, tmp_path: Path
) -> None:
    table = traffic(0, 3)
    table = table.set_column(1, "fare", table["fare"].cast(pa.float32()))
    folder = tmp_path / "Split-train"
    folder.mkdir()
    for batch in table.to_batches():
        if as_parquet:
            with parquet.Writer(folder / "data.parquet", table.schema) as writer:
                writer.write(batch)
        else:
            with tfrecord.Writer(folder / "data.gz") as out:
                out.write(tfrecord.encode(batch))
    examples = Examples(tmp_path, properties={"split_names": '["train"]'})
    made = Reference.of_examples(
        examples,
        model="taxi",
        version="7",
        columns=["fare", "company"],
        roles={"company": "segment"},
    )
    assert (made.rows, made.version, made.history) == (6_000, "7", ())
    assert made.profile.window == UNDATED
    assert made.grid["company"].role == "segment"
    direct = Reference.of(
        table.select(["fare", "company"]),
        model="taxi",
        version="7",
        roles={"company": "segment"},
    )
    assert (made.grid["fare"].edges == direct.grid["fare"].edges).all()
    assert (made.profile["fare"].counts == direct.profile["fare"].counts).all()
    if as_parquet:
        assert made.id == direct.id
        dated = Reference.of_examples(examples, time_column="time")
        assert [each.window for each in dated.history] == [day(n) for n in range(3)]
        assert list(dated.grid.columns) == ["fare", "company"]
    with pytest.raises(DataError, match=r"'fair' is not in .* Did you mean 'fare'\?"):
        Reference.of_examples(examples, columns=["fair"])
    with pytest.raises(DataError, match=r"Split 'eval' is not in"):
        Reference.of_examples(examples, "eval")


def test_times_may_be_timestamps() -> None:
    start = datetime.datetime(2026, 11, 2, 12, tzinfo=datetime.timezone.utc)
    times = [start, start + datetime.timedelta(days=1)]
    made = Reference.of(
        {"x": [1.0, 2.0], "at": pa.array(times, pa.timestamp("us", "UTC"))},
        time_column="at",
    )
    assert [each.window.name for each in made.history] == ["2026-11-02", "2026-11-03"]
