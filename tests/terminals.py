"""Programs as people see them: on a terminal of their own."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

COLUMNS = 100


def on_terminal(
    command: Sequence[str | Path], environment: Mapping[str, str]
) -> tuple[int, str]:
    """Run a program on a terminal of `COLUMNS` columns and 40 lines.

    Returns:
        Its exit code, and all that it wrote, with the terminal's commands.
    """
    ours, theirs = pty.openpty()
    size = {"TERM": "xterm", "COLUMNS": str(COLUMNS), "LINES": "40"}
    process = subprocess.Popen(
        command,
        env={**environment, **size},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    while True:
        ready, _, _ = select.select([ours], [], [], 60)
        assert ready
        try:
            block = os.read(ours, 65_536)
        except OSError:  # the other side is closed
            break
        if not block:
            break
        seen += block
    os.close(ours)
    return process.wait(), seen.decode()


def after_live(text: str) -> list[str]:
    """Return the lines that stay on a terminal when what is live is gone."""
    left = text[text.rindex("\x1b[?25h") :]
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", left).replace("\r", "")
    return [line.rstrip() for line in plain.splitlines()]
