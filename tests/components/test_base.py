"""Component: what a declaration accepts, keeps and refuses, each text word for word."""

from __future__ import annotations

import dataclasses
import enum
import functools
import gc
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import pytest

from penstock.components.base import (
    Component,
    FrozenDict,
    Options,
    Promise,
    RunContext,
    declared,
    field,
    frozen,
    output,
)
from penstock.schemas.artifacts import (
    Examples,
    ExampleStatistics,
    Model,
    ModelBlessing,
    Schema,
)
from penstock.schemas.errors import PipelineError


class Color(enum.Enum):
    RED = "r"


@dataclasses.dataclass(frozen=True)
class Span:
    first: int
    names: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Loose:
    first: int


class Pair(NamedTuple):
    left: int
    right: int


def measure(batch: object) -> int:
    return 1


class Ingest(Component):
    rows: int = 3
    examples: Examples = output()

    def run(self, context: RunContext) -> None:
        (self.examples.path / "data").write_text("x" * self.rows)


class Learn(Component):
    examples: Examples
    schema: Schema | None = None
    more: tuple[Examples, ...] = ()
    blessing: ModelBlessing | None = None
    model: Model = output()
    statistics: ExampleStatistics = output()


class Every(Component):
    """One parameter of each kind."""

    text: str = ""
    number: int = 1
    share: float = 0.5
    flag: bool = False
    place: Path | None = None
    color: Color = Color.RED
    mode: Literal["a", "b"] = "a"
    names: tuple[str, ...] = ()
    pair: tuple[int, str] | None = None
    listed: list[int] = []
    several: Sequence[float] = ()
    weights: Mapping[str, float] = field(default={"a": 1.0})
    table: dict[str, Any] = {}
    span: Span | None = None
    function: Callable[..., int] = measure
    anything: Any = None


class Odd(Every):
    """A subclass of a subclass, with one parameter that is not like its parent's."""

    extra: int = 0
    number: int = 2
    model: Model = output()


def text_of(make: Callable[[], object]) -> str:
    with pytest.raises(PipelineError) as raised:
        make()
    return str(raised.value)


# Arguments -----------------------------------------------------------------------


def test_an_unknown_argument_gets_a_near_miss() -> None:
    assert text_of(lambda: Ingest(row=3)) == (  # type: ignore[call-arg]
        "'Ingest' has no parameter 'row' (it has 'after', 'name', 'options', 'rows'). "
        "Did you mean 'rows'?"
    )


def test_positional_arguments_are_refused() -> None:
    assert text_of(lambda: Ingest(3)) == (  # type: ignore[call-arg, arg-type]
        "'Ingest' takes no positional arguments, got 1. Name each one: "
        "Ingest(rows=...)."
    )


def test_missing_arguments_are_named() -> None:
    assert text_of(lambda: Learn()) == (  # type: ignore[call-arg]
        "'Learn' needs 'examples', which the call does not give. Add what is missing."
    )


def test_outputs_cannot_be_given() -> None:
    assert text_of(lambda: Ingest(examples=Examples("/x"))).startswith(  # type: ignore[call-arg]
        "'Ingest' has no parameter 'examples'"
    )


@pytest.mark.parametrize("name", ["a b", "-a", "a/b", "é", "a\n"])
def test_names_are_letters_digits_and_marks(name: str) -> None:
    assert text_of(lambda: Ingest(name=name)) == (
        f"Component name {name!r} cannot be used: names begin with a letter or digit "
        "and have only letters, digits, '_', '-' and '.'. Rename the component."
    )


def test_the_name_is_the_class_name_unless_given() -> None:
    assert Ingest().name == "Ingest"
    assert Ingest(name="trips").name == "trips"


def test_options_are_options() -> None:
    assert text_of(lambda: Ingest(options=3)) == (  # type: ignore[arg-type]
        "Ingest.options takes Options, got 3 (int). Pass a value of that kind."
    )


@pytest.mark.parametrize("limit", [0, -1, True, "60"])
def test_a_timeout_is_a_length_of_time(limit: Any) -> None:
    assert text_of(lambda: Options(timeout_seconds=limit)) == (
        f"Options.timeout_seconds is {limit!r}, which is no length of time. Pass a "
        "number of seconds greater than 0, or None for no limit."
    )


