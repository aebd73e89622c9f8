"""Samples of rows that are the same on any machine, with weights that stay true.

What decides on a row is a keyed hash of its id and of the probability that it was kept
with before: neither the order of rows, nor batches. So two machines that see parts of a
log keep the same rows as one that sees it whole, a row once kept is kept again, and a
sample of a sample is one, whatever its seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.components.monitoring.logs import PROBABILITY, STRATUM, LogTable
from penstock.schemas.errors import DataError, did_you_mean, quoted

Array: TypeAlias = "np.ndarray[Any, Any]"

_ROUND = 0xA0761D6478BD642F
_LENGTH = 0xE7037ED1A0B428DB
_MASK = (1 << 64) - 1
_BLOCK = 1 << 16  # ids hashed at once, so that what is in between stays small


def hashes(ids: pa.Array | pa.ChunkedArray, seed: int = 0) -> Array:
    """Return 64 bits of a keyed hash of each id.

    The bytes of an id, in words of 64 bits, are mixed one after the other with
    SplitMix64's finalizer (Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators", OOPSLA 2014; constants of Stafford's variant 13). It is no
    cryptographic hash: who chooses ids can choose what is kept.

    Args:
        ids: Text; integers count as their decimal digits.
        seed: The key; any whole number.

    Returns:
        uint64, shape (ids,).

    Raises:
        DataError: An id is missing.
    """
    if ids.null_count:
        raise DataError(
            f"{ids.null_count:,} of {len(ids):,} ids are missing, and nothing decides "
            "on rows without one. Leave such rows out, or give them ids."
        )
    if isinstance(ids, pa.ChunkedArray):
        chunks = [hashes(chunk, seed) for chunk in ids.chunks]
        return np.concatenate(chunks) if chunks else np.zeros(0, np.uint64)
    array = ids
    if not pa.types.is_large_binary(array.type):
        array = array.cast(pa.large_string()).cast(pa.large_binary())
    count = len(array)
    offsets = np.frombuffer(array.buffers()[1], np.int64)[
        array.offset : array.offset + count + 1
    ]
    data = array.buffers()[2]
    content = np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8)
    key = _mixed_int(seed ^ _ROUND)
    parts = [
        _hashed(content, offsets[start : start + _BLOCK + 1], key)
        for start in range(0, count, _BLOCK)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.uint64)


def _hashed(content: Array, offsets: Array, key: int) -> Array:
    starts, lengths = offsets[:-1], np.diff(offsets)
    state = np.full(len(starts), key, np.uint64)
    state ^= lengths.astype(np.uint64) * np.uint64(_LENGTH)
    words = -(-lengths // 8)
    rows = np.arange(len(starts))
    for word in range(int(words.max())):
        rows = rows[words[rows] > word]
        place = np.arange(word * 8, word * 8 + 8)
        at = np.minimum(starts[rows][:, None] + place, len(content) - 1)
        inside = place < lengths[rows][:, None]
        value = np.where(inside, content[at], np.uint8(0)).view("<u8").ravel()
        state[rows] = _mixed(state[rows] ^ _mixed(value + np.uint64(_ROUND)))
    return _mixed(state)


def _mixed(value: Array) -> Array:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = value ^ (value >> np.uint64(31))
    return mixed


def _mixed_int(value: int) -> int:
    return int(_mixed(np.array([value & _MASK], np.uint64))[0])


def drawn(log: LogTable, seed: int = 0) -> Array:
    """Return 64 random bits for each row of a log: uint64, shape (rows,).

    Those of a row that was kept with another probability before are others: of rows
    that were kept because their number is small, the same number says nothing new.
    """
    before = log.probabilities.view(np.uint64) + np.uint64(_ROUND)
    found: Array = _mixed(hashes(log.ids, seed) ^ _mixed(before))
    return found


def uniforms(log: LogTable, seed: int = 0) -> Array:
    """Return a number from [0, 1) for each row of a log: float64, shape (rows,)."""
    found: Array = (drawn(log, seed) >> np.uint64(11)) * 2.0**-53
    return found


def thinned(log: LogTable, *, seed: int = 0, to: float | None = None) -> LogTable:
    """Bring rows that were kept with different probabilities to one.

    A row that was kept with probability p stays with probability `to` / p, so that
    every request had the same chance to be among the rows, and their counts are those
    of a simple sample.

    Args:
        log: The rows.
        seed: Which of them.
        to: The probability; the smallest of the rows if None. Give the same to logs
            that are compared.

    Returns:
        The rows that stay, all with the probability `to`.

    Raises:
        DataError: A row was kept with less than `to`.
    """
    probabilities = log.probabilities
    if not len(probabilities):
        return log
    least = float(probabilities.min())
    target = least if to is None else to
    if not 0 < target <= least:
        raise DataError(
            f"{log.subject} cannot be thinned to {target:g}: its rows were kept with "
            f"{least:g} to {probabilities.max():g}, and what was not kept cannot be "
            f"brought back. Pass a number above 0 and up to {least:g}."
        )
    kept = log
    if probabilities.max() > target:
        kept = log.only(uniforms(log, seed) < target / probabilities)
    return _with_probabilities(kept, np.full(kept.rows, target))


def _with_probabilities(log: LogTable, probabilities: Array) -> LogTable:
    place = log.table.column_names.index(PROBABILITY)
    column = pa.array(probabilities, pa.float64())
    return dataclasses.replace(
        log, table=log.table.set_column(place, PROBABILITY, column)
    )


def sample_by_rate(
    log: LogTable,
    rates: float | Mapping[str, float],
    *,
    by: str = STRATUM,
    seed: int = 0,
) -> LogTable:
    """Keep each row of a stratum with the stratum's rate, independently.

    Args:
        log: The rows.
        rates: Share of the rows to keep, above 0 to 1; or one for each stratum, where
            '' is for rows without one and '*' for those that are not named.
        by: Column of the stratum.
        seed: Which rows.

    Returns:
        The rows that stay; their probabilities are multiplied by the rates.

    Raises:
        DataError: A stratum has no rate, or one is no share.
    """
    named = {"*": rates} if isinstance(rates, (int, float)) else dict(rates)
    for name, rate in named.items():
        if not 0 < rate <= 1:
            raise DataError(
                f"Stratum '{name}' is to be sampled at the rate {rate:g}, which is no "
                "share of its rows. Pass a number above 0 and up to 1."
            )
    strata, codes = _strata(log, by)
    chosen = np.ones(len(strata))
    for code, name in enumerate(strata):
        if name not in named and "*" not in named:
            raise DataError(
                f"{log.subject} has the stratum '{name}' in column '{by}', which has "
                f"no rate (there are rates for {quoted(named)})."
                f"{did_you_mean(name, named)} Add it, or '*' for all others."
            )
        chosen[code] = named.get(name, named.get("*", 1.0))
    rate_of = chosen[codes] if len(strata) else np.ones(0)
    kept = uniforms(log, seed) < rate_of
    sampled = log.only(kept)
    return _with_probabilities(sampled, sampled.probabilities * rate_of[kept])


def _strata(log: LogTable, by: str) -> tuple[list[str], Array]:
    """Return the names of the strata, and the place of each row's among them."""
    if by not in log.table.column_names:
        raise DataError(
            f"{log.subject} has no column '{by}' to divide into strata (it has "
            f"{quoted(log.table.column_names)})."
            f"{did_you_mean(by, log.table.column_names)}"
        )
    texts = log.table.column(by).cast(pa.string()).fill_null("")
    encoded = pa.concat_arrays([pa.array([], pa.string()), *texts.chunks])
    encoded = encoded.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    order = np.argsort(np.array(names, object)) if names else np.zeros(0, np.int64)
    place = np.empty(len(names), np.int64)
    place[order] = np.arange(len(names))
    codes = place[encoded.indices.to_numpy(zero_copy_only=False)]
    return [names[i] for i in order], codes


