"""What is deleted below a root and how, and that nothing else ever is."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from penstock.pipelines import overrides, pins
from penstock.pipelines.housekeeping import (
    What,
    delete_garbage,
    find_garbage,
)
from penstock.pipelines.inputs import Import, Latest, LatestBlessed
from penstock.pipelines.metadata import RunState, Store
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.retention import Policy, Why
from penstock.pipelines.run import run
from penstock.pipelines.runners import LocalRunner
from penstock.schemas.artifacts import ArtifactState, Examples, Model
from penstock.schemas.errors import DataError, PipelineError
from tests.pipelines.histories import (
    NOTHING,
    NOW,
    History,
    alive,
    deleted,
    dumped,
    found,
    gone,
    model_of,
    reasons,
    tree,
)
from tests.pipelines.toys import Fit, Make, toy

# Places ----------------------------------------------------------------------------


def test_what_shares_its_place_with_something_kept_is_kept(tmp_path: Path) -> None:
    history = History(tmp_path / "root")
    serving = tmp_path / "serving"
    (serving / "1").mkdir(parents=True)
    run_id = history.run(days_ago=90)
    made = history.execute(
        run_id, "Make", {}, {key: ("Examples", key, {}) for key in "abcd"}
    )
    places = {key: history.artifacts[number].path for key, number in made.items()}
    (tmp_path / "link").symlink_to(places["a"])
    shared = [
        history.record(str(tmp_path / "link"), is_external=True),
        history.record(str(places["b"] / "data"), is_external=True),
        history.record(f"file://{places['c'].parent}", is_external=True),
    ]
    history.execute(
        history.run(days_ago=90),
        "Push",
        {"read": shared},
        {
            "pushed": (
                "PushedModel",
                "",
                {"pushed_destination": f"{serving}/1", "pushed_version": "1"},
            )
        },
    )
    kept = reasons(found(history))
    for key, other in zip("abc", shared, strict=True):
        assert kept[made[key]] == (
            f"shared: Examples {other}, which is kept, lies there too"
        )
    assert made["d"] not in kept
    assert deleted(history) == {made["d"]}


def test_what_others_recorded_of_a_place_goes_with_it(tmp_path: Path) -> None:
    """An artifact without bytes is never LIVE."""
    history = History(tmp_path)
    made = history.model(history.run(days_ago=90), blessed=False)
    place = history.artifacts[made["examples"]].path
    copies = {
        history.record(str(place), is_external=True),
        history.record(f"{place}/data", is_external=True),
    }
    other = history.record(str(tmp_path / "elsewhere"), is_external=True)
    garbage = found(history)
    assert garbage.untouched == {"external": 1}
    assert deleted(history) == {*made.values(), *copies}
    assert history.states()[other] == "LIVE"


@pytest.mark.parametrize(
    "uri",
    [
        "{outside}",
        "{root}/../outside",
        "{root}/p/Make/examples/../../../../outside",
        "{root}/p/Make/examples/link",
        "{root}/linked/examples/{id}",
        "{root}",
        "/",
        "..",
        "{root}/.penstock/runs/run-0",
        "{root}/p",
        "{root}/p/Make",
        "{root}/p/Make/examples",
        "{root}/p/Make/examples/{id}/data",
        "{root}/p/Make/other/{id}",
        "{root}/q/Make/examples/{id}",
        "{root}/precious",
        "file://{outside}",
        "gs://{outside}",
        "file://{root}/../outside",
        "",
        "~",
        "$HOME",
    ],
)
def test_no_location_of_a_foreign_store_leads_out_of_the_root(
    tmp_path: Path, uri: str
) -> None:
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    history = History(root)
    made = history.execute(
        *(history.run(days_ago=90), "Make", {}),
        {"examples": ("Examples", "rows", {})},
    )["examples"]
    place = history.artifacts[made].path
    for folder in (
        *(outside, root / "precious", root / "q" / "Make" / "examples" / place.name),
        *(
            root / "p" / "Make" / "other" / place.name,
            outside / "examples" / place.name,
        ),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "precious").write_text("precious")
    (place.parent / "link").symlink_to(outside)
    (root / "linked").symlink_to(outside)
    history.move(made, uri.format(outside=outside, root=root, id=place.name))
    before = tree(tmp_path)
    garbage = found(history)
    assert garbage.of(What.ARTIFACT) == ()
    assert sum(garbage.untouched.values()) == 1
    deleted_now = delete_garbage(history.store(), root, NOTHING, now=NOW)
    assert {each.what for each in deleted_now.items} <= {What.RUN}
    assert {
        each: text
        for each, text in tree(tmp_path).items()
        if "runs" not in each and "sqlite" not in each
    } == {
        each: text
        for each, text in before.items()
        if "runs" not in each and "sqlite" not in each
    }
    assert history.states() == {made: "LIVE"}


def test_names_of_a_foreign_store_lead_nowhere_either(tmp_path: Path) -> None:
    """A pipeline that calls itself '..' or '.penstock' owns nothing."""
    for name in ("..", ".penstock", "."):
        history = History(tmp_path / "root")
        run_id = history.run(name, days_ago=90)
        history.execute(run_id, "Make", {}, {"examples": ("Examples", "rows", {})})
        before = tree(tmp_path, ".penstock/runs")
        delete_garbage(history.store(), history.root, NOTHING, now=NOW)
        assert tree(tmp_path, ".penstock/runs") == before
        assert set(history.states().values()) == {"LIVE"}
        shutil.rmtree(tmp_path)


def test_two_stores_may_share_a_root_and_number_alike(tmp_path: Path) -> None:
    pipeline = Pipeline("p", [Make()])
    stores = [f"sqlite:///{tmp_path / name}.sqlite" for name in "ab"]
    made = [
        run(pipeline, tmp_path, store=each, runner=LocalRunner())["Make"].outputs
        for each in stores
    ]
    places = [each["examples"].path for each in made]
    assert places[0].parent == places[1].parent
    later = time.time() + 1
    for number, url in enumerate(stores):
        delete_garbage(Store(url), tmp_path, NOTHING, now=later)
        assert [each.exists() for each in places] == [False, number == 0]


def test_links_are_not_followed(tmp_path: Path) -> None:
    history = History(tmp_path / "root")
    made = history.model(history.run(days_ago=90), blessed=False)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    (history.artifacts[made["model"]].path / "link").symlink_to(outside)
    (history.artifacts[made["model"]].path / "file").symlink_to(outside / "precious")
    assert deleted(history) == set(made.values())
    assert (outside / "precious").read_text() == "precious"


def test_a_link_to_the_root_is_the_root(tmp_path: Path) -> None:
    history = History(tmp_path / "root")
    (tmp_path / "link").symlink_to(tmp_path / "root")
    made = history.model(history.run(days_ago=90), blessed=False)
    for number in made.values():
        path = history.artifacts[number].path.relative_to(tmp_path / "root")
        history.move(number, str(tmp_path / "link" / path))
    delete_garbage(history.store(), tmp_path / "link", NOTHING, now=NOW)
    assert gone(history) == set(made.values())


def test_what_something_else_made_is_left_alone(tmp_path: Path) -> None:
    history = History(tmp_path)
    made = history.model(history.run(days_ago=90), blessed=False)
    foreign = history.artifacts[made["model"]]
    (execution,) = history.raw.get_executions_by_id([foreign.writer])
    del execution.custom_properties["penstock_component"]
    history.raw.put_executions([execution])
    lone = history.record(str(tmp_path / "p" / "Lone" / "examples" / "1"))
    outside = history.record("/somewhere/else")
    assert found(history).untouched == {
        "not made by penstock": 2,
        "not below the root": 1,
    }
    assert deleted(history) == set(made.values()) - {foreign.id}
    assert {history.states()[each] for each in (lone, outside)} == {"LIVE"}


def test_what_somebody_said_is_kept(tmp_path: Path) -> None:
    history = History(tmp_path)
    made = history.model(history.run(days_ago=90), blessed=False)
    store = history.store()
    blocked = overrides.block(store, tmp_path, model_of(store, made["model"]), "is bad")
    assert deleted(history) == set(made.values())
    assert blocked.path.is_dir()
    assert reasons(found(history)) == {
        blocked.id: "said: it records what 'penstock bless' was told"
    }
    entry = overrides.block_list(store).entry(model_of(store, made["model"]))
    assert entry is not None


def test_bytes_that_are_gone_already_have_no_size(tmp_path: Path) -> None:
    history = History(tmp_path)
    made = history.model(history.run(days_ago=90), blessed=False)
    for number in made.values():
        shutil.rmtree(history.artifacts[number].path)
    (item, *_) = found(history).of(What.ARTIFACT)
    assert item.size_bytes == 0
    assert deleted(history) == set(made.values())


# Runs, code and folders ------------------------------------------------------------


def test_folders_of_runs_go_when_nothing_is_left_that_they_wrote(
    tmp_path: Path,
) -> None:
    history = History(tmp_path)
    old, taking, failed, partly, locked, killed, new = (
        history.run(days_ago=days, log="x" * 10) for days in (90, 89, 88, 87, 86, 85, 1)
    )
    pinned = history.model(old, "a", blessed=False)
    history.execute(taking, "Make", {}, cached={"examples": pinned["examples"]})
    history.execute(failed, "Fail", state="failed")
    history.model(partly, "b", blessed=False)
    store = history.store()
    pins.pin(store, store.artifact(pinned["examples"]), "good")
    runs = tmp_path / ".penstock" / "runs"
    (tmp_path / ".penstock" / "live").mkdir()
    (tmp_path / ".penstock" / "live" / killed).touch()
    policy = Policy(runs=0, blessed=0)
    with alive(runs / locked):
        garbage = found(history, policy)
    # What it took from the cache another run wrote.
    removable = {taking, failed, partly}
    assert {each.path.name for each in garbage.of(What.RUN)} == removable
    assert {each.size_bytes for each in garbage.of(What.RUN)} == {10}
    deleted(history, policy)
    # By then what was killed is put right.
    assert {each.name for each in runs.iterdir()} == {old, new}


def test_what_another_store_knows_of_the_same_root_is_left_alone(
    tmp_path: Path,
) -> None:
    history = History(tmp_path)
    history.model(history.run(days_ago=90), blessed=False)
    runs = tmp_path / ".penstock" / "runs"
    (runs / "begun").mkdir()  # killed before the store knew
    code = tmp_path / ".penstock" / "code"
    code.mkdir()
    (code / ("a" * 64)).write_text("a")
    assert len(found(history).of(What.SOURCE)) == 1
    (runs / "other").mkdir()
    (runs / "other" / "run.log").write_text("log")
    garbage = found(history)
    assert garbage.of(What.SOURCE) == ()
    assert garbage.remarks == (
        f"Run 'other' below '{tmp_path}' is not in this lineage store. Another one "
        "seems to share the root, so the sources of all code are kept.",
    )
    deleted(history)
    assert {each.name for each in runs.iterdir()} == {"begun", "other"}
    assert (code / ("a" * 64)).exists()


def source(folder: Path, letter: str, *names: str) -> str:
    """Write a list of sources, and the sources; return the digest of the code."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / (name * 64)).write_text(f"source {name}")
    digest = letter * 64
    said = {"files": {f"module_{name}": f"sha256:{name * 64}" for name in names}}
    (folder / f"{digest}.json").write_text(json.dumps(said))
    return digest