def test_after_takes_components() -> None:
    first = Ingest(name="first")
    assert Ingest(after=(first,)).after == (first,)
    assert Ingest(after=[first]).after == (first,)  # type: ignore[arg-type]
    assert text_of(lambda: Ingest(after=("first",))) == (  # type: ignore[arg-type]
        "Ingest.after takes components, got 'first' (str). Pass a value of that kind."
    )


def test_one_component_without_a_tuple_is_not_after() -> None:
    first = Ingest(name="first")
    assert text_of(lambda: Ingest(after=first)) == (  # type: ignore[arg-type]
        "Ingest.after takes a tuple of components, got Ingest(name='first') (Ingest). "
        "Pass a value of that kind."
    )


# Inputs --------------------------------------------------------------------------


def test_an_input_of_another_type_is_refused() -> None:
    learn = Learn(examples=Examples("/x"))
    assert text_of(lambda: Learn(examples=learn.statistics)) == (  # type: ignore[arg-type]
        "Learn.examples takes Examples, got ExampleStatistics from "
        "'Learn.statistics'. Wire an output of type Examples to it."
    )
    assert text_of(lambda: Learn(examples=Examples("/x"), schema=Model("/m"))) == (  # type: ignore[arg-type]
        "Learn.schema takes Schema or None, got Model. Wire an output of type Schema "
        "to it."
    )


def test_a_component_is_not_its_output() -> None:
    ingest = Ingest()
    assert text_of(lambda: Learn(examples=ingest)) == (  # type: ignore[arg-type]
        "Learn.examples takes Examples, got the component 'Ingest' itself. Pass "
        "'Ingest.examples'."
    )
    learn = Learn(examples=ingest.examples)
    assert text_of(lambda: Learn(examples=learn)) == (  # type: ignore[arg-type]
        "Learn.examples takes Examples, got the component 'Learn' itself. Pass one of "
        "its outputs."
    )


def test_a_path_is_no_artifact() -> None:
    assert text_of(lambda: Learn(examples="/data")) == (  # type: ignore[arg-type]
        "Learn.examples takes Examples, got '/data' (str). Pass a value of that kind."
    )
    assert text_of(lambda: Learn(examples=None)) == (  # type: ignore[arg-type]
        "Learn.examples takes Examples, got None (NoneType). Pass a value of that kind."
    )


def test_a_field_of_many_takes_lists_and_tuples() -> None:
    one, two = Examples("/1"), Examples("/2")
    assert Learn(examples=one, more=(one, two)).more == (one, two)
    listed: Any = [one, two]
    assert Learn(examples=one, more=listed).inputs["more"] == (one, two)
    alone: Any = one
    assert Learn(examples=one, more=alone).more == (one,)
    assert text_of(lambda: Learn(examples=one, more=(one, Model("/m")))) == (  # type: ignore[arg-type]
        "Learn.more takes Examples, got Model. Wire an output of type Examples to it."
    )


def test_inputs_lists_what_is_wired() -> None:
    examples = Examples("/x")
    assert Learn(examples=examples).inputs == {"examples": (examples,), "more": ()}


def test_a_verdict_gates_unless_the_field_says_otherwise() -> None:
    class Reader(Component):
        blessing: ModelBlessing = field(gate=False)

    gates = {each.name: each.gate for each in declared(Learn).inputs}
    assert gates == {
        "examples": False,
        "schema": False,
        "more": False,
        "blessing": True,
    }
    assert [each.gate for each in declared(Reader).inputs] == [False]


