"""What a policy keeps, and why."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.pipelines import overrides, pins
from penstock.pipelines.housekeeping import delete_garbage, find_garbage
from penstock.pipelines.retention import Policy
from penstock.schemas.errors import PipelineError
from tests.pipelines.histories import (
    DAY,
    NOTHING,
    NOW,
    History,
    deleted,
    dumped,
    found,
    gone,
    model_of,
    reasons,
    size,
    tree,
)

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where to write many small stores, none of which is to survive a power cut."""


def test_what_is_served_is_kept_with_all_that_it_came_from(tmp_path: Path) -> None:
    history = History(tmp_path / "root")
    serving = tmp_path / "serving"
    (serving / "2").mkdir(parents=True)
    first = history.model(
        history.run(days_ago=90), "a", blessed=False, serving_dir=serving
    )
    second = history.model(
        history.run(days_ago=80),
        "b",
        blessed=False,
        baseline=[first["model"]],
        serving_dir=serving,
        version=2,
    )
    third = history.model(history.run(days_ago=70), "c", blessed=False)
    # The model that it was compared with is kept too, and what that came from.
    left = {*second.values(), first["examples"], first["model"]}
    assert set(reasons(found(history))) == left
    assert set(reasons(found(history)).values()) == {
        f"served: version 2 lies in '{serving}'"
    }
    assert deleted(history) == {*first.values(), *third.values()} - left


def test_a_version_that_was_removed_is_not_served(tmp_path: Path) -> None:
    history = History(tmp_path / "root")
    serving = tmp_path / "serving"
    (serving / "1").mkdir(parents=True)
    made = history.model(
        history.run(days_ago=90), blessed=False, serving_dir=serving, version=1
    )
    (serving / ".penstock").mkdir()
    assert deleted(history) == set()
    (serving / "1").rmdir()
    assert deleted(history) == set(made.values())


