"""`penstock export`, `penstock notify` and `penstock rules`, as they are called."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.import_time import HEAVY
from penstock.components.monitoring import outbox
from penstock.components.monitoring.document import write_document
from penstock.components.monitoring.exporter import exposition
from tests.components.monitoring.documents import alert_document, document, ok_document
from tests.components.monitoring.prometheus import tool
from tests.components.monitoring.receivers import closed_port, http_receiver
from tests.conftest import Said

Call = Callable[..., Said]
CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a document of an alert, and the verbs on the command line."""
    from penstock.__main__ import app
    from penstock.commands import exporting

    for verb in (exporting.export, exporting.rules, exporting.notify):
        if all(each.callback is not verb for each in app.registered_commands):
            app.command()(verb)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    write_document(alert_document(), tmp_path / "runs" / "drift.json")
    return tmp_path


# --- export


def test_metrics_are_printed(penstock: Call) -> None:
    said = penstock("export", "runs/drift.json")
    assert (said.code, said.err) == (0, "")
    assert said.out.encode() == exposition([alert_document()])


def test_a_text_file_is_written_of_a_folder(penstock: Call, here: Path) -> None:
    write_document(ok_document(), here / "runs" / "older.json")
    said = penstock("export", "runs", "--textfile", "penstock.prom")
    assert said == Said(0, "", "")
    text = (here / "penstock.prom").read_text()
    assert (
        'penstock_model_state{model_name="taxi",monitor="both",state="alert"} 1' in text
    )
    assert "penstock_documents_unreadable 0.0" in text


def test_a_file_of_a_folder_that_is_broken_is_told_and_the_rest_is_exported(
    penstock: Call, here: Path
) -> None:
    (here / "runs" / "broken.json").write_text("{")
    said = penstock("export", "runs", "--textfile", "penstock.prom")
    assert said.code == 1
    assert said.err.startswith("runs/broken.json is not JSON: ")
    assert "penstock_documents_unreadable 1.0" in (here / "penstock.prom").read_text()


def test_a_folder_without_documents_is_refused(penstock: Call, here: Path) -> None:
    (here / "none").mkdir()
    said = penstock("export", "none", "--push", "http://127.0.0.1:9")
    assert (said.code, said.err) == (
        1,
        "Folder 'none' holds no monitoring report. Name the folder that verdicts of "
        "DriftMonitor or QualityMonitor lie in, or wait for the first.\n",
    )


def test_what_an_unreachable_gateway_was_to_get_is_kept_and_sent_later(
    penstock: Call, here: Path
) -> None:
    port = closed_port()
    url = f"http://127.0.0.1:{port}"
    arguments = ("export", "runs/drift.json", "--push", url, "--outbox", "out.sqlite")
    said = penstock(*arguments)
    assert (said.code, said.out) == (1, "")
    assert said.err == (
        f"Push gateway '{url}' cannot be reached: Connection refused. What it was to "
        "get is kept in 'out.sqlite', and sent with the next 'penstock export --push "
        f"{url}'.\n"
    )
    with http_receiver(port) as receiver:
        assert penstock(*arguments) == Said(0, "", "")
        (got,) = receiver.got
        assert got.path == "/metrics/job/penstock_both/model_name/taxi"


def test_the_token_of_a_gateway_is_read_from_its_file(
    penstock: Call, here: Path
) -> None:
    (here / "token").write_text("a-token-of-a-gateway")
    (here / "token").chmod(0o600)
    with http_receiver() as receiver:
        said = penstock(
            *("export", "runs", "--push", receiver.url, "--token-file", "token")
        )
        assert said == Said(0, "", "")
        assert receiver.got[0].headers["Authorization"] == "Bearer a-token-of-a-gateway"
    assert (here / "penstock-root" / ".penstock" / "outbox.sqlite").exists()


