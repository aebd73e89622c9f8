"""SchemaGen and ImportSchemaGen: a schema inferred from statistics, or from a file."""

from __future__ import annotations

from pathlib import Path

from penstock.components.base import Component, RunContext, field, output
from penstock.schemas.artifacts import ExampleStatistics, ExternalArtifact, Schema


class SchemaGen(Component):
    """Infer a schema from statistics with TensorFlow Data Validation.

    Reads ExampleStatistics: the first split gives the schema, the others relax it until
    they fit too. Writes `schema.pbtxt`.

    Use it to get a first schema, which a person then reads and mends: the data that it
    was inferred from can never violate it. Pipelines use the mended one, by
    ImportSchemaGen.

    Attributes:
        statistics: What the schema has to fit.
        infer_feature_shape: Whether features that always have as many values get a
            fixed shape.
        exclude_splits: Splits not to look at.

    Example:
        stats = StatisticsGen(examples=ingest.examples)
        schema = SchemaGen(statistics=stats.statistics, exclude_splits=["eval"])
        pipeline = Pipeline("first-look", [ingest, stats, schema])
    """

    EXECUTION_TYPE = "tfx.components.schema_gen.component.SchemaGen"
    BASE_TYPE = "PROCESS"
    LIBRARIES = ("tensorflow-data-validation",)

    statistics: ExampleStatistics
    infer_feature_shape: bool = True
    exclude_splits: tuple[str, ...] = ()
    schema: Schema = output()

    def run(self, context: RunContext) -> None:
        import tensorflow_data_validation as tfdv
        from google.protobuf import text_format

        from penstock.components.validation.protos import read_statistics

        schema = None
        for split in self.statistics.splits_without(self.exclude_splits):
            statistics = read_statistics(self.statistics, split)
            if schema is None:
                schema = tfdv.infer_schema(statistics, self.infer_feature_shape)
            else:
                schema = tfdv.update_schema(schema, statistics)
        self.schema.file.write_text(text_format.MessageToString(schema), "utf-8")


class ImportSchemaGen(Component):
    """Bring a schema that a person curated into a pipeline.

    Reads a text file of a TensorFlow Metadata Schema, from outside the pipeline. Writes
    the same bytes as `schema.pbtxt`, once it parses.

    Use it in every pipeline that validates: only a schema that was not inferred from
    the data can find fault with the data.

    Attributes:
        schema_file: The file.

    Example:
        schema = ImportSchemaGen(schema_file=Path("trips.pbtxt"))
        check = ExampleValidator(statistics=stats.statistics, schema=schema.schema)
        pipeline = Pipeline("trips", [ingest, stats, schema, check])
    """

    EXECUTION_TYPE = (
        "tfx.components.schema_gen.import_schema_gen.component.ImportSchemaGen"
    )
    BASE_TYPE = "PROCESS"

    schema_file: Path = field(counts=False)
    schema: Schema = output()

    def external_inputs(self) -> tuple[ExternalArtifact, ...]:
        """Return the schema file with its digest."""
        from penstock.components.validation.protos import read_schema

        read_schema(self.schema_file)
        return (ExternalArtifact.of(self.schema_file),)

    def run(self, context: RunContext) -> None:
        from penstock.components.validation.protos import read_schema

        read_schema(self.schema_file)
        self.schema.file.write_bytes(self.schema_file.read_bytes())
