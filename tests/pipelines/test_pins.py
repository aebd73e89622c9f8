"""Pins: what is recorded, what counts, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from penstock.pipelines import pins
from penstock.pipelines.metadata import State
from penstock.schemas.errors import MetadataError, PipelineError
from tests.pipelines.histories import History


@pytest.fixture
def history(tmp_path: Path) -> History:
    """One run of one pipeline."""
    history = History(tmp_path)
    history.model(history.run("taxi"))
    return history


def test_a_pin_is_an_execution_with_its_reason(history: History) -> None:
    store = history.store()
    pinned = pins.pin(store, store.artifact(2), " for the\naudit")
    assert (pinned.artifact.id, pinned.reason) == (2, "for the audit.")
    (record,) = store.executions_of_type("penstock.Pin")
    assert (record.component, record.pipeline, record.run_id) == (
        *("penstock gc", "taxi", ""),
    )
    assert (record.state, record.reason) == (State.COMPLETE, "for the audit.")
    assert [each.id for each in record.inputs["artifact"]] == [2]
    assert record.outputs == {}
    assert record.properties["penstock_action"] == "pin"
    assert pinned.at == record.started


def test_the_later_record_wins(history: History) -> None:
    store = history.store()
    pins.pin(store, store.artifact(2), "first")
    pins.pin(store, store.artifact(1), "second")
    assert list(pins.pins(store)) == [2, 1]
    assert pins.unpin(store, store.artifact(2), "over").reason == "first."
    assert list(pins.pins(store)) == [1]
    pins.pin(store, store.artifact(2), "third")
    assert {each: one.reason for each, one in pins.pins(store).items()} == {
        1: "second.",
        2: "third.",
    }


def test_what_is_so_already_is_not_recorded_again(history: History) -> None:
    store = history.store()
    with pytest.raises(MetadataError) as raised:
        pins.unpin(store, store.artifact(2), "because")
    assert str(raised.value) == (
        "Model 2 is not pinned, so it cannot be unpinned. 'penstock gc' lists what is."
    )
    pins.pin(store, store.artifact(2), "for the audit")
    with pytest.raises(MetadataError) as raised:
        pins.pin(store, store.artifact(2), "because")
    assert str(raised.value) == "Model 2 is pinned already: for the audit."
    assert len(store.executions_of_type("penstock.Pin")) == 1


def test_a_reason_is_wanted(history: History) -> None:
    store = history.store()
    said = []
    with pytest.raises(PipelineError) as raised:
        pins.pin(store, store.artifact(2), " \n")
    said.append(str(raised.value))
    pins.pin(store, store.artifact(2), "for the audit")
    with pytest.raises(PipelineError) as raised:
        pins.unpin(store, store.artifact(2), "")
    said.append(str(raised.value))
    assert set(said) == {
        "The reason is empty. It is all that later readers of the lineage will know: "
        "write why."
    }


def test_there_is_nothing_to_keep_of_what_is_deleted(history: History) -> None:
    store = history.store()
    history.mark(2)
    with pytest.raises(MetadataError) as raised:
        pins.pin(store, store.artifact(2), "because")
    assert str(raised.value) == (
        "Model 2 was deleted by 'penstock gc', so there is nothing to keep. Run its "
        "pipeline to make it again."
    )


def test_there_is_nothing_to_keep_of_what_is_gone(history: History) -> None:
    store = history.store()
    model = store.artifact(2)
    shutil.rmtree(model.path)
    with pytest.raises(MetadataError) as raised:
        pins.pin(store, model, "because")
    assert str(raised.value) == (
        f"Model 2 is gone from '{model.uri}', so there is nothing to keep. Run its "
        "pipeline to make it again."
    )


def test_there_is_nothing_to_keep_of_what_no_pipeline_wrote(history: History) -> None:
    store = history.store()
    number = history.record("/data/trips-*.csv", "ExternalArtifact", is_external=True)
    with pytest.raises(MetadataError) as raised:
        pins.pin(store, store.artifact(number), "because")
    assert str(raised.value) == (
        f"ExternalArtifact {number} is '/data/trips-*.csv', which no pipeline wrote "
        "and 'penstock gc' never deletes. There is nothing to pin."
    )
