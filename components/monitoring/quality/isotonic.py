"""Isotonic regression: the rising sequence nearest to given means, many at once.

Pool adjacent violators (Ayer, Brunk, Ewing, Reid & Silverman 1955, Annals of
Mathematical Statistics 26, 641-647) with all violators of a pass pooled together: in
whatever order neighbors are pooled, the result is the same, and so a run that falls
ends up in one block.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = "np.ndarray[Any, Any]"


def centered_isotonic(means: Array, weights: Array) -> Array:
    """Return isotonic regressions that rise between blocks instead of by steps.

    A block's value is taken at its center, half of its weight on either side, and
    values between centers lie on lines: centered isotonic regression (Oron & Flournoy
    2017, Statistics in Biopharmaceutical Research 9, 258-267), which is nearer to the
    truth where that rises without steps.

    Args:
        means: Of shape (..., n); where the weight is 0, anything.
        weights: Of the same shape, not negative.

    Returns:
        Of the same shape, float64: rising along the last axis.
    """
    means, weights = np.broadcast_arrays(
        np.asarray(means, np.float64), np.asarray(weights, np.float64)
    )
    steps = isotonic(means, weights)
    if not steps.size:
        return steps
    length = means.shape[-1]
    steps, flat = steps.reshape(-1, length), weights.reshape(-1, length)
    total = np.maximum(flat.sum(axis=1, keepdims=True), 1e-300)
    ends = np.cumsum(flat, axis=1) / total
    middle = ends - flat / total / 2
    first = np.ones(steps.shape, bool)
    first[:, 1:] = steps[:, 1:] != steps[:, :-1]
    begins = np.flatnonzero(first)
    lasts = np.append(begins[1:], steps.size) - 1
    # Sequences follow one another at a distance of 2, each between 0 and 1.
    start = 2.0 * (begins // length)
    before = (ends - flat / total).ravel()[begins]
    centers = start + (before + ends.ravel()[lasts]) / 2
    values = steps.ravel()[begins]
    is_first, is_last = begins % length == 0, lasts % length == length - 1
    nodes = np.concatenate([centers, start[is_first] - 0.25, start[is_last] + 1.25])
    heights = np.concatenate([values, values[is_first], values[is_last]])
    order = np.argsort(nodes, kind="stable")
    asked = middle + 2.0 * np.arange(len(steps))[:, None]
    found = np.interp(asked.ravel(), nodes[order], heights[order])
    return found.reshape(means.shape)


def isotonic(means: Array, weights: Array) -> Array:
    """Return the rising sequences that are nearest by weighted least squares.

    Args:
        means: Of shape (..., n); where the weight is 0, anything.
        weights: Of the same shape, not negative.

    Returns:
        Of the same shape, float64: rising along the last axis. Places without weight
        get the value of the block before them, or of the first block.
    """
    means, weights = np.broadcast_arrays(
        np.asarray(means, np.float64), np.asarray(weights, np.float64)
    )
    shape = means.shape
    if not means.size:
        return np.zeros(shape)
    length = shape[-1]
    sequence = np.repeat(np.arange(means.size // length), length)
    flat_weights = weights.ravel()
    filled = np.flatnonzero(flat_weights > 0)
    block_of = np.arange(len(filled))
    owner = sequence[filled]
    weight = flat_weights[filled]
    total = means.ravel()[filled] * weight
    while True:
        mean = total / weight
        pooled = (mean[:-1] > mean[1:]) & (owner[:-1] == owner[1:])
        if not pooled.any():
            break
        group = np.concatenate([[0], np.cumsum(~pooled)])
        total = np.bincount(group, weights=total)
        weight = np.bincount(group, weights=weight)
        owner = owner[np.concatenate([[0], np.flatnonzero(~pooled) + 1])]
        block_of = group[block_of]
    result = np.full(means.size, np.nan)
    result[filled] = mean[block_of]
    return _filled(result.reshape(-1, length)).reshape(shape)


def _filled(rows: Array) -> Array:
    """Fill gaps from the left, and what is left of all from the right; 0 if empty."""
    known = ~np.isnan(rows)
    if known.all():
        return rows
    places = np.where(known, np.arange(rows.shape[1]), -1)
    last = np.maximum.accumulate(places, axis=1)
    first = np.argmax(known, axis=1)[:, None]
    chosen = np.where(last >= 0, last, first)
    found: Array = np.take_along_axis(rows, chosen, axis=1)
    return np.nan_to_num(found, nan=0.0)
