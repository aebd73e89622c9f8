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

import ast
import copy
import dataclasses
import enum
import hashlib
import importlib.machinery
import importlib.util
import json
import os
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from penstock.components.base import Component
from penstock.schemas.errors import PipelineError

LOOSE = "(module)"
"""What a module's statements beside its definitions are listed as."""

WHOLE = "(file)"
"""What all of a module is listed as."""

# Decorators that give back what they are given, wrapped, and register nothing.
_HARMLESS = {
    *("staticmethod", "classmethod", "property", "dataclass", "contextmanager"),
    *("asynccontextmanager", "lru_cache", "cache", "cached_property", "wraps"),
    *("overload", "override", "final", "total_ordering", "abstractmethod", "setter"),
    *(
        "getter",
        "deleter",
        "dataclass_transform",
        "singledispatch",
        "runtime_checkable",
    ),
    *(
        "tf_function",
        "function",
        "jit",
        "njit",
        "unique",
        "no_type_check",
        "deprecated",
    ),
}

# Names whose use means that a module's other names may be looked up at run time.
_DYNAMIC = {"globals", "vars", "exec", "eval", "__import__"}


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
        self._files: dict[Path, tuple[_Module, SourceFile]] = {}
        self._found: dict[tuple[Any, ...], Code] = {}

    def code_of(self, component: Component) -> Code:
        """Return the code that a component reaches from its class and parameters.

        Args:
            component: The component; it is not run.

        Raises:
            PipelineError: If a file that it reaches is no Python.
        """
        owners = (type(component), *_code_in(component.parameters))
        called = component.called_code()
        key = (owners, called)
        if key not in self._found:
            places = _Places()
            roots = [places.home(each) for each in owners]
            roots += [(places.add(place), name) for place, name in called]
            self._found[key] = _Walk(places, self).reach(roots)
        return self._found[key]

    def module(
        self, path: Path, name: str, is_package: bool
    ) -> tuple[_Module, SourceFile]:
        """Return a module taken apart, and its file."""
        if path not in self._files:
            try:
                source = path.read_bytes()
                self._files[path] = (
                    _taken_apart(source, name, is_package),
                    SourceFile(
                        path, source, hashlib.sha256(source).hexdigest(), is_package
                    ),
                )
            except (OSError, SyntaxError, ValueError) as error:
                raise PipelineError(
                    f"'{path}', which the pipeline's code imports, cannot be read as "
                    f"Python: {error}. Mend it and run again."
                ) from error
        return self._files[path]


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


# --- one module -----------------------------------------------------------------------

_Reference = tuple[str, ...]
"""A name with the attributes that follow it: `("features", "clean")`."""


@dataclasses.dataclass(frozen=True)
class _Import:
    """What a local name stands for: a module, or a name in one."""

    module: str
    name: str = ""


@dataclasses.dataclass
class _Block:
    """Statements that count together."""

    digest: str = ""
    references: frozenset[_Reference] = frozenset()
    imports: dict[str, _Import] = dataclasses.field(default_factory=dict)
    modules: frozenset[str] = frozenset()
    stars: tuple[str, ...] = ()
    is_dynamic: bool = False


@dataclasses.dataclass
class _Module:
    """A module's text, taken apart."""

    is_package: bool
    definitions: dict[str, _Block]
    imports: dict[str, _Import]
    stars: tuple[str, ...]
    modules: frozenset[str]
    loose: _Block
    whole: _Block


@lru_cache(maxsize=4096)
def _taken_apart(source: bytes, name: str, is_package: bool) -> _Module:
    package = name if is_package else name.rpartition(".")[0]
    tree = _WithoutDocstrings().visit(ast.parse(source))
    statements: dict[str, list[ast.stmt]] = {}
    loose: list[ast.stmt] = []
    importing: list[ast.stmt] = []
    for statement in tree.body:
        if _is_for_checkers(statement) or _is_main_guard(statement):
            continue
        if isinstance(statement, ast.Import | ast.ImportFrom):
            importing.append(statement)
            continue
        names = _bound(statement)
        for each in names:
            statements.setdefault(each, []).append(statement)
        if not names or _may_register(statement):
            loose.append(statement)
        if not isinstance(
            statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        ):
            importing += [
                each
                for each in ast.walk(statement)
                if isinstance(each, ast.Import | ast.ImportFrom)
            ]
    top = _block(importing, package)
    return _Module(
        is_package=is_package,
        definitions={key: _block(each, package) for key, each in statements.items()},
        imports=top.imports,
        stars=top.stars,
        modules=top.modules,
        loose=_block(loose, package),
        whole=_block([each for each in tree.body if not _is_main_guard(each)], package),
    )