@pytest.mark.parametrize("state", ["missing", "empty", "closed", "url"])
def test_a_serving_directory_that_says_nothing_keeps_what_was_pushed_there(
    tmp_path: Path, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(tmp_path / "root")
    serving: Any = tmp_path / "serving"
    if state != "missing":
        serving.mkdir()
    if state == "closed":
        (serving / "7").mkdir()
        scandir = os.scandir

        def closed(path: Any) -> Any:
            if path == serving:
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", closed)
    if state == "url":
        serving = "gs://bucket/serving"
    made = history.model(
        history.run(days_ago=90), blessed=False, serving_dir=serving, version=1
    )
    what = {
        "missing": "missing",
        "empty": "empty",
        "closed": "not readable (Permission denied)",
        "url": "no local folder",
    }[state]
    text = f"served: version 1 may lie in '{serving}', which is {what}"
    assert reasons(found(history)) == {each: text for each in made.values()}
    unserved = dataclasses.replace(NOTHING, unserved=(f"{serving}/",))
    assert deleted(history, unserved) == set(made.values())


def test_a_version_that_lies_there_is_served_whatever_somebody_says(
    tmp_path: Path,
) -> None:
    history = History(tmp_path / "root")
    serving = tmp_path / "serving"
    (serving / "1").mkdir(parents=True)
    history.model(history.run(days_ago=90), serving_dir=serving)
    unserved = dataclasses.replace(NOTHING, unserved=(str(serving),))
    assert deleted(history, unserved) == set()


def test_an_unserved_directory_that_nothing_was_pushed_to_gets_a_near_miss(
    tmp_path: Path,
) -> None:
    history = History(tmp_path / "root")
    history.model(history.run(), serving_dir="/srv/models/taxi")
    with pytest.raises(PipelineError) as raised:
        found(history, Policy(unserved=("/srv/models/taxis",)))
    assert str(raised.value) == (
        "No model was pushed to the serving directory '/srv/models/taxis' (models were "
        "to '/srv/models/taxi'). Did you mean '/srv/models/taxi'? Name it as it was "
        "given to Pusher."
    )


def test_pushes_of_other_tools_are_understood(tmp_path: Path) -> None:
    """Some name the serving directory as destination, some record what they refused."""
    history = History(tmp_path / "root")
    serving = tmp_path / "serving"
    (serving / "17").mkdir(parents=True)
    run_id = history.run(days_ago=90)
    pushed: dict[str, Mapping[str, Any]] = {
        "above": {"pushed_destination": f"{serving}/", "pushed_version": "17"},
        "refused": {"pushed": 0, "pushed_destination": str(serving / "17")},
        "nowhere": {"pushed": 1},
    }
    made = {
        key: history.execute(run_id, key, {}, {"pushed": ("PushedModel", "", said)})
        for key, said in pushed.items()
    }
    assert deleted(history) == {made["refused"]["pushed"], made["nowhere"]["pushed"]}


def test_what_is_pinned_is_kept_with_what_was_said_of_it(tmp_path: Path) -> None:
    history = History(tmp_path)
    made = history.model(history.run(days_ago=90), "a", blessed=False)
    other = history.model(history.run(days_ago=90), "b", blessed=False)
    store = history.store()
    pins.pin(store, store.artifact(made["model"]), "for the audit")
    assert set(reasons(found(history)).values()) == {"pinned: for the audit"}
    assert deleted(history) == set(other.values())
    pins.unpin(store, store.artifact(made["model"]), "it is over")
    assert deleted(history) == {*made.values(), *other.values()}


def test_the_last_blessed_models_are_kept(tmp_path: Path) -> None:
    history = History(tmp_path)
    made = [
        history.model(history.run(days_ago=90), each, blessed=each != "d")
        for each in "abcdef"
    ]
    last = [each["model"] for each in made]
    garbage = found(history, dataclasses.replace(NOTHING, blessed=3))
    kept = reasons(garbage)
    assert {each for each in last if each in kept} == {last[2], last[4], last[5]}
    assert kept[made[2]["blessing"]] == (
        f"blessed: Model {last[2]} is one of the last blessed of 'p'"
    )
    assert kept[made[2]["examples"]] == kept[made[2]["blessing"]]


def test_what_latest_blessed_could_give_is_kept(tmp_path: Path) -> None:
    """That is the newest, and for a candidate with its bytes the newest with others."""
    history = History(tmp_path)
    made = [
        history.model(history.run(days_ago=90), content)["model"]
        for content in ("a", "b", "c", "c", "c")
    ]
    other = history.model(history.run("q", days_ago=90), "x")["model"]
    store = history.store()
    blocked = history.model(history.run(days_ago=90), "d")["model"]
    overrides.block(store, tmp_path, model_of(store, blocked), "loses money")
    kept = reasons(found(history))
    assert {each for each in made if each in kept} == {made[1], made[4]}
    assert other in kept
    assert blocked not in kept


@pytest.mark.parametrize("is_broken", [False, True])
def test_what_is_marked_for_deletion_may_turn_out_to_be_gone(
    tmp_path: Path, is_broken: bool
) -> None:
    """The models before it then are those that `LatestBlessed()` could give."""
    history = History(tmp_path)
    first, second, third = (
        history.model(history.run(days_ago=90), content)["model"] for content in "abc"
    )
    history.mark(third)
    if is_broken:
        (history.artifacts[third].path / "data").unlink()
    left = {first, second} if is_broken else {second, third}
    gone_now = deleted(history)
    assert {first, second, third} - gone_now == left
    assert found(history).items == ()


def test_the_last_runs_of_each_pipeline_keep_what_they_read_and_wrote(
    tmp_path: Path,
) -> None:
    history = History(tmp_path)
    first = history.model(history.run(days_ago=90), "a", blessed=False)
    second = history.model(history.run(days_ago=80), "b", blessed=False)
    lone = history.model(history.run("q", days_ago=99), "c", blessed=False)
    run_id = history.run(days_ago=70, state="failed")
    history.execute(run_id, "Make", {}, cached={"examples": first["examples"]})
    history.execute(run_id, "Fail", {"model": [second["model"]]}, state="failed")
    kept = reasons(found(history, dataclasses.replace(NOTHING, runs=1)))
    why = f"last runs: run {run_id} is the last of 'p'"
    assert {each for each, text in kept.items() if text == why} == {
        first["examples"],
        second["model"],
        second["examples"],
    }
    assert kept.keys() - set(lone.values()) == {
        first["examples"],
        second["model"],
        second["examples"],
    }
    assert len(kept) == 3 + len(lone)
    more = reasons(found(history, dataclasses.replace(NOTHING, runs=2)))
    assert more[second["blessing"]] == (
        "last runs: run run-1 is one of the last 2 of 'p'"
    )


def test_what_is_young_is_kept_however_old_what_it_took_is(tmp_path: Path) -> None:
    history = History(tmp_path)
    old = history.model(history.run(days_ago=90), "a", blessed=False)
    history.model(history.run(days_ago=31), "b", blessed=False)
    young = history.run(days_ago=29)
    history.execute(young, "Make", {}, cached={"examples": old["examples"]})
    policy = Policy(runs=0, blessed=0)
    assert reasons(found(history, policy)) == {
        old["examples"]: f"young: run {young} is younger than 30 days"
    }


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (2.5 * DAY, "2.5 days"),
        (DAY, "1 day"),
        (7_200, "2 hours"),
        (90, "1.5 minutes"),
        (1, "1 second"),
        (0.5, "0.5 seconds"),
    ],
)
def test_a_length_of_time_is_said_in_its_own_unit(
    tmp_path: Path, seconds: float, said: str
) -> None:
    history = History(tmp_path)
    made = history.execute(
        history.run(), "Make", {}, {"examples": ("Examples", "", {})}
    )
    policy = dataclasses.replace(NOTHING, younger_than_seconds=seconds)
    assert reasons(found(history, policy))[made["examples"]].endswith(
        f" is younger than {said}"
    )


