"""Whether a model server can run a SavedModel: called in a fresh process, and judged.

    checked = check_model(folder, "Model 'taxi'", temp_dir, rows=batch, split="eval")
    if checked.answer is not Answer.YES:
        print(*checked.reasons, sep="\\n")

TensorFlow is loaded in the process only.
"""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.components.serving import fresh_process
from penstock.components.serving.fresh_process import Ended, Limits
from penstock.components.serving.infra_check import Latency, Task, WarmUp
from penstock.components.serving.parity import Parity
from penstock.schemas.artifacts import Answer
from penstock.schemas.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_GIB = 1 << 30
_OF_THE_MACHINE = ("latency", "memory", "time", "death")
"""Kinds of failures that another try, or another machine, may not have."""


@dataclasses.dataclass(frozen=True)
class Checked:
    """What came of a check.

    Attributes:
        answer: Whether a model server can load the model and answer with it.
        failures: Why not, one sentence each.
        untold: What could not be found out, one sentence each.
        remarks: What is worth knowing beside it, one sentence each.
        called: For every signature that was called, by name: how many `rows` it was
            called with and how many were left out (`rows_left_out`), how many
            `requests` of so many `rows_per_request` were timed, `p50_ms`, `p99_ms`.
        parity: What the comparison with the training path came to, if there was one.
        signatures: Names of all signatures.
        warmup_records: How many warm-up records ran; None if there is no such file.
        load_seconds: How long the process took to start and to load the model.
        peak_memory_bytes: Most memory that it had resident.
        tensorflow: The version that loaded it.
        depends_on_machine: Whether it failed in a way that another try may not.
    """

    answer: Answer
    failures: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    called: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    parity: dict[str, Any] | None = None
    signatures: tuple[str, ...] = ()
    warmup_records: int | None = None
    load_seconds: float | None = None
    peak_memory_bytes: int = 0
    tensorflow: str = ""
    depends_on_machine: bool = False

    @property
    def reasons(self) -> tuple[str, ...]:
        """All sentences, those that speak against a yes first."""
        return (*self.failures, *self.untold, *self.remarks)


def check_model(
    folder: Path,
    subject: str,
    temp_dir: Path,
    *,
    rows: pa.RecordBatch | None = None,
    split: str = "eval",
    absent: Sequence[str] = (),
    signatures: Sequence[str] = (),
    limits: Limits = Limits(),  # noqa: B008, a frozen value
    latency: Latency = Latency(),  # noqa: B008
    require_finite: bool = True,
    parity: Parity | None = None,
    warm_up: WarmUp | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Checked:
    """Load a SavedModel in a fresh process, call it, compare it and warm it up.

    Args:
        folder: Folder of the SavedModel.
        subject: What texts call the model, a whole noun such as "Model 'taxi'".
        temp_dir: An existing folder for what the process leaves.
        rows: Real rows to call signatures with, in natural form. Without them, only
            signatures that take nothing can be called.
        split: What the rows are of, for texts.
        absent: Columns of the rows that requests do not have. They are kept from the
            serving signature, and from those that are named.
        signatures: Those to call; all of them if empty.
        limits: What the process may take.
        latency: How long requests may take.
        require_finite: Whether an output that is infinite or NaN is a failure.
        parity: The training path to compare with.
        warm_up: The warm-up file to make. A file that the model has is tried in any
            case.
        progress: Called often; may raise to stop the process.

    Returns:
        No if anything failed; else not-enough-data if a signature could not be called
        or compared; else yes.

    Raises:
        DataError: If request logs for the warm-up file cannot be used, or the model
            has such a file already.
        PipelineError: If a fresh process cannot find the function of `parity`.
    """
    task = Task(
        folder=folder,
        subject=subject,
        rows=rows,
        split=split,
        absent=tuple(absent),
        signatures=tuple(signatures),
        latency=latency,
        require_finite=require_finite,
        parity=parity.portable() if parity else None,
        warm_up=warm_up,
    )
    file = temp_dir / "task.pickle"
    file.write_bytes(pickle.dumps(task))
    ended = fresh_process.run(
        "penstock.components.serving.infra_check:examine",
        (str(file),),
        temp_dir,
        progress,
        limits,
    )
    found = ended.answer or {}
    if "wrong_data" in found:
        raise DataError(found["wrong_data"])
    failures = list(found.get("failures", ()))
    failures += _deaths(ended, subject, limits)
    if "error" in found:
        text = (
            f"{subject} cannot be loaded: {found['error']} Train it again, or export "
            "it anew."
        )
        short = found["error"].startswith("RESOURCE_EXHAUSTED")
        failures.append({"kind": "memory" if short else "load", "text": text})
    untold = tuple(found.get("untold", ()))
    answer = Answer.NOT_ENOUGH_DATA if untold else Answer.YES
    return Checked(
        answer=Answer.NO if failures else answer,
        failures=tuple(each["text"] for each in failures),
        untold=untold,
        remarks=tuple(_remarks(found, parity)) if not failures else (),
        called=found.get("called", {}),
        parity=found.get("parity"),
        signatures=tuple(found.get("signatures", ())),
        warmup_records=found.get("warmup_records"),
        load_seconds=found.get("load_seconds"),
        peak_memory_bytes=ended.peak_bytes,
        tensorflow=found.get("tensorflow", ""),
        depends_on_machine=any(each["kind"] in _OF_THE_MACHINE for each in failures),
    )


def _deaths(ended: Ended, subject: str, limits: Limits) -> list[dict[str, str]]:
    """Return why there is no answer, or an answer that took too much."""
    doing = ended.stage.doing
    gib = ended.peak_bytes / _GIB
    if ended.exceeded == "memory" or (
        limits.memory_gib is not None and gib > limits.memory_gib
    ):
        when = f"while {doing}" if ended.answer is None else "at its peak"
        text = (
            f"{subject} took {gib:.2f} GiB of memory {when}, where memory_limit_gib is "
            f"{limits.memory_gib:g}. Make the model smaller, or allow more; TensorFlow "
            "alone takes about 0.5 GiB."
        )
        return [{"kind": "memory", "text": text}]
    if ended.exceeded == "time":
        name = ended.stage.limit.replace("_", "_timeout_")
        text = (
            f"{subject} was stopped after {getattr(limits, ended.stage.limit):g} "
            f"seconds ({name}) while {doing}. Make the model quicker, or allow more."
        )
        return [{"kind": "time", "text": text}]
    if ended.answer is None:
        text = (
            f"{subject} cannot be served: {ended.death}, while {doing}. {ended.said}"
            "Load and call it with tf.saved_model.load to see why."
        )
        return [{"kind": "death", "text": text}]
    return []


def _remarks(found: dict[str, Any], parity: Parity | None) -> list[str]:
    """Return what a reader of a verdict wants to know, though nothing hangs on it."""
    remarks = []
    for name, called in found.get("called", {}).items():
        left = called["rows_left_out"]
        if left:
            rows = "1 row that has" if left == 1 else f"{left:,} rows that have"
            remarks.append(
                f"Signature '{name}' was called without {rows} no value, or another "
                "number of values, of what it takes."
            )
    if parity is None:
        remarks.append("Nothing was compared with the training path: no parity is set.")
    if found.get("warmup_records") is not None:
        count = found["warmup_records"]
        records = "1 warm-up record" if count == 1 else f"{count:,} warm-up records"
        remarks.append(f"{records} ran.")
    return remarks
