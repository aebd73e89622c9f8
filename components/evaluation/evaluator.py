"""The Evaluator component: metrics of a model by slice, and whether it is blessed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from penstock.components.base import Component, RunContext, output
from penstock.components.evaluation import eval_config as configs
from penstock.components.evaluation.blessing import (
    Judgment,
    Word,
    judge,
    overall_values,
)
from penstock.schemas.artifacts import (
    Examples,
    Model,
    ModelBlessing,
    ModelEvaluation,
    Schema,
    check_split_name,
)
from penstock.schemas.errors import DataError, PipelineError

if TYPE_CHECKING:
    from tensorflow_model_analysis.proto.config_pb2 import EvalConfig

    from penstock.components.evaluation.prediction import Signature, Transformation


class Evaluator(Component):
    """Evaluate a model with TensorFlow Model Analysis, and bless it or not.

    Reads Examples, a Model and, where there is one, a baseline Model. Writes TFMA's
    files, as `tfma.load_eval_result` reads them, and a blessing that says for every
    threshold and slice why. Use it between a Trainer and a Pusher, with
    `baseline=LatestBlessed()`.

    Without a baseline, change thresholds are ignored and value thresholds apply. An
    eval_config without any threshold blesses nothing.

    Example:
        evaluator = Evaluator(
            examples=ingest.examples, model=trainer.model, eval_config=EVAL_CONFIG
        )

    Attributes:
        examples: The rows to evaluate on.
        model: The candidate. Its signature takes serialized tf.Examples, or the
            columns as tensors.
        baseline: The model that it is compared with.
        schema: A feature schema, for the metrics that read one.
        eval_config: What to measure and what to ask of it, a TFMA EvalConfig.
        example_splits: The splits to evaluate on.
        evaluation: The metrics; the overall ones are its properties too.
        blessing: BLESSED or NOT_BLESSED, with reasons.
    """

    examples: Examples
    model: Model
    baseline: Model | None = None
    schema: Schema | None = None
    eval_config: EvalConfig
    example_splits: tuple[str, ...] = ("eval",)
    evaluation: ModelEvaluation = output()
    blessing: ModelBlessing = output()

    EXECUTION_TYPE = "tfx.components.evaluator.component.Evaluator"
    BASE_TYPE = "EVALUATE"

    def check(self) -> None:
        configs.check_eval_config(self.eval_config, f"{self.name}.eval_config")
        if not self.example_splits:
            raise PipelineError(
                f"{self.name}.example_splits is empty. Name the splits to evaluate on, "
                "such as 'eval'."
            )
        for name in self.example_splits:
            check_split_name(name)

    def run(self, context: RunContext) -> None:
        for split in self.example_splits:
            self.examples.require_split(split)
        configs.check_metrics(self.eval_config)
        signatures, transformations = self._find_calls()
        rows = self._check_rows(
            tuple(signatures.values()),
            computed={name for each in transformations.values() for name in each.gives},
        )
        ready = configs.prepared(
            self.eval_config, {name: each.name for name, each in signatures.items()}
        )

        from penstock.components.evaluation import results, tfma_engine

        context.logger.info("Evaluating %s rows with TFMA.", f"{rows:,}")
        tfma_engine.evaluate(
            context.beam_pipeline(),
            examples=self.examples,
            splits=self.example_splits,
            eval_config=ready,
            models=[
                tfma_engine.Scored(
                    name,
                    self._location(self._models[name]),
                    signature,
                    transformations[name].takes,
                )
                for name, signature in signatures.items()
            ],
            schema=self._schema_message(),
            folder=self.evaluation.path,
            data_location=self._location(self.examples),
        )
        context.progress(rows)
        measured = results.read(self.evaluation.path)
        self.evaluation.properties.update(overall_values(measured))
        judgment = judge(
            configs.thresholds(ready),
            measured,
            ignored=()
            if self.baseline
            else configs.ignored_thresholds(self.eval_config),
            min_slice_size=ready.options.min_slice_size.value,
        )
        self._bless(judgment)

    @property
    def _models(self) -> dict[str, Model]:
        given = {configs.CANDIDATE: self.model}
        if self.baseline is not None:
            given[configs.BASELINE] = self.baseline
        return given

    def _location(self, artifact: Examples | Model) -> str:
        """Return where an artifact is, relative to the evaluation.

        The result stays true, and its bytes the same, when the root is moved.
        """
        return os.path.relpath(artifact.path, self.evaluation.path)

    def _schema_message(self) -> Any:
        if self.schema is None:
            return None
        from google.protobuf import text_format
        from tensorflow_metadata.proto.v0 import schema_pb2

        file = self.schema.only_file(self.schema.file.name)
        try:
            return text_format.Parse(file.read_text("utf-8"), schema_pb2.Schema())
        except text_format.ParseError as error:
            raise DataError(
                f"Schema '{file}' cannot be read: {error}. Mend it, or run its "
                "producer again."
            ) from error

    def _find_calls(self) -> tuple[dict[str, Signature], dict[str, Transformation]]:
        """Return how to call the models, by name; the data has what they take."""
        from penstock.components.columns.examples import schema_of
        from penstock.components.evaluation.prediction import (
            check_types,
            find_signature,
            find_transformation,
        )

        columns = schema_of(self.examples)
        specs = {spec.name: spec for spec in self.eval_config.model_specs}
        signatures, transformations = {}, {}
        for name, model in self._models.items():
            spec = specs.get(name, next(iter(specs.values())))
            subject = f"Model '{model.source or model.uri}' ({name})"
            signatures[name] = find_signature(
                subject, model.serving_dir, spec.signature_name, columns.names
            )
            check_types(signatures[name], columns)
            transformations[name] = find_transformation(
                subject,
                model.serving_dir,
                spec.preprocessing_function_names,
                columns.names,
            )
        added = [name for each in transformations.values() for name in each.gives]
        configs.check_columns(
            self.eval_config,
            {*columns.names, *added},
            f"Examples '{self.examples.source or self.examples.uri}'",
        )
        return signatures, transformations

    def _check_rows(
        self, signatures: Iterable[Signature], *, computed: set[str]
    ) -> int:
        """Return the number of rows; each has a label and what the models take.

        Labels that a signature computes are not looked at.

        Looked at before the Beam pipeline starts: only the columns in question are
        read, and an error names the column and not a worker.
        """
        from penstock.components.columns.examples import count_rows, read_batches
        from penstock.components.evaluation.prediction import missing_values

        labels = configs.label_columns(self.eval_config) - computed
        takes = {
            column: signature
            for signature in signatures
            for column in signature.columns.values()
        }
        total = 0
        for split in self.example_splits:
            rows = count_rows(self.examples, split)
            if rows == 0:
                raise DataError(
                    f"Split '{split}' of Examples "
                    f"'{self.examples.source or self.examples.uri}' has no rows, so "
                    "there is nothing to evaluate on. Evaluate on another split, or "
                    "ingest more rows."
                )
            total += rows
            wanted = sorted({*labels, *takes})
            missing = dict.fromkeys(wanted, 0)
            if wanted:
                for batch in read_batches(self.examples, split, columns=wanted):
                    for name, count in _missing_rows(batch):
                        missing[name] += count
            for name in sorted(labels):
                if missing[name]:
                    raise DataError(
                        f"Label '{name}' is missing in {missing[name]:,} of the "
                        f"{rows:,} rows of split '{split}'. Leave such rows out before "
                        "ingestion, or evaluate on another split."
                    )
            for name, signature in takes.items():
                if missing[name]:
                    raise missing_values(signature, name, missing[name])
        return total

    def _bless(self, judgment: Judgment) -> None:
        blessed = judgment.word is Word.BLESSED
        properties: dict[str, Any] = {
            "blessed": int(blessed),
            "verdict": judgment.word.value,
            "current_model": self.model.uri,
            "component_id": self.name,
        }
        if self.model.id is not None:
            properties["current_model_id"] = self.model.id
        if self.baseline is not None:
            properties["baseline_model"] = self.baseline.uri
            if self.baseline.id is not None:
                properties["baseline_model_id"] = self.baseline.id
        self.blessing.properties.update(properties)
        self.blessing.set_reasons(judgment.reasons, against=judgment.against)
        (self.blessing.path / ("BLESSED" if blessed else "NOT_BLESSED")).touch()


def _missing_rows(batch: Any) -> Iterator[tuple[str, int]]:
    """Yield how many rows have no value, by column; an empty list is no value."""
    from penstock.components.columns.forms import is_list, list_parts

    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if is_list(column.type):
            yield name, int((list_parts(column)[0] == 0).sum())
        else:
            yield name, column.null_count
