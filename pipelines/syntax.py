"""A module's text, taken apart: what it defines, imports, and does when it is imported.

Nothing is imported or run, and nothing is known here of other modules. A statement
belongs to the names that it binds or changes; what belongs to none is loose.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeAlias

LOOSE = "(module)"
"""What a module's statements beside its definitions are listed as."""

WHOLE = "(file)"
"""What all of a module is listed as."""

ORDER = "(order)"
"""What the order is listed as in which parts of a module do something."""

Reference = tuple[str, ...]
"""A name with the attributes that follow it: `("features", "clean")`."""

# Decorators of libraries that give back what they are given and register nothing.
_HARMLESS = {
    *("staticmethod", "classmethod", "property", "dataclass", "contextmanager"),
    *("asynccontextmanager", "lru_cache", "cache", "cached_property", "wraps"),
    *("overload", "override", "final", "total_ordering", "abstractmethod", "setter"),
    *("getter", "deleter", "dataclass_transform", "singledispatch"),
    *("runtime_checkable", "function", "jit", "njit", "unique", "no_type_check"),
    "deprecated",
}

# Names whose use means that other names may be looked up at run time.
_DYNAMIC = {"globals", "vars", "exec", "eval", "__import__"}
_DYNAMIC_ATTRIBUTES = {
    *("import_module", "__import__", "run_path", "run_module", "exec_module"),
    *("iter_modules", "walk_packages", "entry_points", "__subclasses__"),
}

# Methods that change a list, a dict or a set, though they return something.
_CHANGING = {"pop", "popitem", "setdefault", "register"}

# Functions of Python that only look at what they are given.
_LOOKING = {
    *(("print",), ("len",), ("str",), ("repr",), ("round",), ("sum",), ("type",)),
    *(("min",), ("max",), ("isinstance",), ("format",)),
}

_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
_Definition: TypeAlias = _Function | ast.ClassDef
_CONSTRUCTORS = {
    *("__init__", "__new__", "__post_init__", "__init_subclass__", "__set_name__"),
    *("__enter__", "__call__"),
}


@dataclasses.dataclass(frozen=True)
class Import:
    """What a local name stands for: a module, or a name in one."""

    module: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"


@dataclasses.dataclass(frozen=True)
class Imports:
    """What import statements bring.

    Attributes:
        names: What local names stand for; more than one thing where it depends.
        modules: The modules, in order; of `from package import name` both `package`
            and `package.name`, which may be none.
        stars: Those of which all names are imported, in order.
    """

    names: Mapping[str, tuple[Import, ...]]
    modules: tuple[str, ...]
    stars: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Block:
    """Statements that count together.

    Attributes:
        digest: Digest of them, and of what their names are imported as.
        references: The names that they use.
        imports: What is imported inside them.
        is_dynamic: Whether names may be looked up at run time.
        reads_beside: Whether files may be read that lie beside this one.
    """

    digest: str
    references: frozenset[Reference]
    imports: Imports
    is_dynamic: bool
    reads_beside: bool


@dataclasses.dataclass(frozen=True)
class Call:
    """Something that is called, and the names that are handed to it."""

    called: Reference
    passed: tuple[Reference, ...]


@dataclasses.dataclass(frozen=True)
class Effects:
    """What statements may do beside binding names, as far as one text tells.

    Attributes:
        is_sure: Whether they do something, whatever their names stand for.
        is_changed: Whether what they bind is changed by other statements.
        calls: What they call.
        bare: What they call and do nothing with what it returns.
        decorators: What they decorate with.
        bases: What they derive classes from.
        modules: The modules that they import.
    """

    is_sure: bool = False
    is_changed: bool = False
    calls: tuple[Call, ...] = ()
    bare: frozenset[Reference] = frozenset()
    decorators: frozenset[Reference] = frozenset()
    bases: frozenset[Reference] = frozenset()
    modules: tuple[str, ...] = ()


