"""Retention: what goes and when, by a clock of its own, and through crashes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.components.monitoring import tier_state, tiers
from penstock.components.monitoring.grid import Grid
from penstock.components.monitoring.log_times import file_times
from penstock.components.monitoring.logs import LogFormat, LogRules, read_log
from penstock.components.monitoring.profile_files import write_profile
from penstock.components.monitoring.profiling import profile_table
from penstock.components.monitoring.sample_files import (
    check_sample,
    read_sample,
    sample_path,
    sync_folder,
    write_sample,
)
from penstock.components.monitoring.sampling import BottomK
from penstock.components.monitoring.tier_state import (
    gone,
    holds,
    place_hold,
    release_hold,
)
from penstock.components.monitoring.tiers import (
    Retention,
    RetentionPlan,
    Tiers,
    apply,
    plan,
)
from penstock.components.monitoring.windows import DAY, Window
from penstock.schemas.errors import DataError
from tests.components.monitoring.written_logs import predict_log, write

FIRST = Window.day("2026-09-01")
DAYS = [Window(FIRST.start + i * DAY, FIRST.start + (i + 1) * DAY) for i in range(3)]
FORMAT = LogFormat(id="id")
GRID = Grid.of({"x": np.arange(100.0)})


def after(days: float) -> float:
    """A time so many days after the end of the first day."""
    return FIRST.end + days * DAY


def age(path: Path, last: float) -> None:
    os.utime(path, (last + 60, last + 60))


def raw_file(raw: Path, name: str, start: float, end: float, count: int = 6) -> Path:
    times = np.linspace(start, end - 1, count)
    made = [
        predict_log({"id": [f"{name}-{i}"], "x": [float(i)]}, {"y": [0.5]}, time=each)
        for i, each in enumerate(times)
    ]
    path = write(raw / f"requests-{name}.tfrecord", made)
    age(path, end)
    return path


def summarized(folders: Tiers, window: Window) -> None:
    log = read_log(folders.raw, window=window, format=FORMAT)
    write_sample(BottomK.of(log, 3).rows(), folders.sample)
    write_profile(profile_table(GRID, log.table, window), folders.profiles)


@pytest.fixture
def folders(tmp_path: Path) -> Tiers:
    """Three days of logs, sampled and profiled; one file spans the first two."""
    made = Tiers(tmp_path / "raw", tmp_path / "sample", tmp_path / "profiles")
    for number, window in enumerate(DAYS):
        raw_file(made.raw, f"{number}a", window.start, window.start + 40_000)
        raw_file(made.raw, f"{number}b", window.start + 40_000, window.end - 20_000)
    raw_file(made.raw, "night", DAYS[0].end - 10_000, DAYS[1].start + 10_000)
    for window in DAYS:
        summarized(made, window)
    return made


def names(found: RetentionPlan) -> list[str]:
    return [Path(each.path).name.split(".")[0] for each in found.deletions]


def whys(found: Any) -> dict[str, str]:
    return {each.path: each.why for each in found.kept}


# --- the clock


def test_each_tier_goes_when_its_time_has_come(folders: Tiers) -> None:
    steps: list[tuple[float, list[str], list[str]]] = [
        (0, [], []),
        (29.9, [], []),
        (30.0, ["requests-0a", "requests-0b"], []),
        (31.0, ["requests-1a", "requests-1b", "requests-night"], []),
        (32.0, ["requests-2a", "requests-2b"], []),
        (100.0, [], []),
        (180.0, ["2026-09-01"], []),
        (1_000.0, ["2026-09-02", "2026-09-03"], []),
    ]
    for days, due, _ in steps:
        planned = plan(folders, now=after(days))
        assert names(planned) == due, days
        assert planned.kept == ()
        before = sorted(folders.raw.rglob("*.tfrecord"))
        assert names(plan(folders, now=after(days))) == due  # a plan changes nothing
        assert sorted(folders.raw.rglob("*.tfrecord")) == before
        done = apply(folders, planned)
        assert done.deleted == planned.deletions and done.size == planned.size
        assert names(plan(folders, now=after(days))) == []
    assert not list(folders.raw.rglob("*.tfrecord"))
    assert len(list(folders.profiles.glob("*.profile"))) == 3


def test_the_profile_answers_after_everything_else_is_gone(folders: Tiers) -> None:
    from penstock.components.monitoring.profile_files import read_profiles

    for days in (40, 400):
        apply(folders, plan(folders, now=after(days)))
    assert [each.rows for each in read_profiles(folders.profiles)] == [15, 15, 12]


def test_a_plan_is_a_sentence_and_json(folders: Tiers) -> None:
    planned = plan(folders, now=after(30))
    assert planned.sentence == (
        f"2 files of {planned.size:,} bytes are to go, 0 stay though they are old "
        "enough, and 8 are not."
    )
    data = json.loads(json.dumps(planned.to_json()))
    assert data["deletions"][0]["windows"] == ["2026-09-01"]
    assert data["deletions"][0]["path"] == "requests-0a.tfrecord"


def test_readers_are_told_what_is_gone(folders: Tiers) -> None:
    apply(folders, plan(folders, now=after(30)))
    with pytest.raises(DataError) as error:
        read_log(folders.raw, window=DAYS[0], format=FORMAT)
    assert str(error.value) == (
        f"The raw log of 2026-09-01 in '{folders.raw}' was deleted on 2026-10-02, as "
        "its retention asks, and what is left of it is not whole. Read the sample of "
        "that window, or its profile."
    )
    with pytest.raises(DataError, match="was deleted on 2026-10-02"):
        read_log(folders.raw / "*.tfrecord", window=DAYS[0], format=FORMAT)
    assert read_log(folders.raw, window=DAYS[1], format=FORMAT).rows == 15
    sample = read_sample(sample_path(folders.sample, DAYS[0]))
    assert sample.weights.sum() == pytest.approx(15)
    assert sample.window == DAYS[0] and sample.features == ("x",)


# --- nothing goes that is not summarized


def test_raw_logs_stay_until_sample_and_profile_are_there(folders: Tiers) -> None:
    sample = sample_path(folders.sample, DAYS[1])
    content = sample.read_bytes()
    sample.unlink()
    planned = plan(folders, now=after(40))
    assert "requests-night" not in names(planned)
    assert whys(planned)["requests-1a.tfrecord"] == (
        "There is no sample of 2026-09-02 that can be read: There is no sample "
        f"'{sample}'. Check the path."
    )
    sample.write_bytes(content[:-20])
    assert (
        "There is no sample of 2026-09-02"
        in whys(plan(folders, now=after(40)))["requests-night.tfrecord"]
    )
    sample.write_bytes(content)
    profile = folders.profiles / "2026-09-03.profile"
    profile.write_bytes(profile.read_bytes()[:-9])
    planned = plan(folders, now=after(400))
    assert set(whys(planned)) == {
        "requests-2a.tfrecord",
        "requests-2b.tfrecord",
        "2026-09-03.parquet",
    }
    assert "There is no profile of 2026-09-03" in whys(planned)["2026-09-03.parquet"]


def test_the_sample_of_another_window_does_not_count(folders: Tiers) -> None:
    right = sample_path(folders.sample, DAYS[1])
    right.write_bytes(sample_path(folders.sample, DAYS[0]).read_bytes())
    with pytest.raises(DataError) as error:
        check_sample(right, DAYS[1])
    assert str(error.value) == (
        f"'{right}' is the sample of 2026-09-01, and is named as that of 2026-09-02. "
        "Write both again."
    )
    assert "requests-1a" not in names(plan(folders, now=after(40)))


def test_a_plan_that_has_become_old_deletes_only_what_it_still_may(
    folders: Tiers,
) -> None:
    planned = plan(folders, now=after(40))
    sample_path(folders.sample, DAYS[2]).unlink()
    place_hold(folders.raw, "Case 7", window=DAYS[1], now=after(40))
    raw_file(folders.raw, "0a", FIRST.start, FIRST.end, count=9)
    (folders.raw / "requests-0b.tfrecord").unlink()
    done = apply(folders, planned)
    assert done.deleted == ()
    found = whys(done)
    assert found["requests-0a.tfrecord"] == "It was changed since the plan."
    assert found["requests-0b.tfrecord"] == "It is not there any more."
    assert found["requests-1a.tfrecord"].endswith(": Case 7")
    assert found["requests-2a.tfrecord"].startswith("There is no sample of 2026-09-03")
    assert gone(folders.raw) == {}


def test_what_nobody_can_read_stays(folders: Tiers) -> None:
    path = folders.raw / "requests-0a.tfrecord"
    path.write_bytes(path.read_bytes()[:-5])
    age(path, FIRST.end)
    why = whys(plan(folders, now=after(40)))["requests-0a.tfrecord"]
    assert why.startswith("Nobody knows what it holds: ") and "ends inside" in why


def test_files_that_are_written_or_no_logs_are_never_touched(folders: Tiers) -> None:
    for name in ("requests-z.tfrecord.partial", "notes.txt", ".hidden"):
        (folders.raw / name).write_bytes(b"x")
        age(folders.raw / name, FIRST.end)
    before = len(plan(folders, now=after(40)).deletions)
    assert before == 7
    apply(folders, plan(folders, now=after(40)))
    assert {path.name for path in folders.raw.iterdir()} == {
        "requests-z.tfrecord.partial",
        "notes.txt",
        ".hidden",
        ".retention",
    }


def test_empty_files_go_and_other_kinds_have_times(tmp_path: Path) -> None:
    folders = Tiers(
        tmp_path / "raw",
        tmp_path / "sample",
        tmp_path / "profiles",
        LogFormat(time="at"),
    )
    (folders.raw / "2026-09-01").mkdir(parents=True)
    parquet = folders.raw / "2026-09-01" / "log.parquet"
    pq.write_table(pa.table({"at": [FIRST.start + 1, FIRST.end - 1]}), parquet)
    csv = folders.raw / "log.csv"
    csv.write_text("at,x\n2026-09-01T10:00:00Z,1\n2026-09-01T12:00:00Z,2\n")
    empty = folders.raw / "requests-none.tfrecord"
    empty.write_bytes(b"")
    strange = folders.raw / "other.parquet"
    pq.write_table(pa.table({"att": [1]}), strange)
    for path in (parquet, csv, empty, strange):
        age(path, FIRST.end)
    assert file_times(parquet, folders.format) == (FIRST.start + 1, FIRST.end - 1)
    assert file_times(csv, folders.format) == (FIRST.start + 36e3, FIRST.start + 43_200)
    planned = plan(folders, now=after(40))
    assert names(planned) == ["requests-none"]
    assert whys(planned)["other.parquet"] == (
        f"Nobody knows what it holds: '{strange}' has no column of times 'at' (it has "
        "'att'). Did you mean 'att'? Name it as LogFormat(time=...)."
    )
    log = read_log(folders.raw / "*" / "*.parquet", window=FIRST, format=folders.format)
    write_sample(log, folders.sample)
    write_profile(profile_table(GRID, {"x": [1.0]}, FIRST), folders.profiles)
    assert names(plan(folders, now=after(40))) == ["log", "requests-none", "log"]


def test_rows_without_a_time_say_nothing_of_their_window(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"at": [1.0, None]}), path)
    with pytest.raises(DataError) as error:
        file_times(path, LogFormat(time="at"))
    assert str(error.value) == (
        f"'{path}' has 1 rows without a time. Log the time of every request."
    )


def test_folders_that_remember_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / ".retention").write_text("a file")
    with pytest.raises(DataError) as error:
        place_hold(tmp_path, "Why", file="x", now=0)
    assert str(error.value) == (
        f"'{tmp_path}' cannot be written to: Not a directory. Run this as a user that "
        "may."
    )


# --- holds


def test_a_hold_of_a_window_keeps_all_its_files(folders: Tiers) -> None:
    hold = place_hold(
        folders.raw, "Case 12", window=DAYS[1], name="case-12", now=after(1)
    )
    assert holds(folders.raw) == (hold,)
    planned = plan(folders, now=after(400))
    assert set(whys(planned)) == {
        "requests-1a.tfrecord",
        "requests-1b.tfrecord",
        "requests-night.tfrecord",
        "2026-09-02.parquet",
    }
    assert set(whys(planned).values()) == {"Held by 'case-12': Case 12"}
    apply(folders, planned)
    release_hold(folders.raw, "case-12")
    assert len(plan(folders, now=after(400)).deletions) == 4


def test_a_hold_of_files_keeps_those(folders: Tiers) -> None:
    place_hold(folders.raw, "Odd", file="requests-*a.tfrecord", now=after(1))
    assert names(plan(folders, now=after(40))) == [
        "requests-0b",
        "requests-1b",
        "requests-2b",
        "requests-night",
    ]


def test_holds_that_cannot_be(folders: Tiers) -> None:
    raw = folders.raw
    with pytest.raises(DataError) as error:
        place_hold(raw, "Why", now=0)
    assert str(error.value) == (
        "A hold is of a window or of files, and neither were given. Pass window=... or "
        "file=..."
    )
    with pytest.raises(DataError) as error:
        place_hold(raw, " ", file="x", now=0)
    assert str(error.value) == (
        "A hold has no reason, by which somebody could release it one day. Pass one."
    )
    with pytest.raises(DataError) as error:
        place_hold(raw, "Why", file="x", name="../x", now=0)
    assert str(error.value) == (
        "A hold cannot be named '../x'. Use letters, digits, '-' and '_'."
    )
    place_hold(raw, "Why", file="x", name="case", now=0)
    with pytest.raises(DataError) as error:
        place_hold(raw, "Why", file="x", name="case", now=0)
    assert str(error.value) == (
        f"There is a hold 'case' on '{raw}' already. Choose another name, or release "
        "that one."
    )
    with pytest.raises(DataError) as error:
        release_hold(raw, "cases")
    assert str(error.value) == (
        f"There is no hold 'cases' on '{raw}' (there are 'case'). Did you mean 'case'?"
    )
    (raw / ".retention" / "holds" / "case.json").write_text("{")
    with pytest.raises(
        DataError, match=r"so that nobody knows what it holds\. Mend it"
    ):
        plan(folders, now=after(40))
    with pytest.raises(DataError, match="There is no folder of raw logs"):
        place_hold(raw / "nowhere", "Why", file="x", now=0)


# --- crashes


class Crash(BaseException):
    """The machine goes down."""


def crashing(after_calls: int, original: Callable[..., Any]) -> Callable[..., Any]:
    calls = [0]

    def call(*args: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] > after_calls:
            raise Crash
        return original(*args, **options)

    return call


@pytest.mark.parametrize("place", ["remember", "replace", "unlink", "sync"])
@pytest.mark.parametrize("calls", range(5))
def test_a_crash_leaves_nothing_that_looks_whole_and_is_not(
    folders: Tiers, monkeypatch: pytest.MonkeyPatch, place: str, calls: int
) -> None:
    whole = {w: read_log(folders.raw, window=w, format=FORMAT).rows for w in DAYS}
    planned = plan(folders, now=after(31))
    with monkeypatch.context() as patched:
        if place == "remember":
            patched.setattr(tiers, "add_gone", crashing(calls, tier_state.add_gone))
        elif place == "replace":
            patched.setattr(os, "replace", crashing(calls, os.replace))
        elif place == "unlink":
            patched.setattr(tiers, "_unlink", crashing(calls, tiers._unlink))
        else:
            patched.setattr(tiers, "sync_folder", crashing(calls, sync_folder))
        with contextlib.suppress(Crash):
            apply(folders, planned)
    for window in DAYS:
        try:
            rows = read_log(folders.raw, window=window, format=FORMAT).rows
        except DataError as error:
            assert "was deleted on" in str(error)
        else:
            assert rows == whole[window]
    apply(folders, plan(folders, now=after(31)))
    assert sorted(path.name for path in folders.raw.glob("*.tfrecord")) == [
        "requests-2a.tfrecord",
        "requests-2b.tfrecord",
    ]
    assert set(gone(folders.raw)) == set(DAYS[:2])


def test_what_is_remembered_must_be_readable(folders: Tiers) -> None:
    apply(folders, plan(folders, now=after(31)))
    (folders.raw / ".retention" / "gone.json").write_text("[")
    with pytest.raises(DataError, match="so that nobody knows which windows are whole"):
        read_log(folders.raw, window=DAYS[2], format=FORMAT)


def test_a_file_that_cannot_be_deleted_is_named(
    folders: Tiers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    planned = plan(folders, now=after(30))
    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(DataError) as error:
        apply(folders, planned)
    assert str(error.value) == (
        f"'{folders.raw / 'requests-0a.tfrecord'}' cannot be deleted: Permission "
        "denied. Run this as a user that may; what was planned and is left goes with "
        "the next run."
    )


# --- paths


def test_links_are_not_followed(folders: Tiers, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    precious = raw_file(elsewhere, "precious", FIRST.start, FIRST.end)
    (folders.raw / "linked").symlink_to(elsewhere)
    (folders.raw / "requests-link.tfrecord").symlink_to(precious)
    planned = plan(folders, now=after(40))
    assert "requests-link" not in names(planned)
    assert "requests-precious" not in names(planned)


PATHS = st.one_of(
    st.sampled_from(
        [
            "../elsewhere/requests-x.tfrecord",
            "linked/requests-x.tfrecord",
            "requests-0a.tfrecord/../../elsewhere/requests-x.tfrecord",
            ".retention/lock",
            "",
            ".",
            "..",
        ]
    ),
    st.text(max_size=20).filter(lambda text: "\0" not in text),
)


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(PATHS, st.booleans())
def test_no_plan_leads_out_of_its_folder(
    folders: Tiers, tmp_path: Path, path: str, absolute: bool
) -> None:
    elsewhere = tmp_path / "elsewhere"
    precious = elsewhere / "requests-x.tfrecord"
    if not precious.exists():
        raw_file(elsewhere, "x", FIRST.start, FIRST.end)
        (folders.raw / "linked").symlink_to(elsewhere)
    state = precious.lstat()
    planned = plan(folders, now=after(40))
    forged = dataclasses.replace(
        planned.deletions[0],
        path=str(precious) if absolute else path,
        size=state.st_size,
        changed=state.st_mtime_ns,
    )
    apply(folders, dataclasses.replace(planned, deletions=(forged,)))
    assert precious.exists()
    assert len(list(folders.raw.glob("*.tfrecord"))) == 7


def test_tiers_must_not_lie_in_one_another(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    with pytest.raises(DataError) as error:
        plan(Tiers(raw, raw / "sample", tmp_path / "profiles"), now=0)
    assert str(error.value) == (
        f"The sample tier '{raw / 'sample'}' lies in the raw tier '{raw}', so that the "
        "one could be deleted with the other. Give each a folder of its own."
    )
    (tmp_path / "link").symlink_to(raw)
    with pytest.raises(DataError, match="lies in the"):
        plan(Tiers(raw, tmp_path / "link", tmp_path / "profiles"), now=0)
    with pytest.raises(DataError, match="The raw tier is '/', where other things than"):
        plan(Tiers(Path("/"), tmp_path / "s", tmp_path / "p"), now=0)
    with pytest.raises(DataError, match="There is no folder of raw logs"):
        plan(Tiers(tmp_path / "no", tmp_path / "s", tmp_path / "p"), now=0)


@pytest.mark.parametrize(
    ("retention", "sentence"),
    [
        (
            Retention(raw_days=0),
            "Retention(...) has raw_days=0, which keeps nothing. Pass a number above "
            "0.",
        ),
        (
            Retention(raw_days=30, sample_days=10),
            "Samples are to be kept for 10 days and raw logs for 30, which they are to "
            "outlive. Pass a larger sample_days.",
        ),
    ],
)
def test_periods_that_make_no_sense(
    folders: Tiers, retention: Retention, sentence: str
) -> None:
    with pytest.raises(DataError) as error:
        plan(folders, retention, now=0)
    assert str(error.value) == sentence


# --- samples


def test_a_sample_is_of_a_window_and_says_its_columns(
    folders: Tiers, tmp_path: Path
) -> None:
    log = read_log(folders.raw, window=DAYS[0], format=FORMAT)
    path = write_sample(log, tmp_path / "other")
    assert path.name == "2026-09-01.parquet"
    again = read_sample(path)
    assert again.table.equals(log.table) and again == dataclasses.replace(
        log, table=again.table
    )
    empty = read_log(
        folders.raw,
        window=Window.day("2026-12-01"),
        format=FORMAT,
        rules=LogRules(on_empty="accept"),
    )
    assert read_sample(write_sample(empty, tmp_path / "other")).rows == 0
    with pytest.raises(DataError) as error:
        write_sample(dataclasses.replace(log, window=None), tmp_path)
    assert str(error.value) == (
        f"The log '{folders.raw}' was read without a window, and a sample is that of "
        "one. Read it with window=..."
    )
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(DataError) as error:
        read_sample(tmp_path / "x.parquet")
    assert str(error.value) == (
        f"'{tmp_path / 'x.parquet'}' is no sample of a log: it does not say what its "
        "columns are. Pass a file that write_sample wrote."
    )
    with pytest.raises(DataError, match=r"There is no sample '.*nowhere'\. Check the"):
        read_sample(tmp_path / "nowhere")
