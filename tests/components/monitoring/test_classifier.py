"""A classifier between reference and window: what it finds, and how often in vain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from penstock.components.monitoring.classifier import (
    LEAST_ROWS,
    MultivariateDrift,
    domain_classifier,
)
from penstock.components.monitoring.classifier import _aucs as aucs
from penstock.schemas.errors import DataError


def rows(draw: np.random.Generator, count: int, columns: int = 6) -> pa.Table:
    values = {f"x{i}": draw.normal(size=count) for i in range(columns)}
    values["x1"] = np.where(draw.random(count) < 0.1, np.nan, values["x1"])
    table: dict[str, Any] = {
        name: pa.array(each, from_pandas=True) for name, each in values.items()
    }
    table["company"] = draw.choice(
        ["a", "b", "c", "d"], count, p=[0.5, 0.3, 0.15, 0.05]
    )
    table["cash"] = draw.random(count) < 0.4
    return pa.table(table)


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    array = values if isinstance(values, pa.Array) else pa.array(values)
    return table.set_column(table.column_names.index(name), name, array)


def test_a_shift_of_correlation_alone_is_found_where_every_column_stays() -> None:
    draw = np.random.default_rng(1)
    count = 2_000
    reference = rows(draw, count)
    current = rows(draw, count)
    # The same values in another order: no test of one column can see anything.
    x2 = reference.column("x2").to_numpy()
    x3 = reference.column("x3").to_numpy()
    mixed = 0.4 * x2 + draw.normal(size=count) * np.sqrt(1 - 0.16)
    together = np.empty(count)
    together[np.argsort(mixed)] = np.sort(x3)
    current = with_column(with_column(current, "x2", x2), "x3", together)
    for name in ("x2", "x3"):
        one, other = reference.column(name).to_numpy(), current.column(name).to_numpy()
        assert stats.ks_2samp(one, other).statistic == 0
    found = domain_classifier(reference, current, seed=2)
    assert found.p_value == 1 / 200
    assert found.auc is not None and found.auc > 0.55
    assert set(found.columns[:2]) == {"x2", "x3"}
    assert found.parts[0].columns == ("x2", "x3")
    assert found.parts[0].share > 0.8
    assert sum(part.share for part in found.parts) == pytest.approx(1)
    assert found.sentence() == (
        f"A classifier tells the window from the reference (AUC {found.auc:.3f}, p = "
        "0.005; 2,000 rows and 2,000 of reference), first of all by how 'x2' and 'x3' "
        "go together."
    )
    document = found.document()
    assert document["state"] == "alert" and document["columns"][:2] == ["x2", "x3"]


@pytest.mark.parametrize("kind", ["number and text", "text and text", "spread"])
def test_other_shifts_that_no_mean_shows_are_found(kind: str) -> None:
    draw = np.random.default_rng(3)
    reference, current = rows(draw, 2_000), rows(draw, 2_000)
    company = current.column("company").to_numpy()
    if kind == "number and text":
        x2 = current.column("x2").to_numpy()
        current = with_column(
            current, "x2", np.where(company == "a", np.abs(x2), -np.abs(x2))
        )
        expected = ["company", "x2"]
    elif kind == "text and text":
        same = draw.random(2_000) < 0.4
        cash = np.where(same, company == "a", current.column("cash").to_numpy())
        current = with_column(current, "cash", cash.astype(np.bool_))
        expected = ["cash", "company"]
    else:
        current = with_column(current, "x4", current.column("x4").to_numpy() * 1.3)
        expected = ["x4"]
    found = domain_classifier(reference, current, seed=4)
    assert found.p_value == 1 / 200
    assert sorted(found.columns[: len(expected)]) == expected


def test_p_values_are_uniform_where_nothing_drifts() -> None:
    ranks = []
    draw = np.random.default_rng(5)
    for replay in range(300):
        found = domain_classifier(
            rows(draw, 120, 4), rows(draw, 80, 4), seed=replay, permutations=49
        )
        assert found.p_value is not None
        # Any of 50 ranks is equally likely; spread evenly over its step it is uniform.
        ranks.append(found.p_value - draw.random() / 50)
    assert stats.kstest(ranks, "uniform").pvalue > 0.01
    assert np.mean(np.array(ranks) <= 0.04) <= stats.binom.ppf(0.999, 300, 0.04) / 300


def test_the_same_seed_says_the_same() -> None:
    draw = np.random.default_rng(6)
    reference, current = rows(draw, 500), rows(draw, 500)
    one = domain_classifier(reference, current, seed=1, most_rows=200)
    assert one == domain_classifier(reference, current, seed=1, most_rows=200)
    assert (one.reference_rows, one.current_rows) == (200, 200)
    assert one.p_value is not None and one.p_value > 0.01
    assert one.sentence() == (
        f"A classifier cannot tell the window from the reference (AUC {one.auc:.3f}, p "
        f"= {one.p_value:.2g}; 200 rows and 200 of reference)."
    )
    assert one.document()["columns"] == [] and one.document()["state"] == "ok"


def test_an_outlier_and_infinities_are_ranks_like_others() -> None:
    draw = np.random.default_rng(7)
    reference, current = rows(draw, 1_000), rows(draw, 1_000)
    values = reference.column("x0").to_numpy().copy()
    values[:3] = [1e300, np.inf, -np.inf]
    shifted = current.column("x0").to_numpy() + 0.4
    found = domain_classifier(
        with_column(reference, "x0", values), with_column(current, "x0", shifted)
    )
    assert found.p_value == 1 / 200 and found.columns[0] == "x0"
    assert found.sentence().endswith("first of all by 'x0'.")


def test_what_is_missing_more_often_tells_the_sides_apart() -> None:
    draw = np.random.default_rng(8)
    reference, current = rows(draw, 1_000), rows(draw, 1_000)
    missing = pa.array([None if i % 10 == 0 else "a" for i in range(1_000)])
    current = with_column(current, "company", missing)
    assert domain_classifier(reference, current).columns[0] == "company"


def test_of_many_columns_the_correlated_or_the_important_enter_products() -> None:
    draw = np.random.default_rng(9)

    def table(correlation: float) -> pa.Table:
        values = {f"x{i:02}": draw.normal(size=2_000) for i in range(40)}
        values["x39"] = correlation * values["x38"] + draw.normal(size=2_000)
        return pa.table(values)

    reference, current = table(0.0), table(0.5)
    found = domain_classifier(reference, current, most_in_products=6)
    assert found.parts[0].columns == ("x38", "x39")
    importances = {"x01": 1.0, "x02": 0.5, "x03": 0.4}
    named = domain_classifier(
        reference, current, most_in_products=3, importances=importances
    )
    pairs = {part.columns for part in named.parts if len(part.columns) == 2}
    assert pairs == {("x01", "x02"), ("x01", "x03"), ("x02", "x03")}


def test_too_few_rows_say_nothing() -> None:
    draw = np.random.default_rng(10)
    found = domain_classifier(rows(draw, 500), rows(draw, LEAST_ROWS - 1))
    assert found.p_value is None and found.auc is None
    assert found.sentence() == (
        "There are 49 rows and 500 of reference, where 50 of each are the least by "
        "which a classifier could tell them apart."
    )
    assert found.document()["state"] == "insufficient_data"
    empty = domain_classifier(rows(draw, 500), rows(draw, 0))
    assert empty.p_value is None


def test_columns_that_say_nothing_are_left_out_and_said() -> None:
    draw = np.random.default_rng(11)
    count = 100

    def table(changed: Any) -> pa.Table:
        return pa.table(
            {
                "x": draw.normal(size=count),
                "constant": [1.0] * count,
                "none": pa.nulls(count),
                "tags": [[1]] * count,
                "changed": changed,
                "day": pa.array([1] * count).cast(pa.timestamp("s")),
            }
        )

    found = domain_classifier(table([1] * count), table(["a"] * count))
    assert found.columns == ("x",)
    assert found.left_out == {
        "constant": "never varies",
        "none": "has no value",
        "tags": "has type list<item: int64>",
        "changed": "has type int64 in the reference and string in the window",
        "day": "has type timestamp[s]",
    }
    with pytest.raises(DataError) as error:
        domain_classifier(table([1] * count), table([1] * count), columns=["constant"])
    assert str(error.value) == (
        "No column is left for a classifier to tell rows by: 'constant' never varies. "
        "Name columns of numbers, text or booleans that vary."
    )
    with pytest.raises(DataError) as error:
        domain_classifier(table([1] * count), table([1] * count), columns=["constan"])
    assert str(error.value) == (
        "The reference lacks the column 'constan' (it has 'changed', 'constant', "
        "'day', 'none', 'tags', 'x'). Did you mean 'constant'?"
    )


def test_identical_rows_are_not_told_apart() -> None:
    table = rows(np.random.default_rng(12), 300)
    found = domain_classifier(table, table)
    assert isinstance(found, MultivariateDrift)
    assert found.p_value is not None and found.p_value > 0.05
    assert found.auc is not None and found.auc < 0.55


@pytest.mark.parametrize("seed", range(5))
def test_the_auc_is_that_of_mann_and_whitney(seed: int) -> None:
    draw = np.random.default_rng(seed)
    scores = draw.integers(0, 8, (60, 3)).astype(np.float64)
    positive = draw.random((60, 3)) < 0.4
    for found, score, side in zip(
        aucs(scores, positive), scores.T, positive.T, strict=True
    ):
        u = stats.mannwhitneyu(score[side], score[~side]).statistic
        assert found == pytest.approx(u / (side.sum() * (~side).sum()))
    assert np.isnan(aucs(scores, np.zeros((60, 3), np.bool_))).all()
