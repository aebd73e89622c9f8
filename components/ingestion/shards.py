"""Rows into the files of splits: the small Beam graph that every ExampleGen runs."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import os
import pickle
import shutil
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
from penstock.components.columns.whole import name_to_try, write_whole
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
    report = name_to_try(context.temp_dir / "report")
    numbered = list(enumerate(groups))
    with context.beam_pipeline() as pipeline:
        listed = pipeline | "List the groups of files" >> beam.Create(
            numbered, reshuffle=False
        )
        if not context.is_local:  # where there is one worker, it takes time for nothing
            listed |= "Spread groups over workers" >> beam.Reshuffle()
        _ = (
            listed
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
    write_whole(Path(path), pickle.dumps(found))


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
        folder: Where workers write.
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

    def targets(self, group: Group) -> dict[str, str]:
        """Return the file of each split that a group's rows go to, in the artifact."""
        stem, end = {
            "parquet": ("data_parquet", ".parquet"),
            "tfrecords_gzip": ("data_tfrecord", ".gz"),
        }[self.file_format]
        name = f"{stem}-{group.number:05d}-of-{group.of:05d}{end}"
        wanted = self.names if group.split is None else (group.split,)
        return {split: f"Split-{split}/{name}" for split in wanted}


@dataclasses.dataclass(frozen=True)
class Written:
    """What a worker wrote of a group.

    Attributes:
        rows: How many rows, by split.
        files: Where the files lie, by their names in the artifact.
    """

    rows: Mapping[str, int]
    files: Mapping[str, Path]

    def remove(self) -> None:
        """Remove the files."""
        for file in self.files.values():
            file.unlink()


NOTHING = Written({}, {})


def gathered(found: Iterable[Written], artifact: Path) -> dict[str, int]:
    """Move what workers wrote into the artifact; return the rows by split."""
    rows: collections.Counter[str] = collections.Counter()
    for each in found:
        rows.update(each.rows)
        for name, file in each.files.items():
            (artifact / name).parent.mkdir(exist_ok=True)
            shutil.move(file, artifact / name)
    return dict(rows)


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
        self._files: dict[str, Path] = {}
        self._writers: dict[str, parquet.Writer | tfrecord.Writer] = {}
        for split in self._targets:
            path = name_to_try(Path(deal.folder, split))
            self._files[split] = path
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
            self._files[split].unlink(missing_ok=True)

    @property
    def written(self) -> Written:
        """What was written."""
        return Written(
            {split: writer.rows for split, writer in self._writers.items()},
            {name: self._files[split] for split, name in self._targets.items()},
        )


def encoded(parts: Mapping[str, pa.RecordBatch], file_format: str) -> dict[str, Any]:
    """Return parts as `Shards.write` takes them for a file format."""
    if file_format == "parquet":
        return dict(parts)
    return {split: tfrecord.encode(part) for split, part in parts.items()}


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
    path = name_to_try(folder / "strata")
    with open(path, "wb") as file:
        np.save(file, np.concatenate([*found, np.zeros((0, 2), np.uint64)]))
    return str(path)


class Quarantine:
    """Records that were set aside, as JSON lines; no file if there are none.

    Args:
        deal: Whose folder they are written to.
        group: The group that they are from.
    """

    def __init__(self, deal: Deal, group: Group) -> None:
        prefix = "" if group.split is None else f"{group.split}-"
        name = f"{prefix}lines-{group.number:05d}-of-{group.of:05d}.jsonl"
        self._name = f"quarantine/{name}"
        self._path = name_to_try(Path(deal.folder, "quarantine"))
        self.lines = 0

    @property
    def files(self) -> dict[str, Path]:
        """Where the file lies, by its name in the artifact."""
        return {self._name: self._path} if self.lines else {}

    def add(self, lines: Sequence[BadLine]) -> None:
        """Set records aside."""
        if not lines:
            return
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
