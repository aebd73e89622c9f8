"""Children that kill themselves at a call, and what came of them.

The calls are hooked from outside, in the child; nothing of penstock knows of it.
"""

from __future__ import annotations

import builtins
import fcntl
import io
import multiprocessing
import os
import signal
import sqlite3
import threading
import time
import traceback
import types
from collections import Counter
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

# What these return comes from no file system, so there is no point in dying there.
_NOT_FILES = {
    *("_exit", "cpu_count", "fspath", "get_inheritable", "getegid", "geteuid"),
    *("getpid", "getppid", "kill", "process_cpu_count", "sched_getaffinity"),
    *("sched_yield", "strerror", "urandom"),
}

_CHANGING = {
    *("os.mkdir", "os.rename", "os.replace", "os.link", "os.symlink", "os.truncate"),
    *("os.fsync", "os.fdatasync", "os.ftruncate", "os.write"),
    *("os.unlink", "os.remove", "os.rmdir", "flock"),
}


class Calls:
    """Counts the calls of a process, and kills it at one of them.

    A point reads `before os.mkdir <serving>/.penstock/staging/<push> 1`; the number at
    the end tells equal calls apart.

    Args:
        named: Gives the name that stands for a path in points.
        kill_at: The point to die at; None for none.

    Attributes:
        points: Those that were reached.
        are_counted: Whether what is called now is a point.
    """

    def __init__(self, named: Callable[[str], str], kill_at: str | None) -> None:
        self.points: list[str] = []
        self.are_counted = True
        self._named = named
        self._kill_at = kill_at
        self._seen: Counter[str] = Counter()
        self._paths: dict[int, str] = {}
        self._lock = threading.Lock()
        self._kill, self._getpid = os.kill, os.getpid

    def hook_files(self, *, below: str | None = None) -> None:
        """Put itself between this process and the file system, for good.

        Args:
            below: Only calls that change something count, and only if the name of
                what they change begins with this.
        """
        for name, call in list(vars(os).items()):
            if isinstance(call, types.BuiltinFunctionType) and name not in _NOT_FILES:
                setattr(os, name, self._file_call(f"os.{name}", call, below))
        fcntl.flock = self._file_call("flock", fcntl.flock, below)
        builtins.open = io.open = self._file_call("open", builtins.open, below)

    def hook_sqlite(self) -> None:
        """Put itself before and after every statement of SQLite, for good.

        SQLite writes its files by itself, where no call can be hooked; what is on the
        disk changes with its statements.
        """
        around = self._around

        class Recorded(sqlite3.Connection):
            def execute(self, sql: str, *args: Any) -> Any:
                label = f"sqlite {' '.join(sql.split()[:3])}"
                return around(label, lambda: super(Recorded, self).execute(sql, *args))

        connect = sqlite3.connect
        sqlite3.connect = lambda *args, **kwargs: connect(
            *args, **{**kwargs, "factory": Recorded}
        )

    def hook(
        self, owner: Any, name: str, label: Callable[[tuple[Any, ...]], str]
    ) -> None:
        """Put itself before and after a function or method, for good.

        Args:
            owner: The module or class that has it.
            name: Its name there.
            label: Names a call by its arguments.
        """
        call = getattr(owner, name)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return self._around(label(args), lambda: call(*args, **kwargs))

        setattr(owner, name, wrapper)

    def _file_call(self, name: str, call: Callable[..., Any], below: str | None) -> Any:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            where = self.where(args, kwargs)
            counts = below is None or (
                where.startswith(below) and _changes(name, args, kwargs)
            )
            if counts:
                label = f"{name} {where}"
                result = self._around(label, lambda: call(*args, **kwargs))
            else:
                result = call(*args, **kwargs)
            if name == "os.open":
                self._paths[result] = where
            elif name == "open":
                self._paths[result.fileno()] = where
            return result

        return wrapper

    def _around(self, label: str, call: Callable[[], Any]) -> Any:
        if not self.are_counted:
            return call()
        with self._lock:
            self._seen[label] += 1
            point = f"{label} {self._seen[label]}"
        self._reach(f"before {point}")
        result = call()
        self._reach(f"after {point}")
        return result

    def _reach(self, point: str) -> None:
        self.points.append(point)
        if point == self._kill_at:
            self._kill(self._getpid(), signal.SIGKILL)
            time.sleep(60)  # The signal may take a moment; nothing more is done.

    def where(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
    ) -> str:
        """Return the name of what a call of the file system is about."""
        subject = args[0] if args else "."
        if hasattr(subject, "fileno"):
            subject = subject.fileno()
        if isinstance(subject, int):
            return self._paths.get(subject, "descriptor")
        path = self._named(os.fsdecode(subject))
        folder = (kwargs or {}).get("dir_fd")
        return path if folder is None else f"{self._paths[folder]}/{path}"


def _changes(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if name == "os.open":
        return bool(args[1] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    if name == "open":
        mode = kwargs.get("mode", args[1] if len(args) > 1 else "r")
        return any(each in mode for each in "wax+")
    return name in _CHANGING


def forked(work: Callable[[Connection], None]) -> tuple[int, Connection]:
    """Do something in a child; return its number, and where it may answer."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    pid = os.fork()
    if pid:
        sender.close()
        return pid, receiver
    try:
        work(sender)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def ended(pid: int) -> int:
    """Return how a child ended: 0, or minus the signal that killed it."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code > 0:
        raise RuntimeError("A child failed without being killed; see its traceback.")
    return code


def answered(pid: int, pipe: Connection) -> Any:
    """Return what a child answers, which nobody kills."""
    try:
        said = pipe.recv()
    except EOFError:
        said = None  # It died; `ended` says so.
    if ended(pid):
        raise RuntimeError("A child was killed that nobody meant to kill.")
    return said
