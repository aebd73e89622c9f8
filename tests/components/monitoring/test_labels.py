"""Labels joined by id: late, twice, contradicting, and through kills."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.components.monitoring import labels as module
from penstock.components.monitoring.labels import FILE, LabelJoin
from penstock.components.monitoring.logs import LogFormat, LogTable, of_table
from penstock.components.monitoring.windows import Window
from penstock.schemas.errors import DataError

DAY = Window.day("2026-11-30")
HOUR = 3_600.0


def log_of(ids: list[str], times: Any) -> LogTable:
    table = pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "at": pa.array(np.asarray(times, np.float64)),
            "x": pa.array(range(len(ids)), pa.int64()),
        }
    )
    return of_table(table, format=LogFormat(id="id", time="at"), subject="The log")


def some(count: int, start: float = DAY.start, seconds: float = 60) -> LogTable:
    return log_of(
        [f"r{start:.0f}-{i}" for i in range(count)],
        start + np.arange(count) * seconds,
    )


def test_labels_are_joined_as_they_come(tmp_path: Path) -> None:
    with LabelJoin(tmp_path) as join:
        added = join.add_predictions(log_of(["a", "b", "c"], [DAY.start] * 3))
        assert (added.new, added.known, added.joined) == (3, 0, 0)
        came = join.add_labels(["a"], [1], [DAY.start + 5])
        assert (came.joined, came.unknown, came.sentences) == (1, 0, ())
    with LabelJoin(tmp_path) as join:
        join.add_labels(["c"], [0], [DAY.start + 9])
        found = join.window(DAY, now=DAY.end)
        assert (found.rows, found.joined, found.waiting) == (3, 2, 1)
        assert found.document() == {
            "joined": 2,
            "waiting": 1,
            "late": 0,
            "share": pytest.approx(2 / 3),
        }


def test_what_is_added_twice_counts_once(tmp_path: Path) -> None:
    log = some(100)
    ids = log.ids.to_pylist()[:40]
    with LabelJoin(tmp_path) as join:
        for turn in range(3):
            added = join.add_predictions(log)
            assert (added.new, added.known) == ((100, 0) if not turn else (0, 100))
            came = join.add_labels(ids, [1] * 40, [DAY.end] * 40)
            assert (came.joined, came.known) == ((40, 0) if not turn else (0, 40))
            assert came.late == 0
        assert join.window(DAY, now=DAY.end).joined == 40


def test_labels_of_unknown_ids_wait_for_their_prediction(tmp_path: Path) -> None:
    with LabelJoin(tmp_path) as join:
        came = join.add_labels(["a", "z"], ["yes", "no"], [DAY.start + 60] * 2)
        assert (came.joined, came.unknown, join.strays) == (0, 2, 2)
        assert came.sentences == (
            "2 labels are of ids that no prediction has. They are kept and joined when "
            "it comes; if none does, check that both sides log the same id.",
        )
        again = join.add_labels(["a"], ["yes"], [DAY.start + 60])
        assert (again.known, again.unknown, again.sentences) == (1, 0, ())
        added = join.add_predictions(log_of(["a", "b"], [DAY.start] * 2))
        assert (added.new, added.joined, join.strays) == (2, 1, 1)
        assert join.window(DAY, now=DAY.end).joined == 1


def test_contradicting_labels_are_refused_and_nothing_is_added(tmp_path: Path) -> None:
    with LabelJoin(tmp_path) as join:
        join.add_predictions(some(3))
        ids = some(3).ids.to_pylist()
        join.add_labels(ids[:1], [1], [DAY.end])
        with pytest.raises(DataError) as error:
            join.add_labels(ids, [0, 1, 1], [DAY.end] * 3)
        assert str(error.value) == (
            f"Id '{ids[0]}' has the label '1' and the label '0', and 1 labels in all "
            "contradict others. Correct the source of labels, or open the LabelJoin "
            "with on_conflict='first' or 'last'. Nothing was added."
        )
        with pytest.raises(DataError, match="has the label '1' and the label '0'"):
            join.add_labels([ids[1], ids[1]], [1, 0], [DAY.end, DAY.end + 1])
        assert join.window(DAY, now=DAY.end).joined == 1
        assert join.conflicts == 0


@pytest.mark.parametrize("choice", ["first", "last"])
def test_of_contradicting_labels_the_first_or_the_last_is_taken(
    tmp_path: Path, choice: Any
) -> None:
    with LabelJoin(tmp_path, on_conflict=choice) as join:
        log = log_of(["a", "b"], [DAY.start] * 2)
        join.add_predictions(log)
        join.add_labels(["a", "s"], [1, 1], [DAY.end] * 2)
        came = join.add_labels(
            ["a", "b", "b", "s"],
            [0, 5, 6, 0],
            [DAY.end + 1, DAY.end, DAY.end + 1, DAY.end],
        )
        assert (came.joined, came.conflicting, came.unknown) == (1, 3, 0)
        assert came.sentences == (
            "3 labels contradict others of the same id, the first of them of 'a'; the "
            f"{choice} was taken. Correct the source of labels.",
        )
        assert join.conflicts == 3
        join.add_predictions(log_of(["s"], [DAY.start]))
        whole = join.labeled(log_of(["a", "b", "s"], [DAY.start] * 3))
        expected = [1, 5, 1] if choice == "first" else [0, 6, 0]
        assert whole.table.column("label").to_pylist() == expected


def test_labels_after_the_evaluation_are_late(tmp_path: Path) -> None:
    log = some(10)
    ids = log.ids.to_pylist()
    with LabelJoin(tmp_path) as join:
        join.add_predictions(log)
        join.add_labels(ids[:5], [1] * 5, [DAY.end] * 5)
        join.mark_evaluated(DAY, now=DAY.end)
        came = join.add_labels(ids[:8], [1] * 8, [DAY.end] * 8)
        assert (came.joined, came.late, came.known) == (3, 3, 5)
        assert came.sentences == (
            "3 labels are of windows that were evaluated before. Evaluate these again "
            "if they are many.",
        )
        found = join.window(DAY, now=DAY.end)
        assert (found.joined, found.late) == (8, 3)
        assert found.sentence.endswith(" 3 came after it was evaluated.")


def test_a_label_before_its_prediction_has_no_delay(tmp_path: Path) -> None:
    with LabelJoin(tmp_path) as join:
        join.add_predictions(log_of(["a"], [DAY.start + 100]))
        came = join.add_labels(["a"], [1], [DAY.start])
        assert came.sentences == (
            "1 labels are dated before their prediction; their delay counts as 0. "
            "Check the clocks of both.",
        )
        assert join.delays(now=DAY.end).delays.tolist() == [0.0]


def test_an_id_with_another_time_is_said(tmp_path: Path) -> None:
    with LabelJoin(tmp_path) as join:
        join.add_predictions(log_of(["a", "b"], [DAY.start] * 2))
        added = join.add_predictions(log_of(["a", "c"], [DAY.start + 5] * 2))
        assert (added.new, added.known, added.moved) == (1, 0, 1)
        assert added.sentences == (
            "1 rows of the log have ids that are known with another time; the first "
            "stays. Give every request an id of its own.",
        )


# --- complete or not


def served(join: LabelJoin, days: int, draw: np.random.Generator) -> list[Window]:
    """Ten days of traffic, of which 70 % get a label after some hours."""
    windows = list(Window(DAY.start - days * 86_400, DAY.start).split())
    for window in windows:
        log = some(400, window.start, 200)
        join.add_predictions(log)
        come = draw.random(400) < 0.7
        delay = draw.exponential(6 * HOUR, 400)
        times = log.times + delay
        known = come & (times <= DAY.start)
        ids = np.array(log.ids.to_pylist(), object)[known].tolist()
        join.add_labels(ids, [1] * len(ids), times[known])
    return windows


def test_windows_are_complete_when_the_labels_that_ever_come_have_come(
    tmp_path: Path,
) -> None:
    with LabelJoin(tmp_path) as join:
        windows = served(join, 10, np.random.default_rng(1))
        curve = join.delays(now=DAY.start)
        assert curve.ever == pytest.approx(0.7, abs=0.03)
        assert curve.quantile(0.5) == pytest.approx(6 * HOUR * np.log(2), rel=0.1)
        found = [join.window(window, now=DAY.start) for window in windows]
        assert [each.complete for each in found] == [True] * 9 + [False]
        last = found[-1]
        ages = DAY.start - some(400, windows[-1].start, 200).times
        truth = np.mean(1 - np.exp(-ages / (6 * HOUR)))
        assert last.expected == pytest.approx(truth, abs=0.02)
        assert last.sentence == (
            f"Window 2026-11-29 has the labels of {last.joined} of 400 rows "
            f"({last.share:.1%}); {last.expected:.1%} of the labels that ever come are "
            "due, and 95% make it complete."
        )
        assert found[0].sentence.endswith(
            "that ever come are due, so that it is complete."
        )
        assert join.window(windows[-1], now=DAY.start, enough=0.5).complete


def test_labels_that_stop_coming_are_noticed(tmp_path: Path) -> None:
    with LabelJoin(tmp_path) as join:
        served(join, 12, np.random.default_rng(2))
        join.add_predictions(some(400, DAY.start, 200))
        found = join.window(DAY, now=DAY.end + 86_400)
        assert not found.complete and found.joined == 0
        assert found.sentence.endswith(
            "labels have fallen behind. Look at where they come from."
        )


def test_nothing_is_known_of_labels_that_never_came(tmp_path: Path) -> None:
    with LabelJoin(tmp_path) as join:
        assert join.window(DAY, now=DAY.end).sentence == (
            "Window 2026-11-30 has no rows that wait for labels."
        )
        log = some(100)
        join.add_predictions(log)
        found = join.window(DAY, now=DAY.end)
        assert found.expected is None and not found.complete
        assert found.sentence == (
            "Window 2026-11-30 has the labels of 0 of 100 rows (0.0%). 0 labels have "
            "come so far, and 30 are the least that say how late they are: it does not "
            "count as complete."
        )
        assert join.bias(now=DAY.end) is None
        join.add_labels(log.ids.to_pylist()[:50], [1] * 50, log.times[:50] + 85_000)
        found = join.window(DAY, now=DAY.end)
        assert found.sentence.endswith(
            "99 % of labels came within 23.6 hours, and rows were watched for 24 hours "
            "only, so that more may come: it does not count as complete."
        )


def test_windows_are_complete_where_every_row_gets_its_label(tmp_path: Path) -> None:
    with LabelJoin(tmp_path) as join:
        log = some(400, DAY.start, 200)
        join.add_predictions(log)
        delays = np.random.default_rng(9).uniform(0, HOUR, 400)
        join.add_labels(log.ids, [1] * 400, log.times + delays)
        found = join.window(DAY, now=DAY.end)
        assert found.complete and found.expected == pytest.approx(1.0)


def test_labels_that_come_early_for_one_class_are_told(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    with LabelJoin(tmp_path) as join:
        log = some(3_000, DAY.start - 20 * 86_400, 400)
        labels = (draw.random(3_000) < 0.4).astype(int)
        delays = draw.exponential(np.where(labels == 1, 8 * HOUR, 2 * HOUR))
        join.add_predictions(log)
        join.add_labels(log.ids, labels.tolist(), log.times + delays)
        found = join.bias(now=DAY.start)
        assert found is not None and found.label == 1 and found.early < found.late
        assert found.sentence.startswith("'1' is ")


def test_of_many_rows_a_sample_tells_the_delay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_WATCHED", 1_000)
    with LabelJoin(tmp_path) as join:
        log = some(10_000, DAY.start, 8)
        join.add_predictions(log)
        join.add_labels(log.ids, [1] * 10_000, log.times + 5)
        curve = join.delays(now=DAY.end)
        assert 800 < curve.rows < 1_250
        assert curve.quantile(0.5) == 5


# --- columns


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([1, 0], pa.array([1, 0, None])),
        ([True, False], pa.array([1, 0, None])),
        ([1.5, 2], pa.array([1.5, 2.0, None])),
        (["yes", "no"], pa.array(["yes", "no", None])),
        (["yes", 1], pa.array(["yes", "1", None])),
        ([b"x", b"y"], pa.array([b"x", b"y", None])),
        (np.array([1, 0]), pa.array([1, 0, None])),
        (pa.array([1, 0]), pa.array([1, 0, None])),
        ([2**62, -5], pa.array([2**62, -5, None])),
    ],
)
def test_a_log_gets_its_labels_as_a_column(
    tmp_path: Path, labels: Any, expected: pa.Array
) -> None:
    log = log_of(["a", "b", "c"], [DAY.start] * 3)
    with LabelJoin(tmp_path) as join:
        join.add_predictions(log)
        join.add_labels(["a", "b"], labels, [DAY.end] * 2)
        found = join.labeled(log, "tipped")
        assert found.label == "tipped"
        assert found.table.column("tipped").combine_chunks().equals(expected)
        with pytest.raises(DataError) as error:
            join.labeled(found, "tipped")
        assert str(error.value) == (
            "The log has a column 'tipped' already, so that labels need another name. "
            "Pass name=..."
        )
        nothing = join.labeled(log.only(np.zeros(3, np.bool_)))
        assert nothing.table.column("label").to_pylist() == []


@pytest.mark.parametrize(
    ("ids", "labels", "times", "sentence"),
    [
        (
            ["a", "b"],
            [1, None],
            None,
            "1 of 2 labels are missing, the first of them that of id 'b'. Add labels "
            "when they have come.",
        ),
        (
            ["a"],
            [float("nan")],
            None,
            "1 of 1 labels are missing, the first of them that of id 'a'. Add labels "
            "when they have come.",
        ),
        (
            pa.array(["a", None]),
            [1, 1],
            None,
            "1 of 2 labels have no id, and nothing says whose they are. Leave them "
            "out.",
        ),
        (
            ["a", "b"],
            [1],
            None,
            "There are 2 ids, 1 labels and 2 times. Pass one of each for every label.",
        ),
        (
            ["a", "b", "c"],
            [1, 1, 1],
            [float("nan"), None, 5.0],
            "2 of 3 labels have no time, so that nobody knows how long they took. Pass "
            "the time at which each became known, or none at all, for now.",
        ),
        (
            pa.array([1.0, 2.5]),
            [1, 1],
            None,
            "The column of the ids of labels holds 2.5, which is no whole number. "
            "Write it as text or whole numbers.",
        ),
        (
            pa.chunked_array([pa.array([1.0]), pa.array([float(2**53), None])]),
            [1, 1, 1],
            None,
            "The column of the ids of labels holds 9007199254740992 as double, and "
            "from 2^53 on such numbers stand for several whole ones each. Write it as "
            "text or whole numbers.",
        ),
        (
            pa.array([16777218.0], pa.float32()),
            [1],
            None,
            "The column of the ids of labels holds 16777218 as float, and from 2^24 on "
            "such numbers stand for several whole ones each. Write it as text or whole "
            "numbers.",
        ),
        (
            ["a"],
            [2**63],
            None,
            "A label is 9223372036854775808, which takes more than 64 bits. Pass it as "
            "text, or as a float.",
        ),
        (
            ["a"],
            [[1]],
            None,
            "A label is [1], of type list, where labels are numbers, texts or "
            "booleans. Pass one value for each id.",
        ),
    ],
)
def test_labels_that_are_none(
    tmp_path: Path, ids: Any, labels: Any, times: Any, sentence: str
) -> None:
    with LabelJoin(tmp_path) as join:
        with pytest.raises(DataError) as error:
            join.add_labels(ids, labels, times)
        assert str(error.value) == sentence


def test_ids_that_are_floats_are_the_whole_numbers_of_the_log(tmp_path: Path) -> None:
    ids = pa.array([20261130123456.0, 7.0])  # as Pandas makes them where some miss
    log = of_table(
        pa.table({"trip": ids, "at": [DAY.start] * 2, "x": [1, 2]}),
        format=LogFormat(id="trip", time="at"),
    )
    with LabelJoin(tmp_path) as join:
        join.add_predictions(log)
        assert join.add_labels(ids, [1, 0]).joined == 2


def test_a_log_without_ids_joins_nothing(tmp_path: Path) -> None:
    nameless = of_table(pa.table({"x": [1]}))
    with LabelJoin(tmp_path) as join, pytest.raises(DataError, match="has no ids, and"):
        join.add_predictions(nameless)


# --- against a dictionary


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("predict"), st.lists(st.integers(0, 12), max_size=6)),
        st.tuples(
            st.just("label"),
            st.lists(
                st.tuples(st.integers(0, 12), st.integers(0, 1), st.integers(0, 9)),
                max_size=6,
            ),
        ),
        st.tuples(st.just("reopen"), st.just([])),
    ),
    max_size=12,
)


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(STEPS)
def test_any_order_of_additions_gives_what_a_dictionary_would(
    tmp_path: Path, steps: list[tuple[str, Any]]
) -> None:
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    join = LabelJoin(folder, on_conflict="first")
    known: set[int] = set()
    labels: dict[int, int] = {}
    try:
        for kind, what in steps:
            if kind == "reopen":
                join.close()
                join = LabelJoin(folder, on_conflict="first")
            elif kind == "predict" and what:
                unique = list(dict.fromkeys(what))
                new = len(set(unique) - known)
                known |= set(unique)
                log = log_of([f"{i}" for i in unique], [DAY.start] * len(unique))
                assert join.add_predictions(log).new == new
            elif kind == "label":
                came = sorted(enumerate(what), key=lambda pair: (pair[1][2], pair[0]))
                for _, (i, label, _) in came:
                    labels.setdefault(i, label)
                join.add_labels(
                    [f"{i}" for i, _, _ in what],
                    [label for _, label, _ in what],
                    [DAY.end + at for _, _, at in what],
                )
        ids = sorted(known)
        assert join.window(DAY, now=DAY.end + 99).joined == len(known & labels.keys())
        assert join.strays == len(labels.keys() - known)
        if ids:
            log = log_of([f"{i}" for i in ids], [DAY.start] * len(ids))
            found = join.labeled(log).table.column("label").to_pylist()
            assert found == [labels.get(i) for i in ids]
    finally:
        join.close()


# --- files


def test_rows_can_be_forgotten(tmp_path: Path) -> None:
    with LabelJoin(tmp_path) as join:
        join.add_predictions(some(10))
        join.add_labels(["z"], [1], [DAY.start])
        join.mark_evaluated(DAY)
        assert join.forget(DAY.start + 300) == 6
        assert join.window(DAY, now=DAY.end).rows == 5
        assert join.forget(DAY.end) == 5


def test_folders_that_cannot_hold_labels(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        DataError, match=r"Labels cannot be kept in '.*file': .* Pass a"
    ):
        LabelJoin(tmp_path / "file")
    (tmp_path / FILE).write_bytes(b"no database, but long enough to be looked at" * 30)
    with pytest.raises(DataError) as error:
        LabelJoin(tmp_path)
    assert str(error.value) == (
        f"'{tmp_path / FILE}' does not hold labels: file is not a database. Pass "
        "another folder, or put its backup back."
    )
    other = tmp_path / "other"
    with LabelJoin(other):
        pass
    base = sqlite3.connect(other / FILE)
    base.execute("PRAGMA user_version=9")
    base.close()
    with pytest.raises(DataError) as error:
        LabelJoin(other)
    assert str(error.value) == (
        f"'{other / FILE}' holds labels in version 9 of their form, and this penstock "
        "writes version 1. Read it with the penstock that wrote it, or pass another "
        "folder."
    )


CODE = """
import sys
import numpy as np, pyarrow as pa
from penstock.components.monitoring.labels import LabelJoin
from penstock.components.monitoring.logs import LogFormat, of_table

