"""Loads a SavedModel in a process of its own, to learn whether a server could."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.components.serving import fresh_process
from penstock.schemas.errors import DataError


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
    ended = fresh_process.run(
        "penstock.components.serving.infra_check:load",
        (str(folder), subject),
        temp_dir,
        progress,
    )
    found = ended.answer
    if found is None:
        raise DataError(
            f"{subject} cannot be loaded: {ended.death}. {ended.said}Load it with "
            "tf.saved_model.load to see why."
        )
    if "error" in found:
        raise DataError(
            f"{subject} cannot be loaded: {found['error']} Train it again, or export "
            "it anew."
        )
    if not found["signatures"]:
        raise DataError(
            f"{subject} has no signature, so a model server cannot answer with it. "
            'Save it with signatures={"serving_default": ...}, or with model.export.'
        )
    return {key: found[key] for key in ("signatures", "tensorflow")}
