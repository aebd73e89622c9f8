"""Which units a candidate answers: a salted hash, and nothing else.

A unit's place is the first 8 bytes of SHA-256(salt, a zero byte, the unit's id), as a
number; the candidate answers the units whose place is below its weight. So a unit is
answered by the same version by every router and after every restart; a rising weight
only adds units to the candidate, and weight 0 takes them all away at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from itertools import islice

import numpy as np
import numpy.typing as npt

PLACES = 2**64
"""How many places there are; each is equally likely for a unit."""

# Tells units apart in reports. It must say nothing of the place, and no salt does.
_UNIT_PREFIX = b"penstock unit\0"

_BYTES = 8
_CHUNK = 100_000  # whole digests of so many are held at once


def place(salt: str, unit: str) -> int:
    """Return the place of a unit, from 0 to `PLACES` - 1."""
    hashed = sha256(b"%b\0%b" % (salt.encode(), unit.encode("utf-8", "surrogatepass")))
    return int.from_bytes(hashed.digest()[:_BYTES], "big")


def places(salt: str, units: Iterable[str]) -> npt.NDArray[np.uint64]:
    """Return the places of many units, as a uint64 array in their order."""
    return _first_bytes(salt.encode() + b"\0", units)


def end_of(weight: float) -> int:
    """Return the first place that the candidate does not answer any more.

    Compared as whole numbers, because places near the end would round up to 1, which
    is not below the weight 1.

    Args:
        weight: Share of units that the candidate answers, from 0 to 1.
    """
    return int(weight * PLACES)


def is_candidate(salt: str, unit: str | None, weight: float) -> bool:
    """Return whether the candidate answers a unit; it never does for one without id."""
    return unit is not None and place(salt, unit) < end_of(weight)


def unit_number(unit: str) -> int:
    """Return 64 bits of a hash that names a unit in reports, as a signed number.

    It does not depend on the salt, nor does the place of a unit depend on it.
    """
    hashed = sha256(_UNIT_PREFIX + unit.encode("utf-8", "surrogatepass"))
    return int.from_bytes(hashed.digest()[:_BYTES], "big", signed=True)


def unit_numbers(units: Iterable[str]) -> npt.NDArray[np.int64]:
    """Return what `unit_number` does of many units, as an int64 array."""
    return _first_bytes(_UNIT_PREFIX, units).view(np.int64)


def _first_bytes(prefix: bytes, units: Iterable[str]) -> npt.NDArray[np.uint64]:
    step = sha256().digest_size // _BYTES
    left = iter(units)
    parts = []
    while some := list(islice(left, _CHUNK)):
        digests = b"".join(
            [
                sha256(prefix + unit.encode("utf-8", "surrogatepass")).digest()
                for unit in some
            ]
        )
        parts.append(np.frombuffer(digests, ">u8")[::step].astype(np.uint64))
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)
