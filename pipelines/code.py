"""The code that a component reaches, and its digest, found without running it.

From the component's class, and from the functions among its parameters, names are
followed through module-level definitions and static imports: into nested helpers,
sibling files and penstock itself, but not into installed libraries, whose versions a
component declares instead. A definition that is not reached does not count, nor do
comments, docstrings and the layout of the text.

What a module does for its side effects (statements of its own, decorators that may
register something) counts as soon as the module is imported by what is reached. Code
that looks names up at run time cannot be followed: then all of its file counts, and
`Code.remarks` says so.
"""

from __future__ import annotations

import builtins
import dataclasses
import enum
import hashlib
import importlib.machinery
import importlib.util
import inspect
import itertools
import json
import os
import re
import sys
import types
import uuid
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from penstock.components.base import Component, frozen
from penstock.pipelines.encoding import text_of
from penstock.pipelines.failures import is_installed
from penstock.pipelines.session import session_text
from penstock.pipelines.syntax import (
    LOOSE,
    ORDER,
    WHOLE,
    Block,
    Call,
    Effects,
    Import,
    Imports,
    Module,
    Reference,
    is_harmless,
)
from penstock.schemas.errors import PipelineError


@dataclasses.dataclass(frozen=True)
class Code:
    """The code that a component reaches.

    Attributes:
        digest: Digest of all of it, `sha256:...`.
        symbols: Digest of each definition, by where it is: `features.clean`; of the
            other statements of a module, `features.(module)`; or of all of it,
            `features.(file)`.
        files: The files that these are in, by the module's name.
        remarks: What could not be followed, a sentence each.
        folder: Where the component's class is or, more to the point, its function.
    """

    digest: str
    symbols: Mapping[str, str]
    files: Mapping[str, SourceFile]
    remarks: tuple[str, ...]
    folder: Path

    def keep(self, root: Path, run_folder: Path) -> None:
        """Keep the files, and what of them counts, below a root: `.penstock/code`.

        Files are named by the SHA-256 of their bytes, and the list of what counts by
        the digest of the code.

        Args:
            root: The root.
            run_folder: The run's own folder; they are written there first.
        """
        folder = root / ".penstock" / "code"
        listing = folder / f"{self.digest.removeprefix('sha256:')}.json"
        if listing.exists():  # written last
            return
        folder.mkdir(parents=True, exist_ok=True)
        for each in self.files.values():
            if not (folder / each.sha256).exists():
                _write(folder / each.sha256, each.source, run_folder)
        data = {
            "symbols": dict(self.symbols),
            "files": {
                module: {"sha256": each.sha256, "is_package": each.is_package}
                for module, each in self.files.items()
            },
            "remarks": list(self.remarks),
        }
        content = json.dumps(data, indent=1, sort_keys=True).encode()
        _write(listing, content, run_folder)


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """A file of code, as it was read.

    Attributes:
        path: Where it lies.
        source: Its bytes.
        sha256: SHA-256 of them, in hexadecimal.
        is_package: Whether it is the `__init__.py` of a package.
    """

    path: Path
    source: bytes
    sha256: str
    is_package: bool


def kept_symbols(root: Path, digest: str) -> dict[str, str]:
    """Return the symbols of code that was kept, or nothing if it was not.

    Args:
        root: Where it was kept.
        digest: Digest of the code.
    """
    name = digest.removeprefix("sha256:")
    try:
        text = (root / ".penstock" / "code" / f"{name}.json").read_text("utf-8")
    except OSError:
        return {}
    found: dict[str, str] = json.loads(text)["symbols"]
    return found


def _write(path: Path, content: bytes, run_folder: Path) -> None:
    """Write a file that is whole as soon as it has its name."""
    partial = run_folder / f"{path.name}.partial"
    partial.write_bytes(content)
    os.replace(partial, path)


