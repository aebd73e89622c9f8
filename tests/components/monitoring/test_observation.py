from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from penstock.components.monitoring.observation import Observation
from penstock.components.monitoring.profile import merged
from penstock.components.monitoring.windows import DAY, Window
from penstock.schemas.errors import DataError

FIRST = Window.day("2026-11-02")


def day(number: int) -> Window:
    return Window(FIRST.start + number * DAY, FIRST.end + number * DAY)


def rows(number: int, many: int = 500) -> pa.Table:
    rng = np.random.default_rng(number)
    return pa.table({"x": rng.normal(size=many), "c": rng.choice(["a", "b"], many)})


def observation(folder: Path, **options: object) -> Observation:
    known: dict[str, object] = {"least_rows": 2_000, "least_windows": 3, **options}
    return Observation(folder, "taxi", "7", **known)  # type: ignore[arg-type]


def test_nothing_is_a_reference_before_there_are_windows_and_rows(
    tmp_path: Path,
) -> None:
    found = observation(tmp_path)
    for number in range(3):
        assert found.add(day(number), rows(number), version="7") is None
        assert (found.state, found.reference()) == ("observing", None)
    assert found.sentence == (
        "Model 'taxi' is observed: 3 of 3 windows and 1500 of 2000 rows are there. "
        "Nothing is judged before."
    )
    made = observation(tmp_path).add(day(3), rows(3), version="7")  # another process
    assert made is not None
    assert (found.state, made.rows, made.version) == ("ready", 2_000, "7")
    assert [each.window for each in made.history] == [day(each) for each in range(4)]
    assert made.profile == merged(made.history)
    assert found.sentence == "The reference of model 'taxi' is made."


def test_once_made_it_stays(tmp_path: Path) -> None:
    found = observation(tmp_path, least_rows=1, least_windows=1)
    made = found.add(day(0), rows(0), version="7", created=9.0)
    later = found.add(day(1), rows(1, 10_000), version="8")
    assert made is not None
    assert later is not None
    assert later.id == made.id
    assert later.created == 9.0
    assert not list(tmp_path.rglob("*.parquet"))  # rows are kept no longer than needed


def test_many_rows_of_one_window_are_not_enough(tmp_path: Path) -> None:
    assert observation(tmp_path).add(day(0), rows(0, 50_000), version="7") is None


def test_a_window_given_again_replaces_itself(tmp_path: Path) -> None:
    found = observation(tmp_path, least_rows=1, least_windows=2)
    for _ in range(3):
        assert found.add(day(0), rows(0), version="7") is None
    made = found.add(day(1), rows(1), version="7")
    assert made is not None
    assert made.rows == 1_000


def test_a_column_that_a_window_lacks_is_missing_there(tmp_path: Path) -> None:
    found = observation(tmp_path, least_rows=1, least_windows=3)
    found.add(day(0), rows(0).select(["x"]), version="7")
    nothing = rows(1).set_column(1, "c", pa.nulls(500))
    found.add(day(1), nothing, version="7")
    made = found.add(day(2), rows(2), version="7")
    assert made is not None
    assert made.profile["c"].missing == 1_000
    assert made.grid["c"].type == "string"


def test_what_cannot_be_observed_gets_a_sentence(tmp_path: Path) -> None:
    found = observation(tmp_path)
    found.add(day(0), rows(0), version="7")
    with pytest.raises(
        DataError, match="'2026-11-03' has no rows, so there is nothing"
    ):
        found.add(day(1), rows(1, 0), version="7")
    with pytest.raises(
        DataError,
        match=r"^Window '2026-11-03' is of version '8' of model 'taxi', of which "
        r"version '7' is observed\. A reference is of one version",
    ):
        found.add(day(1), rows(1), version="8")
    with pytest.raises(DataError, match="overlaps with '2026-11-02', which was added"):
        found.add(Window.hour("2026-11-02", 3), rows(1), version="7")
    with pytest.raises(DataError, match="cannot end with 0 as its least_windows"):
        observation(tmp_path, least_windows=0)

    typed = observation(tmp_path / "typed", least_rows=1, least_windows=2)
    typed.add(day(0), rows(0), version="7")
    with pytest.raises(DataError, match="'x' has the types 'double', 'string' in the"):
        typed.add(day(1), {"x": ["1"]}, version="7")
    named = observation(
        tmp_path / "named", least_rows=1, least_windows=1, columns=["xs"]
    )
    with pytest.raises(DataError, match=r"'xs' is in none of .* Did you mean 'x'\?"):
        named.add(day(0), rows(0), version="7")
