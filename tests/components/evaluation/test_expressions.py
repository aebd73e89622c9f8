"""Expressions over columns: what they compute, and what is said of wrong ones."""

from __future__ import annotations

import bisect
import datetime
import decimal
import functools
import math
import pickle
import random
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from penstock.components.evaluation.expressions import DEEPEST, Expression, parse
from penstock.schemas.errors import DataError, PipelineError

COLUMNS = {
    "fare": pa.array([1.0, 5.0, 25.0, None]),
    "hour": pa.array([7, 8, None, -3]),
    "paid": pa.array(["Cash", "Card", None, ""]),
    "share": pa.array([0.7, 0.1, None, math.nan], pa.float32()),
    "flag": pa.array([True, False, None, True]),
    "nothing": pa.nulls(4),
    "odd name`": pa.array([1, 2, 3, 4]),
    "tips": pa.array([[1], [], None, [3]], pa.list_(pa.int64())),
    "tags": pa.array([["a"], ["a", "b", "c"], [], None]),
    "place": pa.array([{"x": 1}] * 4),
}


def batch_of(columns: dict[str, pa.Array]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


ROWS = batch_of(COLUMNS)


def evaluated(text: str, batch: pa.RecordBatch = ROWS) -> list[Any]:
    found: list[Any] = parse(text).evaluate(batch).to_pylist()
    return found


def truths(text: str) -> list[str | None]:
    """Return the results that letters stand for: true, false, missing."""
    return [{"t": "true", "f": "false", "-": None}[each] for each in text]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fare == 5", "ftf-"),
        ("fare != 5", "tft-"),
        ("fare < 5", "tff-"),
        ("fare <= 5.0", "ttf-"),
        ("fare > 5", "fft-"),
        ("fare >= 5", "ftt-"),
        ("5<fare<=25", "fft-"),
        ("1 <= hour < fare", "ff-f"),
        ("1 <= fare < hour", "tt--"),
        ("hour == fare + 6", "tf--"),
        ("paid == 'Cash'", "tf-f"),
        ('paid == ""', "ff-t"),
        ("paid < 'Cash'", "ft-t"),
        ("flag", "tf-t"),
        ("(flag)", "tf-t"),
        ("flag == True", "tf-t"),
        ("flag != true", "ft-f"),
        ("not flag", "ft-f"),
        ("not not flag", "tf-t"),
        ("not hour == 7", "ft-t"),
        ("not flag and fare > 1", "ft-f"),
        ("not (flag and fare > 1)", "tt--"),
        # Missing and false is false, missing or true is true; as in SQL.
        ("fare > 2 and hour > 7", "ft-f"),
        ("fare > 2 or hour > 7", "ftt-"),
        ("fare < 2 and hour > 7", "ffff"),
        ("fare is null and hour > 7", "ffff"),
        ("fare is not null or hour > 7", "tttf"),
        ("fare > 20 and hour > 7 or flag", "tf-t"),
        ("fare is null", "ffft"),
        ("fare is None", "ffft"),
        ("fare is not null", "tttf"),
        ("missing(fare + hour)", "fftt"),
        ("missing(share)", "fftt"),
        ("paid in ('Cash', \"Card\")", "tt-f"),
        ("paid in ['Cash',]", "tf-f"),
        ("paid not in ('Cash', 'Card')", "ff-t"),
        ("not paid in ('Cash', 'Card')", "ff-t"),
        ("hour in (7, 8.0, 8.5, 1e300, -3)", "tt-t"),
        ("fare in (1, 25.0)", "tft-"),
        ("0 * -fare in (0, 1)", "ttt-"),
        ("0 * fare in (-0.0, 1)", "ttt-"),
        ("flag in (true,)", "tf-t"),
        ("hour in range(7, 8)", "tf-f"),
        ("hour not in range(7, 8)", "ft-t"),
        ("hour in range(-5, 9, 2)", "tf-t"),
        ("hour in range(9, -5, -2)", "tf-t"),
        ("hour in range(7, 7)", "ff-f"),
        ("fare in range(1, 26, 4)", "ttt-"),
        ("fare + 0.5 in range(0, 100)", "fff-"),
        ("fare * 1e300 * 1e300 in range(0, 10)", "fff-"),
        (
            "hour in range(-9223372036854775807, 9223372036854775807, "
            "9223372036854775807)",
            "ff-f",
        ),
        # A literal is as narrow as a column of 32-bit floats.
        ("share == 0.7", "tf--"),
        ("0.7 == share", "tf--"),
        ("share <= 0.1", "ft--"),
        ("share in (0.1, 5)", "ft--"),
        ("share < fare", "tt--"),
        ("share == share", "tt--"),
        ("share > 0", "tt--"),
        ("`odd name``` > 2", "fftt"),
        ("nothing > 5", "----"),
        ("nothing == 'a' or fare > 2", "-tt-"),
        ("not nothing", "----"),
        ("nothing in ('a', 'b')", "----"),
        ("nothing in range(1, 5)", "----"),
        ("missing(nothing)", "tttt"),
        ("nothing + 1 > 2", "----"),
        ("1 / nothing > 2", "----"),
        ("-nothing > 2", "----"),
        ("lower(nothing) == 'a'", "----"),
        ("length(nothing) == 1", "----"),
        ("nothing", "----"),
        ("tips > 1", "f--t"),
        ("tips is null", "fttf"),
        ("2 > 1 and flag", "tf-t"),
        ("1 in (1, 2) and flag", "tf-t"),
        ("7 // 2 == 3 and flag", "tf-t"),
        ("-7 % 3 == 2 and flag", "tf-t"),
        ("-(7) == 0 - abs(7) and flag", "tf-t"),
        ("lower('A') == 'a' and length('é') == 1 and flag", "tf-t"),
        ("bucket(7, 5, 10) == '[5, 10)' and flag", "tf-t"),
        ("missing(1 / 0) and flag", "tf-t"),
        ("missing(1e300 * 1e300 - 1e300 * 1e300) and flag", "tf-t"),
    ],
)
def test_what_is_true(text: str, expected: str) -> None:
    assert evaluated(text) == truths(expected)


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("hour", pa.int64(), [7, 8, None, -3]),
        ("share", pa.float32(), [pytest.approx(0.7), pytest.approx(0.1), None, None]),
        ("paid", pa.string(), ["Cash", "Card", None, ""]),
        ("hour + 1", pa.int64(), [8, 9, None, -2]),
        ("hour - 1 - 2", pa.int64(), [4, 5, None, -6]),
        ("hour - (1 - 2)", pa.int64(), [8, 9, None, -2]),
        ("2 + hour * 2", pa.int64(), [16, 18, None, -4]),
        ("hour * 1.0", pa.float64(), [7.0, 8.0, None, -3.0]),
        ("hour / 2", pa.float64(), [3.5, 4.0, None, -1.5]),
        ("hour // 2", pa.int64(), [3, 4, None, -2]),
        ("hour % 2", pa.int64(), [1, 0, None, 1]),
        ("hour % -2", pa.int64(), [-1, 0, None, -1]),
        ("fare // 0.1", pa.float64(), [9.0, 49.0, 249.0, None]),
        ("fare % 2", pa.float64(), [1.0, 1.0, 1.0, None]),
        ("hour / 0", pa.float64(), [None] * 4),
        ("hour // 0", pa.int64(), [None] * 4),
        ("hour % 0", pa.int64(), [None] * 4),
        ("fare / 0.0", pa.float64(), [None] * 4),
        ("7 % (hour - 7)", pa.int64(), [None, 0, None, -3]),
        ("fare * 1e308 * 10", pa.float64(), [math.inf, math.inf, math.inf, None]),
        ("-hour", pa.int64(), [-7, -8, None, 3]),
        ("--hour", pa.int64(), [7, 8, None, -3]),
        ("- fare * 2", pa.float64(), [-2.0, -10.0, -50.0, None]),
        ("abs(hour)", pa.int64(), [7, 8, None, 3]),
        ("abs(-fare)", pa.float64(), [1.0, 5.0, 25.0, None]),
        ("lower(paid)", pa.string(), ["cash", "card", None, ""]),
        ("length(paid)", pa.int64(), [4, 4, None, 0]),
        ("tips", pa.int64(), [1, None, None, 3]),
        (
            "bucket(fare, 5, 10, 20)",
            pa.string(),
            ["(-inf, 5)", "[5, 10)", "[20, inf)", None],
        ),
        ("bucket(hour, -3.5, 7.5)", pa.string(), ["[-3.5, 7.5)", "[7.5, inf)", None]),
        ("bucket(share, 0.1, 0.7)", pa.string(), ["[0.7, inf)", "[0.1, 0.7)"]),
        ("bucket(nothing, 1)", pa.string(), [None] * 4),
        ("bucket(fare, 5)", pa.string(), ["(-inf, 5)", "[5, inf)", "[5, inf)", None]),
    ],
)
def test_what_is_computed(text: str, kind: pa.DataType, expected: list[Any]) -> None:
    found = parse(text).evaluate(ROWS)
    assert found.type == kind
    assert found.to_pylist()[: len(expected)] == expected


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (pa.array([1, 2], pa.int8()), "x == 2"),
        (pa.array([1, 2], pa.uint64()), "x == 2"),
        (pa.array([decimal.Decimal("1.50"), decimal.Decimal("2.50")]), "x > 2"),
        (pa.array(["a", "b"], pa.large_string()), "x == 'b'"),
        (pa.array([b"a", b"b"]), "x == 'b'"),
        (pa.array([b"a", b"b"], pa.large_binary()), "x == 'b'"),
        (pa.array([b"a", b"b"], pa.binary(1)), "x == 'b'"),
        (pa.array(["a", "b"]).dictionary_encode(), "x == 'b'"),
        (pa.array([["a"], ["b"]], pa.large_list(pa.string())), "x == 'b'"),
        (pa.array([["a"], ["b"]], pa.list_(pa.string(), 1)), "x == 'b'"),
        (pa.array([[["a"]], [["b"]]]), "x == 'b'"),
        (
            pa.array([datetime.date(2020, 1, 31), datetime.date(2020, 2, 1)]),
            "x >= '2020-02'",
        ),
        (
            pa.array([datetime.datetime(2020, 1, 31), datetime.datetime(2020, 2, 1)]),
            "x >= '2020-02-01 00'",
        ),
        (pa.array([datetime.time(6, 30), datetime.time(7)]), "x >= '07'"),
    ],
)
def test_columns_of_every_type_count_as_numbers_or_text(
    values: pa.Array, text: str
) -> None:
    assert evaluated(text, batch_of({"x": values})) == ["false", "true"]


