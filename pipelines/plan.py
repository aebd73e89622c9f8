"""What a run would do and why, said before anything runs.

Of each component one of three things is said: it will run; it is a hit, so that the
outputs of an earlier execution are taken; or it depends on what a component before it
writes (if that is the same bytes as before, it may be a hit after all) or says.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import json
import re
from collections.abc import (
    Collection,
    Container,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from pathlib import Path
from typing import Any, cast

from penstock.components.base import Component, Promise, declared
from penstock.pipelines import cache
from penstock.pipelines.code import Code, Reader, kept_symbols
from penstock.pipelines.failures import sentence_of
from penstock.pipelines.fingerprint import Fingerprint, fingerprint_of
from penstock.pipelines.inputs import resolver_of
from penstock.pipelines.metadata import State, Store, Written
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.resolution import gate, resolve
from penstock.pipelines.rules import producers
from penstock.pipelines.selection import check_names, select
from penstock.schemas.artifacts import Answer, Artifact, Examples
from penstock.schemas.errors import MetadataError, PipelineError, did_you_mean, quoted


class Forecast(enum.Enum):
    """What a run would do with a component."""

    WILL_RUN = "will run"
    HIT = "hit"
    DEPENDS = "depends"


@dataclasses.dataclass(frozen=True)
class Planned:
    """What a run would do with one component.

    Attributes:
        component: Its name.
        forecast: What it would do.
        reasons: Why, a sentence each.
    """

    component: str
    forecast: Forecast
    reasons: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        pipeline: Name of the pipeline.
        components: What it would do with each component, in order.
        remarks: What could not be followed in the code, a sentence each.
    """

    pipeline: str
    components: tuple[Planned, ...]
    remarks: tuple[str, ...]

    def __getitem__(self, component: str) -> Planned:
        """Return what is planned for a component.

        Raises:
            PipelineError: If the plan has no such component.
        """
        found = {each.component: each for each in self.components}
        if component not in found:
            raise PipelineError(
                f"The plan of '{self.pipeline}' has no component '{component}' (it has "
                f"{quoted(found)}).{did_you_mean(component, found)}"
            )
        return found[component]


@dataclasses.dataclass
class _Foreseen:
    """How a component will have ended, as far as is known.

    Attributes:
        state: RUNNING where it is not known.
        reason: Why it will be skipped.
        answer: What the verdict says that it will be skipped for.
        outputs: What it will have written.
        forecast: What is said of it.
        verdicts: The components whose verdicts may still make it be skipped.
    """

    state: State = State.RUNNING
    reason: str = ""
    answer: Answer | None = None
    outputs: dict[str, Artifact] = dataclasses.field(default_factory=dict)
    forecast: Forecast = Forecast.WILL_RUN
    verdicts: tuple[str, ...] = ()


def plan(
    pipeline: Pipeline,
    root: Path,
    store: Store,
    *,
    force: Collection[str] = (),
    resume: str | None = None,
    only: Sequence[str] = (),
    from_: Sequence[str] = (),
    to: Sequence[str] = (),
) -> Plan:
    """Say what a run would do, and why; nothing is run or recorded.

    Args:
        pipeline: The pipeline.
        root: The folder that artifacts lie in.
        store: The lineage store.
        force: As of `run`, like the rest.
        resume: Likewise.
        only: Likewise.
        from_: Likewise.
        to: Likewise.

    Raises:
        PipelineError: If the names do not fit the pipeline.
        DataError: If an input is not there.
    """
    check_names(pipeline, force, "force")
    selection = select(pipeline, store, resume=resume, only=only, from_=from_, to=to)
    reader = Reader()
    ended: dict[str, _Foreseen] = {}
    planned, remarks = [], {}
    for component, _ in pipeline.ordered(selection.names):
        foreseen = ended[component.name] = _Foreseen()
        if component.name in selection.taken:
            foreseen.outputs = dict(selection.taken[component.name].outputs)
            foreseen.state, foreseen.forecast = State.CACHED, Forecast.HIT
            reasons = [f"Its outputs are taken from run '{resume}'."]
        else:
            code = reader.code_of(component)
            remarks.update(dict.fromkeys(code.remarks))
            try:
                reasons = list(
                    _foresee(component, pipeline, root, store, code, force, ended)
                )
            except MetadataError:
                raise
            except Exception as error:  # of a user's resolver, or of what is read
                reasons = [f"It will fail: {sentence_of(component, error)}"]
        planned.append(Planned(component.name, foreseen.forecast, tuple(reasons)))
    return Plan(pipeline.name, tuple(planned), tuple(remarks))


