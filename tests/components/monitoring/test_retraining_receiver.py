"""The receiver: alerts come in, one process is started, whoever is killed."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from penstock.components.monitoring.retraining.app import App
from penstock.components.monitoring.retraining.config import Config, ModelConfig
from penstock.components.monitoring.retraining.journal import (
    Answer,
    Decision,
    Journal,
    Limits,
    Recipe,
)
from penstock.components.monitoring.retraining.places import carrying_out
from penstock.components.monitoring.retraining.receiver import (
    ATTEMPTS,
    Keeper,
    Receiver,
)
from penstock.components.monitoring.retraining.schedule import parse_schedule
from penstock.components.monitoring.retraining.service import serve
from penstock.schemas.errors import ServingError
from tests.components.monitoring.alertmanager_json import GROUP, alert, notification

NOW = 1_796_018_400.0
RECIPE = Recipe("pipe.py:toy", "/root", "/folder")
TAXI = ModelConfig("taxi", RECIPE, Limits(cool_down_seconds=3_600.0))
TOKEN = "t" * 32


class Starts:
    """Starts processes that wait to be told to end, and counts them."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def __call__(self, decision: Decision) -> subprocess.Popen[bytes]:
        self.started.append(decision.id)
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", "input()"],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.processes.append(process)
        return process

    def die(self) -> None:
        """Have all processes end without a word."""
        for each in self.processes:
            each.kill()
            each.communicate()
        self.processes.clear()


class Site:
    """A receiver with a clock that stands still, and what it started."""

    def __init__(self, folder: Path, starts: Starts, *models: ModelConfig) -> None:
        self.now = NOW
        self.starts = starts
        self.journal = Journal(folder)
        self.receiver = Receiver(
            Config({each.name: each for each in models or (TAXI,)}),
            self.journal,
            starts,
            clock=lambda: self.now,
        )
        self.keeper = Keeper(self.receiver)

    def post(self, body: bytes, **headers: str) -> tuple[int, Any]:
        """Send a notification to the application; return status and JSON."""
        status, text, _ = self.ask("POST", "/v1/alerts", body, **headers)
        return status, json.loads(text)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        token: str | None = None,
        **headers: str,
    ) -> tuple[int, bytes, dict[str, str]]:
        """Send a request to the application; return status, body and headers."""
        app = App(self.receiver, self.keeper, token, max_bytes=10_000)
        given = {"content_type": "application/json", **headers}
        sent = iter(
            [
                {"type": "http.request", "body": body[:100], "more_body": True},
                {"type": "http.request", "body": body[100:], "more_body": False},
            ]
        )
        answers: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return next(sent)

        async def send(message: dict[str, Any]) -> None:
            answers.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": [
                (key.replace("_", "-").encode(), value.encode())
                for key, value in given.items()
            ],
        }
        asyncio.run(app(scope, receive, send))
        said = {key.decode(): value.decode() for key, value in answers[0]["headers"]}
        return int(answers[0]["status"]), answers[1]["body"], said


@pytest.fixture
def starts() -> Iterator[Starts]:
    made = Starts()
    yield made
    made.die()


@pytest.fixture
def site(tmp_path: Path, starts: Starts) -> Site:
    return Site(tmp_path / "state", starts)


# --- alerts


def test_an_alert_starts_one_process_and_its_repeats_none(site: Site) -> None:
    status, said = site.post(notification())
    assert status == 200
    (decision,) = said["decisions"]
    assert decision == {
        "decision": 1,
        "model": "taxi",
        "answer": "start",
        "because": "No run of 'taxi' goes on; cool-down and limit allow one.",
        "run": "20261130-060000.000000",
        "repeat": False,
    }
    for _ in range(3):
        site.receiver.carry_on()
        status, said = site.post(notification())
        assert (status, said["decisions"][0]["repeat"]) == (200, True)
    assert site.starts.started == [1]


