"""An EvalConfig in short: metrics, slices and thresholds as one types them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.components.evaluation import eval_config as configs
from penstock.components.evaluation.expression_nodes import (
    Arithmetic,
    Column,
    Comparison,
    Constant,
    Negation,
    Node,
)
from penstock.components.evaluation.expressions import parse
from penstock.schemas.errors import DataError, PipelineError, did_you_mean, quoted

if TYPE_CHECKING:
    from tensorflow_model_analysis.proto.config_pb2 import EvalConfig, MetricConfig

    from penstock.schemas.artifacts import Examples, Model

_LOOKED_AT = 1_000  # rows, to see what predictions are
_COUNT = "ExampleCount"
_BINARY = ("AUC", "BinaryAccuracy", "Precision", "Recall", "Calibration", _COUNT)
_NUMBERS = (
    "MeanAbsoluteError",
    "MeanSquaredError",
    "SquaredPearsonCorrelation",
    "Calibration",
    _COUNT,
)
_CLASSES = ("SparseCategoricalAccuracy", "SparseCategoricalCrossentropy", _COUNT)
_ONE_HOT = ("CategoricalAccuracy", "CategoricalCrossentropy", _COUNT)
_TEXTS = ("ExactMatch", _COUNT)


def read_config(file: Path) -> EvalConfig:
    """Return the EvalConfig of a text file: `.pbtxt`, or `.json`.

    Raises:
        DataError: If there is none in it.
    """
    from google.protobuf import json_format, text_format
    from tensorflow_model_analysis.proto import config_pb2

    readers = {".json": json_format.Parse, ".pbtxt": text_format.Parse}
    if file.suffix not in readers:
        raise DataError(
            f"'{file}' ends in none of {quoted(readers)}. Write the EvalConfig as one "
            "of the two."
        )
    try:
        text = file.read_text("utf-8")
        found: EvalConfig = readers[file.suffix](text, config_pb2.EvalConfig())
    except FileNotFoundError as error:
        raise DataError(f"There is no file '{file}'. Check the path.") from error
    except (json_format.ParseError, text_format.ParseError, ValueError) as error:
        why = str(error).splitlines()[0].rstrip(".")
        raise DataError(
            f"'{file}' holds no EvalConfig: {why}. Mend the file."
        ) from error
    return found


def name_columns(
    config: EvalConfig, *, label: str = "", prediction: str = "", weight: str = ""
) -> None:
    """Set the columns of every ModelSpec; there is one afterwards.

    Args:
        config: To change.
        label: The label's; the config's own stays if it is empty, as for the others.
        prediction: The predictions', or the model's output.
        weight: The example weights'.
    """
    if not config.model_specs:
        config.model_specs.add()
    for spec in config.model_specs:
        for one, many, name in (
            ("label_key", spec.label_keys, label),
            ("prediction_key", spec.prediction_keys, prediction),
            ("example_weight_key", spec.example_weight_keys, weight),
        ):
            if name:
                many.clear()
                setattr(spec, one, name)


def compute_labels(config: EvalConfig, model: Model, columns: Iterable[str]) -> None:
    """Let a SavedModel compute the label if it is no column and a signature gives it.

    Args:
        config: To change.
        model: The candidate.
        columns: Names of the columns that there are.
    """
    from penstock.components.columns.signatures import Signatures
    from penstock.components.evaluation import flavors

    absent = configs.label_columns(config) - set(columns)
    if not absent or configs.transforms(config) or flavors.is_there(model.serving_dir):
        return
    subject = f"Model '{model.source or model.uri}'"
    outputs = Signatures(subject, model.serving_dir).outputs
    giving = [name for name, gives in outputs.items() if absent & set(gives)]
    for spec in config.model_specs:
        spec.preprocessing_function_names.extend(giving[:1])


def add_metrics(config: EvalConfig, names: Iterable[str]) -> None:
    """Add metrics by class name, `AUC`, or as results have it, `auc`."""
    import tf_keras
    from tensorflow_model_analysis import metrics as _registers_them
    from tensorflow_model_analysis.metrics import metric_types

    del _registers_them
    # Keras has functions of such names too. Where both have a metric, TFMA's is meant.
    legal = [name for name in dir(tf_keras.metrics) if name[0].isupper()]
    legal += metric_types.registered_metrics()
    by_text = {_plain(name): name for name in legal}
    spec = config.metrics_specs.add()
    for name in names:
        chosen = name if name in legal else by_text.get(_plain(name), name)
        spec.metrics.add(class_name=chosen)


def _plain(name: str) -> str:
    """Return a name as `binary_accuracy` and `BinaryAccuracy` are the same."""
    return name.replace("_", "").lower()


def add_slices(config: EvalConfig, features: Iterable[str]) -> None:
    """Add a slice for every value of features, each a column or an expression."""
    if not config.slicing_specs:
        config.slicing_specs.add()
    for feature in features:
        config.slicing_specs.add(feature_keys=[feature])


def add_thresholds(
    config: EvalConfig, texts: Sequence[str], *, has_baseline: bool
) -> None:
    """Ask of metrics, in every slice, what texts say.

    `auc >= 0.8`, `0.9 <= calibration <= 1.1`, and of the change from a baseline
    `auc - baseline >= -0.01`.

    Args:
        config: To change; it has the metrics.
        texts: The thresholds.
        has_baseline: Whether there is a baseline.

    Raises:
        PipelineError: If one says something else, is of a metric that is not measured,
            says a bound again, or is of a change and there is no baseline.
    """
    from tensorflow_model_analysis.metrics import metric_specs

    if not texts:
        return
    configs.check_metrics(config)
    metrics = [
        (metric_specs.metric_instance(metric).name, metric)
        for spec in config.metrics_specs
        for metric in spec.metrics
    ]
    said: set[tuple[str, str]] = set()
    for text in texts:
        asked = _read_threshold(text)
        if asked.is_change and not has_baseline:
            raise PipelineError(
                f"Threshold '{text}' asks for a change from the baseline, and there is "
                "no baseline. Give one."
            )
        meant = [
            (name, metric)
            for name, metric in metrics
            if _plain(asked.metric) in (_plain(name), _plain(metric.class_name))
        ]
        if not meant:
            legal = {name for name, _ in metrics}
            raise PipelineError(
                f"Threshold '{text}' is for '{asked.metric}', which is not measured "
                f"(those are {quoted(legal)}).{did_you_mean(asked.metric, legal)} Ask "
                "for the metric too."
            )
        for side, bound in asked.bounds:
            place = (meant[0][0], "change" if asked.is_change else side)
            if place in said:
                raise PipelineError(
                    f"Threshold '{text}' sets a bound of '{meant[0][0]}' that another "
                    "one sets too. Keep one of them."
                )
            said.add(place)
            for _, metric in meant:
                _set(metric, asked, side, bound)


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What a text asks of a metric.

    Attributes:
        metric: As the text names it.
        is_change: Whether of its difference from the baseline's.
        bounds: Numbers, each with the side that it bounds: `lower`, `upper`.
    """

    metric: str
    is_change: bool
    bounds: tuple[tuple[str, float], ...]


