"""DataAccessor: how a train function reads examples, whatever files they lie in."""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.schemas.errors import DataError, quoted

if TYPE_CHECKING:
    import pyarrow as pa
    import tensorflow as tf
    from tensorflow_metadata.proto.v0 import schema_pb2
    from tfx_bsl.public import tfxio

_PARQUET_MAGIC = b"PAR1"


@dataclasses.dataclass(frozen=True)
class DataAccessor:
    """Reads the files of `FnArgs.train_files` and `FnArgs.eval_files`.

    Parquet files and TFRecord files of the same rows give the same tensors: those that
    tfx-bsl's `TensorFlowDataset` gives.

    Attributes:
        payload_format: What a record of a TFRecord file is.
        schema_file: The schema to read with where the call gives none.
        seed: Seeds the shuffling where the options give no `shuffle_seed`.
        errors: What went wrong inside a dataset so far: TensorFlow passes on the text
            of an error, but neither its type nor its cause.
    """

    payload_format: str = "FORMAT_TF_EXAMPLE"
    schema_file: Path | None = None
    seed: int = 0
    errors: list[DataError] = dataclasses.field(default_factory=list)

    def tf_dataset_factory(
        self,
        file_pattern: str | Sequence[str],
        options: tfxio.TensorFlowDatasetOptions,
        schema: schema_pb2.Schema | None = None,
    ) -> tf.data.Dataset:
        """Return the rows as batches of tensors.

        Args:
            file_pattern: One or more glob patterns.
            options: Batch size, epochs, shuffling, label: all of them count. Parquet
                files are shuffled in buffers of `shuffle_buffer_size` rows, rounded up
                to whole row groups, and the row groups come in an order of their own
                in every epoch. With `num_epochs=None` the dataset does not end.
            schema: The features and their shapes; the Trainer's schema if None.

        Returns:
            Elements are dicts of feature name to tensor, or pairs of such a dict and
            the label where `options.label_key` names one. A feature with a shape is
            dense, (batch, *shape); one without is a SparseTensor, (batch, longest),
            or a RaggedTensor where the schema says `represent_variable_length_as_\
ragged`. Dtypes are int64, float32 and string.

        Raises:
            DataError: If no file matches, there is no schema, or the schema and the
                files do not fit. What is found while reading is raised by TensorFlow
                and kept in `errors`.
        """
        files = self._files(file_pattern)
        schema = schema or self._schema()
        if schema is None:
            raise DataError(
                "tf_dataset_factory needs a schema to know the shapes of tensors. Wire "
                "a Schema into the Trainer (schema=schema_gen.schema), or pass one in "
                "the call."
            )
        if _is_parquet(files):
            from penstock.components.columns.tensors import tensor_dataset

            return tensor_dataset(
                files, schema, options, self._seed(options), self.errors.append
            )
        return self._tfrecords(files, schema).TensorFlowDataset(
            options._replace(shuffle_seed=self._seed(options))
        )

    def record_batch_factory(
        self,
        file_pattern: str | Sequence[str],
        options: tfxio.RecordBatchesOptions,
        schema: schema_pb2.Schema | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Return the rows as Arrow batches.

        Args:
            file_pattern: One or more glob patterns.
            options: Batch size, epochs, shuffling (see `tf_dataset_factory`).
            schema: The features to read; the Trainer's schema if None, and without
                that all the columns there are.

        Returns:
            Batches of `options.batch_size` rows. Columns are lists of int64, float32 or
            binary values; a missing value is a missing list.

        Raises:
            DataError: If no file matches, or a file cannot be read or does not fit the
                schema.
        """
        files = self._files(file_pattern)
        schema = schema or self._schema()
        if _is_parquet(files):
            from penstock.components.columns.tensors import record_batches

            return record_batches(files, schema, options, self._seed(options))
        batches: Iterator[pa.RecordBatch] = self._tfrecords(
            files, schema
        ).RecordBatches(options._replace(shuffle_seed=self._seed(options)))
        return batches

    def _seed(
        self, options: tfxio.TensorFlowDatasetOptions | tfxio.RecordBatchesOptions
    ) -> int:
        return int(self.seed if options.shuffle_seed is None else options.shuffle_seed)

    def _schema(self) -> schema_pb2.Schema | None:
        if self.schema_file is None:
            return None
        from google.protobuf import text_format
        from tensorflow_metadata.proto.v0 import schema_pb2

        return text_format.Parse(self.schema_file.read_text(), schema_pb2.Schema())

    def _files(self, file_pattern: str | Sequence[str]) -> list[str]:
        patterns = [file_pattern] if isinstance(file_pattern, str) else file_pattern
        files = [
            path
            for pattern in patterns
            for path in sorted(glob.glob(pattern))
            if Path(path).is_file()
        ]
        if not files:
            names = ", ".join(f"'{pattern}'" for pattern in patterns)
            raise DataError(
                f"No file matches {names or 'an empty list of patterns'}. Pass "
                "fn_args.train_files or fn_args.eval_files, or patterns like them."
            )
        return files

    def _tfrecords(self, files: list[str], schema: schema_pb2.Schema | None) -> Any:
        from tfx_bsl.public import tfxio

        readers = {
            "FORMAT_TF_EXAMPLE": tfxio.TFExampleRecord,
            "FORMAT_TF_SEQUENCE_EXAMPLE": tfxio.TFSequenceExampleRecord,
        }
        if self.payload_format not in readers:
            raise DataError(
                f"Records of payload format '{self.payload_format}' cannot be read as "
                f"tensors, only {quoted(readers)} can. Read them with tf.data, or "
                "ingest them as tf.Example."
            )
        return readers[self.payload_format](
            files, schema=schema, telemetry_descriptors=["penstock", "Trainer"]
        )


def _is_parquet(files: Sequence[str]) -> bool:
    with open(files[0], "rb") as file:
        return file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC
