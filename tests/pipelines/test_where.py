"""Expressions over properties of artifacts, against the same question in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components.evaluation.blessing import (
    Measured,
    MetricName,
    SliceMetrics,
    overall_values,
)
from penstock.pipelines.metadata import Store
from penstock.pipelines.where import properties_read, where
from penstock.schemas.artifacts import Artifact, Model, ModelEvaluation
from penstock.schemas.errors import DataError, MetadataError, PipelineError

NUMBERS = st.one_of(
    st.none(), st.integers(-5, 5), st.floats(-5, 5), st.just("nan"), st.just("-inf")
)


def having(*values: Any, name: str = "auc") -> list[Artifact]:
    """Return one artifact per value; None stands for no such property."""
    return [
        ModelEvaluation(
            f"/{place}", id=place, properties={} if value is None else {name: value}
        )
        for place, value in enumerate(values)
    ]


def ids(artifacts: list[Artifact]) -> list[int | None]:
    return [each.id for each in artifacts]


@settings(max_examples=200)
@given(st.lists(NUMBERS), st.integers(-5, 5))
def test_numbers_are_compared_as_python_compares_them(
    values: list[Any], bound: int
) -> None:
    artifacts = having(*values, 0.25)
    expected = [
        each.id
        for each in artifacts
        if "auc" in each.properties and float(each.properties["auc"]) > bound  # type: ignore[arg-type]
    ]
    assert ids(where(artifacts, f"auc > {bound}")) == expected


def test_an_artifact_without_the_property_is_not_matched() -> None:
    artifacts = having(0.95, None, 0.5)
    assert ids(where(artifacts, "auc > 0.9")) == [0]
    assert ids(where(artifacts, "not auc > 0.9")) == [2]
    assert ids(where(artifacts, "auc is null")) == [1]
    assert where(having(None, 0.1), "auc > 0.9") == []


def test_several_properties_are_asked_at_once() -> None:
    artifacts = [
        Model("/1", id=1, properties={"auc": 0.95, "verdict": "BLESSED", "rows": 7}),
        Model("/2", id=2, properties={"auc": 0.95, "verdict": "INCONCLUSIVE"}),
        Model("/3", id=3, properties={"verdict": "BLESSED", "rows": 2**60}),
    ]
    text = "auc > 0.9 and verdict == 'BLESSED'"
    assert properties_read(text) == ("auc", "verdict")
    assert ids([*where(artifacts, text)]) == [1]
    assert ids([*where(artifacts, "auc > 0.9 or verdict == 'BLESSED'")]) == [1, 2, 3]
    assert ids([*where(artifacts, f"rows == {2**60}")]) == [3]
    assert ids([*where(artifacts, "verdict in ('BLESSED', 'INCONCLUSIVE')")]) == [
        *(1, 2, 3)
    ]


def test_large_numbers_beside_fractions_are_rounded() -> None:
    assert ids(where(having(2**60 + 1, 0.5), "auc > 1")) == [0]


def test_metrics_by_any_name_of_theirs_are_properties(tmp_path: Path) -> None:
    """As the Evaluator records them, through a store."""
    names = [
        MetricName("auc"),
        MetricName("auc", sub_key="class 1"),
        MetricName("precision", output="head", sub_key="top 3", aggregation="macro"),
        MetricName("mean_label", weighted=True),
        MetricName("mean_label", weighted=False),
    ]
    measured = {each: Measured(0.5 + at / 10) for at, each in enumerate(names)}
    values = overall_values([SliceMetrics((), measured)])
    assert list(values) == [
        "auc",
        "auc (class 1)",
        "head/precision (top 3, macro)",
        "mean_label (weighted)",
        "mean_label",
    ]
    store = Store(f"sqlite:///{tmp_path / 'metadata.sqlite'}")
    store.record_execution(
        "test",
        component="test",
        pipelines=["p"],
        inputs={},
        outputs={"evaluation": ModelEvaluation("/x", properties=values)},
        properties={},
    )
    artifacts = store.artifacts()
    for name, value in values.items():
        assert where(artifacts, f"`{name}` == {value}") == artifacts
        assert where(artifacts, f"`{name}` > {value}") == []


def test_lists_and_dicts_are_missing() -> None:
    artifacts = having(1, {"train": 1}, [1], name="blessed")
    assert ids(where(artifacts, "blessed == 1")) == [0]


def test_what_is_not_finite_is_a_number() -> None:
    assert ids(where(having("nan", "inf", "-inf"), "auc > 0")) == [1]
    assert ids(where(having("nan", 0.5), "auc > 0")) == [1]
    assert ids(where(having("nan", "words"), "auc == 'nan'")) == [0]


def test_nothing_to_look_in_has_no_property() -> None:
    with pytest.raises(MetadataError) as raised:
        where([], "auc > 0.9")
    assert str(raised.value) == (
        "No artifact has the property 'auc' (there are none). Text stands in quotes."
    )


@pytest.mark.parametrize(
    ("text", "kind", "sentence"),
    [
        (
            "acu > 0.9",
            MetadataError,
            "No artifact has the property 'acu' (there are 'auc', 'auc (class 1)', "
            "'verdict'). Did you mean 'auc'?",
        ),
        (
            "verdict == BLESSED",
            MetadataError,
            "No artifact has the property 'BLESSED' (there are 'auc', "
            "'auc (class 1)', 'verdict'). Text stands in quotes.",
        ),
        (
            "auc",
            PipelineError,
            "Expression 'auc' is neither true nor false of an artifact. Compare it "
            "with something, as in auc > 0.9.",
        ),
    ],
)
def test_what_cannot_be_asked_gets_a_sentence(
    text: str, kind: type[Exception], sentence: str
) -> None:
    artifact = ModelEvaluation(
        "/1", properties={"auc": 0.9, "auc (class 1)": 0.8, "verdict": "BLESSED"}
    )
    with pytest.raises(kind) as raised:
        where([artifact], text)
    assert str(raised.value) == sentence


def test_an_error_in_the_syntax_shows_its_place() -> None:
    with pytest.raises(PipelineError) as raised:
        where(having(0.9), "auc >")
    assert str(raised.value).startswith("Expression 'auc >' ends where a value")
    assert str(raised.value).endswith("\n    auc >\n         ^")


def test_text_is_not_compared_with_numbers() -> None:
    with pytest.raises(DataError, match="auc"):
        where(having("words"), "auc > 0.9")


def test_a_property_of_two_kinds_asks_for_one_type() -> None:
    artifacts: list[Artifact] = [
        Model("/1", id=1, properties={"version": 3}),
        ModelEvaluation("/2", id=2, properties={"version": "three"}),
    ]
    with pytest.raises(MetadataError) as raised:
        where(artifacts, "version > 2")
    assert str(raised.value) == (
        "Property 'version' is a number in Model 1 and text in ModelEvaluation 2, so "
        "that no comparison fits both. Name one type with --type."
    )
    assert where(artifacts[:1], "version > 2") == artifacts[:1]
