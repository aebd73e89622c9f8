"""The connection to ML Metadata: URLs, patience, and sentences for its errors."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

from penstock.pipelines.escaping import without_backslashes
from penstock.pipelines.logins import Login, Refused, alone
from penstock.pipelines.sqlite_file import is_other_database, turn
from penstock.schemas.errors import MetadataError

if TYPE_CHECKING:
    from ml_metadata.metadata_store import metadata_store
    from ml_metadata.proto import metadata_store_pb2


_T = TypeVar("_T")


class Connection:
    """A connection to a lineage store; see `Store`."""

    def __init__(
        self, url: str, *, wait_seconds: float = 30.0, create: bool = True
    ) -> None:
        self.url = url
        self.wait_seconds = wait_seconds
        self._where = f"The lineage store '{without_password(url)}'"
        self._lock = threading.RLock()
        self._path = sqlite_path(url)
        self._config, self._login = connection(url, create=create)
        if self._path is not None and is_other_database(self._path):
            raise MetadataError(
                f"{self._where} is an SQLite database with other tables, no ML "
                "Metadata store. Name another store."
            )
        self._mlmd: metadata_store.MetadataStore = None
        self._patiently(self._connect)
        # The import is here, where a store is opened, and nowhere on the way.
        from ml_metadata.proto import metadata_store_pb2

        self._pb = metadata_store_pb2
        self._type_ids: dict[str, int] = {}
        self._types: dict[int, str] = {}
        self._contexts: dict[tuple[str, str], metadata_store_pb2.Context] = {}

    def _connect(self) -> None:
        """Connect to the store, or connect anew."""
        from ml_metadata.metadata_store import metadata_store

        with self._alone():
            self._mlmd = metadata_store.MetadataStore(self._config)
        if self._login is not None and self._login.scheme == "postgresql":
            self._mlmd._call_method = without_backslashes(self._mlmd._call_method)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only process that makes tables or types, if the store is on a server.

        Raises:
            MetadataError: If the server does not let one in.
        """
        try:
            with nullcontext() if self._login is None else alone(self._login):
                yield
        except Refused as refused:
            raise MetadataError(f"{self._where} {refused}") from None

    def _patiently(self, call: Callable[[], _T]) -> _T:
        """Call, and call again while another process holds the store.

        The same if a server was lost or gave way to somebody else's transaction: then
        nothing of the call was recorded.
        """
        ends = time.monotonic() + self.wait_seconds
        while True:
            is_late = time.monotonic() > ends
            try:
                free = nullcontext(True) if self._path is None else turn(self._path)
                with self._lock, free as is_free:
                    if is_free:
                        return call()
                if is_late:
                    raise self._explained(_LOCKED)
                time.sleep(0.002)
            except MetadataError:
                raise
            except Exception as error:  # ml_metadata raises its own and RuntimeError
                if self._login is not None and is_lost(error):
                    self._reconnect(ends, error)
                elif is_late or not _is_passing(error):
                    raise self._explained(str(error)) from error
                else:
                    time.sleep(0.02)

    def _reconnect(self, ends: float, error: Exception) -> None:
        """Connect anew: a second call without a connection would end the process."""
        while time.monotonic() < ends:
            try:
                with self._lock:
                    return self._connect()
            except Exception as refused:  # the server may be there only in parts
                error = refused
                time.sleep(0.2)
        raise MetadataError(
            f"{self._where} was lost, and was not there again within "
            f"{self.wait_seconds:g} s. Start the server and run again."
        ) from error

    def _explained(self, text: str) -> MetadataError:
        said = _shortened(" ".join(text.split()))
        newer = re.search(r"database version (\d+) is greater .* version (\d+)", text)
        if newer:
            return MetadataError(
                f"{self._where} was written by a newer ml-metadata (its schema is "
                f"version {newer[1]}, this one reads up to {newer[2]}). Upgrade "
                "ml-metadata, or name another store."
            )
        for words, explanation in _EXPLANATIONS.items():
            if any(each in text for each in words):
                return MetadataError(
                    f"{self._where} "
                    + explanation.format(seconds=self.wait_seconds, said=said)
                )
        return MetadataError(
            f"{self._where} refused a call: {said} Check that the server or file is "
            "there and is an ML Metadata store."
        )


_LOCKED = "database is locked"


_HELD = (_LOCKED, "database table is locked", "Concurrent writes aborted")


# What ml_metadata or the database says, and what penstock says of it.
_EXPLANATIONS = {
    _HELD: (
        "is held by another process for more than {seconds:g} s. Wait for that "
        "process, or allow more time with --store-wait."
    ),
    ("unable to open database file",): (
        "cannot be opened: its folder is missing or not readable. Check the path."
    ),
    ("not a database",): (
        "is a file of another kind, no SQLite database. Name another store."
    ),
    ("readonly database", "read-only", "permission denied", "command denied"): (
        "cannot be written. Give yourself the right to write it, or name another store."
    ),
    ("disk is full", "disk I/O error"): (
        "cannot be written: its disk is full or fails. Free some space and run again."
    ),
    ("concurrent connection to the empty database", "no MLMDEnv version exist"): (
        "is half made: whoever made its tables was killed at it. Drop the database and "
        "create it again."
    ),
    ("value too long for type", "Data too long for column"): (
        "takes names of at most 255 bytes: {said} Shorten the name."
    ),
}


def _is_passing(error: Exception) -> bool:
    """Whether a call fails only because of what others do just now."""
    if type(error).__name__ == "AbortedError":
        return True
    return re.search(_PASSING, str(error)) is not None


_PASSING = "|".join(
    [
        *_HELD,
        *("[Dd]eadlock", "could not serialize access", "Lock wait timeout"),
        # PostgreSQL, where two processes make the same context at once.
        "current transaction is aborted",
    ]
)


