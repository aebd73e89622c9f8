"""Random small projects whose definitions use one another in many ways."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable, Iterator

MODULES = ("base", "tools", "more", "steps")

_REGISTRY = """
ALL = []
KINDS = []


def register(function):
    ALL.append(function)
    return function


def kept(level, function):
    ALL.append(function)
    return level


class Kind:
    def __init_subclass__(cls):
        KINDS.append(cls)


class Rule:
    all = []

    def __init__(self, level):
        self.level = level
        Rule.all.append(self)

    def get(self):
        return self.level


class Plain:
    def __init__(self, level):
        self.level = level

    def get(self):
        return self.level
"""

_COMPONENT = """

from penstock import Component


class Say(Component):
    def say(self):
        return [{said}]
"""


@dataclasses.dataclass
class Definition:
    """A statement that has a number of its own and may use what comes before it.

    Attributes:
        name: The name that it binds.
        module: The module that it is in.
        text: The statements, with `{level}` for its number.
        value: An expression of what it says, with `{name}` for the name.
        level: Its number.
    """

    name: str
    module: str
    text: str
    value: str
    level: int


class Graph:
    """A project.

    Args:
        seed: The same, the same project.
        size: How many definitions it has.

    Attributes:
        definitions: The definitions, in order.
        heads: What stands above them, by module.
    """

    def __init__(self, seed: int, size: int = 14) -> None:
        self._random = random.Random(seed)
        self.definitions: list[Definition] = []
        self.heads: dict[str, list[str]] = {each: [] for each in MODULES}
        self._head_names: dict[tuple[str, str], str] = {}
        places = sorted(self._random.choice(range(4)) for _ in range(size))
        for number, place in enumerate(places):
            self._define(number, MODULES[place])
        self._said = [
            self._used("steps", each)
            for each in self._random.sample(
                self.definitions, self._random.randint(1, 4)
            )
        ]
        if self._random.random() < 0.4:
            self.heads["steps"].append("from . import registry")
            self._said.append("sorted(each() for each in registry.ALL)")
        if self._random.random() < 0.3:
            self.heads["steps"].append("from . import registry")
            self._said.append("sorted(each.level for each in registry.Rule.all)")
        if self._random.random() < 0.3:
            self.heads["steps"].append("from . import registry")
            self._said.append("sorted(each.level for each in registry.KINDS)")

    def files(self) -> dict[str, str]:
        """Return the texts, by path without suffix."""
        texts = {"project/__init__": "", "project/registry": _REGISTRY}
        for module in MODULES:
            lines = list(self.heads[module])
            for each in self.definitions:
                if each.module == module:
                    lines.append(each.text.replace("{level}", str(each.level)))
            texts[f"project/{module}"] = "\n".join(lines) + "\n"
        texts["project/steps"] += _COMPONENT.format(said=", ".join(self._said))
        return texts

    def _define(self, number: int, module: str) -> None:
        kinds: list[Callable[[str, str], tuple[str, str]]] = [
            self._constant,
            self._function,
            self._function,
            self._method,
            self._alias,
            self._table,
            self._partial,
            self._plain,
            self._rule,
            self._registered,
            self._kept,
            self._kind,
            self._conditional,
            self._twice,
            self._growing,
            self._patch,
            self._looped,
            self._wrapped,
        ]
        name = f"d{number}"
        text, value = self._random.choice(kinds)(name, module)
        self.definitions.append(Definition(name, module, text, value, number + 1))

    # Ways to use what is there ---------------------------------------------------

    def _any(self, module: str) -> str:
        """Return an expression of some earlier definition's value, or a number."""
        if not self.definitions or self._random.random() < 0.25:
            return "0"
        return self._used(module, self._random.choice(self.definitions))

    def _used(self, module: str, used: Definition) -> str:
        if used.module == module:
            return used.value.replace("{name}", used.name)
        heads = self.heads[module]
        way = self._random.choice(["from", "as", "module", "dotted", "star", "inside"])
        name = used.name
        if way == "from":
            heads.append(f"from .{used.module} import {name}")
        elif way == "as":
            heads.append(f"from .{used.module} import {name} as other_{name}")
            name = f"other_{name}"
        elif way == "module":
            heads.append(f"from . import {used.module}")
            name = f"{used.module}.{name}"
        elif way == "dotted":
            heads.append(f"import project.{used.module}")
            name = f"project.{used.module}.{name}"
        elif way == "star":
            heads.insert(0, f"from .{used.module} import *")
        else:
            value = used.value.replace("{name}", name)
            heads.append(
                f"def use_{name}():\n    from .{used.module} import {name}\n"
                f"    return {value}"
            )
            return f"use_{name}()"
        return used.value.replace("{name}", name)

    # Kinds of definitions --------------------------------------------------------

    def _constant(self, name: str, module: str) -> tuple[str, str]:
        return f"{name} = {{level}} + {self._any(module)}", "{name}"

    def _function(self, name: str, module: str) -> tuple[str, str]:
        used = self._any(module)
        return (
            f"def {name}(extra={self._any(module)}):\n"
            f"    value = {{level}} + extra\n    return value + {used}",
            "{name}()",
        )

    def _method(self, name: str, module: str) -> tuple[str, str]:
        classes = [
            each
            for each in self.definitions
            if each.module == module and each.text.startswith("class Plain_")
        ]
        base = f"Plain_{self._random.choice(classes).name}" if classes else "object"
        return (
            f"class Plain_{name}({base}):\n    level = {{level}}\n\n"
            f"    @property\n    def get(self):\n"
            f"        return self.level + {self._any(module)}\n"
            f"{name} = Plain_{name}()",
            "{name}.get",
        )

    def _alias(self, name: str, module: str) -> tuple[str, str]:
        functions = [
            each
            for each in self.definitions
            if each.module == module and each.text.startswith("def ")
        ]
        if not functions:
            return self._function(name, module)
        return f"{name} = {self._random.choice(functions).name}", "{name}()"

    def _table(self, name: str, module: str) -> tuple[str, str]:
        used = self._any(module)
        return f"{name} = {{'one': lambda: {{level}} + {used}}}", "{name}['one']()"

    def _partial(self, name: str, module: str) -> tuple[str, str]:
        self.heads[module].append("import functools")
        return (
            f"def _{name}(value, extra):\n    return value + extra\n"
            f"{name} = functools.partial(_{name}, {{level}}, {self._any(module)})",
            "{name}()",
        )

    def _plain(self, name: str, module: str) -> tuple[str, str]:
        self.heads[module].append("from .registry import Plain")
        return f"{name} = Plain({{level}} + {self._any(module)})", "{name}.get()"

    def _rule(self, name: str, module: str) -> tuple[str, str]:
        self.heads[module].append("from . import registry")
        used = self._any(module)
        return f"{name} = registry.Rule({{level}} + {used})", "{name}.get()"

    def _registered(self, name: str, module: str) -> tuple[str, str]:
        self.heads[module].append("from .registry import register")
        return (
            f"@register\ndef {name}():\n    return {{level}} + {self._any(module)}",
            "{name}()",
        )

    def _kept(self, name: str, module: str) -> tuple[str, str]:
        self.heads[module].append("from .registry import kept")
        used = self._any(module)
        return f"{name} = kept(1, lambda: {{level}} + {used})", "{name}"

    def _kind(self, name: str, module: str) -> tuple[str, str]:
        self.heads[module].append("from .registry import Kind")
        used = self._any(module)
        return f"class {name}(Kind):\n    level = {{level}} + {used}", "{name}.level"

    def _conditional(self, name: str, module: str) -> tuple[str, str]:
        used = self._any(module)
        return (
            f"try:\n    from .nowhere import {name}\nexcept ImportError:\n"
            f"    def {name}():\n        return {{level}} + {used}",
            "{name}()",
        )

    def _twice(self, name: str, module: str) -> tuple[str, str]:
        return (
            f"def {name}():\n    return {{level}}\n_old_{name} = {name}\n"
            f"def {name}():\n    return _old_{name}() + {self._any(module)}",
            "{name}()",
        )

    def _growing(self, name: str, module: str) -> tuple[str, str]:
        return (
            f"{name} = [1]\n{name}.append({{level}})\n"
            f"if len({name}) > 1:\n    {name} += [{self._any(module)}]",
            "sum({name})",
        )

    def _patch(self, name: str, module: str) -> tuple[str, str]:
        others = [
            each
            for each in self.definitions
            if each.module != module and each.value == "{name}"
        ]
        if not others:
            return self._constant(name, module)
        other = self._random.choice(others)
        self.heads[module].append(f"from . import {other.module}")
        return (
            f"{name} = 1\n{other.module}.{other.name} = {{level}}",
            "{name}",
        )

    def _looped(self, name: str, module: str) -> tuple[str, str]:
        used = self._any(module)
        return f"for {name} in [0, {{level}} + {used}]:\n    pass", "{name}"

    def _wrapped(self, name: str, module: str) -> tuple[str, str]:
        self.heads[module].append("import functools")
        return (
            f"def _wrap_{name}(function):\n    @functools.wraps(function)\n"
            f"    def wrapper():\n        return function() + {self._any(module)}\n"
            f"    return wrapper\n"
            f"@_wrap_{name}\ndef {name}():\n    return {{level}}",
            "{name}()",
        )


def mutations(graph: Graph) -> Iterator[str]:
    """Change the number of each definition, and each import, and put it back."""
    for each in graph.definitions:
        was, each.level = each.level, each.level + 1_000
        yield f"the number of {each.name}"
        each.level = was
    for module, heads in graph.heads.items():
        for index, head in enumerate(heads):
            for other in _others(graph, head):
                heads[index] = other
                yield f"'{other}' for '{head}' in {module}"
            heads[index] = head
        if len({each for each in heads if each.endswith("*")}) > 1:
            was_heads, heads[:] = list(heads), heads[::-1]
            yield f"the order of imports in {module}"
            heads[:] = was_heads


def _others(graph: Graph, head: str) -> Iterator[str]:
    """Yield imports of something else under the name that one brings."""
    found = re.fullmatch(r"from \.(\w+) import (d\d+)(?: as (\w+))?", head)
    if found is None:
        return
    module, name, alias = found.groups()
    by_name = {each.name: each for each in graph.definitions}
    for other in graph.definitions:
        same = other.module == module and other.value == by_name[name].value
        if same and other.name != name:
            yield f"from .{module} import {other.name} as {alias or name}"
