"""SavedModels on disk: whether one can be served, and the same bytes every time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock.schemas.errors import DataError, quoted

SERVING_SIGNATURE = "serving_default"
"""The signature that TensorFlow Serving, and TFMA, call when a request names none."""


def checked_signatures(folder: Path) -> list[str]:
    """Load a SavedModel and return the names of its signatures, sorted.

    Args:
        folder: What the train function was told as `fn_args.serving_model_dir`.

    Raises:
        DataError: If it holds no SavedModel, or one that does not load or has no
            signature `serving_default`.
    """
    import tensorflow as tf

    if not folder.is_dir() or not any(folder.iterdir()):
        raise DataError(
            f"The train function returned without a model: it wrote nothing to "
            f"'{folder}'. Export the model there, for Keras 3 with "
            "model.export(fn_args.serving_model_dir)."
        )
    if not (folder / "saved_model.pb").is_file():
        names = [each.name for each in folder.iterdir()]
        raise DataError(
            f"The train function wrote no SavedModel to '{folder}': there is no "
            f"'saved_model.pb' (it has {quoted(names)}). Export the model, for Keras 3 "
            "with model.export(fn_args.serving_model_dir)."
        )
    try:
        signatures = sorted(tf.saved_model.load(str(folder), tags=["serve"]).signatures)
    except Exception as error:  # whatever is wrong with it, TensorFlow raises anything
        raise DataError(
            f"The model in '{folder}' cannot be loaded: {_first_line(error)} Write it "
            "whole, once, at the end of the train function."
        ) from error
    if SERVING_SIGNATURE not in signatures:
        raise DataError(
            f"The model in '{folder}' has no signature '{SERVING_SIGNATURE}' (it has "
            f"{quoted(signatures)}), so a model server cannot answer with it. Save it "
            f'with signatures={{"{SERVING_SIGNATURE}": ...}}, or with model.export.'
        )
    return signatures


def framework(folder: Path) -> str:
    """Return what wrote a SavedModel that this process made, with its version."""
    import tensorflow as tf

    if (folder / "keras_metadata.pb").is_file():
        import tf_keras

        return f"tf_keras {tf_keras.__version__}, tensorflow {tf.__version__}"
    import keras

    return f"keras {keras.__version__}, tensorflow {tf.__version__}"


@contextlib.contextmanager
def ordered_variables() -> Iterator[None]:
    """Let TensorFlow list the variables of a function in the order of their use.

    While it traces a function it collects the variables in a set of addresses, and
    what comes out of the set is in another order in every process. Savers number
    variables in that order, so the same model would have other bytes each time.
    """
    from tensorflow.python.util import object_identity

    unordered = object_identity.ObjectIdentityWeakSet

    class OrderedWeakSet(unordered):  # type: ignore[misc]
        def __init__(self, *items: Any) -> None:
            super().__init__()
            self._storage = _Ordered()
            for item in items:
                self.add(item)

    object_identity.ObjectIdentityWeakSet = OrderedWeakSet
    try:
        yield
    finally:
        object_identity.ObjectIdentityWeakSet = unordered


class _Ordered(dict[Any, None]):
    """As much of a set as TensorFlow's needs, in the order of insertion."""

    def add(self, item: Any) -> None:
        self.setdefault(item)

    def discard(self, item: Any) -> None:
        self.pop(item, None)


def _first_line(error: BaseException) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text.rstrip(".") + "."
