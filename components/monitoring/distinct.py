"""How many distinct values a column has, estimated in about a kilobyte, mergeable.

HyperLogLog (Flajolet, Fusy, Gandouet & Meunier 2007) with the corrected estimator of
Ertl 2017 (arXiv 1702.01284), whose standard error is about 1.04 / sqrt(registers) at
every size. The hash is fixed, so that windows merge and no two machines differ.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

BITS = 11
"""Bits of the hash that choose the register."""

REGISTERS = 1 << BITS
"""How many registers a sketch has."""

STANDARD_ERROR = 1.04 / math.sqrt(REGISTERS)
"""Relative standard error of the estimate: 2.3 %."""

_REST = 64 - BITS


@dataclasses.dataclass(frozen=True, eq=False)
class Distinct:
    """A sketch of a set of 64-bit hashes.

    Attributes:
        registers: Shape (2048,), uint8: the longest run of zeros, plus one, that the
            hashes that fell into each end with.
    """

    registers: npt.NDArray[np.uint8]

    @classmethod
    def empty(cls) -> Distinct:
        """Return the sketch of nothing."""
        return cls(np.zeros(REGISTERS, np.uint8))

    @classmethod
    def of_hashes(cls, hashes: Hashes) -> Distinct:
        """Return the sketch of some well mixed hashes, shape (n,)."""
        registers = cls.empty().registers
        raise_registers(registers, hashes)
        return cls(registers)

    def __add__(self, other: Distinct) -> Distinct:
        return Distinct(np.maximum(self.registers, other.registers))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Distinct):
            return NotImplemented
        return bool((self.registers == other.registers).all())

    __hash__ = None  # type: ignore[assignment]

    def estimate(self) -> float:
        """Return about how many distinct values there were (Ertl 2017, algorithm 6)."""
        last = _REST + 1
        counts = np.bincount(self.registers, minlength=last + 1)
        found = REGISTERS * _tau(1 - counts[last] / REGISTERS)
        for rank in range(last - 1, 0, -1):
            found = 0.5 * (found + counts[rank])
        found += REGISTERS * _sigma(counts[0] / REGISTERS)
        if math.isinf(found):
            return 0.0
        return float(REGISTERS * REGISTERS / (2 * math.log(2)) / found)


def raise_registers(registers: npt.NDArray[np.uint8], hashes: Hashes) -> None:
    """Add hashes to registers, in place.

    The lowest set bit stands in for the leading one: it is as likely, and found at
    once, being the exponent of a float that the power of two is exactly.

    Args:
        registers: Shape (2048,), uint8.
        hashes: Well mixed, shape (n,), uint64.
    """
    # Below the least register nothing can rise: most hashes need no look any more.
    if least := int(registers.min()):
        hashes = hashes[hashes & np.uint64((1 << least) - 1) == 0]
    register = (hashes >> np.uint64(_REST)).astype(np.int64)
    lowest = hashes & (~hashes + np.uint64(1))
    exponent = lowest.astype(np.float64).view(np.int64) >> 52
    # Zero has no lowest bit, and those of the register itself do not count.
    rank = np.where(lowest == 0, _REST + 1, exponent - 1022)
    rank = np.minimum(rank, _REST + 1).astype(np.uint8)
    np.maximum.at(registers, register, rank)


def _tau(share: float) -> float:
    if share in (0.0, 1.0):
        return 0.0
    weight, found = 1.0, 1 - share
    while True:
        share = math.sqrt(share)
        before = found
        weight *= 0.5
        found -= (1 - share) ** 2 * weight
        if before == found:
            return found / 3


def _sigma(share: float) -> float:
    if share == 1.0:
        return math.inf
    weight, found = 1.0, share
    while True:
        share *= share
        before = found
        found += share * weight
        weight += weight
        if before == found:
            return found