def test_a_served_folder_is_scraped_until_it_is_told_to_end(here: Path) -> None:
    code = (
        "import typer\n"
        "from penstock.commands import exporting\n"
        "app = typer.Typer()\n"
        "app.command()(exporting.export)\n"
        "app(['runs', '--serve', '0'])"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    )
    try:
        assert running.stdout
        line = running.stdout.readline()
        assert line.startswith("Serving the metrics of 'runs' at http://127.0.0.1:")
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        url = line.split()[-1].rstrip(".")
        with direct.open(url, timeout=30) as answer:
            assert b'state="alert"} 1' in answer.read()
        write_document(document(rows=77), here / "runs" / "drift.json")
        with direct.open(url, timeout=30) as answer:
            assert (
                b'window_rows{model_name="taxi",monitor="drift"} 77.0' in answer.read()
            )
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0
    finally:
        running.kill()
        running.communicate()


# --- notify


def settings(here: Path, url: str) -> None:
    data = {"channels": {"hook": {"kind": "webhook", "url": url}}}
    (here / "notices.json").write_text(json.dumps(data))


def test_an_alert_is_told_once(penstock: Call, here: Path) -> None:
    with http_receiver() as receiver:
        settings(here, receiver.url)
        said = penstock("notify", "runs")
        assert (said.code, said.err) == (0, "")
        first, last = said.out.splitlines()
        assert first.startswith("alert: taxi: alert on 2026-11-30 in fare")
        assert last == "1 sent, 0 kept, 0 dead"
        again = penstock("notify", "runs", "--json")
        assert again.json == {
            "notices": [],
            "sent": [],
            "kept": [],
            "dead": [],
            "revived": 0,
        }
        assert len(receiver.got) == 1


def test_what_could_not_be_told_is_kept_and_told_later(
    penstock: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "FIRST_DELAY_SECONDS", 0.5)
    port = closed_port()
    settings(here, f"http://127.0.0.1:{port}")
    said = penstock("notify", "runs/drift.json")
    assert said.code == 1 and said.out.endswith("0 sent, 1 kept, 0 dead\n")
    assert said.err == (
        "Channel 'hook' (webhook) cannot be reached: Connection refused. What it was "
        "to get is kept in 'penstock-root/.penstock/outbox.sqlite', and sent with the "
        "next 'penstock notify'.\n"
    )
    with http_receiver(port) as receiver:
        said = penstock("notify", "--wait", "2m")
        assert (said.code, said.out) == (0, "1 sent, 0 kept, 0 dead\n")
        assert len(receiver.got) == 1


def test_dead_letters_are_told_and_can_be_tried_again(
    penstock: Call, here: Path
) -> None:
    with http_receiver() as receiver:
        settings(here, receiver.url)
        receiver.answer = lambda got: (410, {}, b"")
        said = penstock("notify", "runs", "--json")
        assert said.code == 1
        assert [each["channel"] for each in said.json["dead"]] == ["hook"]
        assert said.err == (
            "Channel 'hook' (webhook) answered 410. It is not tried again, and is kept "
            "in 'penstock-root/.penstock/outbox.sqlite' as a dead letter. Mend that, "
            "and pass --retry-dead.\n"
        )
        receiver.answer = lambda got: (200, {}, b"")
        assert penstock("notify").out == "0 sent, 0 kept, 0 dead\n"
        said = penstock("notify", "--retry-dead", "--json")
        assert (said.code, said.json["revived"]) == (0, 1)
        keys = {got.headers["Idempotency-Key"] for got in receiver.got}
        assert len(receiver.got) == 2 and len(keys) == 1


def test_notices_without_settings_are_refused(penstock: Call) -> None:
    said = penstock("notify", "runs")
    assert (said.code, said.err) == (
        1,
        "Settings 'notices.json' cannot be read: No such file or directory. Name a "
        "file of JSON with 'channels'.\n",
    )


# --- rules

ALL_FILES = {
    "taxi-monitoring.rules.yml",
    "taxi-monitoring.tests.yml",
    "taxi-serving.rules.yml",
    "taxi-serving.tests.yml",
    "alertmanager.yml",
    "penstock-models.json",
}


