"""Spans and versions in the patterns of input files, by TFX's rules.

A pattern may hold `{SPAN}` or a date, `{YYYY}`, `{MM}` and `{DD}`, whose span is the
number of days since 1970-01-01; and with either, `{VERSION}`. `{SPAN:4}` and
`{VERSION:2}` are zero-padded to that many digits. Unless asked for, the latest span is
taken, and of it the latest version.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Iterable, Sequence

from penstock.schemas.errors import DataError, PipelineError, did_you_mean

_SPEC = re.compile(r"\{([A-Za-z]+)(?::([^}]*))?\}")
_NAMES = ("SPAN", "VERSION", "YYYY", "MM", "DD")
_DATE = {"YYYY": 4, "MM": 2, "DD": 2}
_EPOCH = datetime.date(1970, 1, 1)


@dataclasses.dataclass(frozen=True)
class Matched:
    """The files of one span and version.

    Attributes:
        pattern: The pattern with the numbers filled in.
        files: What matched, sorted.
        span: The span, None if the pattern has none.
        version: The version, None if the pattern has none.
    """

    pattern: str
    files: tuple[str, ...]
    span: int | None
    version: int | None


def check_pattern(pattern: str) -> None:
    """Check the specs of a pattern.

    Raises:
        PipelineError: If one is unknown, there twice, or not allowed beside another.
    """
    found = [(match.group(1), match.group(2)) for match in _SPEC.finditer(pattern)]
    names = [name for name, _ in found]
    subject = f"Pattern '{pattern}'"
    for name, width in found:
        if name not in _NAMES:
            legal = "{SPAN}, {VERSION}, {YYYY}, {MM} and {DD}"
            raise PipelineError(
                f"{subject} holds '{{{name}}}', which means nothing; there are {legal}."
                f"{did_you_mean(name, _NAMES)}"
            )
        if names.count(name) > 1:
            raise PipelineError(
                f"{subject} holds '{{{name}}}' {names.count(name)} times. Write it "
                "once and '*' elsewhere."
            )
        if width is not None and (
            name in _DATE or not width.isdecimal() or int(width) < 1
        ):
            raise PipelineError(
                f"{subject} gives '{{{name}}}' the width '{width}'. Only {{SPAN}} and "
                "{VERSION} take a width, a whole number of digits."
            )
    dates = [name for name in _DATE if name in names]
    if dates and "SPAN" in names:
        raise PipelineError(
            f"{subject} holds both '{{SPAN}}' and a date. Use one of them."
        )
    if dates and len(dates) < len(_DATE):
        missing = ", ".join(f"'{{{name}}}'" for name in _DATE if name not in names)
        raise PipelineError(
            f"{subject} holds a part of a date without {missing}. Write the whole date."
        )
    if "VERSION" in names and not dates and "SPAN" not in names:
        raise PipelineError(
            f"{subject} holds '{{VERSION}}' without a span. Add '{{SPAN}}' or a date."
        )
    if re.search(r"\{(SPAN|VERSION)\}\{(SPAN|VERSION|YYYY)", pattern):
        raise PipelineError(
            f"{subject} has two numbers side by side, the first without a width. Give "
            "it one, as '{SPAN:4}', or put something between them."
        )


def has_span(pattern: str) -> bool:
    """Return whether a pattern holds a span or a date."""
    return "{SPAN" in pattern or "{YYYY}" in pattern


def has_version(pattern: str) -> bool:
    """Return whether a pattern holds a version."""
    return "{VERSION" in pattern


def glob_of(pattern: str) -> str:
    """Return the pattern with a wildcard in the place of every number."""
    return _SPEC.sub("*", pattern)


def select(
    pattern: str,
    paths: Iterable[str],
    *,
    span: int | None = None,
    version: int | None = None,
) -> Matched:
    """Return the files of a span and version among those that match.

    Args:
        pattern: A pattern that `check_pattern` allows.
        paths: What matches `glob_of(pattern)`, with forward slashes.
        span: The span to take; the latest if None.
        version: The version of that span to take; the latest if None.

    Raises:
        DataError: If a path has no number where the pattern has one, no path is of
            that span and version, or a number is spelt in two ways.
    """
    paths = sorted(paths)
    if not paths or not _SPEC.search(pattern):
        return Matched(pattern, tuple(paths), None, None)
    regex = _regex(pattern)
    read = [(path, _numbers(pattern, regex, path)) for path in paths]
    span = _chosen("span", [n[0] for _, n in read], span, pattern)
    read = [(path, n) for path, n in read if n[0] == span]
    if has_version(pattern):
        versions = [n[1] for _, n in read if n[1] is not None]
        version = _chosen("version", versions, version, pattern)
        read = [(path, n) for path, n in read if n[1] == version]
    else:
        version = None
    filled = {_filled(pattern, numbers[2]) for _, numbers in read}
    if len(filled) > 1:
        one, other = sorted(filled)[:2]
        raise DataError(
            f"Pattern '{pattern}' finds span {span} in two spellings, '{one}' and "
            f"'{other}'. Give the number a width, as '{{SPAN:2}}', or remove one."
        )
    return Matched(filled.pop(), tuple(path for path, _ in read), span, version)


def _regex(pattern: str) -> re.Pattern[str]:
    parts = []
    at = 0
    for match in _SPEC.finditer(pattern):
        parts.append(_glob_regex(pattern[at : match.start()]))
        name, width = match.group(1), match.group(2) or _DATE.get(match.group(1))
        digits = rf"\d{{{width}}}" if width else r"\d+"
        parts.append(f"(?P<{name}>{digits})")
        at = match.end()
    parts.append(_glob_regex(pattern[at:]))
    return re.compile("".join(parts))


def _glob_regex(text: str) -> str:
    """Return what a piece of a glob pattern matches, as a regular expression."""
    parts = []
    at = 0
    while at < len(text):
        char = text[at]
        end = text.find("]", at + 2) if char == "[" else -1
        if end > 0:
            inside = text[at + 1 : end].replace("\\", "\\\\")
            parts.append(f"[{'^' + inside[1:] if inside[0] == '!' else inside}]")
            at = end
        else:
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char)))
        at += 1
    return "".join(parts)


def _numbers(
    pattern: str, regex: re.Pattern[str], path: str
) -> tuple[int, int | None, dict[str, str]]:
    match = regex.fullmatch(path)
    if match is None:
        raise DataError(
            f"'{path}' has no number where pattern '{pattern}' has one. Rename it, or "
            "make the pattern narrower."
        )
    found = match.groupdict()
    version = int(found["VERSION"]) if "VERSION" in found else None
    if "SPAN" in found:
        return int(found["SPAN"]), version, found
    year, month, day = (int(found[name]) for name in _DATE)
    try:
        date = datetime.date(year, month, day)
    except ValueError as error:
        raise DataError(
            f"'{path}' holds the date {year:04}-{month:02}-{day:02} by pattern "
            f"'{pattern}', which is no day. Rename it, or make the pattern narrower."
        ) from error
    return (date - _EPOCH).days, version, found


def _chosen(
    noun: str, numbers: Sequence[int], wanted: int | None, pattern: str
) -> int | None:
    if wanted is None:
        return max(numbers, default=None)
    if wanted not in numbers:
        there = ", ".join(map(str, sorted(set(numbers)))) or "none"
        raise DataError(
            f"Pattern '{pattern}' finds no {noun} {wanted} (there are {there}). Ask "
            "for one that is there, or for none to take the latest."
        )
    return wanted


def _filled(pattern: str, found: dict[str, str]) -> str:
    return _SPEC.sub(lambda match: found[match.group(1)], pattern)
