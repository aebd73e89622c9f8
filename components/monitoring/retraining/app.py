"""The receiver as an ASGI application: Alertmanager's webhook, metrics, health.

`POST /v1/alerts` takes what a `webhook_config` of Alertmanager sends. It is answered
once the decision is on the disk; whatever happens before that is answered with a 5xx or
not at all, and Alertmanager sends it again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from penstock.components.monitoring.retraining import metrics
from penstock.components.monitoring.retraining.journal import Decision
from penstock.components.monitoring.retraining.receiver import (
    Keeper,
    Receipt,
    Receiver,
)
from penstock.components.serving.security import require_token
from penstock.schemas.errors import DataError, PenstockError, ServingError

ALERTS = "/v1/alerts"

MAX_BYTES = 1 << 20
"""The largest notification; 1,000 alerts with long labels take half of it."""

_log = logging.getLogger(__name__)


class Refused(PenstockError):
    """A request that is answered with a status and a sentence.

    Attributes:
        status: The HTTP status.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class App:
    """An ASGI application in front of a receiver.

    Attributes:
        receiver: The receiver.
        keeper: Its thread, which begins and ends with the application.
        token: The bearer token of who may send alerts; None for anybody.
        max_bytes: The largest body that is taken.
    """

    receiver: Receiver
    keeper: Keeper
    token: str | None = None
    max_bytes: int = MAX_BYTES

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, or begin and end, as ASGI asks."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        except Refused as error:
            response = _said({"error": str(error)}, error.status)
            if error.status == 401:
                response.headers["WWW-Authenticate"] = "Bearer"
        except PenstockError as error:
            # Nothing is decided; whoever sent it shall send it again.
            _log.error("A notification waits: %s", error)
            response = _said({"error": str(error)}, 503)
        except Exception:
            _log.exception("A request could not be answered.")
            response = _said(
                {
                    "error": "The receiver failed, which is a defect of penstock. "
                    "Report it with the lines of its log."
                },
                500,
            )
        await response(scope, receive, send)

    async def _live(self, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.keeper.start()
            else:
                await asyncio.get_running_loop().run_in_executor(
                    None, self.keeper.close
                )
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _answer(self, request: Request) -> Response:
        path = request.url.path
        acts: dict[str, tuple[str, Callable[[Request, bytes], Response]]] = {
            ALERTS: ("POST", self._alerts),
            "/metrics": ("GET", self._metrics),
            "/healthz": ("GET", self._health),
        }
        if path not in acts:
            raise Refused(
                404, f"There is nothing at '{path}'. Send alerts to '{ALERTS}'."
            )
        method, act = acts[path]
        if request.method not in (method, *(["HEAD"] if method == "GET" else [])):
            raise Refused(
                405, f"'{path}' was sent {request.method} and takes {method}. Use that."
            )
        body = b""
        if method == "POST":
            self._check(request)
            body = await self._body(request)
        return await asyncio.get_running_loop().run_in_executor(
            None, act, request, body
        )

    def _check(self, request: Request) -> None:
        try:
            header = request.headers.get("authorization")
            require_token(header, self.token, f"'{ALERTS}'")
        except ServingError as error:
            raise Refused(401, str(error)) from None
        # A page in somebody's browser can send text and forms here, but no JSON.
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refused(
                415,
                f"The body is said to be '{kind}'. Send it as 'application/json', as "
                "Alertmanager does.",
            )

    async def _body(self, request: Request) -> bytes:
        chunks = []
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > self.max_bytes:
                raise Refused(
                    413,
                    f"The body is larger than {self.max_bytes:,} bytes. Set "
                    "'max_alerts' in Alertmanager's 'webhook_config', or raise "
                    "--max-request-bytes.",
                )
            chunks.append(chunk)
        return b"".join(chunks)

    # --- what it answers

    def _alerts(self, _: Request, body: bytes) -> Response:
        try:
            receipt = self.receiver.receive(body)
        except DataError as error:
            raise Refused(400, str(error)) from None
        if receipt.decisions:
            self.keeper.wake()
        wrong = (*receipt.unknown, *receipt.unnamed)
        for sentence in wrong:
            _log.warning("%s", sentence)
        status = 404 if receipt.unknown else 400 if receipt.unnamed else 200
        return _said(_receipt_json(receipt), status)

    def _metrics(self, request: Request, _: bytes) -> Response:
        text, kind = metrics.exposition(
            self.receiver.journal,
            self.receiver.config,
            request.headers.get("accept", ""),
            time.time(),
        )
        return Response(text, 200, {"Content-Type": kind})

    def _health(self, _: Request, __: bytes) -> Response:
        if self.keeper.trouble:
            raise Refused(503, self.keeper.trouble)
        left = [_decision_json(each) for each in self.receiver.journal.left()]
        return _said({"going_on": left, "dry_run": self.receiver.dry_run}, 200)


def _receipt_json(receipt: Receipt) -> dict[str, Any]:
    wrong = (*receipt.unknown, *receipt.unnamed)
    return {
        "decisions": [_decision_json(each) for each in receipt.decisions],
        "ignored": list(receipt.ignored),
        **({"error": " ".join(wrong)} if wrong else {}),
    }


def _decision_json(each: Decision) -> dict[str, Any]:
    return {
        "decision": each.id,
        "model": each.model,
        "answer": each.answer.value,
        "because": each.because,
        "run": each.run_id,
        "repeat": each.is_repeat,
    }


def _said(content: Any, status: int) -> Response:
    return Response(json.dumps(content).encode(), status, media_type="application/json")
