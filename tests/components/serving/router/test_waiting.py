from __future__ import annotations

import queue

import pytest

from penstock.components.serving.router.waiting import Waiting


def test_what_does_not_fit_is_dropped_and_counted() -> None:
    waiting: Waiting[int] = Waiting(3, 100)
    assert [waiting.add(i, 1) for i in range(5)] == [True] * 3 + [False] * 2
    assert waiting.dropped == 2
    assert [waiting.take() for _ in range(3)] == [0, 1, 2]
    assert waiting.add(9, 1)


def test_large_items_fill_it_sooner_and_one_always_fits() -> None:
    waiting: Waiting[str] = Waiting(10, 100)
    assert waiting.add("large", 1000)
    assert not waiting.add("small", 1)
    assert waiting.take() == "large"
    assert waiting.add("half", 60)
    assert not waiting.add("half", 60)
    assert waiting.add("rest", 40)


def test_it_ends_after_what_waits_or_at_once() -> None:
    waiting: Waiting[int] = Waiting(10, 100)
    waiting.add(1, 1)
    waiting.end(2)
    assert [waiting.take(), waiting.take(), waiting.take()] == [1, None, None]
    with pytest.raises(queue.Empty):
        waiting.take(0)
    waiting.add(1, 100)
    waiting.clear()
    assert waiting.add(2, 100)
