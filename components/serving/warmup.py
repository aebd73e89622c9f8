"""Warm-up files: requests that TensorFlow Serving replays before a version answers.

A version's warm-up file is a TFRecord file, not compressed, of `PredictionLog`
records. One that fails, one too many, or a torn file fails the load of the version, so
that every record is tried before a file is accepted.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.schemas.errors import DataError, quoted

if TYPE_CHECKING:
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

MAX_RECORDS = 1000
"""Most records that TensorFlow Serving accepts (kMaxNumRecords)."""

LOG_TYPES = ("classify_log", "multi_inference_log", "predict_log", "regress_log")
"""The kinds of records that it replays."""

_READ_AT_ONCE = 256


def make_from_request_logs(
    files: Sequence[Path], target: Path, *, most: int = MAX_RECORDS, seed: int = 0
) -> int:
    """Make a warm-up file of requests that were logged.

    If there are more than fit, every stratum (the signature that is asked, and the
    size of the request by powers of two) keeps an equal share of one half of the
    places, as far as it has requests, and the rest is shared out by how many requests
    it has: what is rare is warmed up too. Within a stratum requests are drawn at
    random.

    A record keeps its request, without the version that it asked for, and loses the
    answer and who asked. Whether each one runs on a model is for `failing` to say.

    Args:
        files: TFRecord files of `PredictionLog`, compressed with gzip or not.
        target: The file to write; its folder exists.
        most: Most records, at most 1,000.
        seed: Of what is drawn.

    Returns:
        How many records were written.

    Raises:
        DataError: If a file is torn, a record is no `PredictionLog`, or its kind cannot
            be replayed; or if there is no record.
    """
    if not 1 <= most <= MAX_RECORDS:
        raise DataError(
            f"A warm-up file of {most:,} records cannot be made: TensorFlow Serving "
            f"accepts at most {MAX_RECORDS:,}. Pass a number from 1 to {MAX_RECORDS}."
        )
    generator = random.Random(seed)
    seen: dict[tuple[str, str, int], int] = {}
    kept: dict[tuple[str, str, int], list[tuple[int, bytes]]] = {}
    for number, log in enumerate(_logged(files)):
        stratum = _stratum(log)
        record = _request_alone(log)
        seen[stratum] = seen.get(stratum, 0) + 1
        sample = kept.setdefault(stratum, [])
        # Vitter's algorithm R: every record is in the sample with equal probability.
        if len(sample) < most:
            sample.append((number, record))
        elif (place := generator.randrange(seen[stratum])) < most:
            sample[place] = (number, record)
    if not seen:
        raise DataError(
            f"The request logs {quoted(map(str, files))} hold no request, so there is "
            "nothing to warm up with. Pass logs of some traffic."
        )
    chosen: list[tuple[int, bytes]] = []
    for stratum, places in shares(seen, most).items():
        chosen += generator.sample(kept[stratum], places)
    return write((record for _, record in sorted(chosen)), target)


def shares(counts: Mapping[Any, int], most: int) -> dict[Any, int]:
    """Return how many places each stratum gets.

    Args:
        counts: How many there are of each, at least 1.
        most: How many places there are.

    Returns:
        For each stratum at most as many as there are; together `most`, or all. No
        stratum goes without while there are places for every one.
    """
    total = sum(counts.values())
    if total <= most:
        return dict(counts)
    # By count, then by name, so that the same logs give the same file.
    order = sorted(counts, key=lambda stratum: (-counts[stratum], str(stratum)))
    places = dict.fromkeys(counts, 0)
    floor = max(1, most // (2 * len(counts)))
    left = most
    for stratum in order:
        places[stratum] = min(counts[stratum], floor, left)
        left -= places[stratum]
    rest = {stratum: counts[stratum] - places[stratum] for stratum in order}
    unplaced = sum(rest.values())
    exact = {stratum: left * rest[stratum] / unplaced for stratum in order}
    for stratum in order:
        places[stratum] += math.floor(exact[stratum])
    missing = most - sum(places.values())
    by_remainder = sorted(
        (stratum for stratum in order if places[stratum] < counts[stratum]),
        key=lambda stratum: math.floor(exact[stratum]) - exact[stratum],
    )
    for stratum in by_remainder[:missing]:
        places[stratum] += 1
    return places


def write(records: Iterable[bytes], target: Path) -> int:
    """Write a TFRecord file as TensorFlow Serving reads it; return how many records."""
    import tensorflow as tf

    count = 0
    with tf.io.TFRecordWriter(str(target)) as writer:
        for record in records:
            writer.write(record)
            count += 1
    return count


def failing(
    path: Path,
    run_log: Callable[[PredictionLog], object],
    tell: Callable[[int], object] = lambda number: None,
) -> tuple[int, str]:
    """Run every record of a warm-up file, in order, until one fails.

    Args:
        path: The file.
        run_log: Runs a record; raises what a model server raises.
        tell: Called with the number of each record, from 1, before it runs.

    Returns:
        How many records ran, and a sentence on what is wrong with the file; or nothing.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    name = f"{path.parent.name}/{path.name}"
    count = 0
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            if count == MAX_RECORDS:
                return count, (
                    f"Warm-up file '{name}' has more than {MAX_RECORDS:,} records, "
                    "with which TensorFlow Serving does not load the model. Keep at "
                    f"most {MAX_RECORDS:,} of them."
                )
            tell(count + 1)
            try:
                log = PredictionLog.FromString(record)
            except DecodeError:
                return count, (
                    f"Record {count + 1} of warm-up file '{name}' is no PredictionLog. "
                    "Write the file anew."
                )
            kind = log.WhichOneof("log_type")
            if kind is not None and kind not in LOG_TYPES:
                return count, _unsupported(f"of warm-up file '{name}'", count + 1, kind)
            try:
                run_log(log)
            except Exception as error:  # whatever a model raises
                return count, (
                    f"Record {count + 1} of warm-up file '{name}' fails: "
                    f"{first_line(error)}. TensorFlow Serving would not load the "
                    "model. Leave the record out, or mend the model."
                )
            count += 1
    except tf.errors.OpError as error:
        reason = str(error.message).split(" [", 1)[0].rstrip(".")
        return count, (
            f"Warm-up file '{name}' is damaged after record {count}: {reason}. It has "
            "to be a whole TFRecord file, not compressed; write it anew."
        )
    return count, ""


