"""What only TFMA can measure, measured by TFMA itself, on Beam.

Rows are read and predicted as everywhere; slicing and metrics are TFMA's, which handles
one row at a time and is slow.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa

# TFMA's package swallows errors of its own imports: what is used is imported by module.
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.api import model_eval_lib, types
from tensorflow_model_analysis.evaluators import (
    metrics_plots_and_validations_evaluator as evaluators,
)
from tensorflow_model_analysis.extractors import (
    example_weights_extractor,
    features_extractor,
    labels_extractor,
    slice_key_extractor,
    unbatch_extractor,
)
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.writers import (
    metrics_plots_and_validations_writer as writers,
)

from penstock.components.columns.examples import read_row_group
from penstock.components.columns.forms import to_tfdv_form
from penstock.components.columns.inputs import Inputs
from penstock.components.evaluation import eval_config as configs
from penstock.components.evaluation import models
from penstock.components.evaluation.engine import Portion, Work
from penstock.components.evaluation.slicing import with_features

BATCH_ROWS = 2_000
_SEED = 20_240_229  # of confidence intervals, so that a run can be repeated


def evaluate(
    pipeline: beam.Pipeline,
    found: Sequence[Portion],
    work: Work,
    *,
    eval_config: Any,
    schema: Any,
    folder: Path,
) -> None:
    """Compute metrics with TFMA, and write its files.

    Args:
        pipeline: Where to run.
        found: What to read.
        work: How to read and predict.
        eval_config: A config made by `eval_config.prepared`, of these metrics only.
        schema: A TensorFlow Metadata schema that some metrics read, or None.
        folder: Where to write.
    """
    # Small slices are judged by us, and TFMA's own check of them disturbs thresholds.
    eval_config.options.ClearField("min_slice_size")
    with pipeline as root:
        evaluation = (
            root
            | "List portions for TFMA" >> beam.Create(list(found), reshuffle=False)
            | "Spread portions for TFMA" >> beam.Reshuffle()
            | "Read and predict for TFMA"
            >> beam.ParDo(
                _ReadAndPredict(work, _needed(eval_config, work.columns))
            ).with_output_types(types.Extracts)
            | "Extract and evaluate"
            >> model_eval_lib.ExtractAndEvaluate(
                extractors=[
                    features_extractor.FeaturesExtractor(eval_config=eval_config),
                    labels_extractor.LabelsExtractor(eval_config=eval_config),
                    example_weights_extractor.ExampleWeightsExtractor(
                        eval_config=eval_config
                    ),
                    unbatch_extractor.UnbatchExtractor(),
                    slice_key_extractor.SliceKeyExtractor(
                        eval_config=eval_config, materialize=False
                    ),
                ],
                evaluators=[
                    evaluators.MetricsPlotsAndValidationsEvaluator(
                        eval_config=eval_config,
                        schema=schema,
                        random_seed_for_testing=_SEED,
                    )
                ],
            )
        )
        _ = evaluation | "Write results" >> model_eval_lib.WriteResults(
            writers=[
                writers.MetricsPlotsAndValidationsWriter(
                    {
                        key: str(folder / key)
                        for key in (
                            constants.METRICS_KEY,
                            constants.PLOTS_KEY,
                            constants.ATTRIBUTIONS_KEY,
                        )
                    },
                    eval_config=eval_config,
                )
            ]
        )


def _needed(eval_config: Any, columns: Iterable[str]) -> frozenset[str]:
    """Return the columns that TFMA needs of those that there are.

    Carrying a column costs it a Python object per row. A metric of a user's module
    may read any.
    """
    metrics = [each for spec in eval_config.metrics_specs for each in spec.metrics]
    registered = metric_types.registered_metrics()
    if any(
        each.module.partition(".")[0] not in ("", "tf_keras", "keras", "tensorflow")
        and each.class_name not in registered
        for each in metrics
    ):
        return frozenset(columns)
    named = (
        configs.label_columns(eval_config)
        | configs.weight_columns(eval_config)
        | configs.query_columns(eval_config)
        | configs.slice_columns(eval_config)
    )
    return frozenset(
        column
        for column in columns
        if column in named
        or any(json.dumps(column) in metric.config for metric in metrics)
    )


class _ReadAndPredict(beam.DoFn):  # type: ignore[misc]
    """Makes of a portion extracts with features and predictions, batch by batch.

    A DoFn because it keeps the models that it loads.

    Args:
        work: How to read and predict.
        needed: The columns that become features.
    """

    def __init__(self, work: Work, needed: frozenset[str]) -> None:
        self._work = work
        self._needed = needed

    def process(self, portion: Portion) -> Iterator[dict[str, Any]]:
        first = portion.first_row
        for group in portion.groups:
            for batch in read_row_group(
                group, columns=self._work.columns, batch_size=BATCH_ROWS
            ):
                if batch.num_rows:
                    yield self._extracts(Inputs(batch, portion.split, first))
                first += batch.num_rows

    def _extracts(self, rows: Inputs) -> dict[str, Any]:
        predictions, computed = {}, {}
        for scored in self._work.scored:
            predictor = models.load(scored.source)
            predictions[scored.name] = _single(predictor.predict(rows))
            if scored.source.gives:
                computed[scored.name] = predictor.transform(rows)
        extracts = {
            constants.ARROW_RECORD_BATCH_KEY: self._features(rows.batch),
            constants.PREDICTIONS_KEY: _single(predictions),
        }
        if computed:
            extracts[constants.TRANSFORMED_FEATURES_KEY] = _single(computed)
        return extracts

    def _features(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        kept = [name for name in batch.schema.names if name in self._needed]
        chosen = pa.RecordBatch.from_arrays(
            [batch.column(batch.schema.names.index(name)) for name in kept], names=kept
        )
        return to_tfdv_form(with_features(chosen, batch, self._work.settings.slicings))


def _single(values: dict[str, Any]) -> Any:
    """Return the only value of a dict, or the dict: how TFMA keeps predictions."""
    return next(iter(values.values())) if len(values) == 1 else values
