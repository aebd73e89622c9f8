"""`penstock evaluate`: every kind of data and model, what it prints, its exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from penstock.components.columns import tfrecord
from penstock.components.evaluation import write_flavor
from penstock.components.evaluation.results import read
from penstock.schemas.artifacts import Examples, Model
from tests.conftest import Said
from tests.terminals import after_live, on_terminal

Command = Callable[..., Said]


def scored(table: pa.Table) -> pa.Table:
    """Return trips with predictions, as logs have them."""
    fare, hour = table["fare"].to_numpy(), table["hour"].to_numpy()
    logits = 0.15 * (fare - 15) + 0.05 * (hour - 12)
    return table.append_column("score", pa.array(1 / (1 + np.exp(-logits))))


@pytest.fixture(scope="module")
def trips(
    tmp_path_factory: pytest.TempPathFactory, rows: Callable[..., pa.Table]
) -> Path:
    """A Parquet file of logged predictions."""
    file = tmp_path_factory.mktemp("trips") / "trips.parquet"
    pq.write_table(scored(rows()), file)
    return file


@pytest.fixture
def evaluate(penstock: Command, tmp_path: Path) -> Command:
    """Call `penstock evaluate` with results in a folder of one's own."""

    def call(data: Path | str, *options: Any) -> Said:
        return penstock("evaluate", data, "--out", tmp_path / "out", *options)

    return call


def values(said: Said) -> dict[str, float]:
    """Return the metrics of all rows of what was said as JSON."""
    return {
        each["metric"]: each["value"]
        for each in said.json["metrics"]
        if each["slice"] == "all rows"
    }


LOGGED = ("--label", "big", "--prediction", "score")


# What it prints ------------------------------------------------------------------


def test_logged_predictions_are_measured_and_the_page_is_named(
    evaluate: Command, trips: Path, tmp_path: Path
) -> None:
    said = evaluate(trips, *LOGGED, "--slice", "payment", "--slice", "fare > 20")
    assert (said.code, said.err) == (0, "Evaluating 600 rows.\n")
    sections = said.out.strip().split("\n\n")
    heads = [section.splitlines()[0] for section in sections]
    assert heads[0] == "all rows, 600 rows"
    assert [head.partition(",")[0] for head in heads[1:-1]] == [
        *("fare > 20=false", "fare > 20=true", "payment=Card", "payment=Cash")
    ]
    assert heads[-1] == f"report: {tmp_path}/out/report.html"
    _, titles, *lines = sections[0].splitlines()
    assert titles.split() == ["metric", "value", "95", "%", "interval"]
    assert [line.split()[0] for line in lines] == [
        *("auc", "binary_accuracy", "precision", "recall", "calibration"),
        "example_count",
    ]
    assert re.fullmatch(r"auc +0\.\d{4}  \[0\.\d{4}, 0\.\d{4}\] *", lines[0])
    assert (tmp_path / "out" / "report.html").is_file()
    assert read(tmp_path / "out")[0].slice == ()


def test_a_baseline_is_beside_the_candidate(
    evaluate: Command, examples: Examples, model: Model, worse_model: Model
) -> None:
    said = evaluate(
        *(examples.uri, "--label", "big", "--metric", "auc"),
        *("--model", model.uri, "--baseline", worse_model.uri),
    )
    assert said.code == 0
    _, titles, line, *_ = said.out.strip().splitlines()
    assert titles.split() == [
        *("metric", "value", "95", "%", "interval", "baseline", "difference"),
        *("95", "%", "interval"),
    ]
    number, signed = r"0\.\d{4}", r"\+0\.\d{4}"
    assert re.fullmatch(
        rf"auc +{number}  \[{number}, {number}\] +{number} +{signed}"
        rf"  \[{signed}, {signed}\] *",
        line,
    )