def test_what_a_run_reads_and_wrote_that_has_not_ended_is_kept(tmp_path: Path) -> None:
    history = History(tmp_path)
    old = history.model(history.run(days_ago=90), "a", blessed=False)
    going = history.run(days_ago=40, state="running")
    fit = history.execute(
        *(going, "Fit", {"examples": [old["examples"]]}),
        {"model": ("Model", "b", {})},
    )
    history.execute(going, "Wait", {"model": [old["model"]]}, state="running")
    text = f"running: run {going} has not ended, or was killed and is not repaired yet"
    assert reasons(found(history)) == {
        each: text for each in (old["examples"], old["model"], fit["model"])
    }


def test_lineage_goes_through_what_first_wrote_an_artifact(tmp_path: Path) -> None:
    """Not through every later run that took it from the cache."""
    for says_writers in (True, False):
        history = History(tmp_path / str(says_writers), says_writers=says_writers)
        made = history.model(history.run(days_ago=90), "a", blessed=False)
        again = history.run(days_ago=80)
        other = history.execute(again, "Make", {}, {"examples": ("Examples", "b", {})})
        history.execute(
            *(again, "Fit", {"examples": [other["examples"]]}),
            cached={"model": made["model"]},
        )
        store = history.store()
        pins.pin(store, store.artifact(made["model"]), "good")
        assert deleted(history) == {other["examples"]}


# Policies --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"runs": -1}, "Policy.runs is -1. Pass a whole number of at least 0."),
        ({"runs": True}, "Policy.runs is True. Pass a whole number of at least 0."),
        ({"blessed": 1.5}, "Policy.blessed is 1.5. Pass a whole number of at least 0."),
        *(
            (
                {"younger_than_seconds": seconds},
                f"Policy.younger_than_seconds is {seconds!r}, which is no length of "
                "time. Pass a number of seconds of at least 0.",
            )
            for seconds in (-1, float("nan"), float("inf"), "30d", True)
        ),
    ],
)
def test_a_policy_that_makes_no_sense_gets_a_sentence(
    wrong: Mapping[str, Any], said: str
) -> None:
    with pytest.raises(PipelineError) as raised:
        Policy(**wrong)
    assert str(raised.value) == said


