"""Rows into the files of splits: the small Beam graph that every ExampleGen runs."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import apache_beam as beam
import numpy as np
import pyarrow as pa

from penstock.components.base import LiveRows, RunContext
from penstock.components.columns import parquet, splits, tfrecord
from penstock.components.columns.csv import BadLine
from penstock.components.ingestion.inputs import Group
from penstock.schemas.errors import DataError
from penstock.schemas.splits import Stratified

Given = TypeVar("Given")
Made = TypeVar("Made")


def over_groups(
    context: RunContext,
    label: str,
    function: Callable[[Group], Made],
    groups: Sequence[Group],
) -> list[Made]:
    """Call a function for each group of files, by Beam.

    Args:
        context: Where the pipeline and the temporary folder come from.
        label: What the function does, as the label of its step.
        function: A function that travels: of a module, or a partial of one.
        groups: The handles.

    Returns:
        What it returned, in the order of the groups.

    Raises:
        DataError: The one that the function raised, for the first such group.
    """
    report = context.temp_dir / "report.pickle"
    numbered = list(enumerate(groups))
    with context.beam_pipeline() as pipeline:
        _ = (
            pipeline
            | "List the groups of files" >> beam.Create(numbered, reshuffle=False)
            | label >> beam.MapTuple(functools.partial(_numbered, function))
            | "Collect what was found" >> beam.combiners.ToList()
            | "Write down what was found" >> beam.Map(_write_report, str(report))
        )
    found: list[tuple[int, Made | DataError]] = pickle.loads(report.read_bytes())
    report.unlink()
    results = []
    for _, made in sorted(found, key=lambda pair: pair[0]):
        if isinstance(made, DataError):
            raise made
        results.append(made)
    return results


def _numbered(
    function: Callable[[Group], Made], number: int, group: Group
) -> tuple[int, Made | DataError]:
    try:
        return number, function(group)
    except DataError as error:
        # Raised, it would come back in words of the runner, and not for the first
        # group but for some group.
        return number, error


def _write_report(found: list[Any], path: str) -> None:
    Path(path).write_bytes(pickle.dumps(found))


def in_order(
    function: Callable[[Given], Made], items: Iterable[Given]
) -> Iterator[Made]:
    """Yield what a function makes of items, in order, worked on by several threads.

    No more items are under way than threads and one, so memory stays bounded.
    """
    threads = os.cpu_count() or 1
    waiting: collections.deque[Future[Made]] = collections.deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for each in waiting:
                each.cancel()


@dataclasses.dataclass(frozen=True)
class Deal:
    """How rows become files.

    Attributes:
        folder: Folder of the Examples artifact.
        rule: How rows are dealt out; None if the input's own splits stay.
        names: Names of the splits.
        file_format: `parquet` or `tfrecords_gzip`.
        live_rows: Told of rows as they are written.
        cuts: For stratified splits, where to cut.
    """

    folder: str
    rule: splits.Rule | None
    names: tuple[str, ...]
    live_rows: LiveRows
    file_format: str = "parquet"
    cuts: splits.Cuts | None = None

    def dealt(self, batch: pa.RecordBatch, group: Group) -> dict[str, pa.RecordBatch]:
        """Return the rows of a batch by the name of their split."""
        if group.split is not None or self.rule is None:
            return {str(group.split): batch}
        numbers = splits.assign(self.rule, batch, self.cuts)
        parts = splits.deal(batch, numbers, len(self.names))
        return dict(zip(self.names, parts, strict=True))

    def targets(self, group: Group) -> dict[str, Path]:
        """Return the file of each split that a group's rows go to."""
        stem, end = {
            "parquet": ("data_parquet", ".parquet"),
            "tfrecords_gzip": ("data_tfrecord", ".gz"),
        }[self.file_format]
        name = f"{stem}-{group.number:05d}-of-{group.of:05d}{end}"
        wanted = self.names if group.split is None else (group.split,)
        return {split: Path(self.folder, f"Split-{split}", name) for split in wanted}


class Shards:
    """The open files of a group, one per split.

    Args:
        deal: Which files there are.
        group: The group.
        schema: Columns of the rows; None for records of TFRecord files.
    """

    def __init__(self, deal: Deal, group: Group, schema: pa.Schema | None) -> None:
        self._targets = deal.targets(group)
        self._live_rows = deal.live_rows
        self._writers: dict[str, parquet.Writer | tfrecord.Writer] = {}
        for split, path in self._targets.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writers[split] = (
                parquet.Writer(path, schema)
                if deal.file_format == "parquet" and schema is not None
                else tfrecord.Writer(path)
            )

    def write(self, parts: Mapping[str, Any]) -> None:
        """Add rows: batches for Parquet, records for TFRecord."""
        for split, part in parts.items():
            self._writers[split].write(part)
        self._live_rows(sum(map(len, parts.values())))

    def close(self) -> None:
        """Write what is left."""
        for writer in self._writers.values():
            writer.close()

    def discard(self) -> None:
        """Close the files and remove them."""
        for split, writer in self._writers.items():
            writer.close()
            self._targets[split].unlink(missing_ok=True)

    @property
    def rows(self) -> dict[str, int]:
        """How many rows were written to each split."""
        return {split: writer.rows for split, writer in self._writers.items()}


def encoded(parts: Mapping[str, pa.RecordBatch], file_format: str) -> dict[str, Any]:
    """Return parts as `Shards.write` takes them for a file format."""
    if file_format == "parquet":
        return dict(parts)
    return {split: tfrecord.encode(part) for split, part in parts.items()}


def rows_by_split(found: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the sums of rows by split."""
    total: collections.Counter[str] = collections.Counter()
    for each in found:
        total.update(each)
    return dict(total)


def with_cuts(deal: Deal, files: Sequence[str]) -> Deal:
    """Return the deal with the cuts of a stratified split.

    Args:
        deal: A deal by a `Stratified` rule.
        files: Where `save_strata` saved what it found in each group.
    """
    if not isinstance(deal.rule, Stratified):
        raise TypeError("Only stratified splits have cuts.")
    pairs = np.concatenate([np.load(file) for file in files])
    return dataclasses.replace(deal, cuts=splits.cuts(deal.rule, pairs))


def save_strata(folder: Path, group: Group, found: Sequence[splits.Hashes]) -> str:
    """Save the strata and hashes of a group's rows; return the file."""
    path = folder / f"strata-{group.number:05d}.npy"
    np.save(path, np.concatenate([*found, np.zeros((0, 2), np.uint64)]))
    return str(path)


class Quarantine:
    """Records that were set aside, as JSON lines; no file if there are none.

    Args:
        deal: Whose folder they are kept in.
        group: The group that they are from.
    """

    def __init__(self, deal: Deal, group: Group) -> None:
        prefix = "" if group.split is None else f"{group.split}-"
        name = f"{prefix}lines-{group.number:05d}-of-{group.of:05d}.jsonl"
        self._path = Path(deal.folder, "quarantine", name)
        self._path.unlink(missing_ok=True)
        self.lines = 0

    def add(self, lines: Sequence[BadLine]) -> None:
        """Set records aside."""
        if not lines:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "a", encoding="utf-8") as file:
            for line in lines:
                said = {
                    "file": line.file,
                    "line": line.line,
                    "reason": line.reason,
                    "text": line.text.decode("utf-8", "backslashreplace"),
                }
                file.write(json.dumps(said, ensure_ascii=False) + "\n")
        self.lines += len(lines)