# Parameters ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"text": 3}, "Every.text takes str, got 3 (int)."),
        ({"number": "3"}, "Every.number takes int, got '3' (str)."),
        ({"number": True}, "Every.number takes int, got True (bool)."),
        ({"number": 3.0}, "Every.number takes int, got 3.0 (float)."),
        ({"share": "x"}, "Every.share takes float, got 'x' (str)."),
        ({"share": True}, "Every.share takes float, got True (bool)."),
        ({"flag": 1}, "Every.flag takes bool, got 1 (int)."),
        ({"place": "x"}, "Every.place takes Path or None, got 'x' (str)."),
        ({"color": "r"}, "Every.color takes Color, got 'r' (str)."),
        ({"mode": "c"}, "Every.mode takes 'a' or 'b', got 'c' (str)."),
        ({"names": "ab"}, "Every.names takes tuple[str, ...], got 'ab' (str)."),
        ({"names": (1,)}, "Every.names takes tuple[str, ...], got (1,) (tuple)."),
        ({"pair": (1, 2)}, "Every.pair takes tuple[int, str] or None, got (1, 2)"),
        ({"listed": ["a"]}, "Every.listed takes list[int], got ('a',) (tuple)."),
        ({"several": ["a"]}, "Every.several takes Sequence[float], got ('a',) (tuple)"),
        ({"weights": {"a": "b"}}, "Every.weights takes Mapping[str, float], got {"),
        ({"table": 3}, "Every.table takes dict[str, Any], got 3 (int)."),
        ({"span": Color.RED}, "Every.span takes Span or None, got <Color.RED: 'r'>"),
        ({"function": 3}, "Every.function takes a function, got 3 (int)."),
        ({"text": None}, "Every.text takes str, got None (NoneType)."),
    ],
)
def test_a_value_of_a_wrong_type_is_refused(
    given: dict[str, Any], sentence: str
) -> None:
    text = text_of(lambda: Every(**given))
    assert text.startswith(sentence)
    assert text.endswith(" Pass a value of that kind.")


@pytest.mark.parametrize(
    "given",
    [
        {"share": 1},
        {"place": Path("/x")},
        {"mode": "b"},
        {"names": ["a", "b"]},
        {"pair": (1, "a")},
        {"listed": [1, 2]},
        {"several": [1, 2.5]},
        {"weights": {"a": 1}},
        {"table": {"a": [{"b": None}]}},
        {"span": Span(1, ["a"])},
        {"function": text_of},
        {"anything": b"bytes"},
    ],
)
def test_a_value_of_the_right_type_is_kept(given: dict[str, Any]) -> None:
    made = Every(**given)
    assert pickle.loads(pickle.dumps(made)).parameters == made.parameters


def test_what_cannot_be_recorded_is_refused() -> None:
    assert text_of(lambda: Every(anything=object())) == (
        "Every.anything is a object, which cannot be recorded. Pass plain data (text, "
        "numbers, paths, lists, dicts, frozen dataclasses), a proto message, or a "
        "function defined at the top level of a module."
    )
    for value in (Pair(1, 2), {1, 2}, functools.partial(measure, 1), Color):
        assert "which cannot be recorded." in text_of(
            lambda value=value: Every(anything=value)  # type: ignore[misc]
        )


def test_functions_made_inside_others_are_refused() -> None:
    def inner() -> int:
        return 1

    assert text_of(lambda: Every(function=inner)) == (
        "Every.function is 'test_functions_made_inside_others_are_refused.<locals>."
        "inner', a function made inside another one, which another process cannot "
        "find. Define it at the top level of a module."
    )
    assert "is '<lambda>'" in text_of(lambda: Every(function=_LAMBDA))


_LAMBDA = lambda: 1  # noqa: E731


def test_keys_are_text() -> None:
    assert text_of(lambda: Every(table={3: "x"})) == (  # type: ignore[dict-item]
        "Every.table has the key 3 (int). Keys are recorded as text: use strings."
    )


def test_a_dataclass_that_can_be_changed_is_refused() -> None:
    assert text_of(lambda: Every(anything={"a": [Loose(1)]})) == (
        "Every.anything is a Loose, a dataclass that can be changed after it was "
        "recorded. Declare it with frozen=True."
    )


def test_proto_messages_are_copied() -> None:
    from google.protobuf import duration_pb2

    message = duration_pb2.Duration(seconds=3)
    made = Every(anything=message)
    message.Clear()
    assert made.anything.seconds == 3


