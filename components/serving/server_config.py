"""The configuration of a model server: what it is to hold, and under which names.

A reload replaces the server's whole list, so every configuration holds the models of
the user's own file too, unchanged. Everything here but reading and writing files is
arithmetic on messages.
"""

from __future__ import annotations

import dataclasses
import os
import re
import uuid
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from google.protobuf import text_format

from penstock.components.serving.durable import sync_folder
from penstock.components.serving.messages import ModelConfig, ModelServerConfig
from penstock.components.serving.versions import MAX_VERSION
from penstock.schemas.errors import ServingError, did_you_mean

Layout = Literal["names", "labels"]
"""How the versions of a model are told apart: a served name for each of them, or one
name with version numbers and labels."""

STABLE_LABEL = "stable"
CANARY_LABEL = "canary"

_PLATFORM = "tensorflow"
_HEADER = "# Written by penstock, which writes it anew at every change."
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")


@dataclass(frozen=True)
class Served:
    """What a server is to hold of one model.

    Attributes:
        model: Name of the model.
        serving_dir: Its serving directory, absolute.
        versions: The versions to load.
        layout: How they are told apart.
        stable: The version that callers get who ask for no version (layout 'names',
            under the model's bare name) or for the label 'stable' (layout 'labels').
            None for neither.
        canary: The version that the label 'canary' names, in the layout 'labels'.
    """

    model: str
    serving_dir: Path
    versions: tuple[int, ...] = ()
    layout: Layout = "names"
    stable: int | None = None
    canary: int | None = None

    def __post_init__(self) -> None:
        check_model_name(self.model)
        for version in (*self.versions, self.stable, self.canary):
            if version is not None:
                check_version(version, self.model)
        if self.layout not in ("names", "labels"):
            raise ServingError(
                f"'{self.layout}' is no layout. Choose 'names' (one served name per "
                "version) or 'labels'." + did_you_mean(self.layout, ["names", "labels"])
            )

    @property
    def labels(self) -> dict[str, int]:
        """The labels and the versions they name; none in the layout 'names'."""
        pairs = {STABLE_LABEL: self.stable, CANARY_LABEL: self.canary}
        return {
            label: version
            for label, version in pairs.items()
            if version is not None and self.layout == "labels"
        }

    def with_labels_of(self, versions: Collection[int]) -> Served:
        """Return it without the labels that name other versions than these."""
        if self.layout != "labels":
            return self
        return dataclasses.replace(
            self,
            stable=self.stable if self.stable in versions else None,
            canary=self.canary if self.canary in versions else None,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which the server holds it."""
        if self.layout == "labels":
            return (self.model,) if self.versions else ()
        bare = () if self.stable is None else (self.model,)
        return (*(served_name(self.model, n) for n in self.versions), *bare)


def check_model_name(name: str) -> None:
    """Refuse a name that could mean more than a name to a path or a URL.

    Raises:
        ServingError: It has characters other than letters, digits, '_', '-' and '.'.
    """
    if _NAME.fullmatch(name) is None or not name.strip("."):
        raise ServingError(
            f"'{name}' is no name of a model: letters, digits, '_', '-' and '.' are "
            "taken, at most 200 of them. Choose another name."
        )


def check_version(version: int, model: str) -> None:
    """Refuse a number that is no version.

    Raises:
        ServingError: It is not between 1 and 2**63 - 1.
    """
    if isinstance(version, bool) or not isinstance(version, int):
        raise ServingError(
            f"'{version}' is no version of '{model}'. Pass a whole number from 1 on."
        )
    if not 0 < version <= MAX_VERSION:
        raise ServingError(
            f"{version} is no version of '{model}'. Pass a whole number from 1 on."
        )


def served_name(model: str, version: int) -> str:
    """Return the name a version is served under in the layout 'names'."""
    check_model_name(model)
    check_version(version, model)
    return f"{model}__v{version}"


def address_of(model: str, version: int, layout: Layout) -> tuple[str, int | None]:
    """Return the name, and the version if one is to be sent, that reach a version."""
    if layout == "names":
        return served_name(model, version), None
    check_version(version, model)
    return model, version


# --- making configurations


def server_config(
    user: ModelServerConfig, served: Iterable[Served]
) -> ModelServerConfig:
    """Return what a server is to hold: the user's own models, then ours.

    Args:
        user: The user's own configuration; its models are copied as they are, except
            for an entry of a model of ours, which gives way.
        served: Our models.

    Raises:
        ServingError: The result breaks a rule of `check_config`, or an entry of ours
            would take the place of one of the user's that means something else.
    """
    served = tuple(served)
    ours = {each.model: each for each in served}
    result = ModelServerConfig()
    result.model_config_list.SetInParent()  # a list of no models is not no list
    for config in user.model_config_list.config:
        own = ours.get(config.name)
        if own is None:
            result.model_config_list.config.add().CopyFrom(config)
        else:
            _check_replaced(config, own)
    for each in served:
        check_labels(each)
        result.model_config_list.config.extend(_entries(each))
    check_config(result)
    return result


def _entries(served: Served) -> list[ModelConfig]:
    path = str(served.serving_dir)
    if served.layout == "labels":
        if not served.versions:
            return []
        return [_entry(served.model, path, served.versions, served.labels)]
    entries = [
        _entry(served_name(served.model, version), path, (version,))
        for version in served.versions
    ]
    if served.stable is not None:
        entries.append(_entry(served.model, path, (served.stable,)))
    return entries


def _entry(
    name: str,
    path: str,
    versions: tuple[int, ...],
    labels: Mapping[str, int] | None = None,
) -> ModelConfig:
    return ModelConfig(
        name=name,
        base_path=path,
        model_platform=_PLATFORM,
        model_version_policy={"specific": {"versions": sorted(set(versions))}},
        version_labels=labels or {},
    )


def without_labels(config: ModelServerConfig) -> ModelServerConfig:
    """Return a configuration to start a server with.

    A server that starts has loaded nothing yet, and ends when its configuration labels
    a version, unless it is run with --allow_version_labels_for_unavailable_models.
    """
    result = ModelServerConfig()
    result.CopyFrom(config)
    for model in result.model_config_list.config:
        model.ClearField("version_labels")
    return result


# --- rules


def check_config(config: ModelServerConfig) -> None:
    """Refuse what a server would refuse, or take and then fail with.

    Raises:
        ServingError: It holds no list of models, or in it two models have one name, a
            path is relative, a platform is missing, or a label names a version that
            its own policy does not load.
    """
    if config.WhichOneof("config") == "custom_model_config":
        raise ServingError(
            "The configuration has a 'custom_model_config', with which TensorFlow "
            "Serving ends. List the models in 'model_config_list'."
        )
    seen: set[str] = set()
    for model in config.model_config_list.config:
        if model.name in seen:
            raise ServingError(
                f"The configuration names model '{model.name}' twice, and names are "
                "unique in a server. Rename one of them."
            )
        seen.add(model.name)
        if not model.name:
            raise ServingError(
                f"The configuration has a model without a name, at "
                f"'{model.base_path}'. Give it one."
            )
        if not os.path.isabs(model.base_path) and "://" not in model.base_path:
            raise ServingError(
                f"Model '{model.name}' has the base path '{model.base_path}', which "
                "means another folder in every process. Write it from '/' on."
            )
        if not model.model_platform and not model.model_type:
            raise ServingError(
                f"Model '{model.name}' has no platform. Write 'model_platform: "
                '"tensorflow"\' into its configuration.'
            )
        policy = model.model_version_policy
        if policy.WhichOneof("policy_choice") == "specific":
            _check_labels(model.name, model.version_labels, policy.specific.versions)


def check_labels(served: Served) -> None:
    """Refuse a label of a version that is not loaded together with it.

    Raises:
        ServingError: The version is not among those to load.
    """
    _check_labels(served.model, served.labels, served.versions)


def _check_labels(
    model: str, labels: Mapping[str, int], versions: Collection[int]
) -> None:
    for label, version in labels.items():
        if version not in versions:
            raise ServingError(
                f"Label '{label}' of model '{model}' names version {version}, which "
                "the same configuration does not load (it loads "
                f"{_listed(versions)}). Keep it loaded, or move the label first."
            )


def check_available(served: Served, available: Collection[int]) -> None:
    """Refuse to send anybody to a version that is not loaded.

    Raises:
        ServingError: The stable or the labelled version is not among those available.
    """
    for role, version in (("stable", served.stable), ("canary", served.canary)):
        if version is not None and version not in available:
            raise ServingError(
                f"Version {version} of model '{served.model}' cannot become {role}: "
                f"the server has not loaded it (it has {_listed(available)}). Load it "
                "first, and wait until it is available."
            )


def check_change(before: ModelServerConfig, after: ModelServerConfig) -> None:
    """Refuse a change that a running server does not take.

    Raises:
        ServingError: The platform of a model changes.
    """
    platforms = {
        model.name: _platform(model) for model in before.model_config_list.config
    }
    for model in after.model_config_list.config:
        was = platforms.get(model.name, _platform(model))
        if was != _platform(model):
            raise ServingError(
                f"Model '{model.name}' changes its platform from '{was}' to "
                f"'{_platform(model)}', which a running server does not take. Give it "
                "another name, or start the server anew."
            )


def _platform(model: ModelConfig) -> str:
    if model.model_platform:
        return str(model.model_platform)
    return _PLATFORM if model.model_type == 1 else "other"


def _check_replaced(config: ModelConfig, served: Served) -> None:
    """Refuse to take the place of an entry of the user's that means something else."""
    if os.path.normpath(config.base_path) != str(served.serving_dir):
        raise ServingError(
            f"Model '{config.name}' lies in '{config.base_path}' in your configuration "
            f"and in '{served.serving_dir}' here. Use one of the folders for both."
        )
    if _platform(config) != _PLATFORM:
        raise ServingError(
            f"Model '{config.name}' has the platform '{_platform(config)}' in your "
            "configuration, and penstock controls models of the platform "
            f"'{_PLATFORM}'. Control another model, or rename one."
        )
    if served.layout == "names" and served.stable is None:
        raise ServingError(
            f"Your configuration serves '{config.name}' under its bare name, whose "
            "callers get another version as soon as one is loaded. Take it out of "
            "your file, or say which version is stable, and penstock pins it to that."
        )


def _listed(versions: Collection[int]) -> str:
    return ", ".join(map(str, sorted(versions))) or "none"


# --- files


def read_config(path: Path | None) -> ModelServerConfig:
    """Return the user's own configuration; an empty one without a file.

    Args:
        path: A file as --model_config_file takes it.

    Raises:
        ServingError: The file cannot be read or understood, or breaks a rule of
            `check_config`.
    """
    config = ModelServerConfig()
    if path is None:
        return config
    subject = f"Model config file '{path}'"
    try:
        text = path.read_text(encoding="utf-8")
        text_format.Parse(text, config)
    except OSError as error:
        raise ServingError(
            f"{subject} cannot be read: {error.strerror}. Pass the file that the "
            "server is started with."
        ) from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ServingError(
            f"{subject} is no configuration of TensorFlow Serving: {error}. Mend it; "
            "it looks like 'model_config_list { config { name: \"m\" ... } }'."
        ) from error
    try:
        check_config(config)
    except ServingError as error:
        raise ServingError(f"{subject}: {error}") from error
    return config


def parse_config(text: str) -> ModelServerConfig:
    """Return the configuration that `config_text` wrote."""
    config = ModelServerConfig()
    text_format.Parse(text, config)
    return config


def config_text(config: ModelServerConfig) -> str:
    """Return a configuration as --model_config_file takes it."""
    return str(text_format.MessageToString(config))


def write_config(path: Path, config: ModelServerConfig) -> None:
    """Write a configuration, so that a server reads the old one or the new one whole.

    Raises:
        ServingError: The file is there and is not one that penstock wrote, or it
            cannot be written.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            if file.readline().rstrip() != _HEADER:
                raise ServingError(
                    f"'{path}' was not written by penstock, which would replace it. "
                    "Pass the path of a new file, and your own file as the user's "
                    "configuration."
                )
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ServingError(
            f"'{path}' cannot be read: {error.strerror}. Let this user read it."
        ) from error
    write_text(path, f"{_HEADER}\n{config_text(config)}")


def write_text(path: Path, text: str, mode: int = 0o666) -> None:
    """Write a file that holds the old text or the new one whenever it is read.

    Args:
        path: The file.
        text: What it is to hold.
        mode: Its permissions, of which the process's umask takes some away.

    Raises:
        ServingError: It cannot be written.
    """
    # A watcher of the folder never takes the temporary name for a version.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            descriptor = os.open(temporary, flags, mode)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(str(path.parent))
    except OSError as error:
        raise ServingError(
            f"'{path}' cannot be written: {error.strerror}. Let this user write to "
            "its folder, and make room on the disk."
        ) from error
