"""Components are frozen, and what is composed is a Pipeline of components."""

from __future__ import annotations

import penstock.components as c
from penstock import Pipeline
from penstock.components.base import Component, RunContext, output
from penstock.schemas.artifacts import Examples, ExampleStatistics, Schema

stats = c.StatisticsGen(examples=Examples("examples"))

stats.exclude_splits = ("eval",)  # E: "exclude_splits" defined in "StatisticsGen" is read-only
stats.examples = Examples("others")  # E: is read-only
stats.statistics = ExampleStatistics("statistics")  # E: is read-only

Pipeline("taxi", [stats, stats.statistics])  # E: has incompatible type "ExampleStatistics"
Pipeline("taxi", stats)  # E: incompatible type "StatisticsGen"
Pipeline(["taxi"], [stats])  # E: incompatible type "list[str]"; expected "str"


class Count(Component):
    """Count rows."""

    examples: Examples
    limit: int = 10
    counts: ExampleStatistics = output()

    def run(self, context: RunContext) -> None:
        self.limit = 3  # E: Property "limit" defined in "Count" is read-only
        context.logger.info("%s", self.example)  # E: "Count" has no attribute "example"


count = Count(
    examples=Examples("examples"),
    limit=10.5,  # E: incompatible type "float"; expected "int"
)
c.SchemaGen(statistics=count.counts)
wrong: Schema = count.counts  # E: expression has type "ExampleStatistics"


class Unfinished(Component):
    examples: Examples

    def run(self) -> None:  # E: Signature of "run" incompatible with supertype
        """Do nothing."""
