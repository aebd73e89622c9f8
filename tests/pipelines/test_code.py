"""What code a component reaches: edits that its digest must show, and others.

Each case is a small project, an edit of it, and whether the digest of the component's
code must be another after it. Both versions are also executed: where the component
then says something else, the digest must have changed, whatever the case says.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import itertools
import linecache
import os
import subprocess
import sys
import textwrap
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from penstock.pipelines.code import Code, Reader
from penstock.schemas.errors import PipelineError

COMPONENT = """
    from penstock import Component

    class Say(Component):
        text: str = ""

        def say(self):
            return {expression}
    """


@contextlib.contextmanager
def loaded(folder: Path, module: str = "project.steps") -> Iterator[Any]:
    """Import a module of a project, and forget all of the project's afterwards."""
    sys.path.insert(0, str(folder))
    before = set(sys.modules)
    importlib.invalidate_caches()
    try:
        yield importlib.import_module(module)
    finally:
        sys.path.remove(str(folder))
        new = [name for name in sys.modules if name not in before]
        for name in [n for n in new if _place(sys.modules[n]).startswith(str(folder))]:
            del sys.modules[name]


def _place(module: Any) -> str:
    names = vars(module)
    return names.get("__file__") or "".join(names.get("__path__", ()))


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write a project: texts by path, without a suffix."""
    for name, text in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def said(folder: Path, files: Mapping[str, str]) -> tuple[Code, object]:
    """Return the code that the component of a project reaches, and what it says."""
    write(folder, files)
    with loaded(folder) as steps:
        first = (
            importlib.import_module("project.first")
            if "project/first" in files
            else None
        )
        component = first.make() if first else steps.Say()
        try:
            answer: object = component.say()
        except Exception as error:
            answer = repr(error)
        return Reader().code_of(component), answer


@dataclasses.dataclass(frozen=True)
class Case:
    """An edit.

    Attributes:
        name: What it is about.
        files: The project, by path without suffix; `%` stands for `before`, `after`.
        before: Text before it.
        after: Text after it.
        expression: What the component in `project/steps` says.
        head: What stands above the component there.
        is_seen: Whether the digest must be another.
        changes: Whether the component says something else.
    """

    name: str
    head: str
    expression: str
    files: Mapping[str, str]
    before: str
    after: str
    is_seen: bool = True
    changes: bool = True

    def version(self, text: str) -> dict[str, str]:
        component = textwrap.dedent(COMPONENT).format(expression=self.expression)
        head = textwrap.dedent(self.head)
        files = {
            "project/__init__": "",
            "project/steps": head + component,
            **self.files,
        }
        return {
            name: textwrap.dedent(each).replace("%", text)
            for name, each in files.items()
        }


_REGISTERING = """
            ALL = []

            def rule(function):
                ALL.append(function)
                return function
            """

CASES = [
    Case(
        "an alias of an import is another function of the same module",
        "from .stats import % as middle, mean, median",
        "middle([1, 2, 9]) + 0 * mean([1]) + 0 * median([1])",
        {
            "project/stats": """
            def mean(values):
                return sum(values) / len(values)

            def median(values):
                return sorted(values)[len(values) // 2]
            """
        },
        "mean",
        "median",
    ),
    Case(
        "a name that a package hands on is another function of it",
        "from .stats import center, mean, median",
        "center([1, 2, 9]) + 0 * mean([1]) + 0 * median([1])",
        {
            "project/stats/__init__": """
            from .functions import mean, median
            from .functions import % as center
            """,
            "project/stats/functions": """
            def mean(values):
                return sum(values) / len(values)

            def median(values):
                return sorted(values)[len(values) // 2]
            """,
        },
        "mean",
        "median",
    ),
    Case(
        "a name that a package hands on is another function of a library",
        "from .stats import rounded",
        "rounded(2.5)",
        {"project/stats": "from math import % as rounded"},
        "floor",
        "ceil",
    ),
    Case(
        "all names of a library are another library's",
        "from .stats import rounded",
        "repr(rounded(2.5))",
        {
            "project/stats": """
            from % import *

            def rounded(value):
                return sqrt(value)
            """
        },
        "math",
        "cmath",
    ),
    Case(
        "the last of two star imports wins",
        "from .stats import *",
        "clean()",
        {
            "project/stats": "from .one import *\nfrom .two import *",
            "project/one": "def clean(): return 0",
            "project/two": "def clean(): return %",
        },
        "1",
        "2",
    ),
    Case(
        "the order of star imports",
        "from .stats import *",
        "clean() + 0 * one() + 0 * two()",
        {
            "project/stats": "from .one import one\nfrom .two import two\n%",
            "project/one": "def clean(): return 1\none = clean",
            "project/two": "def clean(): return 2\ntwo = clean",
        },
        "from .one import *\nfrom .two import *",
        "from .two import *\nfrom .one import *",
    ),
    Case(
        "a package that imports its own module",
        "from . import stats",
        "stats.words.clean()",
        {
            "project/stats/__init__": "from . import words",
            "project/stats/words": "def clean(): return %",
        },
        "1",
        "2",
    ),
    Case(
        "a package that takes all of its own module",
        "from . import stats",
        "stats.clean()",
        {
            "project/stats/__init__": "from .words import *",
            "project/stats/words": "def clean(): return %",
        },
        "1",
        "2",
    ),
    Case(
        "modules that take all of one another",
        "from . import one",
        "one.clean()",
        {
            "project/one": "def clean(): return dirty()\nfrom .two import *",
            "project/two": "from .one import *\ndef dirty(): return %",
        },
        "1",
        "2",
    ),
    Case(
        "one of two imports that may fail",
        "from .stats import clean",
        "clean()",
        {
            "project/stats": """
            try:
                from .fast import clean
            except ImportError:
                from .slow import clean
            """,
            "project/fast": "def clean(): return %",
            "project/slow": "def clean(): return 0",
        },
        "1",
        "2",
    ),
    Case(
        "a local import hides another name of the module in one method only",
        "from .one import clean",
        "self.second()\n\n"
        "    def first(self):\n        from .two import clean\n"
        "        return clean()\n\n"
        "    def second(self):\n        return clean()",
        {
            "project/one": "def clean(): return %",
            "project/two": "def clean(): return 0",
        },
        "1",
        "2",
    ),
    Case(
        "a nested namespace package",
        "import ns.inner.words",
        "ns.inner.words.clean()",
        {"ns/inner/words": "def clean(): return %"},
        "1",
        "2",
    ),
    Case(
        "a module of the user's with the name of one of Python's",
        "import tabnanny as helpers",
        "helpers.clean()",
        {"tabnanny": "def clean(): return %"},
        "1",
        "2",
    ),
    Case(
        "a name bound by a loop",
        "from .stats import word",
        "word",
        {"project/stats": "for word in ['a', '%']:\n    pass"},
        "1",
        "2",
    ),
    Case(
        "a name bound on the way",
        "from .stats import word",
        "word",
        {"project/stats": "if (word := '%'):\n    other = 1"},
        "1",
        "2",
    ),
    Case(
        "a name bound by a context",
        "from .stats import word",
        "word",
        {
            "project/stats": """
            import contextlib
            with contextlib.nullcontext('%') as word:
                other = 1
            """
        },
        "1",
        "2",
    ),
    Case(
        "a name bound by a pattern",
        "from .stats import word",
        "word",
        {"project/stats": "match '%':\n    case word:\n        pass"},
        "1",
        "2",
    ),
    Case(
        "a name bound by a function for the module",
        "from . import stats\nstats.set_up()",
        "stats.word()",
        {
            "project/stats": """
            LEVEL = 0

            def set_up():
                global LEVEL
                LEVEL = %

            def word():
                return LEVEL
            """
        },
        "1",
        "2",
    ),
    Case(
        "one target of several is in another module",
        "from . import stats, patches",
        "stats.LEVEL",
        {
            "project/stats": "LEVEL = 0",
            "project/patches": "from . import stats\nother, stats.LEVEL = 1, %",
        },
        "1",
        "2",
    ),
    Case(
        "a name that is bound twice",
        "from .stats import clean",
        "clean()",
        {
            "project/stats": """
            def clean(): return %
            _first = clean
            def clean(): return _first()
            """
        },
        "1",
        "2",
    ),
    Case(
        "the order of an import and a definition",
        "from .stats import clean",
        "clean()",
        {"project/stats": "%", "project/one": "def clean(): return 1"},
        "from .one import clean\ndef clean(): return 2",
        "def clean(): return 2\nfrom .one import clean",
    ),
    Case(
        "a definition that depends",
        "from .stats import clean",
        "clean()",
        {
            "project/stats": """
            import sys
            if sys.version_info > (3,):
                def clean(): return %
            else:
                def clean(): return 0
            """
        },
        "1",
        "2",
    ),
    Case(
        "what is defined unless types are checked",
        "from .stats import clean",
        "clean()",
        {
            "project/stats": """
            import typing
            if not typing.TYPE_CHECKING:
                LEVEL = %

            def clean(): return LEVEL
            """
        },
        "1",
        "2",
    ),
    Case(
        "what is done unless the module is run itself",
        "from .stats import clean",
        "clean()",
        {
            "project/stats": """
            LEVELS = []
            if __name__ != "__main__":
                LEVELS.append(%)

            def clean(): return LEVELS
            """
        },
        "1",
        "2",
    ),
    # Functions that find their way by other ways than their names.
    Case(
        "a registry that a call adds to, whose result is kept",
        "from . import registry, plugins",
        "[each() for each in registry.ALL]",
        {
            "project/registry": """
            ALL = []

            def register(function):
                ALL.append(function)
                return function
            """,
            "project/plugins": """
            from .registry import register
            def clean(): return %
            handle = register(clean)
            """,
        },
        "1",
        "2",
    ),
    Case(
        "a registry that a method of an object adds to, whose result is kept",
        "from . import registry, plugins",
        "[each() for each in registry.REGISTRY.all]",
        {
            "project/registry": """
            class Registry:
                def __init__(self):
                    self.all = []

                def add(self, function):
                    self.all.append(function)
                    return function

            REGISTRY = Registry()
            """,
            "project/plugins": """
            from .registry import REGISTRY
            handle = REGISTRY.add(lambda: %)
            """,
        },
        "1",
        "2",
    ),
    Case(
        "a registry that is added to in its own module",
        "from . import registry",
        "registry.ALL['clean']()",
        {
            "project/registry": """
            ALL = {}

            def clean(): return %

            ALL["clean"] = clean
            """
        },
        "1",
        "2",
    ),
    Case(
        "a registry that is changed under another name",
        "from . import registry, plugins",
        "registry.ALL['clean']()",
        {
            "project/registry": "ALL = {}",
            "project/plugins": """
            from . import registry
            table = registry.ALL
            table["clean"] = lambda: %
            """,
        },
        "1",
        "2",
    ),
    Case(
        "objects that register themselves when they are made",
        "from . import rules, more",
        "[each.limit for each in rules.Rule.all]",
        {
            "project/rules": """
            class Rule:
                all = []

                def __init__(self, limit):
                    self.limit = limit
                    Rule.all.append(self)
            """,
            "project/more": "from .rules import Rule\nFARE = Rule(%)",
        },
        "1",
        "2",
    ),
    Case(
        "classes that are registered by what they derive from",
        "from . import rules, more",
        "[each.limit for each in rules.Rule.all]",
        {
            "project/rules": """
            class Rule:
                all = []

                def __init_subclass__(cls):
                    Rule.all.append(cls)

            class Special(Rule):
                limit = 0
            """,
            "project/more": (
                "from .rules import Special\nclass Fare(Special): limit = %"
            ),
        },
        "1",
        "2",
    ),
    Case(
        "classes that are registered by their metaclass",
        "from . import rules, more",
        "[each.limit for each in rules.ALL]",
        {
            "project/rules": """
            ALL = []

            class Meta(type):
                def __init__(cls, *args):
                    ALL.append(cls)

            class Rule(metaclass=Meta):
                limit = 0
            """,
            "project/more": "from .rules import Rule\nclass Fare(Rule): limit = %",
        },
        "1",
        "2",
    ),
    Case(
        "classes that are found as subclasses",
        "from . import rules",
        "[each.limit for each in rules.Rule.__subclasses__()]",
        {"project/rules": "class Rule: pass\nclass Fare(Rule): limit = %"},
        "1",
        "2",
    ),
    Case(
        "a method that a decorator registers",
        "from . import rules, more",
        "[each(None) for each in rules.ALL]",
        {
            "project/rules": """
            ALL = []

            def rule(function):
                ALL.append(function)
                return function
            """,
            "project/more": """
            from .rules import rule
            class Rules:
                @rule
                def fare(self): return %
            """,
        },
        "1",
        "2",
    ),
    Case(
        "a decorator of the user's that is called as a harmless one of a library",
        "from . import rules, more",
        "[each() for each in rules.ALL]",
        {
            "project/rules": """
            ALL = []

            def cache(function):
                ALL.append(function)
                return function
            """,
            "project/more": """
            from .rules import cache
            @cache
            def fare(): return %
            """,
        },
        "1",
        "2",
    ),
    Case(
        "a default argument that registers",
        "from . import rules, more",
        "rules.ALL",
        {
            "project/rules": """
            ALL = []

            def rule(value):
                ALL.append(value)
                return value
            """,
            "project/more": "from .rules import rule\ndef other(fare=rule(%)): pass",
        },
        "1",
        "2",
    ),
    Case(
        "a function that is handed to one of Python's, which calls it",
        "from . import rules, more",
        "rules.ALL",
        {
            "project/rules": """
            ALL = []

            def rule(value):
                ALL.append(value)
                return value
            """,
            "project/more": "from .rules import rule\nkept = list(map(rule, [%]))",
        },
        "1",
        "2",
    ),
    Case(
        "a context that patches",
        "from . import rules, more",
        "rules.LEVEL",
        {
            "project/rules": """
            import contextlib

            LEVEL = 0

            @contextlib.contextmanager
            def level(value):
                global LEVEL
                LEVEL = value
                yield
            """,
            "project/more": "from .rules import level\nwith level(%):\n    pass",
        },
        "1",
        "2",
    ),
    Case(
        "an attribute of a class, set from outside",
        "from . import rules, more",
        "rules.Rule.limit",
        {
            "project/rules": "class Rule: limit = 0",
            "project/more": "from .rules import Rule\nRule.limit = %",
        },
        "1",
        "2",
    ),
    Case(
        "a module that is patched by what builds the pipeline",
        "from . import rules",
        "rules.LEVEL",
        {
            "project/rules": "LEVEL = 0",
            "project/first": """
            from . import rules, steps
            rules.LEVEL = %

            def make():
                return steps.Say()
            """,
        },
        "1",
        "2",
    ),
    Case(
        "a plugin that what builds the pipeline imports",
        "from . import rules",
        "[each() for each in rules.ALL]",
        {
            "project/rules": """
            ALL = []

            def rule(function):
                ALL.append(function)
                return function
            """,
            "project/more": """
            from .rules import rule

            @rule
            def fare(): return %
            """,
            "project/first": """
            from . import more, steps

            def make():
                return steps.Say()
            """,
        },
        "1",
        "2",
    ),
    Case(
        "a function of a dict of lambdas",
        "from . import rules",
        "rules.ALL['fare']()",
        {"project/rules": "LEVEL = %\nALL = {'fare': lambda: LEVEL}"},
        "1",
        "2",
    ),
    Case(
        "a partial function",
        "from . import rules",
        "rules.fare()",
        {
            "project/rules": """
            import functools
            def _fare(level): return level
            fare = functools.partial(_fare, %)
            """
        },
        "1",
        "2",
    ),
    Case(
        "a property",
        "from . import rules",
        "rules.Rule().limit",
        {
            "project/rules": """
            def _level(): return %

            class Rule:
                @property
                def limit(self): return _level()
            """
        },
        "1",
        "2",
    ),
    Case(
        "names that a loop defines",
        "from . import rules",
        "rules.fare()",
        {
            "project/rules": """
            def _made(level):
                return lambda: level

            for name in ["fare", "miles"]:
                globals()[name] = _made(%)
            """
        },
        "1",
        "2",
    ),
    Case(
        "a module that is looked up by its name",
        "from . import rules",
        "rules.level()",
        {
            "project/rules": """
            import sys
            LEVEL = %

            def level():
                return getattr(sys.modules[__name__], "LEV" + "EL")
            """
        },
        "1",
        "2",
    ),
    Case(
        "a module as an object, which hands on a function",
        "from . import rules",
        "getattr(rules, 'fa' + 're')()",
        {
            "project/rules/__init__": "from .inner import fare",
            "project/rules/inner": "def fare(): return %",
        },
        "1",
        "2",
    ),
    Case(
        "a module as an object, which takes all of another",
        "from . import rules",
        "getattr(rules, 'fa' + 're')()",
        {
            "project/rules/__init__": "from .inner import *",
            "project/rules/inner": "def fare(): return %",
        },
        "1",
        "2",
    ),
    Case(
        "attributes of a module that it finds itself",
        "from . import rules",
        "rules.fare",
        {
            "project/rules": """
            def __getattr__(name):
                return %
            """
        },
        "1",
        "2",
    ),
    Case(
        "a docstring that is read",
        "from . import rules",
        "rules.text()",
        {
            "project/rules": """
            def text():
                '''Level %.'''
                return text.__doc__
            """
        },
        "1",
        "2",
    ),
    Case(
        "a class of a component that is made by a function",
        "from .factory import made",
        "1\n\nSay = made(Say)",
        {
            "project/factory": """
            def made(base):
                class Say(base):
                    def say(self):
                        return %
                return Say
            """
        },
        "1",
        "2",
    ),
    Case(
        "the order of functions that are registered",
        "from . import rules, more",
        "[each() for each in rules.ALL]",
        {
            "project/rules": _REGISTERING,
            "project/more": "from .rules import rule\n%",
        },
        "@rule\ndef one(): return 1\n@rule\ndef two(): return 2",
        "@rule\ndef two(): return 2\n@rule\ndef one(): return 1",
    ),
    Case(
        "the order in which modules are imported that register something",
        "from . import rules\nfrom . import %",
        "[each() for each in rules.ALL]",
        {
            "project/rules": _REGISTERING,
            "project/one": "from .rules import rule\n@rule\ndef one(): return 1",
            "project/two": "from .rules import rule\n@rule\ndef two(): return 2",
        },
        "one, two",
        "two, one",
    ),
    Case(
        "what is read before it is changed, or after",
        "from . import rules",
        "rules.count",
        {"project/rules": "ALL = [1]\n%"},
        "ALL.append(2)\ncount = len(ALL)",
        "count = len(ALL)\nALL.append(2)",
    ),
    Case(
        "what is changed before it is bound once more, or after",
        "from . import rules",
        "rules.ALL",
        {"project/rules": "ALL = [1]\n%"},
        "ALL.append(2)\nALL = ALL + [3]",
        "ALL = ALL + [3]\nALL.append(2)",
    ),
    Case(
        "a default that is taken before a patch, or after",
        "from . import rules, more",
        "more.fare()",
        {
            "project/rules": "LEVEL = 0",
            "project/more": "from . import rules\n%",
        },
        "rules.LEVEL = 1\ndef fare(level=rules.LEVEL): return level",
        "def fare(level=rules.LEVEL): return level\nrules.LEVEL = 1",
    ),
    Case(
        "a list of another module that grows in place",
        "from . import rules, more",
        "rules.ALL",
        {
            "project/rules": "ALL = []",
            "project/more": "from .rules import ALL\nALL += [%]",
        },
        "1",
        "2",
    ),
    Case(
        "a list that a function hands out, and that grows then",
        "from . import rules, more",
        "rules.ALL",
        {
            "project/rules": """
            ALL = []

            def shared():
                return ALL

            def grown(level):
                found = shared()
                found.append(level)
                return level
            """,
            "project/more": "from .rules import grown\nkept = grown(%)",
        },
        "1",
        "2",
    ),
    Case(
        "a function inside of a function, which registers",
        "from . import rules, more",
        "rules.ALL",
        {
            "project/rules": """
            ALL = []

            def rule(level):
                def inner():
                    ALL.append(level)
                inner()
                return level
            """,
            "project/more": "from .rules import rule\nkept = rule(%)",
        },
        "1",
        "2",
    ),
    Case(
        "a function that imports what registers",
        "from . import rules, more",
        "[each() for each in rules.ALL]",
        {
            "project/rules": _REGISTERING,
            "project/plugin": "from .rules import rule\n@rule\ndef one(): return 1",
            "project/more": """
            def load():
                from . import plugin
                return %

            kept = load()
            """,
        },
        "plugin",
        "plugin.one",
        changes=False,
    ),
    Case(
        "a context of a class of the user's",
        "from . import rules, more",
        "rules.ALL",
        {
            "project/rules": """
            ALL = []

            class Rule:
                def __init__(self, level):
                    self.level = level

                def __enter__(self):
                    ALL.append(self.level)

                def __exit__(self, *_):
                    pass
            """,
            "project/more": "from .rules import Rule\nwith Rule(%):\n    fare = 1",
        },
        "1",
        "2",
    ),
    Case(
        "an operator of a class of the user's",
        "from . import rules, more",
        "rules.ALL",
        {
            "project/rules": """
            ALL = []

            class Rule:
                def __rshift__(self, level):
                    ALL.append(level)

            first = Rule()
            """,
            "project/more": "from .rules import first\nfirst >> %",
        },
        "1",
        "2",
    ),
    Case(
        "an attribute of a class that is told its name",
        "from . import rules, more",
        "rules.ALL",
        {
            "project/rules": """
            ALL = []

            class Rule:
                def __set_name__(self, owner, name):
                    ALL.append(name)
            """,
            "project/more": """
            from .rules import Rule
            class Fare:
                level% = Rule()
            """,
        },
        "1",
        "2",
    ),
    Case(
        "functions that call one another, and register",
        "from . import rules, more",
        "rules.ALL",
        {
            "project/rules": """
            ALL = []

            def one(level):
                if level > 10:
                    return two(level - 1)
                ALL.append(level)
                return level

            def two(level):
                return one(level)
            """,
            "project/more": "from .rules import one, two\na = one(1)\nkept = two(%)",
        },
        "11",
        "5",
    ),
    Case(
        "a module of a package that is an object",
        "from . import rules\nimport project.rules.fares",
        "getattr(rules, 'fa' + 'res').level",
        {
            "project/rules/__init__": "",
            "project/rules/fares": "level = %",
        },
        "1",
        "2",
    ),
    # What does not count.
    Case(
        "a constant that a class without a constructor makes",
        "from .rules import FARE",
        "FARE.limit",
        {
            "project/rules": """
            import dataclasses

            @dataclasses.dataclass
            class Rule:
                limit: int

            FARE = Rule(1)
            MILES = Rule(%)
            """
        },
        "1",
        "2",
        is_seen=False,
        changes=False,
    ),
    Case(
        "a constant that a class with a plain constructor makes",
        "from .rules import FARE",
        "FARE.limit",
        {
            "project/rules": """
            class Base:
                def __init__(self, limit):
                    self.limit = limit

            class Rule(Base):
                def __init__(self, limit):
                    super().__init__(limit)
                    self.double = 2 * limit

            FARE = Rule(1)
            MILES = Rule(%)
            """
        },
        "1",
        "2",
        is_seen=False,
        changes=False,
    ),
    Case(
        "a constant that a function computes and only returns",
        "from .rules import FARE",
        "FARE",
        {
            "project/rules": """
            def table(limit):
                rows = []
                for each in range(limit):
                    rows.append(each)
                found = {}
                found["rows"] = sorted(rows)
                print(found)
                return found

            FARE = table(1)
            MILES = table(%)
            """
        },
        "1",
        "2",
        is_seen=False,
        changes=False,
    ),
    Case(
        "another function under a decorator that only wraps",
        "from .rules import fare",
        "fare()",
        {
            "project/rules": """
            import functools

            def timed(function):
                @functools.wraps(function)
                def wrapper(*args):
                    return function(*args)
                return wrapper

            @timed
            def fare(): return 1

            @timed
            def miles(): return %
            """
        },
        "1",
        "2",
        is_seen=False,
        changes=False,
    ),
    Case(
        "the parameters of a pipeline that is made beside the component",
        "from penstock import Pipeline, Import, run",
        "1\n\n\n"
        "def pipeline(text):\n"
        "    say = Say(text=text)\n"
        "    components = [say]\n"
        "    components.append(Say(name='More'))\n"
        "    return Pipeline('project', components)\n\n\n"
        "made = pipeline('%')\n"
        "if len(made.components) > 5:\n    run(made)\n"
        "for each in made.components:\n    print(each)\n",
        {},
        "1",
        "2",
        is_seen=False,
        changes=False,
    ),
    Case(
        "another entry of a list that is not read",
        "from .rules import FARE",
        "FARE",
        {"project/rules": "FARE = [1]\nMILES = []\nMILES.append(%)"},
        "1",
        "2",
        is_seen=False,
        changes=False,
    ),
    Case(
        "a constant of a library's making",
        "from .rules import FARE",
        "FARE",
        {"project/rules": "import re\nFARE = 1\nMILES = re.compile('%')"},
        "1",
        "2",
        is_seen=False,
        changes=False,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_edit(case: Case, tmp_path: Path) -> None:
    sys.dont_write_bytecode, was = True, sys.dont_write_bytecode
    try:
        before, first = said(tmp_path, case.version(case.before))
        after, second = said(tmp_path, case.version(case.after))
    finally:
        sys.dont_write_bytecode = was
    assert (first != second) is case.changes, (first, second)
    assert (before.digest != after.digest) is case.is_seen, before.symbols


# What is told in words ------------------------------------------------------------


def code_of(folder: Path, expression: str = "1", **files: str) -> Code:
    """Return the code of `project/steps`, whose component says what is given."""
    steps = textwrap.dedent(files.pop("steps", "")) + textwrap.dedent(COMPONENT)
    others = {f"project/{name}": text for name, text in files.items()}
    code, _ = said(
        folder,
        {
            "project/__init__": "",
            **others,
            "project/steps": steps.format(expression=expression),
        },
    )
    return code


def test_names_that_are_looked_up_at_run_time_are_remarked(tmp_path: Path) -> None:
    code = code_of(
        tmp_path,
        steps="""
        import importlib

        def found(name):
            return importlib.import_module(name)

        found("math")
        """,
    )
    assert code.remarks == (
        "'project.steps.found' looks names up at run time, which cannot be followed: "
        "all of 'steps.py' counts, and nothing that it finds in this way.",
    )
    assert "project.steps.(file)" in code.symbols


def test_files_beside_the_code_are_remarked(tmp_path: Path) -> None:
    code = code_of(
        tmp_path,
        steps="from .words import STOP\nprint(STOP.pop())\n",
        words="""
        from pathlib import Path
        STOP = (Path(__file__).parent / "words.py").read_text().split()
        """,
    )
    assert code.remarks == (
        "'project.words.STOP' may read files that lie beside 'words.py'. Their "
        "contents do not count, unless a component names them in external_inputs.",
    )


def test_a_class_that_no_statement_defines_is_remarked(tmp_path: Path) -> None:
    text = """
    from penstock import Component
    (lambda: type("Hidden", (Component,), {"__module__": __name__}))()
    """
    write(tmp_path, {"project/__init__": "", "project/steps": text})
    with loaded(tmp_path) as steps:
        hidden = steps.Component.__subclasses__()[-1]
        code = Reader().code_of(hidden())
    assert code.remarks == (
        "'project.steps.Hidden' is defined by no statement of its module: all of "
        "'steps.py' counts.",
    )
    assert "project.steps.(file)" in code.symbols


def test_code_that_is_no_python_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as raised:
        code_of(
            tmp_path,
            "found",
            steps="def found():\n    from . import broken\n",
            broken="def clean(:\n",
        )
    assert str(raised.value) == (
        f"'{tmp_path}/project/broken.py', which the pipeline's code imports, cannot be "
        "read as Python: invalid syntax in line 1. Mend it and run again."
    )


def test_long_sums_and_long_numbers_are_read(tmp_path: Path) -> None:
    def code(level: str) -> Code:
        sums = " + ".join(["LEVEL"] * 900)
        return code_of(
            tmp_path,
            "total",
            steps=f"LEVEL = {level}\ndef total():\n    return {sums}\n",
        )

    assert code("0x" + "f" * 5000).digest != code("0x" + "f" * 4999).digest


# Where else code may live ---------------------------------------------------------


def made(folder: Path, level: str) -> Code:
    """Return the code of a component whose class a function made for a pipeline."""
    text = f"""
    from penstock import Component

    def made(level, read=len):
        def more():
            return level + 1

        class Say(Component):
            def say(self):
                return level, read, more()

        return Say

    def make():
        return made({level})()
    """
    write(folder, {"project/__init__": "", "project/steps": text})
    with loaded(folder) as steps:
        return Reader().code_of(steps.make())


def test_what_a_class_takes_from_the_function_that_made_it_counts(
    tmp_path: Path,
) -> None:
    one, other = made(tmp_path, "1"), made(tmp_path, "2")
    assert one.digest == made(tmp_path, "1").digest != other.digest
    assert "project.steps.made.<locals>.Say(level)" in one.symbols


def test_what_is_no_data_there_is_remarked(tmp_path: Path) -> None:
    assert made(tmp_path, "1").remarks == tuple(
        f"'project.steps.made.<locals>.Say' takes '{name}' from the function that "
        "made it, which does not count: it is no plain data."
        for name in ("more", "read")
    )


def test_a_wrapped_function_counts_with_what_it_is_wrapped_in(tmp_path: Path) -> None:
    def code(times: str) -> Code:
        text = f"""
        import functools
        from collections.abc import Callable
        from typing import Any
        from penstock import Component

        def repeated(times):
            def decorate(function):
                @functools.wraps(function)
                def wrapper():
                    return [function() for _ in range(times)]
                return wrapper
            return decorate

        def _clean():
            return 1

        clean = repeated({times})(_clean)

        class Say(Component):
            function: Callable[..., Any]

            def say(self):
                return self.function()

        def make():
            return Say(function=clean)
        """
        write(tmp_path, {"project/__init__": "", "project/steps": text})
        with loaded(tmp_path) as steps:
            return Reader().code_of(steps.make())

    assert code("1").digest != code("2").digest
    assert "project.steps.clean" in code("1").symbols


def notebook(*cells: str, keeps_text: bool = True) -> Any:
    """Return the module of a notebook in which cells were run, as IPython runs them."""
    module = types.ModuleType("notebook")
    sys.modules["notebook"] = module
    for number, cell in enumerate(cells):
        text, name = textwrap.dedent(cell), f"<cell {number} of {next(NUMBERS)}>"
        if keeps_text:
            linecache.cache[name] = len(text), None, text.splitlines(True), name
        exec(compile(text, name, "exec"), vars(module))
    return module


NUMBERS = itertools.count()

CELLS = (
    "import math as mathematics\nfrom penstock import Component\nLEVEL = 1",
    "def cleaned(value):\n    return value + LEVEL",
    """
    class Say(Component):
        'Say something.'

        def say(self):
            return cleaned(mathematics.floor(1.5))
    """,
)


@pytest.mark.parametrize(
    ("old", "new", "is_seen"),
    [
        ("LEVEL = 1", "LEVEL = 2", True),
        ("value + LEVEL", "value - LEVEL", True),
        ("floor(1.5)", "ceil(1.5)", True),
        ("import math as", "import cmath as", True),
        ("Say something", "Say anything", False),
        ("LEVEL = 1", "LEVEL = 1\nOTHER = 2", False),
        ("def cleaned", "def other():\n    return 1\n\ndef cleaned", False),
    ],
)
def test_a_component_of_a_notebook(old: str, new: str, is_seen: bool) -> None:
    before = Reader().code_of(notebook(*CELLS).Say())
    changed = [each.replace(old, new) for each in CELLS]
    after = Reader().code_of(notebook(*changed).Say())
    assert (before.digest != after.digest) is is_seen, before.symbols
    assert not before.remarks
    again = notebook(*CELLS, CELLS[1])  # a cell that is run once more
    assert Reader().code_of(again.Say()).digest == before.digest


def test_what_keeps_no_text_always_runs() -> None:
    session = notebook(*CELLS, keeps_text=False)
    one, other = (Reader().code_of(session.Say()) for _ in range(2))
    assert one.digest != other.digest
    assert one.remarks == (
        "'notebook.Say' was defined where its text was not kept, so that nobody can "
        "tell whether it changed: it always runs.",
    )


def test_a_module_that_is_run_by_its_name(tmp_path: Path) -> None:
    text = """
    from penstock import Component
    from penstock.pipelines.code import Reader
    from . import words

    class Say(Component):
        def say(self):
            return words.clean()

    if __name__ == "__main__":
        code = Reader().code_of(Say())
        print(code.digest)
    """
    files = {"project/words": "def clean(): return 1", "project/steps": text}
    write(tmp_path, {"project/__init__": "", **files})
    done = subprocess.run(
        [sys.executable, "-m", "project.steps"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    with loaded(tmp_path) as steps:
        code = Reader().code_of(steps.Say())
    assert "project.words.clean" in code.symbols
    assert done.stdout.strip() == code.digest


SCRIPT = """
import other
from penstock import Component, LocalRunner, Pipeline, RunContext, output, run
from penstock.schemas import Examples

SUFFIX = "."


class Say(Component):
    text: str
    said: Examples = output()

    def run(self, context: RunContext) -> None:
        (self.said.path / "said").write_text(self.text + SUFFIX)

{more}
for text in ("one", "two"):
    {within}result = run(Pipeline("p", [Say(text=text)]), "root", runner=LocalRunner())
    {shown}; print(result.state)
print(*(each.state.value for each in result.executions.values()))
"""


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({}, "cached"),
        ({"shown": "print('other')"}, "cached"),
        ({"more": "print('Hello')"}, "cached"),
        ({"more": "SUFFIX += '!'"}, "complete"),
        ({"more": "Say.suffix = '!'"}, "complete"),
        ({"more": "other.change(Say)"}, "complete"),
        ({"shown": "other.change(Say)"}, "complete"),
        ({"within": "SUFFIX = '!'; "}, "complete"),
        ({"within": "Say.suffix = '!'; "}, "complete"),
        ({"within": "other.change(Say); "}, "complete"),
        ({"more": "if __name__ == '__main__':\n    print('x')"}, "cached"),
        ({"more": "if __name__ == '__main__':\n    SUFFIX = '!'"}, "complete"),
        ({"more": "if __name__ == '__main__':\n    Say.suffix = '!'"}, "complete"),
    ],
)
def test_what_runs_a_pipeline_is_no_part_of_its_code(
    tmp_path: Path, changed: dict[str, str], state: str
) -> None:
    (tmp_path / "other.py").write_text("def change(kind):\n    kind.suffix = '?'\n")
    lines = []
    for values in ({}, changed):
        text = SCRIPT.format_map({"more": "", "shown": "pass", "within": "", **values})
        (tmp_path / "script.py").write_text(text)
        done = subprocess.run(
            [sys.executable, "script.py"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        )
        lines.append(done.stdout.splitlines()[-1])
    assert lines == ["complete", state]
