"""Parameters that are misspelt, missing, positional or of another type."""

from __future__ import annotations

from pathlib import Path

import penstock.components as c
from penstock.schemas.artifacts import Examples, ExampleStatistics, Model

examples = Examples("examples")
statistics = ExampleStatistics("statistics")
schema = c.SchemaGen(statistics=statistics).schema

c.StatisticsGen()  # E: Missing named argument "examples"
c.StatisticsGen(examples)  # E: Too many positional # E: Missing # E: Argument 1
c.StatisticsGen(  # E: "exclude_split" for "StatisticsGen"; did you mean "exclude_splits"?
    examples=examples,
    exclude_split=("eval",),
)
c.StatisticsGen(
    examples=examples,
    exclude_splits=(1, 2),  # E: expected "tuple[str, ...]"
)
c.StatisticsGen(  # E: Unexpected keyword argument "statistics"
    examples=examples,
    statistics=statistics,
)
c.CsvExampleGen(splits={"train": 4})  # E: Missing named argument "input_dir"
c.CsvExampleGen(input_dir=Path("data"), splits=4)  # E: incompatible type "int"; expected "Mapping[str, int]
c.SchemaGen(
    statistics=statistics,
    infer_feature_shape="yes",  # E: incompatible type "str"; expected "bool"
)
c.ExampleValidator(
    statistics=statistics,
    schema=schema,
    fail_on="warn",  # E: expected "Literal['error', 'warning']"
)
c.Trainer(
    examples=examples,
    train_steps="1_000",  # E: incompatible type "str"; expected "int | None"
)
c.Trainer(
    examples=examples,
    train_fn="taxi.train",  # E: incompatible type "str"
)
c.Evaluator(examples=examples, model=Model("m"))  # E: Missing named argument "eval_config"
c.Pusher(model=Model("model"))  # E: Missing named argument "serving_dir"
c.Pusher(
    model=Model("model"),
    serving_dir=7,  # E: incompatible type "int"
)
c.Pusher(
    name=3,  # E: incompatible type "int"; expected "str"
    model=Model("model"),
    serving_dir="serving",
)
