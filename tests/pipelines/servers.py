"""Servers for lineage stores on this machine, started for tests and gone with them."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from concurrent import futures
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

KINDS = [
    "sqlite",
    *(
        pytest.param(kind, marks=pytest.mark.stores)
        for kind in ("postgresql", "mariadb", "grpc")
    ),
]
"""What a store can be, for fixtures and tests that are run with each."""

USER = "tester"
PASSWORD = "p w'\\\"@:/?#%&=é"
"""Has all that URLs, SQL and connection strings have a use for."""


def unprivileged(*words: str | Path) -> list[str]:
    """Return a command that runs as nobody, and not longer than who started it."""
    anybody = ["--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    drop = anybody if os.geteuid() == 0 else []
    return ["setpriv", *drop, "--pdeathsig", "KILL", *map(str, words)]


def program(name: str, *folders: Path) -> Path:
    """Return where a server's program is."""
    places = [*map(str, folders), os.environ.get("PATH", ""), "/usr/sbin"]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        pytest.fail(f"There is no '{name}'. Run scripts/test-stores: it installs it.")
    return Path(found)


def temporary_folder() -> Path:
    """Make a folder, in memory where there is room: a database is hundreds of files."""
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > 2 << 30
    where = memory if has_room and os.access(memory, os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="penstock-stores-", dir=where))


class Server(ABC):
    """A database server with a data folder of its own, on a free port of loopback."""

    scheme: str
    abruptly: signal.Signals

    def __init__(self) -> None:
        self.folder = temporary_folder()
        if os.geteuid() == 0:
            shutil.chown(self.folder, "nobody")
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.numbers = itertools.count()
        self.make()
        self.start()

    @abstractmethod
    def make(self) -> None:
        """Make the data folder."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command that serves."""

    @abstractmethod
    def execute(self, statement: str, database: str = "") -> str:
        """Execute SQL as the administrator; return what it gives, in lines."""

    @abstractmethod
    def make_database(self, name: str) -> None:
        """Make a database as the guide says."""

    def start(self) -> None:
        """Start, and wait until it answers."""
        with open(self.folder / "log", "a") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, cwd=self.folder
            )
        ends = time.monotonic() + 60
        while True:
            try:
                self.execute("SELECT 1")
                return
            except subprocess.CalledProcessError as error:
                said = (self.folder / "log").read_text()
                assert self.process.poll() is None, said
                assert time.monotonic() < ends, f"{said}\n{error.stderr}"
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop without a word to anybody."""
        self.process.send_signal(self.abruptly)
        self.process.wait()

    def remove(self) -> None:
        """Stop for good."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str, user: str = USER, password: str = PASSWORD) -> str:
        """Return the URL of a database."""
        who = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"{self.scheme}://{who}@127.0.0.1:{self.port}/{database}"

    def new_store(self) -> str:
        """Make an empty database; return its URL."""
        name = f"lineage_{next(self.numbers)}"
        self.make_database(name)
        return self.url(name)


def ran(words: list[str], **environment: str) -> str:
    """Run a command of a database; return what it prints."""
    done = subprocess.run(
        words,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


class PostgreSQL(Server):
    """A PostgreSQL server."""

    scheme = "postgresql"
    abruptly = signal.SIGQUIT  # takes those along who serve connections

    def make(self) -> None:
        versions = Path("/usr/lib/postgresql").glob("*/bin")
        self.folders = sorted(versions, key=lambda bin: int(bin.parent.name))[::-1]
        password = self.folder / "password"
        password.write_text(PASSWORD)
        ran(
            unprivileged(
                program("initdb", *self.folders),
                *("--pgdata", self.folder / "data", "--username", USER),
                *("--auth", "scram-sha-256", "--pwfile", password),
                *("--encoding", "UTF8", "--locale", "C"),
            )
        )

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "fsync": "off",
            # Nothing is left in /dev/shm, however it ends.
            "dynamic_shared_memory_type": "mmap",
        }
        return unprivileged(
            *(program("postgres", *self.folders), "-D", self.folder / "data"),
            *(f"--{name}={value}" for name, value in settings.items()),
        )

    def execute(self, statement: str, database: str = "postgres") -> str:
        return ran(
            [
                *(str(program("psql", *self.folders)), "--no-psqlrc", "-qAt"),
                *("-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port)),
                *("-U", USER, "-d", database, "-c", statement),
            ],
            PGPASSWORD=PASSWORD,
        )

    def make_database(self, name: str) -> None:
        self.execute(f"CREATE DATABASE \"{name}\" ENCODING 'UTF8'")

    def cut(self) -> None:
        """End all connections."""
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )


