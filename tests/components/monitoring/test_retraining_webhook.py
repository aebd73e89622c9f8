"""What Alertmanager's webhook sends, and what is none of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.components.monitoring.retraining.webhook import (
    nanoseconds,
    parse_notification,
)
from penstock.schemas.errors import DataError
from tests.components.monitoring.alertmanager_json import GROUP, alert, notification


def test_a_notification_is_read_with_its_alerts() -> None:
    found = parse_notification(
        notification(alert(feature="fare"), alert(status="resolved"), truncatedAlerts=3)
    )
    assert found.group_key == GROUP
    assert found.receiver == "retrain"
    assert found.truncated == 3
    first, second = found.alerts
    assert first.firing and not second.firing
    assert first.name == "ModelDrift"
    assert first.labels["feature"] == "fare"
    assert first.fingerprint == "5ef77f1f8a3ecfe7"
    assert first.starts_at == 1_796_018_400_123_456_789
    assert first.sentence == "ModelDrift: 'fare' drifts: KS 0.21 where 0.04 is allowed."


def test_an_alert_without_a_summary_is_told_by_its_labels() -> None:
    (found,) = parse_notification(
        notification(alert(summary="", feature="fare"))
    ).alerts
    assert found.sentence == "ModelDrift: feature=fare, model_name=taxi"


def test_alerts_are_grouped_by_the_model_that_a_label_names() -> None:
    found = parse_notification(
        notification(alert(), alert(model="tips"), alert(), alert(model=None))
    ).by_model("model_name")
    assert {name: len(alerts) for name, alerts in found.items()} == {
        "taxi": 2,
        "tips": 1,
        "": 1,
    }


def test_the_same_moment_is_the_same_however_it_is_written() -> None:
    same = {
        nanoseconds(text, "It")
        for text in (
            "2026-11-30T06:00:00Z",
            "2026-11-30T06:00:00.000Z",
            "2026-11-30T07:00:00+01:00",
            "2026-11-30t01:30:00-04:30",
        )
    }
    assert same == {1_796_018_400 * 10**9}


@given(st.integers(-(10**18), 10**19))
def test_nanoseconds_are_kept_whole(given: int) -> None:
    seconds, rest = divmod(given, 10**9)
    from datetime import datetime, timedelta, timezone

    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)
    text = moment.strftime(f"%Y-%m-%dT%H:%M:%S.{rest:09d}Z").rjust(30, "0")
    assert nanoseconds(text, "It") == given


_POINT = "Point a 'webhook_config' of Alertmanager here."


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (
            b"alerts=1",
            "The body is no JSON: Expecting value: line 1 column 1 (char 0). " + _POINT,
        ),
        (
            b"[]",
            "The body is a JSON list, and a notification is an object. " + _POINT,
        ),
        (
            notification(version="3"),
            "The notification is of version '3', and version '4' of Alertmanager's "
            "webhook is understood. Send that.",
        ),
        (
            b'{"version": "4"}',
            "'groupKey' of the notification is missing, and has to be a text. Send it "
            "as Alertmanager does.",
        ),
        (
            notification(groupKey=""),
            "The notification has an empty 'groupKey', by which repeats are known. "
            "Send it as Alertmanager does.",
        ),
        (
            notification(groupKey=5),
            "'groupKey' of the notification is a JSON number, and has to be a text. "
            "Send it as Alertmanager does.",
        ),
        (
            notification(alerts={}),
            "'alerts' of the notification is a JSON object, and has to be a list. "
            "Send it as Alertmanager does.",
        ),
        (
            notification(alerts=["fire"]),
            "Alert 0 of the notification is a JSON text, and has to be an object. "
            "Send it as Alertmanager does.",
        ),
        (
            notification(alerts=[alert(), alert(status="smoking")]),
            "Alert 1 of the notification has the status 'smoking', which is neither "
            "'firing' nor 'resolved'. Send it as Alertmanager does.",
        ),
        (
            notification(alerts=[{**alert(), "labels": {"model_name": 5}}]),
            "'labels' of alert 0 is no object of texts. Send it as Alertmanager does.",
        ),
        (
            notification(alerts=[alert(starts_at="yesterday")]),
            "'startsAt' of alert 0 is 'yesterday', which is no time. Send it as "
            "Alertmanager does: 2026-11-30T06:00:00.123Z.",
        ),
        (
            notification(alerts=[alert(starts_at="2026-02-30T06:00:00Z")]),
            "'startsAt' of alert 0 is '2026-02-30T06:00:00Z', which is no time. Send "
            "it as Alertmanager does: 2026-11-30T06:00:00.123Z.",
        ),
    ],
)
def test_what_is_no_notification_gets_a_sentence(body: bytes, sentence: str) -> None:
    with pytest.raises(DataError) as raised:
        parse_notification(body)
    assert str(raised.value) == sentence


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["version", "groupKey", "alerts", "receiver", "truncatedAlerts"]
        ),
        st.just("4") | st.lists(st.just(alert()) | _JSON) | _JSON,
    )
)
def test_whatever_comes_is_read_or_gets_a_sentence(document: dict[str, object]) -> None:
    try:
        parse_notification(json.dumps(document).encode())
    except DataError as error:
        assert str(error).endswith(".")