def test_rows_may_be_a_part_of_others_or_none_at_all() -> None:
    assert evaluated("fare > 2 and tips is null", ROWS.slice(1, 2)) == ["true", "true"]
    for text in ("fare > 2", "tips + 1", "bucket(fare, 2)", "hour in range(1, 5)"):
        assert evaluated(text, ROWS.slice(0, 0)) == []


def test_an_expression_names_its_columns_and_results() -> None:
    assert parse("`odd name``` > 2 or b in (1, 2) and abs(c)<b").columns == {
        "odd name`",
        "b",
        "c",
    }
    assert parse("not a").results == ("false", "true")
    assert parse("a is null").results == ("false", "true")
    assert parse("(bucket(a, 1, 2.5))").results == (
        "(-inf, 1)",
        "[1, 2.5)",
        "[2.5, inf)",
    )
    assert parse("a + 1").results == ()


def test_an_expression_can_be_sent_to_workers() -> None:
    expression = parse("fare > 2 and bucket(hour, 1) == '[1, inf)'")
    again = pickle.loads(pickle.dumps(expression))
    assert again == expression
    assert again.evaluate(ROWS).equals(expression.evaluate(ROWS))
    assert parse(expression.text) is expression


NUMBER = "Write one, such as 5 or 0.5."
VALUE = "Write a column, a number or a 'text' there."


