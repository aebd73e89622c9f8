"""Numbers."""

from typing import TYPE_CHECKING

from trips.settings import FACTOR

if TYPE_CHECKING:
    from decimal import Decimal

__all__ = ["scaled"]


def _times(value: int, factor: int = FACTOR) -> int:
    # A comment.
    product = value * factor
    return product


def scaled(value: "int | Decimal") -> int:
    """Scale a number."""
    return _times(int(value))
