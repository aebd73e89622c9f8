"""What Alertmanager's webhook sends: version 4 of its JSON.

One notification is about one group of alerts. Alertmanager sends it until it was
answered with 2xx (a 5xx is sent again, a 4xx is given up), again when the group
changes, and again after `repeat_interval`; so the same alert arrives many times.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from penstock.schemas.errors import DataError

VERSION = "4"
"""The version of the format; it has been 4 since Alertmanager 0.6."""

_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)"
)


@dataclass(frozen=True)
class Alert:
    """One alert of a group.

    Attributes:
        firing: Whether it fires; it was resolved otherwise.
        labels: What tells it from other alerts, `alertname` among them.
        annotations: What is said of it.
        starts_at: When it began to fire, in nanoseconds since 1970.
        fingerprint: What Alertmanager knows it by; may be empty.
    """

    firing: bool
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts_at: int
    fingerprint: str

    @property
    def name(self) -> str:
        """The name of the rule."""
        return self.labels.get("alertname", "")

    @property
    def sentence(self) -> str:
        """What it says, in one line."""
        said = self.annotations
        text = said.get("summary") or said.get("description") or said.get("message")
        if not text:
            rest = sorted(each for each in self.labels if each != "alertname")
            text = ", ".join(f"{key}={self.labels[key]}" for key in rest)
        line = " ".join(text.split())
        return f"{self.name}: {line}" if self.name and line else self.name or line


@dataclass(frozen=True)
class Notification:
    """What one request of Alertmanager's says.

    Attributes:
        group_key: What Alertmanager knows the group by.
        receiver: Name of the receiver in Alertmanager's configuration.
        alerts: The alerts of the group.
        truncated: How many more there are, left out by `max_alerts`.
    """

    group_key: str
    receiver: str
    alerts: tuple[Alert, ...]
    truncated: int = 0

    def by_model(self, label: str) -> dict[str, tuple[Alert, ...]]:
        """Return the alerts of each model.

        Args:
            label: The label that names the model; an alert without it is under "".
        """
        found: dict[str, list[Alert]] = {}
        for each in self.alerts:
            found.setdefault(each.labels.get(label, ""), []).append(each)
        return {model: tuple(alerts) for model, alerts in found.items()}


def parse_notification(body: bytes) -> Notification:
    """Return the notification that the body of a request holds.

    Raises:
        DataError: If it holds none of version 4.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"The body is no JSON: {error}. Point a 'webhook_config' of Alertmanager "
            "here."
        ) from None
    if not isinstance(document, dict):
        raise DataError(
            f"The body is a JSON {_kind(document)}, and a notification is an object. "
            "Point a 'webhook_config' of Alertmanager here."
        )
    version = document.get("version")
    if version != VERSION:
        raise DataError(
            f"The notification is of version {version!r}, and version '{VERSION}' of "
            "Alertmanager's webhook is understood. Send that."
        )
    group_key = _text(document, "groupKey")
    if not group_key:
        raise DataError(
            "The notification has an empty 'groupKey', by which repeats are known. "
            "Send it as Alertmanager does."
        )
    alerts = document.get("alerts")
    if not isinstance(alerts, list):
        raise DataError(
            f"'alerts' of the notification is a JSON {_kind(alerts)}, and has to be a "
            "list. Send it as Alertmanager does."
        )
    truncated = document.get("truncatedAlerts", 0)
    return Notification(
        group_key=group_key,
        receiver=_text(document, "receiver", ""),
        alerts=tuple(_alert(i, each) for i, each in enumerate(alerts)),
        truncated=truncated if type(truncated) is int and truncated > 0 else 0,
    )


def _alert(i: int, given: Any) -> Alert:
    if not isinstance(given, dict):
        raise DataError(
            f"Alert {i} of the notification is a JSON {_kind(given)}, and has to be an "
            "object. Send it as Alertmanager does."
        )
    status = given.get("status")
    if status not in ("firing", "resolved"):
        raise DataError(
            f"Alert {i} of the notification has the status {status!r}, which is "
            "neither 'firing' nor 'resolved'. Send it as Alertmanager does."
        )
    return Alert(
        firing=status == "firing",
        labels=_texts(i, given, "labels"),
        annotations=_texts(i, given, "annotations"),
        starts_at=nanoseconds(_text(given, "startsAt", ""), f"'startsAt' of alert {i}"),
        fingerprint=_text(given, "fingerprint", ""),
    )


def nanoseconds(text: str, subject: str) -> int:
    """Return a time of RFC 3339 as nanoseconds since 1970.

    Args:
        text: The time.
        subject: What it is, as the sentence on a wrong one names it.

    Raises:
        DataError: If it is none.
    """
    found = _TIME.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        zone = "+00:00" if found[4] in "Zz" else found[4]
        moment = datetime.fromisoformat(f"{found[1]}T{found[2]}{zone}")
        since = moment - datetime(1970, 1, 1, tzinfo=timezone.utc)
    except ValueError:
        raise DataError(
            f"{subject} is '{text}', which is no time. Send it as Alertmanager does: "
            "2026-11-30T06:00:00.123Z."
        ) from None
    seconds = since.days * 86_400 + since.seconds
    return seconds * 10**9 + int((found[3] or "0").ljust(9, "0"))


def _texts(i: int, given: dict[str, Any], key: str) -> dict[str, str]:
    found = given.get(key, {})
    if not isinstance(found, dict) or not all(
        isinstance(each, str) for each in found.values()
    ):
        raise DataError(
            f"'{key}' of alert {i} is no object of texts. Send it as Alertmanager does."
        )
    return found


_MISSING = object()


def _text(given: dict[str, Any], key: str, default: object = _MISSING) -> str:
    found = given.get(key, default)
    if not isinstance(found, str):
        what = "missing" if found is _MISSING else f"a JSON {_kind(found)}"
        raise DataError(
            f"'{key}' of the notification is {what}, and has to be a text. Send it as "
            "Alertmanager does."
        )
    return found


def _kind(value: Any) -> str:
    return {
        dict: "object",
        list: "list",
        str: "text",
        bool: "boolean",
        type(None): "null",
    }.get(type(value), "number")
