"""A pipeline whose InfraValidator gates what is pushed, and warms it up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import penstock.components as c
from penstock import Import, LocalRunner, Pipeline, RunResult, RunState, Store, run
from penstock.components.serving.infra_validator import InfraValidator
from penstock.components.serving.parity import Parity
from penstock.components.serving.version_dir import verify, versions
from penstock.schemas.artifacts import WARMUP_FILE, Answer, Examples, Model
from tests.components.serving import served_models as models


def pipeline(folder: Path, **more: Any) -> Pipeline:
    model = Import(folder / "model", Model)
    examples = Import(folder / "examples", Examples)
    infra = InfraValidator(model=model, examples=examples, latency_requests=10, **more)
    pusher = c.Pusher(
        model=model, infra_blessing=infra.blessing, serving_dir=folder / "serving"
    )
    return Pipeline("gated", [infra, pusher])


def ran(folder: Path, **more: Any) -> RunResult:
    return run(pipeline(folder, **more), folder / "root", runner=LocalRunner())


def states(result: RunResult) -> list[str]:
    return [each.state.value for each in result.executions.values()]


def test_a_version_is_pushed_with_its_warm_up_file_and_only_after_a_yes(
    tmp_path: Path,
) -> None:
    models.good(tmp_path / "model" / "Format-Serving")
    place = tmp_path / "examples" / "Split-eval"
    place.mkdir(parents=True)
    table = pa.Table.from_batches([models.ROWS])
    pq.write_table(table, place / "data_parquet-00000-of-00001.parquet")
    serving = tmp_path / "serving"

    refused = ran(tmp_path, parity=Parity(models.other_path))
    assert (refused.state, refused.answer) == (RunState.STOPPED, Answer.NO)
    assert "on 1 of 4 rows. Row 2 of split 'eval': 'y' is -1.5" in refused.reason
    assert not serving.exists()

    plain = ran(tmp_path, parity=Parity(models.trained_path))
    assert states(plain) == ["complete", "complete"]
    again = ran(tmp_path, parity=Parity(models.trained_path))
    assert states(again) == ["cached", "cached"]

    # A verdict counts for no fingerprint: the pusher sees that the file is another.
    warm = ran(tmp_path, parity=Parity(models.trained_path), make_warmup=True)
    assert states(warm) == ["complete", "complete"]
    assert states(
        ran(tmp_path, parity=Parity(models.trained_path), make_warmup=True)
    ) == ["cached", "cached"]

    first, second = versions(serving)
    assert not (first.path / WARMUP_FILE).exists()
    assert (second.path / WARMUP_FILE).is_file()
    assert verify(serving, second.number) == ()
    assert first.model_uri == second.model_uri == str(tmp_path / "model")

    store = Store(f"sqlite:///{tmp_path / 'root' / 'metadata.sqlite'}")
    pushed = store.artifact(warm["Pusher"].outputs["pushed_model"].id or 0)
    (source,) = pushed.upstream(Model)
    assert source.uri == str(tmp_path / "model")
