"""The router, as a library call: one request, one version, one answer.

A unit is answered by the version that its place and the weight say (see `assignment`).
What the candidate fails is asked once more of stable, within the same deadline. The
path of a request takes no lock for longer than an assignment, and touches no file.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from penstock.components.serving.messages import (
    CLASSIFY,
    GET_MODEL_METADATA,
    GET_MODEL_STATUS,
    MULTI_INFERENCE,
    PREDICT,
    REGRESS,
    GetModelMetadataRequest,
    GetModelStatusRequest,
    Message,
    Method,
    SignatureDefMap,
    State,
    to_tensor,
)
from penstock.components.serving.router.answers import (
    MAX_UNIT_LENGTH,
    Answer,
    Call,
    NoStable,
    NotRouted,
    check_deadline,
    check_outcome,
    serialized,
)
from penstock.components.serving.router.assignment import place
from penstock.components.serving.router.lanes import LaneError, Lanes
from penstock.components.serving.router.metrics import Gauges, Shelf, exposition
from penstock.components.serving.router.notes import Note, Outcome
from penstock.components.serving.router.reports import REPORT_SECONDS, Reporter
from penstock.components.serving.router.request_log import Exchange, RequestLog
from penstock.components.serving.router.shadow import Copy, Shadow, Summary
from penstock.components.serving.router.watch import POLL_SECONDS, Snapshot, Watch
from penstock.components.serving.routing import Routing
from penstock.components.serving.security import MAX_REQUEST_BYTES, Tls
from penstock.components.serving.server_config import Layout
from penstock.components.serving.traffic import Arm
from penstock.schemas.errors import DataError, ServingError, quoted


class Router:
    """Sends requests for one model to the versions of it that are routed.

    It may be used by any number of threads. After a fork it is of no use to the child.

    Args:
        serving_dir: The serving directory, whose ledger says where requests go.
        model: Name of the model in the server.
        address: 'host:port', '[::1]:port' or 'unix:/path' of the server's gRPC side.
        layout: What tells versions apart there: 'names', one served name for each
            (`<model>__v<version>`), or 'labels', version numbers under one name.
        tls: How the connection is secured; None for plain text.
        deadline_seconds: How long a request may take in all.
        fallback: Whether stable is asked what the candidate failed.
        candidate_share: The share of the deadline after which stable is asked.
        request_log: Where a sample of the requests is logged; closed with the router.
        max_bytes: The largest request and answer.
        absolute: Outputs in shadow that are at most so far apart are equal.
        relative: And so are those that are within this share of stable's.
        shadow_threads: Copies shown to a candidate in shadow at a time.
        shadow_capacity: Copies that wait for that.
        poll_seconds: How often the ledger is looked at.
        report_seconds: How often something new is reported.
        shelf: Where to share what is counted with other processes of one service.
        name: Its name in reports, which no other may have; made up if None.

    Raises:
        ServingError: If the serving directory, the address or a file of `tls` is not
            right.
    """

    def __init__(
        self,
        serving_dir: Path | str,
        model: str,
        *,
        address: str,
        layout: Layout = "names",
        tls: Tls | None = None,
        deadline_seconds: float = 1.0,
        fallback: bool = True,
        candidate_share: float = 0.5,
        request_log: RequestLog | None = None,
        max_bytes: int = MAX_REQUEST_BYTES,
        absolute: float = 1e-6,
        relative: float = 1e-4,
        shadow_threads: int = 2,
        shadow_capacity: int = 64,
        poll_seconds: float = POLL_SECONDS,
        report_seconds: float = REPORT_SECONDS,
        shelf: Shelf | None = None,
        name: str | None = None,
    ) -> None:
        check_deadline(deadline_seconds)
        if not 0 < candidate_share <= 1:
            raise ServingError(
                f"The candidate is given {candidate_share:g} of the deadline, which is "
                "no share. Pass a number above 0 and at most 1."
            )
        self.model = model
        self.name = name or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"
        self._deadline_seconds = deadline_seconds
        self._fallback = fallback
        self._candidate_share = candidate_share if fallback else 1.0
        self._request_log = request_log
        self._lanes = Lanes(address, model, layout=layout, tls=tls, max_bytes=max_bytes)
        self._watch = Watch(serving_dir, poll_seconds=poll_seconds)
        self._reporter = Reporter(
            serving_dir,
            self.name,
            lambda: self._watch.snapshot,
            report_seconds=report_seconds,
            shelf=shelf,
        )
        self._watch.changed = self._reporter.wake
        self._shadow = Shadow(
            self._lanes,
            lambda: self._watch.snapshot,
            deadline_seconds=deadline_seconds,
            absolute=absolute,
            relative=relative,
            capacity=shadow_capacity,
            threads=shadow_threads,
            ended=self._reporter.shadowed,
            event=lambda what: self._reporter.event("penstock_shadow", what),
        )
        self._signatures: dict[int, dict[str, Message]] = {}
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Report what is left and end all threads; requests must have ended."""
        if self._closed:
            return
        self._closed = True
        self._shadow.close()
        self._watch.close()
        self._reporter.close()
        if self._request_log is not None:
            self._request_log.close()
        self._lanes.close()

    # --- requests

    def predict(
        self,
        inputs: Mapping[str, npt.ArrayLike] | Message | bytes,
        unit: str | None = None,
        *,
        signature: str = "",
        outputs: Sequence[str] = (),
        **how: Any,
    ) -> Answer:
        """Predict.

        Args:
            inputs: Arrays by the names of the signature's inputs, or a PredictRequest,
                as a message or serialized.
            unit: Id of the unit, such as a user; without one stable answers.
            signature: Name of the signature; the model's default if empty.
            outputs: Names of the outputs wanted; all if empty.
            **how: As for `call`.

        Raises:
            DataError: If the inputs cannot be sent.
            LaneError: If no version answered.
            NoStable: If there is none to ask.
            NotRouted: If the named version is not routed.
        """
        if isinstance(inputs, Mapping):
            request = PREDICT.request()
            request.model_spec.signature_name = signature
            request.output_filter.extend(outputs)
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(to_tensor(np.asarray(value)))
            return self.call(PREDICT, request, unit, **how)
        return self.call(PREDICT, inputs, unit, **how)

    def classify(
        self, request: Message | bytes, unit: str | None = None, **how: Any
    ) -> Answer:
        """Classify Examples; all is as for `call`."""
        return self.call(CLASSIFY, request, unit, **how)

    def regress(
        self, request: Message | bytes, unit: str | None = None, **how: Any
    ) -> Answer:
        """Regress Examples; all is as for `call`."""
        return self.call(REGRESS, request, unit, **how)

    def multi_inference(
        self, request: Message | bytes, unit: str | None = None, **how: Any
    ) -> Answer:
        """Classify and regress the same Examples; all is as for `call`."""
        return self.call(MULTI_INFERENCE, request, unit, **how)

    def call(
        self,
        method: Method[Any, Any],
        request: Message | bytes,
        unit: str | None = None,
        *,
        version: int | None = None,
        deadline_seconds: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request to one version.

        Args:
            method: The call, such as `messages.PREDICT`.
            request: A message or a serialized one; what it says of the model and the
                version is replaced.
            unit: Id of the unit, such as a user; without one stable answers.
            version: A routed version that has to answer, whatever the unit. There is
                no fallback, and the request is no evidence.
            deadline_seconds: How long it may take; that of the router if None.
            headers: Headers of the request in lower case, for the strata of its log.

        Raises:
            DataError: If the request is no such message.
            LaneError: If no version answered. It is the candidate's error if stable
                could not answer in its place either.
            NoStable: If there is none to ask.
            NotRouted: If the named version is not routed.
        """
        began = time.monotonic()
        if deadline_seconds is None:
            deadline_seconds = self._deadline_seconds
        else:
            check_deadline(deadline_seconds)
        if unit is not None and not isinstance(unit, str):
            raise DataError(
                f"The id of a unit is {unit!r} ({type(unit).__name__}), which is no "
                "text. Pass str(...) of it."
            )
        if unit is not None and len(unit) > MAX_UNIT_LENGTH:
            raise DataError(
                f"The id of a unit has {len(unit):,} characters where "
                f"{MAX_UNIT_LENGTH:,} are the most. Send a shorter one, such as a hash."
            )
        call = Call(
            method,
            serialized(method, request),
            unit,
            headers,
            began,
            began + deadline_seconds,
            began + deadline_seconds * self._candidate_share,
        )
        # The last moment before it is sent: whatever was decided before this counts.
        snapshot = self._watch.snapshot
        routing = snapshot.routing
        stable = self._stable_of(routing)
        if version is not None:
            return self._ask_named(call, snapshot, version)
        if (
            unit is not None
            and snapshot.end
            and place(routing.salt, unit) < snapshot.end
        ):
            return self._ask_candidate(call, snapshot)
        return self._ask_stable(call, snapshot, stable)

    def record(self, unit: str, metric: str, value: float) -> None:
        """Take in a value of a business metric of a unit, such as a click.

        Values of one unit add up. It counts for the rollout that runs, if there is one
        and the unit was seen in it.

        Raises:
            DataError: If it is no value of a metric.
        """
        self.record_all([(unit, metric, value)])

    def record_all(self, outcomes: Sequence[tuple[str, str, float]]) -> None:
        """Take in values of business metrics: unit, metric and value of each.

        Raises:
            DataError: If one is no value of a metric; none was taken in then.
        """
        for unit, metric, value in outcomes:
            check_outcome(unit, metric, value)
        rollout = self._watch.snapshot.routing.rollout
        if rollout is not None:
            for unit, metric, value in outcomes:
                self._reporter.value(rollout, unit, metric, float(value))

    # --- what is known

    @property
    def routing(self) -> Routing:
        """The routing that it obeys."""
        return self._watch.snapshot.routing

    @property
    def alarm(self) -> str:
        """Why nobody is sent to a candidate that has a weight; empty if all is well."""
        return self._watch.snapshot.alarm

    def routed(self) -> dict[int, Arm]:
        """Return the versions that requests are sent to now, and in which arm."""
        snapshot = self._watch.snapshot
        found: dict[int, Arm] = {}
        if snapshot.end and snapshot.routing.candidate is not None:
            found[snapshot.routing.candidate] = "candidate"
        if snapshot.routing.stable is not None:
            found[snapshot.routing.stable] = "stable"
        return found

    def asked(self, version: int | None = None) -> int:
        """Return the version whose signatures a request has to fit.

        Args:
            version: The version that it names; None for none.

        Raises:
            NoStable: If there is none to ask.
            NotRouted: If the named version is not routed.
        """
        stable = self._stable_of(self._watch.snapshot.routing)
        if version is None:
            return stable
        self._arm_of(version)
        return version

    def shadow_summary(self) -> Summary:
        """Return what was compared in the last rollout that had a shadow."""
        return self._shadow.summary()

    def metrics(self) -> bytes:
        """Return the metrics as Prometheus reads them (`metrics.CONTENT_TYPE`)."""
        counts = self._reporter.counts()
        if self._shadow.dropped:
            counts.events["penstock_shadow", "dropped"] += self._shadow.dropped
        if self._request_log is not None:
            for end, n in self._request_log.ends.items():
                counts.events["penstock_request_log", end] += n
        snapshot = self._watch.snapshot
        gauges = Gauges(
            0.0 if snapshot.alarm else snapshot.routing.weight,
            snapshot.routing.step,
            bool(snapshot.alarm),
            not self._watch.trouble,
        )
        return exposition(self.model, counts, gauges)

    def status(self, version: int) -> tuple[State, str]:
        """Return what the server says of a version, and why it failed if it did.

        Raises:
            LaneError: If it does not answer.
        """
        request = GetModelStatusRequest().SerializeToString()
        said = GET_MODEL_STATUS.response.FromString(
            self._lanes.call(GET_MODEL_STATUS, request, version, self._deadline_seconds)
        )
        for each in said.model_version_status:
            if each.version == version:
                return State(each.state), each.status.error_message
        return State.UNKNOWN, ""

    def signatures(self, version: int) -> Mapping[str, Message]:
        """Return the SignatureDefs of a version by name; asked of the server once.

        Raises:
            LaneError: If it does not answer.
        """
        found = self._signatures.get(version)
        if found is None:
            request = GetModelMetadataRequest(metadata_field=["signature_def"])
            said = GET_MODEL_METADATA.response.FromString(
                self._lanes.call(
                    GET_MODEL_METADATA,
                    request.SerializeToString(),
                    version,
                    self._deadline_seconds,
                )
            )
            signatures = SignatureDefMap.FromString(
                said.metadata["signature_def"].value
            )
            found = dict(signatures.signature_def)
            if len(self._signatures) >= 64:
                self._signatures.clear()
            self._signatures[version] = found
        return found

    # --- the path of a request

    def _ask_stable(self, call: Call, snapshot: Snapshot, version: int) -> Answer:
        sent = time.monotonic()
        try:
            response = self._lanes.call(
                call.method, call.request, version, call.end - sent
            )
        except LaneError as error:
            seconds = time.monotonic() - sent
            client = error.origin == "client"
            self._note(
                call,
                snapshot,
                "stable",
                version,
                "client_error" if client else "failed",
                seconds,
                error,
                late=not client and sent + seconds > call.candidate_end,
                counts=not error.is_missing,
            )
            if not client:
                self._shadowed(call, snapshot, None, seconds)
                self._logged(call, None, version, f"failed {error.code}")
            raise
        now = time.monotonic()
        self._watch.stable_answered()
        self._note(
            call,
            snapshot,
            "stable",
            version,
            "ok",
            now - sent,
            late=now > call.candidate_end,
        )
        self._shadowed(call, snapshot, response, now - sent)
        self._logged(call, response, version, "stable")
        return Answer(version, "stable", False, now - call.began, call.method, response)

    def _ask_candidate(self, call: Call, snapshot: Snapshot) -> Answer:
        version = snapshot.routing.candidate
        assert version is not None
        sent = time.monotonic()
        try:
            response = self._lanes.call(
                call.method, call.request, version, call.candidate_end - sent
            )
        except LaneError as error:
            seconds = time.monotonic() - sent
            return self._fall_back(call, snapshot, version, seconds, error)
        now = time.monotonic()
        self._watch.candidate_answered()
        self._note(call, snapshot, "candidate", version, "ok", now - sent)
        self._logged(call, response, version, "candidate")
        return Answer(
            version, "candidate", False, now - call.began, call.method, response
        )

    def _fall_back(
        self,
        call: Call,
        snapshot: Snapshot,
        version: int,
        seconds: float,
        error: LaneError,
    ) -> Answer:
        """Ask stable what the candidate failed; it also tells whose fault that was.

        Where stable answers, the caller is not to blame, whatever the candidate calls
        the error. Where stable blames the caller, the candidate is not to blame.
        """
        response: bytes | None = None
        second: LaneError | None = None
        stable = self._watch.snapshot.routing.stable
        left = call.end - time.monotonic()
        if self._fallback and stable not in (None, version) and left > 0:
            assert stable is not None
            try:
                response = self._lanes.call(call.method, call.request, stable, left)
            except LaneError as raised:
                second = raised
        blamed = error if second is None else second
        outcome: Outcome = "failed"
        if response is not None:
            outcome = "fell_back"
            error.origin = "server"
            self._watch.stable_answered()
        elif "client" in (error.origin, blamed.origin):
            outcome = "client_error"
        if outcome == "client_error":
            surfaced = blamed if blamed.origin == "client" else error
            self._note(call, snapshot, "candidate", version, outcome, seconds, surfaced)
            if surfaced is error:
                raise error
            raise surfaced from error
        if error.is_missing:
            self._watch.candidate_missing(snapshot.routing)
        elif call.unit is not None:
            self._watch.candidate_failed(snapshot.routing, call.unit)
        self._note(
            call,
            snapshot,
            "candidate",
            version,
            outcome,
            seconds,
            error,
            counts=not error.is_missing,
        )
        if response is None or stable is None:
            self._logged(call, None, version, f"failed {error.code}")
            raise error
        self._logged(call, response, stable, f"fallback {version} {error.code}")
        return Answer(
            stable,
            "stable",
            True,
            time.monotonic() - call.began,
            call.method,
            response,
        )

    def _ask_named(self, call: Call, snapshot: Snapshot, version: int) -> Answer:
        arm = self._arm_of(version)
        sent = time.monotonic()
        try:
            response = self._lanes.call(
                call.method, call.request, version, call.end - sent
            )
        except LaneError as error:
            outcome: Outcome = "client_error" if error.origin == "client" else "failed"
            seconds = time.monotonic() - sent
            self._note(
                call, snapshot, arm, version, outcome, seconds, error, counts=False
            )
            raise
        now = time.monotonic()
        self._note(call, snapshot, arm, version, "ok", now - sent, counts=False)
        self._logged(call, response, version, arm)
        return Answer(version, arm, False, now - call.began, call.method, response)

    def _stable_of(self, routing: Routing) -> int:
        if routing.stable is None:
            raise NoStable(
                f"No version of '{self.model}' is routed, so nobody can be answered. "
                "Roll one out with 'penstock rollout start'."
            )
        return routing.stable

    def _arm_of(self, version: int) -> Arm:
        routed = self.routed()
        if version not in routed:
            raise NotRouted(
                f"Version {version} of '{self.model}' gets no requests: those that do "
                f"are {quoted(map(str, routed))}. Leave the version out, and the "
                "rollout decides."
            )
        return routed[version]

    # --- what a request leaves behind

    def _note(
        self,
        call: Call,
        snapshot: Snapshot,
        arm: Arm,
        version: int,
        outcome: Outcome,
        seconds: float,
        error: LaneError | None = None,
        *,
        late: bool = False,
        counts: bool = True,
    ) -> None:
        self._reporter.note(
            Note(
                snapshot.routing,
                counts and call.unit is not None and snapshot.assigns,
                arm,
                version,
                call.unit if counts else None,
                outcome,
                seconds,
                late,
                "" if error is None else error.code,
                "server" if error is None else error.origin,
            )
        )

    def _shadowed(
        self,
        call: Call,
        snapshot: Snapshot,
        response: bytes | None,
        seconds: float,
    ) -> None:
        routing = snapshot.routing
        if routing.shadow and routing.candidate is not None and routing.rollout:
            self._shadow.offer(
                Copy(
                    call.method,
                    call.request,
                    response,
                    seconds,
                    routing.rollout,
                    routing.candidate,
                )
            )

    def _logged(
        self, call: Call, response: bytes | None, version: int, lane: str
    ) -> None:
        if self._request_log is not None:
            self._request_log.add(
                Exchange(
                    call.method,
                    call.request,
                    response,
                    version,
                    lane,
                    call.unit,
                    call.headers,
                )
            )
