"""Which columns of an inference log mean what, and what to do where it is odd."""

from __future__ import annotations

import dataclasses
from typing import Literal

ID = "log_id"
"""Column of the id of a row: text. Where a log has none, its place in the files."""
TIME = "log_time"
"""Column of the time of a row: float64, seconds since 1970 UTC."""
VERSION = "log_version"
"""Column of the version that answered: text, or missing."""
LANE = "log_lane"
"""Column of the lane: 'stable', 'candidate', ..., or missing."""
STRATUM = "log_stratum"
"""Column of the stratum that a row was sampled in: text, or missing."""
PROBABILITY = "log_probability"
"""Column of the probability with which a row was kept: float64, above 0 to 1."""

KNOWN = (ID, TIME, VERSION, LANE, STRATUM, PROBABILITY)
"""The columns that say what is known of every row."""


@dataclasses.dataclass(frozen=True)
class LogFormat:
    """Which columns of a log mean what.

    Of a PredictionLog, version, lane, stratum, probability and time are said by its
    own metadata, all inputs are features and all outputs scores, so that only `id`,
    `label`, `segments` and `leave_out` need saying.

    Attributes:
        id: Column of what tells rows apart and joins them to labels. It is read as
            text. None if there is none.
        time: Column of the time: timestamps, dates, ISO 8601 text or numbers.
        time_unit: What numbers of `time` count since 1970 UTC.
        version: Column of the version of the model that answered.
        lane: Column of the lane.
        stratum: Column of the stratum.
        probability: Column of the probability with which a row was kept.
        scores: Columns, or outputs, of what the model answered; of a PredictionLog all
            outputs if none is named.
        label: Column of the truth, if it is logged.
        features: Columns, or inputs, that are features; all others if none is named.
        leave_out: Columns, inputs or outputs that are not read.
        examples: Input of a Predict request that holds serialized tf.Examples, whose
            features are the columns then.
    """

    id: str | None = None
    time: str | None = None
    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    version: str | None = None
    lane: str | None = None
    stratum: str | None = None
    probability: str | None = None
    scores: tuple[str, ...] = ()
    label: str | None = None
    features: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    examples: str | None = "examples"


@dataclasses.dataclass(frozen=True)
class LogRules:
    """What to do with a log that is not as it should be.

    Attributes:
        on_duplicate: Of an id that is there twice: 'refuse' the log, or take the
            'first' of its rows by time.
        on_missing_id: Of a row without an id: 'refuse', or 'leave_out'.
        on_backwards: Of a file whose times go backwards: 'refuse', or 'accept'.
        backwards_seconds: So far they may go back. Logs that sample by the minute
            write a minute's rows by stratum.
        on_mixed_versions: Of rows of several versions, where none was asked for:
            'refuse', or 'accept' them as one.
        on_empty: Of a window without rows: 'refuse', or 'accept'.
        lanes: The lanes whose rows are answers of the version they name. Rows without
            a lane always are. 'fallback' adds answers of the stable version in place
            of a candidate that failed.
    """

    on_duplicate: Literal["refuse", "first"] = "refuse"
    on_missing_id: Literal["refuse", "leave_out"] = "refuse"
    on_backwards: Literal["refuse", "accept"] = "refuse"
    backwards_seconds: float = 120.0
    on_mixed_versions: Literal["refuse", "accept"] = "refuse"
    on_empty: Literal["refuse", "accept"] = "refuse"
    lanes: tuple[str, ...] = ("stable", "candidate")
