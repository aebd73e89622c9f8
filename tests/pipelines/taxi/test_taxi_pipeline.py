"""The taxi pipeline's definition: light to import, wired as the design says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from penstock.components.contract import HEAVY
from penstock.pipelines.taxi import TRIPS_SCHEMA, taxi
from penstock.schemas.artifacts import ExampleAnomalies, ModelBlessing

CHECKOUT = Path(__file__).resolve().parents[3]


def test_importing_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, penstock.pipelines.taxi, penstock.pipelines.taxi.trips\n"
        f"print(*(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ""


def test_the_schema_is_there() -> None:
    assert TRIPS_SCHEMA.is_file()


def test_training_and_push_are_gated(tmp_path: Path) -> None:
    pipeline = taxi(tmp_path / "data", tmp_path / "serving", train_steps=7)
    components = {each.name: each for each in pipeline.components}
    (anomalies,) = components["Trainer"].inputs["anomalies"]
    assert isinstance(anomalies, ExampleAnomalies)
    (blessing,) = components["Pusher"].inputs["blessing"]
    assert isinstance(blessing, ModelBlessing)
    (baseline,) = components["Evaluator"].inputs["baseline"]
    assert str(baseline.source) == "LatestBlessed()"
    assert components["Trainer"].parameters["train_steps"] == 7
    assert pipeline.name == "taxi"


def test_a_retrained_model_may_lose_a_hundredth_of_auc() -> None:
    from penstock.pipelines.taxi.evaluation import EVAL_CONFIG

    assert len(EVAL_CONFIG.slicing_specs) == 3
    (metrics,) = EVAL_CONFIG.metrics_specs
    everywhere, _ = metrics.metrics[0].per_slice_thresholds
    assert everywhere.threshold.change_threshold.absolute.value == -0.01
    assert everywhere.threshold.value_threshold.lower_bound.value == 0.9
