"""The examples in the guides and the README run as they are printed."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import PipelineError, RunContext

CHECKOUT = Path(__file__).resolve().parent.parent
DOCS = CHECKOUT / "docs"


def blocks(document: Path) -> list[str]:
    """Return the Python code blocks of a document."""
    text = document.read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def ran(folder: Path, *words: str) -> str:
    """Run Python in a folder, with the checkout and the folder on its path."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{folder}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_blocks(folder: Path, document: Path) -> str:
    """Write the blocks into files, run the last one, and return what it prints.

    A block that begins with a comment of a file name is written to that file.
    """
    script = ""
    for block in blocks(document):
        named = re.match(r"# (\w+\.py)\n", block)
        script = named[1] if named else f"{document.stem.replace('-', '_')}_.py"
        (folder / script).write_text(block, encoding="utf-8")
    return ran(folder, script)


def test_every_guide_has_an_example_that_a_test_runs() -> None:
    guides = {path.name for path in DOCS.glob("*.md") if blocks(path)}
    assert guides == {
        "alerts.md",
        "blessing.md",
        "drift.md",
        "environment.md",
        "evaluation.md",
        "housekeeping.md",
        "inference-logs.md",
        "infra-validation.md",
        "ingestion.md",
        "lineage.md",
        "model-server.md",
        "models.md",
        "monitoring-report.md",
        "profiles.md",
        "quality-over-time.md",
        "resolvers.md",
        "retraining.md",
        "rollout-statistics.md",
        "rollout.md",
        "router.md",
        "runners.md",
        "runs.md",
        "serving-directory.md",
        "slices.md",
        "tf-serving.md",
        "training.md",
        "validation.md",
        "write-your-own-component.md",
    }


def test_the_guide_prints_the_example_component_as_it_is() -> None:
    code = (DOCS / "examples" / "column_counts.py").read_text(encoding="utf-8")
    assert blocks(DOCS / "write-your-own-component.md")[0] == code


def test_the_guide_to_runs_runs(tmp_path: Path) -> None:
    assert run_blocks(tmp_path, DOCS / "runs.md") == ""  # its last, lookup.py
    assert ran(tmp_path, "runs_.py").splitlines() == [
        "complete complete",
        "cached cached",
        "complete cached",
        "complete complete",
    ]


def test_the_plan_of_the_guide_to_rollouts_is_one(tmp_path: Path) -> None:
    assert run_blocks(tmp_path, DOCS / "rollout.md").startswith("sha256:")


def test_the_ingestion_guide_runs(tmp_path: Path) -> None:
    assert run_blocks(tmp_path, DOCS / "ingestion.md").splitlines() == [
        "train 2000 rows",
        "eval 1000 rows",
    ]


def test_the_validation_guide_runs(tmp_path: Path) -> None:
    answer, *reasons = run_blocks(tmp_path, DOCS / "validation.md").splitlines()
    assert answer == "Answer.NO"
    assert reasons
    assert all("payment_type" in each and "Mobile" in each for each in reasons)


def test_the_guide_to_blessings_prints_what_it_says(tmp_path: Path) -> None:
    guide = DOCS / "blessing.md"
    (said,) = re.findall(r"```text\n(.*?)```", guide.read_text("utf-8"), re.DOTALL)
    assert run_blocks(tmp_path, guide) == said


def test_the_guide_to_resolved_inputs_prints_what_it_says(tmp_path: Path) -> None:
    guide = DOCS / "resolvers.md"
    (said,) = re.findall(r"^```text\n(.*?)^```$", guide.read_text("utf-8"), re.M | re.S)
    assert run_blocks(tmp_path, guide) == said


def test_the_guide_to_tensorflow_serving_runs(tmp_path: Path) -> None:
    assert run_blocks(tmp_path, DOCS / "tf-serving.md") == "[2. 4.]\n"


def test_the_guide_to_environments_runs(tmp_path: Path) -> None:
    line, has_numpy = run_blocks(tmp_path, DOCS / "environment.md").splitlines()
    assert re.fullmatch(
        r".+ \d.+, packages [0-9a-f]{12}, \d+ x .+, no repository", line
    )
    assert has_numpy == "True"


