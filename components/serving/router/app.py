"""The router as an ASGI application that speaks TensorFlow Serving's REST API.

`POST /v1/models/M:predict` is answered by the version that the routing says. What a
path names, `/versions/N`, `/labels/stable` or `/labels/canary`, is obeyed only as far
as that version is routed: a caller can pin itself to a version that gets requests
anyway, and reaches no other. Nothing here controls anything.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from penstock.components.serving.messages import PREDICT
from penstock.components.serving.router import metrics, rest_json
from penstock.components.serving.router.answers import NoStable, NotRouted
from penstock.components.serving.router.lanes import LaneError
from penstock.components.serving.router.router import Router
from penstock.components.serving.security import MAX_REQUEST_BYTES
from penstock.components.serving.server_config import CANARY_LABEL, STABLE_LABEL
from penstock.schemas.errors import PenstockError, ServingError, did_you_mean, quoted

UNIT_HEADER = "X-Unit-Id"
VERSION_HEADER = "X-Penstock-Version"
LANE_HEADER = "X-Penstock-Lane"
FALLBACK_HEADER = "X-Penstock-Fallback"

THREADS = 32
"""Requests that are under way at once."""

WAITING = 4
"""So many times as many are taken; those beyond are told to come later."""

_WHICH = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_PREDICT = re.compile(rf"/v1/models/(?P<model>[^/:]+){_WHICH}:predict")
_STATUS = re.compile(rf"/v1/models/(?P<model>[^/:]+){_WHICH}")

# As TensorFlow Serving maps them.
_HTTP = {
    "CANCELLED": 499,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "UNAUTHENTICATED": 401,
}

_log = logging.getLogger(__name__)


class Rejected(PenstockError):
    """A request that is answered with a status and a sentence.

    Attributes:
        status: The HTTP status.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class App:
    """An ASGI application in front of a router.

    Args:
        router: The router; closed when the application ends.
        unit_header: The header that holds the id of the unit.
        max_bytes: The largest body that is taken, unpacked.
        threads: Requests that are under way at once.
    """

    def __init__(
        self,
        router: Router,
        *,
        unit_header: str = UNIT_HEADER,
        max_bytes: int = MAX_REQUEST_BYTES,
        threads: int = THREADS,
    ) -> None:
        self._router = router
        self._unit_header = unit_header.lower().encode("latin-1")
        self._max_bytes = max_bytes
        self._threads = threads
        self._running = 0
        self._pool = ThreadPoolExecutor(threads, "penstock-rest")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, or begin and end, as ASGI asks."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] != "http":
            return
        try:
            response = await self._answer(Request(scope, receive))
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    def close(self) -> None:
        """Wait for what is under way, and close the router."""
        self._pool.shutdown(wait=True)
        self._router.close()

    async def _live(self, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                # Closing reports what is left, which may wait for a disk.
                await asyncio.get_running_loop().run_in_executor(None, self.close)
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _answer(self, request: Request) -> Response:
        loop = asyncio.get_running_loop()
        try:
            act = self._act(request)
            body = await self._body(request)
            if act in (self._metrics, self._health):
                # Whoever watches is answered however busy it is.
                return await loop.run_in_executor(None, act, body)
            if self._running >= self._threads * (1 + WAITING):
                raise Rejected(
                    503,
                    f"{self._running} requests are under way, which is all that this "
                    "router takes at once. Send it again later, or run more workers.",
                )
            self._running += 1
            try:
                return await loop.run_in_executor(self._pool, act, body)
            finally:
                self._running -= 1
        except ClientDisconnect:
            raise
        except PenstockError as error:
            return _refusal(error)
        except Exception:
            _log.exception("A request could not be answered.")
            return _json(
                {
                    "error": "The router failed, which is a defect of penstock. Report "
                    "it with the lines of its log."
                },
                500,
            )

    def _act(self, request: Request) -> Callable[[bytes], Response]:
        """Return what answers a request, given its body."""
        method = request.method
        # Not decoded before it is taken apart: an encoded slash is no slash.
        path = request.scope.get("raw_path", b"").decode("latin-1").partition("?")[0]
        acts: Mapping[str, tuple[str, Callable[[bytes], Response]]] = {
            "/metrics": ("GET", self._metrics),
            "/healthz": ("GET", self._health),
            "/v1/outcomes": ("POST", self._outcomes),
        }
        found = acts.get(path)
        if match := _PREDICT.fullmatch(path):
            found = "POST", self._prediction(match, request)
        elif match := _STATUS.fullmatch(path):
            found = "GET", self._status(match)
        if found is None:
            raise Rejected(
                404,
                f"There is nothing at '{path}'. Send predictions to "
                f"'/v1/models/{self._router.model}:predict'.",
            )
        if method not in (found[0], *(["HEAD"] if found[0] == "GET" else [])):
            raise Rejected(
                405, f"'{path}' was sent {method} and takes {found[0]}. Use that."
            )
        return found[1]

    async def _body(self, request: Request) -> bytes:
        limit = self._max_bytes
        declared = request.headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared) > limit:
            raise self._too_large()
        chunks = []
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise self._too_large()
            chunks.append(chunk)
        body = b"".join(chunks)
        encoding = request.headers.get("content-encoding", "identity").lower()
        if encoding == "identity":
            return body
        if encoding != "gzip":
            raise Rejected(
                400,
                f"The body is encoded as '{encoding}'. Send it as it is, or as 'gzip'.",
            )
        return self._unpacked(body)

    def _unpacked(self, body: bytes) -> bytes:
        unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            found = unpack.decompress(body, self._max_bytes + 1)
        except zlib.error as error:
            raise Rejected(
                400, f"The body is said to be gzip and is none: {error}. Pack it anew."
            ) from error
        if len(found) > self._max_bytes:
            raise self._too_large()
        if not unpack.eof:
            raise Rejected(
                400, "The body is gzip that ends too early. Send the whole of it."
            )
        return found

    def _too_large(self) -> Rejected:
        return Rejected(
            413,
            f"The body is larger than {self._max_bytes:,} bytes. Send less at once, or "
            "raise --max-request-bytes.",
        )

    # --- what it answers

    def _prediction(
        self, match: re.Match[str], request: Request
    ) -> Callable[[bytes], Response]:
        version = self._named(match)
        headers = {
            name.decode("latin-1"): value.decode("utf-8", "replace")
            for name, value in request.headers.raw
        }
        raw = [
            value for name, value in request.headers.raw if name == self._unit_header
        ]
        unit = raw[0].decode("utf-8", "surrogateescape").strip() if raw else ""

        def act(body: bytes) -> Response:
            document = rest_json.parse(body)
            signatures = self._router.signatures(self._router.asked(version))
            name = rest_json.signature_name(document, sorted(signatures))
            sent, rows = rest_json.request_of(document, name, signatures[name].inputs)
            answer = self._router.call(
                PREDICT, sent, unit or None, version=version, headers=headers
            )
            said = rest_json.answer_of(answer.message.outputs, rows=rows)
            return _json(
                said,
                200,
                {
                    VERSION_HEADER: str(answer.version),
                    LANE_HEADER: answer.arm,
                    **({FALLBACK_HEADER: "true"} if answer.fell_back else {}),
                },
            )

        return act

    def _named(self, match: re.Match[str]) -> int | None:
        """Return the version that a path names, if it does and that is routed."""
        model = unquote(match["model"])
        if model != self._router.model:
            raise Rejected(
                404,
                f"There is no model '{model}' here (there is '{self._router.model}')."
                f"{did_you_mean(model, [self._router.model])}",
            )
        if match["version"]:
            if len(match["version"]) > 19:
                raise Rejected(
                    404, f"{match['version'][:30]} is no version. Leave it out."
                )
            return int(match["version"])
        if match["label"] is None:
            return None
        label = unquote(match["label"])
        arms = {"stable": STABLE_LABEL, "candidate": CANARY_LABEL}
        labels = {arms[arm]: number for number, arm in self._router.routed().items()}
        if label not in labels:
            raise Rejected(
                404,
                f"No version of '{model}' that gets requests has the label '{label}' "
                f"(there are {quoted(labels)}). Leave the label out, and the rollout "
                "decides.",
            )
        return labels[label]

    def _status(self, match: re.Match[str]) -> Callable[[bytes], Response]:
        version = self._named(match)

        def act(_: bytes) -> Response:
            routed = self._router.routed()
            if version is not None:
                self._router.asked(version)
            found = []
            for each in sorted(routed, reverse=True):
                if version in (None, each):
                    state, error = self._router.status(each)
                    found.append(
                        {
                            "version": str(each),
                            "state": state.name,
                            "status": {
                                "error_code": "UNKNOWN" if error else "OK",
                                "error_message": error,
                            },
                        }
                    )
            return _json({"model_version_status": found}, 200)

        return act

    def _outcomes(self, body: bytes) -> Response:
        document = rest_json.parse(body)
        given = document.get("outcomes", [document])
        if not isinstance(given, list):
            raise Rejected(
                400, "'outcomes' is no list. Send a list of objects, or one object."
            )
        self._router.record_all([_outcome(i, each) for i, each in enumerate(given)])
        return _json({"accepted": len(given)}, 200)

    def _metrics(self, _: bytes) -> Response:
        return Response(self._router.metrics(), media_type=metrics.CONTENT_TYPE)

    def _health(self, _: bytes) -> Response:
        routing = self._router.routing
        if routing.stable is None:
            raise Rejected(
                503,
                f"No version of '{self._router.model}' is routed. Roll one out "
                "with 'penstock rollout start'.",
            )
        said = {"stable": routing.stable, "alarm": self._router.alarm}
        return _json(said, 200)