def test_sources_go_when_no_kept_execution_ran_them(tmp_path: Path) -> None:
    history = History(tmp_path)
    folder = tmp_path / ".penstock" / "code"
    old = source(folder, "1", "a", "b")
    kept = source(folder, "2", "b", "c")
    (folder / "notes.txt").write_text("mine")
    (folder / ("d" * 64)).write_text("source d")
    history.model(history.run(days_ago=90), "x", blessed=False, code=old)
    made = history.model(history.run(days_ago=90), "y", blessed=False, code=kept)
    store = history.store()
    pins.pin(store, store.artifact(made["model"]), "good")
    removed = {each.path.name for each in found(history).of(What.SOURCE)}
    assert removed == {f"{old}.json", "a" * 64, "d" * 64}
    deleted(history)
    assert {each.name for each in folder.iterdir()} == {
        *("b" * 64, "c" * 64, f"{kept}.json", "notes.txt")
    }


def test_sources_of_a_kept_run_that_failed_are_kept(tmp_path: Path) -> None:
    history = History(tmp_path)
    folder = tmp_path / ".penstock" / "code"
    digest = source(folder, "1", "a")
    history.execute(history.run(days_ago=1), "Fail", state="failed", code=digest)
    assert found(history, Policy()).of(What.SOURCE) == ()
    assert len(found(history).of(What.SOURCE)) == 2


