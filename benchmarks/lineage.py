"""How long questions to the lineage store take as its history grows.

Histories of daily runs are written in big batches through ML Metadata's own client, as
runs of penstock would have written them: eight executions a run, a Trainer that reads
the last seven spans, an Evaluator that compares with the newest blessed model, one
schema that every run shares, and a fifth of the executions cached, some of them in runs
that do a day once more. Then random questions are asked of each.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as pb

from penstock.components.base import Component, RunContext, output
from penstock.pipelines import lineage
from penstock.pipelines.inputs import LatestBlessed
from penstock.pipelines.metadata import Store
from penstock.pipelines.resolution import resolve
from penstock.schemas.artifacts import (
    ARTIFACT_TYPES,
    Artifact,
    Examples,
    Model,
    ModelBlessing,
)

LENGTHS = (100, 1_000, 10_000)

_WINDOW = 7  # spans that a model is trained on
_AGAIN = 0.09  # of the runs do a day once more
_BLESSED = 0.8  # of the models
_BATCH = 500  # runs that are written at once
_DAY = 86_400  # seconds
_FIRST = 1_600_000_000
_MOST_SECONDS = 60  # for one kind of question

_COMPONENTS = (
    *("CsvExampleGen", "StatisticsGen", "ImportSchemaGen", "ExampleValidator"),
    *("Trainer", "Evaluator", "InfraValidator", "Pusher"),
)

# As much as is recorded of a real execution.
_PARTS = {
    "code": "sha256:" + 64 * "c",
    "python": "3.11",
    **{f"library {name}": "1.2.3" for name in ("tensorflow", "keras", "numpy")},
    **{f"parameter {name}": 40 * "x" for name in "abcdefgh"},
}
_MEASURED = {
    "penstock_seconds": 60.5,
    "penstock_cpu_seconds": 90.5,
    "penstock_peak_memory_bytes": 1 << 30,
    "penstock_shared": 0,
    "penstock_rows": 100_000,
    **{name: 40 * "x" for name in "abcdefgh"},
}

Outputs: TypeAlias = "dict[str, int]"
"""Numbers of artifacts, by output key."""


class History:
    """A history in an SQLite file, and what of it can be asked about.

    Args:
        path: The file; it is not there yet.
        runs: How many runs it has.
        seed: Of what is random in it.

    Attributes:
        spans: Numbers of the Examples, in order.
        files: Numbers of the ExternalArtifacts that they were read from.
        models: Numbers of the models.
        pushed: Numbers of the PushedModels; version 1 is the first.
        cached_share: Share of the executions that are CACHED.
    """

    def __init__(self, path: Path, runs: int, seed: int = 0) -> None:
        config = pb.ConnectionConfig()
        config.sqlite.filename_uri = str(path)
        config.sqlite.connection_mode = (
            pb.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        )
        self._mlmd = metadata_store.MetadataStore(config)
        self._random = random.Random(seed)
        self._type_ids: dict[str, int] = {}
        self._counts = {"artifact": 0, "execution": 0, "context": 0}
        self.spans: list[int] = []
        self.files: list[int] = []
        self.models: list[int] = []
        self.pushed: list[int] = []
        self._states: list[str] = []
        self._days: list[dict[str, Outputs]] = []
        self._blessed: int | None = None
        self._empty()
        self._pipeline = self._context("pipeline", "taxi")
        self._spans = self._context("penstock_spans", "taxi", is_whole=1)
        self._blocks: list[int] = []  # contexts of a hundred spans each
        self._nodes = {
            name: self._context("node", f"taxi.{name}") for name in _COMPONENTS
        }
        self._schema_file = self._artifact("ExternalArtifact", {})
        for number in range(runs):
            self._begin_run(number)
            if self._days and self._random.random() < _AGAIN:
                first = max(len(self._days) - 30, 0)
                self._do_day(self._random.randrange(first, len(self._days)))
            else:
                self._days.append({})
                self._do_day(len(self._days) - 1)
            if number % _BATCH == _BATCH - 1:
                self._write()
        self._write()
        self.cached_share = self._states.count("CACHED") / len(self._states)

    def _do_day(self, day: int) -> None:
        """Execute every component for a day; what was done before is CACHED."""
        done = self._days[day]
        if "files" not in done:
            said = {"span": day, "total_bytes": 1_000_000, "file_digests": 500 * "x"}
            self.files.append(self._artifact("ExternalArtifact", said))
            done["files"] = {"external": self.files[-1]}
        elif self._random.random() < 0.5:
            # Its files were touched: the same bytes are digested and written again.
            del done["CsvExampleGen"]
        is_new = "Trainer" not in done

        def does(
            component: str,
            inputs: Mapping[str, Sequence[int]],
            **outputs: tuple[str, dict[str, Any]],
        ) -> Outputs:
            if component not in done:
                done[component] = self._execution(component, inputs, outputs)
            else:
                self._execution(component, inputs, done[component])
            return done[component]

        if "CsvExampleGen" not in done:
            self.spans.append(self._counts["artifact"] + 1)
            self._attributions.add((self._block(day // 100), self.spans[-1]))
        splits = {"span": day, "split_names": '["train", "eval"]'}
        external = [done["files"]["external"]]
        examples = does(
            "CsvExampleGen", {"external": external}, examples=("Examples", splits)
        )["examples"]
        found = does(
            "StatisticsGen",
            {"examples": [examples]},
            statistics=("ExampleStatistics", splits),
        )
        if "ImportSchemaGen" in self._days[0]:
            done["ImportSchemaGen"] = self._days[0]["ImportSchemaGen"]
        schema = does(
            "ImportSchemaGen",
            {"external": [self._schema_file]},
            schema=("Schema", {}),
        )["schema"]
        anomalies = does(
            "ExampleValidator",
            {"statistics": [found["statistics"]], "schema": [schema]},
            anomalies=("ExampleAnomalies", {**splits, "blessed": {"train": 1}}),
        )["anomalies"]
        window = [
            each["CsvExampleGen"]["examples"]
            for each in self._days[max(day - _WINDOW + 1, 0) : day + 1]
        ]
        model = does(
            "Trainer",
            {"examples": window, "schema": [schema], "anomalies": [anomalies]},
            model=("Model", {}),
        )["model"]
        if is_new and self._blessed is not None:
            done["baseline"] = {"baseline": self._blessed}
        blessed = int(self._random.random() < _BLESSED)
        judged = does(
            "Evaluator",
            {
                "examples": [examples],
                "model": [model],
                **{key: [id] for key, id in done.get("baseline", {}).items()},
            },
            evaluation=("ModelEvaluation", {f"metric_{n}": 0.5 for n in range(30)}),
            blessing=(
                "ModelBlessing",
                {
                    "blessed": blessed,
                    "verdict": "BLESSED" if blessed else "NOT_BLESSED",
                    "current_model_id": model,
                    "current_model": _uri("Model", model),
                    "reasons": json.dumps(20 * ["'auc' in all rows is 0.9, as asked."]),
                },
            ),
        )
        infra = does(
            "InfraValidator",
            {"model": [model], "examples": [examples]},
            blessing=("InfraBlessing", {"blessed": 1}),
        )
        verdicts = {
            "blessing": [judged["blessing"]],
            "infra_blessing": [infra["blessing"]],
        }
        version = str(len(self.pushed) + 1)
        if is_new:
            self.models.append(model)
            if not blessed:
                self._execution("Pusher", {"model": [model], **verdicts}, {})
                return
            self._blessed = model
            self.pushed.append(self._counts["artifact"] + 1)
        elif "Pusher" not in done:
            self._execution("Pusher", {"model": [model], **verdicts}, {})
            return
        does(
            "Pusher",
            {"model": [model], **verdicts},
            pushed_model=(
                "PushedModel",
                {
                    "pushed": 1,
                    "pushed_version": version,
                    "pushed_destination": f"/serving/taxi/{version}",
                },
            ),
        )

    def _block(self, number: int) -> int:
        if number == len(self._blocks):
            self._blocks.append(self._context("penstock_spans", f"taxi:{number}"))
            link = pb.ParentContext(parent_id=self._spans, child_id=self._blocks[-1])
            self._parents.append(link)
        return self._blocks[number]

    def _begin_run(self, number: int) -> None:
        self._at = _FIRST + number * _DAY
        self._run_id = f"{number:08d}-000000.000000"
        self._run = self._context(
            "pipeline_run",
            self._run_id,
            penstock_state="complete",
            penstock_started=float(self._at),
            penstock_finished=float(self._at + 600),
            penstock_root="/penstock-root",
        )
        link = pb.ParentContext(parent_id=self._pipeline, child_id=self._run)
        self._parents.append(link)

    def _execution(
        self,
        component: str,
        inputs: Mapping[str, Sequence[int]],
        outputs: Mapping[str, int | tuple[str, dict[str, Any]]],
    ) -> Outputs:
        """Add an execution: of numbers of outputs, a cached one; of none, a skipped."""
        number = self._next("execution")
        is_hit = any(isinstance(each, int) for each in outputs.values())
        state = "CACHED" if is_hit else "COMPLETE" if outputs else "CANCELED"
        self._states.append(state)
        execution = pb.Execution(
            type_id=self._type("execution", f"penstock.components.{component}"),
            name=f"execution {number}",
            last_known_state=getattr(pb.Execution, state),
        )
        parts = {
            f"input {key}[{index}]": f"Artifact sha256:{id:064x}"
            for key, ids in inputs.items()
            for index, id in enumerate(ids)
        }
        _fill(
            execution.custom_properties,
            {
                **_MEASURED,
                "penstock_pipeline": "taxi",
                "penstock_run": self._run_id,
                "penstock_component": component,
                "penstock_class": f"penstock.components.{component}",
                "penstock_started": float(self._at),
                "penstock_state": {"CANCELED": "skipped"}.get(state, state.lower()),
                "penstock_fingerprint": f"sha256:{number:064x}",
                "penstock_parts": json.dumps({**_PARTS, **parts}),
            },
        )
        self._executions.append(execution)
        made = {
            key: each
            if isinstance(each, int)
            else self._artifact(each[0], {**each[1], "penstock_execution": number})
            for key, each in outputs.items()
        }
        for key, ids in inputs.items():
            self._add_events(pb.Event.INPUT, number, key, ids)
        for key, id in made.items():
            self._add_events(pb.Event.OUTPUT, number, key, [id])
        touched = {id for ids in inputs.values() for id in ids} | set(made.values())
        for context in (self._pipeline, self._run, self._nodes[component]):
            self._associations.append((context, number))
            self._attributions |= {(context, id) for id in touched}
        return made

    def _add_events(self, kind: int, execution: int, key: str, ids: Any) -> None:
        for index, id in enumerate(ids):
            event = pb.Event(type=kind, execution_id=execution, artifact_id=id)
            event.milliseconds_since_epoch = self._at * 1_000
            event.path.steps.add().key = key
            event.path.steps.add().index = index
            self._events.append(event)

    def _artifact(self, kind: str, properties: dict[str, Any]) -> int:
        number = self._next("artifact")
        artifact = pb.Artifact(
            type_id=self._type("artifact", kind),
            name=f"{kind} {number}",
            uri=_uri(kind, number),
            state=pb.Artifact.LIVE,
        )
        said = {
            "tfx_version": "1.21.0",
            "is_external": int(kind == "ExternalArtifact"),
            "digest": f"sha256:{number:064x}",
            **properties,
        }
        typed = ARTIFACT_TYPES[kind].PROPERTIES
        _fill(artifact.properties, {k: v for k, v in said.items() if k in typed})
        custom = {k: v for k, v in said.items() if k not in typed}
        _fill(artifact.custom_properties, custom)
        self._artifacts.append(artifact)
        return number

    def _context(self, kind: str, name: str, **properties: Any) -> int:
        context = pb.Context(type_id=self._type("context", kind), name=name)
        _fill(context.custom_properties, properties)
        self._contexts.append(context)
        return self._next("context")

    def _next(self, what: str) -> int:
        """Return the number that ML Metadata will give to the next one."""
        self._counts[what] += 1
        return self._counts[what]

    def _type(self, what: str, name: str) -> int:
        if name not in self._type_ids:
            if what == "artifact":
                kind = pb.ArtifactType(name=name)
                names = {int: pb.INT, str: pb.STRING, float: pb.DOUBLE}
                for key, python in ARTIFACT_TYPES[name].PROPERTIES.items():
                    kind.properties[key] = names[python]
                self._type_ids[name] = self._mlmd.put_artifact_type(kind)
            elif what == "execution":
                made = pb.ExecutionType(name=name)
                self._type_ids[name] = self._mlmd.put_execution_type(made)
            else:
                context = pb.ContextType(name=name)
                self._type_ids[name] = self._mlmd.put_context_type(context)
        return self._type_ids[name]

    def _empty(self) -> None:
        self._contexts: list[pb.Context] = []
        self._artifacts: list[pb.Artifact] = []
        self._executions: list[pb.Execution] = []
        self._events: list[pb.Event] = []
        self._parents: list[pb.ParentContext] = []
        self._attributions: set[tuple[int, int]] = set()
        self._associations: list[tuple[int, int]] = []

    def _write(self) -> None:
        """Write what was added since it was last called."""
        if not self._executions:
            return
        ids = {
            "context": self._mlmd.put_contexts(self._contexts),
            "artifact": self._mlmd.put_artifacts(self._artifacts),
            "execution": self._mlmd.put_executions(self._executions),
        }
        for what, given in ids.items():
            if given[-1] != self._counts[what]:
                raise RuntimeError(f"ML Metadata numbers each {what} in another way.")
        self._mlmd.put_events(self._events)
        self._mlmd.put_parent_contexts(self._parents)
        self._mlmd.put_attributions_and_associations(
            [
                pb.Attribution(context_id=c, artifact_id=a)
                for c, a in self._attributions
            ],
            [
                pb.Association(context_id=c, execution_id=e)
                for c, e in self._associations
            ],
        )
        self._empty()


def _uri(kind: str, number: int) -> str:
    return f"/penstock-root/taxi/{kind}/{number}"


def _fill(slots: Any, properties: Mapping[str, Any]) -> None:
    for name, value in properties.items():
        if isinstance(value, int):
            slots[name].int_value = value
        elif isinstance(value, float):
            slots[name].double_value = value
        elif isinstance(value, dict):
            slots[name].struct_value.update(value)
        else:
            slots[name].string_value = value


# --- questions


class Compare(Component):
    """Ask for what a candidate is compared with."""

    model: Model
    baseline: Model | None = None
    blessing: ModelBlessing = output()

    def run(self, context: RunContext) -> None:
        raise NotImplementedError


def _questions(store: Store, history: History) -> dict[str, Callable[[], int]]:
    """Return what asks each kind of question once, and says how large the answer is."""
    chance = random.Random(1)

    def impact(source: Artifact) -> int:
        return len(lineage.downstream(store, source).artifacts)

    def impact_of_span() -> int:
        span = chance.randrange(len(history.files))
        found = lineage.impact(store, *lineage.of_span(store, "taxi", span))
        return len(found.models) + len(found.pushed)

    def served() -> int:
        newest = len(history.pushed)
        version = chance.randint(max(newest - 20, 0) + 1, newest)
        return len(lineage.made(store, "/serving/taxi", version).artifacts)

    def newest_run() -> int:
        run = store.pipelines["taxi"].runs[-1]
        return len(run["Trainer"]["model"].upstream(Examples))

    def latest_blessed() -> int:
        model = store.artifact(history.models[-1])
        assert isinstance(model, Model)
        ask = Compare(model=model, baseline=LatestBlessed())
        return len(resolve(ask, "taxi", store, {}).inputs["baseline"])

    def of(numbers: list[int], ask: Callable[[Artifact], int]) -> Callable[[], int]:
        return lambda: ask(store.artifact(chance.choice(numbers)))

    return {
        "impact_of_examples": of(history.spans, impact),
        "impact_of_file": of(history.files, impact),
        "impact_of_span": impact_of_span,
        "origin_of_pushed": of(
            history.pushed, lambda each: len(lineage.upstream(store, each).artifacts)
        ),
        "origin_of_served": served,
        "newest_run": newest_run,
        "latest_blessed": latest_blessed,
    }


def _measured(
    asks: Mapping[int, Callable[[], int]], most: int
) -> dict[int, dict[str, float]]:
    """Ask one kind of question of every history in turn, so often or for a while.

    Returns:
        Milliseconds and the largest answer, by the length of the history.
    """
    seconds: dict[int, list[float]] = {runs: [] for runs in asks}
    sizes: dict[int, list[int]] = {runs: [ask()] for runs, ask in asks.items()}
    ends = time.perf_counter() + _MOST_SECONDS
    for _ in range(most):
        # In turn, so that a machine that is busy for a while is so for all of them.
        for runs, ask in asks.items():
            started = time.perf_counter()
            sizes[runs].append(ask())
            seconds[runs].append(time.perf_counter() - started)
        if time.perf_counter() > ends:
            break
    return {
        runs: {
            "median_ms": round(statistics.median(taken) * 1_000, 2),
            "p95_ms": round(sorted(taken)[math.ceil(0.95 * len(taken)) - 1] * 1_000, 2),
            "questions": len(taken),
            "artifacts": max(sizes[runs]),
        }
        for runs, taken in seconds.items()
    }


def main(argv: list[str]) -> dict[str, Any]:
    """Build histories, ask questions of each, and return how long the answers took."""
    parser = argparse.ArgumentParser(prog="lineage", description=__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--questions", type=int, default=300, help="of each kind")
    options = parser.parse_args(argv)

    lengths = sorted(options.runs)
    asks: dict[str, dict[int, Callable[[], int]]] = {}
    with tempfile.TemporaryDirectory(prefix="penstock-lineage-") as folder:
        for runs in lengths:
            path = Path(folder) / f"{runs}.sqlite"
            started = time.perf_counter()
            history = History(path, runs)
            built = time.perf_counter() - started
            print(f"{runs} runs, built in {built:.0f} s", file=sys.stderr, flush=True)
            store = Store(f"sqlite:///{path}", create=False)
            for name, ask in _questions(store, history).items():
                asks.setdefault(name, {})[runs] = ask
        found = {}
        for name, of_all in asks.items():
            found[name] = _measured(of_all, options.questions)
            print(name, json.dumps(found[name]), file=sys.stderr, flush=True)
    last, before = lengths[-1], lengths[-2:][0]
    growth = {
        name: each[last]["p95_ms"] / each[before]["p95_ms"]
        for name, each in found.items()
    }
    return {
        "p95_ms": max(each[last]["p95_ms"] for each in found.values()),
        "growth": round(max(growth.values()), 2),
        "runs": lengths,
        "executions_per_run": len(_COMPONENTS),
        "cached_share": round(history.cached_share, 3),
        "growth_of": {name: round(each, 2) for name, each in growth.items()},
        "questions": {
            str(runs): {name: each[runs] for name, each in found.items()}
            for runs in lengths
        },
    }