@pytest.mark.parametrize(
    ("text", "caret", "sentence"),
    [
        ("fare >", 6, f"ends where a value is expected. {VALUE}"),
        ("fare > )", 7, f"has ')' where a value is expected. {VALUE}"),
        ("* fare", 0, f"has '*' where a value is expected. {VALUE}"),
        (
            "fare > 3 4",
            9,
            "has '4' where an operator is expected. Write one there, or take it out.",
        ),
        (
            "5th > 3",
            1,
            "has 'th' where an operator is expected. Write one there, or take it out.",
        ),
        ("(fare > 3", 9, "ends where ')' is expected. Add it."),
        ("fare AND hour", 5, "has 'AND' where an operator is expected. Write 'and'."),
        ("fare = 3", 5, "has '=', which means nothing here. Write '=='."),
        ("fare === 3", 7, "has '=', which means nothing here. Write '=='."),
        ("fare <> 3", 5, "has '<>', which means nothing here. Write '!='."),
        ("a & b", 2, "has '&', which means nothing here. Write 'and'."),
        ("a && b", 2, "has '&&', which means nothing here. Write 'and'."),
        ("a | b", 2, "has '|', which means nothing here. Write 'or'."),
        ("a || b", 2, "has '||', which means nothing here. Write 'or'."),
        ("!a", 0, "has '!', which means nothing here. Write 'not'."),
        (
            "fare # 3",
            5,
            "has '#', which means nothing here. Take it out; a column with an odd "
            "name stands in backticks.",
        ),
        ('paid == "Cash', 8, 'opens a " that never closes. Close it.'),
        ("paid == 'Cash", 8, "opens a ' that never closes. Close it."),
        ("`odd name > 3", 0, "opens a ` that never closes. Close it."),
        (r"paid == 'a\q'", 10, r"has '\q' in a text. Write a backslash twice."),
        (
            "foo(fare)",
            0,
            "calls 'foo', which is no function. There are 'abs', 'bucket', 'length', "
            "'lower', 'missing'.",
        ),
        (
            "1 < lenght(paid)",
            4,
            "calls 'lenght', which is no function. There are 'abs', 'bucket', "
            "'length', 'lower', 'missing'. Did you mean 'length'?",
        ),
        (
            "range(1, 2)",
            0,
            "calls 'range', which is no function. It stands after 'in'.",
        ),
        ("abs(fare, 3)", 8, "has ',' where ')' is expected. 'abs' takes one value."),
        (
            "bucket(fare)",
            11,
            "has ')' where ',' is expected. Give edges too: bucket(fare, 5, 10, 20).",
        ),
        ("bucket(fare, x)", 13, f"has 'x' where a number is expected. {NUMBER}"),
        ("bucket(fare, 5", 14, "ends where ')' is expected. Separate edges by commas."),
        (
            "bucket(fare, 5, 5.0)",
            16,
            "has the bucket edge 5.0 after 5. Give edges in ascending order.",
        ),
        (
            "fare == null",
            8,
            "has 'null' where a value is expected. To ask for missing values write "
            "'is null', or missing(...).",
        ),
        (
            "fare in (1, None)",
            12,
            "has 'None' where a value is expected. To ask for missing values write "
            "'is null', or missing(...).",
        ),
        (
            "fare is 3",
            8,
            "has '3' where null is expected. Write 'is null', or compare with ==.",
        ),
        (
            "fare not 3",
            9,
            "has '3' where 'in' is expected. Write 'not in', or put 'not' before the "
            "comparison.",
        ),
        (
            "fare in 3",
            8,
            "has '3' where a list of values is expected. Write values in parentheses, "
            "or range(a, b).",
        ),
        (
            "fare in ()",
            9,
            "has ')' where a value is expected. Write a number or a 'text' there.",
        ),
        (
            "fare in (hour, 3)",
            9,
            "has 'hour' where a value is expected. Write a number or a 'text' there.",
        ),
        ("fare in (1, 2]", 13, "has ']' where ')' is expected. Add it."),
        ("fare in (-'a')", 10, f"has ''a'' where a number is expected. {NUMBER}"),
        (
            "hour in range 3",
            14,
            "has '3' where '(' is expected. Write range(a, b), or range(a, b, step).",
        ),
        (
            "hour in range(3)",
            15,
            "has ')' where ',' is expected. Write range(a, b), or range(a, b, step).",
        ),
        ("hour in range(1, b)", 17, f"has 'b' where a number is expected. {NUMBER}"),
        (
            "hour in range(1, 9, 0)",
            20,
            "has a range whose step is 0. Leave the step out.",
        ),
        (
            "hour in range(-1.5, 2)",
            14,
            "has a range of -1.5. Ranges are of whole numbers.",
        ),
        (
            "fare > 9223372036854775808",
            7,
            "has a number that 64 bits do not hold. Write a smaller one.",
        ),
        (
            "fare > 1" + "0" * 5_000,
            7,
            "has a number that 64 bits do not hold. Write a smaller one.",
        ),
        (
            "fare > 1e999",
            7,
            "has a number that 64 bits do not hold. Write a smaller one.",
        ),
    ],
)
def test_a_syntax_error_is_told_with_its_place(
    text: str, caret: int, sentence: str
) -> None:
    with pytest.raises(PipelineError) as caught:
        parse(text)
    assert str(caught.value) == (
        f"Expression '{text}' {sentence}\n    {text}\n    {' ' * caret}^"
    )