@dataclasses.dataclass(frozen=True)
class BottomK:
    """The rows with the smallest hashes: exactly as many of each stratum as there are.

    Samples of parts of a log are merged by `+`, and are then the sample of the whole.
    Within a stratum each row is as likely to be in it as any other, so that its
    probability is the share of the stratum that is kept.

    Attributes:
        size: How many rows are kept of each stratum at most.
        seed: Of the hash.
        by: Column of the stratum.
        log: The rows that are kept, with the probabilities they came with.
        seen: How many rows there were of each stratum.
    """

    size: int
    seed: int
    by: str
    log: LogTable
    seen: Mapping[str, int]

    @classmethod
    def of(
        cls, log: LogTable, size: int, *, by: str = STRATUM, seed: int = 0
    ) -> BottomK:
        """Return the sample of some rows.

        Args:
            log: The rows.
            size: How many to keep of each stratum.
            by: Column of the stratum.
            seed: Which rows.

        Raises:
            DataError: There is no such column, `size` is below 1, or an id is there
                twice.
        """
        if size < 1:
            raise DataError(
                f"A sample of {size} rows per stratum holds nothing. Pass 1 or more."
            )
        strata, codes = _strata(log, by)
        counts = np.bincount(codes, minlength=len(strata))
        seen = dict(zip(strata, counts.tolist(), strict=True))
        return cls(size, seed, by, log, seen)._cut(strata, codes, size)

    def __add__(self, other: BottomK) -> BottomK:
        """Return the sample of the rows of both.

        Raises:
            DataError: They were made with other sizes, seeds or strata, or a row is
                in both.
        """
        if (self.size, self.seed, self.by) != (other.size, other.seed, other.by):
            raise DataError(
                f"A sample of {self.size} rows by '{self.by}' with seed {self.seed} "
                f"does not merge with one of {other.size} by '{other.by}' with seed "
                f"{other.seed}. Make both alike."
            )
        table = pa.concat_tables(
            [self.log.table, other.log.table.cast(self.log.table.schema)]
        )
        log = dataclasses.replace(
            self.log,
            table=table,
            notes=(*self.log.notes, *other.log.notes),
            window=self.log.window if self.log.window == other.log.window else None,
        )
        names = {*self.seen, *other.seen}
        seen = {
            name: self.seen.get(name, 0) + other.seen.get(name, 0)
            for name in sorted(names)
        }
        merged = dataclasses.replace(self, log=log, seen=seen)
        return merged._cut(*_strata(log, self.by), self.size)

    def _cut(self, strata: list[str], codes: Array, size: int) -> BottomK:
        order, rank = self._ranked(strata, codes)
        kept = order[rank < size]
        # By their ids, for they may have been kept with other probabilities before.
        hashed = hashes(self.log.ids, self.seed)
        kept = kept[np.lexsort((hashed[kept], codes[kept]))]
        twice = (np.diff(codes[kept]) == 0) & (np.diff(hashed[kept]) == 0)
        if twice.any():
            name = self.log.ids[int(kept[int(np.argmax(twice))])].as_py()
            raise DataError(
                f"{self.log.subject} has the id '{name}' twice, and a sample of exact "
                "size needs ids that tell rows apart. Read the log with "
                'LogRules(on_duplicate="first").'
            )
        return dataclasses.replace(self, log=self.log.only(np.sort(kept)))

    def _ranked(self, strata: list[str], codes: Array) -> tuple[Array, Array]:
        """Return rows by stratum and hash, and the rank of each within its stratum."""
        order = np.lexsort((drawn(self.log, self.seed), codes))
        first = np.searchsorted(codes[order], np.arange(len(strata)))
        rank = np.arange(len(order)) - (first[codes[order]] if len(order) else 0)
        return order, rank

    def rows(self, total: int | None = None) -> LogTable:
        """Return the sample, with the probabilities of its rows.

        Args:
            total: So many rows in all, divided over the strata as the rows that were
                seen are: each stratum has its share of them to within one row. All
                that are kept if None.

        Raises:
            DataError: A stratum's share of `total` is more than is kept of it.
        """
        strata, codes = _strata(self.log, self.by)
        counts = np.array([self.seen[name] for name in strata], np.int64)
        quota = np.minimum(counts, self.size)
        sample = self
        if total is not None:
            quota = allotted(counts, total)
            short = np.flatnonzero(quota > np.minimum(counts, self.size))
            if short.size:
                name = strata[int(short[0])]
                raise DataError(
                    f"Of {total:,} rows, {quota[short[0]]:,} are of stratum '{name}', "
                    f"of which {min(self.size, self.seen[name]):,} were kept. Keep "
                    "more of each stratum, or ask for fewer rows."
                )
            order, rank = self._ranked(strata, codes)
            kept = np.sort(order[rank < quota[codes[order]]])
            sample = dataclasses.replace(self, log=self.log.only(kept))
            codes = codes[kept]
        share = quota / np.maximum(counts, 1)
        factor = share[codes] if len(strata) else np.ones(0)
        return _with_probabilities(sample.log, sample.log.probabilities * factor)


