"""Inputs that are resolved when a run needs them, wired to fields of another kind."""

from __future__ import annotations

from penstock import Import, Latest, LatestBlessed, Resolve, Spans, Store, Where
from penstock.components.base import Component, RunContext, output
from penstock.schemas.artifacts import Examples, Model, ModelEvaluation, Schema


class Train(Component):
    """Train on several spans."""

    examples: tuple[Examples, ...]
    schema: Schema | None = None
    base: Model | None = None
    model: Model = output()

    def run(self, context: RunContext) -> None:
        """Do nothing."""


class Look(Component):
    """Look at one."""

    examples: Examples


def chosen(store: Store, pipeline: str, component: Component) -> Model | None:
    """Choose a model."""
    return None


def windows(store: Store, pipeline: str, component: Component) -> list[Examples]:
    """Choose some spans."""
    return []


def short(store: Store, pipeline: str) -> Model | None:
    """Take too little."""
    return None


# These are right.
Train(
    examples=Spans(last=7),
    schema=Latest(Schema),
    base=Where("auc > 0.9", Model, component="Trainer"),
)
Train(
    examples=Spans(between=(10, 16), at_least=5, component="Ingest"),
    schema=Import("schema", Schema),
    base=Resolve(chosen, Model),
)
Train(
    examples=(*Spans(last=7), Latest(Examples)),
    base=LatestBlessed(),
)
Train(examples=Resolve(windows, Examples, many=True))
Look(examples=Latest(Examples))

Look(
    examples=Spans(last=7),  # E: incompatible type "tuple[Examples, ...]"; expected "Examples"
)
Train(
    examples=Latest(Examples),  # E: incompatible type "Examples"; expected "tuple[Examples, ...]"
    schema=Latest(Examples),  # E: incompatible type "Examples"; expected "Schema | None"
    base=Spans(last=1),  # E: incompatible type "tuple[Examples, ...]"; expected "Model | None"
)
Train(
    examples=Spans(last=7),
    base=Where("auc > 0.9", ModelEvaluation),  # E: expected "Model | None"
)
Train(
    examples=Resolve(windows, Examples),  # E: expected "tuple[Examples, ...]" # E: list[Examples]]"; expected
    base=Resolve(chosen, Schema),  # E: expected "Model | None" # E: Model | None]"; expected
)
Resolve(short, Model)  # E: Argument 1 to "Resolve"
Where(Model, "auc > 0.9")  # E: expected "str" # E: Argument 2 to "Where"
Latest("Model")  # E: Argument 1 to "Latest" has incompatible type "str"
Spans(7)  # E: No overload variant
Spans(last="7")  # E: No overload variant
Spans(last=7, between=(1, 2))  # E: No overload variant
Spans(between=7)  # E: No overload variant
