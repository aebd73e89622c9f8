"""A configuration of Alertmanager: who is told, and what starts a training run.

Alerts of one model and rule are one group. Those with the label `retrain` go to the
receiver of `penstock retrain serve` besides: what is told to people and what starts a
run are two routes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.components.monitoring.rules import duration
from penstock.components.monitoring.web import check_url
from penstock.schemas.errors import DataError

PEOPLE, RETRAINING = "people", "retraining"
"""Names of the receivers."""


@dataclass(frozen=True)
class AlertmanagerOptions:
    """Who is told.

    Attributes:
        retraining_url: Where `penstock retrain serve` takes alerts; empty for nowhere.
        retraining_token_file: Holds the bearer token that it asks for, on the machine
            of Alertmanager.
        slack_url_file: Holds the URL of an incoming webhook of Slack, there.
        slack_channel: Where in Slack; empty for what the webhook was made for.
        mail_to: Addresses that mail goes to.
        mail_from: Whom mail is from.
        mail_server: Server of outgoing mail, as `host:port`; Alertmanager asks it for
            STARTTLS.
        mail_user: Whom to log in as there; empty for nobody.
        mail_password_file: Of that user, on the machine of Alertmanager.
        group_wait_seconds: How long the first alert of a group waits for others.
        group_interval_seconds: How long a group is quiet before it tells of a change,
            as of the end of its alerts.
        repeat_seconds: After how long an alert that goes on is told again.
    """

    retraining_url: str = ""
    retraining_token_file: Path | None = None
    slack_url_file: Path | None = None
    slack_channel: str = ""
    mail_to: tuple[str, ...] = ()
    mail_from: str = ""
    mail_server: str = ""
    mail_user: str = ""
    mail_password_file: Path | None = None
    group_wait_seconds: int = 30
    group_interval_seconds: int = 300
    repeat_seconds: int = 86_400

    def __post_init__(self) -> None:
        if self.mail_to and not (self.mail_from and self.mail_server):
            raise DataError(
                "Mail of Alertmanager needs a sender and a server. Pass 'mail_from' "
                "and 'mail_server' with 'mail_to'."
            )
        if bool(self.mail_user) != (self.mail_password_file is not None):
            raise DataError(
                "Mail of Alertmanager has one of 'mail_user' and 'mail_password_file'. "
                "Pass both, or neither."
            )
        if self.retraining_url:
            check_url(self.retraining_url, "The URL of the retraining receiver")


def alertmanager_configuration(options: AlertmanagerOptions) -> dict[str, Any]:
    """Return the configuration, as data for a YAML file.

    Secrets are in files that it names, never in it.
    """
    routes = []
    receivers: list[dict[str, Any]] = [{"name": PEOPLE, **_people(options)}]
    if options.retraining_url:
        routes.append(
            {
                "receiver": RETRAINING,
                "matchers": ['retrain="true"'],
                # One notification is about one model, whatever its alerts are called.
                "group_by": ["model_name"],
                # A run is not waited for by anybody; duplicates start none.
                "group_wait": "0s",
                # What came within a cool-down is decided anew when it is told again.
                "repeat_interval": duration(min(options.repeat_seconds, 3600)),
                "continue": True,
            }
        )
        # A route that goes on leads to its next neighbor, never back to its parent.
        routes.append({"receiver": PEOPLE})
        receivers.append({"name": RETRAINING, "webhook_configs": [_hook(options)]})
    return {
        "route": {
            "receiver": PEOPLE,
            "group_by": ["model_name", "alertname"],
            "group_wait": duration(options.group_wait_seconds),
            "group_interval": duration(options.group_interval_seconds),
            "repeat_interval": duration(options.repeat_seconds),
            "routes": routes,
        },
        # Who watches has to be there before what it said counts.
        "inhibit_rules": [
            {
                "source_matchers": [
                    'alertname=~"PenstockMonitoringAbsent|PenstockMonitoringStale"'
                ],
                "target_matchers": [
                    'alertname=~"PenstockInsufficientRows|PenstockWindowOld"'
                ],
                "equal": ["model_name", "monitor"],
            }
        ],
        "receivers": receivers,
    }


def _hook(options: AlertmanagerOptions) -> dict[str, Any]:
    hook: dict[str, Any] = {
        "url": options.retraining_url,
        # Who is told that an alert is over knows that it goes on no more.
        "send_resolved": True,
        "max_alerts": 0,
    }
    if options.retraining_token_file:
        file = str(options.retraining_token_file)
        authorization = {"type": "Bearer", "credentials_file": file}
        hook["http_config"] = {"authorization": authorization}
    return hook


def _people(options: AlertmanagerOptions) -> dict[str, Any]:
    title = (
        '{{ if eq .Status "resolved" }}Resolved: {{ end }}'
        "{{ with index .Alerts 0 }}{{ .Annotations.summary }}{{ end }}"
    )
    text = (
        "{{ range .Alerts }}{{ .Annotations.summary }}: "
        "{{ .Annotations.description }}\n{{ end }}"
    )
    found: dict[str, Any] = {}
    if options.slack_url_file:
        slack = {
            "api_url_file": str(options.slack_url_file),
            "send_resolved": True,
            "title": title,
            "text": text,
        }
        if options.slack_channel:
            slack["channel"] = options.slack_channel
        found["slack_configs"] = [slack]
    if options.mail_to:
        mail: dict[str, Any] = {
            "to": ", ".join(options.mail_to),
            "from": options.mail_from,
            "smarthost": options.mail_server,
            "send_resolved": True,
            "headers": {"Subject": f"[penstock] {title}"},
            "text": text,
        }
        if options.mail_user:
            mail["auth_username"] = options.mail_user
            mail["auth_password_file"] = str(options.mail_password_file)
        found["email_configs"] = [mail]
    return found