class _WithoutDocstrings(ast.NodeTransformer):
    """Takes docstrings out, and expressions that are nothing but text."""

    def _body(self, node: Any) -> Any:
        self.generic_visit(node)
        body = [
            each
            for each in node.body
            if not (
                isinstance(each, ast.Expr)
                and isinstance(each.value, ast.Constant)
                and isinstance(each.value.value, str)
            )
        ]
        node.body = body or ([] if isinstance(node, ast.Module) else [ast.Pass()])
        return node

    visit_Module = visit_ClassDef = visit_FunctionDef = visit_AsyncFunctionDef = _body


def _is_for_checkers(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.If)
        and ast.unparse(statement.test).rpartition(".")[2] == "TYPE_CHECKING"
        and not statement.orelse
    )


def _is_main_guard(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.If)
        and "__name__" in ast.unparse(statement.test)
        and "__main__" in ast.unparse(statement.test)
    )


def _bound(statement: ast.stmt) -> list[str]:
    """Return the module-level names that a statement binds."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    found: list[str] = []
    if isinstance(statement, ast.Assign):
        targets = list(statement.targets)
    elif isinstance(statement, ast.AugAssign | ast.AnnAssign):
        targets = [statement.target]
    elif isinstance(statement, ast.If | ast.Try | ast.With | ast.For | ast.While):
        for each in ast.iter_child_nodes(statement):
            inner = each.body if isinstance(each, ast.ExceptHandler) else [each]
            for nested in inner:
                if isinstance(nested, ast.stmt):
                    found += _bound(nested)
        return list(dict.fromkeys(found))
    else:
        targets = []
    for target in targets:
        parts = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
        found += [each.id for each in parts if isinstance(each, ast.Name)]
    return found


def _may_register(statement: ast.stmt) -> bool:
    """Return whether a definition may do something beside binding its name."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        names = {
            ast.unparse(each.func if isinstance(each, ast.Call) else each)
            for each in statement.decorator_list
        }
        return not {each.rpartition(".")[2] for each in names} <= _HARMLESS
    if isinstance(statement, ast.If | ast.Try | ast.With | ast.For | ast.While):
        return any(
            isinstance(each, ast.Expr | ast.Delete | ast.Assert | ast.Raise)
            or (
                isinstance(each, ast.Assign | ast.AugAssign | ast.AnnAssign)
                and not _bound(each)
            )
            for each in ast.walk(statement)
        )
    return False


def _block(statements: Iterable[ast.stmt], package: str) -> _Block:
    listed = list(statements)
    block = _Block()
    references: set[_Reference] = set()
    modules: set[str] = set()
    digest = hashlib.sha256()
    for statement in listed:
        digest.update(ast.dump(statement).encode())
        for node in _followed(statement):
            if isinstance(node, ast.Import):
                for each in node.names:
                    modules.add(each.name)
                    if each.asname:
                        block.imports[each.asname] = _Import(each.name)
                    else:
                        top = each.name.partition(".")[0]
                        block.imports[top] = _Import(top)
            elif isinstance(node, ast.ImportFrom):
                origin = _origin(node, package)
                modules.add(origin)
                for each in node.names:
                    if each.name == "*":
                        block.stars += (origin,)
                    else:
                        block.imports[each.asname or each.name] = _Import(
                            origin, each.name
                        )
            elif isinstance(node, ast.Attribute | ast.Name):
                chain = _chain(node)
                if chain:
                    references.add(chain)
    block.digest = digest.hexdigest()
    block.references = frozenset(references)
    block.modules = frozenset(modules)
    block.is_dynamic = any(
        each[0] in _DYNAMIC
        or each[-1] in ("import_module", "__import__", "run_path", "exec_module")
        for each in references
    )
    return block


