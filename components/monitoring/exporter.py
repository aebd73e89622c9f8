"""Prometheus metrics of watched models, made from the documents of their windows.

Every name begins with `penstock_`, the one word of this application, as those of the
router do; but for `model_feature_drift`, which dashboards and rules of others know by
that name. Series are few whatever the model has: the features that drift most, the
slices that are worst, and one more series, `feature="__max__"`, that speaks for all of
them. How many are left out is itself a metric.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal, get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from penstock.components.monitoring.document import (
    ColumnOf,
    Document,
    MetricOf,
    QualityOf,
    State,
)
from penstock.schemas.errors import DataError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

ALL = "__max__"
"""The label `feature` of the series that speak for all features: their greatest."""

Monitor = Literal["drift", "quality", "both"]
"""What a document is about, and the label `monitor` of what holds for each of them."""

_STATES: tuple[State, ...] = get_args(State)
_CONCEPT_STATES = ("ok", "warning", "drift")
_MAX_LABEL = 96
_PLAIN = re.compile(r"[\w .,:=&<>()\[\]/+%-]+")

_FEATURE = ("model_name", "feature")
_MEASURE = (*_FEATURE, "drift_type")
_WINDOW = ("model_name", "monitor")
_SLICE = ("model_name", "metric", "slice")

METRICS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "model_feature_drift": (
        _MEASURE,
        "How far a feature is from its reference. Values of different drift types are "
        "of different kinds; compare them by penstock_model_feature_drift_threshold_"
        "ratio.",
    ),
    "penstock_model_feature_drift_threshold_ratio": (
        _MEASURE,
        "Effect of drift by the least effect that counts: 1 is at the threshold, "
        "whatever the drift type.",
    ),
    "penstock_model_feature_drift_threshold": (
        (*_MEASURE, "severity"),
        "Where drift begins to be significant (a value of model_feature_drift), and "
        "from where it is relevant (an effect, corrected for the number of rows).",
    ),
    "penstock_model_feature_missing_ratio": (
        _FEATURE,
        "Share of the window's rows without a value.",
    ),
    "penstock_model_features": (
        ("model_name", "state"),
        "Columns that were compared, by what they came to.",
    ),
    "penstock_model_features_hidden": (
        ("model_name",),
        f'Columns without series of their own; feature="{ALL}" speaks for them too.',
    ),
    "penstock_model_state": (
        (*_WINDOW, "state"),
        "1 for what the newest window came to, and 0 for the other states.",
    ),
    "penstock_model_window_rows": (_WINDOW, "Rows of the newest window."),
    "penstock_model_min_rows": (
        _WINDOW,
        "Rows below which a window is insufficient data.",
    ),
    "penstock_model_window_end_timestamp_seconds": (
        _WINDOW,
        "When the newest window ended.",
    ),
    "penstock_model_last_success_timestamp_seconds": (
        _WINDOW,
        "When the newest window was last looked at, and that came to an end.",
    ),
    "penstock_model_job_duration_seconds": (
        _WINDOW,
        "How long looking at the newest window took.",
    ),
    "penstock_model_build_info": (
        (*_WINDOW, "version", "reference_id", "model_version"),
        "1, with what looked at the newest window and what answered in it.",
    ),
    "penstock_model_alert_budget": (
        _WINDOW,
        "False alerts that are allowed per month.",
    ),
    "penstock_model_alert_expected": (
        _WINDOW,
        "False alerts per month to expect, as replayed without drift.",
    ),
    "penstock_model_skew_ratio": (
        _FEATURE,
        "Share of joined rows whose value differs between training and serving.",
    ),
    "penstock_model_multivariate_auc": (
        ("model_name",),
        "How well a classifier tells the window from the reference; 0.5 is not at all.",
    ),
    "penstock_model_evaluation_metric": (
        _SLICE,
        "Metric of the newest window in a slice, measured on labels.",
    ),
    "penstock_model_evaluation_metric_ci_lower": (
        _SLICE,
        "Lower end of the metric's confidence interval.",
    ),
    "penstock_model_evaluation_metric_ci_upper": (
        _SLICE,
        "Upper end of the metric's confidence interval.",
    ),
    "penstock_model_evaluation_rows": (_SLICE, "Rows that the metric is of."),
    "penstock_model_evaluation_alert": (
        _SLICE,
        "1 while a metric of a slice, or its trend, is an alert.",
    ),
    "penstock_model_slices_hidden": (
        ("model_name",),
        "Metrics of slices without series of their own; none of them is worse than "
        "those that have.",
    ),
    "penstock_model_estimated_metric": (
        (*_SLICE, "method"),
        "Metric as estimated without labels.",
    ),
    "penstock_model_estimated_metric_ci_lower": (
        (*_SLICE, "method"),
        "Lower end of the estimate's confidence interval.",
    ),
    "penstock_model_estimated_metric_ci_upper": (
        (*_SLICE, "method"),
        "Upper end of the estimate's confidence interval.",
    ),
    "penstock_model_concept_state": (
        ("model_name", "detector", "state"),
        "1 for what a detector of concept drift says, and 0 for the other states.",
    ),
    "penstock_model_labels_joined_ratio": (
        ("model_name",),
        "Share of the rows whose label has come.",
    ),
    "penstock_model_labels_late": (
        ("model_name",),
        "Labels that came after the window was first evaluated.",
    ),
    "penstock_model_retrain_triggered": (
        ("model_name", "reason"),
        "Training runs that were started, by the kind of reason.",
    ),
    "penstock_documents_unreadable": (
        (),
        "Files of the folder that are no documents, or broken ones.",
    ),
}
"""Every metric: its labels and its HELP. The one of retraining is a counter."""

_COUNTERS = ("penstock_model_retrain_triggered",)


@dataclass(frozen=True)
class Limits:
    """How many series a model may have.

    Attributes:
        features: Features with series of their own: those with the greatest ratio.
        slices: Metrics of slices with series of their own: the worst.
        hash_slices: Whether the values of slices are shown as digests, because nobody
            who sees metrics may see them. Long and odd ones always are.
    """

    features: int = 50
    slices: int = 50
    hash_slices: bool = False

    def __post_init__(self) -> None:
        for name in ("features", "slices"):
            if getattr(self, name) < 0:
                raise DataError(
                    f"'{name}' of the limits is {getattr(self, name)}. Pass how many "
                    f"{name} get series of their own, 0 for none."
                )


Samples = dict[str, dict[tuple[str, ...], float]]
"""By metric and the values of its labels."""


def exposition(
    documents: Iterable[Document],
    *,
    limits: Limits | None = None,
    retrains: Mapping[tuple[str, str], int] | None = None,
    unreadable: int | None = None,
) -> bytes:
    """Return metrics as Prometheus reads them (`CONTENT_TYPE`).

    Args:
        documents: Of any models and windows; of each model the newest count, one of
            drift and one of quality.
        limits: How many series there may be.
        retrains: Training runs started so far, by model and kind of reason.
        unreadable: How many files were none of the documents that they should be; None
            where no files were looked for.
    """
    found = samples(documents, limits or Limits(), retrains or {})
    if unreadable is not None:
        found["penstock_documents_unreadable"] = {(): unreadable}
    registry = CollectorRegistry()
    registry.register(_Collector(found))
    return generate_latest(registry)


class _Collector:
    def __init__(self, found: Samples) -> None:
        self._found = found

    def collect(self) -> Iterator[Metric]:
        for name, (labels, text) in METRICS.items():
            if name not in self._found:
                continue
            kind = CounterMetricFamily if name in _COUNTERS else GaugeMetricFamily
            family: Any = kind(name, text, labels=labels)
            for values, number in sorted(self._found[name].items()):
                family.add_metric(values, float(number))
            yield family


@functools.cache
def _version() -> str:
    try:
        return importlib.metadata.version("penstock")
    except importlib.metadata.PackageNotFoundError:
        return ""  # run from a checkout that is not installed


def monitor_of(document: Document) -> Monitor:
    """Return what a document is about."""
    if document["quality"] is None:
        return "drift"
    seen = document["columns"] or document["skew"] or document["multivariate"]
    return "both" if seen else "quality"


def seconds_of(time: str) -> float:
    """Return a time of a document in seconds since 1970."""
    whole, _, fraction = time.removesuffix("Z").partition(".")
    moment = datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S")
    return moment.replace(tzinfo=timezone.utc).timestamp() + float(f"0.{fraction or 0}")


def newest(documents: Iterable[Document]) -> tuple[Document, ...]:
    """Return the newest document of each model and monitor, in order of their names.

    The window that ended last is the newest, and of one window the last look at it.
    """
    found: dict[tuple[str, str], tuple[tuple[float, float], Document]] = {}
    for document in documents:
        key = (document["model"], monitor_of(document))
        age = age_of(document)
        if key not in found or found[key][0] <= age:
            found[key] = (age, document)
    return tuple(document for _, (_, document) in sorted(found.items()))


def age_of(document: Document) -> tuple[float, float]:
    """Return what documents of one model and monitor are ordered by."""
    return seconds_of(document["window"]["end"]), seconds_of(document["made_at"])


def samples(
    documents: Iterable[Document],
    limits: Limits,
    retrains: Mapping[tuple[str, str], int],
) -> Samples:
    """Return the samples of the newest documents, by metric and labels."""
    found: Samples = {}
    of_columns: dict[str, Document] = {}
    of_quality: dict[str, Document] = {}
    for document in newest(documents):
        model = document["model"]
        _window(found, document)
        for kept, has in (
            (of_columns, monitor_of(document) != "quality"),
            (of_quality, document["quality"] is not None),
        ):
            if has and (model not in kept or age_of(kept[model]) <= age_of(document)):
                kept[model] = document
    for model, document in of_columns.items():
        _drift(found, label_value(model), document, limits)
    for model, document in of_quality.items():
        if quality := document["quality"]:
            _quality(found, label_value(model), quality, limits)
    for (model, reason), number in retrains.items():
        _put(
            found,
            "penstock_model_retrain_triggered",
            (label_value(model), label_value(reason)),
            number,
        )
    return found


def _put(
    found: Samples, name: str, labels: tuple[str, ...], number: float | None
) -> None:
    if number is not None and not math.isnan(number):
        found.setdefault(name, {})[labels] = number


def _put_greatest(
    found: Samples, name: str, labels: tuple[str, ...], number: float | None
) -> None:
    if number is not None and not math.isnan(number):
        known = found.setdefault(name, {})
        # Shifts have a sign: of -0.6 and 0.1 the first one is what drifted most.
        known[labels] = max(known.get(labels, 0.0), number, key=abs)


def _window(found: Samples, document: Document) -> None:
    window = (label_value(document["model"]), monitor_of(document))
    for state in _STATES:
        holds = document["state"] == state
        _put(found, "penstock_model_state", (*window, state), holds)
    _put(found, "penstock_model_window_rows", window, document["rows"])
    end, made = age_of(document)
    _put(found, "penstock_model_window_end_timestamp_seconds", window, end)
    _put(found, "penstock_model_last_success_timestamp_seconds", window, made)
    seconds: Any = document.get("duration_seconds")
    if isinstance(seconds, int | float):
        _put(found, "penstock_model_job_duration_seconds", window, seconds)
    reference = document["reference"]
    build = (
        _version(),
        reference["id"] if reference else "",
        label_value(document["model_version"] or ""),
    )
    _put(found, "penstock_model_build_info", (*window, *build), 1)
    if budget := document["budget"]:
        _put(found, "penstock_model_min_rows", window, budget["min_rows"])
        allowed = budget["alerts_per_month"]
        _put(found, "penstock_model_alert_budget", window, allowed)
        expected = budget["expected_alerts_per_month"]
        _put(found, "penstock_model_alert_expected", window, expected)


# --- drift


def _drift(found: Samples, model: str, document: Document, limits: Limits) -> None:
    columns = document["columns"]
    states = Counter(column["state"] for column in columns)
    for state in _STATES:
        _put(found, "penstock_model_features", (model, state), states[state])
    shown = shown_columns(columns, limits.features)
    hidden = len(columns) - len(shown)
    _put(found, "penstock_model_features_hidden", (model,), hidden)
    for column in columns:
        names = [ALL]
        if column["name"] in shown:
            names.append(feature_label(column["name"]))
        for feature in names:
            _column(found, (model, feature), column)
    if skew := document["skew"]:
        for each in skew["columns"]:
            if each["compared"]:
                ratio = each["different"] / each["compared"]
                names = [ALL]
                if each["name"] in shown:
                    names.append(feature_label(each["name"]))
                for feature in names:
                    labels = (model, feature)
                    _put_greatest(found, "penstock_model_skew_ratio", labels, ratio)
    if together := document["multivariate"]:
        _put(found, "penstock_model_multivariate_auc", (model,), together["auc"])


def _column(found: Samples, labels: tuple[str, str], column: ColumnOf) -> None:
    missing = column["missing"]["current"]
    _put_greatest(found, "penstock_model_feature_missing_ratio", labels, missing)
    for measure in column["measures"]:
        each = (*labels, label_value(measure["type"]))
        for name, number in (
            ("model_feature_drift", measure["value"]),
            ("penstock_model_feature_drift_threshold_ratio", measure["ratio"]),
        ):
            _put_greatest(found, name, each, number)
        if labels[1] == ALL:
            continue  # thresholds of different features have no greatest
        for severity, number in (
            ("significant", measure["critical"]),
            ("relevant", measure["threshold"]),
        ):
            name = "penstock_model_feature_drift_threshold"
            _put(found, name, (*each, severity), number)


def shown_columns(columns: Sequence[ColumnOf], most: int) -> frozenset[str]:
    """Return the names of the columns that get series of their own.

    Those that are an alert come first, then those with the greatest ratio of effect to
    threshold, then those that come first by name.
    """

    def place(column: ColumnOf) -> tuple[int, float, str]:
        ratios = (each["ratio"] for each in column["measures"])
        ratio = max((each for each in ratios if each is not None), default=-math.inf)
        order = {"alert": 0, "watch": 1}.get(column["state"], 2)
        return order, -ratio, column["name"]

    return frozenset(each["name"] for each in sorted(columns, key=place)[:most])


# --- quality


def _quality(found: Samples, model: str, quality: QualityOf, limits: Limits) -> None:
    alerts = {
        (each["metric"], each["slice"])
        for each in (*quality["metrics"], *quality["trends"])
        if each["state"] == "alert"
    }

    def place(each: MetricOf) -> tuple[bool, bool, int, str, str]:
        key = (each["metric"], each["slice"])
        watched = {"watch": 0, "ok": 1}.get(each["state"], 2)
        return each["slice"] != "overall", key not in alerts, watched, *key

    # An alert comes before a metric of all rows, and both before the rest.
    ordered = sorted(quality["metrics"], key=lambda each: (place(each)[1], place(each)))
    shown = ordered[: limits.slices]
    hidden = len(ordered) - len(shown)
    _put(found, "penstock_model_slices_hidden", (model,), hidden)
    for metric in shown:
        where = slice_label(metric["slice"], hashed=limits.hash_slices)
        labels = (model, label_value(metric["metric"]), where)
        if metric["estimated"]:
            _interval(found, "estimated", (*labels, "estimate"), metric)
            continue
        _interval(found, "evaluation", labels, metric)
        _put(found, "penstock_model_evaluation_rows", labels, metric["rows"])
    for name, where in sorted(alerts)[: limits.slices]:
        labels = (
            model,
            label_value(name),
            slice_label(where, hashed=limits.hash_slices),
        )
        _put(found, "penstock_model_evaluation_alert", labels, 1)
    for metric in shown:
        where = slice_label(metric["slice"], hashed=limits.hash_slices)
        labels = (model, label_value(metric["metric"]), where)
        _put_greatest(found, "penstock_model_evaluation_alert", labels, 0)
    if estimate := quality["estimate"]:
        labels = (model, label_value(estimate["metric"]), "overall")
        method = label_value(estimate["method"])
        _interval(found, "estimated", (*labels, method), estimate)
    for concept in quality["concept"]:
        for state in _CONCEPT_STATES:
            detector = (model, label_value(concept["detector"]), state)
            holds = concept["state"] == state
            _put(found, "penstock_model_concept_state", detector, holds)
    if joined := quality["labels"]:
        _put(found, "penstock_model_labels_joined_ratio", (model,), joined["share"])
        _put(found, "penstock_model_labels_late", (model,), joined["late"])


def _interval(
    found: Samples, kind: str, labels: tuple[str, ...], each: Mapping[str, Any]
) -> None:
    name = f"penstock_model_{kind}_metric"
    _put(found, name, labels, each["value"])
    _put(found, f"{name}_ci_lower", labels, each["lower"])
    _put(found, f"{name}_ci_upper", labels, each["upper"])


# --- label values


def label_value(text: str) -> str:
    """Return a text as the value of a label: UTF-8, and not too long.

    The end of one that is longer, or no UTF-8, gives way to a digest of the whole, so
    that two of them stay two.
    """
    plain = text.encode("utf-8", "replace").decode("utf-8")
    if plain == text and len(text) <= _MAX_LABEL:
        return text
    return f"{plain[: _MAX_LABEL - 9]}~{_digest(text)}"


def feature_label(name: str) -> str:
    """Return the label of a feature, which is never that of all."""
    return f"{name} (feature)" if name == ALL else label_value(name)


def slice_label(where: str, *, hashed: bool = False) -> str:
    """Return the label of a slice, such as `payment_type=Cash`.

    Args:
        where: The slice as documents have it: `overall`, or keys and values.
        hashed: Whether values are shown as digests even where they are short and plain.
    """
    if where == "overall":
        return where
    if not hashed and len(where) <= _MAX_LABEL and _PLAIN.fullmatch(where):
        return where
    key, equals, _ = where.partition("=")
    if not equals or len(key) > _MAX_LABEL // 2 or not _PLAIN.fullmatch(key):
        return f"sha256:{_digest(where)}"
    return f"{key}=sha256:{_digest(where)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
