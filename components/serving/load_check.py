"""Loads a SavedModel in a process of its own, to learn whether a server could."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.schemas.errors import DataError

_POLL_SECONDS = 0.1
_PR_SET_PDEATHSIG = 1  # from Linux's prctl.h


def check_loads(
    folder: Path, subject: str, temp_dir: Path, progress: Callable[[], object]
) -> dict[str, Any]:
    """Load a SavedModel with the tag 'serve' in a fresh process.

    Args:
        folder: Folder of the SavedModel.
        subject: What texts call the model.
        temp_dir: Where the process may leave its answer and what it prints.
        progress: Called often; may raise to stop the process.

    Returns:
        The names of its `signatures`, sorted, and the version of `tensorflow` that
        loaded it.

    Raises:
        DataError: If it does not load, or has no signature.
    """
    answer, log = temp_dir / "load-check.json", temp_dir / "load-check.log"
    answer.unlink(missing_ok=True)
    code = f"import sys; from {__name__} import main; main(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(folder), str(answer)]
    with open(log, "wb") as printed:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=printed,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
                # Whether it loads does not depend on a GPU, which others may hold.
                "CUDA_VISIBLE_DEVICES": "-1",
                "TF_CPP_MIN_LOG_LEVEL": "2",
            },
            start_new_session=True,  # so that Ctrl-C reaches it only through us
        )
        try:
            while process.poll() is None:
                progress()
                time.sleep(_POLL_SECONDS)
        finally:
            process.kill()
            process.wait()
    if not answer.exists():
        raise DataError(
            f"{subject} cannot be loaded: {_death(process.returncode)}. "
            f"{_last_words(log)}Load it with tf.saved_model.load to see why."
        )
    found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in found:
        why = found["error"].replace(str(folder), subject)
        raise DataError(
            f"{subject} cannot be loaded: {why} Train it again, or export it anew."
        )
    if not found["signatures"]:
        raise DataError(
            f"{subject} has no signature, so a model server cannot answer with it. "
            'Save it with signatures={"serving_default": ...}, or with model.export.'
        )
    return found


def _death(code: int) -> str:
    if code == -signal.SIGKILL:
        return (
            "the process that tried was ended by SIGKILL, as the system does when "
            "memory runs out"
        )
    if code < 0:
        return f"the process that tried was ended by {signal.Signals(-code).name}"
    return f"the process that tried exited with code {code}"


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"It said: '{lines[-1].strip()[:300]}'. " if lines else ""


def main(folder: str, answer: str) -> None:
    """Load a SavedModel and write what came of it to a file."""
    # If the parent is killed, so is this process: nobody waits for the answer.
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    import tensorflow as tf

    found: dict[str, Any]
    try:
        loaded = tf.saved_model.load(folder, tags=["serve"])
        signatures = sorted(loaded.signatures)
        found = {"signatures": signatures, "tensorflow": tf.__version__}
    except Exception as error:  # whatever is wrong with it, TensorFlow raises anything
        first = (str(error).strip() or "no reason given").splitlines()[0]
        found = {"error": f"{type(error).__name__}: {first.rstrip('.')}."}
    partial = f"{answer}.partial"
    Path(partial).write_text(json.dumps(found), encoding="utf-8")
    os.replace(partial, answer)