class Reader:
    """Reads code, and each file and each class once."""

    def __init__(self) -> None:
        self._files: dict[tuple[Any, ...], tuple[Module, SourceFile]] = {}
        self._found: dict[tuple[Any, ...], Code] = {}
        self._modules: dict[tuple[Any, ...], _Modules] = {}

    def code_of(self, component: Component) -> Code:
        """Return the code that a component reaches from its class and parameters.

        Args:
            component: The component; it is not run.

        Raises:
            PipelineError: If a file that it reaches is no Python.
        """
        owners = (*_bases(type(component)), *_code_in(component.parameters))
        called = component.called_code()
        key = (owners, called)
        if key not in self._found:
            places = _Places()
            roots = [home for each in owners for home in places.homes(each)]
            roots += [(places.add(place), name) for place, name in called]
            modules = self._modules.setdefault(places.key, _Modules(places, self))
            walk = _Walk(modules, self.loaded)
            self._found[key] = walk.reach(roots, places)
        return self._found[key]

    def module(
        self, path: Path, is_package: bool, name: str, text: str | None
    ) -> tuple[Module, SourceFile]:
        """Return a module taken apart, and its file; its text may be known already."""
        key = path, name, text
        if key not in self._files:
            try:
                source = path.read_bytes() if text is None else text.encode()
                module = _taken_apart(source, name, is_package)
            except (OSError, SyntaxError, ValueError) as error:
                line = getattr(error, "lineno", None)
                said = f"{error.args[0]} in line {line}" if line else str(error)
                raise PipelineError(
                    f"'{path}', which the pipeline's code imports, cannot be read as "
                    f"Python: {said}. Mend it and run again."
                ) from error
            digest = hashlib.sha256(source).hexdigest()
            self._files[key] = module, SourceFile(path, source, digest, is_package)
        return self._files[key]

    @cached_property
    def loaded(self) -> list[tuple[str, Path, bytes]]:
        """The modules of the user that this process has imported: name, file, bytes."""
        found = []
        for module in _users_modules():
            path = Path(str(sys.modules[module].__file__))
            name = _real_name(module, sys.modules[module])
            found.append((name, path, path.read_bytes()))
        return found


def _users_modules() -> Iterator[str]:
    """Yield the names of the user's modules that are loaded from files."""
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if (
            isinstance(path, str)
            and path.endswith(".py")
            and not _is_ours(_real_name(name, module))
            and not is_installed(path)
            and os.path.exists(path)
        ):
            yield name


@lru_cache(maxsize=4096)
def _words(source: bytes) -> frozenset[str]:
    """Return all that may be a name in a module, or a part of one."""
    return frozenset(re.findall(r"\w+", source.decode("utf-8", "replace")))


@lru_cache(maxsize=4096)
def _taken_apart(source: bytes, name: str, is_package: bool) -> Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said when the module was compiled
        return Module(source, name, is_package)


def _real_name(name: str, module: Any) -> str:
    """Return a module's name as another one imports it: `python -m` hides it."""
    spec = getattr(module, "__spec__", None)
    return spec.name if name == "__main__" and spec is not None else name


def _bases(owner: type) -> Iterator[type]:
    """Yield a class and those of the user that it derives from, however it was made."""
    yield owner
    for each in owner.__mro__[1:]:
        path = getattr(sys.modules.get(each.__module__), "__file__", None) or ""
        if not _is_ours(each.__module__) and path and not is_installed(path):
            yield each


def _enclosed(owner: type) -> Iterator[tuple[str, Any]]:
    """Yield what the methods of a class take from the function that made it."""
    for each in vars(owner).values():
        function = getattr(each, "fget", None) or getattr(each, "__func__", each)
        function = inspect.unwrap(function) if callable(function) else function
        if not isinstance(function, types.FunctionType):
            continue
        code, cells = function.__code__, function.__closure__ or ()
        if code.co_filename != "<string>":  # made by dataclasses
            for name, cell in zip(code.co_freevars, cells, strict=True):
                if name != "__class__":
                    yield name, cell.cell_contents


def _code_in(value: Any) -> Iterator[type | types.FunctionType]:
    """Yield the functions and classes that parameters bring with them."""
    if isinstance(value, types.FunctionType):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _code_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _code_in(each)
    elif isinstance(value, enum.Enum):
        yield type(value)
    elif dataclasses.is_dataclass(value):
        assert not isinstance(value, type)
        yield type(value)
        for each in dataclasses.fields(value):
            yield from _code_in(getattr(value, each.name))


# --- where modules are ----------------------------------------------------------------


