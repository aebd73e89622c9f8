"""SavedModels on disk: whether one can be served, and the same bytes every time."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, MutableSet
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


def settle_fingerprint(folder: Path) -> None:
    """Derive the random id in a SavedModel's fingerprint from the fingerprint itself.

    TensorFlow 2.17 and newer give every writing a random id, the only byte that would
    differ between two writings of the same model.
    """
    from tensorflow.core.protobuf import fingerprint_pb2

    file = folder / "fingerprint.pb"
    if not file.is_file():
        return
    fingerprint = fingerprint_pb2.FingerprintDef.FromString(file.read_bytes())
    if getattr(fingerprint, "uuid", ""):
        fingerprint.uuid = ""
        content = hashlib.sha256(fingerprint.SerializeToString(deterministic=True))
        # TensorFlow writes a number of 64 bits in decimal digits.
        fingerprint.uuid = str(int.from_bytes(content.digest()[:8], "big"))
        file.write_bytes(fingerprint.SerializeToString(deterministic=True))


@contextlib.contextmanager
def ordered_variables() -> Iterator[None]:
    """Let TensorFlow list the variables of a function in the order of their use.

    While it traces a function it collects the variables in a set of addresses, and
    what comes out of the set is in another order in every process. Savers number
    variables in that order, so the same model would have other bytes each time.
    """
    from tensorflow.python.util import object_identity

    unordered: Any = object_identity.ObjectIdentityWeakSet

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


class _Ordered(MutableSet[Any]):
    """As much of a set as TensorFlow's needs, in the order of insertion."""

    def __init__(self) -> None:
        self._items: dict[Any, None] = {}

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Any) -> None:
        self._items.setdefault(item)

    def discard(self, item: Any) -> None:
        self._items.pop(item, None)

    def update(self, items: Iterable[Any]) -> None:
        for item in items:
            self.add(item)


def _first_line(error: BaseException) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text.rstrip(".") + "."
