"""CSV files into splits: guess the types, convert, convert again if they were wrong.

The first records of the first file tell the types that are tried. A group of files in
which they do not fit is read to its end to find those that do, and, once the types of
the whole input are known, converted once more.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.components.base import RunContext
from penstock.components.columns import csv, splits
from penstock.components.ingestion.inputs import Group, Inputs, groups
from penstock.components.ingestion.shards import (
    NOTHING,
    Deal,
    Quarantine,
    Shards,
    Written,
    encoded,
    in_order,
    over_groups,
    save_strata,
    with_cuts,
)
from penstock.schemas.errors import DataError
from penstock.schemas.splits import Stratified


@dataclasses.dataclass(frozen=True)
class Found:
    """What one reading of a group of files found.

    Attributes:
        fits: Whether its rows fit the types that were tried.
        levels: What the cells need.
        written: What was written.
        bad: How many records were set aside.
        strata: Where strata and hashes were saved, for a survey.
    """

    fits: bool
    levels: Mapping[str, csv.Level]
    written: Written
    bad: int
    strata: str = ""


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a group of CSV files is read.

    Attributes:
        columns: The columns, with the types that are tried.
        dialect: How the text is meant.
        sets_aside: Whether bad records are set aside, rather than fatal.
        deal: How rows become files.
    """

    columns: csv.Columns
    dialect: csv.Dialect
    sets_aside: bool
    deal: Deal


def ingest(
    inputs: Inputs,
    dialect: csv.Dialect,
    column_types: Mapping[str, str],
    deal: Deal,
    context: RunContext,
    *,
    sets_aside: bool,
) -> tuple[list[Written], int]:
    """Convert CSV files to the files of splits.

    Args:
        inputs: The files.
        dialect: How their text is meant.
        column_types: Types that the user gave, by column.
        deal: How rows become files.
        context: What the component runs in.
        sets_aside: Whether bad records are set aside, rather than fatal.

    Returns:
        What was written, and how many records were set aside.

    Raises:
        DataError: If a file is not what it should be.
    """
    columns = _guess(inputs.files, dialect, column_types)
    handles = groups(inputs, keep_splits=deal.rule is None)
    reading = Reading(columns, dialect, sets_aside, deal)
    if isinstance(deal.rule, Stratified):
        reading = _surveyed(reading, handles, context)
    found = over_groups(
        context, "Convert CSV files", functools.partial(convert, reading), handles
    )
    widened = _widened(reading, found)
    if widened.columns.schema != reading.columns.schema:
        # One row that needs a wider type gives it to all the files.
        for each in found:
            each.written.remove()
        label = "Convert CSV files with wider types"
        wider = functools.partial(convert, widened)
        found = over_groups(context, label, wider, handles)
    if not all(each.fits for each in found):
        raise DataError(
            f"The columns of '{inputs.splits[0].pattern}' have other types now than "
            "a moment ago: the files were changed meanwhile. Run again."
        )
    pa.default_memory_pool().release_unused()
    return [each.written for each in found], sum(each.bad for each in found)


def _guess(
    files: Sequence[Path], dialect: csv.Dialect, column_types: Mapping[str, str]
) -> csv.Columns:
    """Check the headers, and find the types of the first records."""
    names = csv.read_header(files[0], dialect)
    csv.check_explicit(column_types, names)
    for path in files[1:]:
        header = csv.read_header(path, dialect)
        csv.check_same_header(header, path.name, names, files[0].name)
    columns = csv.Columns.unseen(names, column_types)
    for path in files:
        for chunk in csv.chunks(path, dialect):
            parsed = csv.parse(chunk, columns, dialect, infer=True)
            return columns.joined(parsed.levels)
    return columns


def _widened(reading: Reading, found: Sequence[Found]) -> Reading:
    columns = reading.columns
    for each in found:
        columns = columns.joined(each.levels)
    return dataclasses.replace(reading, columns=columns)