def allotted(counts: Array, total: int) -> Array:
    """Divide a number of rows over strata in proportion to their sizes.

    By largest remainders (Hamilton's method): each stratum gets its exact share,
    rounded down or up.

    Args:
        counts: Rows of each stratum; int64, shape (strata,).
        total: How many rows to divide.

    Returns:
        int64, shape (strata,); its sum is the smaller of `total` and all rows.
    """
    everything = int(counts.sum())
    total = min(total, everything)
    if total <= 0:
        return np.zeros(len(counts), np.int64)
    exact = [int(count) * total for count in counts]
    given = np.array([share // everything for share in exact], np.int64)
    rests = np.array([share % everything for share in exact], np.int64)
    order = np.lexsort((np.arange(len(counts)), -rests))
    given[order[: total - int(given.sum())]] += 1
    return given


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number that a sample says of all requests.

    Attributes:
        value: The number.
        error: Its standard error.
    """

    value: float
    error: float


def estimated_total(values: Array, probabilities: Array) -> Estimate:
    """Estimate the sum of a number over all requests, without bias.

    Horvitz and Thompson 1952: the sum of value / probability; its variance, for rows
    that were kept independently, is estimated by the sum of
    (1 - probability) (value / probability)^2.

    Args:
        values: Of the rows that were kept; shape (rows,).
        probabilities: With which they were; shape (rows,).
    """
    scaled = np.asarray(values, np.float64) / probabilities
    variance = float(np.sum((1.0 - probabilities) * scaled**2))
    return Estimate(float(scaled.sum()), float(np.sqrt(variance)))


def estimated_mean(values: Array, probabilities: Array) -> Estimate:
    """Estimate the mean of a number over all requests, by Hájek's ratio.

    The estimated sum over the estimated number of requests; its error by linearization
    (Särndal, Swensson and Wretman, "Model assisted survey sampling", 5.7).

    Args:
        values: Of the rows that were kept; shape (rows,).
        probabilities: With which they were; shape (rows,).

    Returns:
        NaN for no rows.
    """
    values = np.asarray(values, np.float64)
    if not len(values):
        return Estimate(float("nan"), float("nan"))
    weights = 1.0 / probabilities
    count = float(weights.sum())
    mean = float(np.dot(weights, values)) / count
    variance = float(np.sum((1.0 - probabilities) * (weights * (values - mean)) ** 2))
    return Estimate(mean, float(np.sqrt(variance)) / count)


def strata_counts(log: LogTable, by: str = STRATUM) -> Mapping[str, int]:
    """Return how many rows each stratum has; '' for rows without one."""
    counted = pc.value_counts(log.table.column(by).cast(pa.string()).fill_null(""))
    return {each["values"]: each["counts"] for each in counted.to_pylist()}
