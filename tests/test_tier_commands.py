"""The verbs for logs: old ones are sampled, listed and deleted, held ones stay."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from penstock.components.monitoring.grid import Grid
from penstock.components.monitoring.logs import LogFormat, read_log
from penstock.components.monitoring.profile_files import write_profile
from penstock.components.monitoring.profiling import profile_table
from penstock.components.monitoring.sample_files import read_sample, sample_path
from penstock.components.monitoring.windows import Window
from tests.components.monitoring.test_tiers import age, raw_file
from tests.components.monitoring.written_logs import predict_log, write
from tests.conftest import Said

Call = Callable[..., Said]

DAY = Window.day("2026-09-01")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A day of raw logs, in two files, long ago; it is profiled."""
    folder = tmp_path / "log"
    raw_file(folder, "one", DAY.start, DAY.start + 40_000)
    raw_file(folder, "two", DAY.start + 40_000, DAY.end)
    log = read_log(folder, window=DAY, format=LogFormat(id="id"))
    grid = Grid.of({"x": np.arange(100.0)})
    write_profile(profile_table(grid, log.table, DAY), tmp_path / "profiles")
    return folder


def test_old_logs_are_sampled_listed_and_deleted(
    raw: Path, tmp_path: Path, penstock: Call
) -> None:
    samples, profiles = tmp_path / "samples", tmp_path / "profiles"
    asked = ("tiers", raw, f"--samples={samples}", f"--profiles={profiles}")
    said = penstock(*asked)
    assert said.code == 0
    assert "There is no sample of 2026-09-01" in " ".join(said.out.split())
    assert "would be deleted: nothing, 0 bytes" in said.out
    said = penstock(*asked, "--sample=4", "--id=id")
    assert "sampled 2026-09-01" in said.out
    assert "would be deleted: 2 files, " in said.out
    assert "Nothing is deleted yet: --delete does it." in said.out
    assert read_sample(sample_path(samples, DAY)).rows == 4
    assert len(list(raw.glob("*.tfrecord"))) == 2
    again = penstock(*asked, "--sample=4", "--id=id", "--json")
    assert (again.json["sampled"], again.json["deleted"]) == ([], False)
    assert len(again.json["deletions"]) == 2
    said = penstock(*asked, "--delete")
    assert "\ndeleted: 2 files, " in said.out
    assert not list(raw.glob("*.tfrecord"))
    # Of what is gone no sample is made anew.
    assert penstock(*asked, "--sample=4", "--id=id", "--json").json["sampled"] == []


def test_what_is_held_stays(raw: Path, tmp_path: Path, penstock: Call) -> None:
    where = (f"--samples={tmp_path / 'samples'}", f"--profiles={tmp_path / 'profiles'}")
    asked = ("tiers", raw, *where, "--sample=4", "--id=id", "--delete")
    assert penstock("hold", raw).out.strip() == f"Nothing of '{raw}' is held."
    because = ("--reason", "a complaint", "--name=audit")
    said = penstock("hold", raw, *because, "--file=*two*")
    assert said.out.strip() == "Hold 'audit' keeps '*two*': a complaint"
    assert penstock("hold", raw).out == said.out
    (one,) = penstock("hold", raw, "--json").json
    assert (one["name"], one["file"], one["window"]) == ("audit", "*two*", None)
    said = penstock(*asked)
    assert "Held by 'audit': a complaint" in " ".join(said.out.split())
    assert [each.name for each in raw.glob("*.tfrecord")] == ["requests-two.tfrecord"]
    said = penstock("hold", raw, "--name=audit", "--release")
    assert said.out.strip() == "Hold 'audit' is released."
    penstock(*asked)
    assert not list(raw.glob("*.tfrecord"))


@pytest.mark.parametrize(
    ("asked", "code", "sentence"),
    [
        (("--sample=4",), 2, "which rows stay is decided by their ids. Pass --id"),
        (("--raw-days=0",), 1, "Retention(...) has raw_days=0, which keeps nothing."),
        (("--raw-days=200",), 1, "Samples are to be kept for 180 days and raw logs"),
    ],
)
def test_what_makes_no_sense_is_refused(
    asked: tuple[str, ...],
    code: int,
    sentence: str,
    raw: Path,
    tmp_path: Path,
    penstock: Call,
) -> None:
    where = (f"--samples={tmp_path / 'samples'}", f"--profiles={tmp_path / 'profiles'}")
    said = penstock("tiers", raw, *where, *asked)
    assert said.code == code
    assert sentence in " ".join(said.err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("asked", "code", "sentence"),
    [
        (("--release",), 2, "pass the --name of the hold, too."),
        (("--release", "--name=no"), 1, "There is no hold 'no' on "),
        (("--day=2026-09-01",), 1, "A hold has no reason, by which"),
        (("--reason=x",), 1, "A hold is of a window or of files, and neither were"),
    ],
)
def test_holds_that_make_no_sense_are_refused(
    asked: tuple[str, ...], code: int, sentence: str, raw: Path, penstock: Call
) -> None:
    said = penstock("hold", raw, *asked)
    assert said.code == code
    assert sentence in " ".join(said.err.replace("│", " ").split())


