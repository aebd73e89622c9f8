"""Spans and versions in patterns, by TFX's rules."""

from __future__ import annotations

import pytest

from penstock.components.ingestion import spans
from penstock.schemas.errors import DataError, PipelineError


def test_a_pattern_without_specs_keeps_every_file() -> None:
    found = spans.select("*.csv", ["b.csv", "a.csv"])
    assert found == spans.Matched("*.csv", ("a.csv", "b.csv"), None, None)


@pytest.mark.parametrize(
    ("pattern", "paths", "expected"),
    [
        ("span{SPAN}/*", ["span2/b", "span10/c"], ("span10/*", "span10/c", 10)),
        ("s{SPAN:3}-*", ["s001-a", "s012-a", "s002-a"], ("s012-*", "s012-a", 12)),
        ("{YYYY}-{MM}-{DD}/*", ["1970-01-02/a"], ("1970-01-02/*", "1970-01-02/a", 1)),
        ("{YYYY}{MM}{DD}", ["20200229", "20191231"], ("20200229", "20200229", 18321)),
        ("{DD}.{MM}.{YYYY}", ["31.12.1969"], ("31.12.1969", "31.12.1969", -1)),
    ],
)
def test_the_latest_span_is_taken(
    pattern: str, paths: list[str], expected: tuple[str, str, int]
) -> None:
    spans.check_pattern(pattern)
    found = spans.select(pattern, paths)
    assert (found.pattern, *found.files, found.span) == expected
    assert found.version is None


def test_the_latest_version_of_the_latest_span_is_taken() -> None:
    pattern = "span{SPAN:2}/v{VERSION}/*.csv"
    paths = ["span01/v9/a.csv", "span02/v1/a.csv", "span02/v3/a.csv", "span02/v3/b.csv"]
    found = spans.select(pattern, paths)
    assert found == spans.Matched(
        "span02/v3/*.csv", ("span02/v3/a.csv", "span02/v3/b.csv"), 2, 3
    )
    assert spans.select(pattern, paths, span=1).version == 9
    assert spans.select(pattern, paths, version=1).files == ("span02/v1/a.csv",)


def test_dates_and_versions_go_together() -> None:
    pattern = "{YYYY}-{MM}-{DD}-{VERSION:2}"
    found = spans.select(pattern, ["1970-01-03-01", "1970-01-03-02", "1970-01-02-09"])
    assert found == spans.Matched("1970-01-03-02", ("1970-01-03-02",), 2, 2)


def test_a_span_can_be_asked_for_by_number_even_of_dates() -> None:
    paths = ["1970-01-01", "1970-01-02", "1970-01-03"]
    found = spans.select("{YYYY}-{MM}-{DD}", paths, span=1)
    assert found.files == ("1970-01-02",)


def test_wildcards_beside_numbers_match_as_in_globs() -> None:
    paths = ["x-3-a[1].csv", "x-12-b.csv"]
    assert spans.glob_of("?-{SPAN}-*.csv") == "?-*-*.csv"
    assert spans.select("?-{SPAN}-*.csv", paths).span == 12
    assert spans.select("[!y]-{SPAN}-[ab]*.csv", paths).span == 12


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (
            "{SPANS}/*",
            "Pattern '{SPANS}/*' holds '{SPANS}', which means nothing; there are "
            "{SPAN}, {VERSION}, {YYYY}, {MM} and {DD}. Did you mean 'SPAN'?",
        ),
        (
            "{SPAN}/{SPAN}",
            "Pattern '{SPAN}/{SPAN}' holds '{SPAN}' 2 times. Write it once and '*' "
            "elsewhere.",
        ),
        (
            "{SPAN:x}",
            "Pattern '{SPAN:x}' gives '{SPAN}' the width 'x'. Only {SPAN} and "
            "{VERSION} take a width, a whole number of digits.",
        ),
        (
            "{YYYY:4}{MM}{DD}",
            "Pattern '{YYYY:4}{MM}{DD}' gives '{YYYY}' the width '4'. Only {SPAN} and "
            "{VERSION} take a width, a whole number of digits.",
        ),
        (
            "{SPAN}/{YYYY}-{MM}-{DD}",
            "Pattern '{SPAN}/{YYYY}-{MM}-{DD}' holds both '{SPAN}' and a date. Use one "
            "of them.",
        ),
        (
            "{YYYY}-{MM}",
            "Pattern '{YYYY}-{MM}' holds a part of a date without '{DD}'. Write the "
            "whole date.",
        ),
        (
            "v{VERSION}",
            "Pattern 'v{VERSION}' holds '{VERSION}' without a span. Add '{SPAN}' or a "
            "date.",
        ),
        (
            "{SPAN}{VERSION}",
            "Pattern '{SPAN}{VERSION}' has two numbers side by side, the first without "
            "a width. Give it one, as '{SPAN:4}', or put something between them.",
        ),
    ],
)
def test_patterns_that_cannot_be_get_a_sentence(pattern: str, said: str) -> None:
    with pytest.raises(PipelineError) as caught:
        spans.check_pattern(pattern)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("pattern", "paths", "options", "said"),
    [
        (
            "day-{SPAN}",
            ["day-1", "day-x"],
            {},
            "'day-x' has no number where pattern 'day-{SPAN}' has one. Rename it, or "
            "make the pattern narrower.",
        ),
        (
            "{YYYY}-{MM}-{DD}",
            ["2020-02-30"],
            {},
            "'2020-02-30' holds the date 2020-02-30 by pattern '{YYYY}-{MM}-{DD}', "
            "which is no day. Rename it, or make the pattern narrower.",
        ),
        (
            "day-{SPAN}",
            ["day-1", "day-3"],
            {"span": 2},
            "Pattern 'day-{SPAN}' finds no span 2 (there are 1, 3). Ask for one that "
            "is there, or for none to take the latest.",
        ),
        (
            "{SPAN}/{VERSION}",
            ["1/7", "2/8"],
            {"version": 7},
            "Pattern '{SPAN}/{VERSION}' finds no version 7 (there are 8). Ask for one "
            "that is there, or for none to take the latest.",
        ),
        (
            "day-{SPAN}",
            ["day-1", "day-01"],
            {},
            "Pattern 'day-{SPAN}' finds span 1 in two spellings, 'day-01' and 'day-1'. "
            "Give the number a width, as '{SPAN:2}', or remove one.",
        ),
    ],
)
def test_files_that_cannot_be_get_a_sentence(
    pattern: str, paths: list[str], options: dict[str, int], said: str
) -> None:
    with pytest.raises(DataError) as caught:
        spans.select(pattern, paths, **options)
    assert str(caught.value) == said


def test_no_files_have_no_span() -> None:
    assert spans.select("day-{SPAN}/*", []).files == ()