class Module:
    """A module's text, taken apart.

    Args:
        source: Its bytes.
        name: Its name.
        is_package: Whether it is the `__init__.py` of a package.

    Attributes:
        is_package: Whether it is.
        imports: What its statements import, without those inside of functions.

    Raises:
        SyntaxError: If it is no Python.
        ValueError: Likewise.
    """

    def __init__(self, source: bytes, name: str, is_package: bool) -> None:
        self.is_package = is_package
        self._package = name if is_package else name.rpartition(".")[0]
        tree = ast.parse(source)
        if b"__doc__" not in source:
            _drop_docstrings(tree)
        self._statements = _without_runs(tree.body, self._package)
        # By the names that they are about; in order.
        self._definitions: dict[str, list[ast.stmt]] = {}
        self._loose: list[ast.stmt] = []
        self._changed: set[str] = set()
        self._aliases: set[str] = set()
        # Where and how names are bound, because the last wins: "" by a definition.
        self._bound: dict[str, list[tuple[int, str]]] = {}
        self._blocks: dict[str, Block] = {}
        self.imports = self._divided(
            [each for each in self._statements if not _is_for_checkers(each)]
        )

    def _divided(self, statements: Iterable[ast.stmt]) -> Imports:
        """Give each statement to the names that it is about; return the imports."""
        importing: list[ast.stmt] = []
        others = []
        for number, statement in enumerate(statements):
            executed = _Executed([statement])
            importing += executed.imports
            self._aliases |= executed.aliases
            if isinstance(statement, ast.Import | ast.ImportFrom):
                found = _imports([statement], self._package)
                for name, targets in found.names.items():
                    self._bind(name, number, *map(str, targets))
                self._bind("*", number, *found.stars)
                continue
            others.append((statement, executed))
            for name in dict.fromkeys([*executed.bound, *executed.globals]):
                self._definitions.setdefault(name, []).append(statement)
                self._bind(name, number, "")
        imports = _imports(importing, self._package)
        for statement, executed in others:
            self._give(statement, executed, imports)
        for each in self._definitions.values():
            each.sort(key=_place_in_text)
        return imports

    def _bind(self, name: str, number: int, *targets: str) -> None:
        self._bound.setdefault(name, []).extend((number, each) for each in targets)

    def _give(self, statement: ast.stmt, executed: _Executed, imports: Imports) -> None:
        """Give a statement to what it changes, or put it among the loose ones."""
        is_loose = (
            not (executed.bound or executed.changed)
            and bool(executed.calls)
            and not all(each.called in _LOOKING for each in executed.calls)
        )
        for name, *rest in dict.fromkeys(executed.changed):
            if rest and name in self._definitions:
                self._changed.add(name)
                if name not in executed.bound:
                    self._definitions[name].append(statement)
            elif not _is_ours(imports.names.get(name, ())):
                is_loose = True
        if is_loose:
            self._loose.append(statement)

    @property
    def names(self) -> Collection[str]:
        """The names that are bound at the top level, other than by imports alone."""
        return self._definitions.keys()

    @property
    def has_loose(self) -> bool:
        """Whether there are statements beside the definitions."""
        return bool(self._loose)

    def has(self, name: str) -> bool:
        """Return whether a name is bound by a definition or an import of its own."""
        return name in self._bound

    def may_be_another(self, name: str) -> bool:
        """Return whether a name may stand for what has another name as well."""
        return name in self._aliases

    def is_function(self, name: str) -> bool:
        """Return whether a name stands for a function that is defined here."""
        defined = self._definitions.get(name, ())  # none of the module itself
        return any(isinstance(each, _Function) for each in defined)

    def order(self, names: Collection[str]) -> str:
        """Return the order of the statements of definitions, and of loose ones."""
        return " ".join(name for _, name in self._placed(names))

    def place(self, name: str, names: Collection[str]) -> int:
        """Return how many of some statements come before a definition is executed.

        That of a function depends on nothing but its defaults and decorators.
        """
        executed = [
            each
            for each in self._definitions.get(name, ())
            if not isinstance(each, _Function) or _is_computed(each)
        ]
        if not executed:
            return 0
        first = _place_in_text(executed[0])
        return sum(place < first for place, _ in self._placed(names))

    def _placed(self, names: Collection[str]) -> list[tuple[tuple[int, int], str]]:
        return sorted(
            (_place_in_text(each), name)
            for name in names
            for each in (self._loose if name == LOOSE else self._definitions[name])
        )

    def block(self, name: str) -> Block:
        """Return what counts together under a name.

        Args:
            name: Of a definition, or of what is only handed on by an import; `LOOSE`
                for the statements that belong to no name, `WHOLE` for all of them.
        """
        if name not in self._blocks:
            special = {LOOSE: self._loose, WHOLE: self._statements}
            statements = {**self._definitions, **special}.get(name)
            self._blocks[name] = (
                self._handed_on(name)
                if statements is None
                else self._block(name, statements)
            )
        return self._blocks[name]

    def _handed_on(self, name: str) -> Block:
        digest = hashlib.sha256(self._as(name).encode()).hexdigest()
        return Block(digest, frozenset(), Imports({}, (), ()), False, False)

    def _as(self, name: str) -> str:
        """Return what a name is imported as, if it may be, as text."""
        bound = [*self._bound.get(name, ()), *self._bound.get("*", ())]
        targets = [target for _, target in sorted(bound)]
        return f"{name}={targets}" if any(targets) else ""

    def _block(self, name: str, statements: Iterable[ast.stmt]) -> Block:
        digest = hashlib.sha256(self._as(name).encode())
        references: set[Reference] = set()
        importing: list[ast.stmt] = []
        for statement in statements:
            digest.update(_told(statement))
            for node in _followed(statement):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    importing.append(node)
                elif isinstance(node, ast.Attribute | ast.Name):
                    references.add(_chain(node))
        references.discard(())
        for used in sorted({each[0] for each in references}):
            digest.update(self._as(used).encode())
            if len(self._definitions.get(used, ())) > 1:
                digest.update(f"{used} {self.place(name, [used])}".encode())
        return Block(
            digest=digest.hexdigest(),
            references=frozenset(references),
            imports=_imports(importing, self._package),
            is_dynamic=any(map(_is_dynamic, references)),
            reads_beside=any(
                each[0] == "__file__" or each[-1] == "get_data" for each in references
            ),
        )

    @cached_property
    def effects(self) -> Mapping[str, Effects]:
        """What importing the module may do by each definition, if that is anything."""
        found = {
            name: self._effects(_Executed(statements), name)
            for name, statements in self._definitions.items()
        }
        return {name: each for name, each in found.items() if each != Effects()}

    def _effects(self, executed: _Executed, name: str) -> Effects:
        is_changed = name in self._changed
        return Effects(
            is_sure=is_changed
            and (name in executed.aliases or name in self.imports.names),
            is_changed=is_changed,
            # What it is changed by is its own.
            calls=tuple(each for each in executed.calls if each.called[:1] != (name,)),
            decorators=frozenset(executed.decorators),
            bases=frozenset(executed.bases),
        )

    def effects_of_call(self, name: str, method: str = "") -> Effects | None:
        """Return what calling a function or a class may do; None if it is neither.

        Args:
            name: Its name.
            method: Name of a method of the class that is called instead.
        """
        statements = self._definitions[name]
        if len(statements) != 1:
            return None
        (found,) = statements
        if isinstance(found, ast.ClassDef):
            if not method:
                return _of_class(found, self._package)
            called = _methods(found).get(method)
            return _of_function(called, self._package) if called else None
        if isinstance(found, _Function):
            return _of_function(found, self._package)
        return None

    def keeps_subclasses(self, name: str) -> bool:
        """Return whether a class is told of those that derive from it."""
        return any(
            isinstance(each, ast.ClassDef)
            and (
                any(
                    keyword.arg == "metaclass"
                    and _chain(keyword.value)[-1:] != ("ABCMeta",)
                    for keyword in each.keywords
                )
                or "__init_subclass__" in _methods(each)
            )
            for each in self._definitions[name]
        )


