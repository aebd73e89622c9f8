"""The verbs for logs: old ones are sampled, listed and deleted, held ones stay."""

from __future__ import annotations

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
from tests.components.monitoring.test_tiers import raw_file
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
