"""The document of a watched model: its schema, what is read and what is refused."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import NotRequired, get_type_hints

from penstock.components.monitoring.document import (
    Document,
    check_document,
    read_document,
    schema,
    write_document,
)
from penstock.components.monitoring.document_checks import KEYWORDS, fault
from penstock.schemas.errors import DataError
from tests.components.monitoring.documents import (
    DOCUMENTS,
    alert_document,
    column,
    document,
    metric,
    quality,
)

ORACLE = jsonschema.Draft202012Validator(dict(schema()))


def refused(**changes: Any) -> str:
    """Return the sentence on a document with changes, in a file."""
    with pytest.raises(DataError) as caught:
        check_document(document(**changes), "drift.json")
    return str(caught.value)


def test_the_schema_is_one_and_uses_what_is_checked() -> None:
    jsonschema.Draft202012Validator.check_schema(dict(schema()))
    used: set[str] = set()

    def collect(part: Any) -> None:
        used.update(part)
        for each in part.get("properties", {}).values():
            collect(each)
        for key in ("items", "additionalProperties"):
            if key in part:
                collect(part[key])

    collect({key: value for key, value in schema().items() if key != "$defs"})
    for each in schema()["$defs"].values():
        collect(each)
    assert used - {"$schema", "$id", "title", "description"} <= KEYWORDS


def keys(part: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """Return the keys that a part of the schema asks for, and those it allows."""
    return set(part["required"]), set(part["properties"]) - set(part["required"])


def test_the_types_are_those_of_the_schema() -> None:
    seen = set()

    def compare(kind: Any, part: Mapping[str, Any]) -> None:
        if reference := part.get("$ref"):
            part = schema()["$defs"][reference.removeprefix("#/$defs/")]
        if "items" in part:
            (inner,) = get_args(kind) or [None]
            compare(inner, part["items"])
        if "properties" not in part:
            return
        hints = get_type_hints(kind, include_extras=True)
        origins: dict[str, Any] = {key: get_origin(each) for key, each in hints.items()}
        optional = {key for key, origin in origins.items() if origin is NotRequired}
        assert (set(hints) - optional, optional) == keys(part), kind
        seen.add(kind)
        for key, hint in hints.items():
            hint = get_args(hint)[0] if key in optional else hint
            others = [each for each in get_args(hint) if each is not type(None)]
            is_union = type(None) in get_args(hint)
            compare(others[0] if is_union else hint, part["properties"][key])

    compare(Document, schema())
    assert len(seen) == 21


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_of_every_state_are_written_and_read(
    name: str, tmp_path: Path
) -> None:
    written = DOCUMENTS[name]()
    ORACLE.validate(written)
    write_document(written, tmp_path / "drift.json")
    assert read_document(tmp_path / "drift.json") == written
    assert [path.name for path in tmp_path.iterdir()] == ["drift.json"]


def test_an_undefined_number_is_written_as_null(tmp_path: Path) -> None:
    found = quality(metrics=[metric("auc", "overall", math.nan, upper=math.inf)])
    write_document(document(quality=found), tmp_path / "quality.json")
    read = read_document(tmp_path / "quality.json")
    assert read["quality"]
    (auc,) = read["quality"]["metrics"]
    assert (auc["value"], auc["lower"], auc["upper"]) == (None, None, None)


def test_half_a_letter_in_a_name_is_kept(tmp_path: Path) -> None:
    written = document(model="ta\ud800xi")
    write_document(written, tmp_path / "drift.json")
    assert read_document(tmp_path / "drift.json") == written


def test_keys_of_later_versions_are_let_pass(tmp_path: Path) -> None:
    later: Any = alert_document()
    later["seal"] = {"by": "somebody"}
    later["columns"][0]["color"] = "blue"
    write_document(later, tmp_path / "drift.json")
    assert read_document(tmp_path / "drift.json") == later


def test_another_version_is_refused() -> None:
    for version in (2, 0, True, "1", None):
        assert refused(version=version) == (
            f"drift.json is a monitoring report of version {version!r}, and this "
            "penstock reads version 1. Read it with the penstock that wrote it, or "
            "write it again with this one."
        )


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "drift.json"
    with pytest.raises(DataError) as caught:
        read_document(path)
    assert str(caught.value) == (
        f"There is no monitoring report at {path}. Name the drift.json or "
        "quality.json of a verdict."
    )
    for text in ("[]", "7", '{"format": "penstock-plan"}'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError) as caught:
            read_document(path)
        assert str(caught.value) == (
            f"{path} is not a monitoring report: its 'format' is not "
            "'penstock-monitoring-report'. Name the drift.json or quality.json of a "
            "verdict."
        )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b'{"rows": NaN}', "is not JSON: NaN is no number of JSON. Write it again."),
        (b'{"a": -Infinity}', "is not JSON: -Infinity is no number of JSON. "),
        (b"{", "is not JSON: Expecting property name enclosed in double quotes: "),
        (b"", "is not JSON: Expecting value: line 1 column 1 (char 0). Write it again"),
        (b'{"a": "\xff"}', "is not JSON: byte 7 is not UTF-8. Write it again."),
        (b"[" * 100_000, "is not JSON: "),
    ],
)
def test_what_is_no_json_is_refused(text: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "drift.json"
    path.write_bytes(text)
    with pytest.raises(DataError) as caught:
        read_document(path)
    assert str(caught.value).startswith(f"{path} {why}")


def test_what_breaks_the_schema_is_told_with_its_place() -> None:
    start = "drift.json breaks the schema monitoring-report-1.json: "
    lacking: Any = document()
    lacking["colums"] = lacking.pop("columns")
    with pytest.raises(DataError) as caught:
        check_document(lacking, "drift.json")
    assert str(caught.value) == start + "it lacks 'columns'. Did you mean 'colums'?"
    assert refused(state="alret") == start + (
        "'state' is 'alret', not one of 'ok', 'watch', 'alert', 'insufficient_data'. "
        "Did you mean 'alert'?"
    )
    broken: Any = column()
    del broken["measures"][1]["ratio"]
    assert refused(columns=[broken]) == start + (
        "'columns[0].measures[1]' lacks 'ratio'. Add it."
    )
    assert refused(columns=[column(missing={"reference": 3, "current": 0.0})]) == (
        start + "'columns[0].missing.reference' is 3, above the most that is "
        "possible, 1. Mend what wrote it."
    )
    assert refused(rows=-1) == start + (
        "'rows' is -1, below the least that is possible, 0. Mend what wrote it."
    )
    assert refused(rows="many") == start + (
        "'rows' is 'many' where a whole number belongs. Mend what wrote it."
    )
    assert refused(reference=[]) == start + (
        "'reference' is a list where an object or null belongs. Mend what wrote it."
    )
    assert refused(rows=math.inf) == start + (
        "'rows' is Infinity where a whole number belongs. Mend what wrote it."
    )
    assert refused(made_at="yesterday") == start + (
        "'made_at' is 'yesterday', which is not of the form "
        "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?Z$. Mend "
        "what wrote it."
    )
    assert refused(model="") == start + "'model' is empty. Give it a name."
    assert refused(reasons=["x", {}]) == start + (
        "'reasons[1]' is an object where a text belongs. Mend what wrote it."
    )
    assert refused(model="m" * 70, reasons=[7]) == start + (
        "'reasons[0]' is 7 where a text belongs. Mend what wrote it."
    )
    assert refused(versions={"7": "m" * 70}) == start + (
        f"'versions.7' is '{'m' * 60}…' where a whole number belongs. Mend what wrote "
        "it."
    )


def test_what_contradicts_itself_is_refused() -> None:
    start = "drift.json contradicts itself: "
    assert refused(columns=[column("fare"), column("fare")]) == start + (
        "column 'fare' is there twice. Keep one of them."
    )
    uneven = {"bins": ["a", "b"], "reference": [1.0, 0.0], "current": [1.0]}
    assert refused(columns=[column(distribution=uneven)]) == start + (
        "the distribution of column 'fare' has 2 bins, 2 shares of the reference and 1 "
        "of the current window. Give each bin one share of either."
    )
    instant = "2026-11-30T00:00:00Z"
    window = {"start": instant, "end": instant, "name": "none"}
    assert refused(window=window) == start + (
        f"its window ends at {instant}, not after its start at {instant}. Write the "
        "window as [start, end)."
    )


def test_what_is_refused_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "drift.json"
    path.write_text("before", encoding="utf-8")
    with pytest.raises(DataError, match=r"^The document for drift\.json breaks the "):
        write_document(document(state="good"), path)
    assert path.read_text(encoding="utf-8") == "before"


def test_a_keyword_that_is_not_checked_is_refused() -> None:
    with pytest.raises(ValueError) as caught:
        fault([1], {"type": "array", "items": {"multipleOf": 2}})
    assert str(caught.value) == "The schema says 'multipleOf' of '[0]', unknown here."


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["ok", "alert", "2026-11-30T00:00:00Z", "numeric"]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all that a document holds."""
    below: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        below = [*(value.items() if isinstance(value, dict) else enumerate(value))]
    return [path, *(each for key, part in below for each in places(part, (*path, key)))]


WHOLE = json.loads(json.dumps(alert_document(1)))
WHOLE["columns"] = WHOLE["columns"][2:4]
WHOLE["quality"]["trends"] = WHOLE["quality"]["trends"][1:]
WHOLE["quality"]["trends"][0]["points"] = WHOLE["quality"]["trends"][0]["points"][:2]
PLACES = places(WHOLE)[1:]


@settings(max_examples=400)
@given(st.sampled_from(PLACES), PLAIN, st.booleans())
def test_a_broken_document_is_refused_just_where_jsonschema_refuses_it(
    path: tuple[Any, ...], value: Any, is_removed: bool
) -> None:
    broken = copy.deepcopy(WHOLE)
    holder = broken
    for key in path[:-1]:
        holder = holder[key]
    if is_removed:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    assert bool(fault(broken, schema())) == (not ORACLE.is_valid(broken))
