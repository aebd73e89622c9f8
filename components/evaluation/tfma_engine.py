"""The engine that computes metrics: TFMA itself, on Beam, over Arrow batches.

Rows are read and predicted here, column by column; slicing, metrics and files are
TFMA's. Whatever replaces this engine has to offer `evaluate`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    transformed_features_extractor,
    unbatch_extractor,
)
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.utils import model_util
from tensorflow_model_analysis.writers import (
    metrics_plots_and_validations_writer as writers,
)

from penstock.components.columns import tfrecord
from penstock.components.columns.examples import (
    RowGroup,
    read_row_group,
    row_groups,
    schema_of,
)
from penstock.components.columns.forms import to_tfdv_form
from penstock.components.evaluation import eval_config as configs
from penstock.components.evaluation import results
from penstock.components.evaluation.prediction import Predictor, Signature
from penstock.schemas.artifacts import Examples

BATCH_ROWS = 2_000
_SEED = 20_240_229  # of confidence intervals, so that a run can be repeated


@dataclasses.dataclass(frozen=True)
class Scored:
    """A model to be evaluated.

    Attributes:
        name: `candidate` or `baseline`.
        location: Where it is, relative to the result.
        signature: How to call it.
        transformed: The columns that its preprocessing signatures take as tensors.
    """

    name: str
    location: str
    signature: Signature
    transformed: frozenset[str] = frozenset()


def evaluate(
    pipeline: beam.Pipeline,
    *,
    examples: Examples,
    splits: Sequence[str],
    eval_config: Any,
    models: Sequence[Scored],
    schema: Any,
    folder: Path,
    data_location: str,
) -> None:
    """Compute the metrics of one or two models in one pass, and write TFMA's files.

    Args:
        pipeline: Where to run.
        examples: The rows.
        splits: The splits to read.
        eval_config: A config made by `eval_config.prepared` for these models.
        models: The candidate, and the baseline if there is one.
        schema: A TensorFlow Metadata schema that some metrics read, or None.
        folder: Where to write.
        data_location: Where the rows are, relative to the result.
    """
    groups = [group for split in splits for group in row_groups(examples, split)]
    # TFMA gives a single model no name.
    names = [each.name if len(models) > 1 else "" for each in models]
    with pipeline as root:
        extracts = (
            root
            | "List row groups" >> beam.Create(groups, reshuffle=False)
            | "Spread row groups" >> beam.Reshuffle()
            | "Read and predict"
            >> beam.ParDo(
                _ReadAndPredict(
                    dict(zip(names, (each.signature for each in models), strict=True)),
                    _needed_columns(
                        eval_config,
                        schema_of(examples).names,
                        frozenset().union(*(each.transformed for each in models)),
                    ),
                    keep_records=configs.transforms(eval_config),
                )
            ).with_output_types(types.Extracts)
        )
        evaluation = (
            extracts
            | "Extract and evaluate"
            >> model_eval_lib.ExtractAndEvaluate(
                extractors=list(_extractors(eval_config, models, names)),
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
                            constants.VALIDATIONS_KEY,
                        )
                    },
                    eval_config=eval_config,
                    rubber_stamp=len(models) == 1,
                )
            ]
        )
    results.in_one_order(folder)
    results.write_config(
        folder,
        eval_config,
        data_location,
        "parquet" if groups[0].payload_format == "FORMAT_PARQUET" else "tfrecords",
        dict(zip(names, (each.location for each in models), strict=True)),
    )


def _extractors(
    eval_config: Any, models: Sequence[Scored], names: Sequence[str]
) -> Iterator[Any]:
    """Yield TFMA's default extractors but the one that predicts.

    Ours gives the model the types that it takes, refuses missing values by name, and
    lets TFMA carry only the columns that it needs.
    """
    yield features_extractor.FeaturesExtractor(eval_config=eval_config)
    if configs.transforms(eval_config):
        yield transformed_features_extractor.TransformedFeaturesExtractor(
            eval_config=eval_config,
            eval_shared_model=[
                _shared_model(name, model.signature.folder)
                for name, model in zip(names, models, strict=True)
            ],
        )
    yield labels_extractor.LabelsExtractor(eval_config=eval_config)
    yield example_weights_extractor.ExampleWeightsExtractor(eval_config=eval_config)
    yield unbatch_extractor.UnbatchExtractor()
    yield slice_key_extractor.SliceKeyExtractor(
        eval_config=eval_config, materialize=False
    )


def _shared_model(name: str, folder: str) -> Any:
    load = model_util.model_construct_fn(
        eval_saved_model_path=folder,
        tags=["serve"],
        model_type=constants.TF_GENERIC,
    )
    return types.EvalSharedModel(
        model_name=name,
        model_path=folder,
        model_type=constants.TF_GENERIC,
        model_loader=types.ModelLoader(construct_fn=load, tags=["serve"]),
    )


def _needed_columns(
    eval_config: Any, columns: Iterable[str], transformed: frozenset[str]
) -> frozenset[str]:
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
        | transformed
    )
    return frozenset(
        column
        for column in columns
        if column in named
        or any(json.dumps(column) in metric.config for metric in metrics)
    )


class _ReadAndPredict(beam.DoFn):  # type: ignore[misc]
    """Makes of a row group extracts with features and predictions, batch by batch.

    A DoFn because it keeps the models that it loads.

    Args:
        signatures: How to call the models, by the names that TFMA gives them.
        columns: The columns that become features.
        keep_records: Whether serialized tf.Examples are kept for a transformation.
    """

    def __init__(
        self,
        signatures: Mapping[str, Signature],
        columns: frozenset[str],
        *,
        keep_records: bool,
    ) -> None:
        self._signatures = signatures
        self._columns = columns
        self._keep_records = keep_records

    def setup(self) -> None:
        self._predictors = {
            name: Predictor(signature) for name, signature in self._signatures.items()
        }

    def process(self, group: RowGroup) -> Iterator[dict[str, Any]]:
        for batch in read_row_group(group, batch_size=BATCH_ROWS):
            if batch.num_rows == 0:
                continue
            predictions = {
                name: _single(predictor.predict(batch))
                for name, predictor in self._predictors.items()
            }
            yield {
                constants.ARROW_RECORD_BATCH_KEY: self._features(batch),
                constants.PREDICTIONS_KEY: _single(predictions),
            }

    def _features(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        names = [name for name in batch.schema.names if name in self._columns]
        listed = to_tfdv_form(
            pa.RecordBatch.from_arrays(
                [batch.column(batch.schema.names.index(name)) for name in names],
                names=names,
            )
        )
        if not self._keep_records:
            return listed
        records = pa.array(tfrecord.encode(batch), pa.binary())
        offsets = pa.array(range(batch.num_rows + 1), pa.int32())
        return pa.RecordBatch.from_arrays(
            [*listed.columns, pa.ListArray.from_arrays(offsets, records)],
            names=[*names, constants.ARROW_INPUT_COLUMN],
        )


def _single(values: dict[str, Any]) -> Any:
    """Return the only value of a dict, or the dict: how TFMA keeps predictions."""
    return next(iter(values.values())) if len(values) == 1 else values
