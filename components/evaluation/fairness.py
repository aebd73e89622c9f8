"""Fairness gaps: how far apart a metric is among the slices of a feature.

A gap is a metric of all rows, so that it has a threshold, an interval and a place in
the results like any other: `MetricConfig(class_name="FairnessGap", config='"metric":
"recall", "feature": "gender"')` is the highest recall of a gender minus the lowest, and
with `"kind": "ratio"` the lowest divided by the highest (the names of Bird et al.,
"Fairlearn", 2020; 0.8 is the four-fifths rule of the EEOC).

The slices with the highest and the lowest value are found on the same rows that the gap
is measured on, so that there is a gap even where there is none in truth. Its interval
allows for that: all differences of two slices are given intervals that hold together
(Tukey-Kramer; Hayter, Annals of Statistics 12, 1984, shows that they hold for slices of
different sizes), each from the intervals of its two slices (MOVER; Zou & Donner,
Statistics in Medicine 27, 2008). The greatest difference is then at least the greatest
lower end, and at most the greatest upper end. Slices are taken as independent, which is
on the safe side where rows of one cluster are in several.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from penstock.components.evaluation.batch import Array
from penstock.components.evaluation.intervals import Spread
from penstock.components.evaluation.measure import Found
from penstock.components.evaluation.metrics.registry import Metric, Request
from penstock.components.evaluation.slicing import SliceBy
from penstock.schemas.errors import PipelineError, did_you_mean, quoted

CLASS_NAME = "FairnessGap"
_KINDS = ("difference", "ratio")


@dataclasses.dataclass(frozen=True)
class Gap:
    """A gap that is asked for.

    Attributes:
        key: TFMA's key of the gap.
        of: The key of the metric that it is of.
        feature: The slices of this feature are compared.
        is_ratio: Whether it is the lowest divided by the highest, or else the highest
            minus the lowest.
        least_rows: Slices of fewer rows are left out.
    """

    key: Any
    of: Any
    feature: str
    is_ratio: bool
    least_rows: int


def register() -> None:
    """Make the class known to TFMA, which reads names and thresholds in configs."""
    from tensorflow_model_analysis.metrics import metric_types

    if metric_types.is_registered_metric(CLASS_NAME):
        return

    class FairnessGap(metric_types.Metric):  # type: ignore[misc]
        """What a config says of a gap."""

        def __init__(
            self,
            metric: str,
            feature: str,
            kind: str = _KINDS[0],
            name: str | None = None,
        ) -> None:
            if kind not in _KINDS:
                raise ValueError(
                    f"its kind is '{kind}' and not one of {quoted(_KINDS)}."
                    f"{did_you_mean(kind, _KINDS)}"
                )
            super().__init__(
                _refuse,
                metric=metric,
                feature=feature,
                kind=kind,
                name=name or f"{metric}_{kind}_by_{feature}",
            )

    metric_types.register_metric(FairnessGap)


def _refuse(**arguments: Any) -> None:
    del arguments
    raise PipelineError(
        "A FairnessGap is computed by penstock's Evaluator, and TFMA does not have it. "
        "Run the eval_config with the Evaluator, or take the FairnessGap out."
    )


def gap_of(
    request: Request,
    metrics: Mapping[Any, Metric],
    slicings: Iterable[SliceBy],
    least_rows: int,
) -> Gap:
    """Return the gap that a request of a config stands for.

    Args:
        request: Of a FairnessGap.
        metrics: Those that are computed, by key.
        slicings: How rows are sliced.
        least_rows: Slices of fewer rows are left out.

    Raises:
        PipelineError: If its metric or its slices are not computed.
    """
    name, feature = request.config["metric"], request.config["feature"]
    of = request.key._replace(name=name)
    found = [
        key
        for key in (of, of._replace(aggregation_type=None))
        if key in metrics and metrics[key].kind == "number"
    ]
    if not found:
        legal = sorted(
            {key.name for key, each in metrics.items() if each.kind == "number"}
        )
        raise PipelineError(
            f"'{request.key.name}' is the gap of a metric '{name}', and its "
            f"MetricsSpec has no such number computed in columns (there is "
            f"{quoted(legal)}).{did_you_mean(name, legal)}"
        )
    features = [each.features for each in slicings]
    for wanted, spec in (
        ((feature,), f"SlicingSpec(feature_keys=['{feature}'])"),
        ((), "SlicingSpec()"),
    ):
        if wanted not in features:
            raise PipelineError(
                f"'{request.key.name}' compares the slices of '{feature}' and is shown "
                f"for all rows, and slicing_specs lack {spec}. Add it."
            )
    return Gap(
        request.key, found[0], feature, request.config["kind"] == "ratio", least_rows
    )


def add_gaps(
    found: Sequence[Found],
    gaps: Sequence[Gap],
    *,
    baseline: str | None = None,
    confidence: float = 0.95,
) -> None:
    """Add gaps, and their intervals where slices have some, to what all rows have.

    Args:
        found: What was measured.
        gaps: Which gaps.
        baseline: Name of the baseline's model; the candidate's gaps get a difference.
        confidence: Of the intervals.
    """
    for gap in gaps:
        (whole,) = (
            each for each in found if not each.slice and each.baseline_slice is None
        )
        slices = [
            each
            for each in found
            if each.baseline_slice is None
            and tuple(name for name, _ in each.slice) == (gap.feature,)
            and each.rows >= gap.least_rows
            and not np.isnan(each.values[gap.of])
        ]
        values = np.array([each.values[gap.of] for each in slices], float)
        whole.values[gap.key] = _gap(values, gap.is_ratio)
        spreads = [each.spreads.get(gap.of) for each in slices]
        known = [each for each in spreads if each is not None]
        if len(known) == len(spreads) > 1:
            spread = _spread(values, known, gap.is_ratio, confidence)
            if spread is not None:
                whole.spreads[gap.key] = spread
    if baseline is not None:
        for gap in gaps:
            _add_difference(found, gap.key, baseline)


def _gap(values: Array, is_ratio: bool) -> float:
    if len(values) < 2:
        return float("nan")
    low, high = float(values.min()), float(values.max())
    if not is_ratio:
        return high - low
    return low / high if low >= 0 and high > 0 else float("nan")


def _spread(
    values: Array, spreads: Sequence[Spread], is_ratio: bool, confidence: float
) -> Spread | None:
    """Return the interval of a gap; None where a ratio has no logarithm."""
    lower = np.array([float(each.lower) for each in spreads])
    upper = np.array([float(each.upper) for each in spreads])
    if is_ratio:
        if values.min() <= 0:
            return None
        with np.errstate(divide="ignore"):
            values, lower, upper = (
                np.log(np.maximum(each, 0.0)) for each in (values, lower, upper)
            )
    degrees = np.array([each.degrees for each in spreads])
    unit = _student(confidence, degrees)
    reach = _tukey(confidence, len(values), float(degrees.min()))
    below = np.maximum(values - lower, 0) / unit * reach
    above = np.maximum(upper - values, 0) / unit * reach
    apart = values[:, None] - values
    low = max(float(np.max(apart - np.hypot.outer(below, above))), 0.0)
    both = apart + np.hypot.outer(above, below)
    np.fill_diagonal(both, -np.inf)
    high = float(np.max(both))
    if is_ratio:
        low, high = float(np.exp(-high)), float(np.exp(-low))
    return Spread(np.array(low), np.array(high), float(degrees.min()), "Tukey-Kramer")


def _student(confidence: float, degrees: Array) -> Array:
    from scipy import stats

    found: Array = stats.t.ppf((1 + confidence) / 2, degrees)
    return found


@functools.lru_cache(maxsize=256)
def _tukey(confidence: float, groups: int, degrees: float) -> float:
    """Return by how many standard errors two of some equal groups may differ."""
    from scipy import stats

    return float(stats.studentized_range.ppf(confidence, groups, degrees)) / 2**0.5


def _add_difference(found: Sequence[Found], key: Any, baseline: str) -> None:
    """Add the candidate's gap minus the baseline's, without an interval."""
    other = key.make_baseline_key(baseline)
    for each in found:
        if key.model_name != baseline and key in each.values and other in each.values:
            difference = each.values[key] - each.values[other]
            each.values[key.make_diff_key()] = difference
