"""Component: one frozen class that declares inputs, parameters and outputs, and runs.

The only magic in the library is here: deriving from `Component` makes a class a
frozen, keyword-only dataclass. `dataclass_transform` on the private empty base
`_Declared` tells type checkers the same; it decorates a base of `Component`, because
attributes of the very class it decorates would not count as fields.
"""

from __future__ import annotations

import builtins
import collections.abc
import copy
import dataclasses
import enum
import functools
import logging
import re
import sys
import types
import typing
import uuid
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from typing_extensions import Self, dataclass_transform

from penstock.schemas.artifacts import Artifact, ExternalArtifact, Verdict
from penstock.schemas.errors import PipelineError, did_you_mean, quoted

if TYPE_CHECKING:
    import apache_beam as beam

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class Canceled(BaseException):
    """The run was canceled while a component worked.

    Not an `Exception`, so that a component's own handlers let it pass.
    """


def output(*, init: Literal[False] = False) -> Any:
    """Declare an output of a component, typed by the field's annotation."""
    return dataclasses.field(init=init, metadata={"role": "output"})


def field(
    *, default: Any = dataclasses.MISSING, gate: bool = True, counts: bool = True
) -> Any:
    """Declare an input or a parameter with more than a default.

    Args:
        default: Its value if the caller gives none.
        gate: For a verdict, whether the component only runs if it says yes; False for
            a component that wants to read the verdict, whatever it says.
        counts: For a parameter, whether another value asks for another execution;
            False for the place of what `external_inputs` or `called_code` covers
            by content.
    """
    if isinstance(default, list | dict):
        default = frozen(default, "A default")
    metadata = {"gate": gate, "counts": counts}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Retries:
    """When a component that failed is run again, in the same execution.

    Attributes:
        times: How often at most.
        on: The exceptions after which it is, with all that derive from them.
        backoff_seconds: How long to wait before the first time; twice as long before
            each further one.
    """

    times: int
    on: tuple[type[Exception], ...]
    backoff_seconds: float = 1.0

    def __post_init__(self) -> None:
        on = tuple(self.on) if isinstance(self.on, list | tuple) else (self.on,)
        object.__setattr__(self, "on", on)
        for kind in on:
            if not isinstance(kind, type) or not issubclass(kind, Exception):
                raise PipelineError(
                    f"Retries.on has {kind!r}, which no component fails with. Name "
                    "classes of exceptions, such as ConnectionError."
                )
        if not on:
            raise PipelineError(
                "Retries.on names no exception, so that nothing is ever run again. "
                "Name classes of exceptions, such as ConnectionError."
            )
        if isinstance(self.times, bool) or not isinstance(self.times, int):
            raise PipelineError(
                f"Retries.times is {self.times!r}. Pass a whole number of at least 1."
            )
        if self.times < 1:
            raise PipelineError(
                f"Retries.times is {self.times}, so that nothing is ever run again. "
                "Pass a whole number of at least 1, or leave retries out."
            )
        _check_seconds("Retries.backoff_seconds", self.backoff_seconds, least=0)


@dataclasses.dataclass(frozen=True, repr=False)
class Options:
    """How a component is run, whatever it does.

    Attributes:
        cache: Whether outputs of an earlier execution with the same fingerprint are
            taken instead of running it again.
        cache_ttl_seconds: How old such outputs may be; None for any age.
        cache_salt: Text that counts as a part of the fingerprint: change it, and
            nothing from before is taken.
        retries: When to run it again after a failure; None for never.
        timeout_seconds: Stop the component and fail it after this many seconds; it
            then runs in a process of its own. None for no limit.
    """

    cache: bool = True
    cache_ttl_seconds: float | None = None
    cache_salt: str = ""
    retries: Retries | None = None
    timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        for name, kind, takes in (
            ("cache", bool, "True or False"),
            ("cache_salt", str, "text"),
            ("retries", Retries | None, "Retries or None"),
        ):
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise PipelineError(
                    f"Options.{name} takes {takes}, got {value!r} "
                    f"({type(value).__name__}). Pass a value of that kind."
                )
        for name in ("cache_ttl_seconds", "timeout_seconds"):
            if getattr(self, name) is not None:
                _check_seconds(f"Options.{name}", getattr(self, name), or_none=True)

    def __repr__(self) -> str:
        given = [
            f"{each.name}={getattr(self, each.name)!r}"
            for each in dataclasses.fields(self)
            if getattr(self, each.name) != each.default
        ]
        return f"Options({', '.join(given)})"


