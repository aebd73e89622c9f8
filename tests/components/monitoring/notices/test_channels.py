"""Settings of notices: what is read, what is refused, and when nobody is told."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from penstock.components.monitoring.notices.channels import (
    Mail,
    Settings,
    Silence,
    Slack,
    Webhook,
    read_settings,
)
from penstock.components.monitoring.notices.notice import Standing, news
from penstock.schemas.errors import DataError
from tests.components.monitoring.documents import alert_document

MAIL = {
    "kind": "mail",
    "server": "smtp.example.com:587",
    "user": "penstock",
    "password_file": "password",
    "sender": "penstock@example.com",
    "to": ["team@example.com", "boss@example.com"],
}
HOOK = {"kind": "webhook", "url": "https://hooks.example.com/x"}


def settings(tmp_path: Path, **data: Any) -> Settings:
    data.setdefault("channels", {"hook": HOOK})
    path = tmp_path / "notices.json"
    path.write_text(json.dumps(data))
    return read_settings(path)


def refused(tmp_path: Path, **data: Any) -> str:
    with pytest.raises(DataError) as caught:
        settings(tmp_path, **data)
    text = str(caught.value)
    begin = f"Settings '{tmp_path / 'notices.json'}'"
    assert text.startswith(begin)
    return text.removeprefix(begin)


def test_channels_of_all_kinds_are_read(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        channels={
            "team": MAIL,
            "oncall": {"kind": "slack", "url_file": "slack", "models": ["taxi*"]},
            "hook": {**HOOK, "token_file": "token", "notices": ["alert"]},
        },
        link="https://reports.example.com/{model}/{window}.html",
    )
    everything = ("alert", "resolved", "insufficient_data")
    assert found.channels == {
        "team": Mail(
            "team",
            ("*",),
            everything,
            "smtp.example.com",
            587,
            "starttls",
            "penstock",
            tmp_path / "password",
            "penstock@example.com",
            ("team@example.com", "boss@example.com"),
        ),
        "oncall": Slack("oncall", ("taxi*",), everything, tmp_path / "slack"),
        "hook": Webhook(
            "hook",
            ("*",),
            ("alert",),
            "https://hooks.example.com/x",
            None,
            tmp_path / "token",
        ),
    }


def test_a_channel_gets_what_it_wants(tmp_path: Path) -> None:
    _, notice = news(alert_document(), Standing())
    assert notice
    found = settings(
        tmp_path,
        channels={
            "all": HOOK,
            "fares": {**HOOK, "models": ["fares", "t?xi"]},
            "others": {**HOOK, "models": ["fares*"]},
            "ends": {**HOOK, "notices": ["resolved"]},
        },
    )
    wanting = [name for name, each in found.channels.items() if each.wants(notice)]
    assert wanting == ["all", "fares"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            {"channels": {}},
            " have no channel. Add one to 'channels', or nobody is told.",
        ),
        ({"channels": []}, " have a 'channels' that is no table. Write a table."),
        (
            {"silence": []},
            " have 'silence', which is not known (known are 'channels', 'link', "
            "'silences'). Did you mean 'silences'?",
        ),
        (
            {"channels": {"a b": HOOK}},
            " have a channel 'a b'. Name it with letters, digits, '-' and '_'.",
        ),
        (
            {"channels": {"a": 1}},
            ", channel 'a', are no table. Write { and } around it.",
        ),
        (
            {"channels": {"a": {"kind": "email"}}},
            ", channel 'a', have 'email' as 'kind', which is one of 'mail', 'slack', "
            "'webhook'. Did you mean 'mail'?",
        ),
        (
            {"channels": {"a": {"kind": "slack", "url": "https://hooks/secret"}}},
            ", channel 'a', have a 'url', and whoever knows it can write to Slack. Put "
            "it into a file that only you may read, and name that as 'url_file'.",
        ),
        (
            {"channels": {"a": {"kind": "slack", "urlfile": "x"}}},
            ", channel 'a', have no 'url_file'. Add it. Did you mean 'urlfile'?",
        ),
        (
            {"channels": {"a": {"kind": "webhook"}}},
            ", channel 'a', have to have either a 'url' or a 'url_file'. Write one of "
            "them.",
        ),
        (
            {"channels": {"a": {**HOOK, "url": "https://me:secret@x"}}},
            ", channel 'a', have a 'url', which for 'x' holds a name or a password, "
            "which would show in logs. Put a token into a file and name that.",
        ),
        (
            {"channels": {"a": {**HOOK, "notices": ["alerts"]}}},
            ", channel 'a', have 'alerts' as 'notices', which is one of 'alert', "
            "'insufficient_data', 'resolved'. Did you mean 'alert'?",
        ),
        (
            {"channels": {"a": {**HOOK, "models": [1]}}},
            ", channel 'a', have a 'models' that is no list of texts. Write a list of "
            "texts.",
        ),
        (
            {"channels": {"a": {**MAIL, "server": "smtp"}}},
            ", channel 'a', have a 'server' that is not 'host:port'. Write it so.",
        ),
        (
            {"channels": {"a": {**MAIL, "security": "none"}}},
            ", channel 'a', would send a password to 'smtp.example.com' for everybody "
            "to read. Write 'starttls' or 'tls' as 'security'.",
        ),
        (
            {"channels": {"a": {**MAIL, "user": ""}}},
            ", channel 'a', have one of 'user' and 'password_file'. Write both, or "
            "neither.",
        ),
        (
            {"channels": {"a": {**MAIL, "to": ["team"]}}},
            ", channel 'a', have the address 'team'. Write it as 'name@host'.",
        ),
        (
            {"channels": {"a": {**MAIL, "to": []}}},
            ", channel 'a', have an empty 'to'. Write at least one address.",
        ),
        (
            {"link": "https://x/{modle}"},
            " have the link 'https://x/{modle}', in which only '{model}' and "
            "'{window}' are known. Write others as '{{' and '}}'.",
        ),
        (
            {"silences": [{"from": "2026-12-24", "until": "2026-12-27T00:00:00Z"}]},
            ", silence 1, have the time '2026-12-24' as 'from'. Write it as "
            "'2026-12-24T00:00:00Z'.",
        ),
        (
            {
                "silences": [
                    {"from": "2026-12-27T00:00:00Z", "until": "2026-12-27T00:00:00Z"}
                ]
            },
            ", silence 1, end before they begin. Write 'until' after 'from'.",
        ),
        (
            {"silences": [{"weekdays": ["sonntag"]}]},
            ", silence 1, have 'sonntag' as 'weekdays', which is one of 'fri', 'mon', "
            "'sat', 'sun', 'thu', 'tue', 'wed'.",
        ),
        (
            {"silences": [{"weekdays": ["sun"], "from": "25:00"}]},
            ", silence 1, have '25:00' as 'from'. Write hours and minutes, as '22:00'.",
        ),
        (
            {"silences": [{"weekdays": ["sun"], "timezone": "Mars/Olympus"}]},
            ", silence 1, have the time zone 'Mars/Olympus', which this machine does "
            "not know. Write it as 'Europe/Berlin', or 'UTC'.",
        ),
        (
            {"silences": [{"weekdays": ["sun"], "channels": ["hok"]}]},
            ", silence 1, have 'hok' as 'channels', which is one of 'hook'. Did you "
            "mean 'hook'?",
        ),
    ],
)
def test_what_is_not_understood_is_refused(
    tmp_path: Path, data: dict[str, Any], said: str
) -> None:
    assert refused(tmp_path, **data) == said


def test_a_file_that_is_not_there_or_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_settings(tmp_path / "none.json")
    assert str(caught.value) == (
        f"Settings '{tmp_path / 'none.json'}' cannot be read: No such file or "
        "directory. Name a file of JSON with 'channels'."
    )
    (tmp_path / "bad.json").write_text("channels: {}")
    with pytest.raises(DataError, match=r"are no JSON: Expecting value.*\."):
        read_settings(tmp_path / "bad.json")


def test_the_settings_of_the_guide_are_read(tmp_path: Path) -> None:
    guide = Path(__file__).parents[4] / "docs" / "alerts.md"
    (block,) = re.findall(r"```json\n(.*?)```", guide.read_text("utf-8"), re.DOTALL)
    found = settings(tmp_path, **json.loads(block))
    assert list(found.channels) == ["team", "oncall", "hook"]
    assert len(found.silences) == 2


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_a_silence_ends_and_holds_for_whom_it_names(tmp_path: Path) -> None:
    _, notice = news(alert_document(), Standing())
    assert notice
    found = settings(
        tmp_path,
        channels={"hook": HOOK, "other": HOOK},
        silences=[
            {
                "from": "2026-12-24T00:00:00Z",
                "until": "2026-12-27T00:00:00Z",
                "channels": ["hook"],
                "models": ["taxi"],
                "reason": "holidays",
            },
            {"from": "2026-12-26T20:00:00Z", "until": "2026-12-27T06:00:00Z"},
            {
                "from": "2026-12-01T00:00:00Z",
                "until": "2027-12-01T00:00:00Z",
                "models": ["fares"],
            },
        ],
    )
    hook, other = found.channels["hook"], found.channels["other"]
    within = at("2026-12-25T00:00:00+00:00")
    # One silence leads into the next.
    assert found.not_before(notice, hook, within) == at("2026-12-27T06:00:00+00:00")
    assert found.not_before(notice, other, within) == within
    after = at("2026-12-27T06:00:00+00:00")
    assert found.not_before(notice, hook, after) == after


def test_a_silence_of_every_week_goes_over_midnight_by_a_clock_on_a_wall(
    tmp_path: Path,
) -> None:
    found = settings(
        tmp_path,
        silences=[
            {
                "weekdays": ["fri", "sat"],
                "from": "22:00",
                "until": "07:30",
                "timezone": "Europe/Berlin",
            }
        ],
    )
    (silence,) = found.silences
    # Friday, 2026-10-23; the clocks go back on Sunday, the 25th, at 3.
    friday = at("2026-10-23T22:00:00+02:00")
    assert silence.until(friday) == at("2026-10-24T07:30:00+02:00")
    assert silence.until(friday - 1) == friday - 1
    night = at("2026-10-25T01:00:00+02:00")
    assert silence.until(night) == at("2026-10-25T07:30:00+01:00")
    sunday = at("2026-10-25T23:00:00+01:00")
    assert silence.until(sunday) == sunday


def test_whole_days_are_silent_without_times(tmp_path: Path) -> None:
    (silence,) = settings(tmp_path, silences=[{"weekdays": ["sat", "sun"]}]).silences
    assert isinstance(silence, Silence)
    saturday = at("2026-11-28T12:00:00+00:00")
    assert silence.until(saturday) == at("2026-11-29T00:00:00+00:00")