def is_taken(error: MetadataError) -> bool:
    """Whether a call failed because the name that it gives is given already."""
    words = "already exists|[Dd]uplicate (key|entry)"
    return re.search(words, str(error.__cause__)) is not None


def is_lost(error: Exception) -> bool:
    """Whether a call fails because there is no connection to the server any more."""
    if type(error).__name__ == "UnavailableError":
        return True
    return re.search(_LOST, str(error)) is not None


_LOST = "|".join(
    [
        *("Lost connection", "server has gone away", "mysql_real_connect failed"),
        *("terminating connection", "server closed the connection"),
        *("connection pointer is NULL", r"PostgreSQL metadata source error:\s*$"),
    ]
)


def _shortened(text: str, most: int = 500) -> str:
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} … {text[-most // 2 :]}"


def _load_quietly() -> None:
    """Load ml_metadata such that it keeps to itself what it otherwise prints."""
    # Every connection to PostgreSQL, and every error, which it raises too.
    level = "GLOG_minloglevel"
    is_ours = level not in os.environ
    if is_ours:
        os.environ[level] = "3"
    try:
        import ml_metadata  # noqa: F401
    finally:
        if is_ours:
            del os.environ[level]
    logging.getLogger("absl").addFilter(_is_worth_a_line)


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Whether a line is no connection, password included, and no error raised too."""
    beginnings = ("ConnectionConfig", "mlmd client", "%s failed after retrying")
    return not str(record.msg).startswith(beginnings)


def without_password(url: str) -> str:
    hidden = re.sub(r"//([^:/@]*):.*@", r"//\1:…@", url)
    return re.sub(r"(://[^?#]*[?#]).*", r"\1…", hidden)


def sqlite_path(url: str) -> Path | None:
    """Return the file of an `sqlite:///` URL, or None for another kind of store."""
    if not url.startswith("sqlite:///") or url == "sqlite:///":
        return None  # elsewhere, or in memory
    return Path(unquote(url.removeprefix("sqlite:///")))


def connection(
    url: str, *, create: bool
) -> tuple[metadata_store_pb2.ConnectionConfig, Login | None]:
    """Return the connection that a URL describes, and the login if it is to a server.

    Raises:
        MetadataError: If it describes none, or an SQLite file that is not there.
    """
    _load_quietly()
    from ml_metadata.proto import metadata_store_pb2

    config = metadata_store_pb2.ConnectionConfig()
    config.retry_options.max_num_retries = 1  # the store itself tries again
    path = sqlite_path(url)
    if path is not None:
        if not create and not path.is_file():
            raise MetadataError(
                f"There is no lineage store at '{path}'. Run a pipeline first, or "
                "name the store with --root or --store."
            )
        if create:
            _make_folder(path)
        config.sqlite.filename_uri = str(path)
        config.sqlite.connection_mode = (
            metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        )
        return config, None
    if url == "sqlite://":
        config.fake_database.SetInParent()
        return config, None
    login = server(url)
    if login.scheme == "grpc":
        client = metadata_store_pb2.MetadataStoreClientConfig()
        client.host, client.port = login.host, login.port
        client.channel_arguments.max_receive_message_length = -1  # any answer
        return client, login
    # Databases are made by whoever knows how: with letters that differ by case.
    if login.scheme == "mysql":
        config.mysql.host, config.mysql.port = login.host, login.port
        config.mysql.user, config.mysql.password = login.user, login.password
        # Written into SQL as it is.
        config.mysql.database = f"`{login.database.replace('`', '``')}`"
        config.mysql.skip_db_creation = True
    else:
        # Written into libpq's connection string as they are.
        config.postgresql.host = _in_quotes(login.host)
        config.postgresql.port = str(login.port)
        config.postgresql.dbname = _in_quotes(login.database)
        config.postgresql.user = _in_quotes(login.user)
        config.postgresql.password = _in_quotes(login.password)
        config.postgresql.skip_db_creation = True
    return config, login


_PORTS = {"mysql": 3306, "postgresql": 5432}


def server(url: str) -> Login:
    """Return what a URL says of a server.

    Raises:
        MetadataError: If it names none.
    """
    try:
        parts = urlsplit(url)
        scheme = "postgresql" if parts.scheme == "postgres" else parts.scheme
        login = Login(
            scheme,
            parts.hostname or "",
            parts.port or _PORTS.get(scheme, 0),
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=unquote(parts.path.lstrip("/")),
        )
    except ValueError as error:  # a port that is none
        raise _no_store(url) from error
    named = bool(login.user), bool(login.database)
    wanted = {"grpc": (False, False)}.get(scheme, (True, True))
    is_known = scheme == "grpc" or scheme in _PORTS
    if not (is_known and login.host and login.port and named == wanted):
        raise _no_store(url)
    if parts.query or parts.fragment:
        raise MetadataError(
            f"'{without_password(url)}' has options ('?' or '#'), and lineage stores "
            "take none. Leave them out; in a password, '?' and '#' are written %3F "
            "and %23."
        )
    return login


def _in_quotes(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _no_store(url: str) -> MetadataError:
    return MetadataError(
        f"'{without_password(url)}' does not describe a lineage store. Write "
        "sqlite:///PATH, mysql://USER:PASSWORD@HOST:PORT/DATABASE, "
        "postgresql://USER:PASSWORD@HOST:PORT/DATABASE or grpc://HOST:PORT."
    )


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MetadataError(
            f"The lineage store '{path}' cannot be made: {error.strerror}: "
            f"'{error.filename}'. Choose a folder that you may write to."
        ) from error
    # Empty for now, so that processes take turns from the first moment. Where it
    # cannot be made, opening it says so.
    with suppress(OSError):
        path.touch(exist_ok=False)
