"""The pipeline that `MODULE:PIPELINE` names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from penstock.commands.modules import load_module, users_code
from penstock.schemas.errors import PipelineError, did_you_mean, quoted

if TYPE_CHECKING:
    from penstock.pipelines.pipeline import Pipeline


def parsed_pairs(pairs: list[str]) -> dict[str, str]:
    """Return the values of --param by their keys."""
    given: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        wrong = ""
        if not equals:
            wrong = f"'{pair}' has no '='. Write KEY=VALUE."
        elif not key:
            wrong = f"'{pair}' names no parameter. Write KEY=VALUE."
        elif key in given:
            wrong = f"'{key}' is given twice. Give it once."
        if wrong:
            raise typer.BadParameter(wrong, param_hint="--param")
        given[key] = value
    return given


def load_pipeline(
    target: str, given: dict[str, str]
) -> tuple[Pipeline, dict[str, Any]]:
    """Return the pipeline that `MODULE:PIPELINE` names, and what it was made with.

    Args:
        target: A module path or a file, a colon, and the name of a `Pipeline` or of a
            function that returns one.
        given: Arguments of the function, as text.

    Raises:
        PipelineError: If there is no such thing, or an argument does not fit.
    """
    from penstock.pipelines.pipeline import Pipeline

    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise PipelineError(
            f"'{target}' does not name a pipeline. Write MODULE:PIPELINE, as in "
            "penstock.pipelines.taxi:taxi or my_pipeline.py:taxi."
        )
    module = load_module(place, "pipeline")
    place = module.__name__
    made = getattr(module, name, None)
    if made is None:
        legal = [
            each
            for each, value in vars(module).items()
            if isinstance(value, Pipeline)
            or (callable(value) and getattr(value, "__module__", "") == place)
        ]
        raise PipelineError(
            f"Module '{place}' has no '{name}' (it has {quoted(legal)})."
            f"{did_you_mean(name, legal)}"
        )
    arguments: dict[str, Any] = {}
    if not isinstance(made, Pipeline) and callable(made):
        arguments = _arguments(made, name, given)
        with users_code(f"'{target}' makes no pipeline"):
            made = made(**arguments)
    elif given:
        raise PipelineError(
            f"'{target}' is a Pipeline, which takes no --param. Name a function that "
            "returns one."
        )
    if not isinstance(made, Pipeline):
        raise PipelineError(
            f"'{target}' is a {type(made).__name__}, no Pipeline. Name a Pipeline or a "
            "function that returns one."
        )
    return made, arguments


def _arguments(function: Any, name: str, given: dict[str, str]) -> dict[str, Any]:
    """Return the arguments of a function, converted from text as it annotates them."""
    import inspect
    import typing

    signature = inspect.signature(function).parameters
    hints = typing.get_type_hints(function)
    for key in given:
        if key not in signature:
            raise PipelineError(
                f"'{name}' has no parameter '{key}' (it has {quoted(signature)})."
                f"{did_you_mean(key, signature)}"
            )
    missing = [
        key
        for key, each in signature.items()
        if each.default is each.empty
        and key not in given
        and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    if missing:
        raise PipelineError(
            f"'{name}' needs {quoted(missing)}. Pass "
            + " ".join(f"--param {key}=..." for key in missing)
            + "."
        )
    return {key: _converted(key, text, hints.get(key)) for key, text in given.items()}


_TRUE = ("true", "1", "yes", "on")


_FALSE = ("false", "0", "no", "off")


def _converted(key: str, text: str, kind: Any) -> Any:
    import typing

    kinds = typing.get_args(kind) or (kind,)
    if type(None) in kinds and text.lower() in ("", "none"):
        return None
    if typing.get_origin(kind) is typing.Literal:
        if text not in kinds:
            raise PipelineError(
                f"Parameter '{key}' is '{text}', which is not one of {quoted(kinds)}."
                f"{did_you_mean(text, kinds)}"
            )
        return text
    for each in kinds:
        try:
            if each is bool:
                if text.lower() in _TRUE + _FALSE:
                    return text.lower() in _TRUE
            elif each in (int, float, Path):
                return each(text)
        except ValueError:
            continue
    if str in kinds or kind is None:
        return text
    names = " or ".join(getattr(each, "__name__", str(each)) for each in kinds)
    raise PipelineError(
        f"Parameter '{key}' is '{text}', which is no {names}. Pass one that is."
    )
