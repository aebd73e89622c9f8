"""Inputs that no component of the pipeline makes: resolved when a run needs them.

Each function is typed as the artifact it promises, or as a tuple of them, so that
fields stay typed; what it returns is a promise that knows how to look itself up.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, cast, overload

from penstock.components.base import Component, Input, frozen
from penstock.components.serving.place import local_directory
from penstock.pipelines import lineage
from penstock.pipelines import where as questions
from penstock.pipelines.metadata import Store
from penstock.pipelines.overrides import block_list
from penstock.schemas.artifacts import (
    Artifact,
    Examples,
    Model,
    ModelBlessing,
    ModelEvaluation,
)
from penstock.schemas.digests import folder_digest
from penstock.schemas.errors import (
    DataError,
    PipelineError,
    ServingError,
    did_you_mean,
    quoted,
)

A = TypeVar("A", bound=Artifact)

Found: TypeAlias = "Artifact | tuple[Artifact, ...] | None"


class Resolver(Protocol):
    """Finds the artifact, or the artifacts, that an input stands for."""

    def resolve(self, store: Store, pipeline: str, component: Component) -> Found:
        """Return what there is, or None where there is nothing.

        Args:
            store: The lineage store.
            pipeline: Name of the pipeline that runs.
            component: The component, with its wired inputs as facts.
        """

    def nearest(self, store: Store, pipeline: str, component: Component) -> str:
        """Return a sentence on what there is instead; the empty string for nothing.

        Args:
            store: The lineage store.
            pipeline: Name of the pipeline that runs.
            component: The component, with its wired inputs as facts.
        """


def resolver_of(artifact: Artifact) -> Resolver | None:
    """Return what finds an artifact that no component makes, if that is what it is."""
    is_found = artifact.is_promise and hasattr(artifact.source, "resolve")
    return cast(Resolver, artifact.source) if is_found else None


def resolvers_of(component: Component) -> dict[str, str]:
    """Return what finds the inputs of a component, as properties of its executions.

    Args:
        component: The component as the pipeline lists it.
    """
    said = {
        name: ", ".join(str(each.source) for each in artifacts if resolver_of(each))
        for name, artifacts in component.inputs.items()
    }
    return {f"penstock_resolved_{name}": text for name, text in said.items() if text}


def resolved(
    wired: Input,
    value: Artifact | tuple[Artifact, ...],
    store: Store,
    pipeline: str,
    component: Component,
) -> Found:
    """Return the value of an input with what its resolvers find.

    Args:
        wired: The input.
        value: Its value; what the resolvers of a tuple find, stands in their places.
        store: The lineage store.
        pipeline: Name of the pipeline that runs.
        component: The component, with its wired inputs as facts.

    Raises:
        DataError: If a resolver finds nothing, and the input cannot be left out.
    """
    artifacts: list[Artifact] = []
    is_missing = False
    for each in value if isinstance(value, tuple) else (value,):
        resolver = resolver_of(each)
        if resolver is None:
            artifacts.append(each)
            continue
        found = resolver.resolve(store, pipeline, component)
        if found is None and not wired.optional:
            near = resolver.nearest(store, pipeline, component)
            raise DataError(
                f"'{resolver}' finds nothing for {component.name}.{wired.name} in "
                f"pipeline '{pipeline}'. {near}{' ' if near else ''}Run what writes "
                f"{wired.kind.TYPE_NAME} first, or import it."
            )
        is_missing = is_missing or found is None
        artifacts += found if isinstance(found, tuple) else [found] if found else []
    if wired.many:
        return None if is_missing and not artifacts else tuple(artifacts)
    return artifacts[0] if artifacts else None


def _as(kind: type[A], artifact: Artifact) -> A:
    """Return an artifact of the store as the class of the user's for its type."""
    if isinstance(artifact, kind):
        return artifact
    return kind(
        artifact.uri,
        properties=artifact.properties,
        digest=artifact.digest,
        id=artifact.id,
    )


