"""Decides on alerts and on fixed times, starts what was decided, and looks after it.

A process is started for every decision that has no outcome yet and that nobody carries
out, whether this receiver made it or one before it. That process finds out what is left
to do, so starting one too many does no harm.
"""

from __future__ import annotations

import json
import logging
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone

from penstock.components.monitoring.retraining.config import Config, ModelConfig
from penstock.components.monitoring.retraining.journal import (
    Decision,
    Journal,
    Source,
    Wish,
)
from penstock.components.monitoring.retraining.places import carrying_out, log_path
from penstock.components.monitoring.retraining.webhook import (
    Alert,
    Notification,
    parse_notification,
)
from penstock.schemas.errors import PenstockError, did_you_mean, quoted

ATTEMPTS = 8
"""How many processes are started for a decision, if they all die without a word."""

_LONGEST_WAIT_SECONDS = 300.0
_MOST_SENTENCES = 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Receipt:
    """What came of a notification.

    Attributes:
        decisions: What was decided, one for each model with an alert that fires.
        ignored: A sentence for what starts nothing, and why.
        unknown: A sentence for each model that is not known.
        unnamed: Sentences for alerts that name no model.
    """

    decisions: tuple[Decision, ...] = ()
    ignored: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    unnamed: tuple[str, ...] = ()