def test_json_has_everything(
    evaluate: Command, examples: Examples, model: Model, worse_model: Model
) -> None:
    said = evaluate(
        *(examples.uri, "--label", "big", "--model", model.uri),
        *("--baseline", worse_model.uri, "--metric", "AUC", "--metric", "Precision"),
        *("--slice", "fare > 1000", "--threshold", "auc >= 0.99", "--json"),
    )
    assert (said.code, said.err) == (3, "")
    found = said.json
    assert found["report"] == f"{found['evaluation']}/report.html"
    assert (found["splits"], found["verdict"]) == (["eval"], "NOT_BLESSED")
    assert found["answer"] == "no"
    assert found["reasons"] == found["reasons_against"]
    assert found["reasons"][0].startswith("'auc' in all rows is 0.8")
    auc = found["metrics"][0]
    assert (auc["slice"], auc["metric"], auc["rows"]) == ("all rows", "auc", 600)
    assert auc["lower"] < auc["value"] < auc["upper"]
    for role in ("baseline", "difference"):
        assert auc[f"{role}_lower"] < auc[role] < auc[f"{role}_upper"]


def test_what_is_no_number_is_null_in_json(
    evaluate: Command, trips: Path, rows: Callable[..., pa.Table], tmp_path: Path
) -> None:
    table = scored(rows(20))
    table = table.set_column(
        table.schema.names.index("score"), "score", pa.array(np.zeros(20))
    )
    pq.write_table(table, tmp_path / "never.parquet")
    said = evaluate(tmp_path / "never.parquet", *LOGGED, "--json")
    assert (said.code, said.json["answer"], said.json["reasons"]) == (0, None, [])
    assert values(said)["precision"] is None


def test_a_file_of_a_config_and_options_are_one_question(
    evaluate: Command, trips: Path, tmp_path: Path
) -> None:
    file = tmp_path / "config.pbtxt"
    file.write_text(
        'model_specs { label_key: "big" prediction_key: "score" }\n'
        'metrics_specs { metrics { class_name: "BinaryAccuracy" } }\n'
        'slicing_specs { feature_values { key: "payment" value: "Cash" } }\n',
        "utf-8",
    )
    said = evaluate(
        *(trips, "--config", file, "--metric", "mean_label", "--slice", "hour // 12"),
        *("--weight", "weight", "--cluster", "company", "--json"),
    )
    assert (said.code, said.err) == (0, "")
    places = {(each["slice"], each["metric"]) for each in said.json["metrics"]}
    assert places == {
        (where, metric)
        for where in ("payment=Cash", "hour // 12=0", "hour // 12=1")
        for metric in ("binary_accuracy", "mean_label")
    }


def test_logged_predictions_of_two_models_are_compared(
    evaluate: Command, trips: Path, tmp_path: Path
) -> None:
    table = pq.read_table(trips)
    pq.write_table(table.append_column("old", table["share"]), tmp_path / "two.parquet")
    config = tmp_path / "config.json"
    specs = [
        {"name": "candidate", "labelKey": "big", "predictionKey": "score"},
        {
            "name": "baseline",
            "isBaseline": True,
            "labelKey": "big",
            "predictionKey": "old",
        },
    ]
    config.write_text(json.dumps({"modelSpecs": specs}), "utf-8")
    said = evaluate(
        *(tmp_path / "two.parquet", "--config", config, "--metric", "auc", "--json"),
        *("--threshold", "auc - baseline >= 0.1", "--confidence", "0.95"),
    )
    assert (said.code, said.json["verdict"]) == (0, "BLESSED")
    (auc,) = said.json["metrics"]
    assert 0.1 < auc["difference_lower"] < auc["difference"] < auc["difference_upper"]
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "predictions in &#39;score&#39;" in page
    assert "predictions in &#39;old&#39;" in page