class _Places:
    """Finds the files of modules, of those whose code counts.

    Modules of Python itself and of installed libraries do not; those of penstock and
    of the user do, installed or not.
    """

    def __init__(self) -> None:
        self._always = {"penstock"}
        self._given: dict[str, Path] = {}
        self._folders: list[str] = []
        self._sessions: dict[str, list[str]] = {}
        self.texts: dict[str, str] = {}
        self.enclosed: dict[tuple[str, str], str] = {}
        self.remarks: list[str] = []
        self._files: dict[str, tuple[Path, bool] | None] = {}
        self._tops: dict[str, list[str] | Path | None] = {}

    @property
    def key(self) -> tuple[Any, ...]:
        """What is known of special places: the same, the same modules are found."""
        return (
            frozenset(self._always),
            frozenset(self._given.items()),
            frozenset(self.texts.items()),
            tuple(self._folders),
        )

    def homes(self, owner: type | types.FunctionType) -> Iterator[tuple[str, str]]:
        """Yield the modules and the names in them that a class or function has."""
        name = owner.__qualname__
        yield self._home(owner.__module__, name.partition(".")[0])
        loaded = sys.modules.get(owner.__module__)
        if getattr(loaded, name, None) is owner or ("." in name and "<" not in name):
            return
        # Made by a function, or wrapped by one: what it is bound to says with what.
        bound = [
            (module, key)
            for module in _users_modules()
            for key, value in list(vars(sys.modules[module]).items())
            if value is owner
        ]
        yield from itertools.starmap(self._home, bound)
        if not bound and isinstance(owner, type):
            self._enclose(owner)

    def _home(self, module: str, name: str) -> tuple[str, str]:
        """Make a loaded module known; return its name as others import it."""
        loaded = sys.modules.get(module)
        path = getattr(loaded, "__file__", None)
        if not path or not path.endswith(".py") or not os.path.exists(path):
            self._take_down(module, name)
            return module, name
        module = _real_name(module, loaded)
        top = module.partition(".")[0]
        spec = getattr(loaded, "__spec__", None)
        found = importlib.machinery.PathFinder.find_spec(top)
        if "." not in module and (
            spec is None or found is None or spec.origin != found.origin
        ):
            # Loaded in a way of its own: a script, or a test's module.
            self._given[module] = Path(path)
            self._folders.append(os.path.dirname(os.path.abspath(path)))
        self._always.add(top)
        return module, name

    def _take_down(self, module: str, name: str) -> None:
        """Write down what was defined in a session, or say that it is not known."""
        names = self._sessions.setdefault(module, [])
        names.append(name)
        try:
            self.texts[module] = session_text(sys.modules[module], names)
        except LookupError:
            self.texts[module] = f"{name} = '{uuid.uuid4()}'"
            self.remarks.append(
                f"'{module}.{name}' was defined where its text was not kept, so that "
                "nobody can tell whether it changed: it always runs."
            )

    def _enclose(self, owner: type) -> None:
        """Count what a class that was made inside a function takes from there."""
        place = f"{owner.__module__}.{owner.__qualname__}"
        for name, value in _enclosed(owner):
            try:
                text = text_of(frozen(value, name))
            except PipelineError:
                self.remarks.append(
                    f"'{place}' takes '{name}' from the function that made it, which "
                    "does not count: it is no plain data."
                )
                continue
            key = owner.__module__, f"{owner.__qualname__}({name})"
            self.enclosed[key] = _digest(text)

    def add(self, place: Path | str) -> str:
        """Make a module known by its name, or a file with what lies beside it.

        Returns:
            The module's name.
        """
        if isinstance(place, str):
            self._always.add(place.partition(".")[0])
            return place
        self._given[place.stem] = place
        self._folders.insert(0, str(place.parent.absolute()))
        return place.stem

    def file(self, module: str) -> tuple[Path, bool] | None:
        """Return a module's file and whether it is a package; None if not followed."""
        if module not in self._files:
            self._files[module] = self._find(module)
        return self._files[module]

    def has(self, module: str, path: Path) -> bool:
        """Return whether a module is that file; learn it if nothing else is known."""
        found = self.file(module)
        if found is None and "." not in module:
            self._given[module] = path
            del self._files[module]
            return True
        return found is not None and os.path.samefile(found[0], path)

    def exists(self, module: str) -> bool:
        """Return whether there is a module, or a namespace of modules, that counts."""
        return self.file(module) is not None or any(
            map(os.path.isdir, self._bases(module))
        )

    def _find(self, module: str) -> tuple[Path, bool] | None:
        if module in self.texts:
            return Path(f"<{module}>"), False
        if module in self._given:
            path = self._given[module]
            return path, path.name == "__init__.py"
        is_top = "." not in module
        for base in self._bases(module):
            for file, is_package in (
                (os.path.join(base, "__init__.py"), True),
                (f"{base}.py", False),
            ):
                if os.path.isfile(file) and not (is_top and not is_package):
                    return Path(file), is_package
        place = self._tops[module.partition(".")[0]]
        return (place, False) if is_top and isinstance(place, Path) else None

    def _bases(self, module: str) -> list[str]:
        """Return where a module may lie, without its suffix."""
        top, *rest = module.split(".")
        if top not in self._tops:
            self._tops[top] = self._top(top)
        place = self._tops[top]
        folders = place if isinstance(place, list) else []
        return [os.path.join(each, *rest) for each in folders]

    def _top(self, top: str) -> list[str] | Path | None:
        """Return a top-level package's folders, or a module's file, if it counts."""
        for folder in self._folders:
            if os.path.isfile(os.path.join(folder, f"{top}.py")):
                return Path(folder, f"{top}.py")
            if os.path.isfile(os.path.join(folder, top, "__init__.py")):
                return [os.path.join(folder, top)]
        spec = _spec(top)
        if spec is None or spec.origin in ("built-in", "frozen"):
            return None
        folders = list(spec.submodule_search_locations or ())
        where = spec.origin or (folders[0] if folders else "")
        if top not in self._always and is_installed(where):
            return None
        if folders:
            return folders
        return Path(where) if where.endswith(".py") else None