def _outcome(i: int, given: Any) -> tuple[str, str, float]:
    fields = given if isinstance(given, dict) else {}
    unit, metric = fields.get("unit"), fields.get("metric")
    value = fields.get("value")
    if (
        not (isinstance(unit, str) and unit)
        or not isinstance(metric, str)
        or type(value) not in (int, float)
    ):
        raise Rejected(
            400,
            f"Outcome {i} is no object with 'unit' and 'metric' (texts) and 'value' (a "
            "number), so none was taken. Send them anew.",
        )
    try:
        return unit, metric, float(value)  # type: ignore[arg-type]
    except OverflowError:
        return unit, metric, math.inf  # which the router refuses


def _refusal(error: PenstockError) -> Response:
    status = 400
    headers = {}
    if isinstance(error, Rejected):
        status = error.status
    elif isinstance(error, LaneError):
        status = _HTTP.get(error.code, 500)
        if error.origin == "server" and status < 500 and status != 429:
            # The caller has done nothing wrong: the version is missing or broken.
            status = 503 if error.code in ("NOT_FOUND", "FAILED_PRECONDITION") else 500
        headers[VERSION_HEADER] = str(error.version)
    elif isinstance(error, NotRouted):
        status = 404
    elif isinstance(error, NoStable):
        status = 503
    elif isinstance(error, ServingError):
        status = 500
    return _json({"error": str(error)}, status, headers)


def _json(
    content: Any, status: int, headers: Mapping[str, str] | None = None
) -> Response:
    # NaN and Infinity are written as TensorFlow Serving writes them.
    body = json.dumps(content).encode("utf-8", "replace")
    return Response(body, status, headers, "application/json")