def test_a_terminal_is_shown_progress_and_no_more_than_it_can_hold(
    trips: Path, tmp_path: Path
) -> None:
    command: list[str | Path] = [
        *(sys.executable, "-m", "penstock", "evaluate", trips, *LOGGED),
        *("--metric", "mean_label", "--slice", "bucket(share, 0.5)", "--slice", "fare"),
        *("--threshold", "mean_label >= 0.5", "--out", tmp_path / "out"),
    ]
    path = os.pathsep.join([os.getcwd(), *sys.path])
    code, text = on_terminal(command, {**os.environ, "PYTHONPATH": path})
    assert code == 3
    assert "Preparing" in text
    assert "600 rows" in text
    assert "WARNING" not in text
    lines = after_live(text)
    heads = [line for line in lines if re.search(r", [\d,]+ rows?$", line)]
    assert heads[0] == "all rows, 600 rows"
    assert len(heads) == 30
    assert "more slices: 573" in lines
    word = lines.index("NOT_BLESSED")
    reasons = [line for line in lines[word:] if line.startswith("- 'mean_label' in ")]
    assert len(reasons) == 20
    assert any(line.startswith("more reasons: ") for line in lines[word:])
    assert lines[-1] == f"report: {tmp_path}/out/report.html"


# Verdicts ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (["auc >= 0.7"], 0, "BLESSED"),
        (["auc >= 0.99"], 3, "NOT_BLESSED"),
        (["auc >= 0.83", "--confidence", "0.95"], 4, "INCONCLUSIVE"),
    ],
)
def test_a_verdict_is_an_exit_code(
    evaluate: Command, trips: Path, options: list[str], code: int, word: str
) -> None:
    said = evaluate(trips, *LOGGED, "--threshold", *options)
    assert said.code == code
    lines = said.out.splitlines()
    reasons = lines[lines.index(word) + 1 : -2]
    assert len(reasons) == (word != "BLESSED")
    assert all(each.startswith("- 'auc' in all rows is 0.8") for each in reasons)


def test_small_slices_are_left_out_and_counted(evaluate: Command, trips: Path) -> None:
    said = evaluate(
        *(trips, *LOGGED, "--slice", "company", "--slice", "payment"),
        *("--min-slice-size", "300", "--threshold", "auc >= 0.5"),
    )
    assert said.code == 0
    assert "payment=Cash" not in said.out
    assert "\nleft out, for they have too few rows: 1\n\nBLESSED\n" in said.out


# Data ----------------------------------------------------------------------------


def test_the_same_rows_in_any_file_give_the_same_metrics(
    evaluate: Command, trips: Path, tmp_path: Path
) -> None:
    table = pq.read_table(trips)
    pyarrow.csv.write_csv(table, tmp_path / "trips.csv")
    (batch,) = table.combine_chunks().to_batches()
    with tfrecord.Writer(tmp_path / "trips.gz") as writer:
        writer.write(tfrecord.encode(batch))
    folder = tmp_path / "folder"
    folder.mkdir()
    pq.write_table(table.slice(0, 400), folder / "a.parquet")
    pq.write_table(table.slice(400), folder / "b.parquet")
    (folder / "_SUCCESS").touch()
    expected = values(evaluate(trips, *LOGGED, "--json"))
    assert expected["example_count"] == 600
    for data in ("trips.csv", "trips.gz", "folder"):
        said = evaluate(tmp_path / data, *LOGGED, "--json")
        assert values(said) == pytest.approx(expected, rel=1e-6)
    written = json.loads((tmp_path / "out" / "eval_config.json").read_text("utf-8"))
    place = tmp_path / "out" / written["dataLocation"]
    assert place.resolve() == folder.resolve()


def test_files_without_values_in_a_column_go_with_others(
    evaluate: Command, rows: Callable[..., pa.Table], tmp_path: Path
) -> None:
    table = scored(rows(40))
    folder = tmp_path / "folder"
    folder.mkdir()
    pq.write_table(table, folder / "a.parquet")
    place = table.schema.names.index("company")
    without = table.set_column(place, "company", pa.nulls(40))
    pq.write_table(without, folder / "b.parquet")
    said = evaluate(folder, *LOGGED, "--slice", "company", "--json")
    assert values(said)["example_count"] == 80


