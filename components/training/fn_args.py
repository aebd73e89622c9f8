"""FnArgs: what a train function gets."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.components.training.data_accessor import DataAccessor


@dataclasses.dataclass(kw_only=True)
class FnArgs:
    """What a train function gets: the fields of TFX's class of this name.

    Every field may be left out, so that a train function can be tested by itself.

    Attributes:
        working_dir: A folder for files that nobody needs afterwards.
        train_files: Glob patterns of the files to train on.
        eval_files: Glob patterns of the files to evaluate on while training.
        train_steps: How many batches to train on; None for no limit.
        eval_steps: How many batches to evaluate on; None for no limit.
        schema_path: Path of the schema's text file, if the Trainer has a schema.
        schema_file: The same.
        transform_graph_path: Folder of the TransformGraph, if there is one.
        transform_output: The same.
        data_accessor: Reads the files, whatever their format.
        serving_model_dir: Where to write the SavedModel.
        eval_model_dir: Where a model made for evaluation alone would go.
        model_run_dir: Where to write logs for TensorBoard, and the like.
        base_model: Folder of the SavedModel to start from, if there is one.
        hyperparameters: Always None: nothing tunes them yet.
        custom_config: The Trainer's `custom_config`.
        num_examples: Rows of every split, if the Trainer has statistics.
    """

    working_dir: str | None = None
    train_files: list[str] = dataclasses.field(default_factory=list)
    eval_files: list[str] = dataclasses.field(default_factory=list)
    train_steps: int | None = None
    eval_steps: int | None = None
    schema_path: str | None = None
    schema_file: str | None = None
    transform_graph_path: str | None = None
    transform_output: str | None = None
    # Any, where None is no use: train functions call and join these unasked.
    data_accessor: DataAccessor | Any = None
    serving_model_dir: str | Any = None
    eval_model_dir: str | Any = None
    model_run_dir: str | Any = None
    base_model: str | None = None
    hyperparameters: dict[str, Any] | None = None
    custom_config: dict[str, Any] | None = None
    num_examples: dict[str, int] | None = None