# Random histories ------------------------------------------------------------------

RUN = st.fixed_dictionaries(
    {
        "pipeline": st.sampled_from("pq"),
        "days": st.integers(0, 60),
        "state": st.sampled_from(["complete", "complete", "failed", "running"]),
        "content": st.sampled_from("abc"),
        "steps": st.integers(0, 4),
        "cached": st.sets(st.integers(0, 2)),
        "blessed": st.booleans(),
        "baseline": st.booleans(),
        "served": st.booleans(),
    }
)
POLICY = st.builds(
    Policy,
    runs=st.integers(0, 2),
    blessed=st.integers(0, 3),
    younger_than_seconds=st.integers(0, 60).map(lambda days: days * DAY + 1),
)
STEPS = (("Make", "examples"), ("Fit", "model"), ("Evaluate", "blessing"))
KINDS = {"examples": "Examples", "model": "Model", "blessing": "ModelBlessing"}


class Facts:
    """A random history, and what it says, kept beside the store.

    Args:
        history: Where it is written.
        serving: A serving directory.
        specs: What each run does.
    """

    def __init__(
        self, history: History, serving: Path, specs: list[dict[str, Any]]
    ) -> None:
        self.history = history
        self.serving = serving
        self.specs: dict[str, dict[str, Any]] = {}  # by run
        self.served: set[int] = set()
        self.behind: dict[int, int] = {}  # models, by what was pushed
        self.judged: dict[int, int] = {}  # models, by blessing
        self.blessed: dict[str, set[int]] = {"p": set(), "q": set()}  # by pipeline
        for spec in specs:
            run_id = history.run(
                spec["pipeline"], days_ago=spec["days"], state=spec["state"]
            )
            self.specs[run_id] = spec
            self._write(run_id, spec)

    def _write(self, run_id: str, spec: dict[str, Any]) -> None:
        have: dict[str, int] = {}
        for step, (component, key) in enumerate(STEPS[: spec["steps"]]):
            inputs = {each: [have[each]] for each in KINDS if each in have}
            earlier = [
                each.id
                for each in self.history.artifacts.values()
                if each.kind == KINDS[key]
            ]
            if key == "blessing" and spec["baseline"]:
                others = set(self.judged.values()) - {have["model"]}
                inputs["baseline"] = sorted(others)[:1]
            if step in spec["cached"] and earlier:
                taken = {key: earlier[spec["days"] % len(earlier)]}
                made = self.history.execute(run_id, component, inputs, cached=taken)
            else:
                said = {"blessed": int(spec["blessed"])}
                said["current_model_id"] = have.get("model", 0)
                outputs: dict[str, tuple[str, str, dict[str, int]]] = {
                    key: (KINDS[key], spec["content"], said if step == 2 else {})
                }
                if key == "blessing":
                    outputs["evaluation"] = ("ModelEvaluation", "auc", {})
                made = self.history.execute(run_id, component, inputs, outputs)
                if key == "blessing":
                    self.judged[made[key]] = have["model"]
            have[key] = made[key]
        if "blessing" in have:
            blessing = self.history.raw.get_artifacts_by_id([have["blessing"]])[0]
            if blessing.custom_properties["blessed"].int_value:
                model = self.judged[have["blessing"]]
                self.blessed[spec["pipeline"]].add(model)
        if spec["steps"] == 4:
            self._push(run_id, have, is_served=spec["served"])

    def _push(self, run_id: str, have: dict[str, int], *, is_served: bool) -> None:
        version = len(self.specs)
        pushed = {
            "pushed_destination": f"{self.serving}/{version}",
            "pushed_version": str(version),
        }
        inputs = {each: [have[each]] for each in ("model", "blessing")}
        outputs = {"pushed": ("PushedModel", "", pushed)}
        made = self.history.execute(run_id, "Push", inputs, outputs)["pushed"]
        self.behind[made] = have["model"]
        if is_served:
            self.served.add(made)
            (self.serving / str(version)).mkdir()

    def kept(self, policy: Policy, pinned: set[int]) -> set[int]:
        """What is to be kept: a walk over what was written, without the store."""
        roots = self._of_runs(policy)
        for root in self.served | pinned | self._blessed(policy):
            roots.add(root)
            if self.history.artifacts[root].kind in ("Model", "PushedModel"):
                model = self.behind.get(root, root)
                roots |= {one for one, other in self.judged.items() if other == model}
        front, kept = list(roots), set(roots)
        while front:
            made = self.history.artifacts[front.pop()]
            writer = self.history.executions[made.writer]
            new = {*writer.inputs, *writer.outputs} - kept
            kept |= new
            front += new
        return kept

    def _of_runs(self, policy: Policy) -> set[int]:
        newer = {"p": 0, "q": 0}
        found: set[int] = set()
        for run_id, spec in reversed(self.specs.items()):
            is_last = newer[spec["pipeline"]] < policy.runs
            newer[spec["pipeline"]] += 1
            is_young = spec["days"] * DAY < policy.younger_than_seconds
            if is_last or is_young or spec["state"] == "running":
                for each in self.history.executions.values():
                    if each.run == run_id:
                        found |= {*each.inputs, *each.outputs}
        return found

    def _blessed(self, policy: Policy) -> set[int]:
        """The newest, and what LatestBlessed gives for any candidate there can be."""
        found: set[int] = set()
        for models in self.blessed.values():
            found |= set(sorted(models, reverse=True)[: policy.blessed])
            digests = {each: self.history.artifacts[each].digest for each in models}
            for candidate in (*digests.values(), "other"):
                others = [each for each in models if digests[each] != candidate]
                found |= set(sorted(others)[-1:])
        return found


