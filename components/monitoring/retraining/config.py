"""Which models are trained again, by which pipeline, and how often: a JSON file."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.components.monitoring.retraining.journal import Limits, Recipe
from penstock.components.monitoring.retraining.schedule import Schedule, parse_schedule
from penstock.schemas.errors import PipelineError, did_you_mean, quoted

MODEL_LABEL = "model_name"
"""The label of alerts that names the model; the exporter's metrics have it."""

_LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}

_FIELDS = (
    *("alerts", "cool_down", "params", "root", "runner", "runs_per_day", "schedule"),
    *("store", "target"),
)


@dataclass(frozen=True)
class ModelConfig:
    """How one model is trained again.

    Attributes:
        name: Name of the model, as alerts have it.
        recipe: What is run.
        limits: How often.
        schedules: Fixed times.
        alerts: Names of the alerts that count; empty for all that are sent here.
    """

    name: str
    recipe: Recipe
    limits: Limits = field(default_factory=Limits)
    schedules: tuple[Schedule, ...] = ()
    alerts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Config:
    """The models that are trained again.

    Attributes:
        models: How each one is, by its name.
        model_label: The label of alerts that names the model.
    """

    models: Mapping[str, ModelConfig]
    model_label: str = MODEL_LABEL

    def model(self, name: str) -> ModelConfig:
        """Return how a model is trained again.

        Raises:
            PipelineError: If there is no such model.
        """
        if name not in self.models:
            raise PipelineError(
                f"There is no model '{name}' to train again (there are "
                f"{quoted(self.models)}).{did_you_mean(name, self.models)} Add it to "
                "the models that 'penstock retrain' is given."
            )
        return self.models[name]


def read_config(path: Path | str) -> Config:
    """Return what a JSON file says.

    Paths in it are those of the folder that this process is in.

    Raises:
        PipelineError: If it cannot be read, or says something else.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        document = json.loads(text)
    except OSError as error:
        raise PipelineError(
            f"The models file '{path}' cannot be read: {error.strerror}. Check the "
            "path."
        ) from error
    except ValueError as error:
        raise PipelineError(
            f"The models file '{path}' is no JSON: {error}. Mend it."
        ) from error
    subject = f"The models file '{path}'"
    _check_object(document, subject, ("model_label", "models"))
    models = document.get("models")
    _check_object(models, f"'models' in {_lower(subject)}", None)
    label = document.get("model_label", MODEL_LABEL)
    if not isinstance(label, str) or not label:
        raise PipelineError(
            f"'model_label' in {_lower(subject)} is {label!r}, and has to be the name "
            "of a label."
        )
    if not models:
        raise PipelineError(
            f"{subject} names no model, so that nothing could ever start. Add one "
            "under 'models'."
        )
    return Config(
        {
            name: model_config(name, each, f"Model '{name}' in {_lower(subject)}")
            for name, each in models.items()
        },
        label,
    )


def model_config(
    name: str, given: Any, subject: str, *, root: str = "penstock-root"
) -> ModelConfig:
    """Return how a model is trained again, from JSON data.

    Args:
        name: Name of the model.
        given: An object with 'target', and what else is not as it is by default.
        subject: What sentences on it begin with.
        root: The root, unless it is given.

    Raises:
        PipelineError: If something of it cannot be.
    """
    if not name:
        raise PipelineError(f"{subject} has no name. Name it as its alerts do.")
    _check_object(given, subject, _FIELDS)
    target = _text(given, "target", subject, "")
    if ":" not in target:
        raise PipelineError(
            f"{subject} has the target '{target}', which names no pipeline. Write "
            "MODULE:PIPELINE, as in penstock.pipelines.taxi:taxi."
        )
    runner = _text(given, "runner", subject, "beam")
    if runner not in ("beam", "local"):
        raise PipelineError(
            f"{subject} has the runner '{runner}', which is none (there are 'beam', "
            f"'local').{did_you_mean(runner, ['beam', 'local'])}"
        )
    params = given.get("params", {})
    _check_object(params, f"'params' of {_lower(subject)}", None)
    recipe = Recipe(
        target=target,
        params={key: _param(key, each, subject) for key, each in params.items()},
        root=os.path.abspath(_text(given, "root", subject, root)),
        store=_text(given, "store", subject, ""),
        runner=runner,
        folder=os.getcwd(),
    )
    runs = given.get("runs_per_day", Limits.runs_per_day)
    if type(runs) is not int or runs < 1:
        raise PipelineError(
            f"{subject} has {runs!r} for 'runs_per_day', and has to have a whole "
            "number from 1. Leave the model out to start none."
        )
    limits = Limits(
        seconds_of(given["cool_down"], f"'cool_down' of {_lower(subject)}")
        if "cool_down" in given
        else Limits.cool_down_seconds,
        runs,
    )
    schedules = _texts(given, "schedule", subject)
    return ModelConfig(
        name,
        recipe,
        limits,
        tuple(parse_schedule(each) for each in dict.fromkeys(schedules)),
        _texts(given, "alerts", subject),
    )


def seconds_of(given: Any, subject: str) -> float:
    """Return a length of time, a number of seconds or a text such as '6h'.

    Args:
        given: The number or the text.
        subject: What sentences on it begin with.

    Raises:
        PipelineError: If it is neither.
    """
    found = _LENGTH.fullmatch(given.strip()) if isinstance(given, str) else None
    if found:
        return float(found[1]) * _SECONDS[found[2]]
    if type(given) in (int, float) and 0 <= given < math.inf:
        return float(given)
    raise PipelineError(
        f"{subject} is {given!r}, which is no length of time. Write '90s', '30m', "
        "'6h' or '7d'."
    )


def _param(key: str, value: Any, subject: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise PipelineError(
        f"Parameter '{key}' of {_lower(subject)} is {value!r}, and has to be a text, a "
        "number, true or false."
    )


def _texts(given: Mapping[str, Any], key: str, subject: str) -> tuple[str, ...]:
    found = given.get(key, [])
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise PipelineError(
            f"{subject} has {found!r} for '{key}', and has to have a text or a list of "
            "texts."
        )
    return tuple(found)


def _text(given: Mapping[str, Any], key: str, subject: str, default: str) -> str:
    found = given.get(key, default)
    if not isinstance(found, str):
        raise PipelineError(
            f"{subject} has {found!r} for '{key}', and has to have a text."
        )
    return found


def _check_object(given: Any, subject: str, known: tuple[str, ...] | None) -> None:
    if not isinstance(given, dict):
        raise PipelineError(
            f"{subject} is {type(given).__name__!s} data, and has to be a JSON object."
        )
    for key in given if known is not None else ():
        if key not in (known or ()):
            raise PipelineError(
                f"{subject} has '{key}', which means nothing there (there are "
                f"{quoted(known or ())}).{did_you_mean(key, known or ())}"
            )


def _lower(subject: str) -> str:
    return subject[0].lower() + subject[1:]