def _foresee(
    component: Component,
    pipeline: Pipeline,
    root: Path,
    store: Store,
    code: Code,
    force: Collection[str],
    ended: Mapping[str, _Foreseen],
) -> Iterator[str]:
    """Yield why a component will run or not; note in `ended` what comes of it."""
    foreseen = ended[component.name]
    known = {
        name: each for name, each in ended.items() if each.state is not State.RUNNING
    }
    left = ended.keys() - known.keys()
    unknown = [each for each in _inputs_of(component) if each.producer in left]
    live = _live(component, pipeline.name, store, known, is_whole=not unknown)
    closed = gate(live, store, known)
    if closed is not None:
        foreseen.state, foreseen.forecast = State.SKIPPED, Forecast.DEPENDS
        foreseen.reason, foreseen.answer = closed.reason, closed.answer
        yield f"It will be skipped: {closed.reason}"
        return
    foreseen.verdicts = _open_verdicts(component, unknown, ended)
    if foreseen.verdicts:
        foreseen.forecast = Forecast.DEPENDS
        yield f"It depends on the verdict of {quoted(foreseen.verdicts)}."
        return
    is_certain = component.name in force or not component.options.cache
    if unknown and not is_certain:
        foreseen.forecast = Forecast.DEPENDS
        names = dict.fromkeys(each.producer for each in unknown)
        yield f"It depends on the output of {quoted(names)}."
        return
    if component.name in force:
        yield "It is forced."
        return
    if not component.options.cache:
        yield "It is never cached (cache=False)."
        return
    fingerprint = fingerprint_of(live, live.external_inputs(), code)
    found = cache.find(store, live, fingerprint)
    if isinstance(found, cache.Hit):
        foreseen.state, foreseen.forecast = State.CACHED, Forecast.HIT
        foreseen.outputs = dict(found.outputs)
        yield (
            f"Execution {found.execution.id} of run '{found.execution.run_id}' had "
            "the same fingerprint, and what it wrote is still there."
        )
        return
    if found.reason:
        yield f"It ran with the same fingerprint, but {found.reason}."
        return
    yield from _changes(component, pipeline, root, store, fingerprint, code)


@dataclasses.dataclass(frozen=True)
class _Wired:
    """That a component needs something of another one."""

    producer: str
    is_gate: bool


def _inputs_of(component: Component) -> Iterator[_Wired]:
    """Yield what a component needs of others; a resolver may find what they write."""
    gates = {each.name for each in declared(type(component)).inputs if each.gate}
    for name, artifacts in component.inputs.items():
        for artifact in artifacts:
            if isinstance(artifact.source, Promise):
                yield _Wired(artifact.source.producer.name, name in gates)
    if _resolves(component):
        for each in _ahead(component):
            yield _Wired(each, False)


def _resolves(component: Component) -> bool:
    return any(
        resolver_of(artifact) is not None
        for artifacts in component.inputs.values()
        for artifact in artifacts
    )


def _ahead(component: Component) -> list[str]:
    """Return the components that one waits for, however indirectly."""
    found: dict[str, None] = {}
    left = list(producers(component))
    while left:
        each = left.pop()
        if each.name not in found:
            found[each.name] = None
            left += producers(each)
    return list(found)


def _live(
    component: Component,
    pipeline: str,
    store: Store,
    known: Mapping[str, _Foreseen],
    *,
    is_whole: bool,
) -> Component:
    """Return a component with facts for inputs, all of them if it is whole."""
    if not is_whole:
        return resolve(_known_part(component, known), pipeline, store, known)
    if not _resolves(component):
        return resolve(component, pipeline, store, known)
    names = _ahead(component)
    ahead = {name: each for name, each in known.items() if name in names}
    view = cast(Store, _AsIfTaken(store, pipeline, ahead))
    return resolve(component, pipeline, view, known)


