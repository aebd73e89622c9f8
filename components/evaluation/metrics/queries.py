"""Metrics of queries: what stands where when their rows are ranked by prediction.

Names and definitions are TFMA's (`ndcg`, `min_label_position`, `query_statistics`). A
query counts once, with the weight that its rows share.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from typing import Any, ClassVar

import numpy as np

from penstock.components.evaluation import rankings
from penstock.components.evaluation.batch import Array, Batch
from penstock.components.evaluation.metrics.registry import (
    Metric,
    Part,
    Request,
    metric,
)
from penstock.components.evaluation.statistics import Contributions, Statistic
from penstock.components.evaluation.views import View
from penstock.schemas.errors import DataError


@dataclasses.dataclass(frozen=True)
class OfQueries(Statistic):
    """Sums of numbers of each query: a base. The first row of a query has them.

    Attributes:
        view: The predictions, labels and weights, with a query key.
    """

    view: View
    cells: ClassVar[int] = 1  # type: ignore[misc]

    @abc.abstractmethod
    def numbers(self, batch: Batch, starts: Array) -> tuple[Array, ...]:
        """Return one array of shape (queries,) per column, weights applied.

        Args:
            batch: Of whole queries.
            starts: The first row of every query.
        """

    def contributions(self, batch: Batch) -> Contributions:
        """Return the numbers of queries, and zeros for all rows but the first."""
        starts = self.view.queries(batch)
        found = []
        for each in self.numbers(batch, starts):
            column = np.zeros((batch.rows, 1))
            column[starts, 0] = each
            found.append(column)
        return Contributions(None, tuple(found))

    def weights(self, batch: Batch, starts: Array) -> Array:
        """Return the weight of every query, of shape (queries,).

        Raises:
            DataError: If rows of one query have weights that differ.
        """
        weights = self.view.row_weights(batch)
        lengths = np.diff(starts, append=batch.rows)
        differ = weights != np.repeat(weights[starts], lengths)
        if differ.any():
            queries = np.add.reduceat(differ, starts) > 0
            raise DataError(
                f"{int(queries.sum()):,} of {len(starts):,} queries of "
                f"'{self.view.query_key}' have rows of different weights, and a query "
                "counts with one. Give its rows the same weight, or measure without "
                "weights (example_weights { unweighted: true } in the MetricsSpec)."
            )
        return weights[starts]


def _mean(sums: Array, *, column: int = 1) -> Array:
    total = sums[..., 0, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > 0, sums[..., 0, column] / total, np.nan)


@dataclasses.dataclass(frozen=True)
class DiscountedGains(OfQueries):
    """Sums of weights and of weighted NDCG@k, of queries that have any gain.

    The gain of the i-th row is divided by log2(i + 1), and the sum of the first k by
    that of the best order (Järvelin & Kekäläinen, ACM TOIS 20, 2002, with the discount
    from the first row on).

    Attributes:
        gain_key: Column of the gains.
        k: How many rows count.
    """

    gain_key: str
    k: int
    columns: ClassVar[int] = 2  # type: ignore[misc]

    def numbers(self, batch: Batch, starts: Array) -> tuple[Array, ...]:
        """Return weight and weighted NDCG@k."""
        gains = _column(batch, self.gain_key)
        place = rankings.places(starts, batch.rows)
        discount = np.where(place < self.k, 1 / np.log2(place + 2.0), 0.0)
        ranked = gains[rankings.falling(self.view.ranking(batch), starts)]
        best = gains[rankings.falling(gains, starts)]
        reached, reachable = (
            np.add.reduceat(each * discount, starts) for each in (ranked, best)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(reachable > 0, reached / reachable, 0.0)
        has_gain = np.maximum.reduceat(gains, starts) > 0
        weights = np.where(has_gain, self.weights(batch, starts), 0.0)
        return weights, weights * share


def _column(batch: Batch, name: str) -> Array:
    """Return a column of numbers as 64-bit floats, of shape (rows,)."""
    found = batch.get("column", "", name)
    if found.dtype.kind not in "biuf" or found.size != batch.rows:
        raise DataError(
            f"Column '{name}' has {found.size // max(batch.rows, 1)} values of type "
            f"{found.dtype} in a row, and a ranked row has one number. Name another "
            "column in the metric's config."
        )
    return found.reshape(-1).astype(np.float64)


@metric("NDCG", takes_queries=True)
def _ndcg(request: Request) -> list[Metric] | None:
    sub_key = request.key.sub_key
    asked = [] if sub_key is None else [sub_key.top_k]
    asked += [k for k in request.config.get("top_k_list") or () if k not in asked]
    if not request.query_key or not asked or None in asked:
        return None  # TFMA says what is missing
    gain_key = request.config["gain_key"]
    view = dataclasses.replace(request.view, top_k=None)
    return [
        Metric(
            request.key._replace(sub_key=_top(k)),
            (Part(DiscountedGains(view, gain_key, k)),),
            _mean,
            columns=(gain_key,),
        )
        for k in asked
    ]


def _top(k: int) -> Any:
    from tensorflow_model_analysis.metrics.metric_types import SubKey

    return SubKey(top_k=k)


@dataclasses.dataclass(frozen=True)
class FirstPositions(OfQueries):
    """Sums of weights and of weighted places of the first positive label, from 1.

    Queries without one do not count.

    Attributes:
        label_key: Column of the labels; '' for the model's.
    """

    label_key: str = ""
    columns: ClassVar[int] = 2  # type: ignore[misc]

    def numbers(self, batch: Batch, starts: Array) -> tuple[Array, ...]:
        """Return weight and weighted place."""
        labels = (
            _column(batch, self.label_key)
            if self.label_key
            else self.view.labels(batch).sum(axis=1)
        )
        ranked = labels[rankings.falling(self.view.ranking(batch), starts)]
        place = rankings.places(starts, batch.rows) + 1
        first = np.minimum.reduceat(np.where(ranked > 0, place, np.inf), starts)
        has_one = np.isfinite(first)
        weights = np.where(has_one, self.weights(batch, starts), 0.0)
        return weights, weights * np.where(has_one, first, 0.0)


@metric("MinLabelPosition", takes_queries=True)
def _min_label_position(request: Request) -> list[Metric] | None:
    if not request.query_key:
        return None
    label_key = request.config.get("label_key", "")
    view = dataclasses.replace(request.view, k=None, top_k=None)
    part = Part(FirstPositions(view, label_key))
    key = request.key._replace(sub_key=None)
    return [Metric(key, (part,), _mean, columns=(label_key,) if label_key else ())]


@dataclasses.dataclass(frozen=True)
class QuerySizes(OfQueries):
    """Sums of weights of queries, and of those times their rows."""

    columns: ClassVar[int] = 2  # type: ignore[misc]

    def numbers(self, batch: Batch, starts: Array) -> tuple[Array, ...]:
        """Return weight, and weight times rows."""
        weights = self.weights(batch, starts)
        return weights, weights * np.diff(starts, append=batch.rows)


@dataclasses.dataclass(frozen=True)
class QueryExtremes(QuerySizes):
    """The least and the greatest of weights of queries times their rows."""

    is_maximum: ClassVar[bool] = True

    def contributions(self, batch: Batch) -> Contributions:
        """Return the number of rows of a query with either sign, for all of them."""
        starts = self.view.queries(batch)
        _, size = self.numbers(batch, starts)
        sizes = np.repeat(size, np.diff(starts, append=batch.rows))[:, None]
        return Contributions(None, (sizes, -sizes))


def _only(sums: Array, *, column: int, sign: int = 1) -> Array:
    found: Array = sign * sums[..., 0, column]
    return found


_SIZES = {
    "total_queries_name": (QuerySizes, 0, 1),
    "total_documents_name": (QuerySizes, 1, 1),
    "min_documents_name": (QueryExtremes, 1, -1),
    "max_documents_name": (QueryExtremes, 0, 1),
}


@metric("QueryStatistics", takes_queries=True)
def _query_statistics(request: Request) -> list[Metric] | None:
    if not request.query_key:
        return None
    view = dataclasses.replace(request.view, k=None, top_k=None)
    key = request.key._replace(sub_key=None)
    return [
        Metric(
            key._replace(name=request.config[name]),
            (Part(statistic(view)),),
            functools.partial(_only, column=column, sign=sign),
            has_interval=False,
        )
        for name, (statistic, column, sign) in _SIZES.items()
    ]


def count_of_queries(view: View) -> Statistic:
    """Return a statistic whose first column is the number of queries."""
    return QuerySizes(dataclasses.replace(view, k=None, top_k=None, is_weighted=False))