def test_an_error_in_several_lines_is_shown_in_one() -> None:
    with pytest.raises(PipelineError) as caught:
        parse("fare >\n\t3 'a\nb'")
    assert str(caught.value) == (
        "Expression 'fare >  3 'a b'' has ''a b'' where an operator is expected. Write "
        "one there, or take it out.\n"
        "    fare >  3 'a b'\n"
        "              ^"
    )


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_an_empty_expression_is_refused(text: str) -> None:
    with pytest.raises(PipelineError) as caught:
        parse(text)
    assert str(caught.value) == (
        f"Expression '{text}' is empty. Write one, such as fare > 20."
    )


def test_an_expression_without_a_column_is_refused() -> None:
    with pytest.raises(PipelineError) as caught:
        parse("'fare' == 'hour'")
    assert str(caught.value) == (
        "Expression ''fare' == 'hour'' reads no column, so it is the same for every "
        "row. Name a column, without quotes."
    )


LIKE = (
    "Compare like with like: numbers stand without quotes, text in quotes, and truth "
    "values are true and false."
)
NUMBERS = "it takes numbers. Compute with columns of numbers."
TRUTHS = "it takes what is true or false. Compare it with something."
HAS = "it has 'fare', 'flag', 'hour', 'paid', 'place'"


@pytest.mark.parametrize(
    ("text", "caret", "sentence"),
    [
        (
            "fair > 3",
            0,
            f"reads 'fair', which is no column of trips ({HAS}). Did you mean 'fare'?",
        ),
        (
            "paid == Kash",
            8,
            f"reads 'Kash', which is no column of trips ({HAS}). Text stands in "
            "quotes.",
        ),
        (
            "fare > 3 and x + y > 2",
            13,
            f"reads 'x', which is no column of trips ({HAS}). Text stands in quotes.",
        ),
        (
            "paid > 3",
            7,
            f"compares 'paid', which is text, with '3', which is a number. {LIKE}",
        ),
        (
            "1 < fare <  lower(paid)",
            12,
            "compares 'fare', which is a number, with 'lower(paid)', which is text. "
            f"{LIKE}",
        ),
        (
            "flag == 1",
            8,
            "compares 'flag', which is true or false, with '1', which is a number. "
            f"{LIKE}",
        ),
        (
            "(fare > 1) == 'true'",
            14,
            "compares '(fare > 1)', which is true or false, with ''true'', which is "
            f"text. {LIKE}",
        ),
        (
            "flag < true",
            7,
            "orders 'flag' and 'true' by '<', and they are true or false. Compare them "
            "with == or !=.",
        ),
        (
            "flag and hour",
            9,
            f"uses 'and' on 'hour', which is a number; {TRUTHS}",
        ),
        ("paid or flag", 0, f"uses 'or' on 'paid', which is text; {TRUTHS}"),
        ("not (hour)", 4, f"uses 'not' on '(hour)', which is a number; {TRUTHS}"),
        ("1 + paid * 2", 4, f"uses '*' on 'paid', which is text; {NUMBERS}"),
        ("1 - flag", 4, f"uses '-' on 'flag', which is true or false; {NUMBERS}"),
        ("-paid", 1, f"uses '-' on 'paid', which is text; {NUMBERS}"),
        ("abs(paid)", 4, f"uses 'abs' on 'paid', which is text; {NUMBERS}"),
        ("bucket(paid, 1)", 7, f"uses 'bucket' on 'paid', which is text; {NUMBERS}"),
        (
            "paid in range(1, 2)",
            0,
            f"uses 'in range' on 'paid', which is text; {NUMBERS}",
        ),
        (
            "lower(fare)",
            6,
            "uses 'lower' on 'fare', which is a number; it takes text. Use a column of "
            "text.",
        ),
        (
            "length(fare)",
            7,
            "uses 'length' on 'fare', which is a number; it takes text. Use a column "
            "of text.",
        ),
        (
            "paid in ('a', 2)",
            14,
            "looks for 'paid', which is text, among values of which '2' is a number. "
            "Compare like with like.",
        ),
        (
            "missing(place)",
            8,
            "reads the column 'place', which is no number, no text and no truth "
            "value. Use another column.",
        ),
    ],
)
def test_what_does_not_fit_the_columns_is_told_with_its_place(
    text: str, caret: int, sentence: str
) -> None:
    rows = batch_of({name: COLUMNS[name] for name in HAS.split("'")[1::2]})
    with pytest.raises(DataError) as caught:
        parse(text).check(rows.schema, "trips")
    assert str(caught.value) == (
        f"Expression '{text}' {sentence}\n    {text}\n    {' ' * caret}^"
    )
    with pytest.raises(DataError) as caught:
        parse(text).evaluate(rows)
    assert sentence.replace("trips", "the rows") in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "hour + 9223372036854775807",
        "-9223372036854775807 - hour",
        "hour * 9223372036854775807",
        "(-9223372036854775807 - least) // (least - 2)",
        "-(-9223372036854775807 - least)",
        "abs(-9223372036854775807 - least)",
    ],
)
def test_a_whole_number_that_gets_too_large_is_refused(text: str) -> None:
    rows = batch_of({"hour": COLUMNS["hour"], "least": pa.array([1, 1, 1, 1])})
    with pytest.raises(DataError) as caught:
        parse(text).evaluate(rows)
    assert str(caught.value) == (
        f"Expression '{text}' computes a whole number beyond "
        "9,223,372,036,854,775,807, the greatest. Multiply by 1.0 to compute with "
        f"floats.\n    {text}\n    ^"
    )


