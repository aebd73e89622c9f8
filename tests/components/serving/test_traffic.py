from __future__ import annotations

import sqlite3
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components.serving import traffic as module
from penstock.components.serving.traffic import (
    Arm,
    ArmValues,
    Mark,
    Report,
    Seen,
    Tally,
    Traffic,
)
from penstock.schemas.errors import ServingError


@pytest.fixture
def traffic(tmp_path: Path) -> Traffic:
    (tmp_path / ".penstock").mkdir()
    return Traffic(tmp_path)


def test_a_unit_counts_once_where_it_was_first_seen(traffic: Traffic) -> None:
    traffic.report(Report("a", 1, "r", seen=[Seen("failing", 7, 0, "candidate")]))
    traffic.report(Report("b", 1, "r", seen=[Seen("failing", 7, 1, "candidate")]))
    traffic.report(Report("b", 1, "r", seen=[Seen("seen", 7, 1, "candidate")]))
    traffic.report(Report("b", 1, "other", seen=[Seen("failing", 7, 2, "stable")]))
    found = traffic.steps("r")
    assert found[0].counts == {("failing", "candidate"): 1}
    assert found[1].counts == {("seen", "candidate"): 1}
    assert traffic.steps("nothing") == {}


marks = st.sampled_from(["seen", "failing", "slow"])
arms = st.sampled_from(["stable", "candidate"])
seen_units = st.builds(Seen, marks, st.integers(-3, 3), st.integers(0, 2), arms)


@settings(max_examples=50)
@given(st.lists(st.lists(seen_units, max_size=8), max_size=6))
def test_counts_are_those_of_distinct_units(
    tmp_path_factory: pytest.TempPathFactory, reports: list[list[Seen]]
) -> None:
    folder = tmp_path_factory.mktemp("serving")
    (folder / ".penstock").mkdir()
    expected: dict[tuple[int, Mark, Arm], int] = defaultdict(int)
    known = set()
    with Traffic(folder) as traffic:
        for seen in reports:
            traffic.report(Report("a", 1, "r", seen=seen))
            # Reports group by step and mark, in the order of their first unit.
            groups: dict[tuple[int, Mark], list[Seen]] = {}
            for each in seen:
                groups.setdefault((each.step, each.mark), []).append(each)
            for group in groups.values():
                for each in group:
                    if (each.mark, each.unit) not in known:
                        known.add((each.mark, each.unit))
                        expected[(each.step, each.mark, each.arm)] += 1
        found = {
            (step, mark, arm): n
            for step, one in traffic.steps("r").items()
            for (mark, arm), n in one.counts.items()
        }
    assert found == dict(expected)


def test_values_are_summed_by_unit_and_counted_in_its_step_and_arm(
    traffic: Traffic,
) -> None:
    seen = [Seen("seen", 1, 0, "stable"), Seen("seen", 2, 0, "candidate")]
    seen += [Seen("seen", 3, 1, "candidate")]
    values = [("clicks", 1, 2.0), ("clicks", 1, 1.0), ("clicks", 2, 4.0)]
    values += [("clicks", 3, 0.0), ("clicks", 99, 5.0)]  # 99 was never seen
    traffic.report(Report("a", 1, "r", seen=seen, values=values))
    found = traffic.steps("r")
    assert found[0].values == {
        ("clicks", "stable"): ArmValues(1, 3.0, 9.0),
        ("clicks", "candidate"): ArmValues(1, 4.0, 16.0),
    }
    assert found[1].values == {("clicks", "candidate"): ArmValues(0, 0.0, 0.0)}


def test_tallies_of_routers_add_up_and_replace_their_own(traffic: Traffic) -> None:
    key: tuple[int, Arm] = (0, "stable")
    traffic.report(Report("a", 1, "r", tallies={key: Tally(1, 1, 0, 0, 1, {5: 1})}))
    traffic.report(
        Report("a", 1, "r", tallies={key: Tally(9, 2, 1, 1, 5, {5: 4, 6: 3})})
    )
    traffic.report(Report("b", 1, "r", tallies={key: Tally(1, 0, 0, 0, 1, {6: 1})}))
    assert traffic.steps("r")[0].tallies == {
        "stable": Tally(10, 2, 1, 1, 5, {5: 4, 6: 4})
    }


def test_no_more_units_are_kept_than_say_something(
    traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UNITS", 3)
    units = [Seen("seen", each, 0, "stable") for each in range(5)]
    assert traffic.report(Report("a", 1, "r", seen=units)) == {(0, "seen")}
    assert traffic.steps("r")[0].counts == {("seen", "stable"): 3}
    assert traffic.report(Report("a", 1, "r", seen=[Seen("seen", 9, 1, "stable")])) == (
        frozenset()
    )


def test_what_was_heard_of_routers(traffic: Traffic) -> None:
    traffic.report(Report("a", 5))
    traffic.report(Report("b", 6, alarm="five failures in a row"))
    heard = traffic.routers()
    assert [(each.router, each.acknowledged, each.alarm) for each in heard] == [
        ("a", 5, ""),
        ("b", 6, "five failures in a row"),
    ]
    assert all(0 <= each.seconds_ago < 60 for each in heard)
    traffic.leave("a")
    assert [each.router for each in traffic.routers()] == ["b"]


def test_old_rollouts_are_forgotten(traffic: Traffic) -> None:
    for rollout in ("old", "new"):
        traffic.report(
            Report(
                "a",
                1,
                rollout,
                seen=[Seen("seen", 1, 0, "stable")],
                values=[("clicks", 1, 1.0)],
                tallies={(0, "stable"): Tally(1)},
            )
        )
    kept = traffic.steps("new")
    traffic.forget(["new"])
    assert traffic.steps("old") == {} and traffic.steps("new") == kept


def test_a_report_that_cannot_be_written_is_told(
    traffic: Traffic, tmp_path: Path
) -> None:
    sql = sqlite3.connect(tmp_path / ".penstock" / "traffic.sqlite")
    sql.execute("DROP TABLE counts")
    sql.commit()
    sql.close()
    with pytest.raises(ServingError, match=r"What routers saw cannot be kept in"):
        traffic.report(Report("a", 1, "r", seen=[Seen("seen", 1, 0, "stable")]))
    assert traffic.routers() == ()


def test_a_file_that_is_removed_is_made_anew_for_all_who_have_it_open(
    traffic: Traffic, tmp_path: Path
) -> None:
    other = Traffic(tmp_path)
    traffic.report(Report("a", 1, "r", seen=[Seen("seen", 1, 0, "stable")]))
    assert [each.router for each in other.routers()] == ["a"]
    for each in (tmp_path / ".penstock").glob("traffic.sqlite*"):
        each.unlink()
    traffic.report(Report("b", 2, "r", seen=[Seen("seen", 2, 0, "stable")]))
    for reader in (other, Traffic(tmp_path)):
        assert [each.router for each in reader.routers()] == ["b"]
        assert reader.steps("r")[0].counts == {("seen", "stable"): 1}
    other.close()


def test_traffic_of_a_newer_penstock_is_refused(
    traffic: Traffic, tmp_path: Path
) -> None:
    traffic.close()
    sql = sqlite3.connect(tmp_path / ".penstock" / "traffic.sqlite")
    sql.execute("PRAGMA user_version = 7")
    sql.close()
    with pytest.raises(ServingError, match="has format 7 where this penstock knows 1"):
        Traffic(tmp_path)