class _AsIfTaken:
    """A store as it will be when a component's inputs are resolved.

    What components ahead of it take from the cache is then the newest that there is.

    Args:
        store: The store.
        pipeline: Name of the pipeline.
        ahead: How the components ahead ended of which that is known, in order.
    """

    def __init__(
        self, store: Store, pipeline: str, ahead: Mapping[str, _Foreseen]
    ) -> None:
        self._store = store
        self._pipeline = pipeline
        self._taken = [
            Written(output, _LAST + number, name, is_first=False, is_live=True)
            for number, (name, ended) in enumerate(ahead.items())
            if ended.state is State.CACHED
            for output in ended.outputs.values()
        ]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def newest(
        self, *kinds: type[Artifact], pipeline: str, component: str = ""
    ) -> Iterator[Written]:
        names = {each.TYPE_NAME for each in kinds}
        for each in reversed(self._taken if pipeline == self._pipeline else []):
            if each.artifact.TYPE_NAME in names and component in ("", each.component):
                yield each
        yield from self._store.newest(*kinds, pipeline=pipeline, component=component)

    def examples_by_span(
        self, pipeline: str, *, first: int | None = None, last: int | None = None
    ) -> Iterator[list[Examples]]:
        groups = self._store.examples_by_span(pipeline, first=first, last=last)
        if pipeline != self._pipeline or not self._taken:
            yield from groups
            return
        found = {each.id: each for each in itertools.chain.from_iterable(groups)}
        for written in self._taken:
            each = written.artifact
            if not isinstance(each, Examples) or each.span is None:
                continue
            is_late = last is not None and each.span > last
            if not is_late and (first is None or first <= each.span):
                found.setdefault(each.id, each)
        yield list(found.values())

    def last_writers(
        self, artifacts: Iterable[Artifact], *, pipeline: str, component: str = ""
    ) -> dict[int, int]:
        asked = list(artifacts)
        found = self._store.last_writers(asked, pipeline=pipeline, component=component)
        ids = {each.id for each in asked}
        for each in self._taken if pipeline == self._pipeline else []:
            number = each.artifact.id
            is_of = component in ("", each.component)
            if number is not None and number in ids and is_of:
                found[number] = each.execution_id
        return found


_LAST = 2**62  # numbers of executions that are still to come


def _known_part(component: Component, known: Container[str]) -> Component:
    """Return a component without the inputs that are not known before a run."""

    def is_known(artifact: Artifact) -> bool:
        source = artifact.source
        if isinstance(source, Promise):
            return source.producer.name in known
        return not artifact.is_promise

    unknown = {
        name: None
        for name, artifacts in component.inputs.items()
        if not all(map(is_known, artifacts))
    }
    return component.bound(unknown, {})


def _open_verdicts(
    component: Component,
    unknown: Sequence[_Wired],
    ended: Mapping[str, _Foreseen],
) -> tuple[str, ...]:
    """Return whose verdicts may make a component be skipped, its own or one ahead."""
    found = [each.producer for each in unknown if each.is_gate]
    for each in producers(component):
        found += ended[each.name].verdicts if each.name in ended else ()
    return tuple(dict.fromkeys(found))


def _changes(
    component: Component,
    pipeline: Pipeline,
    root: Path,
    store: Store,
    fingerprint: Fingerprint,
    code: Code,
) -> Iterator[str]:
    """Yield what is different from the last execution of a component."""
    last = store.last_execution(pipeline.name, component.name)
    if last is None:
        yield "It has not run in this pipeline."
        return
    was: dict[str, str] = json.loads(str(last.properties["penstock_parts"]))
    now = fingerprint.parts
    if was == now:
        yield (
            f"The last execution of it was {last.state.value}, in run '{last.run_id}', "
            "with the same fingerprint."
        )
        return
    for name in sorted({*was, *now}):
        before, after = was.get(name), now.get(name)
        if before == after:
            continue
        if name == "code":
            yield from _code_changes(root, before or "", code)
        elif name.startswith("external["):
            yield from _external_changes(name, was, now)
        else:
            yield _change(name, before, after)


def _external_changes(
    name: str, was: Mapping[str, str], now: Mapping[str, str]
) -> Iterator[str]:
    """Yield what changed outside of the pipeline, by file where files are known."""
    index, _, is_properties = name.partition(" ")
    before, after = (
        json.loads(each.get(f"{index} properties", "{}")) for each in (was, now)
    )
    old, new = before.pop("files", {}), after.pop("files", {})
    if old == new:
        if not is_properties or before != after:
            yield _change(name, was.get(name), now.get(name))
    elif not is_properties:  # said once, of both parts
        for file in sorted({*old, *new}):
            if old.get(file) != new.get(file):
                yield _change(f"file '{file}'", old.get(file), new.get(file))


def _code_changes(root: Path, digest: str, code: Code) -> Iterator[str]:
    was, now = kept_symbols(root, digest), code.symbols
    if not was:
        yield f"The code changed: {digest} -> {code.digest}."
        return
    for name in sorted({*was, *now}):
        if was.get(name) == now.get(name):
            continue
        if name not in was:
            yield f"The code now reaches '{name}'."
        elif name not in now:
            yield f"The code no longer reaches '{name}'."
        else:
            yield (
                f"The code of '{name}' changed: {was[name][:12]} -> {now[name][:12]}."
            )


def _change(name: str, before: str | None, after: str | None) -> str:
    subject = f"{name[0].upper()}{name[1:]}"
    if before is None:
        return f"{subject} is new: {_short(after)}."
    if after is None:
        return f"{subject} is gone; it was {_short(before)}."
    return f"{subject} changed: {_short(before)} -> {_short(after)}."


def _short(text: str | None) -> str:
    said = re.sub(r"(?:sha256:)?\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", text or "")
    return said if len(said) <= 60 else f"{said[:57]}..."
