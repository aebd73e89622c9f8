"""The rollout plan that `FILE.py:NAME` or a JSON file names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from penstock.commands.modules import load_module, users_code
from penstock.schemas.errors import ServingError, did_you_mean, quoted

if TYPE_CHECKING:
    from penstock.components.serving.rollout.plan import Rollout


def load_plan(target: str) -> Rollout:
    """Return the plan that a target names.

    Args:
        target: A module path or a file, a colon, and the name of a `Rollout` or of a
            function without arguments that returns one; or a file of JSON.

    Raises:
        PipelineError: There is no such module, or it cannot be imported.
        ServingError: There is no such plan, or it contradicts itself.
    """
    from penstock.components.serving.rollout.plan import Rollout

    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        return _from_json(target)
    module = load_module(place, "plan")
    made = getattr(module, name, None)
    if made is None:
        legal = [
            each
            for each, value in vars(module).items()
            if isinstance(value, Rollout)
            or (callable(value) and getattr(value, "__module__", "") == module.__name__)
        ]
        raise ServingError(
            f"Module '{module.__name__}' has no '{name}' (it has {quoted(legal)})."
            f"{did_you_mean(name, legal)}"
        )
    if not isinstance(made, Rollout) and callable(made):
        with users_code(f"'{target}' makes no plan"):
            made = made()
    if not isinstance(made, Rollout):
        raise ServingError(
            f"'{target}' is a {type(made).__name__}, no Rollout. Name a Rollout or a "
            "function that returns one."
        )
    return made


def _from_json(target: str) -> Rollout:
    from penstock.components.serving.rollout.plan import Rollout

    try:
        text = Path(target).read_bytes()
    except FileNotFoundError as error:
        raise ServingError(
            f"There is no plan '{target}'. Write FILE.py:NAME, as in rollouts.py:plan, "
            "or name a file of JSON."
        ) from error
    except OSError as error:
        raise ServingError(
            f"The plan '{target}' cannot be read: {error.strerror}. Mend that, or name "
            "another file."
        ) from error
    if target.endswith(".py"):
        raise ServingError(
            f"'{target}' is a module, and does not say which plan of it is meant. "
            f"Write {target}:NAME."
        )
    return Rollout.from_json(text)
