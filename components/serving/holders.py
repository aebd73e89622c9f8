"""Who holds a lease, told from every other process, and whether it still lives."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import socket
import time
from pathlib import Path


def actor() -> str:
    """Return this process for people to read, as host and number."""
    return f"{socket.gethostname()}:{os.getpid()}"


def this_holder() -> str:
    """Return what tells this process from every other, of any machine and boot."""
    return json.dumps(
        {
            "host": socket.gethostname(),
            "boot": boot_id(),
            "pids": _pid_namespace(),
            "pid": os.getpid(),
            "started": _started(os.getpid()),
        },
        sort_keys=True,
    )


def boot_id() -> str:
    """Return what tells this boot of the machine from others; empty if unknown."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return ""


def _pid_namespace() -> str:
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def _started(pid: int) -> str:
    """Return when a process began, in ticks since boot; empty if there is none."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESRCH):
            return ""
        raise
    # The name of a program, in parentheses, may hold anything.
    fields = re.sub(r".*\)", "", status, flags=re.DOTALL).split()
    # A zombie does nothing any more, though it still has a number.
    return "" if fields[0] in "ZX" else fields[19]


def is_dead(holder: str) -> bool:
    """Return whether a holder is known to be dead, as far as it can be seen from here.

    Process numbers mean nothing in another container, or after another boot.
    """
    it = json.loads(holder)
    if it["boot"] != boot_id():
        return bool(it["host"] == socket.gethostname())
    if it["pids"] != _pid_namespace() or it["host"] != socket.gethostname():
        return False
    return bool(it["started"] != _started(it["pid"]))


def silent_seconds(holder: str, renewed: float) -> float:
    """Return how long ago a holder was heard of, by the monotonic clock."""
    # The monotonic clock is one and the same for all processes since the boot.
    if json.loads(holder)["boot"] != boot_id():
        return float("inf")
    return max(0.0, time.monotonic() - renewed)


def readable(holder: str) -> str:
    """Return a holder as texts show it."""
    it = json.loads(holder)
    return f"process {it['pid']} of '{it['host']}'"
