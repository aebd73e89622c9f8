"""Notifications as Alertmanager's webhook sends them."""

from __future__ import annotations

import json
from typing import Any

GROUP = '{}:{alertname="ModelDrift", model_name="taxi"}'


def alert(
    *,
    name: str = "ModelDrift",
    model: str | None = "taxi",
    status: str = "firing",
    starts_at: str = "2026-11-30T06:00:00.123456789Z",
    summary: str = "'fare' drifts: KS 0.21 where 0.04 is allowed.",
    **labels: str,
) -> dict[str, Any]:
    """Return one alert."""
    named = {} if model is None else {"model_name": model}
    return {
        "status": status,
        "labels": {"alertname": name, **named, **labels},
        "annotations": {"summary": summary},
        "startsAt": starts_at,
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://127.0.0.1:9090/graph",
        "fingerprint": "5ef77f1f8a3ecfe7",
    }


def notification(*alerts: dict[str, Any], group: str = GROUP, **changed: Any) -> bytes:
    """Return the body of a request with alerts; one that fires by default."""
    listed = list(alerts) or [alert()]
    firing = any(each["status"] == "firing" for each in listed)
    return json.dumps(
        {
            "receiver": "retrain",
            "status": "firing" if firing else "resolved",
            "alerts": listed,
            "groupLabels": {"alertname": "ModelDrift"},
            "commonLabels": {"alertname": "ModelDrift"},
            "commonAnnotations": {},
            "externalURL": "http://127.0.0.1:9093",
            "version": "4",
            "groupKey": group,
            "truncatedAlerts": 0,
            **changed,
        }
    ).encode()