def test_lists_of_packages_go_when_no_kept_execution_names_them(
    tmp_path: Path,
) -> None:
    history = History(tmp_path)
    folder = tmp_path / ".penstock" / "environments"
    folder.mkdir(parents=True)
    for letter in "ab":
        (folder / f"{letter * 64}.txt").write_text(f"package {letter}")
    (folder / "notes.txt").write_text("mine")
    made = history.model(history.run(days_ago=90), blessed=False)
    (execution,) = history.raw.get_executions_by_id([2])
    said = execution.custom_properties["penstock_environment_packages"]
    said.string_value = f"sha256:{'b' * 64}"
    history.raw.put_executions([execution])
    store = history.store()
    pins.pin(store, store.artifact(made["model"]), "good")
    (item,) = found(history).of(What.ENVIRONMENT)
    assert (item.path.name, item.size_bytes) == (f"{'a' * 64}.txt", 9)
    deleted(history)
    assert {each.name for each in folder.iterdir()} == {f"{'b' * 64}.txt", "notes.txt"}


def test_a_list_of_sources_that_is_broken_gets_a_sentence(tmp_path: Path) -> None:
    history = History(tmp_path)
    folder = tmp_path / ".penstock" / "code"
    digest = source(folder, "1", "a")
    history.execute(history.run(), "Make", code=digest)
    index = folder / f"{digest}.json"
    index.write_text("{")
    with pytest.raises(DataError) as raised:
        found(history, Policy())
    assert str(raised.value) == (
        f"'{index}', which lists the code of executions, is no JSON: Expecting "
        "property name enclosed in double quotes: line 1 column 2 (char 1). Remove it "
        "to give up these sources, and run 'penstock gc' again."
    )