def _near(store: Store, pipeline: str, kind: type[Artifact], component: str) -> str:
    """Say where there is something of a type, or why what there is does not count."""
    own = list(itertools.islice(store.newest(kind, pipeline=pipeline), 100))
    writers = {each.component for each in own if each.component}
    if component and own and component not in writers:
        return (
            f"'{component}' wrote none ({quoted(writers)} did)."
            f"{did_you_mean(component, writers)}"
        )
    if own:
        return f"The newest, {kind.TYPE_NAME} {own[0].artifact.id}, is deleted."
    others = store.artifacts(kind)
    if not others:
        return ""
    makers = {each.pipeline for each in store.producers(others[-1:])}
    where = f"of pipeline {quoted(makers)}" if makers else f"at '{others[-1].uri}'"
    near = did_you_mean(pipeline, makers)
    return f"The nearest is {kind.TYPE_NAME} {others[-1].id} {where}.{near}"


def _said(name: str, *arguments: str, component: str = "") -> str:
    """Return a resolver as the user wrote it."""
    last = [f"component='{component}'"] if component else []
    return f"{name}({', '.join([*arguments, *last])})"


@dataclasses.dataclass(frozen=True)
class _Import:
    uri: str
    kind: type[Artifact]

    def __str__(self) -> str:
        return _said("Import", f"'{self.uri}'", self.kind.__name__)

    def resolve(self, store: Store, pipeline: str, component: Component) -> Artifact:
        path = Path(self.uri)
        if not path.is_dir():
            raise DataError(
                f"'{self}' in '{component.name}' names no folder that exists. Check "
                "the path; an artifact is a folder."
            )
        return self.kind(path.resolve(), digest=folder_digest(path), source=self)

    def nearest(self, store: Store, pipeline: str, component: Component) -> str:
        return ""


@dataclasses.dataclass(frozen=True)
class _Latest:
    kind: type[Artifact]
    component: str

    def __str__(self) -> str:
        return _said("Latest", self.kind.__name__, component=self.component)

    def resolve(self, store: Store, pipeline: str, component: Component) -> Found:
        written = store.newest(self.kind, pipeline=pipeline, component=self.component)
        newest = next((each for each in written if each.is_live), None)
        return None if newest is None else _as(self.kind, newest.artifact)

    def nearest(self, store: Store, pipeline: str, component: Component) -> str:
        return _near(store, pipeline, self.kind, self.component)


@dataclasses.dataclass(frozen=True)
class _LatestBlessed:
    def __str__(self) -> str:
        return "LatestBlessed()"

    def resolve(self, store: Store, pipeline: str, component: Component) -> Found:
        # Only facts count as candidates: the baseline itself is still a promise.
        candidates = {
            artifact.digest
            for artifacts in component.inputs.values()
            for artifact in artifacts
            if isinstance(artifact, Model) and not artifact.is_promise
        }
        blocked = block_list(store)
        seen: set[int] = set()
        newest, best = 0, None
        for each in store.newest(Model, ModelBlessing, pipeline=pipeline):
            number = each.artifact.id or 0
            # What is still to come was written by executions that began before this
            # one, and so can only bless models that were recorded before this.
            if each.is_first and number <= newest:
                break
            blessed = _blessed(each.artifact)
            if blessed <= newest or blessed in seen:
                continue
            seen.add(blessed)
            model = store.find_live(blessed)
            # Imported here, as below: SQLite would slow every `import penstock`.
            from penstock.pipelines import served

            # The same bytes would be compared with themselves.
            if (
                isinstance(model, Model)
                and not (model.digest and model.digest in candidates)
                and blocked.entry(model) is None
                and not served.taken_back(store, model)
            ):
                newest, best = blessed, model
        return best

    def nearest(self, store: Store, pipeline: str, component: Component) -> str:
        written = store.newest(ModelBlessing, pipeline=pipeline)
        number = max((_blessed(each.artifact) for each in written), default=0)
        model = store.find_artifact(number)
        if isinstance(model, Model):
            entry = block_list(store).entry(model)
            if entry is not None:
                return f"Model {number} is on the block-list: {entry.reason}"
            if store.find_live(number) is None:
                return f"Model {number} is blessed, but deleted."
            from penstock.pipelines import served

            back = served.taken_back(store, model)
            if back:
                return f"Model {number} is blessed, but was pushed as {_ended(back)}"
            return f"Model {number} is blessed, but has the bytes of the candidate."
        models = store.newest(Model, pipeline=pipeline)
        newest = next((each.artifact for each in models), None)
        if newest is not None:
            return f"The newest, Model {newest.id}, is not blessed."
        return _near(store, pipeline, Model, "")


def _ended(text: str) -> str:
    return f"{text.rstrip('.')}."


