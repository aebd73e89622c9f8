"""Metrics reach Prometheus by a text file, a push gateway and HTTP; none gets lost."""

from __future__ import annotations

import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.components.monitoring.document import (
    Document,
    read_document,
    write_document,
)
from penstock.components.monitoring.document_folder import DocumentFolder
from penstock.components.monitoring.exporter import CONTENT_TYPE, exposition
from penstock.components.monitoring.outbox import Delivery, Outbox
from penstock.components.monitoring.publishing import (
    push,
    served,
    split_address,
    write_textfile,
)
from penstock.components.monitoring.web import check_url
from penstock.schemas.errors import DataError, ServingError
from tests.components.monitoring.documents import (
    alert_document,
    document,
    ok_document,
    quality,
)
from tests.components.monitoring.prometheus import prometheus, pushgateway, until
from tests.components.monitoring.receivers import (
    Clock,
    closed_port,
    http_receiver,
)

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(url: str, method: str = "GET") -> tuple[int, str, bytes]:
    asked = urllib.request.Request(url, method=method)
    try:
        with DIRECT.open(asked, timeout=30) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read()


def quality_document(**changes: Any) -> Document:
    return document(
        columns=[], reference=None, budget=None, quality=quality(), **changes
    )


# --- text file


def test_a_text_file_is_written_whole_for_everybody_to_read(tmp_path: Path) -> None:
    path = tmp_path / "taxi.prom"
    path.write_text("old")
    before = os.umask(0o077)
    try:
        write_textfile(path, exposition([ok_document()]))
    finally:
        os.umask(before)
    assert path.read_bytes() == exposition([ok_document()])
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == ["taxi.prom"]


def test_a_reader_never_sees_half_a_text_file(tmp_path: Path) -> None:
    path = tmp_path / "taxi.prom"
    texts = [exposition([ok_document(n)]) for n in (1, 60)]
    write_textfile(path, texts[0])
    ended = threading.Event()
    seen: list[bytes] = []

    def look() -> None:
        while not ended.is_set():
            seen.append(path.read_bytes())

    looking = threading.Thread(target=look)
    looking.start()
    for turn in range(100):
        write_textfile(path, texts[turn % 2])
    ended.set()
    looking.join()
    assert set(seen) <= set(texts)


def test_a_text_file_that_nobody_would_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        write_textfile(tmp_path / "taxi.txt", b"")
    assert str(caught.value) == (
        f"Text file '{tmp_path / 'taxi.txt'}' does not end with '.prom', and the node "
        "exporter reads no other. Name it 'taxi.prom'."
    )


def test_a_text_file_in_no_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none" / "taxi.prom"
    with pytest.raises(DataError) as caught:
        write_textfile(path, b"")
    assert str(caught.value) == (
        f"Text file '{path}' cannot be written: No such file or directory. Name one in "
        "a folder that this user may write."
    )


# --- folder


def test_of_a_folder_the_newest_documents_count_and_faults_are_told(
    tmp_path: Path,
) -> None:
    for index, day in enumerate(("28", "29", "30")):
        folder = tmp_path / "DriftMonitor" / str(index)
        folder.mkdir(parents=True)
        window = {
            "start": f"2026-11-{day}T00:00:00Z",
            "end": f"2026-11-{day}T23:00:00Z",
            "name": day,
        }
        write_document(document(window=window, rows=index), folder / "drift.json")
        (folder / "thresholds.json").write_text("{}")
    write_document(quality_document(), tmp_path / "taxi-quality.json")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / ".hidden.json").write_text("{")
    folder_of = DocumentFolder(tmp_path)
    found = folder_of.newest()
    assert [(each["rows"], each["quality"] is None) for each in found] == [
        (2, True),
        (quality_document()["rows"], False),
    ]
    (fault,) = folder_of.faults
    assert fault.startswith(f"{tmp_path / 'broken.json'} is not JSON: ")
    assert folder_of.is_whole and not DocumentFolder(tmp_path / "broken.json").is_whole


def test_only_what_changed_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.components.monitoring import document_folder

    for name in ("a", "b"):
        write_document(document(model=name), tmp_path / f"{name}.json")
    reads: list[str] = []

    def counted(path: Path) -> Document:
        reads.append(path.name)
        return read_document(path)

    monkeypatch.setattr(document_folder, "read_document", counted)
    folder = DocumentFolder(tmp_path)
    assert folder.newest() == folder.newest()
    assert reads == ["a.json", "b.json"]
    write_document(document(model="b", rows=1), tmp_path / "b.json")
    (tmp_path / "a.json").unlink()
    assert [each["rows"] for each in folder.newest()] == [1]
    assert reads == ["a.json", "b.json", "b.json"]


def test_a_file_that_is_no_document_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no monitoring report at"):
        DocumentFolder(tmp_path / "drift.json").newest()


# --- push gateway


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outbox(tmp_path: Path, clock: Clock) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.sqlite", clock=clock) as opened:
        yield opened


