"""A program that answers as a server double, to be started as a child process.

It takes the flags of a model server, and before them how it is to behave: 'answer',
'die', 'silent' (it never answers) or 'stay' (it does not end when told to).
"""

from __future__ import annotations

import signal
import sys
import threading

from tests.components.serving.server_double import running_double


def main(behavior: str, *arguments: str) -> None:
    """Behave that way until the process is ended."""
    flags = dict(argument[2:].split("=", 1) for argument in arguments)
    print("flags:", " ".join(sorted(flags)), flush=True)
    if behavior == "die":
        print("Failed to start server. Error: no such model", file=sys.stderr)
        raise SystemExit(1)
    if behavior == "stay":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behavior == "silent":
        threading.Event().wait()
    with running_double(port=int(flags["port"])):
        threading.Event().wait()


main(*sys.argv[1:])
