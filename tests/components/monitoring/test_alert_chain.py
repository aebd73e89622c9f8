"""From a document to a webhook, through the real Prometheus and Alertmanager."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from pathlib import Path

import pytest

from penstock.components.monitoring.alertmanager import AlertmanagerOptions
from penstock.components.monitoring.document import Document, write_document
from penstock.components.monitoring.document_folder import DocumentFolder
from penstock.components.monitoring.exporter import exposition
from penstock.components.monitoring.monitoring_files import (
    ALERTMANAGER,
    monitoring_files,
    write_files,
)
from penstock.components.monitoring.publishing import served
from penstock.components.monitoring.retraining.webhook import (
    Alert,
    parse_notification,
)
from penstock.components.monitoring.rules import RuleOptions
from tests.components.monitoring.documents import alert_document, ok_document
from tests.components.monitoring.prometheus import alertmanager, prometheus, until
from tests.components.monitoring.receivers import HttpReceiver, http_receiver


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def today(document: Document) -> Document:
    """Return a document as if its window had ended just now."""
    now = time.time()
    document["window"] = {
        "start": moment(now - 86_400),
        "end": moment(now - 1),
        "name": "today",
    }
    document["made_at"] = moment(now)
    return document


def drift(receiver: HttpReceiver) -> list[Alert]:
    """Return what the receiver was told of drift, in order."""
    told = [parse_notification(got.body) for got in receiver.got]
    return [each for one in told for each in one.alerts if each.name == "PenstockDrift"]


@pytest.mark.prometheus
def test_drift_is_told_once_through_restarts_and_so_is_its_end(tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    write_document(today(ok_document()), folder / "taxi.json")
    documents = DocumentFolder(folder)

    def text() -> bytes:
        return exposition(documents.newest(), unreadable=len(documents.faults))

    with http_receiver() as receiver, served(text, "0") as url:
        files = monitoring_files(
            RuleOptions("taxi", wait_seconds=0),
            AlertmanagerOptions(
                retraining_url=f"{receiver.url}/v1/alerts", group_interval_seconds=1
            ),
        )
        write_files(tmp_path / "etc", files, replace=False)
        with alertmanager(tmp_path / "alertmanager", files[ALERTMANAGER]) as alerts:
            target = url.removeprefix("http://").removesuffix("/metrics")
            configuration = (
                "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
                f"rule_files: ['{tmp_path / 'etc' / '*.rules.yml'}']\n"
                "alerting:\n"
                "  alertmanagers:\n"
                f"  - static_configs: [{{targets: ['{alerts.address}']}}]\n"
                "scrape_configs:\n"
                "- job_name: penstock\n"
                f"  static_configs: [{{targets: ['{target}']}}]\n"
            )
            with prometheus(tmp_path / "prometheus", configuration) as server:
                state = 'penstock_model_state{state="ok"} == 1'
                until(lambda: server.query(state), "a scrape")
                rules = server.get("/api/v1/rules")["data"]["groups"]
                assert all(rule["health"] != "err" for rule in rules[0]["rules"])
                assert not receiver.got
                write_document(today(alert_document()), folder / "taxi.json")
                until(lambda: drift(receiver), "the alert")
                (told,) = drift(receiver)
                assert told.firing
                assert told.labels["model_name"] == "taxi"
                assert told.labels["monitor"] == "both"
                assert " fare: 4.7 times" in told.annotations["description"]
            # Prometheus forgets since when an alert fires; Alertmanager does not.
            with prometheus(tmp_path / "prometheus", configuration) as server:
                fires = 'ALERTS{alertname="PenstockDrift",alertstate="firing"}'
                until(lambda: server.query(fires), "the alert after a restart")
                (known,) = alerts.get("/api/v2/alerts", filter='retrain="true"')
                since = datetime.fromisoformat(
                    known["startsAt"].replace("Z", "+00:00")
                ).timestamp()
                assert since == pytest.approx(told.starts_at / 1e9, abs=0.002)
                assert {each.starts_at for each in drift(receiver)} == {told.starts_at}
                ended = today(ok_document())
                ended["quality"] = alert_document()["quality"]
                write_document(ended, folder / "taxi.json")
                until(lambda: not drift(receiver)[-1].firing, "the end of the alert")
        assert [each.firing for each in drift(receiver)].count(False) == 1
        assert {each.starts_at for each in drift(receiver)} == {told.starts_at}
