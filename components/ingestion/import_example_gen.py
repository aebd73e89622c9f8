"""ImportExampleGen: TFRecord files become Examples."""

from __future__ import annotations

from typing import Literal

from penstock.components.base import RunContext
from penstock.components.ingestion.example_gen import FileExampleGen


class ImportExampleGen(FileExampleGen):
    """Read TFRecord files and deal their records out, byte for byte.

    Reads TFRecord files, gzip or not, of tf.Example or SequenceExample. Writes
    TFRecord files with gzip. By weight a record goes where TFX's ImportExampleGen
    puts it: by the SHA-256 of its bytes.

    Use it whenever the data is TFRecord files, such as another pipeline's Examples.

    Attributes:
        payload_format: What a record is.

    Example:
        ingest = ImportExampleGen(input_dir="records", splits={"train": 4, "eval": 1})
        statistics = StatisticsGen(examples=ingest.examples)
        pipeline = Pipeline("trips", [ingest, statistics])
    """

    EXECUTION_TYPE = (
        "tfx.components.example_gen.import_example_gen.component.ImportExampleGen"
    )

    payload_format: Literal["FORMAT_TF_EXAMPLE", "FORMAT_TF_SEQUENCE_EXAMPLE"] = (
        "FORMAT_TF_EXAMPLE"
    )

    def run(self, context: RunContext) -> None:
        from penstock.components.ingestion import record_files

        found = self._found(context)
        written = record_files.ingest(
            self._inputs(found),
            self._deal("tfrecords_gzip", context),
            self.payload_format,
            context,
        )
        self._record(
            found,
            written,
            context,
            file_format="tfrecords_gzip",
            payload_format=self.payload_format,
        )