def test_logs_that_are_not_there_are_told(tmp_path: Path, penstock: Call) -> None:
    where = (f"--samples={tmp_path / 'samples'}", f"--profiles={tmp_path / 'profiles'}")
    said = penstock("tiers", tmp_path / "no", *where)
    assert said.code == 1
    assert said.err.strip() == (
        f"There is no folder of raw logs '{tmp_path / 'no'}'. Check the path."
    )
    said = penstock("hold", tmp_path / "no")
    assert said.code == 1
    assert said.err.strip() == (
        f"There is no folder of raw logs '{tmp_path / 'no'}'. Check the path."
    )


def _asked(tmp_path: Path, raw: Path) -> tuple[object, ...]:
    where = (f"--samples={tmp_path / 'samples'}", f"--profiles={tmp_path / 'profiles'}")
    return ("tiers", raw, *where, "--sample=100", "--id=id")


def test_logs_in_folders_below_are_sampled_with_the_others(
    raw: Path, tmp_path: Path, penstock: Call
) -> None:
    raw_file(raw / "router-2", "three", DAY.start, DAY.end)
    said = penstock(*_asked(tmp_path, raw), "--delete")
    assert "\ndeleted: 3 files, " in said.out
    sample = read_sample(sample_path(tmp_path / "samples", DAY))
    assert sorted(sample.ids.to_pylist()) == [
        f"{name}-{i}" for name in ("one", "three", "two") for i in range(6)
    ]


def test_a_day_is_sampled_once_the_files_that_may_hold_it_are_whole(
    raw: Path, tmp_path: Path, penstock: Call
) -> None:
    name = "requests-20260901T230000Z-router-00001.tfrecord"
    made = raw_file(raw, name[9:-9], DAY.end - 3_000, DAY.end + 3_000)
    written = made.rename(raw / f"{name}.partial")
    said = penstock(*_asked(tmp_path, raw), "--delete")
    assert said.code == 0 and "deleted: nothing" in said.out
    assert (
        f"not sampled 2026-09-01: '{name}.partial' is still being written, or was left"
    ) in " ".join(said.out.split())
    assert not (tmp_path / "samples").exists()
    assert penstock(*_asked(tmp_path, raw), "--json").json["sampled"] == []
    written.rename(raw / name)
    said = penstock(*_asked(tmp_path, raw))
    assert read_sample(sample_path(tmp_path / "samples", DAY)).rows == 15
    # One that began when the day was long over keeps nothing of it waiting.
    sample_path(tmp_path / "samples", DAY).unlink()
    raw_file(raw, "now", DAY.end + 9_000, DAY.end + 9_100).rename(
        raw / f"{name}.partial"
    )
    assert penstock(*_asked(tmp_path, raw), "--json").json["sampled"] == ["2026-09-01"]


def test_a_day_on_which_a_version_went_live_is_sampled(
    raw: Path, tmp_path: Path, penstock: Call
) -> None:
    later = predict_log(
        {"id": ["v8"], "x": [1.0]}, {"y": [0.5]}, time=DAY.end - 9, version=8
    )
    age(write(raw / "requests-later.tfrecord", [later]), DAY.end)
    said = penstock(*_asked(tmp_path, raw))
    assert said.code == 0, said.err
    versions = read_sample(sample_path(tmp_path / "samples", DAY)).versions
    assert versions == {"7": 12, "8": 1}


def test_a_day_without_requests_between_two_does_not_stop_it(
    raw: Path, tmp_path: Path, penstock: Call
) -> None:
    raw_file(raw, "gap", DAY.end + 100, DAY.end + 3 * 86_400, count=2)
    said = penstock(*_asked(tmp_path, raw), "--json")
    assert said.code == 0, said.err
    assert said.json["sampled"] == [
        "2026-09-01",
        "2026-09-02",
        "2026-09-03",
        "2026-09-04",
    ]
    empty = Window(DAY.end + 86_400, DAY.end + 2 * 86_400)
    assert read_sample(sample_path(tmp_path / "samples", empty)).rows == 0


def test_what_came_to_a_day_after_its_sample_stays(
    raw: Path, tmp_path: Path, penstock: Call
) -> None:
    penstock(*_asked(tmp_path, raw))
    late = raw_file(raw, "late", DAY.start, DAY.end)
    os.utime(sample_path(tmp_path / "samples", DAY), (DAY.end + 30, DAY.end + 30))
    said = penstock(*_asked(tmp_path, raw), "--delete")
    assert late.exists() and "\ndeleted: nothing, " in said.out
    assert (
        "A log was changed after the sample of 2026-09-01 was made, which may lack its "
        "rows. Remove that sample, and sample the window again."
    ) in " ".join(said.out.split())
    sample_path(tmp_path / "samples", DAY).unlink()
    said = penstock(*_asked(tmp_path, raw), "--delete")
    assert "\ndeleted: 3 files, " in said.out
    assert read_sample(sample_path(tmp_path / "samples", DAY)).rows == 18
