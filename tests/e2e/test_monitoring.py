"""Drift in the logs of the taxi model, as far as the new version that comes of it.

With the real Prometheus and Alertmanager: the logs are profiled and compared with what
the served model was trained on, the document is exported and scraped, a rule fires,
Alertmanager tells the receiver, and that runs the taxi pipeline once.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock.components as c
from penstock.components.monitoring.alertmanager import (
    AlertmanagerOptions,
    alertmanager_configuration,
)
from penstock.components.monitoring.document_folder import DocumentFolder
from penstock.components.monitoring.exporter import exposition
from penstock.components.monitoring.publishing import served
from penstock.components.monitoring.retraining.journal import Answer, Journal
from penstock.components.monitoring.rules import RuleOptions, monitoring_rules
from penstock.components.monitoring.yaml_text import yaml
from penstock.components.serving.version_dir import verify, versions
from penstock.pipelines import lineage
from penstock.pipelines.inputs import TrainedOn
from penstock.pipelines.metadata import Store
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.retraining import RetrainingDecision, why_decided
from penstock.pipelines.run import run
from penstock.pipelines.runners import LocalRunner
from penstock.pipelines.taxi.trips import write_trips
from penstock.schemas.artifacts import DriftVerdict
from tests.components.monitoring.prometheus import (
    Server,
    alertmanager,
    prometheus,
    until,
)
from tests.components.monitoring.retrain_served import Served

pytestmark = [pytest.mark.long, pytest.mark.prometheus]

CHECKOUT = Path(__file__).resolve().parents[2]
TAXI = "penstock.pipelines.taxi:taxi"
ROWS = 2_500


class World:
    """A taxi model that is served, its logs, and all who watch it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root, self.data = folder / "root", folder / "data"
        self.serving, self.logs = folder / "serving" / "taxi", folder / "logs"
        self.documents = folder / "documents"
        self.documents.mkdir()
        self.journal = Journal(folder / "state")

    @property
    def store(self) -> Store:
        return Store(f"sqlite:///{self.root / 'metadata.sqlite'}", create=False)

    @property
    def params(self) -> list[str]:
        return [
            *("--param", f"data={self.data}", "--param", "train_steps=700"),
            *("--param", f"serving_dir={self.serving}", "--root", str(self.root)),
        ]

    def first_version(self) -> None:
        """Train and push the first version."""
        write_trips(self.data, rows=ROWS, days=5)
        done = subprocess.run(
            [sys.executable, "-m", "penstock", "run", TAXI, *self.params],
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def day(self, date: str, *, one_in: int | None = None) -> Path:
        """Write the log of a day; one in so many fares is half as high again."""
        folder = self.logs / date
        (file,) = write_trips(
            folder,
            rows=ROWS,
            days=1,
            seed=1,
            first_day=datetime.date.fromisoformat(date),
        )
        if one_in is not None:
            with file.open(newline="") as lines:
                trips = list(csv.DictReader(lines))
            for trip in trips[::one_in]:
                for name in ("fare", "tips", "trip_total"):
                    if trip.get(name):
                        trip[name] = f"{float(trip[name]) * 1.5:.2f}"
            with file.open("w", newline="") as lines:
                writer = csv.DictWriter(lines, trips[0])
                writer.writeheader()
                writer.writerows(trips)
        return folder

    def look(self, log: Path) -> dict[str, Any]:
        """Look at the log of a day; export and return what is found."""
        ingest = c.CsvExampleGen(input_dir=log, splits={"all": 1})
        drift = c.DriftMonitor(
            examples=ingest.examples,
            reference=TrainedOn(self.serving),
            model="taxi",
            monitor_dir=self.folder / "monitoring",
            time="trip_start_timestamp",
            # A day without drift shall be one with near certainty.
            alerts_per_month=0.1,
            columns=("fare", "trip_miles", "trip_seconds", "payment_type", "company"),
        )
        pipeline = Pipeline("taxi-monitoring", [ingest, drift])
        result = run(pipeline, self.root, runner=LocalRunner())
        verdict = result["DriftMonitor"].outputs["verdict"]
        assert isinstance(verdict, DriftVerdict)
        text = (verdict.path / "drift.json").read_text(encoding="utf-8")
        draft = self.documents / "drift.partial"
        draft.write_text(text, encoding="utf-8")
        draft.replace(self.documents / "drift.json")
        found: dict[str, Any] = json.loads(text)
        return found

    def receiver(self) -> Served:
        """Return a receiver for which nothing but the past speaks against a run."""
        return Served(
            *("--model", f"taxi={TAXI}", *self.params),
            *("--cool-down", "0s", "--runs-per-day", "99"),
            *("--state", str(self.journal.folder)),
        )

    @contextlib.contextmanager
    def watched(
        self, receiver: Served, metrics: str
    ) -> Iterator[tuple[Server, Server]]:
        """Run Prometheus and Alertmanager, which scrape and tell every second."""
        configuration = alertmanager_configuration(
            AlertmanagerOptions(
                retraining_url=f"{receiver.url}/v1/alerts",
                group_interval_seconds=1,
                repeat_seconds=2,
            )
        )
        rules = self.folder / "rules.yml"
        rules.write_text(
            yaml(monitoring_rules(RuleOptions(model="taxi", wait_seconds=0)))
        )
        with alertmanager(self.folder / "am", yaml(configuration)) as told:
            jobs = [
                {"job_name": name, "static_configs": [{"targets": [target]}]}
                for name, target in (
                    ("monitoring", metrics.removeprefix("http://").partition("/")[0]),
                    ("retraining", receiver.url.removeprefix("http://")),
                )
            ]
            targets = [{"static_configs": [{"targets": [told.address]}]}]
            text = yaml(
                {
                    "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                    "rule_files": [str(rules)],
                    "scrape_configs": jobs,
                    "alerting": {"alertmanagers": targets},
                }
            )
            with prometheus(self.folder / "prometheus", text) as watching:
                yield watching, told


def test_drift_in_the_logs_comes_to_one_new_version(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.first_version()
    quiet = world.look(world.day("2013-05-09"))
    assert quiet["state"] == "ok", quiet["reasons"]
    folder = DocumentFolder(world.documents)
    receiver = world.receiver()
    receiver.begin()
    try:
        with served(lambda: exposition(folder.newest()), "127.0.0.1:0") as metrics:
            with world.watched(receiver, metrics) as (watching, _):
                until(
                    lambda: watching.query('penstock_model_state{state="ok"} == 1'),
                    "a scrape of a quiet day",
                )
                assert world.journal.decisions() == []

                log = world.day("2013-05-14", one_in=1)
                # By the time that it is looked at its labels are there, too.
                for trips in log.iterdir():
                    (world.data / trips.name).write_bytes(trips.read_bytes())
                drifted = world.look(log)
                assert drifted["state"] == "alert", drifted["reasons"]
                assert drifted["columns"][0]["name"] == "fare"
                (decision,) = until(world.journal.decisions, "a decision", 180)
                assert decision.answer is Answer.START
                assert decision.reason == "PenstockDrift"
                assert decision.evidence["alerts"][0]["labels"]["model_name"] == "taxi"

                # The receiver is killed while the model is trained, and begun again.
                receiver.kill()
                receiver.begin()
                _many(world, 2)

            # So do Prometheus and Alertmanager begin again, while the alert goes on.
            with world.watched(receiver, metrics) as (watching, told):
                done = until(
                    lambda: world.journal.decision(1).outcome, "the outcome", 400
                )
                assert done == "pushed", world.journal.decision(1).result
                _many(world, 2)
                assert len(world.journal.decisions()) == 1
                started = "penstock_model_retrain_triggered_total"
                (series,) = until(lambda: watching.query(started), "the counter")
                assert series["metric"]["reason"] == "PenstockDrift"
                assert series["value"][1] == "1"

                # A day like the six that the new version was trained on.
                after = world.look(world.day("2013-05-16", one_in=6))
                assert after["state"] == "ok", after["reasons"]
                assert after["reference"]["id"] != drifted["reference"]["id"]
                until(lambda: _drift_alerts(told) == 0, "the end of the alert", 180)
                receiver.kill()
                receiver.begin()
        assert len(world.journal.decisions()) == 1
    finally:
        receiver.kill()

    store = world.store
    assert [each.state.value for each in store.runs("taxi")] == ["complete"] * 2
    assert [each.number for each in versions(world.serving)] == [1, 2]
    assert verify(world.serving, 2) == ()
    made = lineage.made(store, world.serving, 2)
    (why,) = made.of(RetrainingDecision)
    assert "PenstockDrift: taxi drifts" in why_decided(why)
    run_ids = {each.run_id for each in made.executions.values()}
    assert world.journal.decision(1).run_id in run_ids
    assert lineage.made(store, world.serving, 1).of(RetrainingDecision) == ()


def _many(world: World, more: int) -> None:
    """Wait until Alertmanager has told the same a few times more."""
    before = world.journal.decision(1).notices
    until(lambda: world.journal.decision(1).notices >= before + more, "repeats", 180)


def _drift_alerts(told: Server) -> int:
    return len(told.get("/api/v2/alerts", filter='alertname="PenstockDrift"'))
