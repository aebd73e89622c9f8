"""Which artifacts an expression over their properties is true of: `auc > 0.9`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from penstock.schemas.artifacts import Artifact, PropertyValue
from penstock.schemas.errors import MetadataError, PipelineError, did_you_mean, quoted

if TYPE_CHECKING:
    import pyarrow as pa

A = TypeVar("A", bound=Artifact)

# The store keeps these as text, because SQL has no such numbers.
_NOT_FINITE = {str(each): each for each in (math.nan, math.inf, -math.inf)}


def properties_read(text: str) -> tuple[str, ...]:
    """Return the properties that an expression reads, sorted.

    Args:
        text: The expression, as `penstock.components.evaluation.expressions` has it.

    Raises:
        PipelineError: If it is none.
    """
    from penstock.components.evaluation.expressions import parse

    return tuple(sorted(parse(text).columns))


def check(text: str) -> None:
    """Check that an expression is true or false of an artifact.

    Args:
        text: The expression.

    Raises:
        PipelineError: If it is no expression, or one that is neither true nor false.
    """
    from penstock.components.evaluation.expressions import parse

    if parse(text).results != ("false", "true"):
        raise PipelineError(
            f"Expression '{text}' is neither true nor false of an artifact. Compare "
            "it with something, as in auc > 0.9."
        )


def where(artifacts: Sequence[A], text: str) -> list[A]:
    """Return the artifacts that an expression over their properties is true of.

    A property that an artifact does not have is missing, and what is compared with a
    missing value is not true; so is one that is a list or a dict.

    Args:
        artifacts: Where to look, as the store gives them.
        text: The expression, such as auc > 0.9 or `auc (class 1)` > 0.9; names that
            are no words stand in backticks.

    Raises:
        PipelineError: If it is no expression, or one that is neither true nor false.
        MetadataError: If no artifact has a property that it reads, or one is text in
            some artifacts and a number in others.
        DataError: If it compares text with numbers.
    """
    check(text)
    for name in properties_read(text):
        _check_known(artifacts, name)
    return true_of(artifacts, text)


def true_of(artifacts: Sequence[A], text: str) -> list[A]:
    """Return the artifacts that an expression is true of, as `where` does.

    Here it may read a property that none of them has.

    Args:
        artifacts: Where to look.
        text: An expression that `check` allows.

    Raises:
        MetadataError: If a property is text in some artifacts and a number in others.
        DataError: If it compares text with numbers.
    """
    import pyarrow as pa

    from penstock.components.evaluation.expressions import parse

    names = properties_read(text)
    columns = [_column(artifacts, name) for name in names]
    batch = pa.RecordBatch.from_arrays(columns, names=list(names))
    answers = parse(text).evaluate(batch).to_pylist()
    return [
        each for each, said in zip(artifacts, answers, strict=True) if said == "true"
    ]


def _check_known(artifacts: Sequence[Artifact], name: str) -> None:
    legal = {
        key
        for each in artifacts
        for key in each.properties
        if not key.startswith("penstock_")
    }
    if name not in legal:
        near = did_you_mean(name, legal) or " Text stands in quotes."
        raise MetadataError(
            f"No artifact has the property '{name}' (there are {quoted(legal)}).{near}"
        )


def _column(artifacts: Sequence[Artifact], name: str) -> pa.Array:
    import pyarrow as pa

    values = [_plain(each.properties.get(name)) for each in artifacts]
    if {each for each in values if isinstance(each, str)} <= _NOT_FINITE.keys():
        values = [
            _NOT_FINITE[each] if isinstance(each, str) else each for each in values
        ]
    having = [
        (each, value)
        for each, value in zip(artifacts, values, strict=True)
        if value is not None
    ]
    texts = [each for each, value in having if isinstance(value, str)]
    numbers = [each for each, value in having if not isinstance(value, str)]
    if texts and numbers:
        number, text = numbers[0], texts[0]
        raise MetadataError(
            f"Property '{name}' is a number in {number.TYPE_NAME} {number.id} and text "
            f"in {text.TYPE_NAME} {text.id}, so that no comparison fits both. Name one "
            "type with --type."
        )
    if any(isinstance(value, float) for value in values):
        # Not left to Arrow, which refuses whole numbers that a float only rounds.
        values = [float(each) if isinstance(each, int) else each for each in values]
    return pa.array(values)


def _plain(value: PropertyValue | None) -> int | float | str | None:
    return value if isinstance(value, int | float | str) else None
