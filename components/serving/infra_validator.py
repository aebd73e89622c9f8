"""The InfraValidator component: whether a model server can run a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from penstock.components.base import Component, RunContext, output
from penstock.components.serving.parity import Parity
from penstock.components.serving.pusher import serving_manifest
from penstock.schemas.artifacts import (
    WARMUP_FILE,
    Answer,
    Examples,
    InfraBlessing,
    Model,
    Schema,
    check_split_name,
)
from penstock.schemas.digests import manifest_digest
from penstock.schemas.errors import DataError, PipelineError

if TYPE_CHECKING:
    import pyarrow as pa

    from penstock.components.serving.model_check import Checked

REPORT_FILE = "report.json"
"""In an InfraBlessing, the file that says all that was found."""

_MEASURED = ("requests", "p50_ms", "p99_ms")
"""What is other every time, of what is found out about a signature."""

_WORDS = {
    Answer.YES: "BLESSED",
    Answer.NO: "NOT_BLESSED",
    Answer.NOT_ENOUGH_DATA: "INCONCLUSIVE",
}


class InfraValidator(Component):
    """Load a model as a model server would, call it on real rows, and bless it or not.

    Reads a Model and, to call it with, Examples; writes an InfraBlessing that says yes
    or no with reasons, with properties that say how long requests took, and, if asked
    to, the warm-up file of the version that is pushed. Use it between a Trainer and a
    Pusher. It needs neither Docker nor TensorFlow Serving: the model is loaded in a
    fresh process.

    Every signature is called on single rows, as requests come, and on all of them
    together. A signature that the rows cannot be given makes the verdict inconclusive.

    Example:
        infra = InfraValidator(
            model=trainer.model, examples=ingest.examples, make_warmup=True
        )

    Attributes:
        model: The model.
        examples: Rows to call it with. Without them only its loading can be tried, and
            the verdict is inconclusive.
        schema: A feature schema; what it does not expect in `environment` is kept from
            the requests.
        split: The split whose first rows are taken.
        max_examples: How many rows are taken at most.
        environment: The environment of the schema that requests are made in.
        signatures: The signatures to call; all of them if none is named.
        memory_limit_gib: Most memory of the process; TensorFlow itself takes 0.5.
        load_timeout_seconds: How long the process may take to start, to load the model,
            and to run the training path.
        request_timeout_seconds: How long one request may take.
        max_latency_ms: How long a request of one row may take at `latency_quantile`,
            alone on this machine; None to measure it only.
        latency_quantile: The quantile that `max_latency_ms` bounds.
        latency_requests: How many requests are timed, of each signature.
        require_finite: Whether an output that is infinite or NaN is a failure.
        parity: The training path that a signature has to agree with.
        make_warmup: Whether to write the warm-up file.
        warmup_requests: How many requests it holds at most, up to 1,000.
        request_logs: Files of logged requests that it is made of, instead of rows.
        on_inconclusive: What happens if a signature could not be called: `block` or
            `bless`.
        blessing: INFRA_BLESSED or INFRA_NOT_BLESSED, with reasons, `report.json`, and
            the warm-up file. What was measured is its properties: `load_seconds`,
            `peak_memory_gib` and, by signature, `serving_default.p50_ms`, `….p99_ms`
            and the number of `….requests` behind them.
    """

    EXECUTION_TYPE: ClassVar[str] = (
        "tfx.components.infra_validator.component.InfraValidator"
    )
    LIBRARIES: ClassVar[tuple[str, ...]] = ("tensorflow",)

    model: Model
    examples: Examples | None = None
    schema: Schema | None = None
    split: str = "eval"
    max_examples: int = 100
    environment: str = "SERVING"
    signatures: tuple[str, ...] = ()
    memory_limit_gib: float | None = None
    load_timeout_seconds: float = 300.0
    request_timeout_seconds: float = 30.0
    max_latency_ms: float | None = None
    latency_quantile: float = 0.99
    latency_requests: int = 200
    require_finite: bool = True
    parity: Parity | None = None
    make_warmup: bool = False
    warmup_requests: int = 100
    request_logs: tuple[Path, ...] = ()
    on_inconclusive: Literal["block", "bless"] = "block"
    blessing: InfraBlessing = output()

    def check(self) -> None:
        check_split_name(self.split)
        for name in ("max_examples", "latency_requests", "warmup_requests"):
            if getattr(self, name) < 1:
                raise PipelineError(
                    f"{self.name}.{name} is {getattr(self, name)}. Pass a whole number "
                    "of at least 1."
                )
        for name in (
            "memory_limit_gib",
            "load_timeout_seconds",
            "request_timeout_seconds",
            "max_latency_ms",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise PipelineError(
                    f"{self.name}.{name} is {value:g}. Pass a number greater than 0."
                )
        self._check_quantile()
        self._check_warmup()
        if self.parity is not None and self.examples is None:
            raise PipelineError(
                f"{self.name} has parity and no examples, so that there is no row to "
                "compare on. Wire examples."
            )

    def _check_quantile(self) -> None:
        share = self.latency_quantile
        if not 0 < share < 1:
            raise PipelineError(
                f"{self.name}.latency_quantile is {share:g}; a quantile lies between 0 "
                "and 1. Pass 0.99 for the slowest request of a hundred."
            )
        needed = 1 / (1 - share)
        if self.max_latency_ms is not None and self.latency_requests < needed - 1e-6:
            raise PipelineError(
                f"{self.name} times {self.latency_requests:,} requests, and quantile "
                f"{share:g} takes at least {needed:,.0f}. Raise latency_requests, or "
                "bound a lower quantile."
            )

    def _check_warmup(self) -> None:
        from penstock.components.serving.warmup import MAX_RECORDS

        if self.warmup_requests > MAX_RECORDS:
            raise PipelineError(
                f"{self.name}.warmup_requests is {self.warmup_requests:,}, and "
                f"TensorFlow Serving does not load a model with more than "
                f"{MAX_RECORDS:,}. Pass at most that."
            )
        if self.request_logs and not self.make_warmup:
            raise PipelineError(
                f"{self.name} has request_logs, which only a warm-up file is made of. "
                "Pass make_warmup=True, or leave them out."
            )
        if self.make_warmup and self.examples is None and not self.request_logs:
            raise PipelineError(
                f"{self.name} has make_warmup and nothing to make it of. Wire "
                "examples, or pass request_logs."
            )

    def why_stale(self) -> str:
        """Say that a refusal for time or memory may have been the machine's fault.

        Returns:
            That the model may pass now; or nothing.
        """
        if self.blessing.properties.get("depends_on_machine") == 1:
            return "it was refused for time, memory or a crash, which may pass"
        return ""

    def run(self, context: RunContext) -> None:
        """Try the model.

        Raises:
            DataError: If the model is not what its producer wrote, the examples cannot
                be read, or the request logs cannot be used.
            PipelineError: If a fresh process cannot find the function of `parity`.
        """
        from penstock.components.serving.fresh_process import Limits
        from penstock.components.serving.infra_check import Latency, WarmUp
        from penstock.components.serving.model_check import check_model

        manifest = serving_manifest(self.model)
        if self.make_warmup and WARMUP_FILE in manifest:
            raise DataError(
                f"Model '{self.model.uri}' has a warm-up file of its own "
                f"('{WARMUP_FILE}'). It is tried in any case: leave make_warmup out, "
                "or export the model without it."
            )
        rows = self._rows()
        context.logger.info("Trying %s in a process of its own", self.model.uri)
        warm_up = None
        if self.make_warmup:
            self.blessing.warmup_file.parent.mkdir(parents=True)
            warm_up = WarmUp(
                self.blessing.warmup_file, self.warmup_requests, self.request_logs
            )
        checked = check_model(
            self.model.serving_dir,
            f"Model '{self.model.source or self.model.uri}'",
            context.temp_dir,
            rows=rows,
            split=self.split,
            absent=self._absent(rows),
            signatures=self.signatures,
            limits=Limits(
                self.memory_limit_gib,
                self.load_timeout_seconds,
                self.request_timeout_seconds,
            ),
            latency=Latency(
                self.latency_requests, self.latency_quantile, self.max_latency_ms
            ),
            require_finite=self.require_finite,
            parity=self.parity,
            warm_up=warm_up,
            progress=lambda: context.progress(0),
        )
        if rows is not None:
            context.progress(rows.num_rows)
        self._bless(checked, manifest_digest(manifest))

    def _rows(self) -> pa.RecordBatch | None:
        """Return the first rows of the split."""
        if self.examples is None:
            return None
        import pyarrow as pa

        from penstock.components.columns.examples import read_batches, schema_of

        batches: list[pa.RecordBatch] = []
        wanted = self.max_examples
        self.examples.require_split(self.split)
        size = min(wanted, 10_000)
        for batch in read_batches(self.examples, self.split, batch_size=size):
            batches.append(batch.slice(0, wanted))
            wanted -= batches[-1].num_rows
            if not wanted:
                break
        table = pa.Table.from_batches(batches, schema_of(self.examples))
        columns = table.combine_chunks().to_batches()
        return columns[0] if columns else pa.RecordBatch.from_pylist([], table.schema)

    def _absent(self, rows: pa.RecordBatch | None) -> list[str]:
        """Return the columns that the schema does not expect in requests."""
        if self.schema is None or rows is None:
            return []
        from google.protobuf import text_format
        from tensorflow_metadata.proto.v0 import schema_pb2

        file = self.schema.only_file(self.schema.file.name)
        try:
            schema = text_format.Parse(file.read_text("utf-8"), schema_pb2.Schema())
        except text_format.ParseError as error:
            raise DataError(
                f"Schema '{file}' cannot be read: {error}. Mend it, or run its "
                "producer again."
            ) from error
        if self.environment not in _environments(schema):
            return []
        absent = {
            each.name
            for each in schema.feature
            if not _is_expected(each, schema, self.environment)
        }
        return sorted(absent & set(rows.schema.names))

    def _bless(self, checked: Checked, digest: str) -> None:
        word = _WORDS[checked.answer]
        is_blessed = checked.answer is Answer.YES or (
            checked.answer is Answer.NOT_ENOUGH_DATA and self.on_inconclusive == "bless"
        )
        blessing = self.blessing
        if not is_blessed or checked.warmup_records is None:
            # Nothing that did not run to its end may lie where a pusher looks.
            blessing.warmup_file.unlink(missing_ok=True)
            if blessing.warmup_file.parent.is_dir():
                blessing.warmup_file.parent.rmdir()
        properties: dict[str, Any] = {
            "component_id": self.name,
            "current_model": self.model.uri,
            "has_model": 0,
            "model_digest": digest,
            "depends_on_machine": int(checked.depends_on_machine),
            "peak_memory_gib": round(checked.peak_memory_bytes / (1 << 30), 3),
        }
        if self.model.id is not None:
            properties["current_model_id"] = self.model.id
        if checked.load_seconds is not None:
            properties["load_seconds"] = round(checked.load_seconds, 3)
            properties["tensorflow"] = checked.tensorflow
            properties["signatures"] = list(checked.signatures)
        for name, called in checked.called.items():
            for key in _MEASURED:
                if key in called:
                    properties[f"{name}.{key}"] = round(called[key], 3)
        if checked.warmup_records is not None:
            properties["warmup_records"] = checked.warmup_records
        blessing.properties.update(properties)
        against = len(checked.failures) + len(checked.untold)
        blessing.set_reasons(checked.reasons, against=0 if is_blessed else against)
        blessing.decide(word, blessed=is_blessed)
        # What is measured is in the properties: the same model gives the same bytes.
        report = {
            "verdict": word,
            "blessed": is_blessed,
            "reasons": list(checked.reasons),
            "model_digest": digest,
            "signatures": list(checked.signatures),
            "called": {
                name: {key: each[key] for key in each if key not in _MEASURED}
                for name, each in checked.called.items()
            },
            "parity": checked.parity,
            "warmup_records": checked.warmup_records,
            "tensorflow": checked.tensorflow,
        }
        text = json.dumps(report, indent=1, sort_keys=True) + "\n"
        (blessing.path / REPORT_FILE).write_text(text, encoding="utf-8")


def _environments(schema: Any) -> set[str]:
    """Return every environment that a schema names."""
    return {
        *schema.default_environment,
        *(name for each in schema.feature for name in each.in_environment),
        *(name for each in schema.feature for name in each.not_in_environment),
    }


def _is_expected(feature: Any, schema: Any, environment: str) -> bool:
    """Return whether a schema expects a feature in an environment, as TFDV does.

    One that says nothing is in all of them where the schema has no default ones.
    """
    if environment in feature.not_in_environment:
        return False
    if environment in feature.in_environment:
        return True
    default = schema.default_environment
    return environment in default or not (default or feature.in_environment)
