"""Read statistics, schemas and anomalies from disk, or say why they cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.schemas.errors import DataError

if TYPE_CHECKING:
    from tensorflow_metadata.proto.v0 import (
        anomalies_pb2,
        schema_pb2,
        statistics_pb2,
    )

    from penstock.schemas.artifacts import ExampleAnomalies, ExampleStatistics


def read_schema(file: Path) -> schema_pb2.Schema:
    """Return the schema in a text file.

    Raises:
        DataError: If the file cannot be read or is no schema.
    """
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    schema = schema_pb2.Schema()
    try:
        text_format.Parse(file.read_text(encoding="utf-8"), schema)
    except OSError as error:
        raise _unreadable("Schema file", file, error) from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise DataError(
            f"Schema file '{file}' is not a TensorFlow Metadata Schema in text form: "
            f"{error}. Mend the file at that place."
        ) from error
    return schema


def read_statistics(
    statistics: ExampleStatistics, split: str
) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Return the statistics of a split.

    Raises:
        DataError: If there is no such split, or its file cannot be read.
    """
    from tensorflow_metadata.proto.v0 import statistics_pb2

    file = statistics.file(split)
    found: statistics_pb2.DatasetFeatureStatisticsList = _parsed(
        "Statistics file", file, statistics_pb2.DatasetFeatureStatisticsList()
    )
    if not found.datasets:
        raise DataError(
            f"Statistics file '{file}' describes no dataset. It is empty or was cut "
            "off; run its producer again."
        )
    return found


def read_anomalies(anomalies: ExampleAnomalies, split: str) -> anomalies_pb2.Anomalies:
    """Return the anomalies of a split.

    Raises:
        DataError: If there is no such split, or its file cannot be read.
    """
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    file = anomalies.file(split)
    return _parsed("Anomalies file", file, anomalies_pb2.Anomalies())


def write_binary(message: Any, file: Path) -> None:
    """Write a proto message, the same message as the same bytes always."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(message.SerializeToString(deterministic=True))


def _parsed(subject: str, file: Path, message: Any) -> Any:
    from google.protobuf.message import DecodeError

    try:
        message.ParseFromString(file.read_bytes())
    except OSError as error:
        raise _unreadable(subject, file, error) from error
    except DecodeError as error:
        raise DataError(
            f"{subject} '{file}' cannot be parsed as {message.DESCRIPTOR.name}: it "
            "was cut off or written by something else. Run its producer again."
        ) from error
    return message


def _unreadable(subject: str, file: Path, error: OSError) -> DataError:
    reason = error.strerror or str(error)
    return DataError(
        f"{subject} '{file}' cannot be read: {reason}. Check the path and its "
        "permissions."
    )