join = LabelJoin(sys.argv[1])
for turn in range(1000):
    ids = [f"{turn}-{i}" for i in range(300)]
    table = pa.table({"id": ids, "at": np.full(300, 1e9 + turn), "x": range(300)})
    log = of_table(table, format=LogFormat(id="id", time="at"))
    join.add_predictions(log)
    join.add_labels(ids, [1] * 300, np.full(300, 1e9 + turn + 5))
    print(turn, flush=True)
"""


def test_what_a_killed_process_added_is_there_as_a_whole(tmp_path: Path) -> None:
    draw = random.Random(5)
    for kill in range(2):
        folder = tmp_path / f"{kill}"
        process = subprocess.Popen(
            [sys.executable, "-c", CODE, str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ},
        )
        with process:
            assert process.stdout is not None
            for _ in range(3):
                last = int(process.stdout.readline())
            time.sleep(draw.random() * 0.1)
            process.send_signal(signal.SIGKILL)
            last = max([last, *map(int, process.stdout.read().split())])
        window = Window(1e9, 1e9 + 10_000)
        with LabelJoin(folder) as join:
            found = join.window(window, now=2e9)
            # Turns whose end was told are there; the next may have been begun.
            assert found.rows // 300 in (last + 1, last + 2)
            assert found.rows % 300 == 0 and found.joined % 300 == 0
            assert found.joined in (found.rows, found.rows - 300)
            base = sqlite3.connect(folder / FILE)
            assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            base.close()
            # What the process would do again changes nothing but what was missing.
            turn = last + 1
            ids = [f"{turn}-{i}" for i in range(300)]
            join.add_predictions(log_of(ids, np.full(300, 1e9 + turn)))
            join.add_labels(ids, [1] * 300, np.full(300, 1e9 + turn + 5))
            again = join.window(window, now=2e9)
            assert again.rows == again.joined == (last + 2) * 300