def test_an_unreachable_gateway_keeps_the_newest_for_the_next_push(
    outbox: Outbox, clock: Clock
) -> None:
    port = closed_port()
    url = f"http://127.0.0.1:{port}"
    for rows in (1, 2):
        found = push(url, [document(rows=rows)], outbox)
        (said,) = {why for _, why in found.kept}
        assert said == (f"Push gateway '{url}' cannot be reached: Connection refused.")
    assert len(outbox.letters()) == 1, "the newer metrics took the older ones' place"
    with http_receiver(port) as receiver:
        clock.now += 3600
        found = push(url, [], outbox)
        (got,) = receiver.got
        assert len(found.sent) == 1 and not found.kept
        assert (got.method, got.path) == (
            "PUT",
            "/metrics/job/penstock_drift/model_name/taxi",
        )
        assert got.headers["Content-Type"] == CONTENT_TYPE
        assert got.body == exposition([document(rows=2)])


def test_groups_of_models_that_are_no_more_are_deleted(outbox: Outbox) -> None:
    with http_receiver() as receiver:
        both = [document(model="a/b"), document(model="taxi")]
        push(receiver.url, both, outbox, whole=True)
        push(receiver.url, [document(model="fares")], outbox)
        methods = [got.method for got in receiver.got]
        assert methods == ["PUT"] * 3, "one document says nothing of other models"
        push(receiver.url, [document(model="taxi")], outbox, whole=True)
        push(receiver.url, [document(model="taxi")], outbox, whole=True)
    deleted = {got.path for got in receiver.got if got.method == "DELETE"}
    assert deleted == {
        "/metrics/job/penstock_drift/model_name@base64/YS9i",
        "/metrics/job/penstock_drift/model_name/fares",
    }
    assert sum(got.method == "DELETE" for got in receiver.got) == 2


def test_an_older_document_does_not_take_the_place_of_a_newer_one(
    outbox: Outbox,
) -> None:
    window = {
        "start": "2026-11-01T00:00:00Z",
        "end": "2026-11-02T00:00:00Z",
        "name": "1",
    }
    with http_receiver() as receiver:
        push(receiver.url, [document()], outbox)
        push(receiver.url, [document(window=window)], outbox)
        assert len(receiver.got) == 1


def test_a_gateway_that_refuses_makes_a_dead_letter_that_the_next_push_replaces(
    outbox: Outbox,
) -> None:
    with http_receiver() as receiver:
        receiver.answer = lambda got: (400, {}, b"pushed metrics are\ninvalid")
        found = push(receiver.url, [document()], outbox)
        ((_, said),) = found.dead
        assert said == (
            f"Push gateway '{receiver.url}' answered 400: pushed metrics are invalid."
        )
        receiver.answer = lambda got: (202, {}, b"")
        assert len(push(receiver.url, [document()], outbox).sent) == 1


def test_the_token_goes_to_the_gateway_and_nowhere_else(outbox: Outbox) -> None:
    token = "a-token-that-nobody-sees"
    with http_receiver() as receiver:
        receiver.answer = lambda got: (401, {}, f"bad token {token}".encode())
        found = push(receiver.url, [document()], outbox, token=token)
        assert receiver.got[0].headers["Authorization"] == f"Bearer {token}"
    assert found.dead[0][1].endswith("answered 401: bad token ***.")
    assert token.encode() not in outbox.path.read_bytes()


def test_a_redirect_is_not_followed_with_the_token(outbox: Outbox) -> None:
    with http_receiver() as elsewhere, http_receiver() as receiver:
        receiver.answer = lambda got: (307, {"Location": elsewhere.url}, b"")
        found = push(receiver.url, [document()], outbox, token="a-long-enough-token")
        assert len(found.dead) == 1 and not elsewhere.got


def test_training_runs_are_pushed_with_one_group_of_their_model(
    outbox: Outbox,
) -> None:
    retrains = {("taxi", "drift"): 2, ("fares", "drift"): 1}
    with http_receiver() as receiver:
        documents = [document(), quality_document()]
        push(receiver.url, documents, outbox, retrains=retrains)
        bodies = [got.body.decode() for got in receiver.got]
    having = [b for b in bodies if "retrain_triggered_total{" in b]
    assert len(bodies) == 2 and len(having) == 1
    assert "fares" not in having[0]


@pytest.mark.parametrize(
    "url", ["gateway:9091", "ftp://gateway", "http://", "http://a:b:c", "http://a:0"]
)
def test_a_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(DataError) as caught:
        check_url(url, "The URL of the push gateway")
    assert str(caught.value) == (
        "The URL of the push gateway is not a URL of HTTP. Write it as "
        "'https://host:port/path'."
    )


def test_a_url_with_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(DataError) as caught:
        check_url("http://user:hunter2@gateway:9091", "The URL of the push gateway")
    assert str(caught.value) == (
        "The URL of the push gateway for 'gateway' holds a name or a password, which "
        "would show in logs. Put a token into a file and name that."
    )


