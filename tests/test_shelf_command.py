"""Verbs for the versions of a serving directory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.import_time import HEAVY
from penstock.components.serving.ledger import Ledger
from penstock.components.serving.routing import Routing, route
from penstock.components.serving.version_dir import push, versions
from tests.conftest import Said


@pytest.fixture
def serving(tmp_path: Path) -> Path:
    """A serving directory with versions 1 to 3 of five bytes each."""
    model = tmp_path / "model"
    model.mkdir()
    for number in (1, 2, 3):
        (model / "saved_model.pb").write_bytes(b"no. %d" % number)
        push(tmp_path / "serving", model, model_uri=f"/m/{number}", run_id="r")
    return tmp_path / "serving"


def to(serving: Path, routing: Routing) -> None:
    with Ledger(serving) as ledger, ledger.writing() as transaction:
        route(transaction, routing, transaction.event("step", routing.candidate))


def numbers(serving: Path) -> list[int]:
    return [each.number for each in versions(serving)]


# --- versions


def test_versions_says_how_each_stands(
    serving: Path, penstock: Callable[..., Said]
) -> None:
    to(serving, Routing(stable=2, previous=1, candidate=3, weight=0.05))
    penstock("pin", serving, 1, "--name", "audit", "--reason", "They look at [it].")
    said = penstock("versions", serving)
    assert (said.code, said.err) == (0, "")
    header, *rows = said.out.splitlines()
    assert header.split() == [
        *("version", "state", "standing", "pushed", "size", "digest", "model")
    ]
    one, two, three = rows
    assert "stable before; pinned 'audit': They look at [it] " in one
    assert "complete  stable, 95 % " in two and "candidate, 5 % " in three
    listed = penstock("versions", serving, "--json").json
    assert [each["weight"] for each in listed] == [0, 0.95, 0.05]
    assert listed[0]["pins"] == {"audit": "They look at [it]."}
    assert listed[1]["is_stable"] and listed[1]["remarks"] == ["stable, 95 %"]


def test_versions_tells_what_somebody_should_look_at(
    serving: Path, penstock: Callable[..., Said]
) -> None:
    (serving / "1").rename(serving / "somewhere")
    (serving / "2" / "saved_model.pb").unlink()
    assert penstock("quarantine", serving, 3, "--reason", "It fails.").code == 0
    said = penstock("versions", serving)
    lines = [line.rstrip() for line in said.out.splitlines()]
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["1", "missing"],
        ["2", "damaged"],
        ["3", "complete"],
    ]
    assert "quarantined: It fails " in lines[3]
    assert lines[4:] == [
        "Version 1 is missing: something other than penstock deleted or moved it. Put "
        "it back, or push its model again.",
        "Version 2 is damaged: it does not hold the files that were pushed. 'penstock "
        "verify' names them.",
    ]


@pytest.mark.parametrize("verb", ["versions", "verify"])
def test_what_is_no_serving_directory_gets_a_sentence(
    tmp_path: Path, penstock: Callable[..., Said], verb: str
) -> None:
    where = f"Serving directory '{tmp_path}"
    file = tmp_path / "file"
    file.touch()
    cure = "Pass the folder that holds the numbered versions.\n"
    assert penstock(verb, file) == (1, "", f"{where}/file' is a file. {cure}")
    gone = penstock(verb, tmp_path / "x")
    assert gone == (1, "", f"{where}/x' does not exist. {cure}")
    said = penstock(verb, "gs://models/taxi")
    assert said.code == 1
    assert said.err.startswith("Serving directory 'gs:/models/taxi' is a URL, where ")


# --- verify


def test_verify_compares_all_versions_or_one(
    serving: Path, penstock: Callable[..., Said]
) -> None:
    penstock("quarantine", serving, 3, "--reason", "x")
    (serving / "9").mkdir()
    said = penstock("verify", serving)
    assert said == (
        0,
        "Version 1 is as it was pushed.\n"
        "Version 2 is as it was pushed.\n"
        "Version 3 is as it was pushed.\n"
        "Version 9 was not pushed by penstock: there is nothing to compare it with.\n",
        "",
    )
    (serving / "2" / "saved_model.pb").write_bytes(b"no. Z")
    (serving / "2" / "more").touch()
    said = penstock("verify", serving, 2)
    assert (said.code, said.err) == (3, "")
    more, graph = said.out.splitlines()
    assert more == "Version 2 differs: 'more' is not in the manifest."
    assert graph.startswith("Version 2 differs: 'saved_model.pb' has the SHA-256 ")
    (serving / "1").rename(serving / "somewhere")
    said = penstock("verify", serving, "--json")
    assert said.code == 3
    counts = {number: len(each) for number, each in said.json.items()}
    assert counts == {"1": 1, "2": 2, "3": 0}
    assert said.json["1"] == ["It is missing."]
    assert penstock("verify", serving, 1).code == 3


def test_verify_of_what_is_not_there_gets_a_sentence(
    serving: Path, tmp_path: Path, penstock: Callable[..., Said]
) -> None:
    assert penstock("verify", serving, 7) == (
        1,
        "",
        f"Serving directory '{serving}' has no version 7 (it has 1, 2, 3). Name one of "
        "these.\n",
    )
    (tmp_path / "empty").mkdir()
    assert penstock("verify", tmp_path / "empty") == (
        1,
        "",
        f"Serving directory '{tmp_path}/empty' has no versions, so there is nothing to "
        "compare. Push a model first, or name the folder that holds the numbered "
        "versions.\n",
    )
    (serving / "9").mkdir()
    said = penstock("verify", serving, 9)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"Version 9 in '{serving}' has no manifest: it was not ")
    assert list((tmp_path / "empty").iterdir()) == []


# --- pin, quarantine


def test_a_version_is_pinned_and_unpinned(
    serving: Path, penstock: Callable[..., Said]
) -> None:
    named = ("--name", "audit", "--reason")
    said = penstock("pin", serving, 1, *named, "They look at it.")
    assert said == (0, "Version 1 is pinned as 'audit': They look at it.\n", "")
    said = penstock("pin", serving, 1, *named, "Done.", "--unpin", "--json")
    assert said.json == {"action": "unpin", "version": 1, "reason": "Done."}
    assert penstock("versions", serving, "--json").json[0]["pins"] == {}
    said = penstock("pin", serving, 1, *named, "Done.", "--unpin")
    assert said.code == 1 and "has no pin 'audit' (it has none)" in said.err


@pytest.mark.parametrize("given", [["--name", "x"], ["--reason", "x"]])
def test_a_pin_without_name_or_reason_is_a_wrong_call(
    serving: Path, penstock: Callable[..., Said], given: list[str]
) -> None:
    said = penstock("pin", serving, 1, *given)
    assert said.code == 2
    assert "Pass --name NAME and --reason TEXT." in said.err


def test_a_version_is_quarantined_and_released(
    serving: Path, penstock: Callable[..., Said]
) -> None:
    said = penstock("quarantine", serving, 3, "--reason", "It fails for 'cash'.")
    assert said == (0, "Version 3 is quarantined: It fails for 'cash'.\n", "")
    assert numbers(serving) == [1, 2]
    said = penstock("quarantine", serving, 3, "--reason", "Again.")
    assert said == (0, "Version 3 is quarantined: It fails for 'cash'.\n", "")
    said = penstock("quarantine", serving, 3, "--release", "--reason", "It does not.")
    assert said == (0, "Version 3 is released: It does not.\n", "")
    assert numbers(serving) == [1, 2, 3]
    to(serving, Routing(stable=3))
    said = penstock("quarantine", serving, 3, "--reason", "x")
    assert (said.code, said.out) == (1, "")
    assert "cannot be quarantined: it is stable, so that 100% of" in said.err
    assert penstock("quarantine", serving, 3).code == 2


# --- retain


def test_old_versions_are_listed_and_deleted(
    serving: Path, penstock: Callable[..., Said]
) -> None:
    to(serving, Routing(stable=1))
    options = ("--keep", "1", "--younger-than", "0s")
    said = penstock("retain", serving, *options)
    assert (said.code, said.err) == (0, "")
    header, *rows, total, hint = said.out.splitlines()
    assert header.split() == ["version", "size", "because"]
    assert [" ".join(row.split()) for row in rows] == [
        "1 5 kept it is stable",
        "2 5 would be deleted",
        "3 5 kept it is one of the last 1",
    ]
    assert total == "would be deleted: 1 version, 5 bytes"
    assert hint == "Nothing is deleted yet: --delete does it."
    assert numbers(serving) == [1, 2, 3]
    said = penstock("retain", serving, *options, "--delete", "--json")
    assert said.json["deleted"] and said.json["size"] == 5
    assert [each["version"] for each in said.json["old"]] == [2]
    assert [(e["version"], e["reason"]) for e in said.json["kept"]] == [
        (1, "it is stable"),
        (3, "it is one of the last 1"),
    ]
    assert numbers(serving) == [1, 3]
    said = penstock("retain", serving, *options, "--delete")
    assert said.out.endswith("deleted: nothing, 0 bytes\n")


def test_versions_of_today_are_kept_unless_said(
    serving: Path, penstock: Callable[..., Said]
) -> None:
    said = penstock("retain", serving, "--keep", "1", "--delete")
    assert said.out.endswith("deleted: nothing, 0 bytes\n")
    assert "it is young: it was pushed at 20" in said.out


def test_a_retention_without_a_number_is_a_wrong_call(
    serving: Path, penstock: Callable[..., Said]
) -> None:
    assert penstock("retain", serving).code == 2
    assert penstock("retain", serving, "--keep", "0").code == 2
    said = penstock("retain", serving, "--keep", "1", "--younger-than", "soon")
    assert said.code == 2 and "'soon' is no length of time." in said.err


# --- cost


@pytest.mark.parametrize(
    "arguments",
    [
        ["versions"],
        ["verify", "1"],
        ["pin", "1", "--name", "n", "--reason", "r"],
        ["quarantine", "1", "--reason", "r"],
        ["retain", "--keep", "1", "--younger-than", "0s", "--delete"],
    ],
)
def test_no_verb_loads_what_takes_long(serving: Path, arguments: list[str]) -> None:
    verb, *rest = arguments
    code = (
        "import json, sys\n"
        "from penstock.__main__ import command_line\n"
        f"sys.argv = {['penstock', verb, str(serving), *rest]}\n"
        "assert command_line() == 0\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert [name for name in loaded if name in HEAVY] == []
