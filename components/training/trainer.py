"""Trainer: calls the user's train function and keeps the model that it writes."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from penstock.components.base import Component, RunContext, field, output
from penstock.components.training.data_accessor import DataAccessor
from penstock.components.training.fn_args import FnArgs
from penstock.schemas.artifacts import (
    FLAVOR_FILE,
    ExampleAnomalies,
    Examples,
    ExampleStatistics,
    Model,
    ModelRun,
    Schema,
    TransformGraph,
)
from penstock.schemas.errors import DataError, PipelineError


class Trainer(Component):
    """Train a model with a function of yours.

    Reads Examples and hands the function an `FnArgs`; writes the SavedModel that the
    function leaves in `fn_args.serving_model_dir`, and beside it, as a ModelRun, what
    it leaves in `fn_args.model_run_dir`. Use it for any model that TensorFlow can save;
    `run_fn` modules written for TFX work once their `tfx` imports are changed (see
    `penstock.components.training.tfx`).

    The model is refused unless it loads and has a signature `serving_default`. A model
    that is no SavedModel says so with `penstock.components.evaluation.write_flavor`; it
    can be evaluated, and not be pushed. Python, NumPy, TensorFlow and Keras are seeded
    before the function is called. The same seed, data, code, library versions and
    machine then give the same model, byte for byte, unless the function itself asks the
    clock, the network or its own threads.

    Example:
        trainer = Trainer(
            examples=ingest.examples, schema=schema.schema, train_fn=train
        )

    Attributes:
        examples: The rows to train and evaluate on.
        schema: Says which features there are, and their shapes.
        transform_graph: Transformation of the features.
        base_model: Model to start from, for a warm start.
        statistics: Statistics of the examples; they give `FnArgs.num_examples`.
        anomalies: The verdict on the examples; training waits for a yes.
        train_fn: Function of one FnArgs, at the top level of a module.
        module_file: Instead: Python file that defines `run_fn(fn_args)`. Its folder is
            on `sys.path` while it runs.
        train_steps: How many batches to train on; None or 0 for no limit.
        eval_steps: How many batches to evaluate on; None or 0 for no limit.
        train_splits: Splits to train on.
        eval_splits: Splits to evaluate on while training; may be empty.
        custom_config: Anything more that the function wants to know.
        seed: Seeds Python, NumPy, TensorFlow, Keras and the shuffling of rows.
        model: The SavedModel, below `Format-Serving`.
        model_run: Logs of the training, for TensorBoard and the like.
    """

    isolated: ClassVar[bool] = True
    EXECUTION_TYPE: ClassVar[str] = "tfx.components.trainer.component.Trainer"
    BASE_TYPE: ClassVar[str | None] = "TRAIN"
    LIBRARIES: ClassVar[tuple[str, ...]] = ("tensorflow", "keras", "numpy")

    examples: Examples
    schema: Schema | None = None
    transform_graph: TransformGraph | None = None
    base_model: Model | None = None
    statistics: ExampleStatistics | None = None
    anomalies: ExampleAnomalies | None = None
    train_fn: Callable[[FnArgs], None] | None = None
    module_file: Path | None = field(default=None, counts=False)
    train_steps: int | None = None
    eval_steps: int | None = None
    train_splits: tuple[str, ...] = ("train",)
    eval_splits: tuple[str, ...] = ("eval",)
    custom_config: dict[str, Any] | None = None
    seed: int = 0
    model: Model = output()
    model_run: ModelRun = output()

    def check(self) -> None:
        """Check that there is one train function, splits, and a possible seed."""
        if (self.train_fn is None) == (self.module_file is None):
            given = "neither" if self.train_fn is None else "both"
            raise PipelineError(
                f"'{self.name}' takes either train_fn or module_file, got {given}. "
                "Pass train_fn=a_function, or module_file=Path('a_file.py') with a "
                "run_fn in it."
            )
        if not self.train_splits:
            raise PipelineError(
                f"{self.name}.train_splits is empty. Name at least one split to train "
                "on."
            )
        for name in ("train_steps", "eval_steps"):
            steps = getattr(self, name)
            if steps is not None and steps < 0:
                raise PipelineError(
                    f"{self.name}.{name} is {steps}. Pass a number of batches, or None "
                    "for no limit."
                )
        if not 0 <= self.seed < 2**32:
            raise PipelineError(
                f"{self.name}.seed is {self.seed}, which NumPy cannot take. Pass a "
                "number from 0 to 2**32 - 1."
            )

    def called_code(self) -> tuple[tuple[Path | str, str], ...]:
        """Return the module file, with `run_fn`, if there is one."""
        return () if self.module_file is None else ((self.module_file, "run_fn"),)

    def run(self, context: RunContext) -> None:
        """Call the train function; check and describe the model that it wrote."""
        from penstock.components.training import saved_model

        fn_args = self._fn_args(context)
        _set_seeds(self.seed)
        with self._function() as train, saved_model.ordered_variables():
            self._call(train, fn_args)
        folder = self.model.serving_dir
        if (folder / FLAVOR_FILE).is_file():
            framework = "python"
        else:
            self.model.properties["signatures"] = saved_model.checked_signatures(folder)
            saved_model.settle_fingerprint(folder)
            framework = saved_model.framework(folder)
        for artifact in (self.model, self.model_run):
            artifact.properties["seed"] = self.seed
            artifact.properties["framework"] = framework

    @contextlib.contextmanager
    def _function(self) -> Iterator[Callable[[FnArgs], None]]:
        from penstock.components.training.user_module import function_of

        if self.train_fn is not None:
            yield self.train_fn
        else:
            assert self.module_file is not None  # check() saw to it
            with function_of(self.module_file, "run_fn") as function:
                yield function

    def _fn_args(self, context: RunContext) -> FnArgs:
        schema = None if self.schema is None else self.schema.only_file("schema.pbtxt")
        graph = None if self.transform_graph is None else self.transform_graph.uri
        base = None
        if self.base_model is not None:
            base = str(self.base_model.serving_dir)
            if not self.base_model.serving_dir.is_dir():
                raise DataError(
                    f"Model '{self.base_model.uri}', the base model of '{self.name}', "
                    f"has no folder '{self.base_model.serving_dir.name}'. It was moved "
                    "or deleted; run its producer again."
                )
        return FnArgs(
            working_dir=str(context.temp_dir),
            train_files=self._patterns(self.train_splits),
            eval_files=self._patterns(self.eval_splits),
            train_steps=self.train_steps or None,
            eval_steps=self.eval_steps or None,
            schema_path=None if schema is None else str(schema),
            schema_file=None if schema is None else str(schema),
            transform_graph_path=graph,
            transform_output=graph,
            data_accessor=DataAccessor(
                self.examples.payload_format, schema_file=schema, seed=self.seed
            ),
            serving_model_dir=str(self.model.serving_dir),
            eval_model_dir=str(self.model.path / "Format-TFMA"),
            model_run_dir=str(self.model_run.path),
            base_model=base,
            custom_config=_thawed(self.custom_config),
            num_examples=(
                None if self.statistics is None else _num_examples(self.statistics)
            ),
        )

    def _patterns(self, splits: tuple[str, ...]) -> list[str]:
        for split in splits:
            self.examples.files(split)  # says so if it is not there, or empty
        return [str(self.examples.split_dir(split) / "*") for split in splits]

    def _call(self, train: Callable[[FnArgs], None], fn_args: FnArgs) -> None:
        try:
            train(fn_args)
        except Exception as error:
            if fn_args.data_accessor.errors:
                # What TensorFlow raised is this error's text in a stack trace of its.
                raise fn_args.data_accessor.errors[0] from error
            if self._read_parquet_as_tfrecord(error):
                raise DataError(
                    f"'{train.__module__}.{train.__qualname__}' read the examples as "
                    f"TFRecord files, but '{self.examples.uri}' holds Parquet files. "
                    "Read them with fn_args.data_accessor.tf_dataset_factory, or let "
                    'CsvExampleGen(file_format="tfrecords_gzip") write what it expects.'
                ) from error
            raise

    def _read_parquet_as_tfrecord(self, error: Exception) -> bool:
        import tensorflow as tf

        if not isinstance(error, tf.errors.DataLossError):
            return False
        with open(self.examples.files(self.train_splits[0])[0], "rb") as file:
            return file.read(4) == b"PAR1"


def _thawed(value: Any) -> Any:
    """Return a parameter as a train function expects it: plain dicts and lists."""
    if isinstance(value, dict):
        return {key: _thawed(each) for key, each in value.items()}
    return [_thawed(each) for each in value] if isinstance(value, tuple) else value


def _num_examples(statistics: ExampleStatistics) -> dict[str, int]:
    from tensorflow_metadata.proto.v0 import statistics_pb2

    counts = {}
    for split in statistics.split_names:
        file = statistics.file(split)
        read = statistics_pb2.DatasetFeatureStatisticsList()
        read.ParseFromString(file.read_bytes())
        # The first dataset is of all rows; slices follow it.
        counts[split] = int(read.datasets[0].num_examples) if read.datasets else 0
    return counts


def _set_seeds(seed: int) -> None:
    import keras
    import numpy as np
    import tensorflow as tf

    # Keras seeds all of them but on its own backend's terms; said here for each, so
    # that it holds whatever KERAS_BACKEND says. tf_keras draws from `random`.
    keras.utils.set_random_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    tf.random.set_seed(seed)