def _set(metric: MetricConfig, asked: _Asked, side: str, bound: float) -> None:
    from tensorflow_model_analysis.proto import config_pb2

    if asked.is_change:
        change = metric.threshold.change_threshold
        change.absolute.value = bound
        change.direction = (
            config_pb2.MetricDirection.HIGHER_IS_BETTER
            if side == "lower"
            else config_pb2.MetricDirection.LOWER_IS_BETTER
        )
    else:
        value = metric.threshold.value_threshold
        (value.lower_bound if side == "lower" else value.upper_bound).value = bound


def _read_threshold(text: str) -> _Asked:
    try:
        root = parse(text).root
    except PipelineError as error:
        raise PipelineError(f"Threshold '{text}' cannot be read. {error}") from error
    if isinstance(root, Comparison):
        numbers = [_number(each) for each in root.operands]
        pairs = list(itertools.pairwise(numbers))
        places = [place for place, each in enumerate(numbers) if each is None]
        is_one = len(places) == 1 and all(None in pair for pair in pairs)
        subject = _subject(root.operands[places[0]]) if is_one else None
        if subject and set(root.signs) <= {">=", "<="}:
            bounds = tuple(map(_bound, root.signs, pairs))
            is_range = {side for side, _ in bounds} == {"lower", "upper"}
            if len(bounds) == 1 or (is_range and not subject[1]):
                return _Asked(*subject, bounds)
    raise PipelineError(
        f"Threshold '{text}' is none. Write a metric and numbers, as 'auc >= 0.8' or "
        "'0.9 <= calibration <= 1.1', or its change from the baseline, as "
        "'auc - baseline >= -0.01'. Bounds are included."
    )


