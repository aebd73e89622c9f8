"""What is particular to stores on servers: who is let in, and what is said if not."""

from __future__ import annotations

import importlib.metadata
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as pb

from penstock.components.base import Component, RunContext, output
from penstock.pipelines import logins, overrides
from penstock.pipelines.inputs import LatestBlessed
from penstock.pipelines.metadata import RunState, State, Store, connection
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.run import run
from penstock.pipelines.runners import LocalRunner
from penstock.schemas.artifacts import Examples, Model
from penstock.schemas.errors import ComponentFailed, MetadataError
from tests.conftest import Said
from tests.pipelines.servers import (
    PASSWORD,
    USER,
    Grpc,
    MariaDB,
    PostgreSQL,
    Server,
)
from tests.pipelines.test_metadata import shown, text_of
from tests.pipelines.test_tfx_conventions import latest_blessed
from tests.pipelines.toys import Fit, Make, toy

LIBRARY = f"ML Metadata {importlib.metadata.version('ml-metadata')}"


@pytest.fixture(
    params=[
        pytest.param(kind, marks=pytest.mark.stores)
        for kind in ("postgresql", "mariadb")
    ]
)
def server(request: pytest.FixtureRequest) -> Server:
    """Each of the two database servers in turn."""
    found: Server = request.getfixturevalue(request.param)
    return found


# Who is let in -------------------------------------------------------------------


def test_a_wrong_password_gets_a_sentence(server: Server) -> None:
    server.make_database("guarded")
    url = server.url("guarded", password="wr0ng")
    said = {
        "postgresql": f'password authentication failed for user "{USER}"',
        "mysql": f"Access denied for user '{USER}'@'127.0.0.1' (using password: YES)",
    }
    assert text_of(url) == (
        f"The lineage store '{shown(url)}' does not let '{USER}' in: "
        f"{said[server.scheme]}. Check user and password; in a URL, '@', ':', '/', "
        "'?', '#' and '%' are written %40, %3A, %2F, %3F, %23 and %25."
    )


def test_a_database_that_is_not_there_gets_a_sentence(server: Server) -> None:
    url = server.url("Nowhere-1")
    how = {
        "postgresql": f'CREATE DATABASE "Nowhere-1" OWNER "{USER}";',
        "mysql": "CREATE DATABASE `Nowhere-1` CHARACTER SET utf8mb4 COLLATE "
        "utf8mb4_bin; and GRANT ALL ON `Nowhere-1`.* TO that user.",
    }
    expected = (
        f"The lineage store '{shown(url)}' cannot be opened: 127.0.0.1:{server.port} "
        f"has no database 'Nowhere-1' that '{USER}' may use. Make it there: "
        f"{how[server.scheme]}"
    )
    assert text_of(url) == text_of(url, create=False) == expected
    # What the sentence says is right.
    server.execute(how[server.scheme].partition(";")[0])
    assert Store(url).runs() == []


def test_a_database_of_somebody_else_gets_a_sentence(server: Server) -> None:
    server.make_database("theirs")
    password = {
        "postgresql": "CREATE ROLE guest LOGIN PASSWORD 'guest'; "
        "REVOKE CONNECT ON DATABASE theirs FROM PUBLIC",
        "mysql": "CREATE USER guest@'127.0.0.1' IDENTIFIED BY 'guest'",
    }
    server.execute(password[server.scheme])
    url = server.url("theirs", user="guest", password="guest")
    text = text_of(url)
    assert text.startswith(f"The lineage store '{shown(url)}' ")
    if server.scheme == "mysql":
        assert "has no database 'theirs' that 'guest' may use. Make it there:" in text
    else:
        assert text.endswith(
            "does not let 'guest' in: permission denied for database \"theirs\". Ask "
            "whoever runs the server."
        )


def test_a_store_that_may_only_be_read_gets_a_sentence(server: Server) -> None:
    url = server.new_store()
    database = url.rpartition("/")[2]
    Store(url).begin_run("p", "r", {})
    if isinstance(server, PostgreSQL):
        server.execute(
            "CREATE ROLE reader LOGIN PASSWORD 'reader'; "
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader",
            database,
        )
    else:
        server.execute(
            "CREATE USER reader@'127.0.0.1' IDENTIFIED BY 'reader'; "
            f"GRANT SELECT ON {database}.* TO reader@'127.0.0.1'"
        )
    reading = server.url(database, user="reader", password="reader")
    store = Store(reading)
    assert [each.id for each in store.runs()] == ["r"]
    with pytest.raises(MetadataError) as raised:
        store.begin_run("p", "s", {})
    assert str(raised.value) == (
        f"The lineage store '{shown(reading)}' cannot be written. Give yourself the "
        "right to write it, or name another store."
    )