@pytest.mark.prometheus
def test_the_files_of_a_model_are_what_the_tools_take(
    penstock: Call, here: Path
) -> None:
    said = penstock(
        *("rules", "taxi", "-o", "etc", "--quality", "--serving", "taxi"),
        *("--every", "1h", "--retraining-url", "http://127.0.0.1:9095/v1/alerts"),
        *("--slack-url-file", "/etc/slack", "--report-url", "https://r.example.com"),
        *("--mail-to", "a@example.com", "--mail-from", "b@example.com"),
        *("--mail-server", "smtp.example.com:25"),
    )
    assert (said.code, said.err) == (0, "")
    assert {Path(line).name for line in said.out.splitlines()} == ALL_FILES
    for name in ("monitoring", "serving"):
        rules = here / "etc" / f"taxi-{name}.rules.yml"
        assert tool("promtool", "check", "rules", rules).returncode == 0
    tests = here / "etc" / "taxi-monitoring.tests.yml"
    assert tool("promtool", "test", "rules", tests).returncode == 0
    done = tool("amtool", "check-config", here / "etc" / "alertmanager.yml")
    assert done.returncode == 0, done.stdout
    made: Any = json.loads((here / "etc" / "penstock-models.json").read_text())
    assert made["links"][0]["url"] == "https://r.example.com"


def test_the_same_files_are_written_again_and_others_are_not_lost(
    penstock: Call, here: Path
) -> None:
    assert penstock("rules", "taxi", "-o", "etc").code == 0
    said = penstock("rules", "taxi", "-o", "etc", "--json")
    assert said.json == {
        "folder": "etc",
        "files": sorted(name for name in ALL_FILES if "serving" not in name),
    }
    (here / "etc" / "alertmanager.yml").write_text("mine")
    said = penstock("rules", "taxi", "-o", "etc", "--every", "1h")
    assert said.code == 1
    assert said.err == (
        "Folder 'etc' has 'alertmanager.yml', 'taxi-monitoring.rules.yml', "
        "'taxi-monitoring.tests.yml', which say something else. Pass --replace, or "
        "another folder.\n"
    )
    assert (here / "etc" / "alertmanager.yml").read_text() == "mine"
    assert penstock("rules", "taxi", "-o", "etc", "--replace").code == 0
    assert (here / "etc" / "alertmanager.yml").read_text() != "mine"


def test_models_with_odd_names_have_files_of_their_own(
    penstock: Call, here: Path
) -> None:
    for name in ("a/b", "a b", "../x"):
        assert penstock("rules", name, "-o", "etc").code == 0
    names = sorted(path.name for path in (here / "etc").glob("*.rules.yml"))
    assert len(names) == 3
    assert not (here / "x-monitoring.rules.yml").exists()


def test_a_folder_that_cannot_be_written_is_refused(penstock: Call, here: Path) -> None:
    (here / "file").touch()
    said = penstock("rules", "taxi", "-o", "file")
    assert (said.code, said.err) == (
        1,
        "Folder 'file' cannot be written: File exists. Name one that this user may "
        "write.\n",
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "runs/drift.json"],
        ["rules", "taxi", "-o", "etc"],
        ["notify", "runs"],
    ],
)
def test_no_verb_loads_a_heavy_library(arguments: list[str], here: Path) -> None:
    with http_receiver() as receiver:
        settings(here, receiver.url)
        code = (
            "import json, sys\n"
            "from penstock.commands import exporting\n"
            "import typer\n"
            "app = typer.Typer()\n"
            "for verb in (exporting.export, exporting.rules, exporting.notify):\n"
            "    app.command()(verb)\n"
            f"app({arguments!r}, standalone_mode=False)\n"
            "print(json.dumps(sorted(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
    assert set(json.loads(done.stdout.splitlines()[-1])) & set(HEAVY) == set()