def check(
    specs: list[dict[str, Any]], policy: Policy, pinned: set[int], says_writers: bool
) -> None:
    """Look and delete: exactly what nothing kept came from."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        folder = Path(name)
        root, serving = folder / "root", folder / "serving"
        (serving / ".penstock").mkdir(parents=True)
        history = History(root, says_writers=says_writers)
        facts = Facts(history, serving, specs)
        store = history.store()
        numbers = sorted(history.artifacts)
        chosen = {numbers[each % len(numbers)] for each in pinned if numbers}
        for number in chosen:
            pins.pin(store, store.artifact(number), "good")
        before = tree(folder), dumped(root)
        listed = find_garbage(store, root, policy, now=NOW)
        assert (tree(folder), dumped(root)) == before
        kept = facts.kept(policy, chosen)
        assert set(reasons(listed)) == kept
        done = delete_garbage(store, root, policy, now=NOW)
        assert [(each.path, each.size_bytes) for each in done.items] == [
            (each.path, each.size_bytes) for each in listed.items
        ]
        assert gone(history) == set(numbers) - kept
        assert done.size_bytes == size(before[0]) - size(tree(folder))
        again = find_garbage(store, root, policy, now=NOW)
        assert (again.items, set(reasons(again))) == ((), kept)


HISTORIES = (
    st.lists(RUN, max_size=5),
    POLICY,
    st.sets(st.integers(0, 30), max_size=2),
    st.booleans(),
)


@settings(max_examples=20)
@given(*HISTORIES)
def test_what_is_deleted_is_what_nothing_kept_came_from(
    specs: list[dict[str, Any]], policy: Policy, pinned: set[int], says_writers: bool
) -> None:
    check(specs, policy, pinned, says_writers)


@pytest.mark.long
@settings(max_examples=400)
@given(*HISTORIES)
def test_what_is_deleted_is_what_nothing_kept_came_from_at_length(
    specs: list[dict[str, Any]], policy: Policy, pinned: set[int], says_writers: bool
) -> None:
    check(specs, policy, pinned, says_writers)
