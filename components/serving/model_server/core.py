"""What a server serves: its configuration, its labels, and how one replaces another."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from penstock.components.serving.model_server.manager import (
    AspiredVersionsManager,
    Handle,
    Load,
)
from penstock.components.serving.model_server.source import FileSystemSource, Monitored
from penstock.components.serving.model_server.states import (
    Reached,
    State,
    StateMonitor,
    VersionState,
)
from penstock.components.serving.model_server.status import Code, ServableError
from penstock.schemas.errors import ServingError

PLATFORM = "tensorflow"
"""The only platform of models."""

_URI = re.compile(r"[a-zA-Z][0-9a-zA-Z.]*://")


@dataclass(frozen=True)
class CoreOptions:
    """How models are watched, loaded and labelled; named as TensorFlow Serving's flags.

    Attributes:
        file_system_poll_wait_seconds: Time between two looks at the disk; 0 looks once.
        num_load_threads: Threads that load; 0 loads in the manager's own thread.
        num_unload_threads: Threads that unload; 0 unloads in the manager's own.
        num_initial_load_threads: Threads that load the models of the first config.
        max_num_load_retries: How often a failed load is tried again.
        load_retry_interval_seconds: Time before each retry.
        allow_version_labels_for_unavailable_models: A label that is not in use may be
            given to a version that is not loaded.
        manage_interval_seconds: Time between two actions of the manager.
    """

    file_system_poll_wait_seconds: float = 1.0
    num_load_threads: int = 0
    num_unload_threads: int = 0
    num_initial_load_threads: int = 4
    max_num_load_retries: int = 5
    load_retry_interval_seconds: float = 60.0
    allow_version_labels_for_unavailable_models: bool = False
    manage_interval_seconds: float = 0.1


class ServerCore:
    """Serves the models of a config, and of the config that replaces it.

    Attributes:
        states: What became of every version so far.
    """

    def __init__(self, load: Load, options: CoreOptions | None = None) -> None:
        """Serve nothing yet: `reload` says what.

        Args:
            load: Loads a version.
            options: How.
        """
        self._options = options or CoreOptions()
        self.states = StateMonitor()
        self._monitors: tuple[StateMonitor, ...] = (self.states,)
        self._manager = AspiredVersionsManager(
            load,
            self._tell,
            num_load_threads=self._options.num_load_threads,
            num_unload_threads=self._options.num_unload_threads,
            max_num_load_retries=self._options.max_num_load_retries,
            load_retry_interval_seconds=self._options.load_retry_interval_seconds,
            interval_seconds=self._options.manage_interval_seconds,
        )
        self._source = FileSystemSource(
            self._manager.aspire, self._options.file_system_poll_wait_seconds
        )
        self._config = model_server_config_pb2.ModelServerConfig()
        self._config_lock = threading.Lock()
        self._labels: dict[str, dict[str, int]] = {}
        self._started = False
        self._stopping = threading.Event()

    def _tell(self, name: str, version: int, state: VersionState) -> None:
        for monitor in self._monitors:
            monitor.tell(name, version, state)

    # --- requests

    def handle(self, spec: Any) -> Handle:
        """Take the loaded version that a ModelSpec asks for.

        Raises:
            ServableError: It names no model, an unknown label, or what is not loaded.
        """
        if not spec.name:
            raise ServableError(
                Code.INVALID_ARGUMENT, "ModelSpec has no name specified."
            )
        choice = spec.WhichOneof("version_choice")
        version = None
        if choice == "version":
            version = spec.version.value
        elif choice == "version_label":
            version = self._labels.get(spec.name, {}).get(spec.version_label)
            if version is None:
                raise ServableError(
                    Code.INVALID_ARGUMENT,
                    f"Unrecognized servable version label: {spec.version_label}",
                )
        return self._manager.handle(spec.name, version)

    def available(self) -> list[tuple[str, int]]:
        """Return the names and versions that requests can reach."""
        return self._manager.available()

    def status(self, spec: Any) -> dict[int, VersionState]:
        """Return the states of the versions that a ModelSpec asks for, highest first.

        A label is not looked at, so it gives all versions: as in TensorFlow Serving.

        Raises:
            ServableError: There never was such a version, or no version of the model.
        """
        known = self.states.versions(spec.name)
        if spec.HasField("version"):
            version = spec.version.value
            if version not in known:
                raise ServableError(
                    Code.NOT_FOUND,
                    f"Could not find version {version} of model {spec.name}",
                )
            return {version: known[version]}
        if not known:
            raise ServableError(
                Code.NOT_FOUND, f"Could not find any versions of model {spec.name}"
            )
        return known

    # --- configs

    def reload(self, config: model_server_config_pb2.ModelServerConfig) -> None:
        """Serve the models of this config and no others.

        Steps run in the order of TensorFlow Serving's: the list is checked; the config
        is kept; labels are checked against what is loaded *now* and swapped; the source
        learns of the new list, which unloads what is not in it; then models whose names
        are new, and only those, are waited for, without limit. Another reload waits as
        long.

        Raises:
            ServableError: The config is refused, or a model with a new name did not
                become available.
        """
        with self._config_lock:
            before, after = (
                held.WhichOneof("config") for held in (self._config, config)
            )
            if before is not None and (before, after) != (
                "model_config_list",
                "model_config_list",
            ):
                raise ServableError(
                    Code.FAILED_PRECONDITION,
                    "Cannot transition to requested config. It is only legal to "
                    "transition from one ModelConfigList to another.",
                )
            if after is None:
                return  # nothing to do, and a config may still come
            if after == "custom_model_config":
                raise ServableError(
                    Code.UNIMPLEMENTED,
                    "ModelServer does not yet support custom model config.",
                )
            models = list(config.model_config_list.config)
            _check_list(models)
            if before is not None:
                _check_platforms(self._config.model_config_list.config, models)
            self._config = model_server_config_pb2.ModelServerConfig()
            self._config.CopyFrom(config)
            self._update_labels(models)
            self._serve(models)
            if any(model.HasField("logging_config") for model in models):
                raise ServableError(
                    Code.INVALID_ARGUMENT, "No request-logger-creator provided."
                )

    def stop(self) -> None:
        """Serve no more; waits for the requests that hold a version."""
        self.give_up()
        self._source.stop()
        self._manager.stop()

    def give_up(self) -> None:
        """End the waits of reloads that are under way; what was asked for goes on."""
        self._stopping.set()
        for monitor in self._monitors:
            monitor.wake()

    def _update_labels(self, models: list[Any]) -> None:
        labels: dict[str, dict[str, int]] = {}
        for model in models:
            states = self.states.versions(model.name)
            for label, version in model.version_labels.items():
                held = self._labels.get(model.name, {}).get(label)
                allowed = (
                    self._options.allow_version_labels_for_unavailable_models
                    and held in (None, version)
                )
                state = states.get(version)
                if not allowed and (
                    state is None or state.state is not State.AVAILABLE
                ):
                    raise ServableError(
                        Code.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model "
                        f"{model.name}, which is not currently available for inference",
                    )
                labels.setdefault(model.name, {})[label] = version
        self._labels = labels

    def _serve(self, models: list[Any]) -> None:
        for model in models:
            platform = platform_of(model)
            if platform != PLATFORM:
                raise ServableError(
                    Code.INVALID_ARGUMENT,
                    f"Model {model.name} requests unsupported platform {platform}",
                )
        monitored = [
            Monitored(model.name, Path(model.base_path), model.model_version_policy)
            for model in models
        ]
        new = {model.name for model in monitored} - self._source.names
        # States of an earlier life of the same name must not decide.
        monitor = StateMonitor()
        self._monitors = (self.states, monitor)
        try:
            self._source.update(monitored)
            if self._started:
                _check_available(
                    monitor.wait(new, gave_up=self._stopping.is_set), "model"
                )
                return
            threads = self._manager.set_load_threads(
                self._options.num_initial_load_threads
            )
            self._started = True
            self._manager.start()
            self._source.start()
            reached = monitor.wait(new, gave_up=self._stopping.is_set)
            self._manager.set_load_threads(threads)
            _check_available(reached, "servable")
        finally:
            self._monitors = (self.states,)


def platform_of(model: Any) -> str:
    """Return the platform of a ModelConfig, which may be given in the old way.

    Raises:
        ServableError: It is given twice, not at all, or the old way names none.
    """
    if model.model_type and model.model_platform:
        raise ServableError(
            Code.INVALID_ARGUMENT,
            "Illegal setting both ModelServerConfig::model_type (deprecated) and "
            "ModelServerConfig::model_platform.",
        )
    if model.model_type == model_server_config_pb2.TENSORFLOW:
        return PLATFORM
    if model.model_type:
        raise ServableError(
            Code.INVALID_ARGUMENT,
            f"ModelServerConfig::model_type choice {model.model_type} not supported.",
        )
    if not model.model_platform:
        raise ServableError(
            Code.INVALID_ARGUMENT,
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            "ModelServerConfig::model_platform.",
        )
    return str(model.model_platform)


def read_config(path: Path) -> model_server_config_pb2.ModelServerConfig:
    """Read a config in protobuf's text form, as `--model_config_file` takes it.

    Raises:
        ServingError: It cannot be read, or is no ModelServerConfig.
    """
    config = model_server_config_pb2.ModelServerConfig()
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), config)
    except OSError as error:
        raise ServingError(
            f"Model config file '{path}' cannot be read: {error.strerror}. Check "
            "--model_config_file."
        ) from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ServingError(
            f"Model config file '{path}' is no ModelServerConfig in text form: "
            f"{error}. Write it as: model_config_list {{ config {{ name: 'm' "
            "base_path: '/folder' model_platform: 'tensorflow' } }"
        ) from error
    return config


def _check_list(models: list[Any]) -> None:
    names: set[str] = set()
    for model in models:
        if model.name in names:
            raise ServableError(
                Code.INVALID_ARGUMENT,
                f"Illegal to list model {model.name} multiple times in config list",
            )
        names.add(model.name)
    for model in models:
        if not model.base_path.startswith("/") and not _URI.match(model.base_path):
            raise ServableError(
                Code.INVALID_ARGUMENT,
                f"Expected model {model.name} to have an absolute path or URI; got "
                f"base_path()={model.base_path}",
            )


def _check_platforms(before: Any, after: list[Any]) -> None:
    platforms = {model.name: platform_of(model) for model in before}
    for model in after:
        if model.name in platforms and platform_of(model) != platforms[model.name]:
            raise ServableError(
                Code.INVALID_ARGUMENT,
                f"Illegal to change a model's platform. For model {model.name} "
                f"platform was {platforms[model.name]} and new platform requested is "
                f"{platform_of(model)}",
            )


def _check_available(reached: Reached | None, noun: str) -> None:
    if reached is None:
        raise ServableError(Code.CANCELLED, "The server was stopped meanwhile.")
    missing = {
        entry: state
        for entry, state in reached.items()
        if state.state is not State.AVAILABLE
    }
    if missing:
        listed = "".join(
            f"{{{{name: {name} version: {version}}}"
            + (f" due to error: {state.error.labelled}" if state.error else "")
            + "}, "
            for (name, version), state in sorted(missing.items())
        )
        raise ServableError(
            Code.UNKNOWN,
            f"{len(missing)} {noun}(s) did not become available: {{{listed}}}",
        )