def _blessed(artifact: Artifact) -> int:
    """Return the number of the model that an artifact blesses, or 0."""
    number = artifact.properties.get("current_model_id")
    is_yes = isinstance(artifact, ModelBlessing) and (
        artifact.properties.get("blessed") == 1
    )
    return int(number) if is_yes and isinstance(number, int | float) else 0


@dataclasses.dataclass(frozen=True)
class _Served:
    serving_dir: str

    def __str__(self) -> str:
        return _said("Served", f"'{self.serving_dir}'")

    def resolve(self, store: Store, pipeline: str, component: Component) -> Found:
        version = self._version()
        if version is None:
            return None
        pushed = lineage.pushed(store, self.serving_dir, version)
        model = lineage.model_behind(store, pushed)
        if store.find_live(model.id or 0) is None:
            raise DataError(
                f"Version {version} of '{self.serving_dir}' is a copy of Model "
                f"{model.id}, which is deleted. Pin models that are served, or import "
                "the version's folder."
            )
        return model

    def nearest(self, store: Store, pipeline: str, component: Component) -> str:
        if not Path(self.serving_dir).exists():
            return f"'{self.serving_dir}' does not exist."
        if self._version() is None:
            return f"'{self.serving_dir}' has no version that is served."
        return ""

    def _version(self) -> int | None:
        if not Path(self.serving_dir).exists():
            return None  # nothing was pushed yet
        from penstock.pipelines import served

        return served.served_version(Path(self.serving_dir))


@dataclasses.dataclass(frozen=True)
class _TrainedOn:
    served: _Served

    def __str__(self) -> str:
        return _said("TrainedOn", f"'{self.served.serving_dir}'")

    def resolve(self, store: Store, pipeline: str, component: Component) -> Found:
        model = self.served.resolve(store, pipeline, component)
        if not isinstance(model, Model):
            return None
        read = [
            each
            for record in store.producers([model])
            for inputs in record.inputs.values()
            for each in inputs
            if isinstance(each, Examples)
        ]
        for each in read:
            if store.find_live(each.id or 0) is None:
                raise DataError(
                    f"Examples {each.id}, which the model behind the served version of "
                    f"'{self.served.serving_dir}' was trained on, are deleted. Pin "
                    "the model while it is served, and train it again."
                )
        return tuple(read) or None

    def nearest(self, store: Store, pipeline: str, component: Component) -> str:
        return self.served.nearest(store, pipeline, component) or (
            f"The model behind the served version of '{self.served.serving_dir}' was "
            "made of no Examples."
        )


@dataclasses.dataclass(frozen=True)
class _Where:
    text: str
    kind: type[Artifact]
    component: str

    def __str__(self) -> str:
        name = self.kind.__name__
        return _said("Where", repr(self.text), name, component=self.component)

    def resolve(self, store: Store, pipeline: str, component: Component) -> Found:
        known: set[str] = set()
        for shown, found in self._pages(store, pipeline):
            known.update(*(each.properties for each in shown))
            true = questions.true_of(shown, self.text)
            if true:
                return _as(self.kind, found[shown.index(true[0])])
        for name in questions.properties_read(self.text) if known else ():
            if name not in known:
                # Where an input may be missing, nobody else would say so.
                logging.getLogger("penstock").warning(
                    "'%s' finds nothing: no %s of pipeline '%s' has the property "
                    "'%s'.%s",
                    *(self, self.kind.TYPE_NAME, pipeline, name),
                    did_you_mean(name, known),
                )
        return None

    def nearest(self, store: Store, pipeline: str, component: Component) -> str:
        shown, _ = next(self._pages(store, pipeline), ([], []))
        if not shown:
            return _near(store, pipeline, self.kind, self.component)
        newest, known = shown[0], {key for each in shown for key in each.properties}
        near, values = "", []
        for name in questions.properties_read(self.text):
            has = name in newest.properties
            values.append(
                f"{name} {newest.properties[name]}" if has else f"no '{name}'"
            )
            near += "" if name in known else did_you_mean(name, known)
        said = " and ".join(values)
        return f"The newest, {newest.TYPE_NAME} {newest.id}, has {said}.{near}"

    def _pages(
        self, store: Store, pipeline: str
    ) -> Iterator[tuple[list[Artifact], list[Artifact]]]:
        """Yield artifacts, the newest first, as they are asked and as they are."""
        seen: set[int | None] = set()
        written = store.newest(self.kind, pipeline=pipeline, component=self.component)
        size = 4
        while page := list(itertools.islice(written, size)):
            size = min(2 * size, 256)
            found = {each.artifact.id: each.artifact for each in page if each.is_live}
            new = [each for id, each in found.items() if id not in seen]
            seen |= found.keys()
            if new:
                yield _with_metrics(store, new), new


