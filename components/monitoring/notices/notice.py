"""What there is to tell of a model: one notice per change of its state.

A state that goes on is no news: an alert is an episode, told when it begins and when it
is over, whatever other features join it meanwhile. Too few rows end no episode, as they
say nothing. Two looks at the same window are one, and an older window changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from penstock.components.monitoring.document import ColumnOf, Document
from penstock.components.monitoring.exporter import age_of, monitor_of

Kind = Literal["alert", "resolved", "insufficient_data"]
KINDS: tuple[Kind, ...] = ("alert", "resolved", "insufficient_data")

_MOST_LINES = 10


@dataclass(frozen=True)
class Notice:
    """One change of what a model comes to.

    Attributes:
        key: A digest of what it says that does not change when it is made again.
        kind: An alert that begins, one that is over, or too few rows to tell.
        model: Name of the model.
        monitor: What looked: drift, quality or both.
        episode: The window in which the alert began, or the rows became too few.
        number: How many episodes of its kind there were, with this one.
        window: The window that made it known.
        title: What it says, in a line.
        lines: What it says in sentences, the gravest first.
        hidden: How many more there are.
        link: Where the report is; empty if that is not known.
    """

    key: str
    kind: Kind
    model: str
    monitor: str
    episode: str
    number: int
    window: str
    title: str
    lines: tuple[str, ...]
    hidden: int = 0
    link: str = ""

    @property
    def thread(self) -> str:
        """What it belongs to: notices of one thread arrive in their order."""
        return f"{self.monitor} {self.model}"

    @property
    def alert_key(self) -> str:
        """The key of the alert of its episode."""
        return _key("alert", self.model, self.monitor, self.number)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {**asdict(self), "lines": list(self.lines)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Notice:
        """Return what `to_json` made."""
        return cls(**{**data, "lines": tuple(data["lines"])})


@dataclass(frozen=True)
class Standing:
    """What is remembered of a model and monitor.

    Attributes:
        end: End of the newest window that was seen, in seconds since 1970.
        made: When the document of it was made.
        alert: Name of the window in which the alert began that is not over, or "".
        lacking: Name of the window since which rows are too few, or "".
        alerts: How many alerts began.
        lacks: How often rows became too few.
    """

    end: float = 0.0
    made: float = 0.0
    alert: str = ""
    lacking: str = ""
    alerts: int = 0
    lacks: int = 0

    def to_json(self) -> str:
        """Return it as JSON text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | None) -> Standing:
        """Return what `to_json` made; that of a model that was never seen for None."""
        return cls(**json.loads(text)) if text else cls()


def news(
    document: Document, before: Standing, link: str = ""
) -> tuple[Standing, Notice | None]:
    """Return what is to be remembered and told after a document.

    Args:
        document: The newest of its model and monitor.
        before: What was remembered.
        link: Where the report of the document is.
    """
    end, made = age_of(document)
    if (end, made) <= (before.end, before.made):
        return before, None
    after = replace(before, end=end, made=made, lacking="")
    window = document["window"]["name"]
    if document["state"] == "alert":
        if before.alert:
            return after, None
        after = replace(after, alert=window, alerts=before.alerts + 1)
        return after, _notice("alert", document, window, after.alerts, link)
    if document["state"] == "insufficient_data":
        if before.lacking:
            return replace(after, lacking=before.lacking), None
        after = replace(after, lacking=window, lacks=before.lacks + 1)
        return after, _notice("insufficient_data", document, window, after.lacks, link)
    if before.alert:
        told = _notice("resolved", document, before.alert, before.alerts, link)
        return replace(after, alert=""), told
    return after, None


def _notice(
    kind: Kind, document: Document, episode: str, number: int, link: str
) -> Notice:
    model, monitor = document["model"], monitor_of(document)
    if kind == "resolved":
        lines = [
            f"The alert that began with {episode} is over: "
            f"{document['window']['name']} is '{document['state']}'."
        ]
    else:
        lines = list(dict.fromkeys((*document["reasons"], *_explanations(document))))
    return Notice(
        key=_key(kind, model, monitor, number),
        kind=kind,
        model=model,
        monitor=monitor,
        episode=episode,
        number=number,
        window=document["window"]["name"],
        title=_title(kind, document),
        lines=tuple(lines[:_MOST_LINES]),
        hidden=max(0, len(lines) - _MOST_LINES),
        link=link,
    )


def _title(kind: Kind, document: Document) -> str:
    model, window = document["model"], document["window"]["name"]
    if kind == "resolved":
        return f"{model}: resolved on {window}"
    if kind == "insufficient_data":
        rows = document["rows"]
        return f"{model}: not enough data on {window} ({rows:,} rows)"
    what = {"drift": "drift", "quality": "quality"}.get(monitor_of(document), "alert")
    names = [each["name"] for each in _alerts(document)]
    if monitor_of(document) != "drift" and (quality := document["quality"]):
        names += [
            f"{each['metric']} in {each['slice']}"
            for each in quality["metrics"]
            if each["state"] == "alert"
        ]
    shown = ", ".join(names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{model}: {what} on {window}" + (f" in {shown}{more}" if shown else "")


def _alerts(document: Document) -> list[ColumnOf]:
    found = [each for each in document["columns"] if each["state"] == "alert"]
    last = len(document["columns"]) + 1
    return sorted(found, key=lambda each: (each["rank"] or last, each["name"]))


def _explanations(document: Document) -> list[str]:
    found = [each["explanation"] for each in _alerts(document)]
    if quality := document["quality"]:
        for each in (*quality["metrics"], *quality["trends"]):
            if each["state"] == "alert" and each.get("sentence"):
                found.append(f"{each['metric']} in {each['slice']}: {each['sentence']}")
        found += [
            each["sentence"] for each in quality["concept"] if each["state"] == "drift"
        ]
    for part in (document["skew"], document["multivariate"]):
        if part and part.get("state") == "alert" and part.get("sentence"):
            found.append(part["sentence"])
    return [each for each in found if each]


def _key(kind: Kind, model: str, monitor: str, number: int) -> str:
    said = json.dumps([kind, model, monitor, number])
    return hashlib.sha256(said.encode()).hexdigest()