def test_a_gateway_that_is_silent_is_unreachable(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.components.monitoring import publishing, web

    def hasty(*arguments: Any, **settings: Any) -> bytes:
        return web.request(*arguments, **settings, timeout_seconds=0.2)

    monkeypatch.setattr(publishing, "request", hasty)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        found = push(url, [document()], outbox)
    assert found.kept[0][1] == (
        f"Push gateway '{url}' cannot be reached: it did not answer in time."
    )


@pytest.mark.prometheus
def test_the_real_gateway_takes_metrics_and_lets_them_go(
    tmp_path: Path, outbox: Outbox, clock: Clock
) -> None:
    models = ["taxi", "a/b", 'odd "name"\n', ".", "x y%"]
    folder = tmp_path / "gateway"

    def pushed(url: str, documents: list[Document]) -> Delivery:
        clock.now += 3600
        found = push(url, documents, outbox, whole=True)
        assert not found.dead and not found.kept
        return found

    with pushgateway(folder) as gateway:
        documents = [document(model=model) for model in models]
        pushed(gateway.url, [*documents, alert_document(), quality_document()])
        groups = gateway.get("/api/v1/metrics")["data"]
        assert len(groups) == len(models) + 2
        assert {each["labels"]["model_name"] for each in groups} == set(models)
        pushed(gateway.url, [document(rows=6)])
        (group,) = gateway.get("/api/v1/metrics")["data"]
        (rows,) = group["penstock_model_window_rows"]["metrics"]
        assert rows["value"] == "6"
        assert rows["labels"]["job"] == "penstock_drift"
    with pytest.raises(AssertionError):
        pushed(gateway.url, [document(rows=7)])
    with pushgateway(folder, port=int(gateway.address.rpartition(":")[2])) as again:
        clock.now += 3600
        assert len(push(again.url, [], outbox).sent) == 1
        (group,) = again.get("/api/v1/metrics")["data"]
        assert group["penstock_model_window_rows"]["metrics"][0]["value"] == "7"


# --- HTTP


def test_metrics_are_served_on_this_machine_and_nothing_else_is() -> None:
    text = exposition([ok_document()])
    with served(lambda: text, "0") as url:
        assert url.startswith("http://127.0.0.1:")
        assert fetch(url) == (200, CONTENT_TYPE, text)
        assert fetch(f"{url}?x=1") == (200, CONTENT_TYPE, text)
        assert fetch(url, "HEAD") == (200, CONTENT_TYPE, b"")
        root = url.removesuffix("/metrics")
        assert fetch(f"{root}/etc/passwd")[0] == 404
        assert fetch(url, "POST")[0] == 501


def test_what_cannot_be_made_into_metrics_is_an_error_with_its_sentence() -> None:
    def fail() -> bytes:
        raise DataError("There is no monitoring report at /x.")

    with served(fail, ":0") as url:
        code, _, said = fetch(url)
    assert (code, said) == (500, b"There is no monitoring report at /x.\n")


def test_a_taken_address_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(ServingError) as caught,
            served(lambda: b"", address),
        ):
            pass
    assert str(caught.value) == (
        f"Metrics cannot be served at '{address}': Address already in use. Name an "
        "address of this machine with a free port, or port 0."
    )


def test_addresses_are_of_this_machine_unless_they_say_otherwise() -> None:
    assert split_address("9464") == ("127.0.0.1", 9464)
    assert split_address(":9464") == ("127.0.0.1", 9464)
    assert split_address("0.0.0.0:80") == ("0.0.0.0", 80)
    assert split_address("[::1]:80") == ("::1", 80)


@pytest.mark.parametrize("text", ["", "host", "host:", "::1:80", "host:70000", "h:²"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ServingError) as caught:
        split_address(text)
    assert str(caught.value) == (
        f"'{text}' is no address to serve metrics at. Write it as 'PORT' for this "
        "machine alone, 'HOST:PORT' or '[::1]:PORT'."
    )


@pytest.mark.prometheus
def test_the_real_prometheus_scrapes_a_folder_as_it_changes(tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    write_document(ok_document(), folder / "taxi.json")
    documents = DocumentFolder(folder)

    def text() -> bytes:
        return exposition(documents.newest(), unreadable=len(documents.faults))

    with served(text, "0") as url:
        target = url.removeprefix("http://").removesuffix("/metrics")
        configuration = (
            "global: {scrape_interval: 1s}\n"
            "scrape_configs:\n"
            f"- {{job_name: penstock, static_configs: [{{targets: ['{target}']}}]}}\n"
        )
        with prometheus(tmp_path / "prometheus", configuration) as server:
            state = 'penstock_model_state{model_name="taxi"} == 1'
            (found,) = until(lambda: server.query(state), "a scrape")
            assert found["metric"]["state"] == "ok"
            alert = alert_document()
            alert["quality"] = None
            write_document(alert, folder / "taxi.json")
            changed = 'penstock_model_state{state="alert"} == 1'
            until(lambda: server.query(changed), "the changed document")
            assert len(server.query(state)) == 1
