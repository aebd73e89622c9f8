"""What is set, in one place."""

import dataclasses
import enum

FACTOR = 2
UNUSED = 7


class Mode(enum.Enum):
    """How words are written."""

    KEEP = "keep"
    UPPER = "upper"


@dataclasses.dataclass(frozen=True)
class Limits:
    """Which numbers are kept."""

    low: int = 0
    high: float = 99.0
