"""The model server as a whole: in this process, or in one of its own."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorflow_serving.config import model_server_config_pb2

from penstock.components.serving.model_server.core import (
    PLATFORM,
    CoreOptions,
    ServerCore,
    read_config,
)
from penstock.components.serving.model_server.faults import Faults
from penstock.components.serving.model_server.grpc_service import (
    Endpoint,
    GrpcServer,
    Health,
    model_handler,
    prediction_handler,
)
from penstock.components.serving.model_server.metrics import Metrics
from penstock.components.serving.model_server.options import Options, Port, Ports
from penstock.components.serving.model_server.replay import replay
from penstock.components.serving.model_server.requests import Requests
from penstock.components.serving.model_server.rest import HttpServer, RestApi
from penstock.components.serving.model_server.saved_model import servable_error
from penstock.components.serving.model_server.servable import Servable
from penstock.components.serving.model_server.text_configs import (
    read_metrics_path,
    read_ssl_config,
)
from penstock.components.serving.security import read_token
from penstock.schemas.errors import ServingError

_log = logging.getLogger(__name__)

_CONTROL_THREADS = 8
"""Enough for a status while reloads are waited for."""


class ModelServer:
    """A model server in this process: enter it to start, leave it to stop.

    ```python
    with ModelServer(model_name="m", model_base_path=str(base)) as server:
        channel = grpc.insecure_channel(server.ports.address)
    ```

    Attributes:
        options: How it was started.
        core: What it serves.
        metrics: What it counted.
        ports: Where it answers, once it is entered.
    """

    ports: Ports

    def __init__(
        self,
        options: Options | None = None,
        *,
        own_process: bool = False,
        **settings: Any,
    ) -> None:
        """Make a server that is not started yet.

        Args:
            options: How to start it.
            own_process: Whether the process is the server's, which faults may end.
            **settings: Fields of `Options`, by themselves or over `options`; ports are
                chosen by the system unless they are given.

        Raises:
            ServingError: The options contradict one another, or a file is not right.
        """
        base = options or Options(port="auto")
        self.options = dataclasses.replace(base, **settings)
        _check(self.options)
        self.metrics = Metrics()
        self._faults = Faults(
            Path(self.options.fault_file) if self.options.fault_file else None,
            may_crash=own_process,
        )
        self._config = _first_config(self.options)
        self.core = ServerCore(self._load, _core_options(self.options))
        self._requests = Requests(self.core, self.metrics, self._faults)
        self._health = Health()
        self._stopping = threading.Event()
        self._parts: list[Any] = []
        self._poller: threading.Thread | None = None

    # --- life

    def __enter__(self) -> ModelServer:
        """Load the models, then answer.

        Raises:
            ServingError: A model does not load, or a port is taken.
        """
        self.start()
        return self

    def __exit__(
        self,
        _: type[BaseException] | None,
        __: BaseException | None,
        ___: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Load the models, then answer.

        As with TensorFlow Serving, nothing is answered before every model has a
        version, and a model whose folder is missing is waited for.

        Raises:
            ServingError: A model does not load, or a port is taken.
        """
        try:
            self.core.reload(self._config)
            # Not before: a client is refused until then, not kept waiting.
            self._bind()
            for part in self._parts:
                part.start()
            if self.options.model_config_file_poll_wait_seconds > 0:
                self._poller = threading.Thread(
                    target=self._poll_config, name="model-server-config", daemon=True
                )
                self._poller.start()
            if self.options.port_file:
                _write_ports(Path(self.options.port_file), self.ports)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Take no more requests, finish those under way, and free the models."""
        self._health.drain()
        self._stopping.set()
        self.core.give_up()
        if self._poller is not None:
            self._poller.join()
        # All at once: none may go on while the others already refuse.
        threads = [
            threading.Thread(target=self._stop_part, args=(part,))
            for part in self._parts
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._parts.clear()
        self.core.stop()

    def _stop_part(self, part: Any) -> None:
        if isinstance(part, GrpcServer):
            part.stop(self.options.drain_seconds)
        else:
            part.stop()

    # --- parts

    def _bind(self) -> None:
        options = self.options
        host = f"[{options.host}]" if ":" in options.host else options.host
        addresses = [f"{host}:{_number(options.port)}"]
        if options.grpc_socket_path:
            addresses.append(f"unix:{os.path.abspath(options.grpc_socket_path)}")
        credentials = None
        if options.ssl_config_file:
            credentials = read_ssl_config(Path(options.ssl_config_file)).credentials()
        endpoint = Endpoint(
            tuple(addresses),
            credentials,
            options.grpc_max_threads,
            _channel_arguments(options),
        )
        apart = options.control_port != 0
        handlers = [
            prediction_handler(self._requests),
            model_handler(self._requests, control=not apart),
        ]
        if options.enable_grpc_healthcheck_service:
            handlers.append(self._health.handler())
        server = GrpcServer(endpoint, handlers)
        self._parts.append(server)
        address = control = f"{host}:{server.ports[0]}"
        if apart:
            token = None
            if options.control_token_file:
                token = read_token(Path(options.control_token_file))
            endpoint = dataclasses.replace(
                endpoint,
                addresses=(f"{host}:{_number(options.control_port)}",),
                threads=_CONTROL_THREADS,
            )
            server = GrpcServer(endpoint, [model_handler(self._requests, token=token)])
            self._parts.append(server)
            control = f"{host}:{server.ports[0]}"
        url = None
        if options.rest_api_port != 0:
            rest = self._rest()
            self._parts.append(rest)
            url = f"http://{host}:{rest.port}"
        self.ports = Ports(address, control, url)

    def _rest(self) -> HttpServer:
        options = self.options
        metrics_path = ""
        if options.monitoring_config_file:
            metrics_path = read_metrics_path(Path(options.monitoring_config_file))
        api = RestApi(
            self._requests,
            threads=options.rest_api_num_threads,
            timeout_seconds=options.rest_api_timeout_in_ms / 1000,
            metrics_path=metrics_path,
            max_bytes=options.max_request_bytes,
            cors=options.rest_api_enable_cors_support,
        )
        return HttpServer(api, options.host, _number(options.rest_api_port))

    def _load(self, name: str, version: int, path: Path) -> Servable:
        start = time.perf_counter()
        options = self.options
        model_path = str(path)
        try:
            fault = self._faults.at_load(name, version)
            servable = Servable(
                path,
                threads=options.tensorflow_session_parallelism or None,
                version=version,
                tags=options.saved_model_tags.split(","),
                check_method_names=options.enable_signature_method_name_check,
                as_content=options.enable_serialization_as_tensor_content,
                restore=not fault.partial,
            )
        except Exception as error:  # whatever it is, it must not end the manager
            self.metrics.load_attempts.add((model_path, "fail"))
            raise servable_error(error) from error
        self.metrics.load_attempts.add((model_path, "success"))
        micros = int((time.perf_counter() - start) * 1e6)
        self.metrics.load_latency.add((model_path,), micros)
        if options.enable_model_warmup:
            self._warm_up(servable, model_path)
        return servable

    def _warm_up(self, servable: Servable, model_path: str) -> None:
        start = time.perf_counter()
        iterations = max(self.options.num_request_iterations_for_warmup, 1)
        try:
            count = replay(servable, iterations)
        except Exception as error:
            servable.close()
            raise servable_error(error) from error
        if count:
            micros = (time.perf_counter() - start) * 1e6
            self.metrics.warmup_latency.observe((model_path, "OK"), micros)
            self.metrics.warmup_records.add((model_path, "OK"), count)

    def _poll_config(self) -> None:
        seconds = self.options.model_config_file_poll_wait_seconds
        while not self._stopping.wait(seconds):
            try:
                self.core.reload(read_config(Path(self.options.model_config_file)))
            except ServingError as error:
                # A torn or wrong file is passed over: the next one may be right.
                _log.error("PollFilesystemAndReloadConfig failed: %s", error)


def _check(options: Options) -> None:
    if not options.model_base_path and not options.model_config_file:
        raise ServingError(
            "The model server has no model. Name one with --model_base_path, or "
            "several with --model_config_file."
        )
    if options.control_token_file and options.control_port == 0:
        raise ServingError(
            "The model server has a token file but no control port to ask for the "
            "token at. Set --control_port too."
        )


def _number(port: Port) -> int:
    return 0 if port == "auto" else int(port)


def _core_options(options: Options) -> CoreOptions:
    return CoreOptions(
        file_system_poll_wait_seconds=options.file_system_poll_wait_seconds,
        num_load_threads=options.num_load_threads,
        num_unload_threads=options.num_unload_threads,
        num_initial_load_threads=4 * (os.cpu_count() or 1),
        max_num_load_retries=options.max_num_load_retries,
        load_retry_interval_seconds=options.load_retry_interval_micros / 1e6,
        allow_version_labels_for_unavailable_models=(
            options.allow_version_labels_for_unavailable_models
        ),
    )


def _first_config(options: Options) -> model_server_config_pb2.ModelServerConfig:
    if options.model_config_file:
        return read_config(Path(options.model_config_file))
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(
        name=options.model_name,
        base_path=options.model_base_path,
        model_platform=PLATFORM,
    )
    return config


def _channel_arguments(options: Options) -> tuple[tuple[str, Any], ...]:
    arguments: dict[str, Any] = {
        "grpc.max_receive_message_length": options.max_request_bytes,
        "grpc.max_send_message_length": -1,
    }
    for argument in filter(None, options.grpc_channel_arguments.split(",")):
        name, equals, value = argument.partition("=")
        if not equals:
            raise ServingError(
                f"Channel argument '{argument}' has no value. Write "
                "--grpc_channel_arguments=<name>=<value>,..."
            )
        arguments[name] = int(value) if value.lstrip("-").isdigit() else value
    return tuple(arguments.items())


def _write_ports(path: Path, ports: Ports) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(dataclasses.asdict(ports)), encoding="utf-8")
    os.replace(partial, path)
