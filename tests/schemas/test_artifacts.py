"""Artifact types: properties, splits, layouts, verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.schemas.artifacts import (
    ARTIFACT_TYPES,
    Answer,
    Artifact,
    DriftVerdict,
    ExampleAnomalies,
    Examples,
    ExampleStatistics,
    Model,
    ModelBlessing,
    QualityVerdict,
    Schema,
    Verdict,
    check_split_name,
)
from penstock.schemas.errors import DataError, PipelineError

# What TFX's standard_artifacts and system_artifacts say, by type name.
TFX_TYPES: dict[str, tuple[str | None, dict[str, type]]] = {
    "Examples": ("DATASET", {"span": int, "version": int, "split_names": str}),
    "ExampleStatistics": ("STATISTICS", {"span": int, "split_names": str}),
    "Schema": (None, {}),
    "ExampleAnomalies": (None, {"span": int, "split_names": str}),
    "TransformGraph": (None, {}),
    "Model": ("MODEL", {}),
    "ModelRun": (None, {}),
    "ModelEvaluation": (None, {}),
    "ModelBlessing": (None, {}),
    "InfraBlessing": (None, {}),
    "PushedModel": ("MODEL", {}),
    "InferenceResult": (None, {}),
    "ExternalArtifact": (None, {}),
}


# What TFX has no type for.
OWN_TYPES: dict[str, tuple[str | None, dict[str, type]]] = {
    "DriftVerdict": (None, {}),
    "QualityVerdict": (None, {}),
}


def test_types_are_those_of_tfx() -> None:
    ours = {
        name: (kind.BASE_TYPE, dict(kind.PROPERTIES))
        for name, kind in ARTIFACT_TYPES.items()
    }
    assert ours == {**TFX_TYPES, **OWN_TYPES}


@pytest.mark.parametrize(
    ("state", "answer"),
    [
        ("ok", Answer.YES),
        ("watch", Answer.YES),
        ("alert", Answer.NO),
        ("insufficient_data", Answer.NOT_ENOUGH_DATA),
    ],
)
@pytest.mark.parametrize("kind", [DriftVerdict, QualityVerdict])
def test_a_state_of_a_watched_model_is_a_verdict(
    tmp_path: Path,
    kind: type[DriftVerdict] | type[QualityVerdict],
    state: str,
    answer: Answer,
) -> None:
    verdict = kind(tmp_path)
    assert verdict.answer is Answer.NO
    verdict.decide(state)
    assert verdict.answer is answer
    assert verdict.properties["verdict"] == state.upper()
    assert verdict.file == tmp_path / f"{kind.__name__[:-7].lower()}.json"


def test_a_promise_has_no_location() -> None:
    class Somewhere:
        def __str__(self) -> str:
            return "Trainer.model"

    model = Model(source=Somewhere())
    assert model.is_promise
    assert repr(model) == "Model('Trainer.model')"
    with pytest.raises(PipelineError) as raised:
        _ = model.uri
    assert str(raised.value) == (
        "'Trainer.model' has no location: its producer has not run. Run the pipeline, "
        "and take the artifact from the RunResult."
    )


def test_an_artifact_on_disk_has_a_path(tmp_path: Path) -> None:
    model = Model(tmp_path, properties={"auc": 0.5})
    assert not model.is_promise
    assert model.path == tmp_path
    assert repr(model) == f"Model('{tmp_path}')"
    assert model.serving_dir == tmp_path / "Format-Serving"
    assert Schema(tmp_path).file == tmp_path / "schema.pbtxt"


def test_a_url_is_not_on_a_local_file_system() -> None:
    with pytest.raises(DataError) as raised:
        _ = Model("gs://bucket/model").path
    assert str(raised.value) == (
        "Model 'gs://bucket/model' is not on a local file system. Copy it to a local "
        "folder and use that."
    )


def test_the_first_file_that_exists_is_taken(tmp_path: Path) -> None:
    (tmp_path / "second").touch()
    assert Artifact(tmp_path).only_file("first", "second") == tmp_path / "second"
    with pytest.raises(DataError) as raised:
        Artifact(tmp_path).only_file("first")
    assert str(raised.value) == (
        f"Artifact '{tmp_path}' holds no 'first'. It was moved, deleted or written by "
        "something else; run its producer again."
    )


def test_splits_come_from_the_properties_or_the_folders(tmp_path: Path) -> None:
    (tmp_path / "Split-train").mkdir()
    (tmp_path / "Split-eval").mkdir()
    assert Examples(tmp_path).split_names == ("eval", "train")
    recorded = Examples(tmp_path, properties={"split_names": '["train", "test"]'})
    assert recorded.split_names == ("train", "test")
    listed = Examples(tmp_path, properties={"split_names": ["a", "b"]})
    assert listed.split_names == ("a", "b")
    recorded.split_names = ("x", "y")
    assert recorded.properties["split_names"] == '["x", "y"]'


def test_examples_without_any_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        _ = Examples(tmp_path).split_names
    assert str(raised.value) == (
        f"Examples '{tmp_path}' has no split: no 'split_names' is recorded and no "
        "folder 'Split-…' is there. Run its producer again."
    )


def in_splits(folder: Path) -> Examples:
    for name in ("train", "eval"):
        (folder / f"Split-{name}").mkdir()
    return Examples(folder)


def test_an_unknown_split_gets_a_near_miss(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        in_splits(tmp_path).require_split("evl")
    assert str(raised.value) == (
        f"Split 'evl' is not in Examples '{tmp_path}' (it has 'eval', 'train'). "
        "Did you mean 'eval'?"
    )


def test_excluded_splits_must_exist_and_leave_one(tmp_path: Path) -> None:
    examples = in_splits(tmp_path)
    assert examples.splits_without(["eval"]) == ("train",)
    with pytest.raises(DataError, match="Split 'evil' is not in Examples"):
        examples.splits_without(["evil"])
    with pytest.raises(DataError) as raised:
        examples.splits_without(["train", "eval"])
    assert str(raised.value) == (
        f"No split of Examples '{tmp_path}' is left: exclude_splits names all of "
        "'eval', 'train'. Exclude fewer."
    )


def test_files_of_a_split_are_sorted_and_hidden_ones_left_out(tmp_path: Path) -> None:
    examples = in_splits(tmp_path)
    folder = tmp_path / "Split-train"
    for name in ("b", "a", ".hidden", "_SUCCESS"):
        (folder / name).touch()
    (folder / "folder").mkdir()
    assert examples.files("train") == (folder / "a", folder / "b")
    with pytest.raises(DataError) as raised:
        examples.files("eval")
    assert str(raised.value) == (
        f"Split 'eval' of Examples '{tmp_path}' has no file. It was moved or deleted; "
        "run its producer again."
    )


def test_layouts_follow_the_version_that_wrote_them(tmp_path: Path) -> None:
    new = {"split_names": '["train"]', "tfx_version": "1.16.0"}
    old = {"split_names": '["train"]', "tfx_version": "0.28.0"}
    statistics = ExampleStatistics(tmp_path, properties=new)
    assert statistics.file("train") == tmp_path / "Split-train" / "FeatureStats.pb"
    statistics = ExampleStatistics(tmp_path, properties=old)
    assert statistics.file("train") == tmp_path / "train" / "stats_tfrecord"
    anomalies = ExampleAnomalies(tmp_path, properties=new)
    assert anomalies.file("train") == tmp_path / "Split-train" / "SchemaDiff.pb"
    anomalies = ExampleAnomalies(tmp_path, properties=old)
    assert anomalies.file("train") == tmp_path / "train" / "anomalies.pbtxt"
    assert Model(tmp_path, properties=old).serving_dir.name == "serving_model_dir"


def test_tf_example_is_the_format_that_is_not_recorded(tmp_path: Path) -> None:
    assert Examples(tmp_path).payload_format == "FORMAT_TF_EXAMPLE"
    parquet = Examples(tmp_path, properties={"payload_format": "FORMAT_PARQUET"})
    assert parquet.payload_format == "FORMAT_PARQUET"


@pytest.mark.parametrize("name", ["train", "eval_2", "2024-01-01", "A"])
def test_a_split_name_is_letters_digits_underscores_and_hyphens(name: str) -> None:
    check_split_name(name)


@pytest.mark.parametrize("name", ["", "a/b", "..", "-a", "a b", "é"])
def test_other_split_names_are_refused(name: str) -> None:
    with pytest.raises(PipelineError) as raised:
        check_split_name(name)
    assert str(raised.value) == (
        f"Split name '{name}' cannot be used: split names begin with a letter or "
        "digit and have only letters, digits, '_' and '-'. Rename the split."
    )


@pytest.mark.parametrize(
    ("properties", "answer"),
    [
        ({"blessed": 1}, Answer.YES),
        ({"blessed": 0}, Answer.NO),
        ({"blessed": 0, "verdict": "INCONCLUSIVE"}, Answer.NOT_ENOUGH_DATA),
        ({"blessed": 1, "verdict": "INCONCLUSIVE"}, Answer.YES),
        ({"blessed": 1.0, "verdict": "BLESSED"}, Answer.YES),
        ({"blessed": 0, "verdict": "NOT_BLESSED"}, Answer.NO),
        ({"blessed": 0, "verdict": "NO_THRESHOLDS"}, Answer.NO),
        ({"blessed": 1, "verdict": "NOT_BLESSED", "forced": 1}, Answer.YES),
        ({}, Answer.NO),
    ],
)
def test_a_blessing_answers(properties: dict[str, Any], answer: Answer) -> None:
    assert ModelBlessing("/m", properties=properties).answer is answer


@pytest.mark.parametrize(
    ("word", "blessed"),
    [
        ("BLESSED", True),
        ("NOT_BLESSED", False),
        ("NO_THRESHOLDS", False),
        ("INCONCLUSIVE", False),
        ("INCONCLUSIVE", True),
    ],
)
def test_only_a_final_yes_writes_the_file_blessed(
    tmp_path: Path, word: str, blessed: bool
) -> None:
    blessing = ModelBlessing(tmp_path)
    blessing.decide(word, blessed=blessed)
    assert blessing.properties == {"verdict": word, "blessed": int(blessed)}
    assert [each.name for each in tmp_path.iterdir()] == [
        "BLESSED" if blessed else "NOT_BLESSED"
    ]
    assert blessing.word == word
    assert not blessing.is_forced
    assert blessing.forced_reason == ""


def test_a_blessing_of_tfx_has_a_word_too() -> None:
    assert ModelBlessing("/m", properties={"blessed": 1}).word == "BLESSED"
    assert ModelBlessing("/m", properties={"blessed": 0}).word == "NOT_BLESSED"


def test_a_forced_blessing_says_why_and_keeps_its_word() -> None:
    reason = "The old model is broken."
    properties: dict[str, Any] = {
        "blessed": 1,
        "verdict": "INCONCLUSIVE",
        "forced": 1.0,  # as it comes back from the store
        "forced_reason": reason,
    }
    blessing = ModelBlessing("/m", properties=properties)
    assert blessing.answer is Answer.YES
    assert blessing.word == "INCONCLUSIVE"
    assert blessing.is_forced
    assert blessing.forced_reason == reason


@pytest.mark.parametrize(
    ("blessed", "answer"),
    [
        ({"train": 1, "eval": 1}, Answer.YES),
        ({"train": 1, "eval": 0}, Answer.NO),
        ({"train": 1, "eval": 2}, Answer.NOT_ENOUGH_DATA),
        ({"train": 0, "eval": 2}, Answer.NO),
        ({"train": 1.0}, Answer.YES),  # as it comes back from the store
        ({}, Answer.NO),
        (None, Answer.NO),
    ],
)
def test_anomalies_answer_for_all_splits(blessed: Any, answer: Answer) -> None:
    properties = {} if blessed is None else {"blessed": blessed}
    assert ExampleAnomalies("/a", properties=properties).answer is answer


def test_reasons_are_read_as_they_were_set() -> None:
    verdict = Verdict("/v")
    assert not verdict.reasons
    verdict.set_reasons(["One.", "Two."])
    assert verdict.reasons == ("One.", "Two.")
    assert Verdict("/v", properties={"reasons": '["A."]'}).reasons == ("A.",)