def test_a_row_with_several_values_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        evaluated("length(tags) > 2")
    assert str(caught.value) == (
        "Column 'tags' has a row with 3 values, and expression 'length(tags) > 2' "
        "takes one of each row. Slice by the column itself: feature_keys=['tags']."
    )


@pytest.mark.parametrize(
    ("values", "text", "sentence"),
    [
        (
            pa.array([b"a", b"\xff"]),
            "x == 'a'",
            "Column 'x' has text that is not UTF-8. Mend or convert it before "
            "ingestion.",
        ),
        (
            pa.array([1, 2**63], pa.uint64()),
            "x == 1",
            "Column 'x' has an integer beyond 9,223,372,036,854,775,807, the greatest. "
            "Mend or convert it before ingestion.",
        ),
    ],
)
def test_values_that_cannot_be_read_are_refused(
    values: pa.Array, text: str, sentence: str
) -> None:
    with pytest.raises(DataError) as caught:
        evaluated(text, batch_of({"x": values}))
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("before", "after", "place"),
    [
        ("(", ")", DEEPEST),
        ("not ", "", 4 * DEEPEST),
        ("- ", "", 2 * DEEPEST),
        ("missing(", ")", 8 * DEEPEST),
    ],
)
def test_nesting_has_a_limit(before: str, after: str, place: int) -> None:
    deepest = before * DEEPEST + "x" + after * DEEPEST
    rows = batch_of({"x": pa.array([1 if before == "- " else True])})
    assert len(parse(deepest).evaluate(rows)) == 1
    for deeper in (before + deepest + after, before * 100_000 + "x"):
        with pytest.raises(PipelineError) as caught:
            parse(deeper)
        sentence, shown, caret = str(caught.value).splitlines()
        assert sentence == (
            f"Expression '{deeper}' is nested more than {DEEPEST} levels deep. Write "
            "it flatter, or compute a column before ingestion."
        )
        assert shown.strip() == deeper
        assert caret.index("^") - 4 == place + len(before)