class _Executed(ast.NodeVisitor):
    """What statements do when they are executed, not what their functions do later.

    Attributes:
        bound: The names that they bind.
        aliases: Those of them that may stand for what has another name as well.
        returned: Those of them that stand for what a call returned.
        inner: The functions and classes that they define.
        globals: The names that their functions bind for the whole module.
        changed: What they change: a name with what follows it; `()` for anything.
        calls: What they call.
        decorators: What they decorate with.
        bases: What they derive classes from.
        imports: Their import statements.
    """

    def __init__(self, statements: Iterable[ast.AST]) -> None:
        self.bound: list[str] = []
        self.aliases: set[str] = set()
        self.returned: set[str] = set()
        self.inner: dict[str, _Definition] = {}
        self.globals: list[str] = []
        self.changed: list[Reference] = []
        self.calls: list[Call] = []
        self.decorators: set[Reference] = set()
        self.bases: set[Reference] = set()
        self.imports: list[ast.stmt] = []
        self._is_in_class = False
        for each in statements:
            self.visit(each)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        if not self._is_in_class:
            self.bound += _imports([node], "").names
        self.imports.append(node)

    visit_ImportFrom = visit_Import

    def visit_FunctionDef(self, node: _Function) -> None:
        self._bind(node.name)
        self.inner[node.name] = node
        self._decorated(node)
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        for inner in ast.walk(node):
            if isinstance(inner, ast.Global):
                self.globals += inner.names

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._bind(node.name)
        self.inner[node.name] = node
        self._decorated(node)
        for base in (*node.bases, *(each.value for each in node.keywords)):
            self.bases.add(_chain(base))
            self.visit(base)
        was, self._is_in_class = self._is_in_class, True
        for each in node.body:
            self.visit(each)
        self._is_in_class = was

    def _decorated(self, node: _Definition) -> None:
        if self._is_in_class:
            self.calls += [Call(each, ()) for each in _decorators(node)]
        else:
            self.decorators |= _decorators(node)
        for each in node.decorator_list:
            self.visit(each)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call) and not _does_nothing(node.value):
            called = _chain(node.value.func)
            self.changed.append((*called, "()") if called[1:] else called or ("",))
        elif not isinstance(node.value, ast.Call | ast.Constant):
            self.changed.append(("",))  # such as `first >> second`
        self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        called = _chain(node.func)
        given = (*node.args, *(each.value for each in node.keywords))
        passed = tuple(filter(None, map(_chain, given)))
        self.calls.append(Call(called, passed))
        if called[1:] and called[-1] in _CHANGING:
            self.changed.append((*called, "()"))
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign | ast.AnnAssign | ast.NamedExpr) -> None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for each in targets:
            if isinstance(node.value, _OTHERS):
                self.aliases |= _names_in(each)
            elif isinstance(node.value, ast.Call) and not _makes(node.value):
                self.returned |= _names_in(each)
        self.generic_visit(node)

    visit_AnnAssign = visit_NamedExpr = visit_Assign

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.changed.append((node.target.id, "+="))
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        self.aliases |= _names_in(node.target)
        self.generic_visit(node)

    def visit_withitem(self, node: ast.withitem) -> None:
        if node.optional_vars is not None:
            self.aliases |= _names_in(node.optional_vars)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for each in (node.iter, *node.ifs):
            self.visit(each)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self._bind(node.id)
        elif isinstance(node.ctx, ast.Del):
            self.changed.append((node.id, "del"))

    def visit_Attribute(self, node: ast.Attribute | ast.Subscript) -> None:
        if not isinstance(node.ctx, ast.Load):
            self.changed.append(_place(node) or ("",))
        self.generic_visit(node)

    visit_Subscript = visit_Attribute

    def visit_MatchAs(self, node: ast.MatchAs | ast.MatchStar) -> None:
        if node.name is not None:
            self._bind(node.name)
            self.aliases.add(node.name)
        self.generic_visit(node)

    visit_MatchStar = visit_MatchAs

    def visit_Global(self, node: ast.Global | ast.Nonlocal) -> None:
        self.globals += node.names

    visit_Nonlocal = visit_Global

    def _bind(self, name: str) -> None:
        if not self._is_in_class:
            self.bound.append(name)