def test_empty_folders_go_and_others_stay(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.model(history.run(days_ago=90), blessed=False)
    temporary = tmp_path / "p" / "Fit" / ".tmp"
    temporary.mkdir()
    mine = tmp_path / "p" / "Fit" / "notes.txt"
    mine.write_text("mine")
    (tmp_path / "empty").mkdir()  # no pipeline's
    deleted(history)
    left = {"p", "p/Fit", "p/Fit/notes.txt", "empty"}
    assert set(tree(tmp_path, ".penstock")) == left
    mine.unlink()
    deleted(history)
    assert set(tree(tmp_path, ".penstock")) == {"empty"}


# Deletion --------------------------------------------------------------------------


def test_looking_changes_nothing(tmp_path: Path) -> None:
    history = History(tmp_path / "root")
    (tmp_path / "serving" / "1").mkdir(parents=True)
    history.model(history.run(days_ago=90), serving_dir=tmp_path / "serving")
    history.model(history.run(days_ago=90), blessed=False)
    before = tree(tmp_path), dumped(tmp_path / "root")
    assert found(history).items
    assert (tree(tmp_path), dumped(tmp_path / "root")) == before
    assert not (tmp_path / "root" / ".penstock" / "gc.lock").exists()


def test_a_folder_that_cannot_be_removed_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(tmp_path)
    made = history.model(history.run(days_ago=90), blessed=False)
    stuck = {history.artifacts[made[each]].path for each in ("model", "examples")}
    remove = shutil.rmtree

    def stubborn(path: Path) -> None:
        if path in stuck:
            raise PermissionError(13, "Permission denied", str(path))
        remove(path)

    with monkeypatch.context() as patched:
        patched.setattr("penstock.pipelines.housekeeping.shutil.rmtree", stubborn)
        with pytest.raises(DataError) as raised:
            delete_garbage(history.store(), tmp_path, NOTHING, now=NOW)
    assert str(raised.value) == (
        f"'{history.artifacts[made['examples']].path}' cannot be removed, nor can 1 "
        "more: Permission denied. The rest is deleted. Give yourself the right to "
        "remove it, and run 'penstock gc --delete' again."
    )
    states = history.states()
    for name, number in made.items():
        is_stuck = name in ("model", "examples")
        assert states[number] == ("MARKED_FOR_DELETION" if is_stuck else "DELETED")
        assert history.artifacts[number].path.exists() == is_stuck
    assert deleted(history) == set(made.values())
    assert tree(tmp_path) == {".penstock": "folder", ".penstock/runs": "folder"}


def test_a_link_that_came_meanwhile_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(tmp_path / "root")
    made = history.model(history.run(days_ago=90), blessed=False)["examples"]
    outside = tmp_path / "outside"
    place = history.artifacts[made].path
    mark = Store.set_artifact_state

    def swapped(store: Store, artifacts: Any, state: ArtifactState) -> None:
        if not outside.exists():
            place.parent.rename(outside)
            place.parent.symlink_to(outside)
        mark(store, artifacts, state)

    monkeypatch.setattr(Store, "set_artifact_state", swapped)
    with pytest.raises(DataError, match="a link leads there by now"):
        delete_garbage(history.store(), tmp_path / "root", NOTHING, now=NOW)
    assert (outside / place.name / "data").is_file()


def test_what_cannot_be_read_gets_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(tmp_path)
    history.model(history.run(days_ago=90), blessed=False)

    def closed(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", "/root/folder")

    monkeypatch.setattr(os, "walk", closed)
    with pytest.raises(DataError) as raised:
        found(history)
    assert str(raised.value) == (
        "'/root/folder' cannot be read: Permission denied. Give yourself the right to "
        "read it, and run 'penstock gc' again."
    )


def test_a_root_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    history = History(tmp_path / "root")
    for act in (find_garbage, delete_garbage):
        with pytest.raises(PipelineError) as raised:
            act(history.store(), tmp_path / "rot", NOTHING)
        assert str(raised.value) == (
            f"Root '{tmp_path / 'rot'}' is no folder that exists. Name the folder of "
            "artifacts and logs with --root."
        )
    assert not (tmp_path / "rot").exists()


def test_what_was_marked_and_is_kept_now_is_restored_if_it_is_whole(
    tmp_path: Path,
) -> None:
    history = History(tmp_path)
    made = history.model(history.run(days_ago=90), blessed=False)
    store = history.store()
    pins.pin(store, store.artifact(made["blessing"]), "good")
    history.mark(made["examples"])
    history.mark(made["model"])
    (history.artifacts[made["model"]].path / "data").unlink()  # half removed
    garbage = found(history)
    assert [each.id for each in garbage.restored] == [made["examples"]]
    assert history.states()[made["examples"]] == "MARKED_FOR_DELETION"
    assert deleted(history) == {made["model"]}
    assert found(history).items == ()
    assert found(history).restored == ()


def test_what_is_marked_in_another_root_is_left_to_its_own_housekeeping(
    tmp_path: Path,
) -> None:
    history = History(tmp_path / "root")
    made = history.model(history.run(), blessed=False)
    place = history.artifacts[made["model"]].path
    shutil.copytree(place, tmp_path / "elsewhere")
    history.move(made["model"], str(tmp_path / "elsewhere"))
    history.mark(made["model"])
    delete_garbage(history.store(), history.root, Policy(), now=NOW)
    assert history.states()[made["model"]] == "MARKED_FOR_DELETION"
    assert (tmp_path / "elsewhere" / "data").is_file()


# Kills itself before or after one of the steps of a deletion.
CHILD = """
import os, shutil, signal, sys
from pathlib import Path
from penstock.pipelines import housekeeping
from penstock.pipelines.metadata import RunState, Store
from penstock.pipelines.retention import Policy, Why

root, kill_at = Path(sys.argv[1]), int(sys.argv[2])
points = 0

def reached():
    global points
    points += 1
    if points == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)

def hooked(owner, name):
    original = getattr(owner, name)
    def call(*args, **kwargs):
        reached()
        result = original(*args, **kwargs)
        reached()
        return result
    setattr(owner, name, call)

hooked(Store, "set_artifact_state")
hooked(os, "unlink")
hooked(os, "rmdir")
hooked(housekeeping, "sync")
housekeeping._BATCH = 2
policy = Policy(runs=0, blessed=0, younger_than_seconds=0)
store = Store(f"sqlite:///{root / 'metadata.sqlite'}")
housekeeping.delete_garbage(store, root, policy)
print(points)
"""


def killed_at(root: Path, point: int) -> int:
    """Delete below a root until a point; return how many there were, or 0."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, root, str(point)],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
    )
    if done.returncode == -signal.SIGKILL:
        return 0
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def history_to_kill(root: Path) -> tuple[History, set[int]]:
    """A history of which half goes; return that half too."""
    history = History(root)
    kept = history.model(history.run(days_ago=90), "a")
    gone = history.model(history.run(days_ago=90), "b", blessed=False)
    source(root / ".penstock" / "code", "1", "a")
    store = history.store()
    pins.pin(store, store.artifact(kept["model"]), "good")
    return history, set(gone.values())


def check_killed(root: Path, point: int) -> None:
    """Kill a deletion at a point; nothing may be lost, and the next one ends it."""
    history, gone_ones = history_to_kill(root)
    killed_at(root, point)
    states = history.states()
    for number, made in history.artifacts.items():
        if states[number] == "LIVE":
            assert (made.path / "data").is_file()
        else:
            assert number in gone_ones
        if states[number] == "DELETED":
            assert not made.path.exists()
    folder = root / ".penstock" / "code"
    for each in folder.glob("*.json"):
        assert all(
            (folder / name).exists() for name in re.findall("a{64}", each.read_text())
        )
    assert deleted(history) == gone_ones
    assert found(history).items == ()


@pytest.mark.parametrize("point", [1, 2, 4, 7])
def test_a_deletion_that_is_killed_is_ended_by_the_next(
    tmp_path: Path, point: int
) -> None:
    check_killed(tmp_path, point)


@pytest.mark.long
def test_a_deletion_may_be_killed_anywhere(tmp_path: Path) -> None:
    history_to_kill(tmp_path / "whole")
    points = killed_at(tmp_path / "whole", 0)
    assert points > 30
    for point in range(1, points + 1):
        check_killed(tmp_path / str(point), point)


def test_what_a_killed_run_left_is_put_right_before(tmp_path: Path) -> None:
    """Else it would count as going on, and be kept, until the next run."""
    root, started = tmp_path / "root", tmp_path / "started"
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from penstock.pipelines.run import run\n"
        "from penstock.pipelines.runners import LocalRunner\n"
        "from tests.pipelines.toys import waiting\n"
        "run(waiting(Path(sys.argv[2])), sys.argv[1], runner=LocalRunner())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, root, started],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    ) as child:
        while not started.exists() and child.poll() is None:
            time.sleep(0.01)
        child.kill()
    store = Store(f"sqlite:///{root / 'metadata.sqlite'}")
    later = time.time() + 1
    (kept,) = find_garbage(store, root, NOTHING, now=later).kept
    assert kept.reason.why is Why.RUNNING
    delete_garbage(store, root, NOTHING, now=later)
    (ended,) = store.runs()
    assert ended.state is RunState.ABANDONED
    assert [each.is_deleted for each in store.artifacts()] == [True]
    assert find_garbage(store, root, NOTHING, now=later).items == ()
    assert list((root / ".penstock" / "runs").iterdir()) == []


# Afterwards ------------------------------------------------------------------------


def test_what_is_deleted_is_never_resolved_again(tmp_path: Path) -> None:
    def candidate(name: str) -> Pipeline:
        make = Make(text=name)
        fit = Fit(examples=make.examples, baseline=LatestBlessed())
        ask = Fit(name="ask", examples=Latest(Examples))
        return Pipeline("toy", [make, fit, ask])

    first = run(toy(rows=3), tmp_path, runner=LocalRunner())
    store = Store(f"sqlite:///{tmp_path / 'metadata.sqlite'}")
    model = store.artifacts(Model)[0]
    store.set_artifact_state([model], ArtifactState.MARKED_FOR_DELETION)
    result = run(candidate("x"), tmp_path, runner=LocalRunner())
    assert "baseline" not in result["Fit"].inputs
    newest = store.artifacts(Examples)[-1]
    store.set_artifact_state([newest], ArtifactState.DELETED)
    ask = Fit(examples=Latest(Examples))
    result = run(Pipeline("toy", [ask]), tmp_path, runner=LocalRunner())
    assert (
        result["Fit"].inputs["examples"][0].id == first["Make"].outputs["examples"].id
    )


def test_bytes_that_come_again_are_the_same_artifact(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "Split-train").mkdir(parents=True)
    (folder / "Split-train" / "data").write_text("rows")
    root = tmp_path / "root"
    pipeline = Pipeline("p", [Fit(examples=Import(folder, Examples))])
    read = [run(pipeline, root, runner=LocalRunner())["Fit"].inputs["examples"][0]]
    store = Store(f"sqlite:///{root / 'metadata.sqlite'}")
    store.set_artifact_state(read, ArtifactState.DELETED)
    again = run(pipeline, root, runner=LocalRunner())["Fit"].inputs["examples"][0]
    assert again.id == read[0].id is not None
    assert not store.artifact(again.id or 0).is_deleted


def test_a_model_that_is_being_deleted_is_not_blessed(tmp_path: Path) -> None:
    history = History(tmp_path)
    made = history.model(history.run(days_ago=90), blessed=False)
    history.mark(made["model"])
    store = history.store()
    model = model_of(store, made["model"])
    assert model.state is ArtifactState.MARKED_FOR_DELETION
    with pytest.raises(DataError) as raised:
        overrides.force(store, tmp_path, model, "because")
    assert str(raised.value) == (
        f"Model {model.id} is not at '{model.uri}' any more. It was moved or deleted: "
        "train it again."
    )


def test_the_store_keeps_all_else_of_what_is_deleted(tmp_path: Path) -> None:
    run(toy(), tmp_path, runner=LocalRunner())
    store = Store(f"sqlite:///{tmp_path / 'metadata.sqlite'}")
    before = store.artifacts()
    store.set_artifact_state(before[:2], ArtifactState.DELETED)
    after = store.artifacts()
    assert [each.is_deleted for each in after] == [True, True, False, False, False]
    for one, other in zip(before, after, strict=True):
        assert (one.uri, one.properties, one.digest) == (
            *(other.uri, other.properties, other.digest),
        )
    remarks = overrides.Remarks([])
    assert [remarks.of(each) for each in after[:3]] == [
        *({"deleted": "by housekeeping"}, {"deleted": "by housekeeping"}, {})
    ]
