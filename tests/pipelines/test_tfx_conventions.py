"""A store written by us, read by code that knows only TFX's conventions.

The readers below import nothing of penstock.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as pb

from penstock.pipelines.run import RunResult, run
from penstock.pipelines.runners import LocalRunner
from tests.pipelines.toys import toy

TYPES = "tests.pipelines.toys."


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[RunResult]]:
    """Three runs: blessed, then stopped before training, then blessed again."""
    root = tmp_path_factory.mktemp("root")
    runs = [
        run(toy(rows=rows, good=good), root, runner=LocalRunner())
        for rows, good in ((3, True), (4, False), (5, True))
    ]
    return root, runs


def reader_of(root: Path) -> metadata_store.MetadataStore:
    config = pb.ConnectionConfig()
    config.sqlite.filename_uri = str(root / "metadata.sqlite")
    config.sqlite.connection_mode = pb.SqliteMetadataSourceConfig.READONLY
    return metadata_store.MetadataStore(config)


@pytest.fixture
def reader(written: tuple[Path, list[RunResult]]) -> metadata_store.MetadataStore:
    return reader_of(written[0])


def path_of(event: Any) -> list[tuple[str, int]]:
    """TFX's event path: a key, then an index."""
    steps = list(event.path.steps)
    return [
        (key.key, index.index)
        for key, index in zip(steps[::2], steps[1::2], strict=True)
    ]


def latest_blessed(reader: metadata_store.MetadataStore, pipeline: str = "toy") -> Any:
    """The latest blessed model, as TFX's LatestBlessedModelStrategy finds it.

    The model with the greatest number among those that a blessing names.
    """
    context = reader.get_context_by_type_and_name("pipeline", pipeline)
    artifacts = reader.get_artifacts_by_context(context.id)
    named = {
        each.custom_properties["current_model_id"].int_value
        for each in artifacts
        if each.type == "ModelBlessing"
        and each.custom_properties["blessed"].int_value == 1
    }
    models = [each for each in artifacts if each.type == "Model" and each.id in named]
    return max(models, key=lambda each: each.id, default=None)


def test_the_latest_blessed_model_leads_to_its_examples_and_run(
    reader: metadata_store.MetadataStore, written: tuple[Path, list[RunResult]]
) -> None:
    root, runs = written
    model = latest_blessed(reader)
    assert model.type == "Model"
    assert model.state == pb.Artifact.LIVE
    assert (
        Path(model.uri, "Format-Serving", "saved_model.pb").read_text() == "row\n" * 5
    )
    (made,) = [
        event
        for event in reader.get_events_by_artifact_ids([model.id])
        if event.type == pb.Event.OUTPUT
    ]
    assert path_of(made) == [("model", 0)]
    (trainer,) = reader.get_executions_by_id([made.execution_id])
    assert trainer.type == f"{TYPES}Fit"
    assert trainer.last_known_state == pb.Execution.COMPLETE
    inputs = {
        path_of(event)[0]: event.artifact_id
        for event in reader.get_events_by_execution_ids([trainer.id])
        if event.type == pb.Event.INPUT
    }
    assert set(inputs) == {("examples", 0), ("anomalies", 0)}
    (examples,) = reader.get_artifacts_by_id([inputs["examples", 0]])
    assert examples.type == "Examples"
    assert json.loads(examples.properties["split_names"].string_value) == ["train"]
    assert examples.properties["span"].int_value == 7
    contexts = {
        each.type: each for each in reader.get_contexts_by_execution(trainer.id)
    }
    assert set(contexts) == {*("pipeline", "pipeline_run", "node", "execution_cache")}
    cache = contexts["execution_cache"].name
    assert cache == trainer.custom_properties["penstock_fingerprint"].string_value
    assert contexts["pipeline"].name == "toy"
    assert contexts["pipeline_run"].name == runs[2].run_id
    assert contexts["node"].name == "toy.Fit"
    parents = reader.get_parent_contexts_by_context(contexts["pipeline_run"].id)
    assert [(each.type, each.name) for each in parents] == [("pipeline", "toy")]
    assert Path(model.uri).is_relative_to(root)


def test_every_artifact_is_in_all_contexts_of_its_execution(
    reader: metadata_store.MetadataStore,
) -> None:
    for execution in reader.get_executions():
        mine = {
            each.id
            for each in reader.get_contexts_by_execution(execution.id)
            # An input would be in one for every execution that ever read it.
            if each.type != "execution_cache"
        }
        for event in reader.get_events_by_execution_ids([execution.id]):
            near = reader.get_contexts_by_artifact(event.artifact_id)
            assert mine <= {each.id for each in near}


