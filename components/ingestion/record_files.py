"""TFRecord files into splits: every record byte for byte."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from penstock.components.base import RunContext
from penstock.components.columns import splits, tfrecord
from penstock.components.columns.forms import is_list, list_parts
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
from penstock.schemas.splits import ByHash, ByTime, Stratified

_BATCH_RECORDS = 10_000


def ingest(
    inputs: Inputs, deal: Deal, payload_format: str, context: RunContext
) -> list[Written]:
    """Write the records of TFRecord files to the files of splits.

    Args:
        inputs: The files.
        deal: How records become files.
        payload_format: What a record is.
        context: What the component runs in.

    Returns:
        What was written.

    Raises:
        DataError: If a file is damaged, or its records are something else.
    """
    handles = groups(inputs, keep_splits=deal.rule is None)
    if isinstance(deal.rule, Stratified):
        survey = functools.partial(_survey, deal.rule, payload_format, context.temp_dir)
        files = over_groups(context, "Survey the strata", survey, handles)
        deal = with_cuts(deal, files)
    return over_groups(
        context,
        "Deal out TFRecord files",
        functools.partial(convert, deal, payload_format),
        handles,
    )


def _records(files: Sequence[str]) -> Iterator[tuple[str, list[bytes]]]:
    for path in files:
        for records in tfrecord.read_records(path, batch_size=_BATCH_RECORDS):
            yield f"'{path}'", records


def convert(deal: Deal, payload_format: str, group: Group) -> Written:
    """Write the records of a group of TFRecord files to the files of their splits.

    Raises:
        DataError: If a file is damaged or its records are something else, or records
            are lost on the way.
    """
    decoder = tfrecord.Decoder(payload_format)

    def work(given: tuple[str, list[bytes]]) -> dict[str, list[bytes]]:
        subject, records = given
        batch = decoder.decode(records, subject)  # also to prove that it can be
        if group.split is not None or deal.rule is None:
            return {str(group.split): records}
        numbers = assign(deal, batch, records)
        return {
            name: [records[at] for at in np.flatnonzero(numbers == number).tolist()]
            for number, name in enumerate(deal.names)
        }

    shards = Shards(deal, group, None)
    try:
        for parts in in_order(work, _records(group.files)):
            shards.write(parts)
    except BaseException:
        shards.discard()
        raise
    shards.close()
    counted = sum(map(tfrecord.count_records, group.files))
    count = sum(shards.written.rows.values())
    if count != counted:
        raise DataError(
            f"{', '.join(group.files)}: the framing says {counted} records and "
            f"{count} came out. Nothing may be lost; report this with the input."
        )
    return shards.written


def assign(
    deal: Deal, batch: pa.RecordBatch, records: Sequence[bytes]
) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
    """Return the number of each record's split, as `deal.names` counts them.

    Args:
        deal: How records are dealt out; by weight alone, TFX's rule holds: the SHA-256
            of the record's bytes, modulo the sum of the weights.
        batch: The records, decoded.
        records: The records.
    """
    rule = deal.rule
    if isinstance(rule, ByHash):
        bounds = np.cumsum(list(rule.weights.values()))
        total = int(bounds[-1])
        buckets = [
            int.from_bytes(hashlib.sha256(record).digest(), "big") % total
            for record in records
        ]
        return np.searchsorted(bounds, buckets, side="right")
    if isinstance(rule, ByTime):
        batch = _with_values(batch, rule.column)
    if rule is None:
        raise TypeError("Records of the input's own splits are not assigned.")
    return splits.assign(rule, batch, deal.cuts)


def _with_values(batch: pa.RecordBatch, name: str) -> pa.RecordBatch:
    """Return only the named column, as one value per row."""
    index = batch.schema.get_field_index(name)
    if index < 0:
        raise splits.no_such_column(name, batch.schema.names)
    column = batch.column(index)
    if is_list(column.type):
        lengths, values, _ = list_parts(column)
        if lengths.max(initial=0) > 1:
            raise DataError(
                f"Feature '{name}' has {lengths.max()} values in a record, and a row "
                "has one time. Deal out records by a feature of one value."
            )
        rows = np.cumsum(lengths) - 1
        column = values.take(pa.array(rows, mask=lengths == 0))
    return pa.RecordBatch.from_arrays([column], names=[name])


def _survey(rule: Stratified, payload_format: str, folder: Path, group: Group) -> str:
    """Save the strata and hashes of the records of a group; return the file."""
    decoder = tfrecord.Decoder(payload_format)

    def work(given: tuple[str, list[bytes]]) -> splits.Hashes:
        return splits.strata_and_hashes(rule, decoder.decode(given[1], given[0]))

    return save_strata(folder, group, list(in_order(work, _records(group.files))))