# What may stand for an object that has another name as well.
_OTHERS = (ast.Name, ast.Attribute, ast.Subscript, ast.IfExp, ast.BoolOp, ast.NamedExpr)


def _of_function(
    function: _Function, package: str, *, makes_first: bool = False
) -> Effects:
    """Return what calling a function may do.

    Args:
        function: The function.
        package: The package that it is in.
        makes_first: Whether its first argument is an object that is being made.
    """
    executed = _Executed(function.body)
    arguments = [
        each.arg for each in ast.walk(function.args) if isinstance(each, ast.arg)
    ]
    local = {*executed.bound, *arguments}
    made = local - {*arguments, *executed.aliases, *executed.returned}
    first = tuple(arguments[:1]) if makes_first else None
    is_sure, bare = bool(executed.globals), set()
    for changed in executed.changed:
        if changed[0] in made or (changed[:1] == first and len(changed) == 2):
            continue
        if changed[0] not in ("", *local) and changed[-1] in ("()", changed[0]):
            bare.add(changed[:-1] or changed)
        else:
            is_sure = True
    used = {each for call in executed.calls for each in (call.called, *call.passed)}
    inner = [
        executed.inner[each[0]]
        for each in used
        if each[:1] and each[0] in executed.inner
    ]
    return _together(
        Effects(
            is_sure=is_sure or any(isinstance(each, ast.ClassDef) for each in inner),
            calls=tuple(
                Call((), each.passed) if {*each.called[:1]} <= local else each
                for each in executed.calls
            ),
            bare=frozenset(bare),
            decorators=_decorators(function),
            modules=_imports(executed.imports, package).modules,
        ),
        *(_of_function(each, package) for each in inner if isinstance(each, _Function)),
    )


