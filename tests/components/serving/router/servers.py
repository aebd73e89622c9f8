"""A gRPC server that answers y = w * x + version, and fails as a test tells it to."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from penstock.components.serving.ledger import Lease, Ledger
from penstock.components.serving.messages import (
    CLASSIFY,
    GET_MODEL_METADATA,
    GET_MODEL_STATUS,
    MULTI_INFERENCE,
    PREDICT,
    REGRESS,
    Message,
    Method,
    SignatureDefMap,
    model_specs,
    to_array,
    to_tensor,
)
from penstock.components.serving.router.router import Router
from penstock.components.serving.routing import Routing, route

W = 2.0
MODEL = "ranker"

COMMAND = [
    sys.executable,
    "-c",
    "import typer; from penstock.commands.serving import serve; typer.run(serve)",
]
"""Runs the verb `serve` alone."""

_METHODS: tuple[Method[Any, Any], ...] = (PREDICT, CLASSIFY, REGRESS, MULTI_INFERENCE)


class Refused(Exception):
    """What a test lets a version answer."""

    def __init__(self, code: grpc.StatusCode, details: str = "it is broken") -> None:
        super().__init__(details)
        self.code = code
        self.details = details


Behavior = Callable[[Message], Message | None]
"""Changes what a version does: raises, waits, answers; None lets it answer as ever."""


@dataclass
class Server:
    """Versions behind one gRPC port.

    Attributes:
        address: Where it listens.
        behaviors: What versions do, by their number.
        asked: The versions that requests came for, in order, and when.
        requests: The requests, in the same order.
    """

    address: str = ""
    behaviors: dict[int, Behavior] = field(default_factory=dict)
    asked: list[tuple[int, float]] = field(default_factory=list)
    requests: list[Message] = field(default_factory=list)
    metadata_calls: int = 0
    outputs: tuple[str, ...] = ("y",)

    def versions(self) -> list[int]:
        return [version for version, _ in self.asked]

    def fail(
        self,
        version: int,
        code: grpc.StatusCode = grpc.StatusCode.INTERNAL,
        details: str = "it is broken",
    ) -> None:
        def refuse(_: Message) -> None:
            raise Refused(code, details)

        self.behaviors[version] = refuse

    def delay(self, version: int, seconds: float) -> None:
        def wait(_: Message) -> None:
            time.sleep(seconds)

        self.behaviors[version] = wait

    def stall(self, version: int) -> threading.Event:
        """Let a version answer nobody until the event that is returned is set."""
        go = threading.Event()

        def wait(_: Message) -> None:
            go.wait(20)

        self.behaviors[version] = wait
        return go

    # --- the calls

    def answer(self, method: Any, request: Message, context: Any) -> Message:
        specs = model_specs(request)
        name, _, number = specs[0].name.partition("__v")
        version = int(number or specs[0].version.value)
        assert name == MODEL
        assert specs[0].version.value == version
        assert specs[0].WhichOneof("version_choice") == "version"
        self.asked.append((version, time.monotonic()))
        self.requests.append(request)
        try:
            behavior = self.behaviors.get(version)
            said = None if behavior is None else behavior(request)
        except Refused as error:
            context.abort(error.code, error.details)
        if said is not None:
            return said
        response: Message = method.response()
        if method is PREDICT:
            if "x" not in request.inputs:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "input 'x' is missing")
            x = to_array(request.inputs["x"])
            for output in request.output_filter or self.outputs:
                response.outputs[output].CopyFrom(
                    to_tensor((W * x + version).astype(np.float32))
                )
            response.model_spec.version.value = version
        elif method is REGRESS:
            response.result.regressions.add().value = float(version)
        elif method is CLASSIFY:
            response.result.classifications.add().classes.add(
                label=str(version), score=1.0
            )
        else:
            response.results.add().regression_result.regressions.add().value = version
        return response

    def metadata(self, request: Message, context: Any) -> Message:
        self.metadata_calls += 1
        signatures = SignatureDefMap()
        signature = signatures.signature_def["serving_default"]
        signature.method_name = "tensorflow/serving/predict"
        x = signature.inputs["x"]
        x.name, x.dtype = "x:0", 1
        x.tensor_shape.dim.add(size=-1)
        for output in self.outputs:
            y = signature.outputs[output]
            y.name, y.dtype = "y:0", 1
            y.tensor_shape.dim.add(size=-1)
        response: Message = GET_MODEL_METADATA.response()
        response.metadata["signature_def"].Pack(signatures)
        return response

    def status(self, request: Message, context: Any) -> Message:
        response: Message = GET_MODEL_STATUS.response()
        response.model_version_status.add(
            version=request.model_spec.version.value, state=30
        )
        return response

    def handlers(self) -> dict[str, Any]:
        def of(method: Any, answer: Callable[[Message, Any], Message]) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                answer,
                request_deserializer=method.request.FromString,
                response_serializer=lambda said: said.SerializeToString(),
            )

        made = {
            method.path: of(method, partial(self.answer, method)) for method in _METHODS
        }
        made[GET_MODEL_METADATA.path] = of(GET_MODEL_METADATA, self.metadata)
        made[GET_MODEL_STATUS.path] = of(GET_MODEL_STATUS, self.status)
        return made


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, handlers: dict[str, Any]) -> None:
        self._handlers = handlers

    def service(self, details: Any) -> Any:
        return self._handlers.get(details.method)


@contextmanager
def serving(threads: int = 16, credentials: Any = None) -> Iterator[Server]:
    """Run a server while the block lasts."""
    made = Server()
    server = grpc.server(futures.ThreadPoolExecutor(threads))
    server.add_generic_rpc_handlers((_Handlers(made.handlers()),))
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    made.address = f"127.0.0.1:{port}"
    server.start()
    try:
        yield made
    finally:
        server.stop(None).wait()


class Controls:
    """Changes the routing of a serving directory, as a controller does."""

    def __init__(self, serving_dir: Path) -> None:
        self.ledger = Ledger(serving_dir)
        self.lease: Lease | None = None

    def set(self, **fields: Any) -> Routing:
        """Make a routing hold; what is not said is as in an empty one."""
        with self.ledger.writing() as transaction:
            event = transaction.event("routed")
            return route(transaction, Routing(**fields), event)

    def rollout(self, weight: float, **fields: Any) -> Routing:
        """Roll version 2 out beside version 1."""
        return self.set(
            **{
                "stable": 1,
                "candidate": 2,
                "weight": weight,
                "salt": "salt",
                "rollout": "r",
                "step": 0,
                **fields,
            }
        )


def until(holds: Callable[[], Any], seconds: float = 20) -> None:
    """Wait for something that another thread brings about."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.002)


def obeys(router: Router, routing: Routing) -> None:
    """Wait until a router knows of a routing."""
    until(lambda: router.routing.seq >= routing.seq)