def _surveyed(
    reading: Reading, handles: Sequence[Group], context: RunContext
) -> Reading:
    """Return the reading with the types of the whole input, and where to cut strata."""
    for _ in range(2):
        survey = functools.partial(_survey, reading, context.temp_dir)
        found = over_groups(context, "Survey the strata", survey, handles)
        widened = _widened(reading, found)
        if all(each.fits for each in found) and (
            widened.columns.schema == reading.columns.schema
        ):
            break
        reading = widened
    files = [each.strata for each in found]
    return dataclasses.replace(reading, deal=with_cuts(reading.deal, files))


def convert(reading: Reading, group: Group) -> Found:
    """Write the rows of a group of CSV files to the files of their splits.

    Where the types do not fit, nothing is written, and the rest is read to find those
    that do.

    Raises:
        DataError: If a record cannot be read and is not to be set aside, or rows are
            lost on the way.
    """
    shards = Shards(reading.deal, group, reading.columns.schema)
    quarantine = Quarantine(reading.deal, group)
    levels = reading.columns
    scanned = 0
    fits = True
    try:
        for chunk, parsed, parts in _parsed(reading, group, _parts):
            if parsed.bad and not reading.sets_aside:
                raise parsed.bad[0].error()
            scanned += chunk.rows
            levels = levels.joined(parsed.levels)
            if parsed.batch is None:
                fits = False
            if fits:
                shards.write(parts)
                quarantine.add(parsed.bad)
    except BaseException:
        shards.discard()
        raise
    if not fits:
        shards.discard()
        return Found(False, levels.levels, NOTHING, 0)
    shards.close()
    written = shards.written
    count = sum(written.rows.values()) + quarantine.lines
    if count != scanned:
        raise DataError(
            f"{', '.join(group.files)}: {scanned} records were counted and {count} "
            "came out. Nothing may be lost; report this with the input."
        )
    files = {**written.files, **quarantine.files}
    return Found(True, levels.levels, Written(written.rows, files), quarantine.lines)


def _survey(reading: Reading, folder: Path, group: Group) -> Found:
    """Save the strata and hashes of the rows of a group of CSV files."""
    levels = reading.columns
    strata: list[splits.Hashes] = []
    fits = True
    for _, parsed, hashes in _parsed(reading, group, _strata):
        levels = levels.joined(parsed.levels)
        fits = fits and parsed.batch is not None
        if fits:
            strata.append(hashes)
    saved = save_strata(folder, group, strata)
    return Found(fits, levels.levels, NOTHING, 0, saved)


def _parsed(
    reading: Reading,
    group: Group,
    made_of: Callable[[Reading, Group, pa.RecordBatch], Any],
) -> Iterator[tuple[csv.Chunk, csv.Parsed, Any]]:
    """Yield the chunks of a group, parsed, and what a function makes of each batch."""
    infer = False

    def work(chunk: csv.Chunk) -> tuple[csv.Chunk, csv.Parsed, Any]:
        parsed = csv.parse(chunk, reading.columns, reading.dialect, infer=infer)
        made = None if parsed.batch is None else made_of(reading, group, parsed.batch)
        return chunk, parsed, made

    chunks = (
        chunk
        for path in group.files
        for chunk in csv.chunks(Path(path), reading.dialect)
    )
    for chunk, parsed, made in in_order(work, chunks):
        yield chunk, parsed, made
        # Once the types do not fit, only what the cells need is of interest.
        infer = infer or parsed.batch is None


def _parts(reading: Reading, group: Group, batch: pa.RecordBatch) -> dict[str, Any]:
    return encoded(reading.deal.dealt(batch, group), reading.deal.file_format)


def _strata(reading: Reading, group: Group, batch: pa.RecordBatch) -> splits.Hashes:
    rule = reading.deal.rule
    if not isinstance(rule, Stratified):
        raise TypeError("Only stratified splits are surveyed.")
    return splits.strata_and_hashes(rule, batch)