@pytest.mark.parametrize("sign", [" and ", " or ", " == ", " + ", " * "])
def test_a_flat_expression_may_be_as_long_as_you_like(sign: str) -> None:
    values = pa.array([0 if sign in (" + ", " * ") else True])
    found = parse(sign.join(["x"] * 5_000)).evaluate(batch_of({"x": values}))
    assert found.to_pylist() in (["true"], [0])


# A second reading of the language: trees of tuples, written as text by one function
# and computed row by row by another.

Tree = tuple[Any, ...]
KINDS = {"a": "number", "b": "number", "x": "number", "y": "number"}
KINDS |= {"s": "text", "t": "text", "p": "truth", "q": "truth"}

ints = st.one_of(st.integers(-5, 5), st.integers(-1_000, 1_000))
floats = st.one_of(
    st.sampled_from([0.0, 0.5, -1.5, 2.0, 1e-3, 1e300]),
    st.floats(-100, 100, allow_nan=False),
)
texts = st.text("aBé'\"\\ \n", max_size=2)


def literals(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Tree]:
    return st.tuples(st.just("literal"), values)


def columns(kind: str) -> st.SearchStrategy[Tree]:
    names = [name for name, has in KINDS.items() if has == kind]
    return st.tuples(st.just("column"), st.sampled_from(names))


def node(name: str, *parts: Any) -> st.SearchStrategy[Tree]:
    return st.tuples(st.just(name), *parts)


@functools.lru_cache
def trees(kind: str, depth: int) -> st.SearchStrategy[Tree]:
    """Return a strategy for trees of a kind that are no deeper."""
    values = {
        "number": st.one_of(ints, floats),
        "text": texts,
        "truth": st.booleans(),
    }
    if depth == 0:
        return st.one_of(columns(kind), columns(kind), literals(values[kind]))
    number, text, truth = (
        trees(each, depth - 1) for each in ("number", "text", "truth")
    )
    edges = st.lists(values["number"], min_size=1, max_size=4, unique=True)
    members = st.lists(values["number"], min_size=1, max_size=3)
    signs = ["+", "-", "*", "/", "//", "%"]
    step = st.integers(-3, 3).filter(bool)
    found = {
        "number": [
            node("compute", number, st.sampled_from(signs), number),
            node("compute", number, st.sampled_from(signs), number),
            node("negate", number),
            node("abs", number),
            node("length", text),
        ],
        "text": [
            node("lower", text),
            node("bucket", number, edges.map(sorted)),
        ],
        "truth": [
            chains(number, ["==", "!=", "<", "<=", ">", ">="]),
            chains(text, ["==", "!=", "<", "<=", ">", ">="]),
            chains(truth, ["==", "!="]),
            node("both", st.sampled_from(["and", "or"]), truth, truth),
            node("both", st.sampled_from(["and", "or"]), truth, truth),
            node("not", truth),
            node("missing", st.one_of(number, text, truth), st.integers(0, 2)),
            node("range", number, st.integers(-9, 9), st.integers(-9, 9), step),
            node("among", number, members, st.booleans()),
            node("among", text, st.lists(texts, min_size=1), st.booleans()),
        ],
    }
    return st.one_of(*found[kind])


def chains(operand: st.SearchStrategy[Tree], signs: list[str]) -> Any:
    link = st.tuples(st.sampled_from(signs), operand)
    return node("compare", operand, st.lists(link, min_size=1, max_size=2))


BINDS = {"or": 1, "and": 2, "not": 3, "compare": 4, "+": 5, "-": 5, "negate": 7}
BINDS |= {"missing": 4, "range": 4, "among": 4}


def quoted_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def literal_text(value: Any) -> str:
    return quoted_text(value) if isinstance(value, str) else repr(value)


def binds(tree: Tree) -> int:
    """Return how strongly the parts of a tree's text hold together."""
    head = tree[0]
    if head == "compute":
        return BINDS.get(tree[2], 6)
    if head == "both":
        return BINDS[tree[1]]
    if head == "missing" and tree[2] == 0:
        return 8
    if head == "literal" and literal_text(tree[1]).startswith("-"):
        return 7
    return BINDS.get(head, 8)


