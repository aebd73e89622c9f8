"""The verbs of rollouts on the command line, without a model server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.components.serving.rollout.state import state_of
from penstock.components.serving.routing import routing_of
from penstock.components.serving.version_dir import push
from tests.components.serving.rollout.worlds import World
from tests.components.serving.server_double import running_double
from tests.conftest import Said

Call = Callable[..., Said]
SERVER = "--server=127.0.0.1:1"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.stable(1)
    made.controller.close()  # nobody controls what the verbs start
    yield made
    made.close()


@pytest.fixture
def plan(tmp_path: Path) -> str:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({"model": "ranker", "steps": [5, 100]}))
    return f"--plan={file}"


def test_a_rollout_is_started_watched_held_and_aborted(
    world: World, penstock: Call, plan: str
) -> None:
    where = world.directory
    started = penstock("rollout", "start", where, "2", SERVER, plan, "--no-wait")
    assert started.code == 0, started.err
    assert "The rollout of version 2 is loading." in started.out
    assert f"Nobody controls it: penstock rollout resume {where}" in started.out
    world.controller = world.new_controller()
    world.live(5)

    status = penstock("rollout", "status", where)
    assert status.code == 4
    assert "Version 1 is stable." in status.out
    assert re.search(r"at step 1 of 2 \(5 %\), watched for \d+s of 10m\.", status.out)
    assert re.search(r"errors +no data", status.out)
    assert re.search(r"\d  answers 5 % of units", status.out)
    assert re.search(r"It is controlled by process \d+ of '", status.out)

    held = penstock("rollout", "hold", where, "--reason=Release day.")
    assert (held.code, held.out.strip()) == (
        0,
        "The rollout of version 2 stays at 5 % until it is resumed.",
    )
    resumed = penstock("rollout", "resume", where, "--no-wait", "--json")
    assert resumed.json["rollout"]["held"] == ""
    assert resumed.json["rollout"]["phase"] == "step"
    assert resumed.json["guards"][0]["name"] == "errors"

    world.crowd.live(0)
    aborted = penstock("rollout", "abort", where, "--reason=No.")
    assert aborted.code == 0
    assert "Version 1 answers everybody." in aborted.out
    assert world.routing.weight == 0
    assert penstock("rollout", "status", where).code == 3


@pytest.mark.parametrize(
    ("verb", "phase"), [(["abort"], "rolling back"), (["promote", "--yes"], "promoted")]
)
def test_what_was_done_to_a_rollout_is_told_as_json(
    world: World, penstock: Call, plan: str, verb: list[str], phase: str
) -> None:
    where = world.directory
    penstock("rollout", "start", where, "2", SERVER, plan, "--no-wait")
    world.controller = world.new_controller()
    world.live(5)
    held = penstock("rollout", "hold", where, "--reason=Still.", "--json")
    assert held.json["rollout"]["held"] == "Still."
    said = penstock("rollout", *verb, where, "--reason=So.", "--json")
    assert said.code == 0, said.err
    assert said.json["rollout"]["phase"] == phase


def test_a_promotion_is_asked_for(
    world: World, penstock: Call, plan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = world.directory
    penstock("rollout", "start", where, "2", SERVER, plan, "--no-wait")
    world.controller = world.new_controller()
    world.live(5)
    monkeypatch.setattr("typer.confirm", lambda text, abort: _refuses(text))
    with pytest.raises(Refused, match=r"version 2 now, which answers 5 % of units\?"):
        penstock("rollout", "promote", where, "--reason=Urgent.")
    promoted = penstock("rollout", "promote", where, "--reason=Urgent.", "--yes")
    assert promoted.code == 0
    assert f"penstock rollback {where} --reason TEXT" in promoted.out
    assert penstock("rollout", "status", where).code == 0
    back = penstock("rollback", where, "--reason=It burns.", "--json")
    assert back.code == 0 and back.json["stable"] == 1


def test_a_server_that_is_not_there_stops_a_rollout_before_it_begins(
    world: World, penstock: Call, plan: str
) -> None:
    before = world.ledger.events()
    said = penstock("rollout", "start", world.directory, "2", SERVER, plan)
    assert said.code == 1 and "'127.0.0.1:1'" in said.err
    assert world.ledger.events() == before


def test_a_server_that_moved_is_named_on_resuming(
    world: World, penstock: Call, plan: str
) -> None:
    where = world.directory
    penstock("rollout", "start", where, "2", SERVER, plan, "--no-wait")
    said = penstock("rollout", "resume", where, "--server=127.0.0.1:2", "--no-wait")
    assert said.code == 0
    assert world.ledger.fact("server")["address"] == "127.0.0.1:2"
    said = penstock("rollout", "resume", where, "--server=nowhere", "--no-wait")
    assert said.code == 1 and "'nowhere'" in said.err


def test_what_is_stable_is_loaded_again_after_a_restart(
    world: World, penstock: Call, plan: str
) -> None:
    where = world.directory
    with running_double() as server:
        server.start_anew()
        with world.ledger.writing() as transaction:
            transaction.hold("server", {"model": "ranker", "address": server.address})
        said = penstock("rollout", "resume", where)
        assert said.code == 0 and "Version 1 is stable." in said.out
        assert server.available("ranker__v1") == [1]


class Refused(BaseException):
    """What a prompt was about that got no answer."""


def _refuses(text: str) -> None:
    raise Refused(text)


def test_what_is_done_is_told_as_it_is(
    world: World, penstock: Call, plan: str, tmp_path: Path
) -> None:
    where = world.directory
    labels = ("--layout=labels", "--no-wait")
    penstock("rollout", "start", where, "2", SERVER, plan, *labels)
    aborted = penstock("rollout", "abort", where, "--reason=No.")
    lines = aborted.out.splitlines()
    assert lines[0] == "Version 2 is taken back. Version 1 answers everybody."
    assert lines[1].startswith(
        "Who comes through no router is answered as before: The model server at "
        "'127.0.0.1:1' cannot be reached"
    )
    assert lines[-1] == (
        "Nobody controls the rollout: version 2 stays loaded until: penstock rollout "
        f"resume {where}"
    )
    world.controller = world.new_controller()
    world.live(5)
    traffic = where / ".penstock" / "traffic.sqlite"
    penstock("rollout", "start", where, "2", SERVER, plan, "--no-wait")
    world.live(5)
    world.crowd.close()
    world.controller.close()
    for each in traffic.parent.glob("traffic.sqlite*"):
        each.unlink()
    traffic.write_text("This is no database, whatever its name says.")
    status = penstock("rollout", "status", where)
    assert status.code == 4
    assert "What routers saw cannot be kept" in status.out
    back = penstock("rollback", where, "--reason=It burns.", "--json")
    assert back.code == 0, "it is done, whatever is known of the routers"
    assert (back.json["stable"], back.json["not_told"]) == (1, "")
    assert back.json["late"].startswith(
        "Whether routers follow is not known: What routers saw cannot be kept"
    )
    traffic.unlink()


def test_without_a_stable_version_none_is_said_to_answer(
    tmp_path: Path, penstock: Call, plan: str
) -> None:
    made = World(tmp_path)
    where = made.directory
    penstock("rollout", "start", where, "2", SERVER, plan, "--no-wait")
    aborted = penstock("rollout", "abort", where, "--reason=No.")
    said = "Version 2 is taken back. No version is stable."
    assert aborted.out.splitlines()[0] == said
    made.close()


def test_bad_input_gets_a_sentence(
    world: World, penstock: Call, plan: str, tmp_path: Path
) -> None:
    where = world.directory

    def refused(*arguments: str | Path) -> str:
        said = penstock(*arguments)
        assert said.code == 1 and said.out == ""
        return said.err.strip()

    start = ("rollout", "start", where)
    assert refused(*start, "9", SERVER, plan).startswith(
        f"Serving directory '{where}' has no version 9 (it has 1, 2, 3)."
    )
    number = push(where, tmp_path / "model-2").number
    assert "was pushed without a blessing" in refused(*start, str(number), SERVER, plan)
    said = refused(*start, "2", "--server=nowhere", plan)
    assert "'nowhere'" in said and "HOST:PORT" in said.upper()
    weights = tmp_path / "falling.json"
    weights.write_text(json.dumps({"model": "ranker", "steps": [50, 20]}))
    assert "20 does not rise above 50" in refused(
        *start, "2", SERVER, f"--plan={weights}"
    )
    assert "There is no plan" in refused(*start, "2", SERVER, "--plan=nowhere.json")
    assert "has no layout 'lanes'" in refused(
        *start, "2", SERVER, plan, "--layout=lanes"
    )
    assert "no rollout that could be held" in refused(
        "rollout", "hold", where, "--reason=x"
    )
    assert "There is no version to go back to" in refused(
        "rollback", where, "--reason=x"
    )
    token = tmp_path / "token"
    token.write_text("c0ffee")
    token.chmod(0o644)
    said = refused(*start, "2", SERVER, plan, f"--token-file={token}")
    assert "has the permissions 0644" in said and "c0ffee" not in said
    assert routing_of(world.ledger).candidate is None
    last = state_of(world.ledger)
    assert last is not None and last.candidate == 1


def test_a_rollback_loads_neither_tensorflow_nor_beam(world: World) -> None:
    script = (
        "import sys\n"
        f"where = {str(world.directory)!r}\n"
        "sys.argv = ['penstock', 'rollback', where, '--reason', 'x']\n"
        "from penstock.__main__ import command_line\n"
        "command_line()\n"
        "heavy = {'tensorflow', 'apache_beam', 'ml_metadata', 'pandas', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout == "[]\n"
    assert printed.stderr.startswith("There is no version to go back to")