def test_splits_of_examples_are_named_or_eval(
    evaluate: Command, examples: Examples, model: Model
) -> None:
    asked = (examples.uri, "--label", "big", "--model", model.uri, "--json")
    assert values(evaluate(*asked))["example_count"] == 600
    both = evaluate(*asked, "--split", "train", "--split", "eval")
    assert values(both)["example_count"] == 650
    assert both.json["splits"] == ["train", "eval"]


def test_the_only_split_needs_no_name(
    evaluate: Command,
    write_examples: Callable[..., Examples],
    rows: Callable[..., pa.Table],
    tmp_path: Path,
) -> None:
    only = write_examples(tmp_path / "one", late=scored(rows(30)))
    said = evaluate(only.uri, *LOGGED, "--json")
    assert said.json["splits"] == ["late"]
    several = write_examples(tmp_path / "two", late=rows(9), early=rows(9))
    assert evaluate(several.uri, *LOGGED) == (
        1,
        "",
        f"Examples '{tmp_path}/two' have the splits 'early', 'late'. Name those to "
        "evaluate on.\n",
    )


def test_data_that_cannot_be_read_gets_a_sentence(
    evaluate: Command, trips: Path, tmp_path: Path
) -> None:
    near = trips.with_name("trip.parquet")
    assert evaluate(near, *LOGGED).err == (
        f"There is no '{near}'. Did you mean 'trips.parquet'? Check the path.\n"
    )
    assert evaluate(trips, *LOGGED, "--split", "eval").err == (
        f"'{trips}' has no splits, and 'eval' are named. Name none, or the folder of "
        "an Examples artifact.\n"
    )
    mixed = tmp_path / "mixed"
    (mixed / "more").mkdir(parents=True)
    assert evaluate(mixed, *LOGGED).err == (
        f"Folder '{mixed}' holds no file (it has 'more'). Name a file, a folder of "
        "files, or the folder of an Examples artifact.\n"
    )
    shutil.copy(trips, mixed)
    (mixed / "trips.csv").write_text("a,b\n1,2\n", "utf-8")
    said = evaluate(mixed, *LOGGED)
    assert said == (
        1,
        "",
        f"Folder '{mixed}' holds files of several kinds: 'trips.csv' is CSV, "
        "'trips.parquet' is Parquet. Name one file, or a folder of one kind.\n",
    )


# Models --------------------------------------------------------------------------


def test_a_model_is_an_artifact_or_a_folder_by_itself(
    evaluate: Command,
    examples: Examples,
    tf_example_model: Model,
    tmp_path: Path,
) -> None:
    version = tmp_path / "serving" / "3"
    shutil.copytree(tf_example_model.serving_dir, version)
    found = [
        values(evaluate(examples.uri, "--label", "big", "--model", each, "--json"))
        for each in (tf_example_model.uri, version)
    ]
    assert found[0] == found[1]
    assert found[0]["auc"] > 0.7
    said = evaluate(examples.uri, "--label", "big", "--model", version.parent)
    assert said == (
        1,
        "",
        f"'{version.parent}' is no model: it holds none of 'flavor.json', "
        f"'saved_model.pb'. It has numbered folders; name one of them, as '{version}'."
        "\n",
    )
    said = evaluate(examples.uri, "--label", "big", "--model", examples.uri)
    assert said.err.endswith(
        "Name the folder of a SavedModel or of a Model artifact.\n"
    )


def test_a_label_that_is_no_column_is_the_models(
    evaluate: Command, examples: Examples, transforming_model: Model
) -> None:
    asked = ("--label", "generous", "--model", transforming_model.uri, "--json")
    assert values(evaluate(examples.uri, *asked))["auc"] == pytest.approx(1.0)


