"""The same rows and EvalConfig measured by us and by TFMA, and the comparison.

TFMA runs whole: its extractors of labels and weights, its slicing and its evaluator, on
an in-memory Beam runner, from predictions that are given. A run costs about a second
whatever the rows are, so data sets that belong together are slices of one run.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import pickle
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.runners.portability import fn_api_runner
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.api import model_eval_lib
from tensorflow_model_analysis.evaluators import (
    metrics_plots_and_validations_evaluator as evaluators,
)
from tensorflow_model_analysis.extractors import (
    example_weights_extractor,
    labels_extractor,
    slice_key_extractor,
    unbatch_extractor,
)
from tensorflow_model_analysis.utils import config_util

from penstock.components.evaluation import (
    EvalConfig,
    MetricConfig,
    MetricsSpec,
    ModelSpec,
    SlicingSpec,
)
from penstock.components.evaluation.accumulate import (
    Accumulator,
    Settings,
    ranks_of_clusters,
    ranks_of_rows,
)
from penstock.components.evaluation.batch import Array, Batch, Key
from penstock.components.evaluation.intervals import Asked
from penstock.components.evaluation.measure import Found, measured
from penstock.components.evaluation.plan import Plan, make_plan

CANDIDATE, BASELINE = "candidate", "baseline"

Values: TypeAlias = "dict[Any, dict[Any, Any]]"
"""What was measured, by TFMA's keys of metrics and plots, by slice.

