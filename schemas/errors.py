"""Every exception that penstock raises on purpose, and near misses for their texts.

    PenstockError
    ├── PipelineError     the definition is wrong: a name, a wiring, a parameter
    │   └── HookFailed    a function of on_exit raised; carries the result of the run
    ├── ComponentFailed   a component raised; carries the component, the run and others
    ├── DataError         what was read is not what it should be
    ├── MetadataError     the lineage store cannot be opened, read or written
    │   └── UnknownName   its history has nothing of that name
    └── ServingError      a serving directory or a model server refuses

A text names its subject, says what is wrong with values, and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class PenstockError(Exception):
    """Something the user can mend; its text is a sentence written for them."""


class PipelineError(PenstockError):
    """A component or a pipeline is put together wrongly."""


class HookFailed(PipelineError):
    """A function of `on_exit` raised, after a run that ended well.

    Attributes:
        result: The `RunResult`.
    """

    def __init__(self, message: str, *, result: Any) -> None:
        super().__init__(message)
        self.result = result


class DataError(PenstockError):
    """Input data, or an artifact on disk, is not what it should be."""


class MetadataError(PenstockError):
    """The lineage store cannot be opened, read or written."""


class UnknownName(MetadataError, KeyError, AttributeError):
    """The history has nothing of a name.

    A key and an attribute that are not there, too, so that `in`, `.get` and `hasattr`
    answer as they do for any mapping or object.
    """

    __str__ = Exception.__str__  # KeyError would show the text in quotes


class ServingError(PenstockError):
    """A serving directory or a model server refuses what was asked."""


class ComponentFailed(PenstockError):
    """A component raised while it ran.

    Attributes:
        component: Name of the component that failed first.
        run_id: Id of the run it failed in.
        others: The failures of components that ran independently of it.
        result: The whole `RunResult`, set when a run raises.
    """

    def __init__(
        self,
        message: str,
        *,
        component: str = "",
        run_id: str = "",
        others: tuple[ComponentFailed, ...] = (),
        result: Any = None,
    ) -> None:
        super().__init__(message)
        self.component = component
        self.run_id = run_id
        self.others = others
        self.result = result


def did_you_mean(name: str, legal: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest legal name, or nothing.

    Args:
        name: What the user wrote.
        legal: Every name that would have been right.

    Returns:
        A sentence with a leading space, or the empty string.
    """
    near = difflib.get_close_matches(name, sorted(legal), n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""


def near_misses(missing: Iterable[str], legal: Iterable[str]) -> str:
    """Return the question whether other names were meant, for each missing one."""
    questions = {name: did_you_mean(name, legal) for name in sorted(missing)}
    if len(questions) == 1:
        return "".join(questions.values())
    return "".join(
        f" For '{name}', d{question[2:]}"
        for name, question in questions.items()
        if question
    )


def quoted(names: Iterable[str]) -> str:
    """Return names as they appear in texts: quoted, sorted, with commas."""
    return ", ".join(f"'{name}'" for name in sorted(names)) or "none"