def written(tree: Tree, least: int = 0) -> str:
    """Return a tree as text, with no more parentheses than it needs."""
    text = _written(tree)
    return f"({text})" if binds(tree) < least else text


def _written(tree: Tree) -> str:
    head, first = tree[0], tree[1]
    if head == "column":
        return str(first)
    if head == "literal":
        return literal_text(first)
    if head == "compute":
        strength = binds(tree)
        return f"{written(first, strength)}{tree[2]} {written(tree[3], strength + 1)}"
    if head == "both":
        strength = binds(tree)
        parts = (written(each, strength) for each in tree[2:])
        return f" {first} ".join(parts)
    if head == "compare":
        links = "".join(f" {sign} {written(each, 5)}" for sign, each in tree[2])
        return written(first, 5) + links
    if head == "not":
        return f"not {written(first, 3)}"
    if head == "negate":
        return f"-{written(first, 7)}"
    if head == "missing":
        if tree[2] == 0:
            return f"missing({written(first)})"
        return f"{written(first, 5)} is {'not ' if tree[2] == 2 else ''}null"
    if head == "range":
        return f"{written(first, 5)} in range({tree[2]}, {tree[3]}, {tree[4]})"
    if head == "among":
        members = ", ".join(map(literal_text, tree[2]))
        return f"{written(first, 5)} {'not ' if tree[3] else ''}in [{members}]"
    if head == "bucket":
        return f"bucket({written(first)}, {', '.join(map(repr, tree[2]))})"
    return f"{head}({written(first)})"


class Overflowed(Exception):
    """A whole number got too large."""


def found_in(row: dict[str, Any], tree: Tree) -> Any:
    """Compute a tree for one row; None is missing."""
    value = _found_in(row, tree)
    if isinstance(value, float) and math.isnan(value):
        return None
    if type(value) is int and not -(2**63) <= value < 2**63:
        raise Overflowed
    return value


def _found_in(row: dict[str, Any], tree: Tree) -> Any:
    head, first = tree[0], tree[1]
    if head == "column":
        return row[first]
    if head == "literal":
        return first
    if head == "both":
        return kleene(first, *(found_in(row, each) for each in tree[2:]))
    if head == "compare":
        values = [found_in(row, first)]
        results = []
        for sign, each in tree[2]:
            values.append(found_in(row, each))
            results.append(compared(sign, *values[-2:]))
        return kleene("and", *results)
    value = found_in(row, first)
    if head == "missing":
        return (value is None) is not (tree[2] == 2)
    if head == "compute":
        return computed(tree[2], value, found_in(row, tree[3]))
    if value is None:
        return None
    if head == "range":
        return value in range(*tree[2:]) if abs(value) < 100 else False
    if head == "among":
        return (value in tree[2]) is not tree[3]
    if head == "bucket":
        edges = ["-inf", *map(repr, tree[2]), "inf"]
        place = bisect.bisect_right(tree[2], value)
        return f"{'[' if place else '('}{edges[place]}, {edges[place + 1]})"
    plain: dict[str, Callable[[Any], Any]] = {
        "not": lambda value: not value,
        "negate": lambda value: -value,
        "abs": abs,
        "length": len,
        "lower": str.lower,
    }
    return plain[head](value)


def kleene(word: str, *values: bool | None) -> bool | None:
    decisive = word == "or"
    if decisive in values:
        return decisive
    return None if None in values else not decisive


def compared(sign: str, one: Any, other: Any) -> bool | None:
    if one is None or other is None:
        return None
    if float in (type(one), type(other)):
        one, other = float(one), float(other)
    found: bool = {
        "==": one == other,
        "!=": one != other,
        "<": one < other,
        "<=": one <= other,
        ">": one > other,
        ">=": one >= other,
    }[sign]
    return found


def computed(sign: str, one: Any, other: Any) -> Any:
    if one is None or other is None or (sign in "//%" and other == 0):
        return None
    if sign == "/" or float in (type(one), type(other)):
        one, other = float(one), float(other)
    return {
        "+": lambda: one + other,
        "-": lambda: one - other,
        "*": lambda: one * other,
        "/": lambda: one / other,
        "//": lambda: one // other,
        "%": lambda: one % other,
    }[sign]()


def rows_of(seed: int, *, missing: bool) -> list[dict[str, Any]]:
    """Return rows of small numbers and texts, of which some are alike."""
    chance = random.Random(seed)
    odd: list[Any] = [None] if missing else []
    whole = [*range(-3, 4), 250, -1_000, *odd]
    broken = [0.0, 0.5, -1.5, 2.0, 1e-3, 1e300, *odd, *(odd and [math.nan])]
    words = ["", "a", "B", "aB", "é'", "\n\\", *odd]
    truths = [True, False, *odd]
    legal = {
        "a": whole,
        "b": whole,
        "x": broken,
        "y": broken,
        "s": words,
        "t": words,
        "p": truths,
        "q": truths,
    }
    return [
        {name: chance.choice(values) for name, values in legal.items()}
        for _ in range(20)
    ]