def _of_class(owner: ast.ClassDef, package: str) -> Effects:
    """Return what making an object of a class may do."""
    made_by = [*owner.bases, *(each.value for each in owner.keywords)]
    return _together(
        Effects(
            calls=tuple(Call(_chain(each), ()) for each in made_by),
            decorators=_decorators(owner),
        ),
        *(
            _of_function(each, package, makes_first=True)
            for name, each in _methods(owner).items()
            if name in _CONSTRUCTORS
        ),
    )


def _together(*effects: Effects) -> Effects:
    return Effects(
        is_sure=any(each.is_sure for each in effects),
        calls=tuple(call for each in effects for call in each.calls),
        bare=frozenset(name for each in effects for name in each.bare),
        decorators=frozenset(name for each in effects for name in each.decorators),
        modules=tuple(name for each in effects for name in each.modules),
    )


def _makes(call: ast.Call) -> bool:
    """Return whether what a call returns is new, as its name tells."""
    name = _chain(call.func)[-1:]
    return name in _CONTAINERS or (name != () and name[0][:1].isupper())


_CONTAINERS = {(each,) for each in ("dict", "list", "set", "defaultdict", "deque")}


def is_harmless(decorator: Reference) -> bool:
    """Return whether a library's decorator gives back what it is given, and no more."""
    return decorator[-1:] != () and decorator[-1] in _HARMLESS


def _does_nothing(call: ast.Call) -> bool:
    """Return whether a call changes nothing that lasts, beside an object being made."""
    called = call.func
    if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Call):
        return _chain(called.value.func) == ("super",)
    return _chain(called) in (("print",), ("object", "__setattr__"))


def _is_ours(targets: Iterable[Import]) -> bool:
    """Return whether a name is one of penstock, which keeps nothing of a user's."""
    return {each.module.partition(".")[0] for each in targets} == {"penstock"}


def _decorators(definition: _Definition) -> frozenset[Reference]:
    return frozenset(
        _chain(each.func if isinstance(each, ast.Call) else each)
        for each in definition.decorator_list
    )


def _methods(owner: ast.ClassDef) -> dict[str, _Function]:
    return {each.name: each for each in owner.body if isinstance(each, _Function)}


def _names_in(target: ast.AST) -> set[str]:
    """Return the names that are bound by an assignment to a target."""
    return {
        each.id
        for each in ast.walk(target)
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
    }


def _chain(node: ast.AST) -> Reference:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ()
    return (node.id, *reversed(parts))


def _is_computed(function: _Function) -> bool:
    """Return whether something is computed where a function is defined."""
    defaults = [*function.args.defaults, *function.args.kw_defaults]
    return bool(function.decorator_list) or not all(
        isinstance(each, ast.Constant | None) for each in defaults
    )


def _place_in_text(statement: ast.stmt) -> tuple[int, int]:
    return statement.lineno, statement.col_offset


def _place(node: ast.AST) -> Reference:
    """Return the name that an assigned place begins with, and the steps from there."""
    steps = 0
    while isinstance(node, ast.Attribute | ast.Subscript):
        steps += 1 if isinstance(node, ast.Attribute) else 2
        node = node.value
    return (node.id, *[""] * steps) if isinstance(node, ast.Name) else ()


def _imports(statements: Iterable[ast.AST], package: str) -> Imports:
    names: dict[str, tuple[Import, ...]] = {}
    modules: dict[str, None] = {}
    stars = []

    def bring(name: str, target: Import) -> None:
        names[name] = (*names.get(name, ()), target)

    for statement in statements:
        if isinstance(statement, ast.Import):
            for each in statement.names:
                modules[each.name] = None
                top = each.name.partition(".")[0]
                bring(each.asname or top, Import(each.name if each.asname else top))
        elif isinstance(statement, ast.ImportFrom):
            origin = _origin(statement, package)
            modules[origin] = None
            for each in statement.names:
                if each.name == "*":
                    stars.append(origin)
                else:
                    modules[f"{origin}.{each.name}"] = None
                    bring(each.asname or each.name, Import(origin, each.name))
    return Imports(names, tuple(modules), tuple(stars))


