"""What is written as YAML is read back the same by PyYAML."""

from __future__ import annotations

import importlib
import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components.monitoring.yaml_text import yaml

pyyaml: Any = importlib.import_module("yaml")  # it has no types

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
WORDS = st.sampled_from(["yes", "Null", "1", "1.5", "-", "a: b", "|-", "# x", "1h", ""])
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False).filter(
        lambda x: "e" not in repr(x)
    ),
    TEXT,
    WORDS,
    st.lists(TEXT, min_size=2, max_size=3).map("\n".join),
)
KEYS = TEXT | WORDS
DATA = st.dictionaries(
    KEYS,
    st.recursive(
        LEAVES,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
        ),
        max_leaves=6,
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=60)
@given(DATA)
def test_what_is_written_is_read(data: dict[str, Any]) -> None:
    assert pyyaml.safe_load(yaml(data, "one\n\ntwo")) == data


def test_expressions_are_lines_and_plain_words_have_no_quotes() -> None:
    data = {"groups": [{"name": "a/b", "rules": [{"expr": "a\nand\nb", "rows": 1}]}]}
    assert yaml(data, "Made by a test.") == (
        "# Made by a test.\n"
        "groups:\n"
        "  - name: a/b\n"
        "    rules:\n"
        "      - expr: |-\n"
        "          a\n"
        "          and\n"
        "          b\n"
        "        rows: 1\n"
    )


def test_numbers_that_are_none_are_written_as_yaml_has_them() -> None:
    read = pyyaml.safe_load(yaml({"a": math.inf, "b": -math.inf, "c": math.nan}))
    assert read["a"] == math.inf and read["b"] == -math.inf and math.isnan(read["c"])


def test_half_a_letter_gives_way_to_the_sign_for_it() -> None:
    assert pyyaml.safe_load(yaml({"a": "x\ud800"})) == {"a": "x\ufffd"}