def _with_metrics(store: Store, artifacts: list[Artifact]) -> list[Artifact]:
    """Return models with the metrics of their newest evaluations; all else as it is."""
    models = [each for each in artifacts if isinstance(each, Model)]
    evaluated = store.last_made_of(
        models, ModelEvaluation, but=("baseline", "baseline_model")
    )
    metrics = {id: each.properties for id, each in evaluated.items()}
    return [
        type(each)(
            each.uri,
            properties={**metrics[each.id], **each.properties},
            id=each.id,
        )
        if each.id in metrics
        else each
        for each in artifacts
    ]


@dataclasses.dataclass(frozen=True)
class _Spans:
    last: int | None
    between: tuple[int, int] | None
    at_least: int
    component: str

    @property
    def _wanted(self) -> int:
        if self.between is None:
            return self.last or 0
        first, last = self.between
        return last - first + 1

    def __str__(self) -> str:
        arguments = [
            f"last={self.last}" if self.between is None else f"between={self.between}"
        ]
        if self.at_least != self._wanted:
            arguments.append(f"at_least={self.at_least}")
        return _said("Spans", *arguments, component=self.component)

    def resolve(self, store: Store, pipeline: str, component: Component) -> Found:
        found = list(itertools.islice(self._newest(store, pipeline), self._wanted))
        if len(found) < self.at_least:
            raise DataError(self._too_few(store, pipeline, component, found))
        return tuple(reversed(found))

    def nearest(self, store: Store, pipeline: str, component: Component) -> str:
        everything = dataclasses.replace(self, last=100, between=None)
        spans = [each.span for each in everything._newest(store, pipeline)]
        if spans:
            return f"There are {_numbers(spans[::-1])}."
        has_some = next(
            store.newest(Examples, pipeline=pipeline, component=self.component), None
        )
        if has_some is not None and has_some.is_live:
            return (
                f"Examples {has_some.artifact.id} has no span: put '{{SPAN}}' or a "
                "date into the pattern of its files."
            )
        return _near(store, pipeline, Examples, self.component)

    def _too_few(
        self,
        store: Store,
        pipeline: str,
        component: Component,
        found: Sequence[Examples],
    ) -> str:
        spans = _numbers([each.span for each in reversed(found)])
        said = (
            f"'{self}' finds {len(found) or 'no'} span{'s' * (len(found) > 1)} of "
            f"Examples in pipeline '{pipeline}'{f' ({spans})' if found else ''}, where "
            f"at least {self.at_least} are wanted."
        )
        if found:
            return f"{said} Ingest more, or pass at_least={len(found)}."
        near = self.nearest(store, pipeline, component)
        return f"{said} {near}{' ' if near else ''}Ingest some, or pass at_least=0."

    def _newest(self, store: Store, pipeline: str) -> Iterator[Examples]:
        """Yield the newest version of each span, the greatest span first."""
        first, last = self.between or (None, None)
        for group in store.examples_by_span(pipeline, first=first, last=last):
            by_span: dict[int, list[Examples]] = {}
            for each in group:
                by_span.setdefault(each.span or 0, []).append(each)
            spans = iter(sorted(by_span, reverse=True))
            while some := list(itertools.islice(spans, self._wanted)):
                written = store.last_writers(
                    itertools.chain.from_iterable(by_span[span] for span in some),
                    pipeline=pipeline,
                    component=self.component,
                )
                for span in some:
                    yield from _newest_version(by_span[span], written)


def _newest_version(
    examples: Sequence[Examples], written: Mapping[int, int]
) -> Iterator[Examples]:
    """Yield the greatest version of a span; of equal ones, what was written last.

    Args:
        examples: All that there is of the span.
        written: The executions that wrote them; others do not count.
    """
    own = [each for each in examples if each.id in written]
    if own:
        yield max(own, key=lambda each: (_version(each), written.get(each.id or 0, 0)))


def _version(examples: Examples) -> int:
    return -1 if examples.version is None else examples.version


