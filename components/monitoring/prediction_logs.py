"""TFRecord files of `PredictionLog` as columns, gathered tensor by tensor.

The values of a tensor are gathered over all records of a batch as raw bytes, and become
an array once. Serialized tf.Examples, be they in an input of Predict or the `Input` of
Classify and Regress, are gathered as bytes and decoded together.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from penstock.components.columns import tfrecord
from penstock.components.monitoring.logs import (
    ID,
    KNOWN,
    LANE,
    PROBABILITY,
    STRATUM,
    TIME,
    VERSION,
    LogFormat,
)
from penstock.components.serving.messages import DataType, PredictionLog, to_array
from penstock.components.serving.router.frames import read_frames
from penstock.schemas.errors import DataError

Array: TypeAlias = "np.ndarray[Any, Any]"

FINISHED = "requests-*.tfrecord"
"""What the router names the files of what was answered."""

_STAMP = re.compile(r"requests-(\d{8}T\d{6})Z-.+-\d{5}\.tfrecord")
_SLACK_SECONDS = 600.0  # between a record's time and the file's, of a log that waits

_STRING: int = DataType.Value("DT_STRING")
_RAW = {
    DataType.Value(name): np.dtype(kind)
    for name, kind in (
        ("DT_FLOAT", "<f4"),
        ("DT_DOUBLE", "<f8"),
        ("DT_INT8", "<i1"),
        ("DT_INT16", "<i2"),
        ("DT_INT32", "<i4"),
        ("DT_INT64", "<i8"),
        ("DT_UINT8", "<u1"),
        ("DT_UINT16", "<u2"),
        ("DT_UINT32", "<u4"),
        ("DT_UINT64", "<u8"),
    )
}

_OBJECT = np.dtype(object)

_INPUT, _OUTPUT = "input", "output"


def may_hold(path: Path, start: float, end: float) -> bool:
    """Return whether a file may hold records of some times, by its name and its own.

    The router names a file by when it began to log, and ends it after its last record.

    Args:
        path: The file.
        start: Seconds since 1970.
        end: Likewise; records are wanted before it.
    """
    match = _STAMP.fullmatch(path.name)
    if match is None:
        return True
    began = datetime.datetime.strptime(match[1], "%Y%m%dT%H%M%S")
    first = began.replace(tzinfo=datetime.timezone.utc).timestamp()
    return first < end and path.stat().st_mtime + _SLACK_SECONDS >= start


def may_still_get(path: Path, start: float, end: float) -> bool:
    """Return whether a file that is still written may get records of some times.

    The router flushes what it writes every second, so that a file tells by its first
    record, and by its own time if it has none yet, from when on it has records.

    Args:
        path: The file.
        start: Seconds since 1970.
        end: Likewise; records are wanted before it.
    """
    written = path.stat().st_mtime
    first = written
    for _, record in read_frames(path):
        first = _seconds(path, 1, _parsed(path, 1, record))
        break
    return first - _SLACK_SECONDS < end and written + _SLACK_SECONDS >= start


def unfinished(folder: Path) -> list[Path]:
    """Return the files of a folder that a router still writes, or left behind."""
    return sorted(folder.glob(FINISHED + ".partial"))


@dataclasses.dataclass
class Wanted:
    """Which records are wanted, and what became of the others.

    Attributes:
        start: Times from here on, in seconds since 1970.
        end: Times before this.
        version: Rows of this version; None for those of any.
        lanes: The lanes whose rows are answers.
        left_out: How many records were left out, by why.
        versions: How many rows of the times and lanes each version answered.
    """

    start: float
    end: float
    version: str | None
    lanes: tuple[str, ...]
    left_out: Counter[str] = dataclasses.field(default_factory=Counter)
    versions: Counter[str] = dataclasses.field(default_factory=Counter)


def read(
    path: Path, format: LogFormat, wanted: Wanted, batch_rows: int
) -> Iterator[tuple[pa.RecordBatch, Array]]:
    """Read a file.

    Args:
        path: The file, gzip or not.
        format: Which columns mean what.
        wanted: Which records; what becomes of others is counted in it.
        batch_rows: About how many rows a batch has.

    Yields:
        Batches in list form, with the columns `KNOWN` but `ID`, and with inputs and
        outputs under names that `side_and_name` tells apart; and the times of all
        records since the batch before, wanted or not.

    Raises:
        DataError: The file is damaged, or holds something else.
    """
    gathered = _Gathered(path, format)
    found: list[float] = []
    number = 0
    for number, record in enumerate(_records(path), 1):
        log = _parsed(path, number, record)
        metadata = log.log_metadata
        seconds = _seconds(path, number, log)
        found.append(seconds)
        if not wanted.start <= seconds < wanted.end:
            wanted.left_out["of other times"] += 1
            continue
        lane = metadata.request_origin
        if lane and lane.split(" ")[0] not in wanted.lanes:
            wanted.left_out[f"of lane '{lane.split(' ')[0]}'"] += 1
            continue
        kind = log.WhichOneof("log_type")
        if kind not in _READERS:
            wanted.left_out[f"of kind '{kind}'"] += 1
            continue
        logged = getattr(log, kind)
        if not logged.HasField("response"):
            wanted.left_out["without an answer"] += 1
            continue
        has_version = metadata.model_spec.HasField("version")
        version = str(metadata.model_spec.version.value) if has_version else ""
        count = gathered.rows
        if wanted.version is not None and version != wanted.version:
            # The rows of other versions are counted by their requests alone.
            wanted.left_out[f"of version '{version}'"] += 1
            wanted.versions[version] += 1
            continue
        rate = 1.0
        if metadata.HasField("sampling_config"):
            rate = metadata.sampling_config.sampling_rate
            if not 0 < rate <= 1:
                raise DataError(
                    f"'{path}', record {number}: it was kept with probability "
                    f"{rate:g}, which no record is. Log the sampling rate of requests, "
                    "from above 0 to 1, or no sampling_config."
                )
        gathered.begin(number)
        _READERS[kind](gathered, logged)
        rows = gathered.end(seconds, version, lane, metadata.request_criticality, rate)
        wanted.versions[version] += rows
        if count + rows >= batch_rows:
            yield gathered.batch(), np.array(found)
            gathered = _Gathered(path, format)
            found = []
    counted = tfrecord.count_records(path)
    if number != counted:
        raise DataError(
            f"'{path}' gave {number} records where its framing has {counted}. It was "
            "changed while it was read; read it again."
        )
    yield gathered.batch(), np.array(found)


def times(path: Path) -> tuple[float, float] | None:
    """Return the first and the last time in a file; None if it has no records.

    Raises:
        DataError: The file is damaged, or a record says no time.
    """
    first, last = math.inf, -math.inf
    for number, record in enumerate(_records(path), 1):
        seconds = _seconds(path, number, _parsed(path, number, record))
        first, last = min(first, seconds), max(last, seconds)
    return None if first > last else (first, last)


def _seconds(path: Path, number: int, log: Any) -> float:
    seconds = log.log_metadata.timestamp_secs
    if not seconds:
        raise DataError(
            f"'{path}', record {number}: its log_metadata has no timestamp_secs, so "
            "nobody knows in which window it belongs. Log the time of requests."
        )
    return float(seconds)


def _records(path: Path) -> Iterator[bytes]:
    if tfrecord.is_gzip(path):
        for records in tfrecord.read_records(path, batch_size=1_000):
            yield from records
        return
    for _, record in read_frames(path, torn=False):
        yield record


def _parsed(path: Path, number: int, record: bytes) -> Any:
    try:
        log = PredictionLog.FromString(record)
    except Exception as error:  # the class differs between Protobuf's releases
        raise DataError(
            f"'{path}', record {number}: it is no PredictionLog. Pass the files of a "
            "request log."
        ) from error
    return log


def key(side: str, name: str) -> str:
    """Return the name of an input or output while a log is read."""
    return f"{side}:{name}"


def side_and_name(column: str) -> tuple[str, str]:
    """Return 'input', 'output' or '', and the name, of a column of a batch."""
    if column in KNOWN:
        return "", column
    side, _, name = column.partition(":")
    return side, name


@dataclasses.dataclass
class _Column:
    """A tensor's values over the records of a batch."""

    dtype: Any = None  # of NumPy; object for strings
    parts: list[Any] = dataclasses.field(default_factory=list)
    firsts: list[int] = dataclasses.field(default_factory=list)
    counts: list[int] = dataclasses.field(default_factory=list)
    widths: list[int] = dataclasses.field(default_factory=list)