def test_parameters_are_copied_and_frozen_all_the_way() -> None:
    names: Any = ["a"]
    table: dict[str, Any] = {"x": [1, {"y": [2]}]}
    span = Span(1, ["a"])
    made = Every(names=names, table=table, span=span)
    names.append("b")
    table["x"][1]["y"].append(3)
    span.names.append("b")
    assert made.names == ("a",)
    assert made.table == {"x": (1, {"y": (2,)})}
    assert made.span is not None
    assert made.span.names == ("a",)  # type: ignore[comparison-overlap]


def test_lists_and_dicts_as_defaults_are_frozen_too() -> None:
    made = Every()
    assert made.listed == ()  # type: ignore[comparison-overlap]
    assert made.weights == {"a": 1.0}
    assert isinstance(made.table, FrozenDict)
    assert hash(made.weights) == hash(Every().weights)


def test_frozen_leaves_plain_data_as_it_is() -> None:
    values: list[Any] = [None, "a", b"a", True, 1, 0.5, Path("x"), Color.RED, measure]
    assert [frozen(each, "x") for each in values] == values


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.__setitem__("a", 1),
        lambda table: table.__delitem__("x"),
        lambda table: table.update(a=1),
        lambda table: table.pop("x"),
        lambda table: table.popitem(),
        lambda table: table.clear(),
        lambda table: table.setdefault("a", 1),
        lambda table: table.__ior__({"a": 1}),
    ],
)
def test_dicts_of_components_cannot_be_changed(change: Callable[[Any], Any]) -> None:
    made = Every(table={"x": 1})
    with pytest.raises(TypeError) as raised:
        change(made.table)
    assert str(raised.value) == (
        "A component's parameters cannot be changed. Make another component with "
        "dataclasses.replace."
    )
    assert made.table == {"x": 1}


# Values --------------------------------------------------------------------------


def test_components_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Ingest().rows = 4  # type: ignore[misc]


def test_replace_makes_another_component_with_outputs_of_its_own() -> None:
    first = Ingest(name="first")
    second = dataclasses.replace(first, rows=4)
    assert (first.rows, second.rows) == (3, 4)
    assert isinstance(second.examples.source, Promise)
    assert second.examples.source.producer is second


def test_equality_is_identity() -> None:
    assert Ingest() != Ingest()
    assert len({Ingest(), Ingest()}) == 2


def test_components_pickle_with_what_they_are_wired_to() -> None:
    ingest = Ingest(rows=4)
    learn = Learn(examples=ingest.examples, schema=Schema("/schema"))
    copied = pickle.loads(pickle.dumps(learn))
    assert copied.examples.source.producer.rows == 4
    assert copied.schema.uri == "/schema"
    assert repr(copied) == repr(learn)


def test_repr_is_one_line_of_what_is_not_default() -> None:
    ingest = Ingest(rows=4)
    assert repr(ingest) == "Ingest(rows=4)"
    assert repr(Ingest(name="trips")) == "Ingest(name='trips')"
    learn = Learn(examples=ingest.examples)
    assert repr(learn) == "Learn(examples=Examples('Ingest.examples'))"
    assert repr(Ingest()) == "Ingest()"
    assert repr(Ingest(after=(ingest,), options=Options(timeout_seconds=3))) == (
        "Ingest(options=Options(timeout_seconds=3), after=(Ingest(rows=4),))"
    )


def test_repr_of_a_message_is_one_line_too() -> None:
    from google.protobuf import duration_pb2

    made = Every(anything=duration_pb2.Duration(seconds=3, nanos=4))
    assert repr(made) == "Every(anything=seconds: 3 nanos: 4)"


def test_parameters_and_outputs_are_listed_by_name() -> None:
    learn = Learn(examples=Examples("/x"))
    assert learn.parameters == {}
    assert list(learn.outputs) == ["model", "statistics"]
    assert Ingest(rows=5).parameters == {"rows": 5}
    assert str(learn.outputs["model"].source) == "Learn.model"


def test_a_subclass_of_a_subclass_has_both_declarations() -> None:
    odd = Odd(extra=1, text="x")
    assert odd.number == 2
    assert odd.parameters["extra"] == 1
    assert set(odd.parameters) == {*Every().parameters, "extra"}
    assert list(odd.outputs) == ["model"]
    assert odd.name == "Odd"
    assert text_of(lambda: Odd(extra="x")) == (  # type: ignore[arg-type]
        "Odd.extra takes int, got 'x' (str). Pass a value of that kind."
    )


