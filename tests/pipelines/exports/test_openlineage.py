"""OpenLineage events: valid by the specification's schema, and saying what was done."""

from __future__ import annotations

import json
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest

from penstock.pipelines import lineage
from penstock.pipelines.exports import openlineage
from penstock.pipelines.lineage import Lineage
from penstock.pipelines.metadata import State, Store
from penstock.pipelines.run import run
from penstock.pipelines.runners import LocalRunner
from penstock.schemas.artifacts import Examples
from tests.pages import HOSTILE
from tests.pipelines.exports.lineages import (
    STARTED,
    execution,
    lineage_of_text,
    taxi_lineage,
)
from tests.pipelines.toys import toy

# The structure of OpenLineage.json of the specification 2-0-2, without its prose.
SCHEMA = Path(__file__).parents[2] / "resources" / "openlineage-2-0-2.json"


def is_time(value: object) -> bool:
    return datetime.fromisoformat(str(value)).tzinfo is not None


def is_uri(value: object) -> bool:
    return urlsplit(str(value)).scheme != "" and " " not in str(value)


def is_uuid(value: object) -> bool:
    return str(uuid.UUID(str(value))) == value


# Of the formats, jsonschema itself checks only those whose packages are installed.
FORMATS = jsonschema.FormatChecker(formats=())
FORMATS.checkers = {
    "date-time": (is_time, ValueError),
    "uri": (is_uri, ()),
    "uuid": (is_uuid, ValueError),
}


def events_of(found: Lineage) -> list[dict[str, Any]]:
    """Return the events of a lineage, each checked by the schema."""
    checker = jsonschema.Draft202012Validator(
        json.loads(SCHEMA.read_text()), format_checker=FORMATS
    )
    events: list[dict[str, Any]] = json.loads(openlineage.text_of(found))
    for event in events:
        checker.validate(event)
        uuid.UUID(event["run"]["runId"])
    return events