def _numbers(numbers: Sequence[int | None]) -> str:
    said = [str(each) for each in numbers]
    return ", ".join(said if len(said) <= 10 else [*said[:3], "...", *said[-3:]])


@dataclasses.dataclass(frozen=True)
class _Resolve:
    function: Callable[[Store, str, Component], Any]
    kind: type[Artifact]
    many: bool

    def __str__(self) -> str:
        name = f"{self.function.__module__}.{self.function.__qualname__}"
        more = ["many=True"] if self.many else []
        return _said("Resolve", name, self.kind.__name__, *more)

    def resolve(self, store: Store, pipeline: str, component: Component) -> Found:
        found = self.function(store, pipeline, component)
        if self.many:
            if not isinstance(found, list | tuple):
                raise self._wrong(found)
            return tuple(self._checked(each) for each in found)
        return None if found is None else self._checked(found)

    def nearest(self, store: Store, pipeline: str, component: Component) -> str:
        return ""

    def __deepcopy__(self, memo: Any) -> _Resolve:
        return self

    def __reduce__(self) -> Any:
        # The process of a component resolves nothing, and the function may live in a
        # script that is not loaded there.
        return _Elsewhere, (str(self),)

    def _checked(self, found: object) -> Artifact:
        if isinstance(found, Artifact) and not found.is_promise:
            if isinstance(found, self.kind):
                return found
            if found.TYPE_NAME == self.kind.TYPE_NAME:
                return _as(self.kind, found)
        raise self._wrong(found)

    def _wrong(self, found: object) -> PipelineError:
        name = self.kind.TYPE_NAME
        takes = f"a list of {name}" if self.many else f"{name} or None"
        return PipelineError(
            f"'{self}' returned {found!r} ({type(found).__name__}), where {takes} is "
            "needed. Return what is in the lineage store, or on disk."
        )


@dataclasses.dataclass(frozen=True)
class _Elsewhere:
    """What stands for a function's promise in another process than its own."""

    text: str

    def __str__(self) -> str:
        return self.text

    def resolve(self, store: Store, pipeline: str, component: Component) -> Found:
        raise PipelineError(
            f"'{self}' was carried here from another process, without its function. "
            "Make the pipeline in the process that runs it."
        )

    def nearest(self, store: Store, pipeline: str, component: Component) -> str:
        return ""


def _check_kind(name: str, kind: object) -> None:
    if not isinstance(kind, type) or not issubclass(kind, Artifact):
        raise PipelineError(
            f"{name} takes a class of artifacts, got {kind!r} ({type(kind).__name__}). "
            "Pass one of penstock.schemas, such as Model."
        )


def Import(uri: str | Path, kind: type[A]) -> A:
    """Promise an artifact that lies on disk already.

    Args:
        uri: Its folder.
        kind: Its type.
    """
    _check_kind("Import", kind)
    return kind(source=_Import(str(uri), kind))


def Latest(kind: type[A], *, component: str = "") -> A:
    """Promise the newest artifact of a type that this pipeline wrote.

    The newest is what was written, or taken from the cache, last: with data, code and
    parameters as they were before, it is what they gave before.

    Args:
        kind: Its type.
        component: Name of the component that wrote it; any, if none is named.
    """
    _check_kind("Latest", kind)
    return kind(source=_Latest(kind, component))


def LatestBlessed() -> Model:
    """Promise the newest blessed model with other bytes than the candidate's.

    An unchanged re-run so resolves to the same baseline as before. The newest is the
    one that was recorded last, as for TFX, however old or new its blessing is; one on
    the block-list is passed over, and so is one that was pushed and then quarantined or
    rolled back, as far as its serving directory is on this machine. Where there is none
    yet, a field of type `Model | None` gets None.
    """
    return Model(source=_LatestBlessed())


def Served(serving_dir: str | Path) -> Model:
    """Promise the model behind the stable version of a serving directory.

    Before anything was rolled out there, it is the model behind the newest version that
    is whole and was not taken back. Where there is none yet, a field of type
    `Model | None` gets None.

    Args:
        serving_dir: The serving directory.

    Raises:
        PipelineError: If it is a URL.
    """
    try:
        local_directory(serving_dir)
    except ServingError as error:
        raise PipelineError(str(error)) from None
    return Model(source=_Served(str(serving_dir)))


