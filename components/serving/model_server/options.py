"""How a model server is started: TensorFlow Serving's flags, and a few of our own."""

from __future__ import annotations

import os
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from penstock.components.serving.security import MAX_REQUEST_BYTES
from penstock.schemas.errors import ServingError, did_you_mean

Port = int | Literal["auto"]
"""A port; 'auto' is one that the system chooses."""


@dataclass(frozen=True)
class Options:
    """Options of a server, named and set as TensorFlow Serving's flags are.

    What TensorFlow Serving does not have stands first, and what differs there: it
    listens on all addresses, and takes `--port=0` for no gRPC at all.

    Attributes:
        host: Address to listen on.
        port_file: File that is written once the server answers: JSON with its ports.
        control_port: Port of its own for ModelService; then configs can be changed
            there only. 0 has none.
        control_token_file: File with the token that requests to that port must carry.
        max_request_bytes: The largest request that is taken.
        fault_file: File with faults on purpose.
        drain_seconds: How long to wait, when stopped, for requests under way.
        exit_with_stdin: End when the standard input ends, so as not to outlive a test.
        port: gRPC port; 0 and 'auto' let the system choose one.
        grpc_socket_path: UNIX socket to listen on as well.
        rest_api_port: REST port; 0 has no REST.
        rest_api_num_threads: REST requests that run at once.
        rest_api_timeout_in_ms: Time after which a REST request fails.
        rest_api_enable_cors_support: Let pages from anywhere ask over REST.
        model_name: Name of the only model.
        model_base_path: Its serving directory.
        model_config_file: Config of several models instead, in text form.
        model_config_file_poll_wait_seconds: Time between two reads of that file; 0
            reads it once.
        file_system_poll_wait_seconds: Time between two looks at serving directories; 0
            looks once. May be a fraction here.
        num_load_threads: Threads that load; 0 loads in the manager's own thread.
        num_unload_threads: Threads that unload; 0 unloads in the manager's own.
        max_num_load_retries: How often a failed load is tried again.
        load_retry_interval_micros: Time before each retry.
        allow_version_labels_for_unavailable_models: A label that is not in use may be
            given to a version that is not loaded.
        enable_model_warmup: Replay the warm-up file of each version.
        num_request_iterations_for_warmup: How often each of its records runs.
        monitoring_config_file: MonitoringConfig in text form, which turns metrics on.
        ssl_config_file: SSLConfig in text form, which turns TLS on.
        grpc_channel_arguments: Arguments of gRPC, as 'a=1,b=2'.
        grpc_max_threads: gRPC requests that run at once.
        enable_grpc_healthcheck_service: Have the standard health service.
        saved_model_tags: Tags of the meta graph to load, with commas.
        tensorflow_session_parallelism: Threads within and between operations; 0 lets
            TensorFlow choose.
        enable_signature_method_name_check: Refuse signatures of another method.
        enable_serialization_as_tensor_content: Answer numbers as bytes.
        flush_filesystem_caches: Nothing: Python reads a model once.
    """

    host: str = "127.0.0.1"
    port_file: str = ""
    control_port: Port = 0
    control_token_file: str = ""
    max_request_bytes: int = MAX_REQUEST_BYTES
    fault_file: str = ""
    drain_seconds: float = 60.0
    exit_with_stdin: bool = False

    port: Port = 8500
    grpc_socket_path: str = ""
    rest_api_port: Port = 0
    rest_api_num_threads: int = 4 * (os.cpu_count() or 1)
    rest_api_timeout_in_ms: int = 30_000
    rest_api_enable_cors_support: bool = False
    model_name: str = "default"
    model_base_path: str = ""
    model_config_file: str = ""
    model_config_file_poll_wait_seconds: float = 0
    file_system_poll_wait_seconds: float = 1
    num_load_threads: int = 0
    num_unload_threads: int = 0
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    allow_version_labels_for_unavailable_models: bool = False
    enable_model_warmup: bool = True
    num_request_iterations_for_warmup: int = 0
    monitoring_config_file: str = ""
    ssl_config_file: str = ""
    grpc_channel_arguments: str = ""
    grpc_max_threads: int = max(16, 4 * (os.cpu_count() or 1))
    enable_grpc_healthcheck_service: bool = False
    saved_model_tags: str = "serve"
    tensorflow_session_parallelism: int = 0
    enable_signature_method_name_check: bool = False
    enable_serialization_as_tensor_content: bool = False
    flush_filesystem_caches: bool = True


