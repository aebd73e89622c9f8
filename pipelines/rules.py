"""The rules of a pipeline, checked before anything runs: one function, one message."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from penstock.components.base import Component, Promise
from penstock.schemas.errors import PipelineError, did_you_mean

Rule = Callable[[str, Sequence[Component]], None]

_LONGEST_NAME = 63  # TFX's bound, kept so that its tools can hold our pipelines
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def producers(component: Component) -> Iterator[Component]:
    """Yield the components whose outputs a component reads, and those it is after."""
    for artifacts in component.inputs.values():
        for artifact in artifacts:
            if isinstance(artifact.source, Promise) and artifact.is_promise:
                yield artifact.source.producer
    yield from component.after


def pipeline_name_is_legal(pipeline: str, components: Sequence[Component]) -> None:
    """A pipeline's name is a folder and a context, and TFX allows 63 characters."""
    legal = isinstance(pipeline, str) and _NAME.fullmatch(pipeline)
    if not legal or len(pipeline) > _LONGEST_NAME:
        raise PipelineError(
            f"Pipeline name '{pipeline}' cannot be used: names begin with a letter or "
            "digit, have only letters, digits, '_', '-' and '.', and at most "
            f"{_LONGEST_NAME} characters. Rename the pipeline."
        )


def there_are_components(pipeline: str, components: Sequence[Component]) -> None:
    """A pipeline has at least one component, and nothing else in its list."""
    if not components:
        raise PipelineError(
            f"Pipeline '{pipeline}' has no components. List at least one."
        )
    for component in components:
        if not isinstance(component, Component):
            raise PipelineError(
                f"Pipeline '{pipeline}' lists {component!r} "
                f"({type(component).__name__}), which is no component. List components "
                "only."
            )


def names_are_unique(pipeline: str, components: Sequence[Component]) -> None:
    """No two components share a name."""
    counts = Counter(component.name for component in components)
    for name, count in counts.items():
        if count > 1:
            kind = next(type(each) for each in components if each.name == name)
            raise PipelineError(
                f"Pipeline '{pipeline}' has {count} components named '{name}'. Give "
                f'each its own, as in {kind.__name__}(name="{name}2", ...).'
            )


def producers_are_present(pipeline: str, components: Sequence[Component]) -> None:
    """What a component reads, or comes after, is made in the same pipeline."""
    listed = {component.name: component for component in components}
    for component in components:
        for producer in producers(component):
            if producer.name not in listed:
                verb = (
                    "comes after"
                    if producer in component.after
                    else "reads an output of"
                )
                others = listed.keys() - {component.name}
                raise PipelineError(
                    f"'{component.name}' {verb} '{producer.name}', which pipeline "
                    f"'{pipeline}' does not contain. Add '{producer.name}' to its "
                    f"components.{did_you_mean(producer.name, others)}"
                )
            found = listed[producer.name]
            if type(found) is not type(producer):
                raise PipelineError(
                    f"'{component.name}' reads an output of a "
                    f"{type(producer).__name__} named '{producer.name}', but the "
                    f"'{producer.name}' in pipeline '{pipeline}' is a "
                    f"{type(found).__name__}. Wire it to the one that is listed."
                )
            # A copy, as pickling makes one, is as good as the component itself.
            if found is not producer and repr(found) != repr(producer):
                raise PipelineError(
                    f"'{component.name}' reads an output of another '{producer.name}' "
                    f"than the one that pipeline '{pipeline}' lists: {producer!r}, not "
                    f"{found!r}. Wire it to the one that is listed."
                )


def there_is_no_loop(pipeline: str, components: Sequence[Component]) -> None:
    """No component waits for itself."""
    waits_for = {
        component.name: sorted({each.name for each in producers(component)})
        for component in components
    }
    readers: dict[str, list[str]] = {name: [] for name in waits_for}
    for name, waited_for in waits_for.items():
        for each in waited_for:
            readers[each].append(name)
    # Take away what waits for nothing that is left; a loop is what always stays.
    left = {name: len(waited_for) for name, waited_for in waits_for.items()}
    free = [name for name, count in left.items() if not count]
    while free:
        name = free.pop()
        del left[name]
        for each in readers[name]:
            left[each] -= 1
            if not left[each]:
                free.append(each)
    if left:
        path: list[str] = []
        name = next(iter(left))
        while name not in path:
            path.append(name)
            name = next(each for each in waits_for[name] if each in left)
        loop = " -> ".join(f"'{each}'" for each in (*path[path.index(name) :], name))
        raise PipelineError(
            f"Pipeline '{pipeline}' has a loop: {loop}; each waits for the next. "
            "Remove one of these connections."
        )


RULES: tuple[Rule, ...] = (
    pipeline_name_is_legal,
    there_are_components,
    names_are_unique,
    producers_are_present,
    there_is_no_loop,
)
"""Every rule, in the order they are checked; later ones rely on earlier ones."""