def TrainedOn(serving_dir: str | Path) -> tuple[Examples, ...]:
    """Promise the Examples that the model behind the stable version was trained on.

    They are what its producer read. Where nothing is served yet, or the model was made
    of no Examples, a field that may be left out gets nothing.

    Args:
        serving_dir: The serving directory.

    Raises:
        PipelineError: If it is a URL.
    """
    served = Served(serving_dir).source
    assert isinstance(served, _Served)
    return (Examples(source=_TrainedOn(served)),)


def Where(expression: str, kind: type[A], *, component: str = "") -> A:
    """Promise the newest artifact of a type that an expression is true of.

    The expression is over its properties. Those of a model are its own, and the
    metrics of the newest evaluation of it.

    Args:
        expression: Such as `auc > 0.9`; odd names stand in backticks.
        kind: Its type.
        component: Name of the component that wrote it; any, if none is named.

    Raises:
        PipelineError: If it is no expression, or neither true nor false.
    """
    _check_kind("Where", kind)
    questions.check(expression)
    return kind(source=_Where(expression, kind, component))


@overload
def Spans(
    *, last: int, at_least: int | None = None, component: str = ""
) -> tuple[Examples, ...]: ...


@overload
def Spans(
    *, between: tuple[int, int], at_least: int | None = None, component: str = ""
) -> tuple[Examples, ...]: ...


def Spans(
    *,
    last: int | None = None,
    between: tuple[int, int] | None = None,
    at_least: int | None = None,
    component: str = "",
) -> tuple[Examples, ...]:
    """Promise the Examples of several spans of this pipeline, the oldest span first.

    Each span is there once: in its greatest version, and of that, what was written, or
    taken from the cache, last.

    Args:
        last: How many spans, those with the greatest numbers.
        between: Instead, the first and the last of a range of spans.
        at_least: How many there have to be; all that are asked for, unless given.
        component: Name of the component that wrote them; any, if none is named.

    Raises:
        PipelineError: If the numbers make no sense.
    """
    if last is not None and between is None:
        if not _is_whole(last) or last < 1:
            raise PipelineError(
                f"Spans.last is {last!r}. Pass a whole number of at least 1."
            )
        wanted = last
    elif between is not None and last is None:
        if not _is_range(between):
            raise PipelineError(
                f"Spans.between is {between!r}, which is no range of spans. Pass the "
                "first and the last, as between=(10, 16)."
            )
        wanted = between[1] - between[0] + 1
    else:
        raise PipelineError(
            "Spans takes either last or between. Write Spans(last=7) for the newest "
            "seven, or Spans(between=(10, 16))."
        )
    least = wanted if at_least is None else at_least
    if not _is_whole(least) or not 0 <= least <= wanted:
        raise PipelineError(
            f"Spans.at_least is {at_least!r}, of {wanted} that are asked for. Pass a "
            f"whole number from 0 to {wanted}."
        )
    source = _Spans(last, between and (between[0], between[1]), least, component)
    return (Examples(source=source),)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_range(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(map(_is_whole, value))
        and bool(value[0] <= value[1])
    )


@overload
def Resolve(
    function: Callable[[Store, str, Component], A | None],
    kind: type[A],
    *,
    many: Literal[False] = False,
) -> A: ...


@overload
def Resolve(
    function: Callable[[Store, str, Component], Sequence[A]],
    kind: type[A],
    *,
    many: Literal[True],
) -> tuple[A, ...]: ...


def Resolve(
    function: Callable[[Store, str, Component], Any],
    kind: type[A],
    *,
    many: bool = False,
) -> A | tuple[A, ...]:
    """Promise what a function of yours finds.

    Args:
        function: Called with the lineage store, the name of the pipeline, and the
            component with its wired inputs as facts; returns an artifact, or None. It
            is defined at the top level of a module.
        kind: The type of what it returns.
        many: Whether it returns a list of artifacts, for a field that takes a tuple.

    Raises:
        PipelineError: If it is no such function.
    """
    _check_kind("Resolve", kind)
    if not isinstance(function, types.FunctionType):
        raise PipelineError(
            f"Resolve takes a function, got {function!r} ({type(function).__name__}). "
            "Pass one that is defined at the top level of a module."
        )
    frozen(function, "The function of Resolve")
    promise = kind(source=_Resolve(function, kind, many))
    return (promise,) if many else promise