def test_what_fired_is_kept_as_the_reason(site: Site) -> None:
    site.post(notification(alert(feature="fare"), alert(summary="Too."), alert()))
    (decision,) = site.journal.decisions()
    assert decision.reason == "ModelDrift"
    assert decision.reasons == (
        "ModelDrift: 'fare' drifts: KS 0.21 where 0.04 is allowed.",
        "ModelDrift: Too.",
    )
    assert decision.evidence["group_key"] == GROUP
    assert decision.evidence["alerts"][0]["labels"]["feature"] == "fare"


def test_of_very_many_alerts_the_rest_is_counted(site: Site) -> None:
    many = [alert(summary=f"Number {number}.") for number in range(30)]
    site.receiver.receive(notification(*many, truncatedAlerts=5))
    (decision,) = site.journal.decisions()
    assert len(decision.reasons) == 21
    assert decision.reasons[-1] == "And 15 more."


def test_a_resolved_alert_starts_nothing(site: Site) -> None:
    status, said = site.post(notification(alert(status="resolved")))
    assert (status, said["decisions"]) == (200, [])
    assert said["ignored"] == ["The alerts of 'taxi' are resolved: nothing starts."]
    assert site.journal.decisions() == []


def test_of_a_group_only_what_fires_counts(site: Site) -> None:
    resolved = alert(
        status="resolved", starts_at="2026-11-29T06:00:00Z", summary="Old."
    )
    site.post(notification(resolved, alert(summary="New.")))
    (decision,) = site.journal.decisions()
    assert decision.reasons == ("ModelDrift: New.",)


def test_an_alert_that_fires_anew_is_another_matter(site: Site) -> None:
    site.post(notification())
    site.journal.end(1, "pushed", "", now=NOW)
    site.now += 7_200
    site.post(notification(alert(status="resolved")))
    site.post(notification(alert(starts_at="2026-11-30T07:59:00Z")))
    site.receiver.carry_on()
    assert site.starts.started == [2]


def test_an_alert_that_was_not_resolved_is_the_same_after_a_restart_of_prometheus(
    site: Site,
) -> None:
    site.post(notification())
    site.journal.end(1, "pushed", "", now=NOW)
    site.now += 7_200
    later = alert(starts_at="2026-11-30T07:59:00Z")
    _, said = site.post(notification(later, group="another route"))
    assert (said["decisions"][0]["decision"], said["decisions"][0]["repeat"]) == (
        1,
        True,
    )
    # A notification that it was resolved before, and that comes late, ends nothing.
    site.post(notification(alert(status="resolved")))
    site.post(notification(alert(starts_at="2026-11-30T07:59:30Z")))
    assert len(site.journal.decisions()) == 1
    # What is resolved and fires anew is another matter, as is another alert.
    resolved = alert(status="resolved", starts_at="2026-11-30T07:59:30Z")
    site.post(notification(resolved))
    site.post(notification(alert(starts_at="2026-11-30T07:59:40Z")))
    assert [each.id for each in site.journal.left()] == [2]


def test_an_alert_that_was_not_heard_of_for_days_is_another_matter(site: Site) -> None:
    site.post(notification())
    site.journal.end(1, "pushed", "", now=NOW)
    site.now += 2 * 86_400
    site.post(notification(alert(starts_at="2026-12-02T05:59:00Z")))
    assert [each.id for each in site.journal.left()] == [2]


def test_an_alert_for_an_unknown_model_gets_a_sentence_and_the_known_one_its_run(
    site: Site,
) -> None:
    status, said = site.post(notification(alert(model="taxy"), alert()))
    assert status == 404
    assert said["error"] == (
        "There is no model 'taxy' to train again (there are 'taxi'). Did you mean "
        "'taxi'? Add it to the models that 'penstock retrain serve' is given."
    )
    assert [each["model"] for each in said["decisions"]] == ["taxi"]