def first_line(error: BaseException) -> str:
    """Return what an error says first, with its code, without a full stop."""
    code = getattr(getattr(error, "code", None), "name", "")
    said = str(error).strip().splitlines()
    line = (said[0] if said else type(error).__name__).rstrip(". ")
    return f"{code}: {line}" if code else line


def _unsupported(where: str, number: int, kind: str) -> str:
    return (
        f"Record {number} {where} is a {kind}, which TensorFlow Serving does not "
        f"replay (it replays {quoted(LOG_TYPES)}). Leave such records out."
    )


def _logged(files: Sequence[Path]) -> Iterator[PredictionLog]:
    from google.protobuf.message import DecodeError
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    from penstock.components.columns.tfrecord import read_records

    for path in files:
        number = 0
        if not path.is_file():
            raise DataError(
                f"Request log '{path}' is not there. Pass TFRecord files of "
                "PredictionLog."
            )
        for records in read_records(path, batch_size=_READ_AT_ONCE):
            for record in records:
                number += 1
                try:
                    log = PredictionLog.FromString(record)
                except DecodeError:
                    raise DataError(
                        f"Record {number} of '{path}' is no PredictionLog. Pass "
                        "request logs as a router of penstock writes them."
                    ) from None
                kind = log.WhichOneof("log_type")
                if kind is None:
                    raise DataError(
                        f"Record {number} of '{path}' holds no request. Leave such "
                        "records out."
                    )
                if kind not in LOG_TYPES:
                    raise DataError(_unsupported(f"of '{path}'", number, kind))
                yield log


def _stratum(log: PredictionLog) -> tuple[str, str, int]:
    """Return what kind of request it is: its type, its signature, its size."""
    kind = str(log.WhichOneof("log_type"))
    request = getattr(log, kind).request
    if kind == "multi_inference_log":
        signature = " ".join(
            f"{task.method_name}:{task.model_spec.signature_name}"
            for task in request.tasks
        )
    else:
        signature = request.model_spec.signature_name
    if kind == "predict_log":
        tensors = request.inputs.values()
        sizes = [
            tensor.tensor_shape.dim[0].size
            for tensor in tensors
            if tensor.tensor_shape.dim
        ]
        rows = max(sizes, default=1)
    elif request.input.WhichOneof("kind") == "example_list_with_context":
        rows = len(request.input.example_list_with_context.examples)
    else:
        rows = len(request.input.example_list.examples)
    return kind, signature, int(rows).bit_length()


def _request_alone(log: PredictionLog) -> bytes:
    """Return a record that asks the same of any version, and says nothing else."""
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    kind = str(log.WhichOneof("log_type"))
    alone = PredictionLog()
    request = getattr(alone, kind).request
    request.CopyFrom(getattr(log, kind).request)
    specs = (
        [task.model_spec for task in request.tasks]
        if kind == "multi_inference_log"
        else [request.model_spec]
    )
    for spec in specs:
        spec.ClearField("version_choice")
    return bytes(alone.SerializeToString(deterministic=True))
