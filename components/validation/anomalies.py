"""Severities of anomalies, and the sentences that tell of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

from tensorflow_metadata.proto.v0 import (
    anomalies_pb2,
    path_pb2,
    schema_pb2,
    statistics_pb2,
)

from penstock.schemas.errors import DataError, did_you_mean

Severity: TypeAlias = Literal["error", "warning", "ignore"]

DATASET = "the dataset"
"""How sentences name what is about no single feature."""

_LEVELS = {
    "warning": anomalies_pb2.AnomalyInfo.WARNING,
    "error": anomalies_pb2.AnomalyInfo.ERROR,
}
_MULTIPLE_ERRORS = "Multiple errors"


def path_name(path: path_pb2.Path) -> str:
    """Return a feature path as users write it: steps with dots between them."""
    return ".".join(path.step)


def feature_names(
    schema: schema_pb2.Schema,
    statistics: Iterable[statistics_pb2.DatasetFeatureStatisticsList],
) -> set[str]:
    """Return the paths of all features that a schema or statistics have."""
    names = set(_schema_names(schema.feature, ""))
    names.update(each.name for each in schema.sparse_feature)
    names.update(each.name for each in schema.weighted_feature)
    for each in statistics:
        for dataset in each.datasets:
            names.update(path_name(feature.path) for feature in dataset.features)
    return names


def _schema_names(features: Iterable[schema_pb2.Feature], prefix: str) -> list[str]:
    names = []
    for feature in features:
        names.append(prefix + feature.name)
        names += _schema_names(feature.struct_domain.feature, names[-1] + ".")
    return names


def check_severities(severity: Mapping[str, Severity], features: set[str]) -> None:
    """Check that every override is of a feature or of a type of anomaly.

    Raises:
        DataError: If one names neither.
    """
    legal = {*features, *anomalies_pb2.AnomalyInfo.Type.keys()}
    for name in severity:
        if name not in legal:
            raise DataError(
                f"Severity override '{name}' is neither a feature nor a type of "
                f"anomaly.{did_you_mean(name, legal)} Types are those of TensorFlow "
                "Metadata's AnomalyInfo, such as 'SCHEMA_NEW_COLUMN'."
            )


def override_severities(
    anomalies: anomalies_pb2.Anomalies, severity: Mapping[str, Severity]
) -> anomalies_pb2.Anomalies:
    """Return anomalies with other severities.

    An anomaly's severity is that of its gravest reason. An override of a feature's
    path goes before one of an anomaly's type. What is ignored is left out.

    Args:
        anomalies: What TFDV found.
        severity: Severities by feature path or by type of anomaly.
    """
    result = anomalies_pb2.Anomalies()
    result.CopyFrom(anomalies)
    for key, found in anomalies.anomaly_info.items():
        kept = result.anomaly_info[key]
        _override(kept, severity, severity.get(path_name(found.path)))
        if not kept.reason:
            del result.anomaly_info[key]
    if anomalies.HasField("dataset_anomaly_info"):
        _override(result.dataset_anomaly_info, severity, None)
        if not result.dataset_anomaly_info.reason:
            result.ClearField("dataset_anomaly_info")
    return result


def _override(
    found: anomalies_pb2.AnomalyInfo,
    severity: Mapping[str, Severity],
    of_feature: Severity | None,
) -> None:
    type_name = anomalies_pb2.AnomalyInfo.Type.Name
    levels = []
    kept = []
    for reason in found.reason:
        named = of_feature or severity.get(type_name(reason.type))
        if named == "ignore":
            continue
        kept.append(reason)
        levels.append(_LEVELS[named] if named else found.severity)
    if len(kept) < len(found.reason):
        del found.reason[:]
        found.reason.extend(kept)
        found.description = " ".join(reason.description for reason in kept)
        if len(kept) == 1:
            found.short_description = kept[0].short_description
        elif kept:
            found.short_description = _MULTIPLE_ERRORS
    found.severity = max(levels, default=anomalies_pb2.AnomalyInfo.UNKNOWN)


def fails(
    anomalies: anomalies_pb2.Anomalies, fail_on: Literal["error", "warning"]
) -> bool:
    """Return whether any anomaly is at least as grave as `fail_on`."""
    return any(info.severity >= _LEVELS[fail_on] for _, info in _all(anomalies))


def sentences(anomalies: anomalies_pb2.Anomalies, split: str) -> list[str]:
    """Return one sentence per anomaly, the gravest first."""
    ordered = sorted(_all(anomalies), key=lambda each: (-each[1].severity, each[0]))
    level = {number: name for name, number in _LEVELS.items()}
    return [
        f"Split '{split}', {subject}: {info.description.strip().rstrip('.')} "
        f"({level.get(info.severity, 'unknown severity')})."
        for subject, info in ordered
    ]


def _all(
    anomalies: anomalies_pb2.Anomalies,
) -> list[tuple[str, anomalies_pb2.AnomalyInfo]]:
    found = [
        (f"feature '{path_name(info.path)}'", info)
        for info in anomalies.anomaly_info.values()
    ]
    if anomalies.HasField("dataset_anomaly_info"):
        found.append((DATASET, anomalies.dataset_anomaly_info))
    return found
