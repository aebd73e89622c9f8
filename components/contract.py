"""The contract of components: checks that each one passes, ours and a user's.

Call `check_component` in one test, or parametrize a test over `CHECKS`:

    @pytest.mark.parametrize("check", contract.CHECKS, ids=contract.name)
    def test_count_values(check, subject):
        check(subject)
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock.components.base import Component, RunContext, declared
from penstock.schemas.digests import folder_manifest, manifest_digest
from penstock.schemas.errors import PipelineError

HEAVY = (
    "apache_beam",
    "keras",
    "ml_metadata",
    "numpy",
    "pandas",
    "pyarrow",
    "scipy",
    "sklearn",
    "tensorflow",
    "tensorflow_data_validation",
    "tensorflow_model_analysis",
    "tf_keras",
    "tfx_bsl",
    "torch",
)
"""What declaring a pipeline must not import; components import it in `run`."""


@dataclasses.dataclass(frozen=True)
class Observed:
    """What one run of a component did.

    Attributes:
        digests: Digest of every output folder, by output name.
        properties: Names of the properties it set, by output name.
        strays: Paths outside of its outputs and temporary folder that it wrote.
    """

    digests: dict[str, str]
    properties: dict[str, tuple[str, ...]]
    strays: tuple[str, ...]


class Subject:
    """A component that is held to the contract.

    Args:
        example: The component, its inputs artifacts on disk, ready to run.
        folder: An empty folder to run it in.
        may_write: What else it is there to write, such as a serving directory.
        is_repeatable: Whether two runs write the same bytes.
    """

    def __init__(
        self,
        example: Component,
        folder: Path,
        *,
        may_write: Sequence[Path] = (),
        is_repeatable: bool = True,
    ) -> None:
        self.example = example
        self.folder = folder
        self.may_write = tuple(may_write)
        self.is_repeatable = is_repeatable

    @functools.cached_property
    def runs(self) -> tuple[Observed, Observed]:
        """What two runs of the component did."""
        return self._observed("first"), self._observed("second")

    @functools.cached_property
    def read(self) -> dict[Path, dict[str, tuple[str, int]]]:
        """The contents of all that the component is given to read, before any run."""
        return {path: contents(path) for path in self._given()}

    def _given(self) -> Iterator[Path]:
        for artifacts in self.example.inputs.values():
            for artifact in artifacts:
                yield artifact.path
        for value in self.example.parameters.values():
            if isinstance(value, Path) or (isinstance(value, str) and os.sep in value):
                path = Path(value).absolute()
                if path.exists() and path not in self.may_write:
                    yield path

    def _observed(self, name: str) -> Observed:
        assert self.read is not None  # looked at before the first run
        folder = self.folder.absolute() / name
        outputs, temp_dir, working = folder / "outputs", folder / "temp", folder / "cwd"
        working.mkdir(parents=True)
        live = self.example.with_outputs(outputs)
        allowed = (outputs, temp_dir, *(path.absolute() for path in self.may_write))
        temp_dir.mkdir()
        with _working_in(working, temp_dir), _writes() as written:
            context = RunContext(
                run_id="contract",
                temp_dir=temp_dir,
                external_inputs=live.external_inputs(),
            )
            live.run(context)
        left = {str(path) for path in working.rglob("*")}
        strays = {
            path
            for path in written
            if not any(Path(path).is_relative_to(each) for each in allowed)
        }
        return Observed(
            digests={
                key: manifest_digest(folder_manifest(made.path))
                for key, made in live.outputs.items()
            },
            properties={
                key: tuple(sorted(made.properties))
                for key, made in live.outputs.items()
            },
            strays=tuple(sorted(strays | left)),
        )


def contents(path: Path) -> dict[str, tuple[str, int]]:
    """Return what a file or a folder holds, as `folder_manifest` says it."""
    if path.is_dir():
        return folder_manifest(path)
    found = folder_manifest(path.parent)
    return {path.name: found[path.name]}


@contextmanager
def _working_in(folder: Path, temp_dir: Path) -> Iterator[None]:
    """Work in a folder, with temporary files of libraries in another."""
    before, temporary = Path.cwd(), tempfile.tempdir
    os.chdir(folder)
    tempfile.tempdir = str(temp_dir)
    try:
        yield
    finally:
        tempfile.tempdir = temporary
        os.chdir(before)


# Where writes are noted while somebody watches: Python's audit hooks stay for ever.
_watching: list[set[str]] = []
# By event, of each path that changes: its place among the arguments, and that of the
# descriptor of the folder that it is below, as shutil.rmtree gives it.
_CHANGES: dict[str, tuple[tuple[int, int | None], ...]] = {
    "os.link": ((1, 3),),
    "os.mkdir": ((0, 2),),
    "os.remove": ((0, 1),),
    "os.rename": ((0, 2), (1, 3)),
    "os.rmdir": ((0, 1),),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
}


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            _note_path(path, None)
    elif event in _CHANGES:
        for path, folder in _CHANGES[event]:
            _note_path(arguments[path], None if folder is None else arguments[folder])


def _note_path(path: Any, folder: int | None) -> None:
    if not isinstance(path, str | bytes | os.PathLike):
        return  # a descriptor, whose opening was noted
    text = os.fsdecode(path)
    if not os.path.isabs(text) and folder is not None and folder >= 0:
        text = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), text)
    text = os.path.abspath(text)
    # Python's own: compiled modules, and devices.
    if "__pycache__" not in text and not text.startswith(("/dev/", "/proc/")):
        _watching[-1].add(text)


@functools.cache
def _hooked() -> None:
    sys.addaudithook(_note)


@contextmanager
def _writes() -> Iterator[set[str]]:
    """Note every path that Python code of this process writes meanwhile."""
    _hooked()
    written: set[str] = set()
    _watching.append(written)
    try:
        yield written
    finally:
        _watching.remove(written)


def _require(is_kept: bool, text: str) -> None:
    if not is_kept:
        raise AssertionError(text)


def _class_of(subject: Subject) -> str:
    return type(subject.example).__name__


# The checks ----------------------------------------------------------------------


def says_what_it_does(subject: Subject) -> None:
    """The docstring says what it reads and writes, and has an example."""
    text = type(subject.example).__doc__ or ""
    name = _class_of(subject)
    for word, pattern in (("reads", r"\bread"), ("writes", r"\bwrit")):
        _require(
            re.search(pattern, text, re.IGNORECASE) is not None,
            f"The docstring of '{name}' does not say what it {word}. Add a sentence.",
        )
    _, section, example = text.partition("Example:")
    _require(
        bool(section) and f"{name}(" in example,
        f"The docstring of '{name}' has no section 'Example:' that makes one. Add "
        "three lines.",
    )


def is_declared(subject: Subject) -> None:
    """Every output is annotated with an artifact type, and is a promise."""
    outputs = declared(type(subject.example)).outputs
    for key in outputs:
        made = getattr(subject.example, key)
        _require(
            made.is_promise and str(made.source) == f"{subject.example.name}.{key}",
            f"{subject.example.name}.{key} is {made!r} before any run. Leave outputs "
            "to the base class.",
        )


def imports_nothing_heavy(subject: Subject) -> None:
    """Importing the class loads none of the heavy libraries."""
    module = sys.modules[type(subject.example).__module__]
    code = (
        "import importlib, importlib.util, os, sys\n"
        "name, path, *heavy = sys.argv[1:]\n"
        "try:\n"
        "    found = importlib.util.find_spec(name)\n"
        "except ModuleNotFoundError:\n"
        "    found = None\n"
        "if found is not None and os.path.samefile(found.origin, path):\n"
        "    importlib.import_module(name)\n"
        "else:\n"
        "    spec = importlib.util.spec_from_file_location(name, path)\n"
        "    module = importlib.util.module_from_spec(spec)\n"
        "    sys.modules[name] = module\n"
        "    spec.loader.exec_module(module)\n"
        "print(*(set(heavy) & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, module.__name__, str(module.__file__), *HEAVY],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = ", ".join(sorted(done.stdout.split()))
    _require(
        not loaded,
        f"Importing '{_class_of(subject)}' imports {loaded}. Import it inside the "
        "functions that use it.",
    )


def constructs_without_effect(subject: Subject) -> None:
    """Constructing stores and checks, and writes nothing."""
    with _writes() as written:
        again = dataclasses.replace(subject.example)
    _require(
        not written,
        f"Constructing '{_class_of(subject)}' writes {', '.join(sorted(written))}. "
        "Leave that to run.",
    )
    _require(
        again.parameters == subject.example.parameters
        and repr(again) == repr(subject.example),
        f"Two '{_class_of(subject)}' made alike differ: {subject.example!r} and "
        f"{again!r}.",
    )


def is_frozen(subject: Subject) -> None:
    """No field can be changed."""
    for each in dataclasses.fields(subject.example):
        try:
            setattr(subject.example, each.name, None)
        except dataclasses.FrozenInstanceError:
            continue
        raise AssertionError(
            f"{subject.example.name}.{each.name} can be changed. Do not define "
            "__setattr__."
        )


def pickles(subject: Subject) -> None:
    """It can be carried to another process."""
    copied = pickle.loads(pickle.dumps(subject.example))
    _require(
        copied.parameters == subject.example.parameters
        and repr(copied) == repr(subject.example),
        f"'{_class_of(subject)}' changes when pickled: {subject.example!r} becomes "
        f"{copied!r}.",
    )


def has_a_short_repr(subject: Subject) -> None:
    """Its repr is one line that begins with the class."""
    text = repr(subject.example)
    _require(
        "\n" not in text and text.startswith(f"{_class_of(subject)}("),
        f"repr of '{_class_of(subject)}' is not one line: {text!r}.",
    )


def refuses_wrong_values(subject: Subject) -> None:
    """A value of a wrong kind is refused, by the name of the parameter."""
    example = subject.example
    for name in (*example.parameters, *example.inputs):
        wrong: dict[str, Any] = {name: object()}
        text = _refusal(functools.partial(dataclasses.replace, example, **wrong))
        _require(
            text.startswith(f"{example.name}.{name} "),
            f"{example.name}.{name} = object() is not refused by a sentence that "
            f"begins with '{example.name}.{name}', but by {text!r}.",
        )


def offers_near_misses(subject: Subject) -> None:
    """A misspelt parameter is refused, and the right one offered."""
    kind: Any = type(subject.example)
    for each in dataclasses.fields(kind):
        if each.init and len(each.name) > 3:
            wrong = each.name[:-2] + each.name[-1] + each.name[-2] + "_"
            text = _refusal(functools.partial(kind, **{wrong: 1}))
            _require(
                f"'{wrong}'" in text and "Did you mean '" in text,
                f"{_class_of(subject)}({wrong}=1) is refused without a near miss: "
                f"{text!r}.",
            )


def _refusal(make: Callable[[], object]) -> str:
    try:
        made = make()
    except PipelineError as error:
        return str(error)
    raise AssertionError(f"{made!r} was not refused. Raise PipelineError in check.")


def leaves_its_inputs_alone(subject: Subject) -> None:
    """What it reads has the same bytes afterwards."""
    before = subject.read
    assert subject.runs
    for path, was in before.items():
        now = contents(path)
        changed = sorted(
            name for name in was.keys() | now.keys() if was.get(name) != now.get(name)
        )
        _require(
            not changed,
            f"'{_class_of(subject)}' changes '{path}', which it reads: "
            f"{', '.join(changed)}. Write into its outputs only.",
        )


def writes_only_its_outputs(subject: Subject) -> None:
    """It writes into its outputs and `context.temp_dir`, and nowhere else."""
    strays = [path for each in subject.runs for path in each.strays]
    _require(
        not strays,
        f"'{_class_of(subject)}' writes {', '.join(strays[:5])}. Write into its "
        "outputs, and what is temporary into context.temp_dir.",
    )


def repeats_itself(subject: Subject) -> None:
    """The same inputs and parameters give the same properties and the same bytes."""
    first, second = subject.runs
    _require(
        first.properties == second.properties,
        f"'{_class_of(subject)}' sets other properties when it runs again: "
        f"{first.properties} and {second.properties}.",
    )
    differing = [
        key for key in first.digests if first.digests[key] != second.digests[key]
    ]
    _require(
        not subject.is_repeatable or not differing,
        f"'{_class_of(subject)}' writes other bytes to {', '.join(differing)} when it "
        "runs again. Leave out times, random numbers and absolute paths, and sort what "
        "has no order.",
    )


CHECKS: tuple[Callable[[Subject], None], ...] = (
    says_what_it_does,
    is_declared,
    imports_nothing_heavy,
    constructs_without_effect,
    is_frozen,
    pickles,
    has_a_short_repr,
    refuses_wrong_values,
    offers_near_misses,
    leaves_its_inputs_alone,
    writes_only_its_outputs,
    repeats_itself,
)
"""Every check: it raises AssertionError, with a sentence, if the contract is broken."""


def name(check: Callable[[Subject], None]) -> str:
    """Return the name of a check, as an id for parametrized tests."""
    return check.__name__


def check_component(
    example: Component,
    folder: Path,
    *,
    may_write: Sequence[Path] = (),
    is_repeatable: bool = True,
) -> None:
    """Hold a component to the whole contract.

    Args:
        example: The component, its inputs artifacts on disk, ready to run.
        folder: An empty folder to run it in, twice.
        may_write: What else it is there to write, such as a serving directory.
        is_repeatable: Whether two runs write the same bytes.

    Raises:
        AssertionError: If it breaks the contract, with a sentence on how.
    """
    subject = Subject(example, folder, may_write=may_write, is_repeatable=is_repeatable)
    for check in CHECKS:
        check(subject)