def _origin(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    base = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def _told(node: ast.AST) -> bytes:
    """Return a node as text that is another for another node, without places."""
    parts: list[str] = []
    left: list[Any] = [node]
    while left:  # no recursion: long sums are nested deeply
        each = left.pop()
        if isinstance(each, ast.AST):
            parts.append(f"{type(each).__name__}(")
            left += [")", *(value for _, value in reversed([*ast.iter_fields(each)]))]
        elif isinstance(each, list):
            parts.append("[")
            left += ["]", *reversed(each)]
        else:
            # Very long numbers have no decimal text.
            parts.append(f"{hex(each) if type(each) is int else repr(each)},")
    return "".join(parts).encode("utf-8", "surrogatepass")


def _followed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes whose names matter when the code runs.

    Annotations of functions and of variables inside them do not; those of classes do,
    because dataclasses and components read them.
    """
    left: list[tuple[Any, bool]] = [(node, False)]
    while left:
        each, is_in_function = left.pop()
        if isinstance(each, list):
            left += [(item, is_in_function) for item in each]
        if not isinstance(each, ast.AST):
            continue
        yield each
        if isinstance(each, ast.Attribute) and _chain(each):
            continue
        is_function = isinstance(each, _Function)
        for field, value in ast.iter_fields(each):
            if field in ("returns", "annotation") and (
                is_function or is_in_function or isinstance(each, ast.arg)
            ):
                continue
            is_inside = is_function and field == "body"
            is_class = isinstance(each, ast.ClassDef)
            left.append((value, is_inside or (is_in_function and not is_class)))


def _is_dynamic(reference: Reference) -> bool:
    return (
        reference[0] in _DYNAMIC
        or reference[-1] in _DYNAMIC_ATTRIBUTES
        or reference[:2] == ("sys", "modules")
    )


def _drop_docstrings(tree: ast.Module) -> None:
    """Take docstrings out, and other expressions that are nothing but text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | _Definition):
            kept = [each for each in node.body if not _is_text(each)]
            node.body = kept or ([] if node is tree else [ast.Pass()])


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _is_for_checkers(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.If)
        and _chain(statement.test)[-1:] == ("TYPE_CHECKING",)
        and not statement.orelse
    )


def _without_runs(statements: list[ast.stmt], package: str) -> list[ast.stmt]:
    """Leave out what runs a pipeline, and what looks at the result of that.

    It is no part of what runs: a script whose last lines run a pipeline may print
    something else of it the next time. The same of what a module does only when it is
    run itself. What sets something of another object stays, and what binds a name that
    anything that stays reads.
    """
    imports = _imports(statements, package).names

    def is_run(node: ast.AST) -> bool:
        called = _chain(node.func) if isinstance(node, ast.Call) else ()
        targets = imports.get(called[0], ()) if called else ()
        return called[-1:] == ("run",) and len(called) <= 2 and _is_ours(targets)

    def only_runs(statement: ast.stmt) -> bool:
        changed = _Executed([statement]).changed
        if _is_main_guard(statement):  # what it calls, nobody else has called
            return all(each[-1:] == ("()",) or len(each) == 1 for each in changed)
        nodes = list(ast.walk(statement))
        return (
            not isinstance(statement, _Definition)
            and any(is_run(each) or _reads(each) & results for each in nodes)
            and all(each[0] in results or each in _ENDING for each in changed)
        )

    results = {
        name
        for statement in statements
        if not isinstance(statement, _Definition)
        for node in ast.walk(statement)
        if isinstance(node, ast.Assign) and is_run(node.value)
        for target in node.targets
        for name in _names_in(target)
    }
    left_out = [each for each in statements if only_runs(each)]
    while True:
        kept = [each for each in statements if each not in left_out]
        nodes = itertools.chain.from_iterable(map(ast.walk, kept))
        read = {name for node in nodes for name in _reads(node)}
        still = [each for each in left_out if not read & {*_Executed([each]).bound}]
        if len(still) == len(left_out):
            return kept
        left_out = still


# Calls that end a script.
_ENDING = (("sys", "exit", "()"), ("exit",))


def _reads(node: ast.AST) -> set[str]:
    """Return the name that a node is, if it reads one."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        return {node.id}
    return set()


def _is_main_guard(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.If)
        and ast.unparse(statement.test)
        in ("__name__ == '__main__'", "'__main__' == __name__")
        and not statement.orelse
    )