def test_types_have_the_properties_and_base_types_of_tfx(
    reader: metadata_store.MetadataStore,
) -> None:
    int_, string = pb.INT, pb.STRING
    expected: dict[str, tuple[Any, dict[str, Any]]] = {
        "Examples": (
            pb.ArtifactType.DATASET,
            {"span": int_, "version": int_, "split_names": string},
        ),
        "ExampleAnomalies": (None, {"span": int_, "split_names": string}),
        "Model": (pb.ArtifactType.MODEL, {}),
        "ModelBlessing": (None, {}),
        "PushedModel": (pb.ArtifactType.MODEL, {}),
    }
    found = {each.name: each for each in reader.get_artifact_types()}
    for name, (base, properties) in expected.items():
        assert dict(found[name].properties) == properties
        if base is None:
            assert not found[name].HasField("base_type")
        else:
            assert found[name].base_type == base


def test_executions_have_a_uuid_for_a_name_and_parameters_as_custom_properties(
    reader: metadata_store.MetadataStore,
) -> None:
    for execution in reader.get_executions():
        assert str(uuid.UUID(execution.name)) == execution.name
        assert not execution.properties
    makes = reader.get_executions_by_type(f"{TYPES}Make")
    assert [each.custom_properties["rows"].int_value for each in makes] == [3, 4, 5]
    (kind,) = [
        each for each in reader.get_execution_types() if each.name == f"{TYPES}Make"
    ]
    assert not kind.properties


def test_artifacts_say_which_layouts_they_have(
    reader: metadata_store.MetadataStore,
) -> None:
    for artifact in reader.get_artifacts():
        version = artifact.custom_properties["tfx_version"].string_value
        assert [int(part) for part in version.split(".")] >= [0, 29]
        assert artifact.custom_properties["is_external"].int_value == 0
        # Only TFX's legacy path writes these.
        for legacy in ("name", "pipeline_name", "producer_component", "state"):
            assert legacy not in artifact.custom_properties
            assert legacy not in artifact.properties


def test_what_did_not_run_is_recorded_with_its_reason(
    reader: metadata_store.MetadataStore, written: tuple[Path, list[RunResult]]
) -> None:
    _, runs = written
    context = reader.get_context_by_type_and_name("pipeline_run", runs[1].run_id)
    states = {
        each.type.removeprefix(TYPES): each
        for each in reader.get_executions_by_context(context.id)
    }
    assert states["Make"].last_known_state == pb.Execution.COMPLETE
    for name in ("Fit", "Bless", "Push"):
        assert states[name].last_known_state == pb.Execution.CANCELED
        properties = states[name].custom_properties
        assert properties["penstock_state"].string_value == "skipped"
        assert "payment_type is new" in properties["reason"].string_value


def test_anomalies_say_as_tfx_does_which_splits_are_blessed(
    reader: metadata_store.MetadataStore,
) -> None:
    said = [
        dict(each.custom_properties["blessed"].struct_value)
        for each in reader.get_artifacts_by_type("ExampleAnomalies")
    ]
    assert said == [{"train": 1}, {"train": 0}, {"train": 1}]


def test_a_forced_blessing_is_read_as_any_other(tmp_path: Path) -> None:
    from penstock.pipelines import overrides
    from penstock.pipelines.inputs import LatestBlessed
    from penstock.pipelines.metadata import Store
    from penstock.pipelines.pipeline import Pipeline
    from penstock.schemas.artifacts import Model
    from tests.pipelines.toys import Bless, Fit, Make

    ids = []
    for rows, blessed in ((3, False), (4, True), (5, False)):
        make = Make(rows=rows)
        fit = Fit(examples=make.examples)
        bless = Bless(model=fit.model, blessed=blessed)
        result = run(Pipeline("p", [make, fit, bless]), tmp_path, runner=LocalRunner())
        ids.append(result.artifact(fit.model).id)
    store = Store(f"sqlite:///{tmp_path / 'metadata.sqlite'}")

    def ours() -> int | None:
        source: Any = LatestBlessed().source
        found = source.resolve(store, "p", Make())
        return found.id if isinstance(found, Model) else None

    def force(id: int | None) -> Any:
        assert id is not None
        model = store.artifact(id)
        assert isinstance(model, Model)
        return overrides.force(store, tmp_path, model, "labels were late")

    reader = reader_of(tmp_path)
    assert latest_blessed(reader, "p").id == ours() == ids[1]
    # Blessed last, but an older model than the one that was blessed before.
    force(ids[0])
    assert latest_blessed(reader, "p").id == ours() == ids[1]
    blessing = force(ids[2])
    assert latest_blessed(reader, "p").id == ours() == ids[2]

    (stored,) = reader.get_artifacts_by_id([blessing.id])
    assert (stored.type, stored.state) == ("ModelBlessing", pb.Artifact.LIVE)
    assert (Path(stored.uri) / "BLESSED").is_file()
    said = stored.custom_properties
    assert said["blessed"].int_value == said["forced"].int_value == 1
    assert said["verdict"].string_value == "NOT_BLESSED"
    assert said["current_model_id"].int_value == ids[2]
    assert said["tfx_version"].string_value == "1.21.0"
    (made,) = reader.get_events_by_artifact_ids([stored.id])
    assert (made.type, path_of(made)) == (pb.Event.OUTPUT, [("blessing", 0)])
    (execution,) = reader.get_executions_by_id([made.execution_id])
    assert execution.type == "penstock.Bless"
    assert execution.last_known_state == pb.Execution.COMPLETE
    assert str(uuid.UUID(execution.name)) == execution.name
    assert execution.custom_properties["reason"].string_value == "labels were late."
    read = [
        (each.artifact_id, path_of(each))
        for each in reader.get_events_by_execution_ids([execution.id])
        if each.type == pb.Event.INPUT
    ]
    assert read == [(ids[2], [("model", 0)])]
    contexts = reader.get_contexts_by_execution(execution.id)
    assert [(each.type, each.name) for each in contexts] == [("pipeline", "p")]


