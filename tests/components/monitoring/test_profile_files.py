import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components.monitoring.distinct import REGISTERS, Distinct
from penstock.components.monitoring.grid import ColumnGrid, Grid
from penstock.components.monitoring.profile import ColumnProfile, Profile
from penstock.components.monitoring.profile_files import (
    decoded_column,
    encoded_column,
    grid_path,
    profile_digest,
    profile_path,
    read_grid,
    read_profile,
    read_profiles,
    write_profile,
)
from penstock.components.monitoring.profiling import profile_column, profile_table
from penstock.components.monitoring.windows import Window
from penstock.schemas.errors import DataError

INTEGERS = (
    *("rows", "missing", "values", "nan", "pos_inf", "neg_inf", "zeros"),
    *("mistyped", "unseen_other", "unseen_error"),
)
FLOATS = ("sum", "sum_squares", "minimum", "maximum")
DAY = Window.day("2026-11-30")


def table(rows: int, seed: int, more: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    value = [f"category {each:04}" for each in range(1_000 + more)]
    return pa.table(
        {
            "normal": rng.normal(size=rows),
            "tail": np.append(rng.lognormal(size=rows - 1), 1e9),
            "whole": rng.integers(0, 50, rows),
            "few": pa.array(rng.choice(["a", "b", "c"], rows)),
            "many": pa.array(value).take(pa.array(rng.integers(0, len(value), rows))),
            "missing": pa.array(rng.normal(size=rows), mask=rng.random(rows) < 0.5),
        }
    )


@pytest.fixture(scope="module")
def grid() -> Grid:
    return Grid.of(table(20_000, 0), roles={"normal": "score"})


@pytest.fixture(scope="module")
def profile(grid: Grid) -> Profile:
    return profile_table(grid, table(3_000, 1, 200), DAY, model="taxi", version="7")


def test_what_is_read_is_what_was_written(profile: Profile, tmp_path: Path) -> None:
    path = write_profile(profile, tmp_path)
    assert path.name == "2026-11-30.profile"
    again = read_profile(path)
    assert again == profile
    assert profile_digest(again) == profile_digest(profile)
    assert [each.name for each in again.grid] == [each.name for each in profile.grid]
    assert again.grid.id == profile.grid.id
    assert again.grid["normal"].role == "score"
    # Once per folder, whatever is written again.
    before = grid_path(tmp_path, profile.grid.id).stat().st_mtime_ns
    write_profile(profile, tmp_path)
    assert grid_path(tmp_path, profile.grid.id).stat().st_mtime_ns == before


@settings(max_examples=100)
@given(
    counts=st.lists(st.integers(0, 2**62), min_size=5, max_size=5),
    unseen=st.dictionaries(st.text(max_size=9), st.integers(1, 2**40), max_size=9),
    floats=st.lists(st.floats(), min_size=4, max_size=4),
    integers=st.lists(st.integers(0, 2**62), min_size=10, max_size=10),
    register=st.integers(0, 54),
    kind=st.text(max_size=5),
)
def test_every_profile_survives_its_bytes(
    counts: list[int],
    unseen: dict[str, int],
    floats: list[float],
    integers: list[int],
    register: int,
    kind: str,
) -> None:
    grid = ColumnGrid("x", "numeric", edges=np.array([1.0, 2.0, 3.0]))
    known: dict[str, Any] = {
        **dict(zip(INTEGERS, integers, strict=True)),
        **dict(zip(FLOATS, floats, strict=True)),
    }
    column = ColumnProfile(
        grid,
        counts=np.array(counts),
        unseen=unseen,
        distinct=Distinct(np.full(REGISTERS, register, np.uint8)),
        type=kind,
        **known,
    )
    block = encoded_column(column)
    again = decoded_column(grid, block)
    assert again == column
    assert encoded_column(again) == block


@pytest.mark.parametrize("rows", [200, 5_000, 300_000])
def test_a_column_and_window_take_at_most_8_kb(
    rows: int, grid: Grid, tmp_path: Path
) -> None:
    found = profile_table(grid, table(rows, 2, 2_000), DAY)
    write_profile(found, tmp_path)
    for column in found.columns.values():
        alone = dataclasses.replace(
            found, grid=Grid.of_columns([column.grid]), columns={column.name: column}
        )
        path = write_profile(alone, tmp_path, column.name)
        assert path.stat().st_size <= 8_000, column.name


def test_a_hundred_million_rows_and_long_names_take_at_most_8_kb(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(3)
    value = [f"{each:032x}" for each in range(0, 2**128, 2**117)]
    rng.shuffle(value)
    names = Grid.of({"c": value[:1_000]})["c"]
    numbers = Grid.of({"x": rng.normal(size=20_000)})["x"]
    counted = {
        "c": profile_column(names, np.repeat(value, rng.integers(1, 90, len(value)))),
        "x": profile_column(numbers, rng.normal(size=100_000)),
    }
    for name, column in counted.items():
        many = rng.poisson(1e8 / column.grid.places, column.grid.places)
        column = dataclasses.replace(column, counts=many)
        grid = Grid.of_columns([column.grid])
        profile = Profile(DAY, "", {}, column.rows, grid, {name: column})
        assert write_profile(profile, tmp_path, name).stat().st_size <= 8_000, name
    assert len(counted["c"].unseen) > 100


def test_profiles_of_a_folder_come_in_the_order_of_their_windows(
    grid: Grid, tmp_path: Path
) -> None:
    rows = table(50, 4)
    windows = [Window.hour("2026-11-30", hour) for hour in (3, 1, 2)]
    for each in [*windows, DAY]:
        write_profile(profile_table(grid, rows, each), tmp_path)
    found = read_profiles(tmp_path)
    assert [each.window for each in found] == sorted([*windows, DAY])
    assert len({id(each.grid) for each in found}) == 1
    assert found == read_profiles(tmp_path, grid)
    assert profile_path(tmp_path, windows[1]).name == (
        "20261130T010000Z-20261130T020000Z.profile"
    )


def test_a_changed_byte_gets_a_sentence(profile: Profile, tmp_path: Path) -> None:
    path = write_profile(profile, tmp_path)
    beside = grid_path(tmp_path, profile.grid.id)
    readers: dict[Path, Any] = {path: read_profile, beside: read_grid}
    for file, read in readers.items():
        content = file.read_bytes()
        for place in (30, 60, len(content) // 2, len(content) - 1):
            damaged = bytearray(content)
            damaged[place] ^= 1
            file.write_bytes(damaged)
            with pytest.raises(DataError, match="is damaged: its content is not what"):
                read(file)
        file.write_bytes(content[:-10])
        with pytest.raises(DataError, match="is damaged"):
            read(file)
        file.write_bytes(content)
        read(file)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", r"is no profile that penstock wrote: it begins with b''\. Name the file"),
        (b"PK\x03\x04 a zip\nof something", r"it begins with b'PK\\x03\\x04 a zip'"),
        (b"penstock grid 1\n", "it begins with b'penstock grid 1'"),
        (b"penstock profile 2\n", "is a profile of format 2, and this penstock reads"),
    ],
)
def test_a_foreign_file_gets_a_sentence(
    content: bytes, text: str, tmp_path: Path
) -> None:
    path = tmp_path / "2026-11-30.profile"
    path.write_bytes(content)
    with pytest.raises(DataError, match=text):
        read_profile(path)


def test_a_file_that_is_not_there_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no profile '.*2026-11-30\.profile'"):
        read_profile(profile_path(tmp_path, DAY))
    with pytest.raises(DataError, match="There is no grid"):
        read_grid(tmp_path / "x.grid")


def test_another_grid_gets_a_sentence(profile: Profile, tmp_path: Path) -> None:
    path = write_profile(profile, tmp_path)
    with pytest.raises(DataError, match=r"was counted on grid sha256:.* again on this"):
        read_profile(path, Grid.of(table(20_000, 5)))


def test_what_is_not_a_number_has_one_form(profile: Profile) -> None:
    bits = np.array([0x7FF8_0000_0000_0001], np.uint64).view(np.float64)
    column = profile["few"]
    odd: Any = dataclasses.replace(column, minimum=float(bits[0]))
    plain = dataclasses.replace(column, minimum=math.nan)
    assert encoded_column(odd) == encoded_column(plain)
