"""The Evaluator component: metrics of a model by slice, and whether it is blessed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from penstock.components.base import Component, RunContext, output
from penstock.components.evaluation import eval_config as configs
from penstock.components.evaluation.blessing import (
    Judgment,
    SliceMetrics,
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
from penstock.schemas.errors import DataError, PipelineError, did_you_mean, quoted

if TYPE_CHECKING:
    from tensorflow_model_analysis.proto.config_pb2 import EvalConfig

    from penstock.components.evaluation.accumulate import Accumulator
    from penstock.components.evaluation.engine import Portion, Scored, Work
    from penstock.components.evaluation.intervals import Asked
    from penstock.components.evaluation.models import PredictionSource
    from penstock.components.evaluation.plan import Plan

_CONFIDENCE = 0.95  # of intervals that are shown; evidence at another is scaled
_SAMPLED = 5_000  # units per slice that intervals are linearized on


class Evaluator(Component):
    """Measure a model slice by slice with TFMA's metrics, and bless it or not.

    Reads Examples, a Model and, where there is one, a baseline Model. Writes TFMA's
    files, as `tfma.load_eval_result` reads them, a table and a page of all metrics,
    and a blessing that says for every threshold and slice why. Use it between a
    Trainer and a Pusher, with `baseline=LatestBlessed()`.

    Metrics are computed in columns; those that only TFMA has are left to it, which
    the log says.

    Without a baseline, change thresholds are ignored and value thresholds apply. An
    eval_config without any threshold blesses nothing.

    Example:
        evaluator = Evaluator(
            examples=ingest.examples, model=trainer.model, eval_config=EVAL_CONFIG
        )

    Attributes:
        examples: The rows to evaluate on.
        model: The candidate. Its signature takes serialized tf.Examples, or the
            columns as tensors. Without one, predictions are columns, named by
            prediction_key of the ModelSpec.
        baseline: The model that it is compared with.
        schema: A feature schema, for the metrics that read one.
        eval_config: What to measure and what to ask of it, a TFMA EvalConfig.
        example_splits: The splits to evaluate on.
        confidence: What thresholds ask for. None: the value meets the bound, as in
            TFMA. A number: the whole interval at this confidence does. A dict does so
            by metric name, for other metrics the value counts.
        on_inconclusive: What happens when thresholds ask for evidence and the data
            has too little: `block` or `bless`.
        cluster_key: A column; rows of equal values are not independent, and intervals
            are those of clusters.
        nan_scores: What happens to rows whose score is not a number: `refuse` them
            with an error, or `drop` and count them.
        replicates: Of bootstraps.
        seed: Of all that is drawn for intervals.
        evaluation: The metrics; the overall ones are its properties too.
        blessing: BLESSED or NOT_BLESSED, with reasons.
    """

    examples: Examples
    model: Model | None = None
    baseline: Model | None = None
    schema: Schema | None = None
    eval_config: EvalConfig
    example_splits: tuple[str, ...] = ("eval",)
    confidence: float | dict[str, float] | None = None
    on_inconclusive: Literal["block", "bless"] = "block"
    cluster_key: str = ""
    nan_scores: Literal["refuse", "drop"] = "refuse"
    replicates: int = 1_000
    seed: int = 0
    evaluation: ModelEvaluation = output()
    blessing: ModelBlessing = output()

    EXECUTION_TYPE = "tfx.components.evaluator.component.Evaluator"
    BASE_TYPE = "EVALUATE"
    LIBRARIES = ("tensorflow-model-analysis", "tensorflow", "numpy")

    def called_code(self) -> tuple[tuple[Path | str, str], ...]:
        """Return the metrics that the eval_config takes from modules of the user's."""
        return tuple(
            (metric.module, metric.class_name)
            for spec in self.eval_config.metrics_specs
            for metric in spec.metrics
            if metric.module
        )

    def check(self) -> None:
        configs.check_eval_config(self.eval_config, f"{self.name}.eval_config")
        if not self.example_splits:
            raise PipelineError(
                f"{self.name}.example_splits is empty. Name the splits to evaluate on, "
                "such as 'eval'."
            )
        for name in self.example_splits:
            check_split_name(name)
        self._check_confidence()
        if self.replicates < 100:
            raise PipelineError(
                f"{self.name}.replicates is {self.replicates}; intervals at 95 % take "
                "at least 100, and 1,000 are usual."
            )
        if self.seed < 0:
            raise PipelineError(
                f"{self.name}.seed is {self.seed}. Pass a whole number from 0."
            )
        if self.model is None and self.baseline is not None:
            raise PipelineError(
                f"{self.name} has a baseline and no model. Give both, or none to "
                "evaluate predictions that are columns."
            )

    def _check_confidence(self) -> None:
        given = self.confidence
        numbers = given if isinstance(given, Mapping) else {"": given}
        for metric, number in numbers.items():
            if number is not None and not 0.5 < number < 1:
                of = f"['{metric}']" if metric else ""
                raise PipelineError(
                    f"{self.name}.confidence{of} is {number}; a confidence lies "
                    "between 0.5 and 1. Pass 0.95 for intervals of 95 %."
                )

    def run(self, context: RunContext) -> None:
        for split in self.example_splits:
            self.examples.require_split(split)
        configs.check_metrics(self.eval_config)
        configs.check_confidence(
            self.eval_config, self.confidence, f"{self.name}.confidence"
        )

        from penstock.components.columns.examples import row_groups
        from penstock.components.evaluation import engine, fairness, measure, results
        from penstock.components.evaluation.plan import make_plan

        ready = configs.prepared(self.eval_config, has_baseline=self._has_baseline)
        plan = make_plan(ready, self._schema_message())
        scored = self._scored(ready, plan)
        rows = self._check_rows([each.source for each in scored])
        asked = self._intervals(ready)
        work = self._work(plan, scored, asked)
        portions = engine.portions(
            {split: row_groups(self.examples, split) for split in self.example_splits}
        )
        context.logger.info("Evaluating %s rows.", f"{rows:,}")
        accumulated = engine.accumulated(work, portions, context)
        context.progress_in_all(rows)
        if accumulated.dropped:
            context.logger.warning(
                "%s of %s rows are left out, because a score is not a number.",
                f"{accumulated.dropped:,}",
                f"{rows:,}",
            )
        found = measure.measured(
            accumulated,
            plan.metrics,
            crosses=plan.crosses,
            baseline=plan.baseline,
            asked=asked,
        )
        fairness.add_gaps(
            found, plan.gaps, baseline=plan.baseline, confidence=_CONFIDENCE
        )
        others = self._left_to_tfma(plan, portions, work, context)
        measured = results.write(
            self.evaluation.path,
            found,
            min_slice_size=ready.options.min_slice_size.value,
            confidence=_CONFIDENCE,
            others=others,
        )
        judgment = judge(
            configs.thresholds(
                ready,
                self.confidence,
                {name for each in measured for name in each.metrics},
            ),
            measured,
            ignored=()
            if self._has_baseline
            else configs.ignored_thresholds(self.eval_config),
            min_slice_size=ready.options.min_slice_size.value,
            on_inconclusive=self.on_inconclusive,
        )
        self._write_config(ready, portions)
        results.write_validation(
            self.evaluation.path, judgment, ready, is_alone=not self._has_baseline
        )
        self._write_report(accumulated, measured, judgment, plan.baseline, asked)
        self.evaluation.properties.update(overall_values(measured))
        self._bless(judgment)

    @property
    def _has_baseline(self) -> bool:
        """Whether there is a baseline: a model, or columns of its predictions."""
        are_logged = self.model is None and len(self.eval_config.model_specs) == 2
        return self.baseline is not None or are_logged

    def _intervals(self, ready: EvalConfig) -> Asked | None:
        """Return which intervals are wanted: for evidence, or because TFMA's are."""
        from penstock.components.evaluation.intervals import Asked

        wanted = ready.options.compute_confidence_intervals.value
        if self.confidence is None and not wanted:
            return None
        return Asked(
            _CONFIDENCE, self.replicates, self.seed, has_clusters=bool(self.cluster_key)
        )

    def _work(
        self, plan: Plan, scored: tuple[Scored, ...], asked: Asked | None
    ) -> Work:
        from penstock.components.columns.examples import schema_of
        from penstock.components.evaluation import accumulate, engine
        from penstock.components.evaluation.slicing import columns_of

        schema = schema_of(self.examples)
        computed = {name for each in scored for name in each.source.gives}
        sliced = {
            column
            for each in plan.slicings
            for name in each.features
            for column in columns_of(name, {*schema.names, *computed})
        }
        queries = configs.query_columns(self.eval_config)
        settings = accumulate.Settings(
            plan.slicings,
            plan.statistics,
            tuple(asked is not None and each.counts for each in plan.statistics),
            _SAMPLED if asked else 0,
            bool(self.cluster_key),
            plan.queries,
        )
        needed = {
            *(name for each in scored for name in each.source.columns),
            *(sliced - computed),
            *configs.label_columns(self.eval_config),
            *configs.weight_columns(self.eval_config),
            *queries,
            *plan.columns,
            *([self.cluster_key] if self.cluster_key else []),
        }
        if plan.left is not None:
            needed.update(schema.names)  # a metric of a user's module may read any
        return engine.Work(
            settings,
            scored,
            tuple(name for name in schema.names if name in needed),
            plan.columns,
            tuple(sorted((sliced | queries) & computed)),
            self.cluster_key,
            self.nan_scores == "drop",
            self.seed,
        )

    def _scored(self, ready: EvalConfig, plan: Plan) -> tuple[Scored, ...]:
        """Return how the models are called, and where labels and weights are."""
        from penstock.components.columns.examples import schema_of
        from penstock.components.evaluation import models
        from penstock.components.evaluation.engine import Scored
        from penstock.components.evaluation.plan import outputs_of

        schema = schema_of(self.examples)
        given = {configs.CANDIDATE: self.model, configs.BASELINE: self.baseline}
        sources, specs = [], list(ready.model_specs)
        for spec in specs:
            role = spec.name or configs.CANDIDATE
            model = given[role]
            subject = (
                f"Model '{model.source or model.uri}' ({role})"
                if model
                else f"Examples '{self.examples.source or self.examples.uri}'"
            )
            original = self._spec_of(role)
            sources.append(
                models.find(
                    subject,
                    model,
                    original,
                    schema,
                    outputs=outputs_of(plan.metrics, spec.name) or ("",),
                )
            )
        computed = {name for each in sources for name in each.gives}
        data = f"Examples '{self.examples.source or self.examples.uri}'"
        configs.check_columns(
            self.eval_config, {*schema.names, *computed}, data, read=plan.columns
        )
        for each in plan.slicings:
            each.check(schema, data)
        if self.cluster_key and self.cluster_key not in schema.names:
            raise DataError(
                f"{self.name}.cluster_key is '{self.cluster_key}', which is no column "
                f"of {data} (it has {quoted(schema.names)})."
                f"{did_you_mean(self.cluster_key, schema.names)}"
            )
        return tuple(
            Scored(
                spec.name,
                source,
                tuple(_keys(spec.label_key, spec.label_keys)),
                tuple(_keys(spec.example_weight_key, spec.example_weight_keys)),
            )
            for spec, source in zip(specs, models.share(sources), strict=True)
        )

    def _spec_of(self, role: str) -> Any:
        """Return the user's ModelSpec of a model; one stands for both."""
        specs = {spec.name: spec for spec in self.eval_config.model_specs}
        return specs.get(role, next(iter(specs.values())))

    def _left_to_tfma(
        self, plan: Plan, portions: Sequence[Portion], work: Work, context: RunContext
    ) -> Path | None:
        """Let TFMA compute what only it has; return the folder of its result."""
        if plan.left is None:
            return None
        from penstock.components.evaluation import tfma_engine

        context.logger.info(
            "TFMA computes %s, row by row, which takes longer.", quoted(plan.left_names)
        )
        folder = context.temp_dir / "tfma"
        tfma_engine.evaluate(
            context.beam_pipeline(),
            portions,
            work,
            eval_config=plan.left,
            schema=self._schema_message(),
            folder=folder,
        )
        return folder

    def _write_config(self, ready: EvalConfig, portions: Sequence[Portion]) -> None:
        from penstock.components.evaluation import results

        group = portions[0].groups[0]
        given = {configs.CANDIDATE: self.model, configs.BASELINE: self.baseline}
        locations = {
            spec.name: self._location(model)
            for spec in ready.model_specs
            if (model := given[spec.name or configs.CANDIDATE]) is not None
        }
        results.write_config(
            self.evaluation.path,
            ready,
            self._location(self.examples),
            "parquet" if group.payload_format == "FORMAT_PARQUET" else "tfrecords",
            locations,
        )

    def _write_report(
        self,
        accumulated: Accumulator,
        measured: Sequence[SliceMetrics],
        judgment: Judgment,
        baseline: str | None,
        asked: Asked | None,
    ) -> None:
        """Write the table of all metrics, and the page that shows them."""
        from penstock.components.evaluation import curves, report, table

        table.write_table(self.evaluation.path / table.TABLE_FILE, measured)
        rows = report.rows_of(measured, judgment.findings)
        page = report.render(
            report.Report(
                title=self.name,
                examples=str(self.examples.source or self.examples.uri),
                candidate=self._called(self.model, configs.CANDIDATE),
                baseline=self._called(self.baseline, configs.BASELINE)
                if self._has_baseline
                else None,
                verdict=judgment.word,
                blessed=judgment.blessed,
                reasons=report.reasons_of(judgment),
                table=rows,
                plots=curves.plots(accumulated, report.plotted_slices(rows), baseline),
                rows=accumulated.rows,
                splits=self.example_splits,
                seed=self.seed,
                confidence=asked.confidence if asked else None,
            )
        )
        (self.evaluation.path / report.PAGE_FILE).write_text(page, encoding="utf-8")

    def _called(self, model: Model | None, role: str) -> str:
        """Return what the page calls a model, or predictions that are columns."""
        if model is not None:
            return str(model.source or model.uri)
        spec = self._spec_of(role)
        columns = [name for _, name in _keys(spec.prediction_key, spec.prediction_keys)]
        return f"predictions in {quoted(columns)}"

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

    def _check_rows(self, sources: Sequence[PredictionSource]) -> int:
        """Return the number of rows; each has a label and what the models take.

        Labels that a signature computes are not looked at.

        Looked at before anything is predicted: only the columns in question are read,
        and an error names the column and not a worker.
        """
        from penstock.components.columns.examples import count_rows, read_batches

        computed = {name for each in sources for name in each.gives}
        labels = configs.label_columns(self.eval_config) - computed
        takes = {name: each for each in sources for name in each.required}
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
            for name, source in takes.items():
                if missing[name]:
                    raise source.missing_values(name, missing[name])
        return total

    def _bless(self, judgment: Judgment) -> None:
        properties: dict[str, Any] = {"component_id": self.name}
        if self.model is not None:
            properties["current_model"] = self.model.uri
            if self.model.id is not None:
                properties["current_model_id"] = self.model.id
        if self.baseline is not None:
            properties["baseline_model"] = self.baseline.uri
            if self.baseline.id is not None:
                properties["baseline_model_id"] = self.baseline.id
        self.blessing.properties.update(properties)
        self.blessing.set_reasons(judgment.reasons, against=judgment.against)
        self.blessing.decide(judgment.word.value, blessed=judgment.blessed)


def _keys(one: str, many: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield outputs and their columns; the output '' stands for all."""
    if one:
        yield "", one
    yield from sorted(many.items())


def _missing_rows(batch: Any) -> Iterator[tuple[str, int]]:
    """Yield how many rows have no value, by column; an empty list is no value."""
    from penstock.components.columns.forms import is_list, list_parts

    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if is_list(column.type):
            yield name, int((list_parts(column)[0] == 0).sum())
        else:
            yield name, column.null_count
