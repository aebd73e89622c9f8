"""Profiling as a Beam `CombineFn`: batches of rows in, one profile out."""

from __future__ import annotations

import apache_beam as beam
import pyarrow as pa

from penstock.components.monitoring.grid import Grid
from penstock.components.monitoring.profile import Profile
from penstock.components.monitoring.profiling import Logged, Profiler
from penstock.components.monitoring.slices import Slicer


class ProfileRows(beam.CombineFn):  # type: ignore[misc]
    """Combines record batches of a window into its profile.

    The profile does not depend on the order in which a runner merges: counts are
    integers, and sums are kept without rounding until the end.

    Example:
        profile = batches | "Profile rows" >> beam.CombineGlobally(
            ProfileRows(reference.grid, Logged(window, model="taxi", version="7"))
        ).without_defaults()
    """

    def __init__(
        self, grid: Grid, logged: Logged, slicer: Slicer | None = None
    ) -> None:
        self._grid = grid
        self._logged = logged
        self._slicer = slicer

    def create_accumulator(self) -> Profiler:
        return Profiler(self._grid, self._slicer)

    def add_input(self, accumulator: Profiler, batch: pa.RecordBatch) -> Profiler:
        accumulator.add(
            self._grid, batch, version_column=self._logged.version_column, threads=1
        )
        return accumulator

    def merge_accumulators(self, accumulators: list[Profiler]) -> Profiler:
        total = self.create_accumulator()
        for each in accumulators:
            total.merge(each, self._grid)
        return total

    def extract_output(self, accumulator: Profiler) -> Profile:
        return accumulator.profile(self._grid, self._logged)
