"""ParquetExampleGen: Parquet files become Examples."""

from __future__ import annotations

from penstock.components.base import RunContext
from penstock.components.ingestion.example_gen import FileExampleGen


class ParquetExampleGen(FileExampleGen):
    """Read Parquet files and deal their rows out, every value as it is.

    Reads Parquet files of the same columns. Names, types, lists, structs, zeros, False
    and empty texts are kept; only dictionary encoding is taken out. Writes Parquet.

    Use it whenever the data is Parquet.

    Example:
        ingest = ParquetExampleGen(input_dir="data", splits={"train": 4, "eval": 1})
        statistics = StatisticsGen(examples=ingest.examples)
        pipeline = Pipeline("trips", [ingest, statistics])
    """

    EXECUTION_TYPE = "tfx.components.example_gen.component.FileBasedExampleGen"

    def run(self, context: RunContext) -> None:
        from penstock.components.ingestion import parquet_files

        found = self._found(context)
        inputs = self._inputs(found)
        written = parquet_files.ingest(inputs, self._deal("parquet", context), context)
        self._record(found, written, context, file_format="parquet")
