"""Which of the outputs of a model is the prediction, as TFMA chooses it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

import numpy as np

from penstock.components.columns.inputs import Inputs
from penstock.schemas.errors import DataError, did_you_mean, quoted

Array: TypeAlias = "np.ndarray[Any, Any]"

# The outputs that TFMA takes for the prediction where none is named, in this order:
# those of TensorFlow's classification and regression signatures, and of estimators.
_USUAL = ("scores", "outputs", "predictions", "logistic", "probabilities", "logits")


def chosen(
    subject: str,
    given: Collection[str],
    wanted: Collection[str],
    key: str = "",
    keys: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return which output of a model each wanted one is.

    Args:
        subject: What gives the outputs, in texts.
        given: Names of the outputs that there are.
        wanted: Output names that metrics ask for; '' is the prediction.
        key: `prediction_key` of the ModelSpec.
        keys: Its `prediction_keys`, which rename outputs.

    Raises:
        DataError: If there is no such output, or none is known for the prediction.
    """
    return {
        name: _named(subject, given, (keys or {}).get(name, name))
        if name
        else _prediction(subject, given, key)
        for name in wanted
    }


def _named(subject: str, given: Collection[str], name: str) -> str:
    if name in given:
        return name
    raise DataError(
        f"{subject} gives no output '{name}' (it gives {quoted(given)})."
        f"{did_you_mean(name, given)} Mend output_names of the MetricsSpec, or the "
        "prediction keys of the ModelSpec."
    )


def _prediction(subject: str, given: Collection[str], key: str) -> str:
    if len(given) == 1:
        return next(iter(given))
    if key:
        return _named(subject, given, key)
    for name in _USUAL:
        if name in given:
            return name
    raise DataError(
        f"{subject} gives {quoted(given)}, and nothing says which of them is the "
        "prediction. Set prediction_key in the ModelSpec, or output_names in the "
        "MetricsSpecs."
    )


def picked(
    subject: str, outputs: Mapping[str, Array], keys: Mapping[str, str], rows: int
) -> dict[str, Array]:
    """Return the wanted of a model's outputs.

    Args:
        subject: What gave them, in texts.
        outputs: All that it gave.
        keys: Which of them each wanted one is, as `chosen` returns them.
        rows: How many rows it was given.

    Raises:
        DataError: If one has another number of rows.
    """
    found = {}
    for wanted, name in keys.items():
        found[wanted] = outputs[name]
        if found[wanted].shape[:1] != (rows,):
            output = f"Output '{name}' of {subject}" if name else f"What {subject} says"
            raise DataError(
                f"{output} has the shape {found[wanted].shape} for {rows} rows. Make "
                "the model give one output per row."
            )
    return found


def by_parts(
    rows: Inputs, most: int, answer: Callable[[Inputs], dict[str, Array]]
) -> dict[str, Array]:
    """Return what a model says of rows, asked for no more than some at once."""
    answers = [answer(part) for part in rows.parts(most)]
    return {name: _stacked([each[name] for each in answers]) for name in answers[0]}


def _stacked(arrays: list[Array]) -> Array:
    """Put arrays one below the other; shorter rows are padded, as of ragged tensors."""
    if len(arrays) == 1:
        return arrays[0]
    if len({each.shape[1:] for each in arrays}) > 1:
        widths = np.max([each.shape[1:] for each in arrays], axis=0)
        padding = b"" if arrays[0].dtype == object else 0
        arrays = [
            np.pad(
                each,
                [(0, 0), *((0, gap) for gap in widths - each.shape[1:])],
                constant_values=padding,
            )
            for each in arrays
        ]
    return np.concatenate(arrays)
