"""A queue between the path of a request and a thread, bounded in items and in bytes."""

from __future__ import annotations

import queue
import threading
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Waiting(Generic[_T]):
    """Items that wait for a thread; those that do not fit are dropped and counted.

    Args:
        capacity: How many may wait.
        max_bytes: How large they may be together. One by itself may be larger.
    """

    def __init__(self, capacity: int, max_bytes: int) -> None:
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._queue: queue.SimpleQueue[tuple[_T, int] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._items = self._bytes = 0
        self.dropped = 0

    def add(self, item: _T, size: int) -> bool:
        """Add an item of so many bytes, or drop it; never waits for room."""
        with self._lock:
            if self._items and (
                self._items >= self._capacity or self._bytes + size > self._max_bytes
            ):
                self.dropped += 1
                return False
            self._items += 1
            self._bytes += size
        self._queue.put((item, size))
        return True

    def take(self, timeout: float | None = None) -> _T | None:
        """Return the next item; None for an end.

        Raises:
            queue.Empty: If there is none in time.
        """
        found = self._queue.get(timeout=timeout)
        if found is None:
            return None
        item, size = found
        with self._lock:
            self._items -= 1
            self._bytes -= size
        return item

    def end(self, takers: int = 1) -> None:
        """Let so many takers end after what waits."""
        for _ in range(takers):
            self._queue.put(None)

    def clear(self) -> None:
        """Forget what waits."""
        while True:
            try:
                self.take(0)
            except queue.Empty:
                return