def test_a_block_is_a_blessing_that_says_no(tmp_path: Path) -> None:
    """TFX knows no block-list: a blessing from before stays what it was for it."""
    from penstock.pipelines import overrides
    from penstock.pipelines.metadata import Store
    from penstock.schemas.artifacts import Model

    result = run(toy(), tmp_path, runner=LocalRunner())
    model = result["Fit"].outputs["model"]
    assert isinstance(model, Model)
    store = Store(f"sqlite:///{tmp_path / 'metadata.sqlite'}")
    blessing = overrides.block(store, tmp_path, model, "loses money")
    reader = reader_of(tmp_path)
    (stored,) = reader.get_artifacts_by_id([blessing.id])
    assert (Path(stored.uri) / "NOT_BLESSED").is_file()
    said = stored.custom_properties
    assert said["blessed"].WhichOneof("value") == "int_value"
    assert (said["blessed"].int_value, said["blocked"].int_value) == (0, 1)
    assert latest_blessed(reader).id == model.id


def test_a_store_of_tfx_is_read_by_us(tmp_path: Path) -> None:
    """Written by plain code as TFX's LocalDagRunner would, asked through penstock."""
    from penstock.pipelines import lineage
    from penstock.pipelines.metadata import State, Store
    from penstock.schemas.artifacts import Examples, Model

    config = pb.ConnectionConfig()
    config.sqlite.filename_uri = str(tmp_path / "tfx.sqlite")
    config.sqlite.connection_mode = pb.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    writer = metadata_store.MetadataStore(config)
    types = {
        name: writer.put_artifact_type(kind)
        for name, kind in {
            "Examples": pb.ArtifactType(
                name="Examples",
                base_type=pb.ArtifactType.DATASET,
                properties={
                    "span": pb.INT,
                    "version": pb.INT,
                    "split_names": pb.STRING,
                },
            ),
            "Model": pb.ArtifactType(name="Model", base_type=pb.ArtifactType.MODEL),
        }.items()
    }
    trainer = writer.put_execution_type(
        pb.ExecutionType(name="tfx.components.trainer.component.Trainer")
    )
    contexts = []
    for kind, name in (
        ("pipeline", "penguin"),
        ("pipeline_run", "2024-01-02T03:04:05"),
        ("node", "penguin.Trainer"),
    ):
        type_id = writer.put_context_type(pb.ContextType(name=kind))
        contexts.append(pb.Context(type_id=type_id, name=name))
    examples = pb.Artifact(type_id=types["Examples"], uri="/artifacts/examples/1")
    examples.properties["split_names"].string_value = '["train", "eval"]'
    examples.properties["span"].int_value = 3
    examples.custom_properties["tfx_version"].string_value = "1.16.0"
    model = pb.Artifact(type_id=types["Model"], uri="/artifacts/model/2")
    execution = pb.Execution(
        type_id=trainer, last_known_state=pb.Execution.COMPLETE, name="u-u-i-d"
    )
    events = []
    for kind, key in ((pb.Event.INPUT, "examples"), (pb.Event.OUTPUT, "model")):
        event = pb.Event(type=kind)
        event.path.steps.add().key = key
        event.path.steps.add().index = 0
        events.append(event)
    writer.put_execution(
        execution, [(examples, events[0]), (model, events[1])], contexts
    )
    ids = [
        writer.get_context_by_type_and_name(c, n).id
        for c, n in (("pipeline", "penguin"), ("pipeline_run", "2024-01-02T03:04:05"))
    ]
    writer.put_parent_contexts([pb.ParentContext(parent_id=ids[0], child_id=ids[1])])

    store = Store(f"sqlite:///{tmp_path / 'tfx.sqlite'}", create=False)
    (found,) = store.artifacts(Model)
    origin = lineage.upstream(store, found)
    assert [each.split_names for each in origin.of(Examples)] == [("train", "eval")]
    (record,) = store.executions("2024-01-02T03:04:05")
    assert (record.component, record.pipeline, record.state) == (
        "Trainer",
        "penguin",
        State.COMPLETE,
    )
    (newest,) = store.pipelines["penguin"].runs
    assert newest["Trainer"].model.id == found.id
    assert [each.id for each in newest["Trainer"].model.upstream(Examples)] == [1]
    assert [each.id for each in lineage.of_span(store, "penguin", 3)] == [1]
    (again,) = store.runs("penguin")
    assert again.id == "2024-01-02T03:04:05"
