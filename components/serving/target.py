"""The versions of one model in one server of TensorFlow Serving.

It decides nothing, and never sends what would leave a caller without an answer: a
configuration that drops a labelled version, a label of a version that is not loaded, a
list without the models of others.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from typing_extensions import Self

from penstock.components.serving import server_config as rules
from penstock.components.serving.control import (
    Loaded,
    LoadState,
    Refused,
    ServerControl,
)
from penstock.components.serving.ledger import Ledger
from penstock.components.serving.messages import ModelServerConfig
from penstock.components.serving.place import existing
from penstock.components.serving.routing import routing_of
from penstock.components.serving.security import Tls
from penstock.components.serving.server_config import Layout, Served
from penstock.components.serving.server_metrics import read_metrics
from penstock.components.serving.server_record import (
    RPC,
    Record,
    locked_record,
    read_record,
    record_path,
    write_record,
)
from penstock.components.serving.versions import parse_version
from penstock.schemas.errors import ServingError

# A reload of a new name is answered when it is loaded, one that is refused at once.
_REFUSAL_SECONDS = 1.0

# A server tells the state a version had before it was asked for, until it looks at its
# folders (every second) and its manager at what was found (every 0.1 seconds).
_STALE_SECONDS = 3.0

_NEWEST = 16  # versions on disk whose state is asked for beyond those that were asked


class TfServingTarget:
    """The versions of one model in one server.

    What is asked of the server is recorded on the disk first, together with what is
    asked of it for other models, so that any process can go on.

    Args:
        model: Name of the model.
        serving_dir: Its serving directory, under the path the server knows it by.
        address: 'host:port' or 'unix:/path' of the server's gRPC side.
        layout: 'names' for one served name per version, 'labels' for one name with
            version numbers and the labels 'stable' and 'canary'.
        user_config: The file the server was started with, whose other models are left
            as they are.
        tls: How the connection is secured; None for plain text.
        token: What is sent as bearer token.
        deadline_seconds: How long an answer may take.
        rest_address: 'host:port' of the server's REST side. With it, a server that
            holds models which no configuration names is refused.
        config_file: A file that the server polls, to control it by that instead of
            calls; only penstock may write it.
        poll_seconds: How often the server polls that file.
        boot_config: Where to write, at every change, the configuration to start the
            server with; without labels, with which it would not start.
        bare_name: In the layout 'names', whether the stable version also answers under
            the model's own name, for callers that do not come through a router. It
            takes its memory twice.

    Raises:
        ServingError: The name, the folder, the address or a file is not right.
    """

    def __init__(
        self,
        model: str,
        serving_dir: Path | str,
        address: str,
        *,
        layout: Layout = "names",
        user_config: Path | None = None,
        tls: Tls | None = None,
        token: str | None = None,
        deadline_seconds: float = 10.0,
        rest_address: str | None = None,
        config_file: Path | None = None,
        poll_seconds: float = 1.0,
        boot_config: Path | None = None,
        bare_name: bool = False,
    ) -> None:
        self._folder = existing(serving_dir)
        self._new = Served(model, self._folder, layout=layout)
        self._user_config = user_config
        self._rest_address = rest_address
        self._config_file = config_file
        self._boot_config = boot_config
        self._bare_name = bare_name
        self._channel = (
            RPC if config_file is None else str(Path(os.path.abspath(config_file)))
        )
        self._record = record_path(address, user_config, self._folder)
        self._answered: Callable[[float], bool] | None = None
        self._sent = ""
        self._stale: dict[int, Loaded] = {}
        self._stale_until = 0.0
        self._stale_seconds = _STALE_SECONDS + (poll_seconds if config_file else 0.0)
        self.control = ServerControl(
            address, tls=tls, token=token, deadline_seconds=deadline_seconds
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the server goes on with what it has."""
        self.control.close()

    # --- what a controller asks

    def check(self) -> None:
        """Check that the server answers, and may be controlled in this way.

        Raises:
            ServingError: It does not, or is controlled in another one.
        """
        with locked_record(self._record):
            self._served(self._read())
        self.control.statuses([self._new.model])

    def load(self, versions: tuple[int, ...]) -> None:
        """Ask that exactly these versions be loaded; does not wait for it.

        Raises:
            ServingError: A version is not in the serving directory, a label or the
                routers would lose theirs, the server is controlled in another way or
                holds models that would be lost, does not answer, or refuses.
        """
        for version in versions:
            rules.check_version(version, self._new.model)
        self._check_on_disk(versions)
        self._check_routed(versions)
        with locked_record(self._record):
            record = self._read()
            now = self._served(record)
            asked = tuple(sorted(set(versions)))
            fresh = set(asked) - set(now.versions)
            if fresh:
                self._note_stale(fresh)
            canary = now.canary if now.canary in asked else None
            self._send(record, dataclasses.replace(now, versions=asked, canary=canary))

    def states(self) -> Mapping[int, Loaded]:
        """Return what the server says of every version that it knows.

        A label, or the bare name, that the server lost when it was started anew, is
        given to it again.

        Raises:
            ServingError: The server does not answer, or has refused what was sent.
        """
        if self._hear(0.0):
            with locked_record(self._record):
                self._note_told()
        found = self._found()
        self._restore(found)
        if time.monotonic() > self._stale_until and self._answered is None:
            self._stale.clear()
        for version, before in self._stale.items():
            if found.get(version) == before:
                found[version] = Loaded(LoadState.START)
        return found

    def announce(self, stable: int | None, canary: int | None = None) -> None:
        """Say which version is stable to callers that do not come through a router.

        In the layout 'labels' the labels move, in one moment; in the layout 'names' the
        bare name is pinned, if there is to be one, and otherwise nothing happens.

        Args:
            stable: The version for everybody; None for none.
            canary: The version of the label 'canary'; None to remove the label.

        Raises:
            ServingError: A version is not available, the server does not answer, or
                refuses.
        """
        if self._new.layout == "names" and not self._bare_name:
            return
        with locked_record(self._record):
            record = self._read()
            if self._new.layout == "names":
                canary = None
            served = dataclasses.replace(
                self._served(record), stable=stable, canary=canary
            )
            rules.check_available(served, _available(self._found(bare=True)))
            self._send(record, served)

    def probe(self, version: int) -> None:
        """Make the server answer for a version.

        Raises:
            ServingError: It does not answer, or does not have it.
        """
        served = self._new
        self.control.probe(*rules.address_of(served.model, version, served.layout))

    def release(self) -> None:
        """Stop controlling the model: it is unloaded, or as the user's file has it.

        Raises:
            ServingError: Routers send requests to it, or the server does not answer,
                or refuses.
        """
        self._check_routed(())
        with locked_record(self._record):
            record = self._read()
            self._send(record, None)
            if not read_record(self._record).served:
                self._record.unlink(missing_ok=True)

    # --- sending

    def _read(self) -> Record:
        record = read_record(self._record)
        if record.channel not in (None, self._channel):
            raise ServingError(
                f"The model server at '{self.control.address}' is controlled through "
                f"{_said(record.channel)}, not {_said(self._channel)}: whichever "
                "speaks last would undo what the other did. Use the same one, or end "
                f"that control and remove '{self._record}'."
            )
        return record

    def _served(self, record: Record) -> Served:
        served = record.served.get(self._new.model)
        if served is None:
            return self._new
        if served.serving_dir != self._new.serving_dir:
            raise ServingError(
                f"Model '{served.model}' is served from '{served.serving_dir}' at "
                f"'{self.control.address}', not from '{self._new.serving_dir}'. Pass "
                "that folder, or give the model another name."
            )
        if served.layout != self._new.layout:
            raise ServingError(
                f"Model '{served.model}' is served in the layout '{served.layout}' at "
                f"'{self.control.address}', not '{self._new.layout}'. Use that layout, "
                f"or end its rollout and remove '{self._record}' first."
            )
        return served

    def _send(self, record: Record, served: Served | None) -> None:
        wanted = dict(record.served)
        wanted.pop(self._new.model, None)
        if served is not None:
            wanted[served.model] = served
            rules.check_labels(served)
        user = rules.read_config(self._user_config)
        config = rules.server_config(user, self._tellable(wanted))
        before = rules.parse_config(record.sent)
        rules.check_change(before, config)
        self._refuse_strangers(config, before)
        self._sent = rules.config_text(config)
        asked = Record(self._channel, wanted, self._sent, told=False)
        write_record(self._record, asked)
        try:
            if self._config_file is not None:
                rules.write_config(self._config_file, config)
                self._note_told()
            else:
                self._answered = self.control.reload(config)
                if self._hear(_REFUSAL_SECONDS):
                    self._note_told()
        except Refused:
            # It keeps what it had, and so does the record.
            write_record(self._record, record)
            raise
        self._stale_until = time.monotonic() + self._stale_seconds
        if self._boot_config is not None:
            rules.write_config(self._boot_config, rules.without_labels(config))

    def _tellable(self, wanted: Mapping[str, Served]) -> list[Served]:
        """Return what may be told now: without labels of what is not available.

        A server that was started anew has loaded nothing yet, and would refuse the
        whole configuration for one of its labels.
        """
        labelled = [model for model, served in wanted.items() if served.labels]
        found = self.control.statuses(labelled)
        return [
            served.with_labels_of(_available(found[model]))
            if model in found
            else served
            for model, served in wanted.items()
        ]

    def _restore(self, found: Mapping[int, Loaded]) -> None:
        record = read_record(self._record)
        served = record.served.get(self._new.model)
        if served is None or self._answered is not None:
            return
        labels = served.with_labels_of(_available(found)).labels
        lost = labels and self.control.labelled(served.model, labels) != labels
        if served.layout == "names" and served.stable in _available(found):
            bare = self.control.statuses([served.model])[served.model]
            lost = served.stable not in bare
        if lost or not record.told:
            with locked_record(self._record):
                record = self._read()
                if self._new.model in record.served:
                    self._send(record, self._served(record))

    def _hear(self, seconds: float) -> bool:
        """Wait so long for an answer that is due, and return whether it came."""
        answered, self._answered = self._answered, None
        if answered is None:
            return False
        if not answered(seconds):
            self._answered = answered
            return False
        self._stale_until = time.monotonic() + self._stale_seconds
        return True

    def _note_told(self) -> None:
        record = read_record(self._record)
        if record.sent == self._sent:
            write_record(self._record, dataclasses.replace(record, told=True))

    def _refuse_strangers(
        self, config: ModelServerConfig, before: ModelServerConfig
    ) -> None:
        """Refuse to send a list that would unload what others put into the server."""
        if self._rest_address is None:
            return
        seen = read_metrics(self._rest_address, self.control.deadline_seconds)
        known = [*config.model_config_list.config, *before.model_config_list.config]
        paths = seen.base_paths - {os.path.normpath(each.base_path) for each in known}
        # A path has no name, but most models are named as their folders are.
        guesses = {os.path.basename(path): path for path in paths}
        names = {*seen.names, *guesses} - {each.name for each in known}
        held = {}
        for name, versions in self.control.statuses(sorted(names)).items():
            path = guesses.get(name)
            if any(each.state is not LoadState.END for each in versions.values()):
                held[name] = f"'{name}'"
            elif path is not None and not versions:
                held[name] = f"a model of '{path}'"
        if held:
            listed = "no configuration names,"
            if self._user_config is not None:
                listed = f"'{self._user_config}' does not name,"
            raise ServingError(
                f"The model server at '{self.control.address}' holds "
                f"{' and '.join(held[name] for name in sorted(held))}, which {listed} "
                "and a reload would unload. Pass the file that lists all its models "
                "as the user's configuration."
            )

    # --- reading

    def _check_on_disk(self, versions: tuple[int, ...]) -> None:
        there = self._on_disk()
        for version in versions:
            if version not in there:
                raise ServingError(
                    f"Version {version} is not in serving directory '{self._folder}' "
                    f"(it has {', '.join(map(str, there)) or 'none'}). Name one of "
                    "these, or push it again."
                )

    def _check_routed(self, versions: tuple[int, ...]) -> None:
        """Refuse to unload what routers send requests to."""
        with Ledger(self._folder, read_only=True) as ledger:
            routed = routing_of(ledger).routed
        lost = [version for version in routed if version not in versions]
        if lost:
            raise ServingError(
                f"Requests for model '{self._new.model}' go to version "
                f"{' and '.join(map(str, lost))}, which would be unloaded (what would "
                f"be loaded is {', '.join(map(str, sorted(versions))) or 'nothing'}). "
                "Send requests elsewhere first, by a rollout or a rollback."
            )

    def _on_disk(self) -> list[int]:
        try:
            names = os.listdir(self._folder)
        except OSError as error:
            raise ServingError(
                f"Serving directory '{self._folder}' cannot be read: "
                f"{error.strerror}. Let this user read it."
            ) from error
        numbers = {parse_version(name) for name in names}
        return sorted(number for number in numbers if number is not None and number > 0)

    def _found(self, bare: bool = False) -> dict[int, Loaded]:
        """Return what the server says of each version, under its name or the bare one.

        Args:
            bare: Whether the bare name counts in the layout 'names'.
        """
        model = self._new.model
        if self._new.layout == "labels":
            return self.control.statuses([model])[model]
        served = read_record(self._record).served.get(model)
        asked = set(served.versions) if served else set()
        names = {
            rules.served_name(model, version): version
            for version in sorted(asked | set(self._on_disk()[-_NEWEST:]))
        }
        answers = self.control.statuses([*names, model] if bare else names)
        found = dict(answers.pop(model, {}))
        for name, versions in answers.items():
            version = names[name]
            if version in versions and (
                version not in found or found[version].state is not LoadState.AVAILABLE
            ):
                found[version] = versions[version]
        return found

    def _note_stale(self, versions: set[int]) -> None:
        over = (LoadState.END, LoadState.UNLOADING)
        self._stale = {
            version: found
            for version, found in self._found().items()
            if version in versions and found.state in over
        }


def _available(found: Mapping[int, Loaded]) -> list[int]:
    return [n for n, each in found.items() if each.state is LoadState.AVAILABLE]


def _said(channel: str | None) -> str:
    return "calls" if channel == RPC else f"the file '{channel}'"