def test_the_guide_to_slices_prints_what_it_says(tmp_path: Path) -> None:
    guide = DOCS / "slices.md"
    (printed, _) = re.findall(r"^```text\n(.*?)^```$", guide.read_text(), re.M | re.S)
    assert run_blocks(tmp_path, guide) == printed


def test_the_guide_to_monitoring_reports_prints_what_it_says(tmp_path: Path) -> None:
    guide = DOCS / "monitoring-report.md"
    said = re.findall(r"^```text\n(.*?)^```$", guide.read_text("utf-8"), re.M | re.S)
    assert run_blocks(tmp_path, guide) == said[0]
    assert (tmp_path / "report.html").read_text("utf-8").startswith("<!doctype html>")


def test_the_guide_to_inference_logs_prints_what_it_says(tmp_path: Path) -> None:
    guide = DOCS / "inference-logs.md"
    (said,) = re.findall(r"^```text\n(.*?)^```$", guide.read_text("utf-8"), re.M | re.S)
    assert run_blocks(tmp_path, guide) == said


def test_the_guide_to_drift_prints_what_it_says(tmp_path: Path) -> None:
    guide = DOCS / "drift.md"
    (said,) = re.findall(r"^```text\n(.*?)^```$", guide.read_text("utf-8"), re.M | re.S)
    assert run_blocks(tmp_path, guide) == said


def test_the_guide_to_quality_prints_what_it_says(tmp_path: Path) -> None:
    guide = DOCS / "quality-over-time.md"
    (said,) = re.findall(r"^```text\n(.*?)^```$", guide.read_text("utf-8"), re.M | re.S)
    assert run_blocks(tmp_path, guide) == said


def test_the_guide_to_profiles_prints_what_it_says(tmp_path: Path) -> None:
    guide = DOCS / "profiles.md"
    (said,) = re.findall(r"^```text\n(.*?)^```$", guide.read_text("utf-8"), re.M | re.S)
    assert run_blocks(tmp_path, guide) == said


def test_the_guide_to_alerts_prints_what_it_says(tmp_path: Path) -> None:
    guide = DOCS / "alerts.md"
    (said,) = re.findall(r"^```text\n(.*?)^```$", guide.read_text("utf-8"), re.M | re.S)
    assert run_blocks(tmp_path, guide) == said


def test_the_guide_to_housekeeping_prints_what_it_says(tmp_path: Path) -> None:
    guide = DOCS / "housekeeping.md"
    (said,) = re.findall(r"^```text\n(.*?)^```$", guide.read_text("utf-8"), re.M | re.S)
    assert run_blocks(tmp_path, guide) == said


def test_the_guide_to_the_model_server_prints_what_it_says(tmp_path: Path) -> None:
    guide = DOCS / "model-server.md"
    (said,) = re.findall(r"^```text\n(.*?)^```$", guide.read_text("utf-8"), re.M | re.S)
    assert run_blocks(tmp_path, guide) == said


def test_the_guide_to_infra_validation_prints_what_it_says(tmp_path: Path) -> None:
    guide = DOCS / "infra-validation.md"
    (said,) = re.findall(r"^```text\n(.*?)^```$", guide.read_text("utf-8"), re.M | re.S)
    assert run_blocks(tmp_path, guide) == said


def test_the_guide_to_a_rollouts_statistics_prints_what_it_says(tmp_path: Path) -> None:
    guide = DOCS / "rollout-statistics.md"
    (said,) = re.findall(r"^```text\n(.*?)^```$", guide.read_text("utf-8"), re.M | re.S)
    assert run_blocks(tmp_path, guide) == said


def test_the_guide_to_the_router_prints_what_it_says(tmp_path: Path) -> None:
    guide = DOCS / "router.md"
    (said,) = re.findall(r"^```text\n(.*?)^```$", guide.read_text("utf-8"), re.M | re.S)
    assert run_blocks(tmp_path, guide) == said


def test_the_guide_to_retraining_prints_what_it_says(tmp_path: Path) -> None:
    guide = DOCS / "retraining.md"
    text = guide.read_text("utf-8")
    (said,) = re.findall(r"^```text\n(.*?)^```$", text, re.M | re.S)
    assert run_blocks(tmp_path, guide) == said


