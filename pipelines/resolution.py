"""Facts for promises, and what the verdicts among them say."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from penstock.components.base import Component, Input, Promise, declared
from penstock.pipelines import overrides
from penstock.pipelines.inputs import resolved, resolver_of
from penstock.pipelines.metadata import State, Store
from penstock.pipelines.rules import producers
from penstock.schemas.artifacts import Answer, Artifact, ModelBlessing, Verdict
from penstock.schemas.digests import folder_digest
from penstock.schemas.errors import DataError

DONE = (State.COMPLETE, State.CACHED)
"""The states of an execution that has outputs."""


class Ended(Protocol):
    """How a component that another one waits for ended."""

    state: State
    reason: str
    answer: Answer | None
    outputs: dict[str, Artifact]


@dataclasses.dataclass(frozen=True)
class Gate:
    """Why a component is skipped.

    Attributes:
        reason: The sentence.
        answer: What the verdict said that stopped it, if one did.
    """

    reason: str
    answer: Answer | None = None


def resolve(
    component: Component, pipeline: str, store: Store, ended: Mapping[str, Ended]
) -> Component:
    """Return a component with facts for promises, as far as there are any.

    Args:
        component: The component as the pipeline lists it.
        pipeline: Name of the pipeline.
        store: The lineage store.
        ended: How the components ended that it waits for.

    Raises:
        DataError: If an input is not there.
    """
    facts: dict[str, Any] = {}
    later = []
    for each in declared(type(component)).inputs:
        value = getattr(component, each.name)
        facts[each.name] = _facts(value, ended, component, each)
        if any(map(resolver_of, component.inputs.get(each.name, ()))):
            later.append(each)
    live = component.bound(facts, {})
    ahead = [ended[each.name] for each in waited_for(live) if each.name in ended]
    if any(each.state not in DONE for each in ahead):
        return live  # it is skipped, whatever there is to find
    # Resolvers see the facts: the candidate, for the baseline it is compared with.
    for each in later:
        found = resolved(each, getattr(live, each.name), store, pipeline, live)
        live = live.bound({each.name: _facts(found, ended, component, each)}, {})
    return live


def _facts(
    value: Any, ended: Mapping[str, Ended], component: Component, wired: Input
) -> Any:
    if isinstance(value, tuple):
        return tuple(_fact(each, ended, component, wired) for each in value)
    return None if value is None else _fact(value, ended, component, wired)


def _fact(
    artifact: Artifact, ended: Mapping[str, Ended], component: Component, wired: Input
) -> Artifact:
    """Return what a promise became, or the promise itself if nothing came of it."""
    source = artifact.source
    if isinstance(source, Promise) and artifact.is_promise:
        produced = ended[source.producer.name].outputs
        return produced.get(source.key, artifact)
    if not artifact.digest and not artifact.is_promise:
        if not artifact.path.is_dir():
            raise DataError(
                f"{component.name}.{wired.name} is {artifact.TYPE_NAME} "
                f"'{artifact.uri}', which is no folder that exists. Check the path; an "
                "artifact is a folder."
            )
        artifact.digest = folder_digest(artifact.path)
    return artifact


def gate(live: Component, store: Store, ended: Mapping[str, Ended]) -> Gate | None:
    """Return why a component is skipped, or None if nothing is in its way.

    Args:
        live: The component, with facts for promises.
        store: The lineage store.
        ended: How the components ended that it waits for; one that the run leaves out
            is not waited for.
    """
    for name in sorted({each.name for each in waited_for(live)} & ended.keys()):
        before = ended[name]
        if before.state is State.SKIPPED:
            # The first that did not run says why; the rest of the chain adds nothing.
            is_first = " did not run: " not in before.reason
            said = f"'{name}' did not run: {before.reason}"
            return Gate(said if is_first else before.reason, before.answer)
        if before.state not in DONE:
            return Gate(f"'{name}' {before.state.value}.")
    for each in declared(type(live)).inputs:
        for verdict in live.inputs.get(each.name, ()) if each.gate else ():
            if isinstance(verdict, Verdict):
                answer, said = _said(verdict, live, store)
                if answer is not Answer.YES:
                    subject = verdict.source or verdict.uri
                    return Gate(f"'{subject}' says {said}.", answer)
    return None


def _said(verdict: Verdict, live: Component, store: Store) -> tuple[Answer, str]:
    """Return what a verdict says now, and that with its reasons.

    A blessing of a model that is block-listed is a no, whenever it was given.
    """
    if verdict.answer is Answer.YES and isinstance(verdict, ModelBlessing):
        read = itertools.chain.from_iterable(live.inputs.values())
        blocked = overrides.why_blocked(store, verdict, read)
        if blocked:
            return Answer.NO, f"yes, but {blocked.rstrip('.')}"
    against = [reason.rstrip(".") for reason in verdict.reasons_against]
    said, more = "; ".join(against[:3]), len(against) - 3
    return verdict.answer, (
        verdict.answer.value
        + (f": {said}" if said else "")
        + (f"; and {more} more" if more > 0 else "")
    )


def waited_for(live: Component) -> Iterator[Component]:
    """Yield the components that one waits for, whether its inputs are facts or not."""
    yield from producers(live)
    for artifacts in live.inputs.values():
        for artifact in artifacts:
            if isinstance(artifact.source, Promise):
                yield artifact.source.producer
