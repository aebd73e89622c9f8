"""The features that a graph parses from tf.Examples, and graphs that may read any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf

from penstock.components.columns.parsing import Parsed, parsed_features

FEATURES = {
    "fare": tf.io.FixedLenFeature([1], tf.float32),
    "tips": tf.io.FixedLenFeature([], tf.float32, default_value=0.0),
    "company": tf.io.VarLenFeature(tf.string),
    "stops": tf.io.RaggedFeature(tf.int64),
    "pace": tf.io.FixedLenSequenceFeature([], tf.float32, allow_missing=True),
}
FOUND = (
    Parsed("company", "string", False),
    Parsed("fare", "float32", True),
    Parsed("pace", "float32", False),
    Parsed("stops", "int64", False),
    Parsed("tips", "float32", False),
)


def found(function: Callable[..., Any], *more: Any) -> tuple[Parsed, ...] | None:
    """Return what is parsed by a function of records, called as a signature is."""
    called = tf.function(function)
    takes = [tf.TensorSpec([None], tf.string, name="examples"), *more]
    wrapped = tf.function(lambda *given: called(*given), input_signature=takes)
    concrete = wrapped.get_concrete_function()
    outputs = [each.name for each in concrete.outputs]
    return parsed_features(concrete.graph.as_graph_def(), "examples:0", outputs)


def test_features_of_every_kind_are_found_with_what_must_be_there() -> None:
    def parse(examples: Any) -> Any:
        rows = tf.shape(examples)[0]
        examples = tf.reshape(tf.identity(examples), [-1])
        return tf.io.parse_example(examples, FEATURES)["fare"], rows

    assert found(parse) == FOUND


def test_what_two_operations_parse_is_put_together() -> None:
    def parse(examples: Any) -> Any:
        one = tf.io.parse_example(examples, {"tips": FEATURES["tips"]})
        required = tf.io.FixedLenFeature([], tf.float32)
        two = tf.io.parse_example(examples, {"tips": required, "a": FEATURES["fare"]})
        return one["tips"] + two["tips"]

    assert found(parse) == (
        Parsed("a", "float32", True),
        Parsed("tips", "float32", True),
    )


def test_graphs_of_tensorflow_1_are_understood() -> None:
    with tf.Graph().as_default() as graph:
        examples = tf.compat.v1.placeholder(tf.string, [None], name="examples")
        kinds = {"fare": FEATURES["fare"], "company": FEATURES["company"]}
        kinds["tips"] = FEATURES["tips"]
        tf.raw_ops.ParseExample(
            serialized=examples,
            names=[],
            sparse_keys=["company"],
            dense_keys=["fare", "tips"],
            dense_defaults=[tf.constant([], tf.float32), tf.constant(0.0)],
            sparse_types=[tf.string],
            dense_shapes=[[1], []],
        )
    message = graph.as_graph_def()
    assert parsed_features(message, "examples:0", ["x:0"]) == (
        Parsed("company", "string", False),
        Parsed("fare", "float32", True),
        Parsed("tips", "float32", False),
    )


def read_length(examples: Any) -> Any:
    return tf.strings.length(examples)


def read_each(examples: Any) -> Any:
    feature = {"fare": tf.io.FixedLenFeature([], tf.float32)}
    return tf.map_fn(
        lambda each: tf.io.parse_single_example(each, feature)["fare"],
        examples,
        fn_output_signature=tf.float32,
    )


def return_them(examples: Any) -> Any:
    return tf.io.parse_example(examples, FEATURES)["fare"], tf.identity(examples)


def use_them_as_names(examples: Any) -> Any:
    return tf.io.parse_example(examples, FEATURES, example_names=examples)["fare"]


def parse_as_two_types(examples: Any) -> Any:
    one = tf.io.parse_example(examples, {"fare": tf.io.VarLenFeature(tf.float32)})
    two = tf.io.parse_example(examples, {"fare": tf.io.VarLenFeature(tf.int64)})
    return one["fare"].values, two["fare"].values


@pytest.mark.parametrize(
    "function",
    [read_length, read_each, return_them, use_them_as_names, parse_as_two_types],
)
def test_a_graph_that_is_not_understood_may_read_any(
    function: Callable[..., Any],
) -> None:
    assert found(function) is None


def test_names_that_are_no_constants_may_be_any() -> None:
    def parse(examples: Any, keys: Any) -> Any:
        return tf.raw_ops.ParseExampleV2(
            serialized=examples,
            names=[],
            sparse_keys=keys,
            dense_keys=[],
            ragged_keys=[],
            dense_defaults=[],
            num_sparse=1,
            sparse_types=[tf.string],
            ragged_value_types=[],
            ragged_split_types=[],
            dense_shapes=[],
        )

    assert found(parse, tf.TensorSpec([1], tf.string)) is None


def test_functions_that_are_not_there_may_read_any() -> None:
    def parse(examples: Any) -> Any:
        return tf.io.parse_example(examples, FEATURES)["fare"]

    wrapped = tf.function(
        lambda examples: tf.function(parse)(examples),
        input_signature=[tf.TensorSpec([None], tf.string, name="examples")],
    )
    message = wrapped.get_concrete_function().graph.as_graph_def()
    del message.library.function[:]
    assert parsed_features(message, "examples:0", []) is None


def test_the_taxi_models_columns_are_known() -> None:
    from penstock.pipelines.taxi.model import TYPES, _parsed

    features = found(
        lambda examples: [each.values for each in _parsed(examples).values()]
    )
    assert features is not None
    assert {each.name: each.dtype for each in features} == {**TYPES, "tips": "float32"}
