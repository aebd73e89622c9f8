import pickle
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that

from penstock.components.columns import parquet
from penstock.components.columns.examples import read_row_group, row_groups
from penstock.components.monitoring.grid import Grid
from penstock.components.monitoring.profile import Profile
from penstock.components.monitoring.profile_combine import ProfileRows
from penstock.components.monitoring.profile_files import profile_digest
from penstock.components.monitoring.profiling import Logged, profile_batches
from penstock.components.monitoring.windows import Window
from penstock.schemas.artifacts import Examples

DAY = Window.day("2026-11-30")
LOGGED = Logged(DAY, "taxi", version_column="version")


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table(
        {
            "x": rng.normal(size=60_000) * 1e6,
            "c": pa.array(rng.integers(0, 50, 60_000)).cast(pa.string()),
            "version": rng.choice(["7", "8"], 60_000),
        }
    )


def test_beam_counts_what_one_process_counts(rows: pa.Table, tmp_path: Path) -> None:
    grid = Grid.of(rows.slice(0, 5_000), columns=["x", "c"])
    folder = tmp_path / "Split-train"
    folder.mkdir()
    for number in range(4):
        name = folder / f"data_parquet-{number:05}-of-00004.parquet"
        with parquet.Writer(name, rows.schema) as writer:
            for batch in rows.slice(number * 15_000, 15_000).to_batches():
                writer.write(batch)
    examples = Examples(tmp_path, properties={"split_names": '["train"]'})
    groups = row_groups(examples, "train")
    expected = profile_batches(
        grid,
        (batch for group in groups for batch in read_row_group(group)),
        DAY,
        model="taxi",
        version_column="version",
    )

    def same(found: list[Profile]) -> None:
        assert [profile_digest(each) for each in found] == [profile_digest(expected)]

    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        profile = (
            pipeline
            | "List row groups" >> beam.Create(groups)
            | "Spread them" >> beam.Reshuffle()
            | "Read rows" >> beam.FlatMap(read_row_group)
            | "Profile rows"
            >> beam.CombineGlobally(ProfileRows(grid, LOGGED)).without_defaults()
        )
        assert_that(profile, same)


def test_accumulators_merge_in_any_order_to_the_last_bit(rows: pa.Table) -> None:
    grid = Grid.of(rows.slice(0, 5_000), columns=["x", "c"])
    combine = ProfileRows(grid, LOGGED)
    batches = rows.to_batches(max_chunksize=5_000)

    def accumulators() -> Iterator[object]:
        for batch in batches:
            made = combine.add_input(combine.create_accumulator(), batch)
            sent = pickle.dumps(made)
            assert len(sent) < 60_000  # its grid does not travel with it
            yield pickle.loads(sent)

    def merged(order: list[int]) -> str:
        found = list(accumulators())
        total = combine.merge_accumulators([found[each] for each in order])  # type: ignore[misc]
        return profile_digest(combine.extract_output(total))

    every = list(range(len(batches)))
    assert len({merged(every), merged(every[::-1]), merged(every[5:] + every[:5])}) == 1