def _bound(sign: str, pair: tuple[float | None, float | None]) -> tuple[str, float]:
    """Return the side and the number of one comparison of a metric with a number."""
    (number,) = (each for each in pair if each is not None)
    is_lower = (sign == ">=") == (pair[0] is None)
    return ("lower" if is_lower else "upper"), number


def _number(node: Node) -> float | None:
    if isinstance(node, Negation):
        number = _number(node.operands[0])
        return None if number is None else -number
    if isinstance(node, Constant) and type(node.value) in (int, float):
        return float(node.value)
    return None


def _subject(node: Node) -> tuple[str, bool] | None:
    """Return the metric, and whether its change is meant."""
    if isinstance(node, Column):
        return node.name, False
    if isinstance(node, Arithmetic) and node.signs == ("-",):
        metric, other = node.operands
        if isinstance(metric, Column) and isinstance(other, Column):
            return (metric.name, True) if other.name == configs.BASELINE else None
    return None


def usual_metrics(
    config: EvalConfig, examples: Examples, splits: Sequence[str], model: Model | None
) -> tuple[str, ...]:
    """Return class names of the metrics that fit labels and predictions.

    For who names none. Whether there are two classes is seen from all labels, or, if
    the model computes them, from the first rows.

    Args:
        config: Names the columns.
        examples: The rows.
        splits: Those that are evaluated.
        model: The candidate; None if predictions are columns.

    Raises:
        PipelineError: If no label is named, or several are.
        DataError: If no metric fits both.
    """
    from penstock.components.columns.examples import read_batches, schema_of
    from penstock.components.columns.inputs import Inputs
    from penstock.components.evaluation import models

    spec = config.model_specs[0]
    if not spec.label_key:
        raise PipelineError(
            "Neither a label nor metrics are named, so nothing says what to measure. "
            "Name the column of the label."
        )
    schema = schema_of(examples)
    subject = f"Examples '{examples.source or examples.uri}'"
    of_model = f"Model '{model.source or model.uri}'" if model else subject
    source = models.find(of_model, model, spec, schema, outputs=("",))
    configs.check_columns(config, {*schema.names, *source.gives}, subject)
    is_computed = spec.label_key in source.gives
    wanted = source.columns | (set() if is_computed else {spec.label_key})
    columns = [name for name in schema.names if name in wanted]
    batch = next(
        read_batches(examples, splits[0], columns=columns, batch_size=_LOOKED_AT), None
    )
    if batch is None:
        return (_COUNT,)  # of no rows, which the Evaluator refuses
    rows, predictor = Inputs(batch, splits[0]), models.load(source)
    predictions = predictor.predict(rows)[""]
    labels: Any = (
        predictor.transform(rows)[spec.label_key]
        if is_computed
        else _values(batch, spec.label_key)
    )
    if predictions.dtype.kind not in "iuf" or labels.dtype.kind not in "biuf":
        if predictions.dtype.kind in "OSU" and labels.dtype.kind in "OSU":
            return _TEXTS
        raise DataError(
            f"Label '{spec.label_key}' of {subject} has the type {labels.dtype}, and "
            f"predictions have {predictions.dtype}: no metric fits both. Turn them "
            "into numbers, or name the metrics."
        )
    if predictions.size > len(predictions):
        return _ONE_HOT if labels.size == predictions.size else _CLASSES
    if is_computed:
        return _BINARY if _are_classes(labels) else _NUMBERS
    are_classes = all(
        _are_classes(_values(each, spec.label_key))
        for split in splits
        for each in read_batches(examples, split, columns=[spec.label_key])
    )
    return _BINARY if are_classes else _NUMBERS


def _values(batch: Any, name: str) -> Any:
    """Return the values that a column has, without lists and missing ones."""
    from penstock.components.columns.forms import is_list, list_parts

    values = batch.column(batch.schema.names.index(name))
    if is_list(values.type):
        values = list_parts(values)[1]
    return values.drop_null().to_numpy(zero_copy_only=False)


def _are_classes(labels: Any) -> bool:
    return bool(((labels == 0) | (labels == 1)).all())