def test_the_guide_to_models_runs(tmp_path: Path) -> None:
    printed = run_blocks(tmp_path, DOCS / "models.md").splitlines()[-1]
    assert re.fullmatch(r"The tips are 1\.\d\d dollars off\.", printed)


def test_the_guide_to_runners_runs_in_this_process(tmp_path: Path) -> None:
    # And on Flink in tests/e2e/test_flink.py.
    printed = run_blocks(tmp_path, DOCS / "runners.md")
    assert printed == "complete {'train': 1320, 'eval': 680}\n"


def test_the_guide_to_your_own_component_runs(tmp_path: Path) -> None:
    shutil.copy(DOCS / "examples" / "column_counts.py", tmp_path)
    printed = run_blocks(tmp_path, DOCS / "write-your-own-component.md")
    assert printed.startswith("2000 rows, counted in ")


def test_the_example_component_keeps_the_contract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from penstock.components.contract import check_component
    from penstock.schemas.artifacts import Examples

    monkeypatch.syspath_prepend(str(DOCS / "examples"))
    module = importlib.import_module("column_counts")
    split = tmp_path / "examples" / "Split-train"
    split.mkdir(parents=True)
    rows = pa.table({"paid": ["cash", None, "card", "cash"]})
    pq.write_table(rows, split / "data_parquet-00000-of-00001.parquet")
    examples = Examples(
        tmp_path / "examples", properties={"payload_format": "FORMAT_PARQUET"}
    )
    component = module.CountValues(examples=examples, column="paid")
    check_component(component, tmp_path / "contract")

    live = component.with_outputs(tmp_path / "by-hand")
    live.run(RunContext.local(tmp_path / "temp"))
    written = live.counts.path / "Split-train" / "counts.json"
    assert json.loads(written.read_text(encoding="utf-8")) == [
        {"value": "cash", "rows": 2},
        {"value": None, "rows": 1},
        {"value": "card", "rows": 1},
    ]
    assert live.counts.properties == {"rows": 4}


def test_the_example_component_keeps_at_least_one_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.schemas.artifacts import Examples

    monkeypatch.syspath_prepend(str(DOCS / "examples"))
    module = importlib.import_module("column_counts")
    with pytest.raises(PipelineError) as caught:
        module.CountValues(examples=Examples(tmp_path), column="paid", most=0)
    assert str(caught.value) == (
        "CountValues.most is 0, so that no value would be kept. Pass a number greater "
        "than 0."
    )


@pytest.mark.long
def test_the_training_guide_runs(tmp_path: Path) -> None:
    assert "serving_default" in run_blocks(tmp_path, DOCS / "training.md")


@pytest.mark.long
def test_the_pipeline_of_the_readme_runs(tmp_path: Path) -> None:
    assert run_blocks(tmp_path, CHECKOUT / "README.md").splitlines()[-1] == "1"
    assert (tmp_path / "serving" / "taxi" / "1" / "saved_model.pb").is_file()


@pytest.fixture(scope="module")
def after_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the demo ran."""
    folder = tmp_path_factory.mktemp("guides")
    ran(folder, "-m", "penstock.pipelines.taxi.demo")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.long
def test_the_evaluation_guide_runs(after_demo: Path) -> None:
    answer, *reasons = run_blocks(after_demo, DOCS / "evaluation.md").splitlines()
    assert answer == "Answer.YES"
    assert any("Credit Card" in each for each in reasons)


@pytest.mark.long
def test_the_guide_to_the_serving_directory_runs(after_demo: Path) -> None:
    printed = run_blocks(after_demo, DOCS / "serving-directory.md")
    assert printed.startswith("1 complete ")
    assert "pushed by run " in printed
    probability = float(printed.splitlines()[-1].removeprefix("a generous tip: "))
    assert 0 <= probability <= 1


@pytest.mark.long
def test_the_lineage_guide_runs(after_demo: Path) -> None:
    printed = run_blocks(after_demo, DOCS / "lineage.md")
    assert "Trainer complete" in printed
    assert "reached version 1" in printed
