"""What became of every version: the states that a server reports."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from penstock.components.serving.descriptors import State
from penstock.components.serving.model_server.status import ServableError

__all__ = ["Reached", "State", "StateMonitor", "VersionState"]


@dataclass(frozen=True)
class VersionState:
    """State of one version of a model.

    Attributes:
        state: START, LOADING, AVAILABLE, UNLOADING or END.
        error: Why it ended, if that was an error.
    """

    state: State
    error: ServableError | None = None


Reached = Mapping[tuple[str, int], VersionState]
"""For every awaited model the version that decided, and its state."""


class StateMonitor:
    """Keeps the last state of every version it was told of, also after its end."""

    def __init__(self) -> None:
        self._states: dict[str, dict[int, VersionState]] = {}
        self._changed = threading.Condition()

    def tell(self, name: str, version: int, state: VersionState) -> None:
        """Take note of a new state."""
        with self._changed:
            self._states.setdefault(name, {})[version] = state
            self._changed.notify_all()

    def versions(self, name: str) -> dict[int, VersionState]:
        """Return the states of all versions of a model, the highest version first."""
        with self._changed:
            return dict(sorted(self._states.get(name, {}).items(), reverse=True))

    def wake(self) -> None:
        """Let everybody who waits look at `gave_up` again."""
        with self._changed:
            self._changed.notify_all()

    def wait(
        self,
        names: Iterable[str],
        timeout: float | None = None,
        gave_up: Callable[[], bool] = lambda: False,
    ) -> Reached | None:
        """Wait until every one of these models is available, or will not be.

        What decides is the highest version that is AVAILABLE or at its END, as in
        TensorFlow Serving: an older version that serves does not count where a newer
        one has failed.

        Args:
            names: The models.
            timeout: Seconds to wait; None waits for ever.
            gave_up: Ends the wait when it becomes true and `wake` is called.

        Returns:
            What was reached; None if the time was up, or it was given up.
        """
        names = list(names)
        reached: dict[tuple[str, int], VersionState] = {}

        def decided() -> bool:
            reached.clear()
            for name in names:
                ended = [
                    (version, state)
                    for version, state in self._states.get(name, {}).items()
                    if state.state in (State.AVAILABLE, State.END)
                ]
                if not ended:
                    return False
                version, state = max(ended, key=lambda entry: entry[0])
                reached[name, version] = state
            return True

        with self._changed:
            self._changed.wait_for(lambda: gave_up() or decided(), timeout)
            return dict(reached) if decided() else None
