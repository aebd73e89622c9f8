"""DataAccessor: the same tensors from Parquet and TFRecord, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.public import tfxio

from penstock.components.columns import tfrecord
from penstock.components.training import DataAccessor
from penstock.schemas.errors import DataError

SCHEMA = """
feature { name: "x" type: INT presence { min_fraction: 1 } shape {} }
feature { name: "y" type: FLOAT }
"""


@pytest.fixture(scope="module", params=["parquet", "gz"])
def folder(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of one format, and a schema."""
    made = tmp_path_factory.mktemp(request.param)
    for number in range(2):
        table = pa.table(
            {"x": range(number * 50, number * 50 + 50), "y": [0.5, None] * 25}
        )
        path = made / f"rows-{number}.{request.param}"
        if request.param == "parquet":
            pq.write_table(table, path)
        else:
            with tfrecord.Writer(path) as writer:
                for batch in table.to_batches():
                    writer.write(tfrecord.encode(batch))
    (made / "schema.pbtxt").write_text(SCHEMA)
    return made


def _accessor(folder: Path, **more: Any) -> DataAccessor:
    return DataAccessor(schema_file=folder / "schema.pbtxt", **more)


def _options(**more: Any) -> tfxio.TensorFlowDatasetOptions:
    given = {"batch_size": 30, "num_epochs": 1, **more}
    return tfxio.TensorFlowDatasetOptions(**given)


def _read(folder: Path, seed: int = 0, **more: Any) -> list[int]:
    dataset = _accessor(folder, seed=seed).tf_dataset_factory(
        [str(folder / "rows-*")], _options(**more)
    )
    return [int(x) for batch in dataset for x in batch["x"]]


def test_every_file_of_a_pattern_is_read(folder: Path) -> None:
    assert sorted(_read(folder)) == list(range(100))


def test_the_trainers_seed_decides_the_order_unless_the_options_do(
    folder: Path,
) -> None:
    assert _read(folder, seed=1) == _read(folder, seed=1) != _read(folder, seed=2)
    assert _read(folder, seed=1, shuffle_seed=5) == _read(folder, shuffle_seed=5)


def test_a_schema_in_the_call_goes_before_the_trainers(folder: Path) -> None:
    schema = text_format.Parse('feature { name: "y" type: FLOAT }', schema_pb2.Schema())
    dataset = _accessor(folder).tf_dataset_factory(
        str(folder / "rows-0*"), _options(), schema
    )
    assert list(dataset.element_spec) == ["y"]


def test_record_batches_hold_the_features_of_the_schema(folder: Path) -> None:
    options = tfxio.RecordBatchesOptions(batch_size=100, num_epochs=1)
    (batch,) = _accessor(folder).record_batch_factory(str(folder / "rows-*"), options)
    assert batch.schema.names == ["x", "y"]
    assert sorted(batch.column(0).to_pylist()) == [[x] for x in range(100)]
    assert batch.column(1).null_count == 50


def test_without_any_schema_tensors_have_no_shape(folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        DataAccessor().tf_dataset_factory([str(folder / "rows-*")], _options())
    assert str(caught.value) == (
        "tf_dataset_factory needs a schema to know the shapes of tensors. Wire a "
        "Schema into the Trainer (schema=schema_gen.schema), or pass one in the call."
    )


def test_a_pattern_that_matches_nothing_is_named(folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        _accessor(folder).tf_dataset_factory(["/nowhere/*"], _options())
    assert str(caught.value) == (
        "No file matches '/nowhere/*'. Pass fn_args.train_files or fn_args.eval_files, "
        "or patterns like them."
    )
    with pytest.raises(DataError, match="No file matches an empty list of patterns"):
        _accessor(folder).tf_dataset_factory([], _options())


def test_protos_are_no_tensors(tmp_path: Path) -> None:
    with tfrecord.Writer(tmp_path / "rows.gz") as writer:
        writer.write([b"anything"])
    accessor = DataAccessor("FORMAT_PROTO")
    with pytest.raises(DataError) as caught:
        accessor.tf_dataset_factory(
            str(tmp_path / "*"), _options(), schema_pb2.Schema()
        )
    assert str(caught.value) == (
        "Records of payload format 'FORMAT_PROTO' cannot be read as tensors, only "
        "'FORMAT_TF_EXAMPLE', 'FORMAT_TF_SEQUENCE_EXAMPLE' can. Read them with "
        "tf.data, or ingest them as tf.Example."
    )


def test_sequence_examples_are_read_as_ragged_tensors(tmp_path: Path) -> None:
    row = text_format.Parse(
        'context { feature { key: "id" value { int64_list { value: 7 } } } }'
        'feature_lists { feature_list { key: "clicks" value {'
        "  feature { int64_list { value: [1, 2] } } feature { int64_list { } } } } }",
        tf.train.SequenceExample(),
    )
    with tfrecord.Writer(tmp_path / "rows.gz") as writer:
        writer.write([row.SerializeToString()])
    schema = text_format.Parse(
        """
        feature { name: "id" type: INT }
        feature {
          name: "##SEQUENCE##"
          type: STRUCT
          struct_domain { feature { name: "clicks" type: INT } }
        }
        tensor_representation_group { key: "" value {
          tensor_representation {
            key: "id" value { varlen_sparse_tensor { column_name: "id" } }
          }
          tensor_representation {
            key: "clicks"
            value { ragged_tensor {
              feature_path { step: "##SEQUENCE##" step: "clicks" }
            } }
          }
        } }
        """,
        schema_pb2.Schema(),
    )
    (batch,) = DataAccessor("FORMAT_TF_SEQUENCE_EXAMPLE").tf_dataset_factory(
        str(tmp_path / "*"), _options(), schema
    )
    assert batch["clicks"].to_list() == [[[1, 2], []]]
    assert batch["id"].values.numpy().tolist() == [7]
