"""Replays the warm-up file of a version, and fails its load for any bad record."""

from __future__ import annotations

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from penstock.components.serving.model_server.saved_model import servable_error
from penstock.components.serving.model_server.servable import Servable
from penstock.components.serving.model_server.status import Code, ServableError
from penstock.components.serving.warmup import MAX_RECORDS
from penstock.schemas.artifacts import WARMUP_FILE


def replay(servable: Servable, iterations: int = 1) -> int:
    """Run every record of a version's warm-up file, if there is one.

    Records run in their order, each so many times, the one too many included, before
    the load is failed for it: that is how TensorFlow Serving does it.

    Returns:
        How many records there are.

    Raises:
        ServableError: The file is torn or no TFRecord file, has too many records, or
            one of them fails.
    """
    path = servable.folder / WARMUP_FILE
    if not path.exists():
        return 0
    count = 0
    records = iter(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    while True:
        try:
            record = next(records, None)
        except tf.errors.DataLossError as error:
            raise ServableError(
                Code.DATA_LOSS,
                f"{error.message}. Please verify your warmup data is in TFRecord "
                "format.",
            ) from error
        except tf.errors.OpError as error:
            raise servable_error(error) from error
        if record is None:
            return count
        log = prediction_log_pb2.PredictionLog()
        try:
            log.ParseFromString(record)
        except DecodeError:
            raise ServableError(
                Code.INVALID_ARGUMENT,
                f"Failed to parse warmup record: {record[:200]!r} from {path}",
            ) from None
        for _ in range(iterations):
            servable.run_log(log)
        count += 1
        if count > MAX_RECORDS:
            raise ServableError(
                Code.INVALID_ARGUMENT,
                "Number of warmup records exceeds the maximum "
                f"({MAX_RECORDS}) at {path}",
            )
