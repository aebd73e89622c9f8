"""CsvExampleGen: CSV files become Examples."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from typing import Literal

from penstock.components.base import RunContext
from penstock.components.ingestion.example_gen import FileExampleGen
from penstock.schemas.errors import PipelineError, did_you_mean, quoted

COLUMN_TYPES = ("int64", "float64", "string", "bool", "date", "timestamp")


class CsvExampleGen(FileExampleGen):
    """Read CSV files, find the types of their columns, and deal their rows out.

    Reads CSV as RFC 4180 has it, plain, gzip or zstd, with a header in every file. A
    column's type is found over all the rows of all the files: `int64` or `float64` if
    every cell is such a number, else `string`; `null` if it has no value at all. No
    digit is lost: integers too big for `int64`, or too big for `float64` among
    fractions, stay text, and so do booleans, dates and times unless `column_types`
    says otherwise. A cell with nothing in it is missing; `""` is a text of no
    characters in a column of text, and missing in others. Blank lines are skipped.

    Writes Parquet, or TFRecord files of tf.Example, which has no float64 and rounds
    to float32. Records that cannot be read fail the component, or are set aside in
    the artifact's folder `quarantine`, with file and line.

    Use it whenever the data is CSV.

    Attributes:
        delimiter: What stands between fields, one ASCII character.
        quote: What encloses fields, one ASCII character; None if quotes mean nothing.
        encoding: Name of the encoding; a byte order mark is skipped.
        missing_values: What stands for a missing value, beside nothing at all.
        column_types: Types by column, for those that are not to be found out.
        on_bad_line: What becomes of a record that cannot be read.
        file_format: What to write.

    Example:
        ingest = CsvExampleGen(input_dir="data", splits={"train": 4, "eval": 1})
        statistics = StatisticsGen(examples=ingest.examples)
        pipeline = Pipeline("trips", [ingest, statistics])
    """

    EXECUTION_TYPE = (
        "tfx.components.example_gen.csv_example_gen.component.CsvExampleGen"
    )

    delimiter: str = ","
    quote: str | None = '"'
    encoding: str = "utf-8"
    missing_values: tuple[str, ...] = ()
    column_types: Mapping[str, str] | None = None
    on_bad_line: Literal["fail", "quarantine"] = "fail"
    file_format: Literal["parquet", "tfrecords_gzip"] = "parquet"

    def check(self) -> None:
        super().check()
        for noun, mark in (("delimiter", self.delimiter), ("quote", self.quote)):
            if mark is not None and (
                len(mark) != 1 or not mark.isascii() or mark in "\r\n\0"
            ):
                raise PipelineError(
                    f"{self.name}.{noun} is {mark!r}. Pass one ASCII character, such "
                    f"as {',' if noun == 'delimiter' else chr(39)!r}."
                )
        if self.delimiter == self.quote:
            raise PipelineError(
                f"{self.name} has {self.quote!r} as delimiter and as quote. Pass two "
                "different characters."
            )
        try:
            codecs.lookup(self.encoding)
        except LookupError as error:
            raise PipelineError(
                f"{self.name}.encoding is '{self.encoding}', which Python does not "
                "know. Pass a name such as 'utf-8', 'utf-16' or 'latin-1'."
            ) from error
        for column, kind in (self.column_types or {}).items():
            if kind not in COLUMN_TYPES:
                raise PipelineError(
                    f"{self.name}.column_types gives column '{column}' the type "
                    f"'{kind}' (there are {quoted(COLUMN_TYPES)})."
                    f"{did_you_mean(kind, COLUMN_TYPES)}"
                )

    def run(self, context: RunContext) -> None:
        from penstock.components.columns.csv import Dialect
        from penstock.components.ingestion import csv_files

        found = self._found(context)
        written, bad = csv_files.ingest(
            self._inputs(found),
            Dialect(self.delimiter, self.quote, self.encoding, self.missing_values),
            self.column_types or {},
            self._deal(self.file_format, context),
            context,
            sets_aside=self.on_bad_line == "quarantine",
        )
        self._record(found, written, context, file_format=self.file_format)
        self.examples.properties["quarantined_lines"] = bad
