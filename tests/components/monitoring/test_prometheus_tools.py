"""The real programs start, answer and end: what the tests of metrics stand on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.components.monitoring.prometheus import (
    alertmanager,
    program,
    prometheus,
    pushgateway,
    tool,
    until,
)

SCRIPT = Path(__file__).parents[3] / "scripts" / "prometheus-tools"


@pytest.mark.prometheus
def test_prometheus_scrapes_a_gateway_and_both_end_with_their_contexts(
    tmp_path: Path,
) -> None:
    with pushgateway(tmp_path / "gateway") as gateway:
        configuration = (
            "global: {scrape_interval: 1s}\n"
            "scrape_configs:\n"
            "- job_name: gateway\n"
            f"  static_configs: [{{targets: ['{gateway.address}']}}]\n"
        )
        with prometheus(tmp_path / "prometheus", configuration) as server:
            (found,) = until(lambda: server.query("up == 1"), "a scrape")
            assert found["metric"]["instance"] == gateway.address
    assert server.process.poll() is not None
    assert gateway.process.poll() is not None


@pytest.mark.prometheus
def test_alertmanager_answers(tmp_path: Path) -> None:
    with alertmanager(
        tmp_path, "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"
    ) as server:
        assert server.get("/api/v2/alerts") == []


@pytest.mark.prometheus
def test_a_server_that_does_not_start_tells_what_it_said(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match=r"prometheus ended:\n.*no_such_key"),
        prometheus(tmp_path, "no_such_key: 1"),
    ):
        pass


@pytest.mark.prometheus
def test_the_tools_run_on_what_they_are_given() -> None:
    assert tool("promtool", "check", "metrics", given="a_total 1\n").returncode == 3
    assert "amtool" in tool("amtool", "--version").stdout


@pytest.mark.prometheus
def test_the_script_prints_one_folder_that_holds_them_all() -> None:
    done = subprocess.run([SCRIPT], capture_output=True, text=True, check=True)
    folder = Path(done.stdout.strip())
    for name in ("prometheus", "promtool", "amtool", "prometheus-pushgateway"):
        assert (folder / name).is_file()


def test_a_missing_program_is_told_with_what_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program.cache_clear()
    with pytest.raises(
        AssertionError, match=r"No promtool is on PATH.*prometheus-tools"
    ):
        program("promtool")
