import functools
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components.monitoring import names
from penstock.components.monitoring.names import Unseen, bounded, size, together

counts = st.dictionaries(st.text(max_size=30), st.integers(1, 50), max_size=60)


@settings(max_examples=60)
@given(st.lists(counts, max_size=5), st.integers(1, 12), st.integers(10, 200))
def test_a_count_is_within_its_error_and_the_total_is_right(
    days: list[dict[str, int]], most: int, most_bytes: int
) -> None:
    before = names.MOST_NAMES, names.MOST_BYTES
    names.MOST_NAMES, names.MOST_BYTES = most, most_bytes
    try:
        found = functools.reduce(
            lambda total, day: bounded(together(total, Unseen(day))), days, Unseen()
        )
    finally:
        names.MOST_NAMES, names.MOST_BYTES = before
    true: Counter[str] = Counter()
    for day in days:
        true.update(day)
    assert len(found.counts) <= most
    assert size(found.counts) <= most_bytes
    assert sum(found.counts.values()) + found.other == true.total()
    for name, count in true.items():
        assert 0 <= count - found.counts.get(name, 0) <= found.error
    if len(true) <= most and size(true) <= most_bytes:
        assert found == Unseen(found.counts)
        assert found.counts == true


@given(st.lists(st.text(max_size=6), unique=True, max_size=20))
def test_another_name_always_takes_more(ordered: list[str]) -> None:
    sizes = [size(ordered[:many]) for many in range(len(ordered) + 1)]
    assert sizes == sorted(sizes)


def test_the_limits_keep_names_that_share_their_beginning() -> None:
    alike = [f"payment type {each:04}" for each in range(1_000)]
    assert len(bounded(Unseen(dict.fromkeys(alike, 1))).counts) == 1_000
    apart = [f"{each:032x}" for each in range(0, 2**128, 2**118)]
    kept = bounded(Unseen({name: place + 1 for place, name in enumerate(apart)}))
    assert 100 < len(kept.counts) < 1_000
    assert set(kept.counts) == set(apart[-len(kept.counts) :])