def _followed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes whose names matter when the code runs.

    Annotations of functions and of variables inside them do not; those of classes do,
    because dataclasses and components read them.
    """
    if isinstance(node, ast.Attribute) and _chain(node):
        yield node
        return
    yield node
    is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for field, value in ast.iter_fields(node):
        if is_function and field == "returns":
            continue
        if isinstance(node, ast.arg) and field == "annotation":
            continue
        for each in value if isinstance(value, list) else [value]:
            if not isinstance(each, ast.AST):
                continue
            if is_function and field == "body" and isinstance(each, ast.AnnAssign):
                each = copy.copy(each)
                each.annotation = ast.Constant(None)
            yield from _followed(each)


def _chain(node: ast.AST) -> _Reference:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ()
    return (node.id, *reversed(parts))


def _origin(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    base = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


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
        self._files: dict[str, tuple[Path, bool] | None] = {}
        self._tops: dict[str, list[str] | Path | None] = {}

    def home(self, owner: type | types.FunctionType) -> tuple[str, str]:
        """Return the module and the module-level name of a class or function."""
        module, name = owner.__module__, owner.__qualname__.partition(".")[0]
        loaded = sys.modules.get(module)
        path = getattr(loaded, "__file__", None)
        if path and path.endswith(".py") and os.path.exists(path):
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

    def _find(self, module: str) -> tuple[Path, bool] | None:
        if module in self._given:
            path = self._given[module]
            return path, path.name == "__init__.py"
        top, *rest = module.split(".")
        if top not in self._tops:
            self._tops[top] = self._top(top)
        place = self._tops[top]
        if isinstance(place, Path):
            return (place, False) if not rest else None
        for folder in place or ():
            base = os.path.join(folder, *rest)
            for file, is_package in (
                (os.path.join(base, "__init__.py"), True),
                (f"{base}.py", False),
            ):
                if os.path.isfile(file) and (rest or is_package):
                    return Path(file), is_package
        return None

    def _top(self, top: str) -> list[str] | Path | None:
        """Return a top-level package's folders, or a module's file, if it counts."""
        for folder in self._folders:
            if os.path.isfile(os.path.join(folder, f"{top}.py")):
                return Path(folder, f"{top}.py")
            if os.path.isfile(os.path.join(folder, top, "__init__.py")):
                return [os.path.join(folder, top)]
        if top in sys.builtin_module_names or top in sys.stdlib_module_names:
            return None
        spec = _spec(top)
        if spec is None:
            return None
        folders = list(spec.submodule_search_locations or ())
        where = spec.origin or (folders[0] if folders else "")
        if top not in self._always and _is_installed(where):
            return None
        if folders:
            return folders
        return Path(where) if where.endswith(".py") else None


def _spec(top: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(top)  # imports nothing: the name has no dot
    except (ImportError, ValueError):
        return None


@lru_cache(maxsize=4096)
def _is_installed(path: str) -> bool:
    real = os.path.realpath(path)
    parts = Path(real).parts
    return (
        "site-packages" in parts
        or "dist-packages" in parts
        or any(
            real.startswith(os.path.realpath(sysconfig.get_path(each)) + os.sep)
            for each in ("stdlib", "platstdlib")
        )
    )


# --- from name to name ----------------------------------------------------------------


class _Walk:
    """Follows names from definition to definition."""

    def __init__(self, places: _Places, reader: Reader) -> None:
        self._places = places
        self._reader = reader
        self._modules: dict[str, _Module | None] = {}
        self._files: dict[str, SourceFile] = {}
        self._symbols: dict[tuple[str, str], str] = {}
        self._left: list[tuple[str, str]] = []
        self._remarks: dict[str, None] = {}

    def reach(self, roots: Sequence[tuple[str, str]]) -> Code:
        for module, name in roots:
            self._define(module, name)
        while self._left:
            self._follow(*self._left.pop())
        symbols = {
            f"{module}.{name}": digest
            for (module, name), digest in sorted(self._symbols.items())
        }
        home = self._places.file(roots[-1][0])
        lines = "".join(f"{digest} {name}\n" for name, digest in symbols.items())
        return Code(
            "sha256:" + hashlib.sha256(lines.encode()).hexdigest(),
            symbols,
            dict(sorted(self._files.items())),
            tuple(self._remarks),
            home[0].parent if home else Path.cwd(),
        )

    def _module(self, name: str) -> _Module | None:
        """Return a module, whose own statements count from now on; None if foreign."""
        if name not in self._modules:
            self._modules[name] = None
            parent = name.rpartition(".")[0]
            if parent:
                self._module(parent)
            found = self._places.file(name)
            if found is None:
                return None
            path, is_package = found
            made, self._files[name] = self._reader.module(path, name, is_package)
            self._modules[name] = made
            if made.loose.references or made.loose.digest != _EMPTY:
                self._count(name, LOOSE)
            for each in made.modules:
                self._module(each)
            for local in made.imports.values():
                # `from package import module`
                if local.name and self._is_module(f"{local.module}.{local.name}"):
                    self._module(f"{local.module}.{local.name}")
        return self._modules[name]

    def _is_module(self, name: str) -> bool:
        return self._places.file(name) is not None

    def _block(self, module: str, name: str) -> _Block:
        made = self._modules[module]
        assert made is not None
        if name == LOOSE:
            return made.loose
        return made.whole if name == WHOLE else made.definitions[name]

    def _count(self, module: str, name: str) -> None:
        key = module, name
        if key not in self._symbols:
            self._symbols[key] = self._block(module, name).digest
            self._left.append(key)

    def _follow(self, module: str, name: str) -> None:
        block = self._block(module, name)
        # What penstock itself looks up by name is in the user's code or a library.
        if block.is_dynamic and name != WHOLE and not module.startswith("penstock."):
            self._remarks[
                f"'{module}.{name}' looks names up at run time, which cannot be "
                f"followed: all of '{self._files[module].path.name}' counts, and "
                "nothing that it finds in this way."
            ] = None
            self._count(module, WHOLE)
        for each in block.modules:
            self._module(each)
        for star in block.stars:
            self._whole(star)
        for reference in block.references:
            first = reference[0]
            if first in block.imports:
                self._imported(block.imports[first], reference[1:])
            else:
                self._define(module, first, reference[1:])

    def _define(self, module: str, name: str, rest: _Reference = ()) -> bool:
        """Count what a name in a module stands for; return whether it is known."""
        made = self._module(module)
        if made is None:
            return False
        if name in made.definitions:
            self._count(module, name)
            # Bound by an import as well, as in `try: import x` with `x = None` after.
            if name not in made.imports:
                return True
        # What a package imports from itself is a module of it (below).
        if made.imports.get(name, _Import(module, name)) != _Import(module, name):
            self._imported(made.imports[name], rest)
            return True
        if any(self._define(star, name, rest) for star in made.stars):
            return True
        if made.is_package and self._is_module(f"{module}.{name}"):
            self._into(f"{module}.{name}", rest)
            return True
        if "__getattr__" in made.definitions and name not in vars(_BUILTINS):
            self._whole(module)
            return True
        return False

    def _imported(self, target: _Import, rest: _Reference) -> None:
        if not target.name:
            self._into(target.module, rest)
        elif not self._define(target.module, target.name, rest):
            submodule = f"{target.module}.{target.name}"
            if self._is_module(submodule):
                self._into(submodule, rest)

    def _into(self, module: str, rest: _Reference) -> None:
        """Count what attributes of a module stand for."""
        if self._module(module) is None and not self._is_namespace(module, rest):
            return
        if not rest:
            self._whole(module)
        elif not self._define(module, rest[0], rest[1:]):
            submodule = f"{module}.{rest[0]}"
            if self._is_module(submodule):
                self._into(submodule, rest[1:])

    def _is_namespace(self, module: str, rest: _Reference) -> bool:
        return bool(rest) and self._is_module(f"{module}.{rest[0]}")

    def _whole(self, module: str) -> None:
        """Count all of a module, which something holds as an object."""
        if self._module(module) is not None:
            self._count(module, WHOLE)


_BUILTINS = sys.modules["builtins"]
_EMPTY = hashlib.sha256().hexdigest()