def test_class_variables_are_no_parameters() -> None:
    class Counted(Component):
        times: ClassVar[int] = 3
        rows: int = 1

    assert Counted().parameters == {"rows": 1}


def test_check_compares_parameters_at_construction() -> None:
    class Between(Component):
        low: int = 0
        high: int = 1

        def check(self) -> None:
            if self.low > self.high:
                raise PipelineError("Between.low is above high. Swap them.")

    assert Between(low=1).low == 1
    assert text_of(lambda: Between(low=2)) == "Between.low is above high. Swap them."


def test_an_output_is_annotated_with_an_artifact_type() -> None:
    class Wrong(Component):
        model: int = output()

    assert text_of(Wrong) == (
        "Output 'Wrong.model' is annotated with int, which is no artifact type. "
        "Annotate it with one class of penstock.schemas, such as Examples or Model."
    )

    class Either(Component):
        model: Model | None = output()

    assert "is annotated with Model or None, which is no artifact" in text_of(Either)


# Running by hand -----------------------------------------------------------------


def test_a_component_runs_on_folders_with_no_runner(tmp_path: Path) -> None:
    live = Ingest(rows=2).with_outputs(tmp_path)
    live.run(RunContext.local(tmp_path / "tmp"))
    assert (tmp_path / "examples" / "data").read_text() == "xx"
    assert live.examples.path == tmp_path / "examples"
    assert str(live.examples.source) == "Ingest.examples"


def test_with_outputs_leaves_the_component_as_it_was(tmp_path: Path) -> None:
    ingest = Ingest()
    ingest.with_outputs(tmp_path)
    assert ingest.examples.is_promise


def test_a_component_without_run_says_so(tmp_path: Path) -> None:
    live = Learn(examples=Examples("/x")).with_outputs(tmp_path)
    with pytest.raises(NotImplementedError) as raised:
        live.run(RunContext.local(tmp_path))
    assert str(raised.value) == (
        "'Learn' has no run method. Define run(self, context)."
    )


def test_a_context_reports_progress() -> None:
    rows: list[int] = []
    context = RunContext(run_id="r", temp_dir=Path("/tmp"), on_progress=rows.append)
    context.progress(3)
    RunContext(run_id="r", temp_dir=Path("/tmp")).progress(3)
    assert rows == [3]


def test_external_inputs_are_none_unless_declared() -> None:
    assert Ingest().external_inputs() == ()


@pytest.mark.parametrize("arguments", [(), ("--runner=DirectRunner",)])
def test_a_beam_pipeline_runs_in_this_process(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    context = RunContext.local(tmp_path, beam_args=arguments)
    pipeline = context.beam_pipeline()
    assert type(pipeline.runner).__name__ == "FnApiRunner"


def test_a_beam_pipeline_runs_where_the_options_say(tmp_path: Path) -> None:
    context = RunContext.local(
        tmp_path, beam_args=("--runner=FlinkRunner", "--parallelism=2")
    )
    pipeline = context.beam_pipeline()
    assert type(pipeline.runner).__name__ == "FlinkRunner"
    options = pipeline.options.get_all_options()
    assert options["parallelism"] == 2
    assert options["beam_plugins"] == ["penstock"]  # workers import it


def test_rows_reach_the_display_from_inside_a_beam_step(tmp_path: Path) -> None:
    shown: list[int] = []
    context = RunContext(run_id="r", temp_dir=tmp_path, on_progress=shown.append)
    live_rows = pickle.loads(pickle.dumps(context.live_rows))
    live_rows(3)
    live_rows(4)
    # A second reading with wider types shows rows again; the end puts it right.
    context.progress_in_all(5)
    assert shown == [3, 4, -2]


def test_a_step_on_another_machine_shows_no_rows(tmp_path: Path) -> None:
    shown: list[int] = []
    context = RunContext(run_id="r", temp_dir=tmp_path, on_progress=shown.append)
    live_rows = pickle.loads(pickle.dumps(context.live_rows))
    del context
    gc.collect()
    live_rows(3)
    assert shown == []