def _spec(top: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(top)  # imports nothing: the name has no dot
    except (ImportError, ValueError):
        return None


# --- from name to name ----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Target:
    """What a name with attributes stands for.

    Attributes:
        module: The module that it is in.
        name: Its name there; `WHOLE` for the module itself.
        rest: The attributes of it.
        is_defined: Whether it is defined there, rather than handed on by an import.
    """

    module: str
    name: str
    rest: Reference = ()
    is_defined: bool = True


class _Modules:
    """Knows what names stand for in modules, and what code may do beside returning.

    Args:
        places: Where modules are.
        reader: What reads them.
    """

    def __init__(self, places: _Places, reader: Reader) -> None:
        self._places = places
        self._reader = reader
        self._parsed: dict[str, tuple[Module, SourceFile] | None] = {}
        self._found: dict[tuple[str, Reference], tuple[_Target, ...]] = {}
        self._finding: dict[tuple[str, Reference], int] = {}
        self._outermost = 0
        self._acting: dict[_Target, bool] = {}
        self._asked: set[_Target] = set()
        self._by_import: dict[str, tuple[str, ...]] = {}
        self._imports: dict[str, tuple[str, ...]] = {}

    def get(self, name: str) -> Module | None:
        """Return a module taken apart; None if it is not followed."""
        if name not in self._parsed:
            found = self._places.file(name)
            text = self._places.texts.get(name)
            self._parsed[name] = found and self._reader.module(*found, name, text)
        parsed = self._parsed[name]
        return parsed and parsed[0]

    def file(self, name: str) -> SourceFile | None:
        """Return the file of a module; None if it is not followed."""
        parsed = self._parsed.get(name)
        return parsed and parsed[1]

    def has(self, name: str, path: Path) -> bool:
        """Return whether a module is followed and is that file."""
        return self._places.has(name, path)

    def block(self, module: str, name: str) -> Block:
        """Return what counts together under a name of a module that is followed."""
        found = self.get(module)
        assert found is not None
        return found.block(name)

    def digest(self, module: str, name: str) -> str:
        """Return the digest of a part, and of how much is done before it is."""
        found = self.get(module)
        assert found is not None
        digest = found.block(name).digest
        place = found.place(name, self.acting(module))
        return _digest(f"{digest} {place}") if place else digest

    def handed_on(self, module: str) -> frozenset[Reference]:
        """Return the names that others may take from a module that imports them."""
        found = self.get(module)
        return (
            frozenset((each,) for each in found.imports.names) if found else frozenset()
        )

    def imports_of(self, module: str) -> tuple[str, ...]:
        """Return the names of the modules that one imports, and maybe of more."""
        if module not in self._imports:
            found = self.get(module)
            self._imports[module] = (
                tuple(self.imported_by(found.imports)) if found else ()
            )
        return self._imports[module]

    def imported_by(self, imports: Imports) -> Iterator[str]:
        """Yield the names of the modules that are followed of those imported."""
        for each in imports.modules:
            if self._places.exists(each):
                yield each

    # What names stand for --------------------------------------------------------

    def targets(self, module: str, reference: Reference) -> tuple[_Target, ...]:
        """Return all that a name with attributes may stand for in a module."""
        key = module, reference
        if key in self._found:
            return self._found[key]
        if key in self._finding:  # modules that import one another
            self._outermost = min(self._outermost, self._finding[key])
            return ()
        depth = self._finding[key] = len(self._finding)
        outermost, self._outermost = self._outermost, depth
        found = tuple(dict.fromkeys(self._find(module, reference)))
        del self._finding[key]
        if self._outermost >= depth:  # it left out nothing that is asked further out
            self._found[key] = found
        self._outermost = min(outermost, self._outermost)
        return found

    def _find(self, module: str, reference: Reference) -> Iterator[_Target]:
        name, rest = reference[0], reference[1:]
        found = self.get(module)
        if found is None:
            return
        if name in found.names:
            yield _Target(module, name, rest)
        for each in found.imports.names.get(name, ()):
            yield _Target(module, name, rest, is_defined=False)
            yield from self.of_import(each, rest)
        for star in found.imports.stars:
            handed_on = self.targets(star, reference)
            if handed_on:
                yield _Target(module, name, rest, is_defined=False)
            yield from handed_on
        if not found.has(name):
            if found.is_package and self._places.exists(f"{module}.{name}"):
                yield from self.in_module(f"{module}.{name}", rest)
            if "__getattr__" in found.names and not hasattr(builtins, name):
                yield _Target(module, WHOLE)

    def of_import(self, target: Import, rest: Reference) -> tuple[_Target, ...]:
        if not target.name:
            return self.in_module(target.module, rest)
        found = self.targets(target.module, (target.name, *rest))
        return found or self.in_module(f"{target.module}.{target.name}", rest)

    def in_module(self, module: str, rest: Reference) -> tuple[_Target, ...]:
        """Return what attributes of a module stand for."""
        if not rest:
            return (_Target(module, WHOLE),) if self.get(module) else ()
        found = self.targets(module, rest)
        if not found and self._places.exists(f"{module}.{rest[0]}"):
            return self.in_module(f"{module}.{rest[0]}", rest[1:])
        return found

    def defined(self, module: str, reference: Reference) -> list[_Target]:
        """Return what a name stands for, without what only hands it on."""
        if not reference:
            return []
        return [each for each in self.targets(module, reference) if each.is_defined]

    # What code may do ------------------------------------------------------------

    def acting(self, name: str) -> tuple[str, ...]:
        """Return the parts of a module that do more, at import, than bind names."""
        if name not in self._by_import:
            module = self.get(name)
            assert module is not None
            self._by_import[name] = (
                *([LOOSE] if module.has_loose else []),
                *(
                    each
                    for each, effects in module.effects.items()
                    if self._acts(name, effects)
                ),
            )
        return self._by_import[name]

    def _acts(self, module: str, effects: Effects) -> bool:
        """Return whether statements may do something beside binding their names."""
        return (
            effects.is_sure
            or any(self.get(each) and not _is_ours(each) for each in effects.modules)
            or any(self._decorator_acts(module, each) for each in effects.decorators)
            or any(self._keeps_subclasses(module, each) for each in effects.bases)
            or any(self._bare_call_acts(module, each) for each in effects.bare)
            or any(
                self._call_acts(module, each, effects.is_changed)
                for each in effects.calls
            )
        )

    def _decorator_acts(self, module: str, decorator: Reference) -> bool:
        targets = self.defined(module, decorator)
        if any(_is_ours(each.module) for each in targets) or not targets:
            return not is_harmless(decorator)
        return any(map(self._target_acts, targets))

    def _keeps_subclasses(self, module: str, base: Reference) -> bool:
        for target in self.defined(module, base):
            found = self.get(target.module)
            if found is None or _is_ours(target.module) or target.name == WHOLE:
                continue
            if found.keeps_subclasses(target.name):
                return True
            effects = found.effects.get(target.name, Effects())
            if any(self._keeps_subclasses(target.module, e) for e in effects.bases):
                return True
        return False

    def _bare_call_acts(self, module: str, called: Reference) -> bool:
        # What gives nothing back does something: a library, or a method of an object.
        targets = self.defined(module, called)
        return not targets or any(
            not _is_ours(each.module) and (each.rest or self._target_acts(each))
            for each in targets
        )

    def _call_acts(self, module: str, call: Call, is_changed: bool) -> bool:
        targets = self.defined(module, call.called)
        if any(map(self._target_acts, targets)):
            return True
        users = [each for each in targets if not _is_ours(each.module)]
        if is_changed and users:
            return True  # an object of the user's, whose methods may do anything
        if targets and not users:
            return False
        return any(
            not each.rest and self._target_acts(each)
            for passed in call.passed
            for each in self.defined(module, passed)
            if self._is_function(each)
        )

    def _target_acts(self, target: _Target) -> bool:
        """Return whether calling something may do more than return a value."""
        if _is_ours(target.module):
            return False
        if target in self._acting:
            return self._acting[target]
        if target in self._asked:
            return False  # unless something else in it does
        self._asked.add(target)
        acts = self._finds_acting(target)
        self._asked.discard(target)
        if acts or not self._asked:  # what called one another may still act
            self._acting[target] = acts
        return acts

    def _finds_acting(self, target: _Target) -> bool:
        module = self.get(target.module)
        if module is None or target.name == WHOLE:
            return True
        effects = module.effects_of_call(target.name, *target.rest[:1])
        if effects is not None:
            return self._acts(target.module, effects)
        own = module.effects.get(target.name, Effects())
        inherited = [
            _Target(base.module, base.name, target.rest)
            for each in own.bases
            for base in self.defined(target.module, each)
        ]
        return (
            not target.rest
            or module.may_be_another(target.name)
            or any(map(self._target_acts, inherited))
            or any(self.defined(target.module, each.called) for each in own.calls)
        )

    def _is_function(self, target: _Target) -> bool:
        module = self.get(target.module)
        return module is not None and module.is_function(target.name)


class _Walk:
    """Follows names from definition to definition.

    Args:
        modules: What names stand for.
        loaded: The modules of the user that this process has imported.
    """

    def __init__(
        self, modules: _Modules, loaded: Iterable[tuple[str, Path, bytes]]
    ) -> None:
        self._modules = modules
        self._loaded = loaded
        self._imported: dict[str, None] = {}
        self._objects: list[str] = []
        self._symbols: dict[tuple[str, str], str] = {}
        self._left: list[tuple[str, str]] = []
        self._remarks: dict[str, None] = {}

    def reach(self, roots: Sequence[tuple[str, str]], places: _Places) -> Code:
        """Return all that names reach, and what is known without their texts."""
        self._remarks.update(dict.fromkeys(places.remarks))
        for module, name in roots:
            self._begin(module, name)
        self._count_order([each for each in self._imported if not _is_ours(each)])
        while self._left or self._import_meddlers():
            while self._left:
                self._follow(*self._left.pop())
        found = {**self._symbols, **places.enclosed}
        symbols = {
            f"{module}.{name}": digest
            for (module, name), digest in sorted(found.items())
        }
        home = self._modules.file(roots[-1][0])
        lines = "".join(f"{digest} {name}\n" for name, digest in symbols.items())
        files = {
            name: file
            for name in sorted(self._imported)
            if (file := self._modules.file(name)) is not None
        }
        return Code(
            "sha256:" + hashlib.sha256(lines.encode()).hexdigest(),
            symbols,
            files,
            tuple(self._remarks),
            home.path.parent if home else Path.cwd(),
        )

    def _begin(self, module: str, name: str) -> None:
        self._import(module)
        targets = self._modules.targets(module, (name,))
        self._count_all(targets)
        file = self._modules.file(module)
        if not targets and file is not None:
            self._say(
                f"'{module}.{name}' is defined by no statement of its module: all of "
                f"'{file.path.name}' counts."
            )
            self._count(module, WHOLE)

    def _import(self, name: str) -> None:
        """Count what is done when a module is imported, and it alone."""
        if name in self._imported or not name:
            return
        self._imported[name] = None
        self._import(name.rpartition(".")[0])
        module = self._modules.get(name)
        if module is None:
            return
        for each in self._modules.imports_of(name):
            self._import(each)
        acting = self._modules.acting(name)
        for each in acting:
            self._count(name, each)
        order = module.order(acting)
        if " " in order:
            self._symbols[name, ORDER] = _digest(order)
        if any(name.startswith(f"{each}.") for each in self._objects):
            self._count(name, WHOLE)

    def _count_order(self, modules: Iterable[str]) -> None:
        """Count in which order modules do something, if more than one does."""
        acting = [
            each
            for each in modules
            if self._modules.get(each) and self._modules.acting(each)
        ]
        if len(acting) > 1:
            self._symbols["(imports)", ORDER] = _digest(" ".join(acting))

    def _count(self, module: str, name: str) -> None:
        if (module, name) not in self._symbols:
            self._import(module)
            self._symbols[module, name] = self._modules.digest(module, name)
            self._left.append((module, name))

    def _count_all(self, targets: Iterable[_Target], but: str = "") -> None:
        """Count targets, without those that a module only hands on to itself."""
        for each in targets:
            if each.is_defined or each.module != but:
                self._count(each.module, each.name)

    def _follow(self, module: str, name: str) -> None:
        block = self._modules.block(module, name)
        # What penstock itself looks up by name is in the user's code or a library.
        if not _is_ours(module):
            self._remark(module, name, block)
        for each in self._modules.imported_by(block.imports):
            self._import(each)
        for star in block.imports.stars:
            self._count_all(self._modules.in_module(star, ()))
        references = block.references
        if name == WHOLE:
            references |= self._modules.handed_on(module)
            self._hold(module)
        for reference in sorted(references):
            for target in block.imports.names.get(reference[0], ()):
                self._count_all(self._modules.of_import(target, reference[1:]))
            self._count_all(self._modules.targets(module, reference), but=module)

    def _hold(self, module: str) -> None:
        """Count all of what a package holds, which something has as an object."""
        if not _is_ours(module):
            self._objects.append(module)
            for each in list(self._imported):
                if each.startswith(f"{module}.") and self._modules.get(each):
                    self._count(each, WHOLE)

    def _remark(self, module: str, name: str, block: Block) -> None:
        file = self._modules.file(module)
        assert file is not None
        if block.is_dynamic and name != WHOLE:
            self._say(
                f"'{module}.{name}' looks names up at run time, which cannot be "
                f"followed: all of '{file.path.name}' counts, and nothing that it "
                "finds in this way."
            )
            self._count(module, WHOLE)
        if block.reads_beside and name not in (LOOSE, WHOLE):
            self._say(
                f"'{module}.{name}' may read files that lie beside "
                f"'{file.path.name}'. Their contents do not count, unless a "
                "component names them in external_inputs."
            )

    def _say(self, remark: str) -> None:
        self._remarks[remark] = None

    def _import_meddlers(self) -> bool:
        """Count loaded modules that do something to what is reached, if there are any.

        Nothing that is reached imports them: what builds the pipeline does.
        """
        reached = {module for module, _ in self._symbols if not _is_ours(module)}
        words = {part for each in reached for part in each.split(".")}
        found = [
            name
            for name, path, source in self._loaded
            if name not in self._imported
            and not words.isdisjoint(_words(source))
            and self._modules.has(name, path)
            and self._meddles(name, reached)
        ]
        for each in found:
            self._import(each)
        return bool(found)

    def _meddles(self, name: str, reached: Collection[str]) -> bool:
        return any(
            target.module in reached
            for each in self._modules.acting(name)
            for reference in self._modules.block(name, each).references
            for target in self._modules.targets(name, reference)
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == "penstock"