def test_a_server_of_another_kind_gets_a_sentence(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # PostgreSQL waits for the client to begin; MySQL's client waits for the server.
    monkeypatch.setattr(logins, "_ANSWER_SECONDS", 0.5)
    other = {"postgresql": "mysql", "mysql": "postgresql"}[server.scheme]
    kind = {"postgresql": "PostgreSQL", "mysql": "MySQL or MariaDB"}[other]
    url = server.url("x").replace(server.scheme, other)
    assert text_of(url) == (
        f"The lineage store '{shown(url)}' cannot be used: what answers at "
        f"127.0.0.1:{server.port} is no {kind} server. Check host and port, and that "
        "the URL begins with what the server is."
    )


def test_a_server_that_is_not_known_gets_a_sentence() -> None:
    url = "postgresql://me:s3cret@no.such.host.invalid/db"
    assert text_of(url) == (
        "The lineage store 'postgresql://me:…@no.such.host.invalid/db' cannot be "
        "reached at no.such.host.invalid:5432: Name or service not known. Start the "
        "server, or check host and port."
    )


@pytest.mark.stores
@pytest.mark.parametrize("method", ["trust", "password", "md5", "scram-sha-256"])
def test_every_way_to_log_in_to_postgresql_that_ml_metadata_knows_works(
    postgresql: PostgreSQL, method: str
) -> None:
    user = f"by_{method}"
    encryption = "md5" if method == "md5" else "scram-sha-256"
    postgresql.execute(
        f"SET password_encryption = '{encryption}'; "
        f"CREATE ROLE \"{user}\" LOGIN PASSWORD 'ä secret'"
    )
    postgresql.execute(f'CREATE DATABASE "{user}" OWNER "{user}"')
    with access(postgresql, f'host all "{user}" 127.0.0.1/32 {method}'):
        store = Store(postgresql.url(user, user=user, password="ä secret"))
        store.begin_run("p", "r", {})
        assert [each.id for each in store.runs()] == ["r"]
        if method != "trust":
            url = postgresql.url(user, user=user, password="a secret")
            assert f"does not let '{user}' in: password" in text_of(url)


@contextmanager
def access(server: PostgreSQL, rules: str) -> Iterator[None]:
    """Let in and keep out as pg_hba.conf says from then on."""
    file = server.folder / "data" / "pg_hba.conf"
    before = file.read_text()
    administrator = f"host all {USER} 127.0.0.1/32 scram-sha-256"
    for text in (f"{administrator}\n{rules}\n", before):
        file.write_text(text)
        server.execute("SELECT pg_reload_conf()")
        # The new rules are in force once a connection is refused, or let in, by them.
        while server.execute("SELECT count(*) FROM pg_hba_file_rules") == "":
            time.sleep(0.01)
        if text != before:
            yield


@pytest.mark.stores
def test_a_postgresql_that_takes_encrypted_connections_only_gets_a_sentence(
    postgresql: PostgreSQL,
) -> None:
    postgresql.execute("CREATE ROLE remote LOGIN PASSWORD 'x'")
    url = postgresql.url("postgres", user="remote", password="x")
    with access(postgresql, "hostssl all all 127.0.0.1/32 scram-sha-256"):
        assert text_of(url) == (
            f"The lineage store '{shown(url)}' does not let 'remote' in: no "
            'pg_hba.conf entry for host "127.0.0.1", user "remote", database '
            f'"postgres", no encryption. {LIBRARY} does not encrypt its connections. '
            "Let them in by a line 'host' of the server's pg_hba.conf, or connect "
            "through a tunnel (ssh -L)."
        )


@pytest.mark.stores
def test_a_postgresql_database_that_is_not_in_utf8_gets_a_sentence(
    postgresql: PostgreSQL,
) -> None:
    postgresql.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    url = postgresql.url("latin")
    assert text_of(url) == (
        f"The lineage store '{shown(url)}' keeps text as LATIN1, which does not hold "
        "every name. Make the database anew, with ENCODING 'UTF8' TEMPLATE template0."
    )


def test_a_store_that_others_make_ready_for_too_long_gets_a_sentence(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logins, "_LOCK_SECONDS", 1)
    url = server.new_store()
    with logins.alone(connection.server(url)):
        assert text_of(url) == (
            f"The lineage store '{shown(url)}' is being made ready by another process "
            "for more than 1 s. Wait for that process and run again."
        )
    # Only those who make the same one wait.
    with logins.alone(connection.server(server.new_store())):
        assert Store(url).runs() == []


RACER = """
import sys
from penstock.components.base import Component, RunContext, output
from penstock.pipelines.metadata import Store
from penstock.schemas.artifacts import Artifact, ExternalArtifact
class Odd(Artifact):
    TYPE_NAME = "Odd"
    PROPERTIES = {"a": int}
class Go(Component):
    odd: Odd = output()
    def run(self, context: RunContext) -> None: ...
for url in sys.argv[1:]:
    print("ready", flush=True)
    sys.stdin.readline()
    store = Store(url)
    run_id = sys.stdin.readline().strip()
    store.begin_run("p", run_id, {})
    outside = ExternalArtifact("/data", digest="same")
    number = store.begin_execution(
        Go(), pipeline="p", run_id=run_id, inputs={}, external=[outside]
    )
    store.complete_execution(
        number, {"odd": Odd("/odd")}, pipeline="p", run_id=run_id, component="Go",
        properties={}, fingerprint="sha256:same",
    )
"""


def test_processes_that_begin_a_store_at_once_make_one(server: Server) -> None:
    urls = [server.new_store() for _ in range(4)]
    with ExitStack() as all_of_them:
        racers = [
            all_of_them.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", RACER, *urls],
                    env={**os.environ, "PYTHONPATH": os.getcwd()},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(6)
        ]
        for number in range(len(urls)):
            for racer in racers:
                assert racer.stdout is not None
                assert racer.stdout.readline() == "ready\n", racer.communicate()[1]
            for at, racer in enumerate(racers):
                assert racer.stdin is not None
                racer.stdin.write(f"\nrun {number} {at}\n")
                racer.stdin.flush()
        for racer in racers:
            _, err = racer.communicate()
            assert racer.returncode == 0, err
    for number, url in enumerate(urls):
        database = url.rpartition("/")[2]
        twice = server.execute(
            "SELECT name FROM Type GROUP BY name, type_kind HAVING count(*) > 1",
            database,
        )
        assert twice == ""
        store = Store(url)
        assert {each.id for each in store.runs("p")} == {
            f"run {number} {at}" for at in range(len(racers))
        }
        assert len(store.artifacts("Odd")) == len(racers)
        assert len(store.artifacts("ExternalArtifact")) == 1
        assert len(list(store.find_cached("sha256:same"))) == len(racers)


# What no server of Debian says is said here by one that only knows its lines.


@contextmanager
def saying(*lines: bytes) -> Iterator[int]:
    """A server that says its lines, waiting for an answer to each; its port."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                for line in lines:
                    connection.sendall(line)
                    connection.recv(4096)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(10)


def mysql(number: int, body: bytes) -> bytes:
    return struct.pack("<I", len(body))[:3] + bytes([number]) + body


GREETING = mysql(
    0,
    b"\x0a8.4.0\0"
    + bytes(4)
    + b"12345678\0"
    + bytes(7)
    + b"\x15"
    + bytes(10)
    + b"123456789012\0caching_sha2_password\0",
)


def postgres(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">I", len(body) + 4) + body


@pytest.mark.parametrize(
    ("scheme", "lines", "said"),
    [
        (
            "mysql",
            (GREETING, mysql(2, b"\xfecaching_sha2_password\0" + bytes(21))),
            f"wants 'me' to log in by 'caching_sha2_password', which {LIBRARY} cannot. "
            "Let that user log in by 'mysql_native_password', or take one who does.",
        ),
        (
            "mysql",
            (
                GREETING,
                mysql(2, b"\xff" + struct.pack("<H", 3159) + b"#HY000Insecure."),
            ),
            f"does not let 'me' in: Insecure. {LIBRARY} does not encrypt its "
            "connections. Set require_secure_transport=OFF there, or connect through a "
            "tunnel (ssh -L).",
        ),
        (
            "mysql",
            (mysql(0, b"\xff" + struct.pack("<H", 1130) + b"Host 'x' is not allowed"),),
            "does not let 'me' in: Host 'x' is not allowed. Ask whoever runs the "
            "server.",
        ),
        (
            "postgresql",
            (postgres(b"R", struct.pack(">I", 7)),),
            f"wants 'me' to log in by 'gss', which {LIBRARY} cannot. Let that user log "
            "in by 'scram-sha-256' in the server's pg_hba.conf, or take one who does.",
        ),
        (
            "postgresql",
            (postgres(b"E", b"SFATAL\0C53300\0Mtoo many clients already\0\0"),),
            "does not let 'me' in: too many clients already. Ask whoever runs the "
            "server.",
        ),
    ],
    ids=["plugin", "encryption", "host", "gss", "full"],
)
def test_a_server_that_is_not_supported_gets_a_sentence(
    scheme: str, lines: tuple[bytes, ...], said: str
) -> None:
    with saying(*lines) as port:
        assert text_of(f"{scheme}://me:s3cret@127.0.0.1:{port}/db") == (
            f"The lineage store '{scheme}://me:…@127.0.0.1:{port}/db' {said}"
        )


@pytest.mark.parametrize("scheme", ["mysql", "postgresql"])
@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x0a\0\0\0",
        mysql(0, b"\x0a"),
        mysql(0, b"\x0a8\0"),
        mysql(0, b"\xff"),
        b"R\0\0\0\x04",
        b"R\0\0\0\0",
        postgres(b"R", struct.pack(">I", 11) + b"r"),
        postgres(b"R", struct.pack(">I", 11) + b"r=1,s=!,i=x"),
    ],
)
def test_what_is_no_server_is_said_to_be_none(
    scheme: str, line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logins, "_ANSWER_SECONDS", 0.2)
    with saying(line) as port:
        text = text_of(f"{scheme}://me:s3cret@127.0.0.1:{port}/db")
    assert " cannot be used: what answers at 127.0.0.1:" in text


# What is recorded ----------------------------------------------------------------


@pytest.mark.stores
def test_names_that_differ_by_case_alone_are_told_apart_or_refused(
    mariadb: MariaDB,
) -> None:
    url = mariadb.new_store()
    Store(url).begin_run("Taxi", "one", {})
    Store(url).begin_run("taxi", "two", {})
    assert [each.pipeline for each in Store(url).runs()] == ["Taxi", "taxi"]

    mariadb.execute("CREATE DATABASE careless COLLATE utf8mb4_general_ci")
    url = mariadb.url("careless")
    store = Store(url)
    store.begin_run("Taxi", "one", {})
    with pytest.raises(MetadataError) as raised:
        store.begin_run("taxi", "two", {})
    assert str(raised.value) == (
        f"The lineage store '{shown(url)}' does not tell 'taxi' from 'Taxi', which it "
        "has. Make the database with a collation that does (COLLATE utf8mb4_bin), or "
        "use another name."
    )


def test_a_name_that_is_too_long_gets_a_sentence(server: Server) -> None:
    url = server.new_store()
    with pytest.raises(MetadataError) as raised:
        Store(url).begin_run("p", "n" * 256, {})
    text = str(raised.value)
    assert text.startswith(
        f"The lineage store '{shown(url)}' takes names of at most 255 bytes: "
    )
    assert text.endswith(" Shorten the name.")
    assert len(text) < 1_000
    Store(url).begin_run("p", "n" * 255, {})


HOSTILE = "'); DROP TABLE ArtifactProperty; -- \\"


def test_text_is_never_taken_for_sql(server: Server) -> None:
    url = server.new_store()
    store = Store(url)
    store.begin_run(HOSTILE, HOSTILE, {HOSTILE: HOSTILE})
    made = Examples(
        f"/{HOSTILE}", properties={HOSTILE: HOSTILE, "split_names": HOSTILE}
    )
    for _ in range(2):
        number = store.record_execution(
            HOSTILE,
            component=HOSTILE,
            pipelines=[HOSTILE],
            inputs={},
            outputs={HOSTILE: made},
            properties={HOSTILE: [HOSTILE]},
        )
    again = Store(url)
    assert again.run(HOSTILE).properties[HOSTILE] == HOSTILE
    assert [each.id for each in again.runs(HOSTILE)] == [HOSTILE]
    (back,) = again.artifacts(Examples, pipeline=HOSTILE)
    assert (back.uri, back.properties[HOSTILE]) == (made.uri, HOSTILE)
    assert back.properties["split_names"] == HOSTILE
    record = again.executions_of_type(HOSTILE)[-1]
    assert (record.id, record.component) == (number, HOSTILE)
    assert record.properties[HOSTILE] == [HOSTILE]
    assert record.outputs[HOSTILE][0].id == back.id
    with pytest.raises(MetadataError, match="is not in the lineage store"):
        again.run(HOSTILE + "\\")


# Lost and found ------------------------------------------------------------------


def test_a_connection_that_is_cut_is_made_anew(
    server: PostgreSQL | MariaDB,
) -> None:
    store = Store(server.new_store())
    store.begin_run("p", "one", {})
    for number in range(3):
        server.cut()
        store.begin_run("p", f"more {number}", {})
        server.cut()
        assert len(store.runs()) == number + 2


def test_a_server_that_comes_back_in_time_is_waited_for(server: Server) -> None:
    store = Store(server.new_store(), wait_seconds=60)
    server.stop()
    asked = threading.Thread(target=lambda: store.begin_run("p", "one", {}))
    asked.start()
    time.sleep(0.3)
    server.start()
    asked.join(60)
    assert [each.id for each in store.runs()] == ["one"]


def test_a_server_that_is_lost_gets_a_sentence(server: Server) -> None:
    url = server.new_store()
    store = Store(url, wait_seconds=0.3)
    server.stop()
    try:
        with pytest.raises(MetadataError) as raised:
            store.runs()
        assert str(raised.value) == (
            f"The lineage store '{shown(url)}' was lost, and was not there again "
            "within 0.3 s. Start the server and run again."
        )
        assert text_of(url).endswith(
            "Connection refused. Start the server, or check host and port."
        )
    finally:
        server.start()
    assert store.runs() == []


@pytest.mark.stores
def test_a_server_of_ml_metadata_that_is_lost_gets_a_sentence(grpc: Grpc) -> None:
    url = grpc.new_store()
    store = Store(url, wait_seconds=0.3)
    assert store.runs() == []
    grpc.servers[-1].stop(None).wait()
    with pytest.raises(MetadataError) as raised:
        store.runs()
    assert str(raised.value) == (
        f"The lineage store '{url}' was lost, and was not there again within 0.3 s. "
        "Start the server and run again."
    )


# Who gets to know ----------------------------------------------------------------

TALKATIVE = """
import logging, sys
from absl import logging as absl_logging
logging.basicConfig(level=1)
absl_logging.set_verbosity(absl_logging.DEBUG)
from penstock import PenstockError, Store
for url in sys.argv[1:]:
    try:
        print(len(Store(url).runs()), "runs")
    except PenstockError as error:
        print(error)
"""


def test_no_password_is_printed_or_logged(server: Server) -> None:
    good = server.new_store()
    name = good.rpartition("/")[2]
    bad = [
        server.url(name, password="s3cret'\\ x"),
        server.url("s3", password="s3cret"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", TALKATIVE, good, *bad],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("0 runs\nThe lineage store ")
    said = done.stdout + done.stderr
    assert "DEBUG:absl" in said or "INFO:absl" in said
    for secret in ("s3cret", PASSWORD, PASSWORD[:3], "s3c"):
        assert secret not in said
    # Nor does ml_metadata tell every connection on its own.
    assert "Connecting to database" not in said


def test_the_command_line_says_one_sentence_and_no_password(
    server: Server, penstock: Callable[..., Said]
) -> None:
    url = server.url("lineage_0", password="s3cret")
    said = penstock("runs", "--store", url)
    assert said.code == 1
    assert "s3cret" not in said.out + said.err
    assert "does not let" in said.err
    assert len(said.err.strip().splitlines()) <= 6
    assert penstock("runs", "--store", server.new_store(), "--json").json == []


# The guide -----------------------------------------------------------------------


def test_the_guide_makes_databases_that_work(server: Server) -> None:
    guide = Path(__file__).parents[2] / "docs" / "lineage-stores.md"
    sql = re.findall(r"^```sql\n(.*?)^```$", guide.read_text("utf-8"), re.M | re.S)
    (mine,) = [
        each for each in sql if ("utf8mb4" in each) is (server.scheme == "mysql")
    ]
    for statement in mine.split(";")[:-1]:
        server.execute(statement.replace("'secret'", "'s3cret'"))
    url = server.url("lineage", user="penstock", password="s3cret")
    assert Store(url).runs() == []


# As it was left ------------------------------------------------------------------


def test_a_newer_schema_gets_a_sentence(server: Server) -> None:
    url = server.new_store()
    Store(url)
    server.execute("UPDATE MLMDEnv SET schema_version = 99", url.rpartition("/")[2])
    text = text_of(url)
    assert text.startswith(
        f"The lineage store '{shown(url)}' was written by a newer ml-metadata (its "
        "schema is version 99, this one reads up to "
    )
    assert text.endswith("). Upgrade ml-metadata, or name another store.")


@pytest.mark.parametrize("done", ["DELETE FROM MLMDEnv", "DROP TABLE Association"])
def test_a_store_that_is_half_made_gets_a_sentence(server: Server, done: str) -> None:
    url = server.new_store()
    Store(url)
    server.execute(done, url.rpartition("/")[2])
    assert text_of(url, wait_seconds=0.2) == (
        f"The lineage store '{shown(url)}' is half made: whoever made its tables was "
        "killed at it. Drop the database and create it again."
    )


# Whole runs ----------------------------------------------------------------------


class Stumble(Component):
    """Fail with words that some stores have no words for."""

    text: str
    model: Model = output()

    def run(self, context: RunContext) -> None:
        raise ValueError(self.text)


def test_runs_are_recorded_found_and_used_again(store_url: str, tmp_path: Path) -> None:
    first = run(toy(), tmp_path, store=store_url, runner=LocalRunner())
    second = run(toy(), tmp_path, store=store_url, runner=LocalRunner())
    assert {each.state for each in first.executions.values()} == {State.COMPLETE}
    assert {each.state for each in second.executions.values()} == {State.CACHED}
    third = run(toy(rows=4), tmp_path, store=store_url, runner=LocalRunner())
    assert third.state is RunState.COMPLETE
    make = Make(rows=5)
    fit = Fit(examples=make.examples, baseline=LatestBlessed())
    asked = run(
        Pipeline("toy", [make, fit]), tmp_path, store=store_url, runner=LocalRunner()
    )
    (baseline,) = asked["Fit"].inputs["baseline"]
    assert baseline.id == third["Fit"].outputs["model"].id


def test_a_failure_is_recorded_word_for_word(store_url: str, tmp_path: Path) -> None:
    text = f"{HOSTILE} C:\\temp\\new ⧵ ⧵/ 'é' \N{GRINNING FACE} %s \n\ttail"
    with pytest.raises(ComponentFailed):
        run(
            Pipeline("p", [Stumble(text=text)]),
            tmp_path,
            store=store_url,
            runner=LocalRunner(),
        )
    store = Store(store_url, create=False)
    (found,) = store.runs()
    (record,) = store.executions(found.id)
    assert (found.state, record.state) == (RunState.FAILED, State.FAILED)
    assert record.properties["text"] == text
    assert record.properties["penstock_message"] == text
    assert text.strip() in str(record.properties["penstock_traceback"])


def test_forced_and_blocked_models_are_known(store_url: str, tmp_path: Path) -> None:
    result = run(toy(), tmp_path, store=store_url, runner=LocalRunner())
    model = result["Fit"].outputs["model"]
    assert isinstance(model, Model)
    store = Store(store_url, create=False)
    blocked = overrides.block(store, tmp_path, model, "loses \\ money")
    entry = overrides.block_list(store).entry(model)
    assert entry is not None
    assert entry.blessing.id == blocked.id
    assert entry.reason == "loses \\ money."
    overrides.unblock(store, tmp_path, model, "earns it")
    assert overrides.block_list(store).entry(model) is None


def test_what_is_recorded_on_a_server_is_read_by_plain_ml_metadata(
    server: Server, tmp_path: Path
) -> None:
    url = server.new_store()
    result = run(toy(), tmp_path, store=url, runner=LocalRunner())
    config = pb.ConnectionConfig()
    name = url.rpartition("/")[2]
    if server.scheme == "mysql":
        config.mysql.host, config.mysql.port = "127.0.0.1", server.port
        config.mysql.user, config.mysql.password = USER, PASSWORD
        config.mysql.database = name
    else:
        server.execute("CREATE ROLE tfx LOGIN PASSWORD 'tfx' SUPERUSER")
        config.postgresql.host, config.postgresql.port = "127.0.0.1", str(server.port)
        config.postgresql.user = config.postgresql.password = "tfx"
        config.postgresql.dbname = name
    model = latest_blessed(metadata_store.MetadataStore(config))
    assert model.id == result["Fit"].outputs["model"].id
    assert model.custom_properties["auc"].double_value == 0.5