def test_an_alert_without_a_model_gets_a_sentence(site: Site) -> None:
    status, said = site.post(notification(alert(model=None)))
    assert status == 400
    assert said["error"] == (
        "Alert 'ModelDrift' has no label 'model_name', so no model is trained again "
        "for it. Give its rule the label, or name another with --model-label."
    )
    assert site.journal.decisions() == []


def test_only_the_alerts_that_a_model_names_count(
    tmp_path: Path, starts: Starts
) -> None:
    site = Site(tmp_path, starts, replace(TAXI, alerts=("ModelDrift",)))
    status, said = site.post(notification(alert(name="JobStale")))
    assert (status, said["decisions"]) == (200, [])
    assert said["ignored"] == [
        "Of 'taxi', 'JobStale' fires, which starts nothing (only 'ModelDrift' does)."
    ]
    site.post(notification(alert(name="JobStale"), alert()))
    (decision,) = site.journal.decisions()
    assert len(decision.evidence["alerts"]) == 1


def test_a_dry_run_decides_and_starts_nothing(tmp_path: Path, starts: Starts) -> None:
    site = Site(tmp_path, starts)
    site.receiver.dry_run = True
    status, said = site.post(notification())
    assert (status, said["decisions"][0]["answer"]) == (200, "dry run")
    site.receiver.carry_on()
    assert starts.started == []


# --- what else is asked


@pytest.mark.parametrize(
    ("method", "path", "status", "sentence"),
    [
        (
            "POST",
            "/alerts",
            404,
            "There is nothing at '/alerts'. Send alerts to '/v1/alerts'.",
        ),
        (
            "GET",
            "/v1/alerts",
            405,
            "'/v1/alerts' was sent GET and takes POST. Use that.",
        ),
    ],
)
def test_what_is_not_there_gets_a_sentence(
    site: Site, method: str, path: str, status: int, sentence: str
) -> None:
    found, body, _ = site.ask(method, path)
    assert (found, json.loads(body)) == (status, {"error": sentence})


def test_what_is_no_notification_is_given_up_and_not_sent_again(site: Site) -> None:
    status, said = site.post(b"[]")
    assert status == 400
    assert said["error"].startswith("The body is a JSON list, and a notification")


def test_a_body_that_is_too_large_is_not_read(site: Site) -> None:
    status, said = site.post(notification(receiver="r" * 20_000))
    assert status == 413
    assert said["error"] == (
        "The body is larger than 10,000 bytes. Set 'max_alerts' in Alertmanager's "
        "'webhook_config', or raise --max-request-bytes."
    )


def test_a_page_in_a_browser_starts_nothing(site: Site) -> None:
    status, said = site.post(notification(), content_type="text/plain;charset=UTF-8")
    assert status == 415
    assert said["error"] == (
        "The body is said to be 'text/plain'. Send it as 'application/json', as "
        "Alertmanager does."
    )
    assert site.journal.decisions() == []


def test_alerts_take_the_token_where_there_is_one(site: Site) -> None:
    def post(**headers: str) -> tuple[int, dict[str, str]]:
        found = site.ask("POST", "/v1/alerts", notification(), TOKEN, **headers)
        return found[0], found[2]

    status, headers = post()
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    assert post(authorization=f"Bearer {TOKEN[:-1]}x")[0] == 401
    assert site.journal.decisions() == []
    assert post(authorization=f"Bearer {TOKEN}")[0] == 200
    assert site.ask("GET", "/metrics", b"", TOKEN)[0] == 200


