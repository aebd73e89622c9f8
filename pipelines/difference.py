"""In what two runs differ: parameters, code, environment, data and metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from penstock.pipelines.code import kept_symbols
from penstock.pipelines.environment import packages_file
from penstock.pipelines.metadata import ExecutionRecord, RunRecord, State, Store
from penstock.pipelines.recipes import recipe
from penstock.schemas.artifacts import ModelEvaluation, PropertyValue

_RUN_PARAMETER = "parameter_"
_NO_METRICS = ("digest", "is_external", "penstock_", "tfx_version")

_Values: TypeAlias = Mapping[str, PropertyValue]


@dataclasses.dataclass(frozen=True)
class Change:
    """One thing in which two runs differ.

    Attributes:
        component: The component that it is about; empty for the run as a whole.
        name: What it is.
        before: Its value in the first run; None if it is not there.
        after: Its value in the second, likewise.
    """

    component: str
    name: str
    before: PropertyValue | None
    after: PropertyValue | None


@dataclasses.dataclass(frozen=True)
class Difference:
    """In what two runs differ.

    Attributes:
        before: The first run.
        after: The second.
        states: How components ended. A cached one ended as a complete one does.
        parameters: Parameters of the run and of components.
        code: Digests of definitions, by where these are; of all of a component's code,
            named `code`, where its definitions were not kept.
        environment: Versions of Python, libraries and packages, and all else that
            executions ran in; a list of packages as a whole, named `packages`, where it
            was not kept.
        data: Digests of what components read.
        metrics: What evaluations measured.
    """

    before: RunRecord
    after: RunRecord
    states: tuple[Change, ...]
    parameters: tuple[Change, ...]
    code: tuple[Change, ...]
    environment: tuple[Change, ...]
    data: tuple[Change, ...]
    metrics: tuple[Change, ...]

    @property
    def sections(self) -> dict[str, tuple[Change, ...]]:
        """The changes by what they are about."""
        names = ("states", "parameters", "code", "environment", "data", "metrics")
        return {name: getattr(self, name) for name in names}


def difference(store: Store, before: str, after: str) -> Difference:
    """Return in what two runs differ.

    Components are the same if their names are. Of one that only one of the runs has, or
    that one of them skipped, the states say that, and nothing else is said.

    Args:
        store: The lineage store.
        before: Id of the first run.
        after: Id of the second.

    Raises:
        MetadataError: If there is no such run.
    """
    old, new = store.run(before), store.run(after)
    olds, news = ({e.component: e for e in store.executions(r.id)} for r in (old, new))

    def changes(of: Callable[[ExecutionRecord], _Values]) -> tuple[Change, ...]:
        return tuple(
            change
            for name in olds
            if name in news
            and State.SKIPPED not in (olds[name].state, news[name].state)
            for change in _changes(name, of(olds[name]), of(news[name]))
        )

    states = (
        {name: _ended(each) for name, each in side.items()} for side in (olds, news)
    )
    return Difference(
        old,
        new,
        states=tuple(
            Change(each.name, "state", each.before, each.after)
            for each in _changes("", *states)
        ),
        parameters=(
            *_changes("", _given(old), _given(new)),
            *changes(lambda each: recipe(each).parameters),
        ),
        code=tuple(
            definition
            for change in changes(lambda each: {"code": recipe(each).code})
            for definition in _definitions(change, old, new)
        ),
        environment=tuple(
            version
            for change in changes(lambda each: recipe(each).environment)
            for version in _versions(change, old, new)
        ),
        data=changes(lambda each: recipe(each).data),
        metrics=changes(_metrics),
    )


def _changes(component: str, before: _Values, after: _Values) -> Iterator[Change]:
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            yield Change(component, name, before.get(name), after.get(name))


def _ended(execution: ExecutionRecord) -> str:
    is_cached = execution.state is State.CACHED
    ended = State.COMPLETE if is_cached else execution.state
    return str(ended.value)


def _given(run: RunRecord) -> _Values:
    """Return the parameters of a run."""
    return {
        name.removeprefix(_RUN_PARAMETER): value
        for name, value in run.properties.items()
        if name.startswith(_RUN_PARAMETER)
    }


def _definitions(code: Change, old: RunRecord, new: RunRecord) -> Iterator[Change]:
    """Yield what changed in code, by definition; the code itself if that is unknown."""
    before, after = (
        kept_symbols(_root(run), str(digest))
        for run, digest in ((old, code.before), (new, code.after))
    )
    is_known = before and after
    found = list(_changes(code.component, before, after)) if is_known else []
    yield from found or [code]


def _versions(change: Change, old: RunRecord, new: RunRecord) -> Iterator[Change]:
    """Yield a change of the environment, that of all packages by package."""
    before, after = (
        _packages(_root(run), str(digest)) if change.name == "packages" else {}
        for run, digest in ((old, change.before), (new, change.after))
    )
    is_known = before and after
    found = list(_changes(change.component, before, after)) if is_known else []
    yield from found or [change]


def _packages(root: Path, digest: str) -> dict[str, str]:
    """Return versions by package, or nothing if the list was not kept."""
    try:
        text = packages_file(root, digest).read_text(encoding="utf-8")
    except OSError:
        return {}
    return dict(line.split("==", 1) for line in text.splitlines())


def _root(run: RunRecord) -> Path:
    return Path(str(run.properties.get("penstock_root", "")))


def _metrics(execution: ExecutionRecord) -> _Values:
    return {
        name: value
        for artifacts in execution.outputs.values()
        for each in artifacts
        if isinstance(each, ModelEvaluation)
        for name, value in each.properties.items()
        if not name.startswith(_NO_METRICS)
    }