@dataclass(frozen=True)
class Ports:
    """Where a server answers.

    Attributes:
        address: Its gRPC address, 'host:port'.
        control_address: Where configs are changed; the same unless they have a port of
            their own.
        rest_url: Its REST address, 'http://host:port'; None without REST.
    """

    address: str
    control_address: str
    rest_url: str | None


# Flags of the real server that change speed, memory or diagnosis, not answers.
_WITHOUT_EFFECT = frozenset(
    {
        "batching_parameters_file",
        "enable_batching",
        "enable_per_model_batching_parameters",
        "enable_profiler",
        "mixed_precision",
        "num_tflite_interpreters_per_pool",
        "num_tflite_pools",
        "per_process_gpu_memory_fraction",
        "remove_unused_fields_from_bundle_metagraph",
        "skip_initialize_tpu",
        "tensorflow_inter_op_parallelism",
        "tensorflow_intra_op_parallelism",
        "tensorflow_session_config_file",
        "thread_pool_factory_config_file",
        "xla_cpu_compilation_enabled",
        "xla_gpu_compilation_enabled",
    }
)
# Those that do, and what somebody who sets them has to know.
_REFUSED = {
    "platform_config_file": "it serves TensorFlow's platform only",
    "prefer_tflite_model": "it does not run TensorFlow Lite",
    "use_alts_credentials": "it has TLS, by --ssl_config_file, and no ALTS",
}


def parse_flags(arguments: Sequence[str]) -> tuple[Options, tuple[str, ...]]:
    """Read a command line as TensorFlow Serving's binary reads it.

    Returns:
        The options, and the names of flags that have no effect here.

    Raises:
        ServingError: A flag is unknown, or its value is none.
    """
    kinds = typing.get_type_hints(Options)
    known = {*kinds, *_WITHOUT_EFFECT, *_REFUSED}
    found: dict[str, Any] = {}
    idle = []
    for argument in arguments:
        name, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not name:
            raise ServingError(
                f"'{argument}' is no flag of the model server. Write flags as "
                "'--name=value'."
            )
        if name not in known:
            raise ServingError(
                f"The model server has no flag '--{name}'."
                f"{did_you_mean(name, known)} '--help' lists them."
            )
        if name in _REFUSED:
            raise ServingError(
                f"The Python model server cannot follow '--{name}': {_REFUSED[name]}. "
                "Leave it out, or start tensorflow_model_server."
            )
        if name in _WITHOUT_EFFECT:
            idle.append(name)
            continue
        if not equals and kinds[name] is not bool:
            raise ServingError(
                f"Flag '--{name}' has no value. Write '--{name}=<value>'."
            )
        found[name] = _parsed(name, value if equals else "true", kinds[name])
    return Options(**found), tuple(idle)


def _parsed(name: str, text: str, kind: Any) -> Any:
    legal: dict[Any, tuple[Any, str]] = {
        bool: ({"true": True, "false": False}.__getitem__, "true or false"),
        int: (int, "an integer"),
        float: (float, "a number"),
        str: (str, "a text"),
    }
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        if text == "auto":
            return text
        kind = int
        noun = "a port, or 'auto'"
    else:
        noun = legal[kind][1]
    try:
        return legal[kind][0](text)
    except (KeyError, ValueError):
        raise ServingError(
            f"Flag '--{name}' is '{text}', where {noun} is needed."
        ) from None


def flags(options: Options) -> list[str]:
    """Return the command line that gives these options."""
    default = Options()
    return [
        f"--{entry.name}={_written(value)}"
        for entry in fields(options)
        if (value := getattr(options, entry.name)) != getattr(default, entry.name)
    ]


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def usage() -> str:
    """Return what '--help' prints: every flag, its default and its meaning."""
    meanings = _meanings((Options.__doc__ or "").splitlines())
    default = Options()
    lines = ["Flags of the model server, as '--name=value':"]
    for entry in fields(Options):
        value = _written(getattr(default, entry.name))
        lines.append(f"  --{entry.name}={value}\n      {meanings[entry.name]}")
    lines.append(
        "Taken without effect: " + ", ".join(f"--{n}" for n in sorted(_WITHOUT_EFFECT))
    )
    return "\n".join(lines)


def _meanings(lines: Iterable[str]) -> dict[str, str]:
    names = {entry.name for entry in fields(Options)}
    found: dict[str, str] = {}
    current = ""
    for line in lines:
        name, colon, text = line.strip().partition(": ")
        if colon and name in names:
            current = name
            found[name] = text
        elif current and line.strip():
            found[current] += f" {line.strip()}"
    return found