A comparison of slices has the key `(baseline's slice, slice)`, as TFMA has it.
"""
Predictions: TypeAlias = "Array | Mapping[str, Array]"
"""What a model predicts: of shape (rows,) or (rows, values), for each output."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Rows with predictions.

    Attributes:
        columns: Labels, weights, slicing features and query keys, by name; of shape
            (rows,), or (rows, values).
        candidate: What the model predicts.
        baseline: What the model predicts that it is compared with.
    """

    columns: Mapping[str, Array]
    candidate: Predictions
    baseline: Predictions | None = None

    @property
    def rows(self) -> int:
        """How many."""
        return len(next(iter(self.columns.values())))

    @property
    def models(self) -> dict[str, Mapping[str, Array]]:
        """What each model predicts, by name, by output; '' if there is only one."""
        if self.baseline is None:
            return {"": _by_output(self.candidate)}
        return {
            CANDIDATE: _by_output(self.candidate),
            BASELINE: _by_output(self.baseline),
        }

    @classmethod
    def joined(cls, parts: Sequence[Data], name: str = "case") -> Data:
        """Return the rows of all parts, with their number in a new column."""
        case = np.repeat(np.arange(len(parts)), [each.rows for each in parts])
        columns = {
            key: np.concatenate([each.columns[key] for each in parts])
            for key in parts[0].columns
        }
        predictions = [
            {
                output: np.concatenate([each.models[model][output] for each in parts])
                for output in parts[0].models[model]
            }
            for model in parts[0].models
        ]
        return cls({**columns, name: case}, *predictions)


def config(
    *metrics: str | MetricConfig | MetricsSpec,
    weighted: bool = False,
    slices: Iterable[str] = ("case",),
    **fields: Any,
) -> EvalConfig:
    """Return a config of metrics of the columns `label` and `weight`.

    Args:
        metrics: Class names and MetricConfigs, which make one MetricsSpec, and
            whole MetricsSpecs.
        weighted: Whether the rows are weighted.
        slices: Columns that rows are sliced by, one by one; all rows are measured too.
        fields: More of the EvalConfig, or `model_specs` instead of the one above.
    """
    specs = [each for each in metrics if isinstance(each, MetricsSpec)]
    alone = [
        MetricConfig(class_name=each) if isinstance(each, str) else each
        for each in metrics
        if not isinstance(each, MetricsSpec)
    ]
    if alone:
        specs.append(MetricsSpec(metrics=alone))
    model = ModelSpec(label_key="label", example_weight_key="weight" * weighted)
    given = {
        "model_specs": [model],
        "slicing_specs": [
            SlicingSpec(),
            *(SlicingSpec(feature_keys=[name]) for name in slices),
        ],
        "metrics_specs": specs,
    }
    return EvalConfig(**{**given, **fields})


def ready(asked: EvalConfig, data: Data) -> EvalConfig:
    """Return a config as TFMA runs it, with the names of the models of the data."""
    return config_util.update_eval_config_with_defaults(
        asked, has_baseline=data.baseline is not None, rubber_stamp=True
    )


def planned(asked: EvalConfig, data: Data, schema: Any = None) -> Plan:
    """Return our plan of a config."""
    return make_plan(ready(asked, data), schema)


def found(
    asked: EvalConfig,
    data: Data,
    *,
    parts: int = 2,
    intervals: Asked | None = None,
    cluster: str = "",
    sampled: int = 5_000,
    schema: Any = None,
) -> list[Found]:
    """Measure rows in columns.

    Args:
        asked: What to measure.
        data: The rows.
        parts: How many accumulators share the rows, two batches each.
        intervals: Which intervals to compute, if any.
        cluster: Column whose equal values are one unit.
        sampled: Most units of a slice that are kept for intervals.
        schema: A TensorFlow Metadata schema, if there is one.
    """
    plan = planned(asked, data, schema)
    settings = Settings(
        plan.slicings,
        plan.statistics,
        tuple(intervals is not None and each.counts for each in plan.statistics),
        sampled if intervals else 0,
        bool(cluster),
        queries=plan.queries,
    )
    table = pa.RecordBatch.from_arrays(
        [_column(each) for each in data.columns.values()], names=list(data.columns)
    )
    batch = _batch(ready(asked, data), data)
    accumulators = [Accumulator(settings) for _ in range(parts)]
    edges = np.linspace(0, data.rows, 2 * parts + 1).astype(int)
    for place, (start, end) in enumerate(itertools.pairwise(edges)):
        rows = table.slice(start, end - start)
        ranks = ranks_of_rows((0, start), end - start) if intervals else None
        if cluster and ranks is not None:
            ranks = ranks_of_clusters(rows, cluster, ranks, 0)
        accumulators[place // 2].add(rows, batch.take(np.arange(start, end)), ranks)
    total = Accumulator(settings)
    for each in accumulators:
        total.merge(each)
    return measured(
        total,
        plan.metrics,
        crosses=plan.crosses,
        baseline=plan.baseline,
        asked=intervals,
    )


def ours(
    asked: EvalConfig, data: Data, *, parts: int = 2, schema: Any = None
) -> Values:
    """Return what we measure. All metrics of the config have to be ours."""
    left = planned(asked, data).left_names
    assert not left, f"left to TFMA: {left}"
    return {
        each.slice
        if each.baseline_slice is None
        else (each.baseline_slice, each.slice): each.values
        for each in found(asked, data, parts=parts, schema=schema)
    }


def theirs(asked: EvalConfig, data: Data, *, schema: Any = None) -> Values:
    """Return what TFMA measures, without its private metrics."""
    settled = ready(asked, data)
    features = {
        name: each.reshape(len(each), -1) for name, each in data.columns.items()
    }
    models = {model: _unwrapped(each) for model, each in data.models.items()}
    extracts = {
        constants.FEATURES_KEY: features,
        constants.PREDICTIONS_KEY: _unwrapped(models),
    }
    with tempfile.TemporaryDirectory() as folder:
        with beam.Pipeline(runner=fn_api_runner.FnApiRunner()) as root:
            evaluation = (
                root
                | "Give rows" >> beam.Create([extracts], reshuffle=False)
                | "Evaluate"
                >> model_eval_lib.ExtractAndEvaluate(
                    extractors=[
                        labels_extractor.LabelsExtractor(eval_config=settled),
                        example_weights_extractor.ExampleWeightsExtractor(
                            eval_config=settled
                        ),
                        unbatch_extractor.UnbatchExtractor(),
                        slice_key_extractor.SliceKeyExtractor(
                            eval_config=settled, materialize=False
                        ),
                    ],
                    evaluators=[
                        evaluators.MetricsPlotsAndValidationsEvaluator(
                            eval_config=settled, schema=schema
                        )
                    ],
                )
            )
            for kind in (constants.METRICS_KEY, constants.PLOTS_KEY):
                if kind in evaluation:
                    _ = (
                        evaluation[kind]
                        | f"Gather {kind}" >> beam.combiners.ToList()
                        | f"Keep {kind}" >> beam.Map(_keep, str(Path(folder, kind)))
                    )
        gathered: Values = {}
        for file in sorted(Path(folder).iterdir()):
            for key, values in pickle.loads(file.read_bytes()):
                public = {
                    each: value
                    for each, value in values.items()
                    if not each.name.startswith("_")
                }
                gathered.setdefault(key, {}).update(public)
    return gathered


def assert_equal(
    ours: Values, theirs: Values, *, relative: float = 1e-6, absolute: float = 1e-12
) -> None:
    """Assert that slices, keys and values are the same.

    Args:
        ours: What we measured.
        theirs: What TFMA measured.
        relative: By how much values may differ, as a share of TFMA's.
        absolute: By how much values may differ around 0, where 64-bit sums of
            different orders leave different rests.
    """
    assert set(ours) == set(theirs)
    wrong = []
    for key, values in theirs.items():
        missing, surplus = set(values) - set(ours[key]), set(ours[key]) - set(values)
        assert not missing and not surplus, (key, missing, surplus)
        wrong += [
            f"{key} {name}: ours {ours[key][name]}, TFMA's {value}"
            for name, value in values.items()
            if not is_equal(ours[key][name], value, relative, absolute)
        ]
    assert not wrong, "\n".join(wrong)


def assert_parity(
    asked: EvalConfig,
    data: Data,
    *,
    relative: float = 1e-6,
    absolute: float = 1e-12,
    schema: Any = None,
) -> Values:
    """Assert that we measure what TFMA does; return it."""
    mine, other = ours(asked, data, schema=schema), theirs(asked, data, schema=schema)
    assert_equal(mine, other, relative=relative, absolute=absolute)
    return mine


def is_equal(mine: Any, other: Any, relative: float, absolute: float = 1e-12) -> bool:
    """Return whether a value is TFMA's: a number, an array, or what makes a message."""
    if hasattr(other, "to_proto"):
        mine, other = mine.to_proto(), other.to_proto()
    if hasattr(other, "DESCRIPTOR"):
        return _same_message(mine, other, relative, absolute)
    mine, other = np.asarray(mine, float), np.asarray(other, float)
    return mine.shape == other.shape and bool(
        np.allclose(mine, other, rtol=relative, atol=absolute, equal_nan=True)
    )


