"""What is asked of one model server, kept so that it outlives who asked.

Nothing reads a server's configuration back, so what was sent last is written down
before it is sent. One small JSON file for each server lies beside the user's own
configuration, or in the serving directory where there is none; whoever controls another
model of the same server finds it there, and sends the models of both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from penstock.components.serving.durable import make_folder
from penstock.components.serving.locks import file_lock
from penstock.components.serving.server_config import Served, write_text
from penstock.schemas.errors import ServingError

RPC = "rpc"
"""The control channel that is no file."""

_FORMAT = 1
_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Record:
    """What is asked of a server.

    Attributes:
        channel: How it is told: 'rpc', or the path of the file it polls. None before
            anybody has told it anything.
        served: What it is to hold of our models, by name.
        sent: The configuration that was sent last, as text.
        told: Whether the server has answered that.
    """

    channel: str | None = None
    served: Mapping[str, Served] = field(default_factory=dict)
    sent: str = ""
    told: bool = True


def record_path(address: str, user_config: Path | None, serving_dir: Path) -> Path:
    """Return where the record of a server lies.

    Args:
        address: The server's address.
        user_config: The user's own configuration, if there is one.
        serving_dir: The serving directory.
    """
    # One machine has several names for itself, and a server only one record.
    host, colon, port = address.rpartition(":")
    if host in ("localhost", "[::1]"):
        address = f"127.0.0.1{colon}{port}"
    name = f"{quote(address, safe='')}.json"
    if user_config is None:
        return serving_dir / ".penstock" / "servers" / name
    folder = Path(os.path.abspath(user_config)).parent / ".penstock-servers"
    return folder / f"{user_config.name}@{name}"


@contextlib.contextmanager
def locked_record(path: Path) -> Iterator[None]:
    """Let nobody else send a configuration to the server of a record.

    Raises:
        ServingError: Somebody else does for too long, or the folder cannot be written.
    """
    deadline = time.monotonic() + _WAIT_SECONDS

    def wait() -> None:
        if time.monotonic() > deadline:
            raise ServingError(
                f"Another process has been sending a configuration for "
                f"{_WAIT_SECONDS:g} seconds. End the process that holds '{path}.lock', "
                "and try again."
            )

    with contextlib.ExitStack() as stack:
        try:
            make_folder(str(path.parent))
            stack.enter_context(file_lock(f"{path}.lock", wait))
        except OSError as error:
            raise ServingError(
                f"'{path.parent}' cannot be written: {error.strerror}. Let this user "
                "write there: what is asked of a server is kept in it."
            ) from error
        yield


def read_record(path: Path) -> Record:
    """Return the record at a path; an empty one if nothing was ever asked.

    Raises:
        ServingError: It cannot be read, or another penstock wrote it.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Record()
    except OSError as error:
        raise ServingError(
            f"'{path}' cannot be read: {error.strerror}. Let this user read it."
        ) from error
    except ValueError as error:
        raise _foreign(path, str(error)) from error
    try:
        if held["format"] != _FORMAT:
            raise ValueError(f"format {held['format']}")
        served = {each["model"]: _served(each) for each in held["served"]}
        return Record(held["channel"], served, held["sent"], held["told"])
    except (KeyError, TypeError, ValueError) as error:
        raise _foreign(path, f"{type(error).__name__}: {error}") from error


def write_record(path: Path, record: Record) -> None:
    """Write a record, so that it is on the disk when this returns.

    Raises:
        ServingError: It cannot be written.
    """
    held = {
        "format": _FORMAT,
        "channel": record.channel,
        "served": [_json(each) for each in record.served.values()],
        "sent": record.sent,
        "told": record.told,
    }
    write_text(path, json.dumps(held, indent=1) + "\n")


def _served(held: dict[str, Any]) -> Served:
    return Served(
        **{
            **held,
            "serving_dir": Path(held["serving_dir"]),
            "versions": tuple(held["versions"]),
        }
    )


def _json(served: Served) -> dict[str, Any]:
    return {**dataclasses.asdict(served), "serving_dir": str(served.serving_dir)}


def _foreign(path: Path, why: str) -> ServingError:
    return ServingError(
        f"'{path}' is not what this penstock writes ({why}). Install the penstock that "
        "wrote it, or remove the file and tell the server anew what to load."
    )