TYPES = {"a": pa.int64(), "b": pa.int64(), "x": pa.float64(), "y": pa.float64()}
TYPES |= {"s": pa.string(), "t": pa.string(), "p": pa.bool_(), "q": pa.bool_()}


def batch_of_rows(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    return batch_of(
        {
            name: pa.array([row[name] for row in rows], kind)
            for name, kind in TYPES.items()
        }
    )


def as_result(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


kinds = st.sampled_from(["number", "text", "truth", "truth"])
seeds = st.integers(0, 10_000)


@settings(max_examples=300)
@given(
    tree=st.tuples(kinds, st.integers(1, 3)).flatmap(lambda each: trees(*each)),
    seed=seeds,
)
def test_the_same_as_computed_row_by_row(tree: Tree, seed: int) -> None:
    text, rows = written(tree), rows_of(seed, missing=True)
    try:
        expression = parse(text)
    except PipelineError as error:
        assume("reads no column" not in str(error) and "nested" not in str(error))
        raise
    try:
        expected = [as_result(found_in(row, tree)) for row in rows]
    except Overflowed:
        with pytest.raises(DataError, match="computes a whole number beyond"):
            expression.evaluate(batch_of_rows(rows))
        return
    found = expression.evaluate(batch_of_rows(rows)).to_pylist()
    assert found == expected, text
    assert [type(each) for each in found] == [type(each) for each in expected], text


plain_numbers = st.one_of(
    columns("number"),
    literals(st.integers(-9, 9)),
    st.tuples(
        st.just("compute"),
        columns("number"),
        st.sampled_from(["+", "-", "*"]),
        columns("number"),
    ),
)
plain_comparisons = st.one_of(
    st.tuples(
        st.just("compare"),
        plain_numbers,
        st.lists(
            st.tuples(st.sampled_from(["==", "!=", "<", ">="]), columns("number")),
            min_size=1,
            max_size=2,
        ),
    ),
    st.tuples(
        st.just("among"),
        columns("text"),
        st.lists(st.sampled_from(["a", "B", ""]), min_size=1, max_size=3),
        st.booleans(),
    ),
)
plain_trees = st.recursive(
    plain_comparisons,
    lambda inner: st.one_of(
        st.tuples(st.just("both"), st.sampled_from(["and", "or"]), inner, inner),
        st.tuples(st.just("not"), inner),
    ),
    max_leaves=4,
)


@settings(max_examples=150)
@given(tree=plain_trees, seed=seeds)
def test_the_same_as_in_pandas(tree: Tree, seed: int) -> None:
    text, rows = written(tree), rows_of(seed, missing=False)
    found = parse(text).evaluate(batch_of_rows(rows)).to_pylist()
    expected = pd.DataFrame(rows).eval(text, engine="python")
    assert [each == "true" for each in found] == list(expected), text


WORDS = (
    "and or not in is null None true range bucket abs missing a b x s `p` 'c' 1 2.5 "
    "( ) [ ] , + - * / // % < <= == != = & \\ ' ` . é"
)


@settings(max_examples=600)
@given(
    text=st.one_of(
        st.text(max_size=30),
        st.lists(st.sampled_from(WORDS.split()), max_size=12).map(" ".join),
        st.text("()ab'`\"\\<=>!&|+-*/%.,0123456789e_ \n\x00", max_size=30),
    )
)
def test_any_text_is_an_expression_or_gets_a_sentence(text: str) -> None:
    rows = batch_of_rows([dict.fromkeys(TYPES)])
    try:
        found = parse(text)
    except PipelineError as error:
        sentence, *place = str(error).split("\n    ")
        assert sentence.startswith("Expression '")
        assert sentence[-1] in ".?"
        assert place == [] or (len(place) == 2 and place[1].strip() == "^")
        return
    assert isinstance(found, Expression)
    try:
        assert len(found.evaluate(rows)) == 1
    except DataError as error:
        assert str(error).startswith("Expression '")


def test_no_function_is_called_per_row() -> None:
    """The number of calls is that of the parts, however many rows there are."""

    def calls(rows: int) -> int:
        batch = batch_of(
            {
                "fare": pa.array(np.arange(rows) / 7),
                "paid": pa.array(np.where(np.arange(rows) % 3, "a", "b")),
            }
        )
        text = "fare > 20 and paid in ('a', 'b') or bucket(fare // 2, 5) == paid"
        parse(text)
        count = 0

        def counted(*_: object) -> None:
            nonlocal count
            count += 1

        sys.setprofile(counted)
        try:
            parse(text).evaluate(batch)
        finally:
            sys.setprofile(None)
        return count

    assert calls(100) == calls(10_000)