class _Gathered:
    """The rows of some records.

    Args:
        path: The file, for texts.
        format: Which columns mean what.
    """

    def __init__(self, path: Path, format: LogFormat) -> None:
        self.rows = 0
        self._path = path
        self._examples_in = format.examples
        self._skip = frozenset(format.leave_out)
        self._columns: dict[tuple[str, str], _Column] = {}
        self._known: list[tuple[int, float, str, str, str, float]] = []
        self._examples: list[bytes] = []
        self._example_rows: list[tuple[int, int]] = []
        self._number = 0
        self._tensors: list[tuple[str, str, Any, list[int]]] = []
        self._sizes: dict[tuple[str, str], int] = {}

    # --- one record

    def begin(self, number: int) -> None:
        self._number = number
        self._tensors = []
        self._sizes = {}

    def end(
        self, time: float, version: str, lane: str, stratum: str, rate: float
    ) -> int:
        """Take in the tensors of a record; return how many rows it has."""
        sizes = set(self._sizes.values())
        if len(sizes) > 1:
            many = ", ".join(
                f"'{name}' {size:,}" for (_, name), size in sorted(self._sizes.items())
            )
            raise DataError(
                f"{self._where}: its tensors disagree on the number of rows: {many}. "
                "Name those that are no rows in LogFormat(leave_out=...)."
            )
        count = sizes.pop() if sizes else 1
        for side, name, tensor, dims in self._tensors:
            self._add(side, name, tensor, dims, count)
        self._known.append((count, time, version, lane, stratum, rate))
        self.rows += count
        return count

    def tensor(self, side: str, name: str, tensor: Any) -> None:
        """Take in a tensor whose first dimension is the rows."""
        if name in self._skip:
            return
        if side == _INPUT and name == self._examples_in and tensor.dtype == _STRING:
            self.examples(self._array(name, tensor).ravel().tolist(), name)
            return
        dims = [dim.size for dim in tensor.tensor_shape.dim]
        if dims:
            self._sizes[side, name] = dims[0]
        self._tensors.append((side, name, tensor, dims))

    def examples(self, records: Sequence[bytes], name: str) -> None:
        """Take in serialized Examples, one per row."""
        self._sizes[_INPUT, name] = len(records)
        self._example_rows.append((self.rows, len(records)))
        self._examples += records

    def values(self, side: str, name: str, values: Array, widths: Array) -> None:
        """Take in values, so many of each row."""
        if name in self._skip:
            return
        self._sizes[side, name] = len(widths)
        column = self._column(side, name, values.dtype.newbyteorder("<"))
        column.parts.append(
            values.tolist() if values.dtype.kind == "O" else values.tobytes()
        )
        column.firsts += range(self.rows, self.rows + len(widths))
        column.counts += [1] * len(widths)
        column.widths += widths.tolist()

    @property
    def _where(self) -> str:
        return f"'{self._path}', record {self._number}"

    def _add(
        self, side: str, name: str, tensor: Any, dims: list[int], count: int
    ) -> None:
        size = math.prod(dims) if dims and min(dims) > 0 else -1
        kind = _RAW.get(tensor.dtype)
        part: Any = None
        # Most tensors are of these two kinds, and made an array one by one they take
        # most of the time.
        if kind is not None:
            content = tensor.tensor_content
            if len(content) == size * kind.itemsize:
                dtype, part = kind, content
        elif tensor.dtype == _STRING and len(tensor.string_val) == size:
            dtype, part = _OBJECT, list(tensor.string_val)
        if part is None:
            array = self._array(name, tensor)
            if array.dtype.kind == "c":
                raise DataError(
                    f"{self._where}: {side} '{name}' holds complex numbers, which no "
                    "column does. Name it in LogFormat(leave_out=...)."
                )
            if array.dtype.name in ("float16", "bfloat16"):
                array = array.astype(np.float32)
            dtype, size = array.dtype.newbyteorder("<"), array.size
            part = array.ravel().tolist() if dtype.kind == "O" else array.tobytes()
        column = self._column(side, name, dtype)
        if not dims and count != 1:  # one value for all rows
            part = part * count
            size = count
        column.parts.append(part)
        column.firsts.append(self.rows)
        column.counts.append(count)
        column.widths.append(size // count if count else 0)

    def _array(self, name: str, tensor: Any) -> Array:
        try:
            return to_array(tensor, name)
        except DataError as error:
            raise DataError(f"{self._where}: {error}") from error

    def _column(self, side: str, name: str, dtype: Any) -> _Column:
        column = self._columns.get((side, name))
        if column is None:
            column = self._columns[side, name] = _Column(dtype)
        if column.dtype is not dtype and column.dtype != dtype:
            raise DataError(
                f"{self._where}: {side} '{name}' is {_type_name(dtype)} where it was "
                f"{_type_name(column.dtype)} before. Log it with one type, or name it "
                "in LogFormat(leave_out=...)."
            )
        return column

    # --- the batch

    def batch(self) -> pa.RecordBatch:
        """Return what was gathered."""
        columns = self._known_columns()
        for side, name in sorted(self._columns):
            columns[key(side, name)] = self._listed(self._columns[side, name])
        for name, array in self._decoded():
            if name in columns:
                raise DataError(
                    f"'{self._path}': '{name.partition(':')[2]}' is the name of an "
                    "input and of a feature of its Examples. Name one of them in "
                    "LogFormat(leave_out=...)."
                )
            columns[name] = array
        return pa.RecordBatch.from_arrays(list(columns.values()), list(columns))

    def _known_columns(self) -> dict[str, pa.Array]:
        counts = np.array([each[0] for each in self._known], np.int64)
        of_row = pa.array(np.repeat(np.arange(len(counts)), counts))

        def column(place: int, kind: pa.DataType) -> pa.Array:
            values: list[Any] = [each[place] for each in self._known]
            if pa.types.is_string(kind):
                values = [each or None for each in values]
            return pa.array(values, kind).take(of_row)

        return {
            TIME: column(1, pa.float64()),
            VERSION: column(2, pa.string()),
            LANE: column(3, pa.string()),
            STRATUM: column(4, pa.string()),
            PROBABILITY: column(5, pa.float64()),
        }

    def _listed(self, column: _Column) -> pa.Array:
        firsts = np.array(column.firsts, np.int64)
        counts = np.array(column.counts, np.int64)
        rows = np.repeat(firsts - np.append(0, np.cumsum(counts)[:-1]), counts)
        rows += np.arange(len(rows))
        lengths = np.zeros(self.rows, np.int64)
        lengths[rows] = np.repeat(np.array(column.widths, np.int64), counts)
        present = np.zeros(self.rows, np.bool_)
        present[rows] = True
        return _list_array(lengths, present, _values(column))

    def _decoded(self) -> Iterator[tuple[str, pa.Array]]:
        if not any(self._examples):
            return
        decoder = tfrecord.Decoder(tfrecord.TF_EXAMPLE)
        found = decoder.decode(self._examples, f"'{self._path}'")
        rows = np.concatenate(
            [np.arange(first, first + count) for first, count in self._example_rows]
        )
        place = np.full(self.rows, -1, np.int64)
        place[rows] = np.arange(len(rows))
        index = pa.array(place, mask=place < 0)
        for name, array in zip(found.schema.names, found.columns, strict=True):
            if name not in self._skip:
                yield key(_INPUT, name), array.take(index)


def _type_name(dtype: Any) -> str:
    return "text" if dtype.kind == "O" else str(np.dtype(dtype))


def _values(column: _Column) -> pa.Array:
    if column.dtype.kind == "O":
        texts = [text for part in column.parts for text in part]
        return pa.array(texts, pa.large_binary())
    values = np.frombuffer(b"".join(column.parts), column.dtype)
    kind = column.dtype.kind
    if kind in "iu" and column.dtype != np.dtype("<u8"):
        values = values.astype(np.int64)
    return pa.array(values)


def _list_array(lengths: Array, present: Array, values: pa.Array) -> pa.Array:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    bitmap = None
    if not present.all():
        bitmap = pa.array(present).buffers()[1]
    return pa.Array.from_buffers(
        pa.large_list(values.type),
        len(lengths),
        [bitmap, pa.py_buffer(offsets)],
        children=[values],
    )


# --- kinds of records


def _predict(gathered: _Gathered, logged: Any) -> None:
    for name, tensor in logged.request.inputs.items():
        gathered.tensor(_INPUT, name, tensor)
    for name, tensor in logged.response.outputs.items():
        gathered.tensor(_OUTPUT, name, tensor)


def _classify(gathered: _Gathered, logged: Any) -> None:
    gathered.examples(_input_examples(gathered, logged.request), "its Examples")
    _classifications(gathered, logged.response.result, "")


def _regress(gathered: _Gathered, logged: Any) -> None:
    gathered.examples(_input_examples(gathered, logged.request), "its Examples")
    _regressions(gathered, logged.response.result, "")


def _multi_inference(gathered: _Gathered, logged: Any) -> None:
    gathered.examples(_input_examples(gathered, logged.request), "its Examples")
    for result in logged.response.results:
        prefix = f"{result.model_spec.signature_name}_"
        if result.WhichOneof("result") == "regression_result":
            _regressions(gathered, result.regression_result, prefix)
        else:
            _classifications(gathered, result.classification_result, prefix)


def _classifications(gathered: _Gathered, result: Any, prefix: str) -> None:
    rows = [list(each.classes) for each in result.classifications]
    widths = np.array([len(each) for each in rows], np.int64)
    scores = [each.score for row in rows for each in row]
    gathered.values(
        _OUTPUT, f"{prefix}scores", np.array(scores, np.dtype("<f4")), widths
    )
    labels = np.empty(len(scores), object)
    labels[:] = [each.label.encode() for row in rows for each in row]
    if any(labels.tolist()):
        gathered.values(_OUTPUT, f"{prefix}classes", labels, widths)


def _regressions(gathered: _Gathered, result: Any, prefix: str) -> None:
    values = [each.value for each in result.regressions]
    gathered.values(
        _OUTPUT,
        f"{prefix}outputs",
        np.array(values, np.dtype("<f4")),
        np.ones(len(values), np.int64),
    )


_READERS = {
    "predict_log": _predict,
    "classify_log": _classify,
    "regress_log": _regress,
    "multi_inference_log": _multi_inference,
}


def _input_examples(gathered: _Gathered, request: Any) -> list[bytes]:
    """Return the serialized Examples of an `Input`.

    It holds ExampleList in field 1, or ExampleListWithContext in field 2; both hold
    Examples in field 1, and the latter a context in field 2, whose features every
    Example has too. Two Examples one after the other are read as one that has the
    features of both, as Protocol Buffers merge messages.
    """
    examples: list[bytes] = []
    context = b""
    try:
        for number, content in _messages(request.input.SerializeToString()):
            for inner, example in _messages(content):
                if inner == 1:
                    examples.append(example)
                elif inner == 2 and number == 2:
                    context += example
    except IndexError:
        raise DataError(
            f"{gathered._where}: its input holds no tf.Examples that can be read. Log "
            "requests as they were sent."
        ) from None
    return [context + example for example in examples]


def _messages(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of the messages in a message.

    Raises:
        IndexError: It is no message, or holds anything else.
    """
    at = 0
    while at < len(content):
        tag = content[at]
        size = shift = 0
        more = True
        while more:
            at += 1
            size |= (content[at] & 0x7F) << shift
            shift += 7
            more = content[at] >= 0x80
        at += 1
        if tag & 7 != 2 or at + size > len(content):
            raise IndexError
        yield tag >> 3, content[at : at + size]
        at += size


def placed(path: Path, first: int, count: int) -> pa.Array:
    """Return what tells rows without ids apart: the file's name and their number."""
    return pa.array(
        [f"{path.name}:{row}" for row in range(first, first + count)], pa.string()
    )


__all__ = [
    "FINISHED",
    "ID",
    "Wanted",
    "key",
    "may_hold",
    "placed",
    "read",
    "side_and_name",
    "times",
    "unfinished",
]
