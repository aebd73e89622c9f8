"""The document of one window of a watched model, as `monitoring-report-1.json` has it.

Its types are those of the JSON text, so that what is written is what is read. What it
says is made elsewhere; pages, metrics and notices are made from it.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NoReturn, TypedDict, cast

from typing_extensions import NotRequired

from penstock.components.monitoring.document_checks import fault
from penstock.schemas.errors import DataError

FORMAT = "penstock-monitoring-report"
"""What its key `format` says."""

VERSION = 1
"""Version of the schema that is written here, and the only one that is read."""

SCHEMA_FILE = f"monitoring-report-{VERSION}.json"
"""Name of the JSON Schema in the folder `schemas`."""

State = Literal["ok", "watch", "alert", "insufficient_data"]
"""What a window, a column or a slice comes to."""

STATES: tuple[State, ...] = ("alert", "watch", "insufficient_data", "ok")
"""The states, the gravest first."""


class WindowOf(TypedDict):
    """The window that was looked at: [start, end), in UTC as ISO 8601 has it."""

    start: str
    end: str
    name: str


class ReferenceOf(TypedDict):
    """What the window is compared with."""

    id: str
    rows: int
    model_version: str | None
    seasonal: bool


class BudgetOf(TypedDict):
    """The budget of false alerts and the thresholds that keep it."""

    alerts_per_month: float
    expected_alerts_per_month: float | None
    run_length_windows: float | None
    level: float | None
    k: int
    m: int
    min_rows: int


class MeasureOf(TypedDict):
    """One drift measure of a column.

    `ratio` is 1 where it is as much as counts; `label` is of the customary bands of
    PSI, and "none" for other measures.
    """

    type: str
    value: float | None
    effect: float | None
    p_value: float | None
    critical: float | None
    threshold: float | None
    ratio: float | None
    label: str
    sentence: str


class SharesOf(TypedDict):
    """Shares of rows, between 0 and 1; None where a side has no rows."""

    reference: float | None
    current: float | None


class DistributionOf(TypedDict):
    """Shares of the present values by bin; the three lists are of one length."""

    bins: list[str]
    reference: list[float]
    current: list[float]


class SliceOf(TypedDict):
    """What became of a column within one slice."""

    slice: str
    state: State
    p_value: float | None
    sentence: str


class ColumnOf(TypedDict):
    """What became of one column; `rank` is 1 for the one that changed most.

    `slices` are those in which it changed, the clearest first.
    """

    name: str
    role: Literal["feature", "score", "label", "segment"]
    kind: Literal["numeric", "category"]
    state: State
    rank: int | None
    p_value: float | None
    importance: float | None
    explanation: str
    missing: SharesOf
    measures: list[MeasureOf]
    distribution: DistributionOf | None
    slices: NotRequired[list[SliceOf]]


class SkewOfColumn(TypedDict):
    """Training against serving in one column, on rows joined by their id."""

    name: str
    state: State
    compared: int
    different: int
    sentence: str


class SkewOf(TypedDict):
    """Training against serving, value by value."""

    state: State
    sentence: str
    joined: int
    columns: list[SkewOfColumn]


class MultivariateOf(TypedDict):
    """Drift of columns together, as a classifier sees it."""

    p_value: float | None
    auc: float | None
    columns: list[str]
    state: NotRequired[State]
    sentence: NotRequired[str]


class MetricOf(TypedDict):
    """A metric of the window in one slice."""

    metric: str
    slice: str
    value: float | None
    lower: float | None
    upper: float | None
    rows: int
    estimated: bool
    state: State
    sentence: NotRequired[str]


class PointOf(TypedDict):
    """A metric in one window of a trend."""

    window: str
    value: float | None
    lower: float | None
    upper: float | None
    rows: int


class ChangePointOf(TypedDict):
    """Where a trend changes its level; `window` is the first after the change."""

    window: str
    before: float | None
    after: float | None
    p_value: float | None
    deployment: str | None


class TrendOf(TypedDict):
    """A metric in one slice over windows, in the order of time."""

    metric: str
    slice: str
    points: list[PointOf]
    change_points: list[ChangePointOf]
    slope_per_week: float | None
    state: State
    sentence: NotRequired[str]


class DeploymentOf(TypedDict):
    """What was deployed, and the name of the window in which it was."""

    window: str
    text: str


class LabelsOf(TypedDict):
    """Account of the labels, in rows; `share` is joined of all.

    `late` are those of the joined ones that came after the window was evaluated first.
    """

    joined: int
    waiting: int
    late: int
    share: float | None


class EstimateOf(TypedDict):
    """Quality as estimated without labels; `sentence` states the assumption."""

    method: str
    metric: str
    value: float | None
    lower: float | None
    upper: float | None
    assumption: Literal["holds", "violated", "unchecked"]
    sentence: str


class ConceptOf(TypedDict):
    """What a detector of concept drift says."""

    detector: str
    state: Literal["ok", "warning", "drift"]
    sentence: str


class QualityOf(TypedDict):
    """Quality of the window and of those before it."""

    metrics: list[MetricOf]
    trends: list[TrendOf]
    deployments: NotRequired[list[DeploymentOf]]
    labels: LabelsOf | None
    estimate: EstimateOf | None
    concept: list[ConceptOf]


class Document(TypedDict):
    """All that one window of a model came to. See docs/monitoring-report.md."""

    format: str
    version: int
    model: str
    model_version: str | None
    versions: NotRequired[dict[str, int]]
    window: WindowOf
    made_at: str
    rows: int
    reference: ReferenceOf | None
    state: State
    reasons: list[str]
    budget: BudgetOf | None
    columns: list[ColumnOf]
    skew: SkewOf | None
    multivariate: MultivariateOf | None
    quality: QualityOf | None


@functools.cache
def schema() -> Mapping[str, Any]:
    """Return the JSON Schema (2020-12) of the document."""
    file = resources.files("penstock.schemas").joinpath(SCHEMA_FILE)
    read: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return read


def check_document(value: Any, name: str = "The document") -> Document:
    """Return a value as the document it is.

    Keys that the schema does not know are let pass: a later penstock wrote them.

    Args:
        value: Whatever was read.
        name: What sentences call it.

    Raises:
        DataError: If it is none, or one of another version.
    """
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise DataError(
            f"{name} is not a monitoring report: its 'format' is not '{FORMAT}'. Name "
            "the drift.json or quality.json of a verdict."
        )
    version = value.get("version")
    if version != VERSION or isinstance(version, bool):
        raise DataError(
            f"{name} is a monitoring report of version {version!r}, and this penstock "
            f"reads version {VERSION}. Read it with the penstock that wrote it, or "
            "write it again with this one."
        )
    if found := fault(value, schema()):
        raise DataError(f"{name} breaks the schema {SCHEMA_FILE}: {found}")
    document = cast("Document", value)
    if found := _contradiction(document):
        raise DataError(f"{name} contradicts itself: {found}")
    return document


def _contradiction(document: Document) -> str:
    """Return a sentence on what a schema cannot say, or nothing."""
    window = document["window"]
    if not window["start"] < window["end"]:
        return (
            f"its window ends at {window['end']}, not after its start at "
            f"{window['start']}. Write the window as [start, end)."
        )
    seen = set()
    for column in document["columns"]:
        if column["name"] in seen:
            return f"column '{column['name']}' is there twice. Keep one of them."
        seen.add(column["name"])
        if distribution := column["distribution"]:
            bins, *sides = (
                len(distribution["bins"]),
                len(distribution["reference"]),
                len(distribution["current"]),
            )
            if sides != [bins, bins]:
                return (
                    f"the distribution of column '{column['name']}' has {bins} bins, "
                    f"{sides[0]} shares of the reference and {sides[1]} of the current "
                    "window. Give each bin one share of either."
                )
    return ""


def read_document(path: Path) -> Document:
    """Return the document in a file.

    Raises:
        DataError: If there is none, or it is not what the schema says.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError(
            f"There is no monitoring report at {path}. Name the drift.json or "
            "quality.json of a verdict."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not JSON: byte {error.start} is not UTF-8. Write it again."
        ) from error
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}. Write it again.") from error
    return check_document(value, str(path))


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def write_document(document: Document, path: Path) -> None:
    """Write a document, whole or not at all.

    A number that is not finite, as the value of a metric that is not defined, is
    written as null.

    Args:
        document: What to write.
        path: The file; one that is there is replaced.

    Raises:
        DataError: If it is not what the schema says.
    """
    value = _finite(document)
    check_document(value, f"The document for {path.name}")
    # ASCII, with escapes: a name may hold half a letter, which no UTF-8 has.
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text + "\n", encoding="ascii")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _finite(value: Any) -> Any:
    """Return plain values with null for what is no number in JSON."""
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
