"""Prometheus metrics of retraining, counted from the journal, so that none is lost.

`penstock_model_retrain_triggered_total` is the same metric that the exporter of
monitoring documents knows; where OpenMetrics is asked for, it carries the id of the
newest run as an exemplar.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.samples import Exemplar

from penstock.components.monitoring.retraining.config import Config
from penstock.components.monitoring.retraining.journal import Answer, Journal

TRIGGERED = "penstock_model_retrain_triggered"
DECISIONS = "penstock_model_retrain_decisions"
OUTCOMES = "penstock_model_retrain_outcomes"
GOING_ON = "penstock_model_retrain_going_on"
ENDED = "penstock_model_retrain_last_end_timestamp_seconds"
NEXT = "penstock_model_retrain_next_due_timestamp_seconds"


def exposition(
    journal: Journal, config: Config, accept: str, now: float
) -> tuple[bytes, str]:
    """Return the metrics, and their content type.

    Args:
        journal: What was decided.
        config: The models.
        accept: The Accept header of the request.
        now: The present, in seconds since 1970.
    """
    registry = CollectorRegistry()
    registry.register(_Collector(journal, config, now))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Collector:
    def __init__(self, journal: Journal, config: Config, now: float) -> None:
        self._journal = journal
        self._config = config
        self._now = now

    def collect(self) -> Iterator[Metric]:
        started: Counter[tuple[str, str]] = Counter()
        answers: Counter[tuple[str, str]] = Counter()
        outcomes: Counter[tuple[str, str]] = Counter()
        # So that an alert on a rise sees the first one too.
        going_on = dict.fromkeys(self._config.models, 0)
        runs: dict[tuple[str, str], str] = {}
        for model, answer, reason, outcome, count, run_id in self._journal.counts():
            answers[model, answer] += count
            if answer != Answer.START.value:
                continue
            started[model, reason] += count
            runs[model, reason] = max(run_id, runs.get((model, reason), ""))
            if outcome:
                outcomes[model, outcome] += count
            else:
                going_on[model] = going_on.get(model, 0) + count
        triggered = CounterMetricFamily(
            TRIGGERED,
            "Training runs that were started, by the kind of reason.",
            labels=("model_name", "reason"),
        )
        for key, count in sorted(started.items()):
            triggered.add_metric(
                key, count, exemplar=Exemplar({"run_id": runs[key]}, 1.0)
            )
        yield triggered
        yield _counter(
            DECISIONS, "Decisions on training a model again.", "answer", answers
        )
        yield _counter(
            OUTCOMES,
            "Training runs that ended, by what came of them.",
            "outcome",
            outcomes,
        )
        yield _gauge(
            GOING_ON, "Training runs that were decided and have not ended.", going_on
        )
        yield _gauge(
            ENDED,
            "When the last training run of a model ended.",
            self._journal.last_ended(),
        )
        yield _gauge(
            NEXT,
            "When a model is next due to be trained again by its schedules.",
            {
                name: min(each.next_due(self._now) for each in model.schedules)
                for name, model in self._config.models.items()
                if model.schedules
            },
        )


def _counter(
    name: str, text: str, label: str, counts: Counter[tuple[str, str]]
) -> Metric:
    family = CounterMetricFamily(name, text, labels=("model_name", label))
    for key, count in sorted(counts.items()):
        family.add_metric(key, count)
    return family


def _gauge(name: str, text: str, values: dict[str, int] | dict[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=("model_name",))
    for model, value in sorted(values.items()):
        family.add_metric((model,), float(value))
    return family
