"""What runs in the fresh process: a model is loaded, called, compared and warmed up.

Nothing here decides: it says what it saw, in sentences, to `model_check`.
"""

from __future__ import annotations

import dataclasses
import math
import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from penstock.components.serving import warmup
from penstock.components.serving.fresh_process import Parent
from penstock.components.serving.parity import NotComparable, Parity, compare
from penstock.components.serving.row_requests import (
    SERVING_SIGNATURE,
    NotCallable,
    Ready,
    make_ready,
)
from penstock.schemas.artifacts import WARMUP_FILE
from penstock.schemas.errors import DataError, did_you_mean, quoted

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from tensorflow_serving.apis.predict_pb2 import PredictRequest

    from penstock.components.columns.signatures import Signatures
    from penstock.components.serving.model_server.servable import Servable

Array: TypeAlias = "np.ndarray[Any, Any]"

_RESOURCE_EXHAUSTED = 8  # the code of it
_UNMEASURED = 5  # first requests, in which kernels are chosen and memory is found
_FEWEST_MEASURED = 10
_TOLD_SECONDS = 0.1
_MEASURED_SECONDS = 2.0  # where no bound asks for all of the requests


@dataclasses.dataclass(frozen=True)
class Latency:
    """How long requests may take, one row each, one after the other.

    Attributes:
        requests: How many are measured, of each signature.
        quantile: Of which the bound is.
        max_ms: The bound, in milliseconds; None to measure only, and then for no
            longer than about 2 seconds.
    """

    requests: int = 200
    quantile: float = 0.99
    max_ms: float | None = None