def test_the_schema_finds_faults() -> None:
    checker = jsonschema.Draft202012Validator(
        json.loads(SCHEMA.read_text()), format_checker=FORMATS
    )
    (event, *_) = events_of(taxi_lineage())
    for fault in (
        {"eventType": "DONE"},
        {"eventTime": "yesterday"},
        {"producer": "no uri"},
        {"run": {"runId": "7"}},
        {"run": {**event["run"], "facets": {"x": {}}}},
        {"job": {"namespace": "penstock"}},
        {"inputs": [{"name": "x"}]},
        {"outputs": [{"namespace": "file", "name": "x", "facets": {"x": {}}}]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            checker.validate({**event, **fault})


def test_every_execution_has_a_start_and_an_end() -> None:
    events = events_of(taxi_lineage())
    kinds: dict[str, list[str]] = {}
    for event in events:
        kinds.setdefault(event["run"]["runId"], []).append(event["eventType"])
    assert len(kinds) == 10
    assert sorted(kinds.values()) == sorted(
        [["START", "COMPLETE"]] * 8 + [["START", "FAIL"]] + [["START"]]
    )
    times = [event["eventTime"] for event in events]
    assert times == sorted(times)
    assert times[0] == "2023-11-14T22:13:21.250000+00:00"
    assert STARTED + 1 == 1_700_000_001.25


@pytest.mark.parametrize("state", [State.SKIPPED, State.CANCELED, State.ABANDONED])
def test_what_did_not_run_to_its_end_is_aborted(state: State) -> None:
    step = execution(1, "Step", {}, {}, state=state, reason="The run was canceled.")
    examples = Examples("/x", id=1)
    _, end = events_of(Lineage(examples, {1: examples}, {1: step}))
    assert end["eventType"] == "ABORT"
    assert end["run"]["facets"]["penstock_execution"]["state"] == state.value


def test_the_same_lineage_gives_the_same_ids_and_bytes() -> None:
    assert openlineage.text_of(taxi_lineage()) == openlineage.text_of(taxi_lineage())


def test_datasets_are_named_by_where_they_lie() -> None:
    events = events_of(taxi_lineage())
    start, end = (e for e in events if e["job"]["name"] == "taxi.Pusher")
    assert start["job"]["namespace"] == "penstock"
    assert start["outputs"] == []
    (pushed,) = end["outputs"]
    assert (pushed["namespace"], pushed["name"]) == (
        "file",
        "/root/taxi/PushedModel/10",
    )
    facets = pushed["facets"]
    assert facets["version"]["datasetVersion"] == f"sha256:{10:064x}"
    assert facets["dataSource"]["uri"] == "file:///root/taxi/PushedModel/10"
    assert facets["penstock_artifact"]["properties"]["pushed_version"] == "3"
    assert facets["penstock_artifact"]["keys"] == ["pushed[0]"]
    (first, *_) = events
    assert first["inputs"][0]["name"] == "/data/day-{SPAN}/*.csv"
    source = first["inputs"][0]["facets"]["dataSource"]
    assert source["uri"] == "file:///data/day-%7BSPAN%7D/%2A.csv"


def test_artifacts_behind_urls_and_under_two_keys() -> None:
    remote = Examples("gs://bucket/path/to x", id=1)
    step = execution(1, "Step", {"a": (remote, remote), "b": (remote,)}, {})
    (start, _) = events_of(Lineage(remote, {1: remote}, {1: step}))
    (dataset,) = start["inputs"]
    assert (dataset["namespace"], dataset["name"]) == ("gs://bucket", "path/to x")
    assert dataset["facets"]["dataSource"]["uri"] == "gs://bucket/path/to%20x"
    assert "version" not in dataset["facets"]
    assert dataset["facets"]["penstock_artifact"]["keys"] == ["a[0]", "a[1]", "b[0]"]


def test_artifacts_that_lie_nowhere_are_known_by_their_numbers() -> None:
    nowhere = Examples(id=7)
    step = execution(1, "Step", {"a": (nowhere,)}, {})
    (start, _) = events_of(Lineage(nowhere, {7: nowhere}, {1: step}))
    assert start["inputs"][0]["name"] == "/Examples/7"
    assert start["run"]["facets"]["penstock_execution"]["data"] == {"a[0]": ""}


def test_runs_have_recipes_parents_and_errors() -> None:
    events = events_of(taxi_lineage())
    facets = [event["run"]["facets"] for event in events]
    assert len({each["parent"]["run"]["runId"] for each in facets}) == 1
    assert facets[0]["parent"]["job"] == {"namespace": "penstock", "name": "taxi"}
    (trained,) = (
        event["run"]["facets"]["penstock_execution"]
        for event in events
        if event["eventType"] == "COMPLETE"
        and event["run"]["facets"]["penstock_execution"]["parameters"]
    )
    assert trained["parameters"] == {"train_steps": 1_000, "train_fn": "taxi.train"}
    assert trained["code"] == "sha256:" + 64 * "c"
    assert trained["environment"] == {"python": "3.11", "numpy": "1.26.4"}
    assert trained["data"]["examples[1]"] == f"sha256:{4:064x}"
    (failed,) = (each for each in events if each["eventType"] == "FAIL")
    error = failed["run"]["facets"]["errorMessage"]
    assert error["message"].startswith("'Report' failed in say")
    assert error["programmingLanguage"] == "PYTHON"


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_any_text_makes_valid_events(text: str) -> None:
    start, _ = events_of(lineage_of_text(text))
    assert start["job"]["name"] == f"{text}.{text}"


def test_a_real_lineage_makes_valid_events(tmp_path: Path) -> None:
    run(toy(), tmp_path, runner=LocalRunner())
    run(toy(), tmp_path, runner=LocalRunner())
    store = Store(f"sqlite:///{tmp_path / 'metadata.sqlite'}", create=False)
    pushed = store.pipelines["toy"].runs[-1]["Push"].pushed
    events = events_of(lineage.upstream(store, pushed))
    assert {event["job"]["name"] for event in events} == {
        f"toy.{name}" for name in ("Make", "Check", "Fit", "Bless", "Push")
    }
