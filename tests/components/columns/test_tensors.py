"""Tensors of Parquet files equal what tfx-bsl gives for TFRecord files of the rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.public import tfxio

from penstock.components.columns import tensors, tfrecord
from penstock.schemas.errors import DataError

ROWS = 57

SCHEMA = """
feature { name: "fare" type: FLOAT presence { min_fraction: 1 } shape {} }
feature {
  name: "tips" type: INT presence { min_fraction: 1 } shape { dim { size: 1 } }
}
feature {
  name: "place" type: FLOAT presence { min_fraction: 1 } shape { dim { size: 2 } }
}
feature { name: "company" type: BYTES }
feature { name: "stops" type: INT }
feature { name: "prices" type: FLOAT }
feature { name: "never" type: FLOAT }
feature { name: "filled" type: INT }
feature { name: "filled_text" type: BYTES }
feature { name: "filled_pair" type: FLOAT }
feature { name: "word_id" type: INT int_domain { min: 0 max: 99 } }
feature { name: "word_weight" type: FLOAT }
feature { name: "flat" type: INT }
feature { name: "parts" type: INT }
feature { name: "grid" type: FLOAT }
feature { name: "old" type: FLOAT lifecycle_stage: DEPRECATED }
sparse_feature {
  name: "words"
  index_feature { name: "word_id" }
  value_feature { name: "word_weight" }
}
tensor_representation_group {
  key: ""
  value {
    tensor_representation {
      key: "filled"
      value { dense_tensor { column_name: "filled" shape {}
                             default_value { int_value: -7 } } }
    }
    tensor_representation {
      key: "text"
      value { dense_tensor { column_name: "filled_text" shape { dim { size: 1 } }
                             default_value { bytes_value: "none" } } }
    }
    tensor_representation {
      key: "filled_pair"
      value { dense_tensor { column_name: "filled_pair" shape { dim { size: 2 } }
                             default_value { float_value: 0.5 } } }
    }
    tensor_representation {
      key: "parted"
      value { ragged_tensor { feature_path { step: "flat" }
                              partition { row_length: "parts" }
                              row_partition_dtype: INT32 } }
    }
    tensor_representation {
      key: "grid"
      value { ragged_tensor { feature_path { step: "grid" }
                              partition { uniform_row_length: 2 } } }
    }
  }
}
"""


def _table(rows: int = ROWS) -> pa.Table:
    draw = np.random.default_rng(3)
    some = draw.random(rows) < 0.4

    def lists(kind: pa.DataType, most: int, step: int = 1) -> pa.Array:
        lengths = draw.integers(0, most, rows) * step
        return pa.array(
            [
                None if missing else draw.integers(0, 90, length).tolist()
                for missing, length in zip(some, lengths, strict=True)
            ],
            pa.list_(kind),
        )

    ids = [
        sorted(draw.choice(100, n, False).tolist()) for n in draw.integers(0, 5, rows)
    ]
    ids = [list(reversed(each)) for each in ids]  # to be sorted by the reader
    parts = [draw.integers(0, 4, n).tolist() for n in draw.integers(0, 4, rows)]
    company = draw.choice(np.array(["Taxi Ø", "", "Blue"]), rows)
    return pa.table(
        {
            "fare": pa.array(draw.normal(size=rows)),
            "tips": pa.array(draw.integers(-5, 5, rows), pa.int32()),
            "place": pa.array(draw.normal(size=(rows, 2)).tolist()),
            "company": pa.array(company, mask=some).dictionary_encode(),
            "stops": lists(pa.int64(), 4),
            "prices": lists(pa.float32(), 3),
            "never": pa.nulls(rows),
            "filled": pa.array(draw.integers(0, 9, rows), mask=some),
            "filled_text": pa.array(company, mask=some),
            "filled_pair": pa.array(
                [None if no else [0.25, float(i)] for i, no in enumerate(some)]
            ),
            "word_id": pa.array(ids, pa.list_(pa.int64())),
            "word_weight": pa.array(
                [[i / 8 for i in each] for each in ids], pa.list_(pa.float32())
            ),
            "flat": pa.array(
                [list(range(sum(each))) for each in parts], pa.list_(pa.int64())
            ),
            "parts": pa.array(parts, pa.list_(pa.int64())),
            "grid": lists(pa.float32(), 3, step=2),
            "unknown_to_schema": pa.array(range(rows)),
        }
    )


def _schema(text: str = SCHEMA) -> schema_pb2.Schema:
    return text_format.Parse(text, schema_pb2.Schema())


def _write(table: pa.Table, folder: Path, group: int = 10) -> tuple[str, str]:
    parquet, records = str(folder / "rows.parquet"), str(folder / "rows.gz")
    pq.write_table(table, parquet, row_group_size=group)
    with tfrecord.Writer(Path(records)) as writer:
        for batch in table.to_batches():
            writer.write(tfrecord.encode(batch))
    return parquet, records


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return _write(_table(), tmp_path_factory.mktemp("rows"))


def _options(**more: Any) -> tfxio.TensorFlowDatasetOptions:
    given = {"batch_size": 8, "num_epochs": 1, "shuffle": False, **more}
    return tfxio.TensorFlowDatasetOptions(**given)


def _ours(
    path: str | list[str], schema: schema_pb2.Schema, options: Any, seed: int = 0
) -> tf.data.Dataset:
    paths = [path] if isinstance(path, str) else path
    errors: list[DataError] = []
    return tensors.tensor_dataset(paths, schema, options, seed, errors.append)


def _peers(path: str, schema: schema_pb2.Schema, options: Any) -> tf.data.Dataset:
    reader = tfxio.TFExampleRecord(path, schema=schema, telemetry_descriptors=["t"])
    return reader.TensorFlowDataset(options)


def _plain(element: Any) -> Any:
    """Return a nest of tensors as something that compares and prints well."""
    if isinstance(element, tuple):
        return tuple(_plain(each) for each in element)
    if isinstance(element, dict):
        return {name: _plain(element[name]) for name in sorted(element)}
    if isinstance(element, tf.SparseTensor):
        parts = (element.indices, element.values, element.dense_shape)
        return ("sparse", *(_plain(part) for part in parts))
    if isinstance(element, tf.RaggedTensor):
        splits = [_plain(each) for each in element.nested_row_splits]
        return ("ragged", splits, _plain(element.flat_values))
    return (element.dtype.name, element.shape.as_list(), element.numpy().tolist())


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"batch_size": 1},
        {"batch_size": 100},
        {"num_epochs": 3, "batch_size": 25},
        {"drop_final_batch": True},
        {"label_key": "tips"},
        {"label_key": "company"},
        {"reader_num_threads": 1, "parser_num_threads": 1, "prefetch_buffer_size": 1},
    ],
    ids=str,
)
def test_tensors_equal_those_of_tfx_bsl(
    files: tuple[str, str], more: dict[str, Any]
) -> None:
    parquet, records = files
    ours = _ours(parquet, _schema(), _options(**more))
    peers = _peers(records, _schema(), _options(**more))
    assert [_plain(each) for each in ours] == [_plain(each) for each in peers]


def test_variable_lengths_are_ragged_if_the_schema_says_so(
    files: tuple[str, str],
) -> None:
    schema = _schema()
    schema.represent_variable_length_as_ragged = True
    ours, peers = (
        make(path, schema, _options())
        for make, path in zip((_ours, _peers), files, strict=True)
    )
    assert [_plain(each) for each in ours] == [_plain(each) for each in peers]


@pytest.mark.parametrize("drop", [False, True])
def test_element_specs_are_those_of_tfx_bsl(files: tuple[str, str], drop: bool) -> None:
    options = _options(drop_final_batch=drop, label_key="tips")
    ours = _ours(files[0], _schema(), options).element_spec
    peers = _peers(files[1], _schema(), options).element_spec
    assert ours[1] == peers[1]
    # What the parser knows of a ragged shape it does not always say.
    assert {name for name in ours[0]} == {name for name in peers[0]}
    for name, spec in peers[0].items():
        assert ours[0][name].is_compatible_with(spec), name
        if isinstance(spec, tf.TensorSpec):
            assert ours[0][name] == spec


@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.tuples(
            st.floats(width=32),
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | st.lists(st.text(), max_size=3),
        ),
        min_size=1,
        max_size=20,
    ),
    st.integers(1, 6),
    st.integers(1, 7),
)
def test_any_values_come_through(
    tmp_path: Path, rows: list[Any], group: int, batch_size: int
) -> None:
    kinds = (pa.float32(), pa.int64(), pa.list_(pa.string()))
    names = ("x", "n", "words")
    columns = zip(*rows, strict=True)
    table = pa.table(
        {
            name: pa.array(column, kind)
            for name, column, kind in zip(names, columns, kinds, strict=True)
        }
    )
    schema = _schema(
        'feature { name: "x" type: FLOAT presence { min_fraction: 1 } shape {} }'
        'feature { name: "n" type: INT } feature { name: "words" type: BYTES }'
    )
    parquet, records = _write(table, tmp_path, group)
    options = _options(batch_size=batch_size)
    ours = [_plain(each) for each in _ours(parquet, schema, options)]
    peers = [_plain(each) for each in _peers(records, schema, options)]
    assert str(ours) == str(peers)  # as text, in which NaN equals NaN


def _numbers(table: pa.Table, folder: Path, group: int = 10) -> tuple[str, Any]:
    schema = _schema(
        'feature { name: "x" type: INT presence { min_fraction: 1 } shape {} }'
    )
    return _write(table, folder, group)[0], schema


def _read(path: Any, schema: Any, options: Any, seed: int = 0) -> list[int]:
    dataset = _ours(path, schema, options, seed)
    return [int(x) for batch in dataset for x in batch["x"]]


def test_shuffling_is_seeded_and_loses_nothing(tmp_path: Path) -> None:
    path, schema = _numbers(pa.table({"x": range(100)}), tmp_path)
    options = _options(shuffle=True, shuffle_buffer_size=35)
    once = _read(path, schema, options, seed=1)
    assert sorted(once) == list(range(100)) != once
    assert _read(path, schema, options, seed=1) == once
    assert _read(path, schema, options, seed=2) != once


def test_every_epoch_is_shuffled_anew(tmp_path: Path) -> None:
    path, schema = _numbers(pa.table({"x": range(100)}), tmp_path)
    read = _read(path, schema, _options(shuffle=True, num_epochs=2))
    assert sorted(read[:100]) == sorted(read[100:]) == list(range(100))
    assert read[:100] != read[100:]
    dataset = _ours(path, schema, _options(shuffle=True, batch_size=100))
    first, second = (
        [batch["x"].numpy().tolist() for batch in dataset] for _ in range(2)
    )
    assert first != second


def test_a_buffer_mixes_row_groups_and_holds_no_more_than_it_must(
    tmp_path: Path,
) -> None:
    path, schema = _numbers(pa.table({"x": range(100)}), tmp_path)
    options = _options(shuffle=True, shuffle_buffer_size=11)
    read = _read(path, schema, options)
    for start in range(0, 100, 20):
        groups = {x // 10 for x in read[start : start + 20]}
        assert len(groups) == 2


def test_without_epochs_the_dataset_does_not_end(tmp_path: Path) -> None:
    path, schema = _numbers(pa.table({"x": range(5)}), tmp_path)
    dataset = _ours(path, schema, _options(num_epochs=None, batch_size=4))
    batches = [batch["x"].numpy().tolist() for batch in dataset.take(4)]
    assert batches == [[0, 1, 2, 3], [4, 0, 1, 2], [3, 4, 0, 1], [2, 3, 4, 0]]


def test_files_follow_one_another_and_empty_ones_do_no_harm(tmp_path: Path) -> None:
    paths = []
    for number, rows in enumerate((range(3), range(0), range(3, 9))):
        folder = tmp_path / str(number)
        folder.mkdir()
        path, schema = _numbers(pa.table({"x": pa.array(rows, pa.int64())}), folder)
        paths.append(path)
    assert _read(paths, schema, _options()) == list(range(9))
    assert _read(paths[1], schema, _options(num_epochs=None)) == []


@pytest.mark.parametrize("more", [{}, {"num_epochs": 2}, {"drop_final_batch": True}])
def test_record_batches_equal_those_of_tfx_bsl(
    files: tuple[str, str], more: dict[str, Any]
) -> None:
    given = {"batch_size": 25, "num_epochs": 1, "shuffle": False, **more}
    options = tfxio.RecordBatchesOptions(**given)
    schema = _schema()
    reader = tfxio.TFExampleRecord(
        files[1], schema=schema, telemetry_descriptors=["test"]
    )
    ours = list(tensors.record_batches([files[0]], schema, options, seed=0))
    peers = list(reader.RecordBatches(options))
    assert [each.to_pydict() for each in ours] == [each.to_pydict() for each in peers]
    assert ours[0].schema == peers[0].schema


def test_record_batches_without_a_schema_have_every_column(tmp_path: Path) -> None:
    table = pa.table({"a": [1, None], "b": ["x", "y"], "c": [0.5, 1.5]})
    path = _write(table, tmp_path)[0]
    options = tfxio.RecordBatchesOptions(batch_size=9, num_epochs=1, shuffle=False)
    (batch,) = tensors.record_batches([path], None, options, seed=0)
    assert batch.to_pydict() == {
        "a": [[1], None],
        "b": [[b"x"], [b"y"]],
        "c": [[0.5], [1.5]],
    }


_X = 'feature { name: "x" type: INT presence { min_fraction: 1 } shape {} }'


@pytest.mark.parametrize(
    ("column", "schema", "sentence"),
    [
        (
            [1, 2, None],
            _X,
            "row group 1, row 1: feature 'x' has no value, where the schema says that "
            "every row has one value. Mend the data, or leave the feature's shape out "
            "of the schema.",
        ),
        (
            [[1, 2], [3, 4], [5]],
            _X.replace("shape {}", "shape { dim { size: 2 } }"),
            "row group 1, row 1: feature 'x' has 1 values, where the schema says that "
            "every row has 2 values.",
        ),
        (
            [0.5, 1.5],
            _X,
            "has type double, where the schema says INT. Change the type in the "
            "schema, or ingest the column with the type that the schema says.",
        ),
        (
            pa.array([2**63], pa.uint64()),
            _X,
            "holds an integer above 2**63 - 1, the largest that a tensor of a schema "
            "can hold. Ingest it as text.",
        ),
        (
            [[1], [2, None]],
            'feature { name: "x" type: INT }',
            "row group 0, row 2: the list in column 'x' has a missing value, which a "
            "tensor cannot. Fill it or leave it out when the data are made.",
        ),
        (
            [[[1]], [[2]]],
            'feature { name: "x" type: INT }',
            "Column 'x' has type list<item: int64>, which cannot become a tensor: "
            "features are values or lists of values. Take it out of the schema, or "
            "ingest its parts as columns of their own.",
        ),
        (
            [{"y": 1}, {"y": 2}],
            'feature { name: "x" type: INT }',
            "which cannot become a tensor: features are values or lists of values.",
        ),
        (
            [1],
            _X + _X.replace('"x"', '"z"'),
            "has no column 'z', though the schema says that every row has a value of "
            "it. Ingest it, or take the feature out of the schema.",
        ),
        (
            [1],
            _X.replace('"x"', '"z"'),
            "has none of the features of the schema (it has 'x'). Use the schema of "
            "these Examples.",
        ),
    ],
    ids=lambda value: str(value)[-50:],
)
def test_what_does_not_fit_the_schema_is_said(
    tmp_path: Path, column: Any, schema: str, sentence: str
) -> None:
    path = str(tmp_path / "rows.parquet")
    pq.write_table(pa.table({"x": column}), path, row_group_size=2)
    errors: list[DataError] = []
    dataset = tensors.tensor_dataset(
        [path], _schema(schema), _options(), 0, errors.append
    )
    with pytest.raises(tf.errors.OpError):
        list(dataset)
    assert sentence in str(errors[0])
    assert "rows.parquet'" in str(errors[0]) or "cannot become" in str(errors[0])


@pytest.mark.parametrize(
    ("schema", "more", "sentence"),
    [
        (
            _X + _X.replace('"x"', '"tips"'),
            {"label_key": "tip"},
            "Label 'tip' is not a feature of the schema (it has 'tips', 'x'). Did you "
            "mean 'tips'?",
        ),
        (
            'feature { name: "x" type: INT shape {} }',
            {},
            "The schema cannot say tensors: Feature x had shape",
        ),
        (
            _X.replace("INT", "TYPE_UNKNOWN"),
            {},
            "Feature 'x' of the schema has type TYPE_UNKNOWN, which cannot be read as "
            "values: that can INT, FLOAT and BYTES. Change its type, or take it out.",
        ),
        (
            'feature { name: "s" type: STRUCT struct_domain '
            '{ feature { name: "y" type: INT } } }',
            {},
            "Tensor 's.y' of the schema lies inside a struct ('s.y'), which cannot be "
            "read as a tensor. Take it out of the schema, or ingest it as a column of "
            "its own.",
        ),
        (
            _X + 'tensor_representation_group { key: "" value { tensor_representation '
            '{ key: "t" value { varlen_sparse_tensor { column_name: "xx" } } } } }',
            {},
            "Tensor 't' of the schema is made of feature 'xx', which the schema does "
            "not have. Did you mean 'x'?",
        ),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_a_schema_that_cannot_be_tensors_is_refused_at_once(
    files: tuple[str, str], schema: str, more: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(DataError) as caught:
        _ours(files[0], _schema(schema), _options(**more))
    assert sentence in str(caught.value)


def test_no_row_is_handled_in_python(
    files: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    chunk = tensors._chunk

    def counted(table: pa.Table, slots: Any) -> Any:
        calls.append(table.num_rows)
        return chunk(table, slots)

    monkeypatch.setattr(tensors, "_chunk", counted)
    batches: Iterator[Any] = iter(_ours(files[0], _schema(), _options(batch_size=1)))
    assert len(list(batches)) == ROWS
    assert len(calls) <= 6  # one per row group of ten rows, however small a batch
