"""ExampleValidator: a verdict on whether examples are what the schema says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from penstock.components.base import Component, RunContext, output
from penstock.schemas.artifacts import ExampleAnomalies, ExampleStatistics, Schema
from penstock.schemas.errors import DataError, did_you_mean, quoted

if TYPE_CHECKING:
    from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

_NOT_ENOUGH_DATA = 2  # TFX's value for a split that there is nothing to judge by


class ExampleValidator(Component):
    """Compare statistics with a schema, and with the statistics of other data.

    Reads ExampleStatistics and a Schema; drift is measured against the statistics of an
    earlier span, skew against those of serving data, both by the comparators that the
    schema sets for features. Writes one `SchemaDiff.pb` per split, with severities as
    overridden, and a verdict: no if a split has an anomaly at least as grave as
    `fail_on`, not enough data if a split has no example, else yes.

    Wire its output into Trainer or anything else that has to wait for good data.

    Attributes:
        statistics: What is judged.
        schema: What the data has to be.
        previous_statistics: Statistics of an earlier span, for drift. A split is
            compared with the split of its name, or with the only split there is.
        serving_statistics: Statistics of serving data, for skew; likewise.
        environment: The schema's environment to validate in, for all splits or by
            split; features not in the environment are not expected.
        exclude_splits: Splits not to judge.
        severity: Severities by feature path (`"fare"`) or by type of anomaly
            (`"SCHEMA_NEW_COLUMN"`); the feature path goes first. What is ignored is no
            anomaly.
        fail_on: The severity from which on the answer is no.

    Example:
        stats = StatisticsGen(examples=ingest.examples)
        check = ExampleValidator(statistics=stats.statistics, schema=schema.schema)
        trainer = Trainer(examples=ingest.examples, anomalies=check.anomalies, ...)
    """

    EXECUTION_TYPE = "tfx.components.example_validator.component.ExampleValidator"
    BASE_TYPE = "PROCESS"
    LIBRARIES = ("tensorflow-data-validation",)

    statistics: ExampleStatistics
    schema: Schema
    previous_statistics: ExampleStatistics | None = None
    serving_statistics: ExampleStatistics | None = None
    environment: str | Mapping[str, str] | None = None
    exclude_splits: tuple[str, ...] = ()
    severity: Mapping[str, Literal["error", "warning", "ignore"]] | None = None
    fail_on: Literal["error", "warning"] = "error"
    anomalies: ExampleAnomalies = output()

    def run(self, context: RunContext) -> None:
        import tensorflow_data_validation as tfdv

        from penstock.components.validation.anomalies import (
            check_severities,
            fails,
            feature_names,
            override_severities,
            sentences,
        )
        from penstock.components.validation.protos import (
            read_schema,
            read_statistics,
            write_binary,
        )

        splits = self.statistics.splits_without(self.exclude_splits)
        schema = read_schema(self.schema.file)
        environments = self._environments(splits, schema)
        statistics = {
            split: read_statistics(self.statistics, split) for split in splits
        }
        severity = self.severity or {}
        check_severities(severity, feature_names(schema, statistics.values()))
        self.anomalies.split_names = splits
        if "span" in self.statistics.properties:
            self.anomalies.properties["span"] = self.statistics.properties["span"]
        blessed: dict[str, int] = {}
        reasons: list[str] = []
        for split in splits:
            anomalies = override_severities(
                tfdv.validate_statistics(
                    statistics[split],
                    schema,
                    environment=environments[split],
                    previous_statistics=_control(self.previous_statistics, split),
                    serving_statistics=_control(self.serving_statistics, split),
                ),
                severity,
            )
            write_binary(anomalies, self.anomalies.file(split))
            reasons += sentences(anomalies, split)
            blessed[split] = 0 if fails(anomalies, self.fail_on) else 1
            if anomalies.data_missing and blessed[split]:
                blessed[split] = _NOT_ENOUGH_DATA
                reasons.append(f"Split '{split}' has no example to judge by.")
        self.anomalies.properties["blessed"] = blessed
        self.anomalies.set_reasons(reasons)

    def _environments(
        self, splits: tuple[str, ...], schema: schema_pb2.Schema
    ) -> dict[str, str | None]:
        if not isinstance(self.environment, Mapping):
            chosen = {split: self.environment for split in splits}
        else:
            for split in self.environment:
                self.statistics.require_split(split)
            chosen = {split: self.environment.get(split) for split in splits}
        legal = list(schema.default_environment)
        for name in chosen.values():
            if name is not None and name not in legal:
                raise DataError(
                    f"Environment '{name}' of {self.name}.environment is not in the "
                    f"schema's default_environment (it has {quoted(legal)})."
                    f"{did_you_mean(name, legal)}"
                )
        return chosen


def _control(
    statistics: ExampleStatistics | None, split: str
) -> statistics_pb2.DatasetFeatureStatisticsList | None:
    """Return the statistics that a split is compared with."""
    from penstock.components.validation.protos import read_statistics

    if statistics is None:
        return None
    names = statistics.split_names
    return read_statistics(statistics, names[0] if len(names) == 1 else split)