def _same_message(mine: Any, other: Any, relative: float, absolute: float) -> bool:
    """Return whether messages have the same fields, numbers up to the tolerance."""
    if mine.DESCRIPTOR.full_name != other.DESCRIPTOR.full_name:
        return False
    for field in other.DESCRIPTOR.fields:
        first, second = getattr(mine, field.name), getattr(other, field.name)
        many = hasattr(second, "__len__") and not isinstance(second, str | bytes)
        if not many:
            if field.has_presence and mine.HasField(field.name) != other.HasField(
                field.name
            ):
                return False
            first, second = [first], [second]
        elif len(first) != len(second):
            return False
        for one, two in zip(first, second, strict=True):
            if not _same_value(one, two, relative, absolute):
                return False
    return True


def _same_value(one: Any, two: Any, relative: float, absolute: float) -> bool:
    if hasattr(two, "DESCRIPTOR"):
        return _same_message(one, two, relative, absolute)
    if isinstance(two, float):
        both_nan = math.isnan(one) and math.isnan(two)
        return both_nan or math.isclose(one, two, rel_tol=relative, abs_tol=absolute)
    return bool(one == two)


def _by_output(predictions: Predictions) -> Mapping[str, Array]:
    return predictions if isinstance(predictions, Mapping) else {"": predictions}


def _unwrapped(values: Any) -> Any:
    """Return what is under '' alone: how TFMA keeps one model and one output."""
    return values[""] if set(values) == {""} else values


def _column(values: Array) -> pa.Array:
    return pa.array(values if values.ndim == 1 else values.tolist())


def _batch(settled: Any, data: Data) -> Batch:
    """Return labels, predictions, weights and columns, as the engine does."""
    arrays: dict[Key, Array] = {
        ("column", "", name): each for name, each in data.columns.items()
    }
    for spec in settled.model_specs:
        name = spec.name if data.baseline is not None else ""
        for output, values in data.models[name].items():
            arrays["prediction", name, output] = values
        for output, key in _keys(spec.label_key, spec.label_keys):
            arrays["label", name, output] = data.columns[key]
        for output, key in _keys(spec.example_weight_key, spec.example_weight_keys):
            arrays["weight", name, output] = data.columns[key]
    return Batch(data.rows, arrays)


def _keys(one: str, many: Mapping[str, str]) -> list[tuple[str, str]]:
    return [("", one)] if one else list(many.items())


def _keep(values: Any, path: str) -> None:
    Path(path).write_bytes(pickle.dumps(values))
