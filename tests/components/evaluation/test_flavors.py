"""Python predictors: found by a file in the model, called batch by batch, and safe."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.components.columns.inputs import Inputs
from penstock.components.evaluation import ModelSpec, models, write_flavor
from penstock.schemas.artifacts import Model
from penstock.schemas.errors import DataError, PipelineError

HERE = Path(__file__).parent
SUBJECT = "Model 'm' (candidate)"
MARKED = "'Outputs', 'broken', 'counts', 'load', 'strict', 'sums'"
ROWS = pa.RecordBatch.from_pydict(
    {"hour": [3, 20], "fare": [10.0, 30.0], "tips": [1.0, None]}
)


@pytest.fixture(scope="module", autouse=True)
def numpy_models() -> Any:
    """The module of loaders, importable as a user's module is."""
    name = "numpy_models"
    described = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert described is not None and described.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    yield module
    del sys.modules[name]


def make(
    folder: Path, loader: str = "load", columns: Any = ("fare", "hour"), **files: Any
) -> Model:
    model = Model(folder)
    write_flavor(model.serving_dir, loader=f"numpy_models:{loader}", columns=columns)
    for name, content in {"weights": [0.5, -1.0], **files}.items():
        (model.serving_dir / f"{name}.json").write_text(json.dumps(content), "utf-8")
    return model


def predicted(
    model: Model,
    rows: pa.RecordBatch = ROWS,
    outputs: Any = ("",),
    first_row: int = 0,
    **spec: Any,
) -> dict[str, Any]:
    source = models.find(
        SUBJECT, model, ModelSpec(**spec), rows.schema, outputs=outputs
    )
    predictor = models.load(pickle.loads(pickle.dumps(source)))
    inputs = Inputs(rows, "eval", first_row)
    assert predictor.transform(inputs) == {}
    return predictor.predict(inputs)


def refusal(*given: Any, **fields: Any) -> str:
    with pytest.raises((DataError, PipelineError)) as caught:
        predicted(*given, **fields)
    return str(caught.value)


def test_a_train_function_writes_what_the_evaluation_finds(
    tmp_path: Path, numpy_models: ModuleType
) -> None:
    model = make(tmp_path)
    source = models.find(SUBJECT, model, ModelSpec(), ROWS.schema)
    assert source.columns == {"fare", "hour"}
    assert source.required == source.gives == frozenset()
    assert source.batch_rows == 10_000
    found = predicted(model)[""]
    logits = 0.5 * np.array([10.0, 30.0]) - np.array([3, 20])
    assert found == pytest.approx(1 / (1 + np.exp(-logits)))
    before = len(numpy_models.LOADED)
    predicted(model)
    assert len(numpy_models.LOADED) == before
    (model.serving_dir / "weights.json").write_text("[1.00, 1.00]", "utf-8")
    assert predicted(model)[""][0] == pytest.approx(1 / (1 + np.exp(-13.0)))
    assert numpy_models.LOADED[before:] == [model.serving_dir]


def test_outputs_are_chosen_by_name(tmp_path: Path) -> None:
    model = make(tmp_path, "Outputs", ["fare"])
    found = predicted(model, outputs=("score", "both"))
    assert found["score"].tolist() == [10.0, 30.0]
    assert found["both"].tolist() == [[10.0, -10.0], [30.0, -30.0]]


def test_a_predictor_is_called_with_as_many_rows_as_the_config_says(
    tmp_path: Path,
) -> None:
    model = make(tmp_path, "counts", ["fare"])
    rows = pa.RecordBatch.from_pydict({"fare": np.arange(5.0)})
    assert predicted(model, rows)[""].tolist() == [5] * 5
    found = predicted(model, rows, inference_batch_size=2)[""]
    assert found.tolist() == [2, 2, 2, 2, 1]


def test_an_output_of_another_number_of_rows_is_refused(tmp_path: Path) -> None:
    model = make(tmp_path, "Outputs", ["fare"])
    assert refusal(model, outputs=("one",)) == (
        f"Output 'one' of {SUBJECT} has the shape (1,) for 2 rows. Make the model give "
        "one output per row."
    )
    model = make(tmp_path, "sums", ["fare"])
    assert refusal(model).startswith(
        f"What {SUBJECT} says has the shape () for 2 rows."
    )


def test_the_first_row_that_raises_is_named_and_no_value_printed(
    tmp_path: Path,
) -> None:
    model = make(tmp_path, "strict", ["fare"])
    fares = np.arange(20.0)
    fares[[13, 17]] *= -1
    rows = pa.RecordBatch.from_pydict({"fare": fares})
    assert refusal(model, rows, first_row=1_000) == (
        f"{SUBJECT} raises ArithmeticError on row 1,013 of split 'eval'. Call the "
        "predictor with that row in a test of the model."
    )


# What is in a model cannot make anything run but what the installed code marked.


