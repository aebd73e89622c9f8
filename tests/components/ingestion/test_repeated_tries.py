"""Workers that are cut off go on for a while; nothing of theirs gets into Examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.components import CsvExampleGen, ImportExampleGen, ParquetExampleGen
from penstock.components.base import Component, RunContext
from penstock.components.columns import tfrecord
from penstock.components.ingestion import csv_files, parquet_files, record_files, shards
from penstock.schemas.digests import folder_digest
from penstock.schemas.splits import Stratified


def write_input(folder: Path) -> None:
    folder.mkdir()
    letters = pa.array(["x", "y"] * 150)
    batch = pa.RecordBatch.from_arrays(
        [pa.array(range(300)), letters], names=["a", "b"]
    )
    pq.write_table(pa.Table.from_batches([batch]), folder / "rows.parquet")
    with tfrecord.Writer(folder / "rows.tfrecord") as writer:
        writer.write(tfrecord.encode(batch))
    for name, last in (("a", "one,two,three"), ("b", "2.5,z")):
        lines = [f"{number},x" for number in range(300)]
        (folder / f"{name}.csv").write_text("\n".join(["a,b", *lines, last]))


def written(component: Component, folder: Path) -> tuple[str, list[str]]:
    """Run a component; return the digest and the files of what it wrote."""
    live = component.with_outputs(folder)
    live.run(RunContext.local(folder / "temp"))
    examples = live.outputs["examples"].path
    files = [str(each.relative_to(examples)) for each in examples.rglob("*.*")]
    return folder_digest(examples), sorted(files)


def ingest(kind: str, data: Path, splits: Any = None) -> Component:
    if kind == "csv":
        return CsvExampleGen(
            input_dir=data,
            pattern="*.csv",
            splits=splits,
            on_bad_line="quarantine",
        )
    if kind == "csv, splits of its own":
        # The second split gives the first one wider types, when it is written already.
        inputs = {"a": "a.csv", "b": "b.csv"}
        return CsvExampleGen(
            input_dir=data, input_splits=inputs, on_bad_line="quarantine"
        )
    if kind == "parquet":
        return ParquetExampleGen(input_dir=data, pattern="*.parquet", splits=splits)
    return ImportExampleGen(input_dir=data, pattern="*.tfrecord", splits=splits)


STRATA = Stratified("b", {"train": 2, "eval": 1})


@pytest.mark.parametrize(
    ("kind", "splits", "count"),
    [
        ("csv", None, 3),
        ("csv", STRATA, 3),
        ("csv, splits of its own", None, 3),
        ("parquet", None, 2),
        ("parquet", STRATA, 2),
        ("records", None, 2),
        ("records", STRATA, 2),
    ],
)
def test_a_try_that_another_one_replaces_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    splits: Any,
    count: int,
) -> None:
    write_input(tmp_path / "data")
    component = ingest(kind, tmp_path / "data", splits)
    once = written(component, tmp_path / "once")
    assert len(once[1]) == count

    def over_groups(
        context: RunContext,
        label: str,
        function: Callable[[Any], Any],
        groups: Sequence[Any],
    ) -> list[Any]:
        """Try each group three times at once, and take what one of them returns."""
        found = []
        with ThreadPoolExecutor(3) as pool:
            for group in groups:
                tries = [pool.submit(function, group) for _ in range(3)]
                found.append([each.result() for each in tries][1])
        return found

    for module in (csv_files, parquet_files, record_files):
        monkeypatch.setattr(module, "over_groups", over_groups)
    assert written(component, tmp_path / "thrice") == once


def test_a_try_that_is_cut_off_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_input(tmp_path / "data")
    component = ingest("parquet", tmp_path / "data")
    once = written(component, tmp_path / "once")
    original = parquet_files.convert

    def cut_off_first(deal: shards.Deal, schema: pa.Schema, group: Any) -> Any:
        lost = shards.Shards(deal, group, schema)  # its worker was killed
        found = original(deal, schema, group)
        lost.close()  # or not, and wakes up
        return found

    monkeypatch.setattr(parquet_files, "convert", cut_off_first)
    assert written(component, tmp_path / "twice") == once
