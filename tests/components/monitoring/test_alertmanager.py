"""Alertmanager takes the configuration, and sends alerts where they belong."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from penstock.components.monitoring.alertmanager import (
    AlertmanagerOptions,
    alertmanager_configuration,
)
from penstock.components.monitoring.retraining.webhook import parse_notification
from penstock.components.monitoring.yaml_text import yaml
from penstock.schemas.errors import DataError
from tests.components.monitoring.prometheus import alertmanager, tool, until
from tests.components.monitoring.receivers import http_receiver, smtp_receiver

TOKEN = "a-token-of-the-receiver"


def everything(tmp_path: Path, url: str = "http://127.0.0.1:9095/v1/alerts") -> Any:
    for name, content in (
        ("token", TOKEN),
        ("slack", "http://127.0.0.1:9/services/secret"),
        ("password", "a secret password"),
    ):
        (tmp_path / name).write_text(content)
    return {
        "retraining_url": url,
        "retraining_token_file": tmp_path / "token",
        "slack_url_file": tmp_path / "slack",
        "slack_channel": "#models",
        "mail_to": ("team@example.com", "boss@example.com"),
        "mail_from": "penstock@example.com",
        "mail_server": "smtp.example.com:587",
        "mail_user": "penstock",
        "mail_password_file": tmp_path / "password",
    }


def written(tmp_path: Path, **options: Any) -> Path:
    path = tmp_path / "alertmanager.yml"
    path.write_text(yaml(alertmanager_configuration(AlertmanagerOptions(**options))))
    return path


CHOICES: dict[str, tuple[str, ...]] = {
    "everything": (),
    "nothing": (),
    "retraining": ("retraining_url",),
    "retraining with a token": ("retraining_url", "retraining_token_file"),
    "slack": ("slack_url_file",),
    "mail": ("mail_to", "mail_from", "mail_server"),
}


@pytest.mark.prometheus
@pytest.mark.parametrize("name", CHOICES)
def test_amtool_takes_the_configuration(name: str, tmp_path: Path) -> None:
    options = everything(tmp_path)
    if name != "everything":
        options = {key: options[key] for key in CHOICES[name]}
    done = tool("amtool", "check-config", written(tmp_path, **options))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("repeat_seconds", "people", "retraining"),
    [(86_400, "1d", "1h"), (600, "10m", "10m")],
)
def test_a_training_run_is_asked_for_again_before_people_are(
    repeat_seconds: int, people: str, retraining: str, tmp_path: Path
) -> None:
    options = everything(tmp_path)
    route = alertmanager_configuration(
        AlertmanagerOptions(**options, repeat_seconds=repeat_seconds)
    )["route"]
    assert route["repeat_interval"] == people
    first, *others = route["routes"]
    assert (first["receiver"], first["repeat_interval"]) == ("retraining", retraining)
    assert others == [{"receiver": "people"}]


@pytest.mark.prometheus
@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        ("retrain=true model_name=taxi", "retraining,people"),
        ("model_name=taxi", "people"),
        ("retrain=false model_name=taxi", "people"),
    ],
)
def test_only_alerts_that_say_so_start_a_training_run(
    labels: str, receivers: str, tmp_path: Path
) -> None:
    path = written(tmp_path, **everything(tmp_path))
    done = tool(
        *("amtool", "config", "routes", "test"),
        f"--config.file={path}",
        f"--verify.receivers={receivers}",
        *labels.split(),
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.prometheus
def test_the_real_alertmanager_tells_the_receiver_and_people(tmp_path: Path) -> None:
    with http_receiver() as hooks, smtp_receiver() as mails:
        options = everything(tmp_path, f"{hooks.url}/v1/alerts")
        (tmp_path / "slack").write_text(f"{hooks.url}/slack")
        options["mail_server"] = f"127.0.0.1:{mails.port}"
        del options["mail_user"], options["mail_password_file"]
        path = written(tmp_path, **options, group_wait_seconds=0)
        # The receiver of the test does not speak TLS.
        text = path.read_text().replace(
            "smarthost",
            "require_tls: false\n\
        smarthost",
        )
        with alertmanager(tmp_path, text) as server:
            alerts = [
                {
                    "labels": {
                        "alertname": name,
                        "model_name": "taxi",
                        "retrain": retrain,
                    },
                    "annotations": {"summary": "taxi drifts", "description": "far"},
                }
                for name, retrain in (("PenstockDrift", "true"), ("Other", "false"))
            ]
            asked = urllib.request.Request(
                f"{server.url}/api/v2/alerts",
                json.dumps(alerts).encode(),
                {"Content-Type": "application/json"},
            )
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            for _ in range(3):
                direct.open(asked).close()
            until(lambda: len(hooks.got) >= 3, "notifications")
            until(lambda: len(mails.mails) >= 2, "mails")
        (started,) = (got for got in hooks.got if got.path == "/v1/alerts")
        assert started.headers["Authorization"] == f"Bearer {TOKEN}"
        notification = parse_notification(started.body)
        (alert,) = notification.by_model("model_name")["taxi"]
        assert (alert.name, alert.firing) == ("PenstockDrift", True)
        slack = [json.loads(got.body) for got in hooks.got if got.path == "/slack"]
        assert {each["attachments"][0]["title"] for each in slack} == {"taxi drifts"}
        assert all(b"Subject: [penstock] taxi drifts" in m.data for m in mails.mails)


def test_no_secret_is_in_the_configuration(tmp_path: Path) -> None:
    options = everything(tmp_path)
    text = written(tmp_path, **options).read_text()
    for name in ("token", "slack", "password"):
        assert (tmp_path / name).read_text() not in text.replace(str(tmp_path), "")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"mail_to": ("a@b",)},
            "Mail of Alertmanager needs a sender and a server. Pass 'mail_from' and "
            "'mail_server' with 'mail_to'.",
        ),
        (
            {"mail_user": "u"},
            "Mail of Alertmanager has one of 'mail_user' and 'mail_password_file'. "
            "Pass both, or neither.",
        ),
        (
            {"retraining_url": "9095"},
            "The URL of the retraining receiver is not a URL of HTTP. Write it as "
            "'https://host:port/path'.",
        ),
    ],
)
def test_half_a_receiver_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as caught:
        AlertmanagerOptions(**options)
    assert str(caught.value) == said