def _check_seconds(
    subject: str, value: Any, *, least: float | None = None, or_none: bool = False
) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and (value > 0 if least is None else value >= least):
        return
    which = "greater than 0" if least is None else f"of at least {least:g}"
    raise PipelineError(
        f"{subject} is {value!r}, which is no length of time. Pass a number of seconds "
        f"{which}{', or None for no limit' if or_none else ''}."
    )


@dataclasses.dataclass(frozen=True)
class Promise:
    """The output of a component that has still to run."""

    producer: Component
    key: str

    def __str__(self) -> str:
        return f"{self.producer.name}.{self.key}"


class FrozenDict(dict[str, Any]):
    """A dict that cannot be changed: how components keep dict parameters."""

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            "A component's parameters cannot be changed. Make another component with "
            "dataclasses.replace."
        )

    __setitem__ = __delitem__ = _refuse
    clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> Any:
        return FrozenDict, (dict(self),)

    def __deepcopy__(self, memo: Any) -> Self:
        return self


class RunContext:
    """All that a component's `run` may use beside its own fields.

    Args:
        run_id: Id of the run.
        temp_dir: A folder that exists, is the component's own, and is removed when it
            is done.
        beam_args: Beam options as on a command line (`--runner=FlinkRunner`).
        external_inputs: What the component's `external_inputs()` found before the run.
        on_progress: Called with the number of rows handled since the last call.

    Attributes:
        logger: Where to say what happens; kept with the execution.
        live_rows: Adds rows to the live display from inside a Beam step.
    """

    def __init__(
        self,
        *,
        run_id: str,
        temp_dir: Path,
        beam_args: tuple[str, ...] = (),
        external_inputs: tuple[ExternalArtifact, ...] = (),
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        self.run_id = run_id
        self.temp_dir = temp_dir
        self.beam_args = beam_args
        self.external_inputs = external_inputs
        self.logger = logging.getLogger("penstock")
        self.live_rows = LiveRows(uuid.uuid4().hex)
        self._on_progress = on_progress
        self._rows = 0
        _contexts[self.live_rows.key] = self

    @classmethod
    def local(cls, temp_dir: Path, *, beam_args: tuple[str, ...] = ()) -> Self:
        """Return a context to run a component in, with no runner and no store."""
        temp_dir.mkdir(parents=True, exist_ok=True)
        return cls(run_id="local", temp_dir=temp_dir, beam_args=beam_args)

    @property
    def is_local(self) -> bool:
        """Whether Beam pipelines run in this process, because no options are given."""
        return not self.beam_args

    def beam_pipeline(self) -> beam.Pipeline:
        """Return a Beam pipeline to use in a `with` statement.

        Without a `--runner` among the Beam options, or with DirectRunner, it runs in
        this process. The in-process runner is chosen explicitly: left alone, newer
        Beams look for a Prism binary to download.

        Raises:
            PipelineError: If the options name a job server that cannot be reached.
        """
        import apache_beam as beam
        from apache_beam.options.pipeline_options import (
            PipelineOptions,
            PortableOptions,
            StandardOptions,
        )
        from apache_beam.runners.portability.fn_api_runner import FnApiRunner

        show_nothing_of_beam()
        options = PipelineOptions(list(self.beam_args))
        runner = options.view_as(StandardOptions).runner
        if runner in (None, "DirectRunner"):
            return beam.Pipeline(runner=FnApiRunner(), options=options)
        from penstock.components.remote import RemotePipeline, check_job_server

        check_job_server(options.view_as(PortableOptions).job_endpoint)
        return RemotePipeline(options)

    def progress(self, rows: int) -> None:
        """Add rows to the live display.

        Raises:
            Canceled: If the run was canceled.
        """
        self._rows += rows
        if self._on_progress is not None:
            self._on_progress(rows)

    def progress_in_all(self, rows: int) -> None:
        """Say how many rows were handled in all, whatever was shown before.

        Raises:
            Canceled: If the run was canceled.
        """
        self.progress(rows - self._rows)


_contexts: weakref.WeakValueDictionary[str, RunContext] = weakref.WeakValueDictionary()


@dataclasses.dataclass(frozen=True)
class LiveRows:
    """Adds rows to the live display of the process that the component runs in.

    It can be pickled into a Beam step. A step that runs on another machine says
    nothing; `RunContext.progress_in_all` puts the number right in the end.
    """

    key: str

    def __call__(self, rows: int) -> None:
        """Add rows.

        Raises:
            Canceled: If the run was canceled.
        """
        context = _contexts.get(self.key)
        if context is not None:
            context.progress(rows)


def show_nothing_of_beam() -> None:
    """Keep Beam from showing scripts in a notebook, which load from the network.

    It does so once, when the first transform is applied in the notebook's process.
    """
    from apache_beam.utils.interactive_utils import is_in_notebook

    if is_in_notebook():
        from apache_beam.runners.interactive import interactive_environment
        from IPython.utils.capture import capture_output

        with capture_output(stdout=False, stderr=False):
            interactive_environment.current_env()


def _name_wrong_arguments(cls: type) -> None:
    """Let a component's constructor say which argument is wrong, in a sentence."""
    fields = [each for each in dataclasses.fields(cls) if each.init]
    legal = [each.name for each in fields]
    required = [
        each.name
        for each in fields
        if each.default is dataclasses.MISSING
        and each.default_factory is dataclasses.MISSING
    ]
    made = cls.__init__  # type: ignore[misc]

    @functools.wraps(made)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        if args:
            raise PipelineError(
                f"'{cls.__name__}' takes no positional arguments, got {len(args)}. "
                f"Name each one: {cls.__name__}({legal[-1]}=...)."
            )
        for name in kwargs:
            if name not in legal:
                raise PipelineError(
                    f"'{cls.__name__}' has no parameter '{name}' (it has "
                    f"{quoted(legal)}).{did_you_mean(name, legal)}"
                )
        missing = [name for name in required if name not in kwargs]
        if missing:
            raise PipelineError(
                f"'{cls.__name__}' needs {quoted(missing)}, which the call does not "
                "give. Add what is missing."
            )
        made(self, **kwargs)

    cls.__init__ = checked  # type: ignore[misc]


@dataclass_transform(
    kw_only_default=True,
    frozen_default=True,
    eq_default=False,
    field_specifiers=(output, field),
)
class _Declared:
    """The base that makes subclasses frozen, keyword-only dataclasses."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in vars(cls).get("__annotations__", {}):
            default = vars(cls).get(name)
            if isinstance(default, list | dict):
                # Shared by all instances, which dataclasses refuse unless frozen.
                setattr(cls, name, frozen(default, f"{cls.__name__}.{name}"))
        dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)(cls)
        _name_wrong_arguments(cls)


class Component(_Declared):
    """A step of work that reads artifacts and writes artifacts.

    Derive from it, declare inputs (fields typed by artifact classes), parameters
    (plain data) and outputs (`output()`), and write `run`. Constructing a component
    stores and checks values and does nothing else.

    Attributes:
        name: Its name in the pipeline; the class's name unless given.
        options: How it is run.
        after: Components that must have run before, though it reads nothing of them.
        isolated: Whether it runs in a process of its own.
        LIBRARIES: The libraries whose versions change what it writes, by the names
            they are installed by.
        EXECUTION_TYPE: Name of its execution type in ML Metadata; the path of the
            class unless given.
        BASE_TYPE: ML Metadata's system type of its executions, if any.
    """

    name: str = ""
    options: Options = Options()
    after: tuple[Component, ...] = ()

    isolated: ClassVar[bool] = False
    LIBRARIES: ClassVar[tuple[str, ...]] = ()
    EXECUTION_TYPE: ClassVar[str] = ""
    BASE_TYPE: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        self._set("name", self.name or type(self).__name__)
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise PipelineError(
                f"Component name {self.name!r} cannot be used: names begin with a "
                "letter or digit and have only letters, digits, '_', '-' and '.'. "
                "Rename the component."
            )
        if not isinstance(self.options, Options):
            raise _wrong_type(self, "options", "Options", self.options)
        if not isinstance(self.after, list | tuple):
            raise _wrong_type(self, "after", "a tuple of components", self.after)
        self._set("after", tuple(self.after))
        for item in self.after:
            if not isinstance(item, Component):
                raise _wrong_type(self, "after", "components", item)
        declaration = declared(type(self))
        for given in declaration.inputs:
            self._set(given.name, given.checked(self, getattr(self, given.name)))
        for name, annotation in declaration.parameters.items():
            value = frozen(getattr(self, name), f"{self.name}.{name}")
            if not _accepts(annotation, value):
                raise _wrong_type(self, name, _readable(annotation), value)
            self._set(name, value)
        for key, kind in declaration.outputs.items():
            self._set(key, kind(source=Promise(self, key)))
        self.check()

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # the way into a frozen dataclass

    def check(self) -> None:
        """Check parameters against one another; override where there is a rule.

        Raises:
            PipelineError: If they do not go together.
        """

    def external_inputs(self) -> tuple[ExternalArtifact, ...]:
        """Find what `run` will read from outside the pipeline.

        The files that parameters name as a `Path`, alone or in lists, unless they are
        declared with `field(counts=False)`. Override it if `run` reads anything else,
        such as a folder: `return (ExternalArtifact.of(self.folder),)`.

        Called before `run`, so that even a failed execution records what it read, and
        so that other contents ask for another execution.

        Returns:
            One artifact per file, folder or pattern, with the digest of its bytes.
        """
        declaration = declared(type(self))
        named = (
            each
            for name, value in self.parameters.items()
            if declaration.counts(name)
            for each in (value if isinstance(value, tuple) else (value,))
            if isinstance(each, Path)
        )
        files = dict.fromkeys(each for each in named if each.is_file())
        return tuple(map(ExternalArtifact.of, files))

    def called_code(self) -> tuple[tuple[Path | str, str], ...]:
        """Say what code `run` calls by a name or a path; override if it does.

        Code that is imported, and functions among the parameters, need not be listed.

        Returns:
            Files, or names of modules, each with the name of what is called in it.
        """
        return ()

    def why_stale(self) -> str:
        """Say why outputs of an earlier execution no longer stand; override if so.

        Called on a component whose outputs are those of an earlier execution with the
        same fingerprint, whose bytes are still there.

        Returns:
            What is wrong, to follow "because"; the empty string if nothing is.
        """
        return ""

    def run(self, context: RunContext) -> None:
        """Read the inputs, write the outputs.

        Inputs and outputs are folders that exist. Properties set on outputs are
        recorded when `run` returns; if it raises, the outputs are removed.
        """
        raise NotImplementedError(
            f"'{type(self).__name__}' has no run method. Define run(self, context)."
        )

    def __repr__(self) -> str:
        parts = [
            f"{each.name}={_in_one_line(getattr(self, each.name))}"
            for each in dataclasses.fields(self)
            if each.init
            and getattr(self, each.name) != each.default
            and (each.name, self.name) != ("name", type(self).__name__)
        ]
        return f"{type(self).__name__}({', '.join(parts)})"

    @property
    def parameters(self) -> dict[str, Any]:
        """The values of the parameters, by name."""
        return {name: getattr(self, name) for name in declared(type(self)).parameters}

    @property
    def inputs(self) -> dict[str, tuple[Artifact, ...]]:
        """The artifacts of every input that has any, by name."""
        found: dict[str, tuple[Artifact, ...]] = {}
        for each in declared(type(self)).inputs:
            value = getattr(self, each.name)
            if value is not None:
                found[each.name] = value if isinstance(value, tuple) else (value,)
        return found

    @property
    def outputs(self) -> dict[str, Artifact]:
        """The output artifacts, by name."""
        return {key: getattr(self, key) for key in declared(type(self)).outputs}

    def bound(self, inputs: Mapping[str, Any], outputs: Mapping[str, Artifact]) -> Self:
        """Return a copy whose inputs and outputs are facts."""
        live = copy.copy(self)
        for name, value in (*inputs.items(), *outputs.items()):
            live._set(name, value)
        return live

    def with_outputs(self, folder: Path) -> Self:
        """Return a copy that writes below a folder, for calling `run` by hand.

        Args:
            folder: Where the output folders are made, named by their keys.
        """
        outputs = {}
        for key, kind in declared(type(self)).outputs.items():
            (folder / key).mkdir(parents=True, exist_ok=True)
            outputs[key] = kind(folder / key, source=Promise(self, key))
        return self.bound({}, outputs)


@dataclasses.dataclass(frozen=True)
class Input:
    """An input field of a component class.

    Attributes:
        name: The field's name.
        kind: The artifact type it takes.
        optional: Whether it may be None.
        many: Whether it takes a tuple of artifacts.
        gate: Whether a verdict wired here decides if the component runs.
    """

    name: str
    kind: type[Artifact]
    optional: bool
    many: bool
    gate: bool

    def checked(self, component: Component, value: Any) -> Any:
        """Return the value as the field keeps it.

        Raises:
            PipelineError: If it is not what the field takes.
        """
        if value is None and self.optional:
            return None
        if self.many and isinstance(value, list | tuple):
            return tuple(self._one(component, item) for item in value)
        one = self._one(component, value)
        # `reference=train.examples` is a tuple of one.
        return (one,) if self.many else one

    def _one(self, component: Component, value: Any) -> Artifact:
        if isinstance(value, self.kind):
            return value
        takes = self.kind.TYPE_NAME + (" or None" if self.optional else "")
        if isinstance(value, Artifact):
            origin = f" from '{value.source}'" if value.source else ""
            raise PipelineError(
                f"{component.name}.{self.name} takes {takes}, got "
                f"{value.TYPE_NAME}{origin}. Wire an output of type "
                f"{self.kind.TYPE_NAME} to it."
            )
        if isinstance(value, Component):
            fitting = [
                f"'{value.name}.{key}'"
                for key, made in value.outputs.items()
                if isinstance(made, self.kind)
            ]
            cure = f"Pass {fitting[0]}." if fitting else "Pass one of its outputs."
            raise PipelineError(
                f"{component.name}.{self.name} takes {takes}, got the component "
                f"'{value.name}' itself. {cure}"
            )
        raise _wrong_type(component, self.name, takes, value)


@dataclasses.dataclass(frozen=True)
class Declaration:
    """What a component class declares, read from its annotations."""

    inputs: tuple[Input, ...]
    parameters: Mapping[str, Any]
    outputs: Mapping[str, type[Artifact]]
    asides: frozenset[str]

    def counts(self, parameter: str) -> bool:
        """Return whether another value of a parameter asks for another execution."""
        return parameter not in self.asides


_declarations: dict[type, Declaration] = {}


def declared(cls: type[Component]) -> Declaration:
    """Return the inputs, parameters and outputs that a component class declares.

    Raises:
        PipelineError: If an output is not annotated with an artifact type.
    """
    if cls in _declarations:
        return _declarations[cls]
    inputs: list[Input] = []
    parameters: dict[str, Any] = {}
    outputs: dict[str, type[Artifact]] = {}
    asides: set[str] = set()
    reserved = {"name", "options", "after"}
    for each in dataclasses.fields(cls):
        if each.name in reserved:
            continue
        annotation = _evaluated(cls, each.name)
        kinds, optional, many = _artifact_types(annotation)
        if each.metadata.get("role") == "output":
            if len(kinds) != 1 or optional or many:
                raise PipelineError(
                    f"Output '{cls.__name__}.{each.name}' is annotated with "
                    f"{_readable(annotation)}, which is no artifact type. Annotate it "
                    "with one class of penstock.schemas, such as Examples or Model."
                )
            outputs[each.name] = kinds[0]
        elif kinds:
            gate = bool(each.metadata.get("gate", True))
            inputs.append(
                Input(
                    each.name,
                    kinds[0],
                    optional,
                    many,
                    gate and issubclass(kinds[0], Verdict),
                )
            )
        else:
            parameters[each.name] = annotation
            if not each.metadata.get("counts", True):
                asides.add(each.name)
    _declarations[cls] = Declaration(
        tuple(inputs), parameters, outputs, frozenset(asides)
    )
    return _declarations[cls]


class _Names(dict[str, Any]):
    """The names that annotations of a class may use.

    A name that is imported for type checkers only stands for anything.
    """

    def __init__(self, owner: type) -> None:
        super().__init__(vars(sys.modules[owner.__module__]))

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, Any)


def _evaluated(cls: type, name: str) -> Any:
    owner = next(
        base for base in cls.__mro__ if name in vars(base).get("__annotations__", {})
    )
    annotation = owner.__annotations__[name]
    if isinstance(annotation, str):
        # Our own source text, evaluated as typing.get_type_hints would, but one field
        # at a time and with names known only to type checkers let through.
        return eval(annotation, {}, _Names(owner))
    return annotation


def _artifact_types(annotation: Any) -> tuple[list[type[Artifact]], bool, bool]:
    """Return the artifact types of an annotation, if it takes None, and many."""
    if isinstance(annotation, type) and issubclass(annotation, Artifact):
        return [annotation], False, False
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        kinds: list[type[Artifact]] = []
        many = False
        for arg in args:
            inner, _, inner_many = _artifact_types(arg)
            kinds += inner
            many = many or inner_many
        return kinds, type(None) in args, many
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        return _artifact_types(args[0])[0], False, True
    return [], False, False


def _readable(annotation: Any) -> str:
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return "None" if annotation is type(None) else annotation.__name__
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_readable(arg) for arg in args)
    if origin is Literal:
        return " or ".join(repr(arg) for arg in args)
    if origin is collections.abc.Callable:
        return "a function"
    return str(annotation).replace("typing.", "").replace("collections.abc.", "")


def _in_one_line(value: object) -> str:
    text = repr(value)
    return " ".join(text.split()) if "\n" in text else text  # as of proto messages


def _wrong_type(
    component: Component, name: str, takes: str, value: object
) -> PipelineError:
    return PipelineError(
        f"{component.name}.{name} takes {takes}, got {value!r} "
        f"({type(value).__name__.replace('FrozenDict', 'dict')}). Pass a value of that "
        "kind."
    )


def frozen(value: Any, subject: str) -> Any:
    """Return plain data in a form that cannot be changed.

    Args:
        value: Data of str, bytes, int, float, bool, Path, enums, None, lists, tuples,
            string-keyed dicts and frozen dataclasses; a proto message; or a function
            defined at the top level of a module.
        subject: What the value is, for the text of an error.

    Returns:
        The value, with lists as tuples and dicts as `FrozenDict`, copied all the way.

    Raises:
        PipelineError: If it is anything else: it could not be recorded or hashed.
    """
    if value is None or isinstance(
        value, str | bytes | bool | int | float | Path | enum.Enum
    ):
        return value
    if isinstance(value, list | tuple):
        items = [frozen(item, subject) for item in value]
        if hasattr(value, "_fields"):
            raise _not_data(value, subject)
        return tuple(items)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise PipelineError(
                    f"{subject} has the key {key!r} ({type(key).__name__}). Keys are "
                    "recorded as text: use strings."
                )
        return FrozenDict({key: frozen(each, subject) for key, each in value.items()})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if not value.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            raise PipelineError(
                f"{subject} is a {type(value).__name__}, a dataclass that can be "
                "changed after it was recorded. Declare it with frozen=True."
            )
        changed = {
            each.name: frozen(getattr(value, each.name), f"{subject}.{each.name}")
            for each in dataclasses.fields(value)
            if each.init
        }
        return dataclasses.replace(value, **changed)
    if hasattr(value, "SerializeToString") and hasattr(value, "DESCRIPTOR"):
        return copy.deepcopy(value)
    if isinstance(value, types.FunctionType):
        if "<" in value.__qualname__:
            raise PipelineError(
                f"{subject} is '{value.__qualname__}', a function made inside another "
                "one, which another process cannot find. Define it at the top level "
                "of a module."
            )
        return value
    raise _not_data(value, subject)


def _not_data(value: object, subject: str) -> PipelineError:
    return PipelineError(
        f"{subject} is a {type(value).__name__}, which cannot be recorded. Pass plain "
        "data (text, numbers, paths, lists, dicts, frozen dataclasses), a proto "
        "message, or a function defined at the top level of a module."
    )


def _accepts(annotation: Any, value: Any) -> bool:
    """Return whether a frozen value is what an annotation says."""
    if annotation is Any:
        return True
    if annotation is None or annotation is type(None):
        return value is None
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_accepts(arg, value) for arg in args)
    if origin is Literal:
        return any(value == arg and type(value) is type(arg) for arg in args)
    if origin is collections.abc.Callable or annotation is Callable:
        return callable(value)
    if origin is tuple and args and args[-1] is not Ellipsis:
        return (
            isinstance(value, tuple)
            and len(value) == len(args)
            and all(map(_accepts, args, value))
        )
    if origin is not None and isinstance(origin, type):
        if issubclass(origin, collections.abc.Mapping):
            kind = args[1] if args else Any
            return isinstance(value, Mapping) and all(
                _accepts(kind, each) for each in value.values()
            )
        if issubclass(origin, collections.abc.Sequence):
            kind = args[0] if args else Any
            return isinstance(value, tuple) and all(
                _accepts(kind, each) for each in value
            )
        return isinstance(value, origin)
    if isinstance(annotation, type):
        if annotation is float:
            return isinstance(value, int | float) and not isinstance(value, bool)
        if annotation is int:
            return isinstance(value, int) and not isinstance(value, bool)
        if annotation is list:
            return isinstance(value, tuple)
        return isinstance(value, annotation)
    return True