@pytest.mark.parametrize(
    ("loader", "text"),
    [
        (
            "numpy_models:unmarked",
            f"{SUBJECT} is loaded by 'numpy_models:unmarked', and the module "
            "'numpy_models' marks no 'unmarked' with @model_loader (it marks "
            f"{MARKED}). Only what installed code marks is called.",
        ),
        (
            "numpy_models:lod",
            f"{SUBJECT} is loaded by 'numpy_models:lod', and the module 'numpy_models' "
            f"marks no 'lod' with @model_loader (it marks {MARKED}). Did you mean "
            "'load'? Only what installed code marks is called.",
        ),
        (
            "runpy:run_path",
            f"{SUBJECT} is loaded by 'runpy:run_path', and the module 'runpy' marks no "
            "'run_path' with @model_loader (it marks none). Only what installed code "
            "marks is called.",
        ),
        (
            "no_such_module:load",
            f"{SUBJECT} is loaded by 'no_such_module:load', and the module "
            "'no_such_module' cannot be imported: No module named 'no_such_module'. "
            "Install it where models are evaluated.",
        ),
        (
            "load",
            f"{SUBJECT} names the loader 'load', which is no 'module:function'. Name a "
            "function of a module that can be imported.",
        ),
    ],
)
def test_only_loaders_that_are_marked_are_called(
    tmp_path: Path, loader: str, text: str
) -> None:
    model = make(tmp_path)
    file = model.serving_dir / "flavor.json"
    content = json.loads(file.read_text("utf-8")) | {"loader": loader}
    file.write_text(json.dumps(content), "utf-8")
    assert refusal(model) == text


def test_the_models_own_folder_is_no_place_for_modules(tmp_path: Path) -> None:
    model = make(tmp_path)
    marker = tmp_path / "ran"
    evil = f"import pathlib; pathlib.Path({str(marker)!r}).touch()"
    (model.serving_dir / "evil.py").write_text(evil, "utf-8")
    file = model.serving_dir / "flavor.json"
    content = json.loads(file.read_text("utf-8")) | {"loader": "evil:load"}
    file.write_text(json.dumps(content), "utf-8")
    assert "cannot be imported" in refusal(model)
    assert not marker.exists()


def test_a_loader_is_checked_where_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        write_flavor(tmp_path, loader="numpy_models:lod", columns=[])
    assert str(caught.value).startswith(
        f"write_flavor('{tmp_path}') is loaded by 'numpy_models:lod', and"
    )
    assert not os.listdir(tmp_path)


def test_a_loader_that_raises_is_named(tmp_path: Path) -> None:
    assert refusal(make(tmp_path, "broken")) == (
        f"{SUBJECT} cannot be loaded: 'numpy_models:broken' raised OSError: no weights."
        " Mend it, or train the model again."
    )


def test_columns_that_the_data_does_not_have_are_named_one_by_one(
    tmp_path: Path,
) -> None:
    model = make(tmp_path, columns=["fares", "hour", "tip"])
    assert refusal(model) == (
        f"{SUBJECT} reads 'fares', 'tip', which the data does not have (it has 'fare', "
        "'hour', 'tips'). For 'fares', did you mean 'fare'? For 'tip', did you mean "
        f"'tips'? Ingest the columns, or mend 'columns' of '{model.serving_dir}/"
        "flavor.json'."
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "is no JSON: Expecting property name enclosed in double quotes: "),
        ("[]", "does not say version 1, the flavor 'python', a loader and columns. "),
        ('{"version": 2}', "does not say version 1, the flavor 'python', a loader and"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: str, text: str) -> None:
    model = make(tmp_path)
    (model.serving_dir / "flavor.json").write_text(content, "utf-8")
    found = refusal(model)
    assert found.startswith(f"'{model.serving_dir}/flavor.json' {text}")
    assert found.endswith(
        f"Let the train function of {SUBJECT} write it with write_flavor."
    )


def test_what_is_served_and_what_is_evaluated_is_the_same(tmp_path: Path) -> None:
    model = make(tmp_path)
    (model.serving_dir / "saved_model.pb").touch()
    assert refusal(model) == (
        f"{SUBJECT} holds both a SavedModel and a 'flavor.json', so that what is "
        "evaluated might not be what is served. Leave one of them out."
    )


def test_signatures_of_a_python_predictor_are_refused(tmp_path: Path) -> None:
    model = make(tmp_path)
    assert refusal(
        model, signature_name="predict", preprocessing_function_names=["transform"]
    ) == (
        f"{SUBJECT} is a Python predictor, which has no signatures, and the ModelSpec "
        "sets 'preprocessing_function_names', 'signature_name'. Leave that out."
    )


def test_a_python_predictor_requires_nothing(tmp_path: Path) -> None:
    source = models.find(SUBJECT, make(tmp_path), ModelSpec(), ROWS.schema)
    with pytest.raises(KeyError, match="fare"):
        source.missing_values("fare", 1)


class Booster:
    """As much of XGBoost's as the loader uses: a sum of the features."""

    best: str | None = None
    feature_names: list[str] | None = None

    def __init__(self, model_file: str) -> None:
        assert Path(model_file).is_file()

    def attr(self, name: str) -> str | None:
        assert name == "best_iteration"
        return self.best

    def inplace_predict(self, matrix: Any, iteration_range: tuple[int, int]) -> Any:
        assert matrix.dtype == np.float32
        return np.nansum(matrix, axis=1) + 1000 * iteration_range[1]


@pytest.mark.parametrize("names", [None, ["tips", "fare"]])
def test_boosters_of_xgboost_have_a_loader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str] | None
) -> None:
    xgboost: Any = ModuleType("xgboost")
    xgboost.Booster = Booster
    monkeypatch.setitem(sys.modules, "xgboost", xgboost)
    monkeypatch.setattr(Booster, "feature_names", names)
    monkeypatch.setattr(Booster, "best", None if names else "4")
    model = Model(tmp_path)
    loader = "penstock.components.evaluation.flavors:load_xgboost"
    write_flavor(model.serving_dir, loader=loader, columns=["fare", "tips"])
    (model.serving_dir / "model.json").touch()
    trees = 0 if names else 5000
    assert predicted(model)[""].tolist() == [11.0 + trees, 30.0 + trees]