def test_a_python_predictor_is_a_model(
    evaluate: Command,
    examples: Examples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    folder = tmp_path / "model"
    write_flavor(folder, loader="numpy_models:load", columns=["fare", "hour"])
    (folder / "weights.json").write_text("[0.1, 0.01]", "utf-8")
    asked = ("--label", "big", "--model", folder, "--metric", "auc", "--json")
    found = values(evaluate(examples.uri, *asked))
    sys.modules.pop("numpy_models")
    assert 0.7 < found["auc"] < 0.95


def test_something_has_to_predict(evaluate: Command, trips: Path) -> None:
    assert evaluate(trips, "--label", "big") == (
        1,
        "",
        "There is neither a model nor a column of predictions. Give a model's folder, "
        "or the column (the data has 'big', 'company', 'fare', 'hour', 'payment', "
        "'score', 'share', 'weight').\n",
    )


def test_a_baseline_needs_a_model(
    evaluate: Command, trips: Path, worse_model: Model
) -> None:
    assert evaluate(trips, *LOGGED, "--baseline", worse_model.uri) == (
        1,
        "",
        "Evaluation has a baseline and no model. Give both, or none to evaluate "
        "predictions that are columns.\n",
    )


# Usage ---------------------------------------------------------------------------


def test_something_has_to_be_right(evaluate: Command, trips: Path) -> None:
    said = evaluate(trips, "--prediction", "score")
    assert (said.code, said.out) == (2, "")
    assert said.err.endswith(
        "nothing says what is right. Pass --label COLUMN, or an EvalConfig that names "
        "it, --config FILE.\n"
    )


def test_results_take_no_other_files_place(
    evaluate: Command, penstock: Command, trips: Path, tmp_path: Path
) -> None:
    assert evaluate(trips, *LOGGED).code == 0
    assert evaluate(trips, *LOGGED).code == 0  # of an earlier evaluation they do
    asked = ("evaluate", trips, *LOGGED, "--out")
    assert penstock(*asked, trips) == (
        1,
        "",
        f"'{trips}' is a file. Name a folder for the results.\n",
    )
    assert penstock(*asked, trips.parent) == (
        1,
        "",
        f"Folder '{trips.parent}' holds something else than an evaluation. Name a new "
        "folder for the results.\n",
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ("--label", "bgi", "--prediction", "score"),
            "The eval_config has the label 'bgi', which is no column of Examples "
            "'{trips}' (it has 'big', 'company', 'fare', 'hour', 'payment', 'score', "
            "'share', 'weight'). Did you mean 'big'?\n",
        ),
        (
            (*LOGGED, "--metric", "Recal"),
            "The eval_config asks for the metric 'Recal', which neither TFMA nor Keras "
            "has. Did you mean 'Recall'? For a metric of your own, give its module "
            "too.\n",
        ),
        (
            (*LOGGED, "--threshold", "recal >= 0.5"),
            "Threshold 'recal >= 0.5' is for 'recal', which is not measured (those are "
            "'auc', 'binary_accuracy', 'calibration', 'example_count', 'precision', "
            "'recall'). Did you mean 'recall'? Ask for the metric too.\n",
        ),
        (
            (*LOGGED, "--confidence", "95"),
            "Evaluation.confidence is 95.0; a confidence lies between 0.5 and 1. Pass "
            "0.95 for intervals of 95 %.\n",
        ),
        (
            (*LOGGED, "--slice", "fare >"),
            "The eval_config has the slicing feature 'fare >', which is no column of",
        ),
    ],
)
def test_what_cannot_be_asked_gets_a_sentence(
    evaluate: Command, trips: Path, tmp_path: Path, options: Any, sentence: str
) -> None:
    said = evaluate(trips, *(each.format(trips=trips) for each in options))
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(sentence.format(trips=trips))
    assert not (tmp_path / "out" / "report.html").exists()
