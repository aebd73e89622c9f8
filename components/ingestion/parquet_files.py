"""Parquet files into splits: every value as it is."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.components.base import RunContext
from penstock.components.columns import parquet, splits
from penstock.components.columns.csv import check_same_header
from penstock.components.ingestion.inputs import Group, Inputs, groups
from penstock.components.ingestion.shards import (
    Deal,
    Shards,
    Written,
    in_order,
    over_groups,
    save_strata,
    with_cuts,
)
from penstock.schemas.errors import DataError
from penstock.schemas.splits import Stratified


def ingest(inputs: Inputs, deal: Deal, context: RunContext) -> list[Written]:
    """Write the rows of Parquet files to the files of splits.

    Args:
        inputs: The files.
        deal: How rows become files.
        context: What the component runs in.

    Returns:
        What was written.

    Raises:
        DataError: If a file is not Parquet, or files differ in their columns.
    """
    schema = common_schema(inputs.files)
    handles = groups(inputs, keep_splits=deal.rule is None)
    if isinstance(deal.rule, Stratified):
        survey = functools.partial(_survey, deal.rule, schema, context.temp_dir)
        files = over_groups(context, "Survey the strata", survey, handles)
        deal = with_cuts(deal, files)
    found = over_groups(
        context,
        "Deal out Parquet files",
        functools.partial(convert, deal, schema),
        handles,
    )
    pa.default_memory_pool().release_unused()
    return found


def common_schema(files: Sequence[Path]) -> pa.Schema:
    """Return the columns of all the files.

    A column that has no type in some files, because it has no value there, gets it
    from the others.

    Raises:
        DataError: If the files differ otherwise.
    """
    first, schema = files[0], parquet.file_schema(files[0])
    fields = {each.name: each for each in schema}
    if len(fields) < len(schema):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        raise DataError(
            f"{first.name} has two columns named '{twice}'. Give every column a name "
            "of its own."
        )
    for path in files[1:]:
        other = parquet.file_schema(path)
        check_same_header(other.names, path.name, schema.names, first.name)
        for each in other:
            before = fields[each.name].type
            if pa.types.is_null(before):
                fields[each.name] = each
            elif not pa.types.is_null(each.type) and not each.type.equals(before):
                raise DataError(
                    f"{path.name} has the column '{each.name}' as {each.type}, "
                    f"{first.name} as {before}. Write all files with the same types, "
                    "or separate them by the pattern."
                )
    return pa.schema([pa.field(each.name, each.type) for each in fields.values()])


def _batches(files: Sequence[str]) -> Iterator[pa.RecordBatch]:
    for path in files:
        for index in range(len(parquet.group_rows(path))):
            yield from parquet.read_group(path, index)


def _as_schema(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        pa.nulls(batch.num_rows, each.type) if pa.types.is_null(column.type) else column
        for each, column in zip(schema, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def convert(deal: Deal, schema: pa.Schema, group: Group) -> Written:
    """Write the rows of a group of Parquet files to the files of their splits.

    Raises:
        DataError: If a file is damaged, or rows are lost on the way.
    """

    def work(batch: pa.RecordBatch) -> dict[str, Any]:
        return dict(deal.dealt(_as_schema(batch, schema), group))

    shards = Shards(deal, group, schema)
    try:
        for parts in in_order(work, _batches(group.files)):
            shards.write(parts)
    except BaseException:
        shards.discard()
        raise
    shards.close()
    counted = sum(sum(parquet.group_rows(path)) for path in group.files)
    count = sum(shards.written.rows.values())
    if count != counted:
        raise DataError(
            f"{', '.join(group.files)}: the footers say {counted} rows and {count} "
            "came out. Nothing may be lost; report this with the input."
        )
    return shards.written


def _survey(rule: Stratified, schema: pa.Schema, folder: Path, group: Group) -> str:
    """Save the strata and hashes of the rows of a group; return the file."""

    def work(batch: pa.RecordBatch) -> splits.Hashes:
        return splits.strata_and_hashes(rule, _as_schema(batch, schema))

    return save_strata(folder, group, list(in_order(work, _batches(group.files))))