@dataclasses.dataclass(frozen=True)
class WarmUp:
    """A warm-up file that is to be made.

    Attributes:
        target: Where.
        most: Most records.
        request_logs: What it is made of; of the rows if there are none.
    """

    target: Path
    most: int
    request_logs: tuple[Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be found out about a model.

    Attributes:
        folder: Folder of the SavedModel.
        subject: What texts call the model.
        rows: Real rows, in natural form; None if there are none.
        split: The split that they are of, for texts.
        absent: Columns of the rows that requests do not have.
        signatures: Those to call; all of them if there are none.
        latency: How long requests may take.
        require_finite: Whether outputs may not be infinite or NaN.
        parity: What to compare.
        warm_up: The warm-up file to make.
    """

    folder: Path
    subject: str
    rows: pa.RecordBatch | None
    split: str
    absent: tuple[str, ...]
    signatures: tuple[str, ...]
    latency: Latency
    require_finite: bool
    parity: Parity | None
    warm_up: WarmUp | None


# --- entries


def load(parent: Parent, folder: str, subject: str) -> dict[str, Any]:
    """Load a model: return its `signatures`, sorted, or the `error` that says why not.

    Args:
        parent: Told what is done.
        folder: Folder of the SavedModel.
        subject: What texts call it.
    """
    found, _ = _loaded(parent, Path(folder), subject)
    return found


def examine(parent: Parent, file: str) -> dict[str, Any]:
    """Find out all that a task asks for.

    Args:
        parent: Told what is done.
        file: The pickled task.
    """
    task: Task = pickle.loads(Path(file).read_bytes())
    started = time.perf_counter()
    found, servable = _loaded(parent, task.folder, task.subject)
    if servable is None:
        return found
    found["load_seconds"] = time.perf_counter() - started
    examination = _Examination(parent, task, servable)
    try:
        examination.run()
    except DataError as error:
        return {"wrong_data": str(error)}
    return {**found, **examination.found}


def _loaded(
    parent: Parent, folder: Path, subject: str
) -> tuple[dict[str, Any], Servable | None]:
    parent.tell("it started", "load_seconds")
    import tensorflow as tf

    from penstock.components.serving.model_server.servable import Servable

    parent.tell(f"{subject} was loaded", "load_seconds")
    try:
        servable = Servable(folder)
        _check_variables(folder, subject)
    except Exception as error:  # whatever is wrong with it, TensorFlow raises anything
        code = getattr(error, "code", None)
        kind = getattr(code, "name", type(error).__name__)
        line = (str(error).strip().splitlines() or ["no reason given"])[0]
        text = f"{kind}: {line.rstrip('.')}.".replace(str(folder), subject)
        return {"error": text}, None
    signatures = sorted(name for name in servable.signatures if name[:2] != "__")
    return {"signatures": signatures, "tensorflow": tf.__version__}, servable


def _check_variables(folder: Path, subject: str) -> None:
    """Refuse a model without the variables that it was saved with.

    TensorFlow Serving takes it for a model without variables, and fails at every
    request (tensorflow/serving#1086).
    """
    from penstock.components.columns.signatures import serving_graph

    if (folder / "variables" / "variables.index").exists():
        return
    if serving_graph(subject, folder).saver_def.restore_op_name:
        raise DataError("'variables/variables.index' is missing")


# --- what is found out


class _Examination:
    """Calls a model, and notes what speaks against it and what cannot be told."""

    def __init__(self, parent: Parent, task: Task, servable: Servable) -> None:
        self._parent = parent
        self._task = task
        self._servable = servable
        self._failures: list[dict[str, str]] = []
        self._untold: list[str] = []
        self._kind = "answers"
        self.found: dict[str, Any] = {
            "failures": self._failures,
            "untold": self._untold,
            "called": {},
            "parity": None,
            "warmup_records": None,
        }

    def run(self) -> None:
        """Do all of it, in the order in which a server would."""
        from penstock.components.columns.signatures import Signatures

        task = self._task
        own = task.folder / WARMUP_FILE
        if own.exists():
            self._prove(own)
        signatures = Signatures(task.subject, task.folder)
        names = self._names(signatures)
        ready = []
        for name in names:
            found = self._ready(signatures, name)
            if found is not None:
                ready.append(found)
                self._call(found)
        if task.parity is not None:
            self._compare(task.parity, signatures)
        if task.warm_up is not None and not self._failures:
            called = [each for each in ready if each.name in self.found["called"]]
            self._make_warm_up(task.warm_up, called)

    def _fail(self, text: str, kind: str = "answers") -> None:
        found = {"text": text, "kind": kind}
        if found not in self._failures:
            self._failures.append(found)

    def _cannot_tell(self, text: str) -> None:
        if text not in self._untold:
            self._untold.append(text)

    def _names(self, signatures: Signatures) -> list[str]:
        names = sorted(signatures.outputs)
        if not names:
            self._fail(
                f"{self._task.subject} has no signature, so a model server cannot "
                'answer with it. Save it with signatures={"serving_default": ...}, or '
                "with model.export."
            )
        for name in self._task.signatures:
            if name not in names:
                self._fail(
                    f"{self._task.subject} has no signature '{name}' (it has "
                    f"{quoted(names)}).{did_you_mean(name, names)} Export it with that "
                    "signature, or mend signatures."
                )
        wanted = self._task.signatures or names
        return [name for name in names if name in wanted]

    def _ready(
        self, signatures: Signatures, name: str, *, is_training: bool = False
    ) -> Ready | None:
        """Return how a signature is called; None, and a note, if it cannot be."""
        task = self._task
        is_for_requests = name in (task.signatures or (SERVING_SIGNATURE,))
        try:
            return make_ready(
                signatures,
                name,
                self._servable.signatures[name].inputs,
                f"Signature '{name}' of {task.subject}",
                task.rows,
                task.split,
                task.absent if is_for_requests and not is_training else (),
            )
        except NotCallable as error:
            if error.is_failure:
                self._fail(str(error))
            else:
                self._cannot_tell(str(error))
            return None

    # Calling

    def _call(self, ready: Ready) -> None:
        """Call a signature on every row, and on all together; then measure."""
        requests, wrong = [], []
        self._kind = "answers"
        for places in (*ready.groups, *filter(None, [ready.together])):
            request = self._request(ready, places)
            if request is None:
                return
            if places is not ready.together:
                requests.append(request)
            self._tell(ready, places)
            text = self._wrong(ready, places, request)
            if text:
                wrong.append((len(places), text))
            if self._kind == "memory":
                break  # TensorFlow waits for seconds before it gives up again
        report: dict[str, Any] = {
            "rows": len({place for group in ready.groups for place in group}),
            "rows_left_out": ready.left_out,
        }
        if not ready.call.arguments:
            report["rows"] = 0
        self.found["called"][ready.name] = report
        if wrong:
            also = len(wrong) - 1
            more = ""
            if also:
                more = f" So {_requests(also)}."
            self._fail(f"{wrong[0][1]}{more}", self._kind)
            return
        self._measure(ready, requests, report)

    def _request(self, ready: Ready, places: Sequence[int]) -> PredictRequest | None:
        try:
            return ready.request(places)
        except DataError as error:  # the row says what no tensor of this type can
            self._cannot_tell(f"{ready.title} was not called on all rows. {error}")
            return None

    def _tell(self, ready: Ready, places: Sequence[int]) -> None:
        name = f"signature '{ready.name}' answered"
        on = f" {ready.called(places)}" if ready.call.arguments else ""
        self._parent.tell(f"{name}{on}")

    def _wrong(
        self, ready: Ready, places: Sequence[int], request: PredictRequest
    ) -> str:
        """Return what is wrong with an answer, as a sentence; or nothing."""
        from penstock.components.columns import feeding
        from penstock.components.columns.signatures import wrong_types

        on = f" on {ready.called(places)}" if ready.call.arguments else ""
        try:
            outputs = self._answer(request)
        except Exception as error:  # whatever a model raises
            if ready.call.arguments:
                part = ready.part(places)
                wrong = list(feeding.wrongly_parsed(ready.call, part))
                if wrong:
                    schema = part.batch.schema
                    return str(wrong_types(f"{ready.title} parses", wrong, schema))
            if getattr(error, "code", None) == _RESOURCE_EXHAUSTED:
                self._kind = "memory"
                return (
                    f"{ready.title} runs out of memory{on}: {feeding.reason(error)}. "
                    "Make the model smaller, or allow more with memory_limit_gib."
                )
            return (
                f"{ready.title} fails{on}: {feeding.reason(error)}. Mend the model, or "
                "leave such rows out of the data."
            )
        for name, values in sorted(outputs.items()):
            if ready.call.arguments and values.shape[:1] != (len(places),):
                return (
                    f"Output '{name}' of {_small(ready.title)} has the shape "
                    f"{values.shape} for {ready.called(places)}. Make the model give "
                    "one output per row."
                )
            if self._task.require_finite and (found := _not_finite(values)):
                value, row = found
                which = f" in {ready.called(places[row : row + 1])}" if on else ""
                return (
                    f"Output '{name}' of {_small(ready.title)} is {value}{which}. Mend "
                    "the model, or pass require_finite=False if it means that."
                )
        return ""

    def _answer(self, request: PredictRequest) -> dict[str, Array]:
        import tensorflow as tf

        response = self._servable.predict(request)
        found = {}
        for name, tensor in response.outputs.items():
            values = tf.make_ndarray(tensor)
            if tensor.dtype == tf.bfloat16.as_datatype_enum:  # NumPy knows no such
                values = values.astype("float32")
            found[name] = values
        return found

    def _measure(
        self, ready: Ready, requests: list[PredictRequest], report: dict[str, Any]
    ) -> None:
        """Measure how long requests take, one after the other."""
        latency = self._task.latency
        self._parent.tell(f"requests of signature '{ready.name}' were timed")
        told = time.perf_counter()
        seconds: list[float] = []
        for number in range(_UNMEASURED + latency.requests):
            request = requests[number % len(requests)]
            started = time.perf_counter()
            try:
                self._servable.predict(request)
            except Exception as error:  # whatever a model raises, now and then
                self._fail(
                    f"{ready.title} fails when it is asked again: "
                    f"{warmup.first_line(error)}. Make the model answer the same "
                    "request every time."
                )
                return
            taken = time.perf_counter() - started
            if time.perf_counter() - told > _TOLD_SECONDS:
                told = time.perf_counter()
                self._parent.tell(f"requests of signature '{ready.name}' were timed")
            if number >= _UNMEASURED:
                seconds.append(taken)
            if (
                latency.max_ms is None
                and len(seconds) >= _FEWEST_MEASURED
                and sum(seconds) > _MEASURED_SECONDS
            ):
                break
        report["requests"] = len(seconds)
        report["rows_per_request"] = len(ready.groups[0])
        report["p50_ms"] = quantile(seconds, 0.5) * 1e3
        report["p99_ms"] = quantile(seconds, 0.99) * 1e3
        found = quantile(seconds, latency.quantile) * 1e3
        if latency.max_ms is not None and found > latency.max_ms:
            self._fail(
                f"{ready.title} takes {found:,.1f} ms at quantile {latency.quantile:g} "
                f"of {len(seconds):,} requests, where max_latency_ms is "
                f"{latency.max_ms:g}. Make the model quicker, measure on a machine "
                "with nothing else to do, or allow more.",
                "latency",
            )

    # Comparing

    def _compare(self, parity: Parity, signatures: Signatures) -> None:
        """Compare a signature with a training path, row by row."""
        task = self._task
        for name in (parity.signature, parity.against):
            if isinstance(name, str) and name not in signatures.outputs:
                self._fail(
                    f"{task.subject} has no signature '{name}' for the parity gate (it "
                    f"has {quoted(signatures.outputs)})."
                    f"{did_you_mean(name, signatures.outputs)} Export it with that "
                    "signature, or mend parity.",
                    "parity",
                )
                return
        ours = self._ready(signatures, parity.signature)
        if ours is None:
            return
        if not ours.call.arguments:
            self._fail(
                f"{ours.title} takes no rows, so that it cannot be compared. Name "
                "another one in parity.",
                "parity",
            )
            return
        places = {place for group in ours.groups for place in group}
        theirs = None
        if isinstance(parity.against, str):
            theirs = self._ready(signatures, parity.against, is_training=True)
            if theirs is None:
                return
            places &= {place for group in theirs.groups for place in group}
        rows = sorted(places)
        if not rows:
            self._cannot_tell(
                f"{ours.title} was not compared with {parity.other}: there is no row "
                "that both can be given. Compare on other rows."
            )
            return
        try:
            served = self._outputs(ours, rows)
            trained = (
                self._outputs(theirs, rows)
                if theirs is not None
                else self._of_function(parity, rows)
            )
            found = compare(
                parity,
                served,
                trained,
                ours.title,
                lambda row: ours.called([rows[row]]),
            )
            self.found["parity"] = found.report
            if found.text:
                self._fail(found.text, "parity")
        except NotComparable as error:
            self._fail(str(error), "parity")

    def _outputs(self, ready: Ready, rows: Sequence[int]) -> dict[str, Array]:
        """Return what a signature answers for rows."""
        import numpy as np

        size = len(ready.groups[0])
        # Where several rows fit into a request, those that need not be of one width
        # go one by one.
        is_free = size == 1 and set(rows) <= set(ready.together)
        step = len(rows) if is_free else size
        parts: list[dict[str, Array]] = []
        for start in range(0, len(rows), step):
            group = [rows[(start + each) % len(rows)] for each in range(step)]
            self._tell(ready, group)
            try:
                outputs = self._answer(ready.request(group))
            except Exception as error:  # whatever a model raises
                raise NotComparable(
                    f"{ready.title} fails on {ready.called(group)}: "
                    f"{warmup.first_line(error)}, so that it was not compared."
                ) from error
            keep = min(step, len(rows) - start)
            parts.append({name: each[:keep] for name, each in outputs.items()})
        try:
            return {
                name: np.concatenate([part[name] for part in parts])
                for name in parts[0]
            }
        except ValueError as error:
            raise NotComparable(
                f"The outputs of {_small(ready.title)} have other shapes for other "
                "rows, so that they were not compared. Name outputs of one shape with "
                "Parity(outputs=...)."
            ) from error

    def _of_function(self, parity: Parity, rows: Sequence[int]) -> dict[str, Array]:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        assert not isinstance(parity.against, str)
        self._parent.tell(f"{parity.other} predicted", "load_seconds")
        batch = pc.take(self._task.rows, pa.array(rows))
        try:
            found = parity.against(batch, self._task.folder)
            outputs = found if isinstance(found, Mapping) else {"": found}
            return {str(name): np.asarray(each) for name, each in outputs.items()}
        except Exception as error:  # it is the user's code
            raise NotComparable(
                f"The training path, {parity.other}, raised {type(error).__name__} on "
                f"{len(rows):,} rows: {warmup.first_line(error)}. Call it with rows of "
                "the data in a test."
            ) from error

    # Warming up

    def _prove(self, path: Path) -> int:
        count, text = warmup.failing(
            path,
            self._servable.run_log,
            lambda number: self._parent.tell(f"warm-up record {number:,} ran"),
        )
        if text:
            self._fail(text, "warmup")
        self.found["warmup_records"] = count
        return count

    def _make_warm_up(self, wanted: WarmUp, ready: Sequence[Ready]) -> None:
        self._parent.tell("a warm-up file was made", "load_seconds")
        if wanted.request_logs:
            warmup.make_from_request_logs(
                wanted.request_logs, wanted.target, most=wanted.most
            )
        elif ready:
            warmup.write(_records(ready, wanted.most), wanted.target)
        else:
            return  # why none could be called is noted
        self._prove(wanted.target)


def _records(ready: Sequence[Ready], most: int) -> Iterator[bytes]:
    """Yield warm-up records: requests of every signature, as many of each."""
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    counts = {place: len(each.groups) for place, each in enumerate(ready)}
    for place, count in warmup.shares(counts, most).items():
        for group in ready[place].groups[:count]:
            log = PredictionLog()
            log.predict_log.request.CopyFrom(ready[place].request(group))
            yield log.SerializeToString(deterministic=True)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that so large a share of the values does not exceed."""
    place = math.ceil(share * len(values) - 1e-9) - 1
    return sorted(values)[max(place, 0)]


def _requests(more: int) -> str:
    return "does 1 more request" if more == 1 else f"do {more:,} more requests"


def _small(title: str) -> str:
    return title[0].lower() + title[1:]


def _not_finite(values: Array) -> tuple[str, int] | None:
    """Return the first value that is infinite or NaN, and its row; or None."""
    import numpy as np

    if values.dtype.kind not in "fc":
        return None
    wrong = ~np.isfinite(values)
    if not wrong.any():
        return None
    where = np.argwhere(wrong)[0]
    return str(values[tuple(where)]), int(where[0]) if len(where) else 0