class MariaDB(Server):
    """A MariaDB server."""

    scheme = "mysql"
    abruptly = signal.SIGKILL

    def make(self) -> None:
        ran(
            unprivileged(
                *(program("mariadb-install-db"), "--no-defaults", "--skip-test-db"),
                *("--auth-root-authentication-method=normal", "--skip-name-resolve"),
                f"--datadir={self.folder / 'data'}",
            )
        )
        secret = PASSWORD.replace("\\", "\\\\").replace("'", "\\'")
        (self.folder / "users.sql").write_text(
            f"CREATE USER IF NOT EXISTS '{USER}'@'127.0.0.1' IDENTIFIED BY '{secret}';"
            f"\nGRANT ALL ON *.* TO '{USER}'@'127.0.0.1' WITH GRANT OPTION;\n"
        )

    def command(self) -> list[str]:
        return unprivileged(
            *(program("mariadbd"), "--no-defaults", "--skip-name-resolve"),
            *(f"--datadir={self.folder / 'data'}", "--bind-address=127.0.0.1"),
            *(f"--port={self.port}", f"--socket={self.folder / 'socket'}"),
            *(
                f"--init-file={self.folder / 'users.sql'}",
                "--character-set-server=utf8mb4",
            ),
            *("--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=32M"),
        )

    def execute(self, statement: str, database: str = "") -> str:
        return ran(
            [
                *(str(program("mariadb")), "--no-defaults", "-h", "127.0.0.1"),
                *("-P", str(self.port), "-u", USER, "-N", "-B", "-e", statement),
                *([database] if database else []),
            ],
            MYSQL_PWD=PASSWORD,
        )

    def make_database(self, name: str) -> None:
        self.execute(
            f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
        )

    def cut(self) -> None:
        """End all connections."""
        listed = self.execute(
            "SELECT id FROM information_schema.processlist "
            "WHERE user <> 'system user' AND id <> CONNECTION_ID()"
        )
        for number in listed.split():
            self.execute(f"KILL {number}")


class Grpc:
    """Stands in for ML Metadata's server, which no wheel has, with its own library.

    The calls arrive as they do there, over gRPC, and are answered by what answers them
    there; only what takes them from one to the other is written here.
    """

    def __init__(self) -> None:
        self.folder = temporary_folder()
        self.numbers = itertools.count()
        self.servers: list[Any] = []

    def new_store(self) -> str:
        """Serve an empty SQLite store; return the server's URL."""
        import grpc
        from ml_metadata.metadata_store.pywrap.metadata_store_extension import (
            metadata_store as library,
        )
        from ml_metadata.proto import metadata_store_pb2 as pb

        config = pb.ConnectionConfig()
        config.sqlite.filename_uri = str(self.folder / f"{next(self.numbers)}.sqlite")
        config.sqlite.connection_mode = (
            pb.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        )
        opened = library.CreateMetadataStore(
            config.SerializeToString(), pb.MigrationOptions().SerializeToString()
        )
        codes = {code.value[0]: code for code in grpc.StatusCode}

        class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
            def service(self, call: Any) -> Any:
                method = getattr(library, call.method.rpartition("/")[2])

                def answer(request: bytes, context: Any) -> bytes:
                    reply, message, code = method(opened, request)
                    if code:
                        context.abort(codes[code], message.decode())
                    return bytes(reply)

                return grpc.unary_unary_rpc_method_handler(answer)

        server = grpc.server(futures.ThreadPoolExecutor(max_workers=1), [Handler()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self.servers.append(server)
        return f"grpc://127.0.0.1:{port}"

    def remove(self) -> None:
        """Stop all servers."""
        for server in self.servers:
            server.stop(None)
        shutil.rmtree(self.folder, ignore_errors=True)