class Receiver:
    """Decides, starts, looks after.

    Args:
        config: The models.
        journal: Where decisions are kept.
        start: Starts a process that carries out a decision.
        dry_run: Whether nothing is started, only decided.
        clock: Gives the present, in seconds since 1970.
    """

    def __init__(
        self,
        config: Config,
        journal: Journal,
        start: Callable[[Decision], subprocess.Popen[bytes]],
        *,
        dry_run: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self.journal = journal
        self.dry_run = dry_run
        self._start = start
        self._clock = clock
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    # --- deciding

    def receive(self, body: bytes) -> Receipt:
        """Decide on what Alertmanager sent; what is returned is on the disk.

        Raises:
            DataError: If it sent no notification.
            PipelineError: If the decision cannot be written.
        """
        notification = parse_notification(body)
        decisions: list[Decision] = []
        ignored: list[str] = []
        unknown: list[str] = []
        unnamed: list[str] = []
        for name, alerts in notification.by_model(self.config.model_label).items():
            firing = tuple(each for each in alerts if each.firing)
            resolved = [each for each in alerts if not each.firing]
            if resolved and name in self.config.models:
                self.journal.resolve(name, _series(resolved))
            if not firing:
                ignored.append(f"The alerts of '{name}' are resolved: nothing starts.")
                continue
            if not name:
                unnamed.append(
                    f"Alert '{firing[0].name}' has no label "
                    f"'{self.config.model_label}', so no model is trained again for "
                    "it. Give its rule the label, or name another with --model-label."
                )
                continue
            model = self.config.models.get(name)
            if model is None:
                known = self.config.models
                unknown.append(
                    f"There is no model '{name}' to train again (there are "
                    f"{quoted(known)}).{did_you_mean(name, known)} Add it to the "
                    "models that 'penstock retrain serve' is given."
                )
                continue
            counted = tuple(
                each for each in firing if not model.alerts or each.name in model.alerts
            )
            if not counted:
                names = quoted({each.name for each in firing})
                ignored.append(
                    f"Of '{name}', {names} fires, which starts nothing (only "
                    f"{quoted(model.alerts)} does)."
                )
                continue
            wish = wish_of(name, notification, counted)
            decisions.append(
                self.journal.decide(
                    wish,
                    model.recipe,
                    model.limits,
                    now=self._clock(),
                    dry_run=self.dry_run,
                )
            )
        return Receipt(tuple(decisions), tuple(ignored), tuple(unknown), tuple(unnamed))

    def decide_what_is_due(self) -> list[Decision]:
        """Decide on fixed times; what was missed is made up for once."""
        now = self._clock()
        made = [
            self._decide_if_due(model, number, now)
            for model in self.config.models.values()
            for number in range(len(model.schedules))
        ]
        return [each for each in made if each is not None]

    def _decide_if_due(
        self, model: ModelConfig, number: int, now: float
    ) -> Decision | None:
        schedule = model.schedules[number]
        due = schedule.last_due(now)
        moment = datetime.fromtimestamp(due, timezone.utc).strftime("%Y-%m-%d %H:%M")
        wish = Wish(
            model=model.name,
            source=Source.SCHEDULE,
            reason=Source.SCHEDULE.value,
            reasons=(f"It was due at {moment} UTC by schedule '{schedule.text}'.",),
            # Two schedules that are due at the same time want the same.
            occasions=(f"schedule {due:.0f}",),
            evidence={"schedule": schedule.text, "due": due},
        )
        return self.journal.decide_if_due(
            wish,
            schedule.text,
            due,
            model.recipe,
            model.limits,
            now=now,
            dry_run=self.dry_run,
        )

    # --- carrying out

    def carry_on(self) -> None:
        """Start a process for each decision that is left to do and nobody does."""
        for decision in self.journal.left():
            process = self._processes.get(decision.id)
            if process is not None and process.poll() is None:
                continue
            with carrying_out(self.journal.folder, decision.run_id) as is_free:
                # Whoever had the lock may have ended it between the two looks.
                decision = self.journal.decision(decision.id)
                if not is_free or decision.outcome:
                    continue
                if decision.attempts >= ATTEMPTS:
                    log = log_path(self.journal.folder, decision.run_id)
                    self.journal.end(
                        decision.id,
                        "failed",
                        f"{decision.attempts} processes were started for it, and each "
                        f"died without saying why. Their words are in '{log}'.",
                        now=self._clock(),
                    )
                    continue
            if process is None or self._is_time(decision):
                self.journal.attempt(decision.id, now=self._clock())
                self._processes[decision.id] = self._start(decision)
        self._forget()

    def _is_time(self, decision: Decision) -> bool:
        wait = min(2.0**decision.attempts, _LONGEST_WAIT_SECONDS)
        return self._clock() >= (decision.attempted or 0.0) + wait

    def _forget(self) -> None:
        left = {each.id for each in self.journal.left()}
        for id, process in list(self._processes.items()):
            if id not in left and process.poll() is not None:
                del self._processes[id]


def wish_of(model: str, notification: Notification, alerts: tuple[Alert, ...]) -> Wish:
    """Return the wish that alerts of a model which fire stand for.

    What it is about is the group and when each alert began: a notification that is sent
    again is about the same, and one alert that fires anew, after it was resolved, is
    not.

    Args:
        model: Name of the model.
        notification: What was sent.
        alerts: Those of its alerts that count.
    """
    first = min(alerts, key=lambda each: each.starts_at)
    sentences = list(dict.fromkeys(each.sentence for each in alerts if each.sentence))
    more = len(sentences) - _MOST_SENTENCES + notification.truncated
    if more > 0:
        sentences[_MOST_SENTENCES:] = [f"And {more} more."]
    return Wish(
        model=model,
        source=Source.ALERT,
        reason=first.name or Source.ALERT.value,
        reasons=tuple(sentences),
        occasions=tuple(
            sorted({f"{notification.group_key} {each.starts_at}" for each in alerts})
        ),
        evidence={
            "group_key": notification.group_key,
            "receiver": notification.receiver,
            "alerts": [
                {
                    "labels": dict(each.labels),
                    "annotations": dict(each.annotations),
                    "starts_at": each.starts_at,
                    "fingerprint": each.fingerprint,
                }
                for each in alerts[:_MOST_SENTENCES]
            ],
        },
        series=_series(alerts),
    )


def _series(alerts: Iterable[Alert]) -> dict[str, int]:
    """Return since when alerts fire, by their labels as text."""
    return {
        json.dumps(dict(each.labels), sort_keys=True): each.starts_at for each in alerts
    }


class Keeper:
    """A thread in which a receiver does all that nobody asks for.

    Args:
        receiver: The receiver.
        poll_seconds: How long nothing is done, unless it is woken.
    """

    def __init__(self, receiver: Receiver, *, poll_seconds: float = 1.0) -> None:
        self._receiver = receiver
        self._poll_seconds = poll_seconds
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep, name="retraining")
        self.trouble = ""
        """What keeps it from its work now, in a sentence; empty if nothing does."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Have it look at once."""
        self._wake.set()

    def close(self) -> None:
        """End it; processes that it started go on."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _keep(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                self._receiver.decide_what_is_due()
                self._receiver.carry_on()
                self.trouble = ""
            except (PenstockError, OSError) as error:
                if str(error) != self.trouble:
                    _log.error("Retraining waits: %s", error)
                self.trouble = str(error)
            except Exception as error:
                # A thread that ended here would leave a receiver that takes alerts and
                # starts nothing, and whose health is good.
                trouble = (
                    f"Retraining failed ({type(error).__name__}: {error}), which is a "
                    "defect of penstock. Report it with the lines of the log."
                )
                if trouble != self.trouble:
                    _log.exception("%s", trouble)
                self.trouble = trouble
            self._wake.wait(self._poll_seconds)
