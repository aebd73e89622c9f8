"""StatisticsGen: describe every split of Examples."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING

from penstock.components.base import Component, RunContext, output
from penstock.schemas.artifacts import Examples, ExampleStatistics, Schema
from penstock.schemas.errors import DataError, PipelineError, did_you_mean, quoted

if TYPE_CHECKING:
    import pyarrow as pa


class StatisticsGen(Component):
    """Compute the statistics of every split with TensorFlow Data Validation.

    Reads Examples and, where given, a Schema, by which integers can be categories and
    text can be bytes. Writes one `FeatureStats.pb` per split: everything that TFDV
    computes by default, for all examples and for every slice. Counts are exact;
    quantiles have TFDV's `epsilon`; `unique` and top values are exact up to 16,384
    distinct values, and estimated by TFDV's sketches above. Up to there the same
    examples give the same bytes on every runner.

    Use it after an ExampleGen; SchemaGen, ExampleValidator and drift read its output.

    Attributes:
        examples: What to describe.
        schema: Which features are categorical, bytes, sparse or weighted.
        exclude_splits: Splits not to describe.
        weight_feature: A numeric feature with one weight of at least 0 per example;
            weighted statistics are added then.
        slices: What to slice by. Each maps features to a value, or to None for every
            value that occurs: `{"company": None}` gives a slice per company,
            `{"company": None, "payment_type": "Cash"}` one per company among cash
            payments. An example counts in every slice that it belongs to.
        feature_crosses: Pairs of numeric features, with one value per example, whose
            covariance and correlation are added.
        num_top_values: How many of the most frequent values to keep.
        frequency_threshold: Least number of examples of a top value.
        weighted_frequency_threshold: Least weight of a weighted top value.
        num_rank_histogram_buckets: How many values the rank histogram ranks.
        num_values_histogram_buckets: Buckets of the histogram of list lengths.
        num_histogram_buckets: Buckets of equal width.
        num_quantiles_histogram_buckets: Buckets of equal count.
        epsilon: Error of ranks in quantiles, as a fraction of the number of values.
        enable_semantic_domain_stats: Whether to look for images, natural language
            and times in text; slow.

    Example:
        ingest = CsvExampleGen(input_dir=folder)
        stats = StatisticsGen(examples=ingest.examples, slices=[{"company": None}])
        schema = SchemaGen(statistics=stats.statistics)
    """

    EXECUTION_TYPE = "tfx.components.statistics_gen.component.StatisticsGen"
    BASE_TYPE = "PROCESS"
    LIBRARIES = ("tensorflow-data-validation",)

    examples: Examples
    schema: Schema | None = None
    exclude_splits: tuple[str, ...] = ()
    weight_feature: str | None = None
    slices: tuple[Mapping[str, str | int | None], ...] = ()
    feature_crosses: tuple[tuple[str, str], ...] = ()
    num_top_values: int = 20
    frequency_threshold: int = 1
    weighted_frequency_threshold: float = 1.0
    num_rank_histogram_buckets: int = 1000
    num_values_histogram_buckets: int = 10
    num_histogram_buckets: int = 10
    num_quantiles_histogram_buckets: int = 10
    epsilon: float = 0.01
    enable_semantic_domain_stats: bool = False
    statistics: ExampleStatistics = output()

    def check(self) -> None:
        """Check numbers for their ranges, and slices against one another."""
        for name in (
            "num_top_values",
            "num_rank_histogram_buckets",
            "num_values_histogram_buckets",
            "num_histogram_buckets",
            "num_quantiles_histogram_buckets",
        ):
            if getattr(self, name) < 1:
                raise PipelineError(
                    f"{self.name}.{name} is {getattr(self, name)}. Pass at least 1."
                )
        if not (math.isfinite(self.epsilon) and 0 < self.epsilon < 1):
            raise PipelineError(
                f"{self.name}.epsilon is {self.epsilon}. Pass a fraction between 0 "
                "and 1, such as TFDV's 0.01."
            )
        for position, each in enumerate(self.slices):
            if not each:
                raise PipelineError(
                    f"{self.name}.slices has an empty mapping at position {position}. "
                    "Leave it out: all examples are always described."
                )
            for other in self.slices[:position]:
                if _overlap(each, other):
                    raise PipelineError(
                        f"{self.name}.slices has {dict(other)} and {dict(each)}, which "
                        "give slices of the same name. Drop one of them."
                    )
        for x, y in self.feature_crosses:
            if x == y:
                raise PipelineError(
                    f"{self.name}.feature_crosses crosses '{x}' with itself. Name two "
                    "features."
                )

    def run(self, context: RunContext) -> None:
        import tensorflow_data_validation as tfdv

        from penstock.components.columns.examples import row_groups, schema_of
        from penstock.components.validation.protos import read_schema
        from penstock.components.validation.statistics import (
            StatisticsAnalysis,
            portions,
            write_statistics,
        )

        splits = self.examples.splits_without(self.exclude_splits)
        columns = schema_of(self.examples)
        self._check_features(columns)
        analysis = StatisticsAnalysis(
            tfdv.StatsOptions(
                schema=None if self.schema is None else read_schema(self.schema.file),
                weight_feature=self.weight_feature,
                num_top_values=self.num_top_values,
                frequency_threshold=self.frequency_threshold,
                weighted_frequency_threshold=self.weighted_frequency_threshold,
                num_rank_histogram_buckets=self.num_rank_histogram_buckets,
                num_values_histogram_buckets=self.num_values_histogram_buckets,
                num_histogram_buckets=self.num_histogram_buckets,
                num_quantiles_histogram_buckets=self.num_quantiles_histogram_buckets,
                epsilon=self.epsilon,
                enable_semantic_domain_stats=self.enable_semantic_domain_stats,
            ),
            self.slices,
            self.feature_crosses,
        )
        work = [
            portion
            for split in splits
            for portion in portions(split, row_groups(self.examples, split), columns)
        ]
        self.statistics.split_names = splits
        if "span" in self.examples.properties:
            self.statistics.properties["span"] = self.examples.properties["span"]
        files = {split: context.temp_dir / split for split in splits}
        with context.beam_pipeline() as pipeline:
            write_statistics(pipeline, work, analysis, files, context.live_rows)
        for split, file in files.items():
            target = self.statistics.file(split)
            target.parent.mkdir()
            shutil.move(file, target)
        context.progress_in_all(sum(portion.rows for portion in work))

    def _check_features(self, columns: pa.Schema) -> None:
        from pyarrow import types

        named = [
            ("weight_feature", [self.weight_feature] if self.weight_feature else []),
            ("slices", [name for each in self.slices for name in each]),
            (
                "feature_crosses",
                [name for pair in self.feature_crosses for name in pair],
            ),
        ]
        for parameter, features in named:
            for feature in features:
                if feature not in columns.names:
                    raise DataError(
                        f"Feature '{feature}' of {self.name}.{parameter} is not in "
                        f"Examples '{self.examples.uri}' (it has "
                        f"{quoted(columns.names)})."
                        f"{did_you_mean(feature, columns.names)}"
                    )
        if self.weight_feature is not None:
            kind = _innermost(columns.field(self.weight_feature).type)
            if not (types.is_integer(kind) or types.is_floating(kind)):
                raise DataError(
                    f"Weight feature '{self.weight_feature}' has type {kind}, which "
                    "is no number. Name a feature of numbers."
                )
        for each in self.slices:
            for feature, value in each.items():
                kind = _innermost(columns.field(feature).type)
                if types.is_integer(kind) and not _is_integer(value):
                    raise DataError(
                        f"Slice value {value!r} of feature '{feature}' is no integer, "
                        "but the feature holds integers. Pass an integer or None."
                    )


def _overlap(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Return whether two definitions can give a slice of the same name."""
    return one.keys() == other.keys() and all(
        None in (one[name], other[name]) or str(one[name]) == str(other[name])
        for name in one
    )


def _innermost(kind: pa.DataType) -> pa.DataType:
    from pyarrow import types

    while (
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
    ):
        kind = kind.value_type
    return kind


def _is_integer(value: str | int | None) -> bool:
    if not isinstance(value, str):
        return True
    try:
        int(value)
    except ValueError:
        return False
    return True