def test_what_cannot_be_written_down_is_asked_for_again(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.journal.path.write_text("no database " * 1_000)
    for each in site.journal.folder.glob("*-*"):
        each.unlink()
    status, said = site.post(notification())
    assert status == 503
    assert said["error"].startswith(
        f"The decisions in '{site.journal.path}' cannot be read or written: "
    )


def test_health_tells_what_goes_on_and_what_is_in_the_way(site: Site) -> None:
    site.post(notification())
    status, body, _ = site.ask("GET", "/healthz")
    assert status == 200
    assert [each["run"] for each in json.loads(body)["going_on"]] == [
        "20261130-060000.000000"
    ]
    site.keeper.trouble = "The disk is full."
    status, body, _ = site.ask("GET", "/healthz")
    assert (status, json.loads(body)) == (503, {"error": "The disk is full."})


def test_metrics_count_what_was_started_by_its_reason(
    tmp_path: Path, starts: Starts
) -> None:
    site = Site(
        tmp_path, starts, replace(TAXI, schedules=(parse_schedule("every 1d"),))
    )
    site.post(notification())
    site.post(notification(alert(feature="fare"), group="another"))
    site.journal.end(1, "not blessed", "", now=NOW + 60)
    _, text, headers = site.ask("GET", "/metrics")
    assert headers["content-type"].startswith("text/plain; version=")
    samples = {
        (
            each.name,
            each.labels.pop("model_name"),
            *each.labels.values(),
        ): each.value
        for family in text_string_to_metric_families(text.decode())
        for each in family.samples
    }
    retrain = "penstock_model_retrain"
    assert samples.pop((f"{retrain}_next_due_timestamp_seconds", "taxi")) > NOW / 2
    assert samples == {
        (f"{retrain}_triggered_total", "taxi", "ModelDrift"): 1,
        (f"{retrain}_decisions_total", "taxi", "start"): 1,
        (f"{retrain}_decisions_total", "taxi", "running"): 1,
        (f"{retrain}_outcomes_total", "taxi", "not blessed"): 1,
        (f"{retrain}_going_on", "taxi"): 0,
        (f"{retrain}_last_end_timestamp_seconds", "taxi"): NOW + 60,
    }


def test_openmetrics_carry_the_run_as_an_exemplar(site: Site) -> None:
    site.post(notification())
    kind = "application/openmetrics-text; version=1.0.0"
    _, text, headers = site.ask("GET", "/metrics", accept=kind)
    assert headers["content-type"].startswith("application/openmetrics-text")
    (sample,) = next(
        family.samples
        for family in openmetrics.text_string_to_metric_families(text.decode())  # type: ignore[no-untyped-call]
        if family.name == "penstock_model_retrain_triggered"
    )
    assert sample.exemplar is not None
    assert sample.exemplar.labels == {"run_id": "20261130-060000.000000"}


# --- carrying out


def test_a_receiver_takes_up_what_another_one_decided(
    tmp_path: Path, starts: Starts
) -> None:
    Site(tmp_path, starts).post(notification())
    after = Site(tmp_path, starts)
    after.receiver.carry_on()
    assert starts.started == [1]


def test_a_receiver_leaves_alone_what_somebody_carries_out(
    tmp_path: Path, starts: Starts
) -> None:
    Site(tmp_path, starts).post(notification())
    after = Site(tmp_path, starts)
    with carrying_out(tmp_path, "20261130-060000.000000") as is_free:
        assert is_free
        after.receiver.carry_on()
        assert starts.started == []
    after.receiver.carry_on()
    assert starts.started == [1]


def test_a_process_that_dies_without_a_word_is_followed_by_another_later(
    site: Site,
) -> None:
    site.post(notification())
    site.receiver.carry_on()
    site.starts.die()
    site.receiver.carry_on()
    assert site.starts.started == [1]
    site.now += 2
    site.receiver.carry_on()
    assert site.starts.started == [1, 1]
    site.starts.die()
    site.now += 3.9
    site.receiver.carry_on()
    assert site.starts.started == [1, 1]


def test_after_many_such_processes_it_is_given_up(site: Site) -> None:
    site.post(notification())
    for _ in range(ATTEMPTS + 2):
        site.receiver.carry_on()
        site.starts.die()
        site.now += 1_000
    assert len(site.starts.started) == ATTEMPTS
    decision = site.journal.decision(1)
    log = site.journal.folder / "logs" / "20261130-060000.000000.log"
    assert decision.outcome == "failed"
    assert decision.result == (
        "8 processes were started for it, and each died without saying why. Their "
        f"words are in '{log}'."
    )


# --- schedules


def test_a_time_that_was_missed_is_made_up_for_once(
    tmp_path: Path, starts: Starts
) -> None:
    model = replace(TAXI, limits=Limits(0.0), schedules=(parse_schedule("0 3 * * *"),))
    first = Site(tmp_path, starts, model)
    assert first.receiver.decide_what_is_due() == []
    # Down for ten days.
    after = Site(tmp_path, starts, model)
    after.now += 10 * 86_400
    (made,) = after.receiver.decide_what_is_due()
    assert made.answer is Answer.START
    assert made.reasons == (
        "It was due at 2026-12-10 03:00 UTC by schedule '0 3 * * *'.",
    )
    assert after.receiver.decide_what_is_due() == []
    after.now += 86_400
    after.journal.end(made.id, "pushed", "", now=after.now)
    (following,) = after.receiver.decide_what_is_due()
    assert following.id != made.id


def test_two_schedules_that_are_due_at_once_start_one_run(
    tmp_path: Path, starts: Starts
) -> None:
    model = replace(
        TAXI,
        limits=Limits(0.0),
        schedules=(parse_schedule("every 6h"), parse_schedule("0 0 * * *")),
    )
    site = Site(tmp_path, starts, model)
    site.receiver.decide_what_is_due()
    site.now += 18 * 3_600  # midnight
    first, second = site.receiver.decide_what_is_due()
    assert (first.id, second.id) == (1, 1)
    assert second.is_repeat


# --- the thread, the socket


def test_a_thread_does_what_nobody_asks_for(site: Site) -> None:
    site.keeper.start()
    try:
        site.post(notification())
        for _ in range(1_000):
            if site.starts.started:
                break
            site.keeper._stop.wait(0.01)
    finally:
        site.keeper.close()
    assert site.starts.started == [1]


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (
            OSError(12, "Cannot allocate memory"),
            "[Errno 12] Cannot allocate memory",
        ),
        (
            KeyError("taxi"),
            "Retraining failed (KeyError: 'taxi'), which is a defect of penstock. "
            "Report it with the lines of the log.",
        ),
    ],
)
def test_a_thread_that_cannot_says_so_and_goes_on(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    trouble: str,
) -> None:
    site.post(notification())
    tried: list[int] = []

    def start(decision: Decision) -> subprocess.Popen[bytes]:
        tried.append(decision.id)
        raise error

    monkeypatch.setattr(site.receiver, "_start", start)
    keeper = Keeper(site.receiver, poll_seconds=0.01)
    with caplog.at_level(logging.ERROR):
        keeper.start()
        for _ in range(1_000):
            if keeper.trouble and len(tried) > 2:
                break
            keeper._stop.wait(0.01)
        keeper.close()
    assert keeper.trouble == trouble
    # Said once, however often it is tried.
    assert [each.removeprefix("Retraining waits: ") for each in caplog.messages] == [
        trouble
    ]


def test_beyond_this_machine_a_token_is_asked_for(site: Site) -> None:
    app = App(site.receiver, site.keeper)
    with pytest.raises(ServingError) as raised:
        serve(app, "0.0.0.0", 0, ready=lambda host, port: None)
    assert str(raised.value) == (
        "On '0.0.0.0' anybody who reaches this machine could start trainings. Pass "
        "--token-file, or listen on 127.0.0.1."
    )


def test_a_port_that_is_taken_gets_a_sentence(site: Site) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServingError) as raised:
            serve(
                App(site.receiver, site.keeper),
                "127.0.0.1",
                port,
                ready=lambda host, port: None,
            )
    assert str(raised.value) == (
        f"The receiver cannot listen on '127.0.0.1:{port}': Address already in use. "
        "Choose another port or address."
    )
