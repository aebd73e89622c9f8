"""The store: where it is, who else is there, and what comes back from it."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.pipelines.logins import Login
from penstock.pipelines.metadata import (
    RunState,
    State,
    Store,
    connection,
    recorded,
    traceback_tail,
)
from penstock.pipelines.run import run
from penstock.pipelines.runners import LocalRunner
from penstock.schemas.artifacts import Artifact, Examples, ExternalArtifact, Model
from penstock.schemas.errors import MetadataError
from tests.pipelines.test_cancel import held
from tests.pipelines.toys import Make, toy

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}


def text_of(url: str, **options: Any) -> str:
    with pytest.raises(MetadataError) as raised:
        Store(url, **options)
    return str(raised.value)


def shown(url: str) -> str:
    """Return a URL as texts show it."""
    return re.sub(r":[^:/]*@", ":…@", url)


# Where ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["metadata.sqlite", "with space é.db", "a%20b"])
def test_an_sqlite_url_names_a_file(tmp_path: Path, name: str) -> None:
    from urllib.parse import quote

    path = tmp_path / "new folder" / name
    Store(f"sqlite:///{quote(str(path))}")
    assert path.is_file()


def test_a_relative_sqlite_url_has_three_slashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Store("sqlite:///below/store.db")
    assert (tmp_path / "below" / "store.db").is_file()


def test_servers_are_described_by_urls() -> None:
    config, login = connection.connection(
        "mysql://me:p%40ss@db.example:3307/lin%60eage", create=True
    )
    mysql = config.mysql
    assert (mysql.host, mysql.port, mysql.database) == (
        *("db.example", 3307, "`lin``eage`"),
    )
    assert (mysql.user, mysql.password) == ("me", "p@ss")
    assert login == Login(
        *("mysql", "db.example", 3307, "me", "p@ss", "lin`eage"),
    )
    assert "p@ss" not in repr(login)
    mysql = connection.connection("mysql://me@db.example/lineage", create=True)[0].mysql
    assert (mysql.port, mysql.password) == (3306, "")
    for scheme in ("postgresql", "postgres"):
        config, login = connection.connection(
            f"{scheme}://me:s%27cr%5Cet@db.example:5433/Line-age", create=True
        )
        postgres = config.postgresql
        assert (postgres.host, postgres.port) == ("'db.example'", "5433")
        assert (postgres.user, postgres.password) == ("'me'", r"'s\'cr\\et'")
        assert postgres.dbname == "'Line-age'"
        assert login == Login(
            *("postgresql", "db.example", 5433, "me", "s'cr\\et", "Line-age"),
        )
    config, login = connection.connection("grpc://db.example:8080", create=True)
    assert type(config).__name__ == "MetadataStoreClientConfig"
    assert (config.host, config.port) == ("db.example", 8080)
    assert login == Login("grpc", "db.example", 8080)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "metadata.sqlite",
        "sqlite:/x",
        "sqlite:///",
        "oracle://me:secret@host/db",
        "mysql://me:secret@host",
        "mysql:///db",
        "mysql://host/db",
        "postgresql://me:secret@host/",
        "postgresql://host/db",
        "postgresql://me:secret@/db",
        "grpc://host",
        "grpc://host:port",
        "grpc://me:secret@host:8080",
        "grpc://host:8080/db",
        "mysql://me:secret@host:99999/db",
        "mysql://me:sec/r@et@host/db",
    ],
)
def test_a_url_that_names_no_store_gets_a_sentence(url: str) -> None:
    shown = url.replace(":secret@", ":…@").replace(":sec/r@et@", ":…@")
    assert text_of(url) == (
        f"'{shown}' does not describe a lineage store. Write sqlite:///PATH, "
        "mysql://USER:PASSWORD@HOST:PORT/DATABASE, "
        "postgresql://USER:PASSWORD@HOST:PORT/DATABASE or grpc://HOST:PORT."
    )


@pytest.mark.parametrize("rest", ["?sslmode=require&password=s3cret", "#s3cret"])
def test_a_url_with_options_gets_a_sentence(rest: str) -> None:
    assert text_of(f"postgresql://me:s3cret@host/db{rest}") == (
        f"'postgresql://me:…@host/db{rest[0]}…' has options ('?' or '#'), and lineage "
        "stores take none. Leave them out; in a password, '?' and '#' are written %3F "
        "and %23."
    )


@pytest.mark.parametrize(
    "url",
    [
        "mysql://me:s3cret@127.0.0.1:1/lineage",
        "postgresql://me:s3cret@127.0.0.1:1/lineage",
        "mysql://me:s3%40cr:et@127.0.0.1:1/lineage",
        "grpc://127.0.0.1:1",
    ],
)
def test_a_server_that_is_not_there_gets_a_sentence_without_the_password(
    url: str,
) -> None:
    shown = re.sub(":s3.*@", ":…@", url)
    assert text_of(url) == (
        f"The lineage store '{shown}' cannot be reached at 127.0.0.1:1: Connection "
        "refused. Start the server, or check host and port."
    )


def test_a_missing_store_is_not_made_by_asking(tmp_path: Path) -> None:
    path = tmp_path / "metadata.sqlite"
    assert text_of(f"sqlite:///{path}", create=False) == (
        f"There is no lineage store at '{path}'. Run a pipeline first, or name the "
        "store with --root or --store."
    )
    assert not path.exists()


def test_a_folder_that_cannot_be_made_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "below" / "metadata.sqlite"
    assert text_of(f"sqlite:///{path}") == (
        f"The lineage store '{path}' cannot be made: Not a directory: "
        f"'{tmp_path}/file/below'. Choose a folder that you may write to."
    )


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    assert text_of(f"sqlite:///{tmp_path}") == (
        f"The lineage store 'sqlite:///{tmp_path}' cannot be opened: its folder is "
        "missing or not readable. Check the path."
    )


def test_a_file_of_another_kind_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("a,b\n" * 1_000)
    assert text_of(f"sqlite:///{path}") == (
        f"The lineage store 'sqlite:///{path}' is a file of another kind, no SQLite "
        "database. Name another store."
    )
    assert path.read_text() == "a,b\n" * 1_000


def test_a_database_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE trips (fare REAL)")
    other.close()
    before = path.read_bytes()
    assert text_of(f"sqlite:///{path}", create=False) == (
        f"The lineage store 'sqlite:///{path}' is an SQLite database with other "
        "tables, no ML Metadata store. Name another store."
    )
    assert path.read_bytes() == before


def test_a_store_of_a_newer_schema_gets_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "metadata.sqlite"
    run(toy(), tmp_path, runner=LocalRunner())
    code = (
        "import sqlite3, sys\n"
        "store = sqlite3.connect(sys.argv[1])\n"
        "store.execute('UPDATE MLMDEnv SET schema_version = 99')\n"
        "store.commit()\n"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True)
    text = text_of(f"sqlite:///{path}")
    assert text.startswith(
        f"The lineage store 'sqlite:///{path}' was written by a newer ml-metadata (its "
        "schema is version 99, this one reads up to "
    )
    assert text.endswith("). Upgrade ml-metadata, or name another store.")


# Who else ------------------------------------------------------------------------


def test_a_store_that_is_held_for_too_long_gets_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "metadata.sqlite"
    store = Store(f"sqlite:///{path}", wait_seconds=0.2)
    sentence = (
        f"The lineage store 'sqlite:///{path}' is held by another process for more "
        "than 0.2 s. Wait for that process, or allow more time with --store-wait."
    )
    with held(path):
        assert text_of(f"sqlite:///{path}", wait_seconds=0.2) == sentence
        with pytest.raises(MetadataError) as raised:
            store.runs()
        assert str(raised.value) == sentence
        with pytest.raises(MetadataError) as raised:
            store.begin_run("p", "r", {})
        assert str(raised.value) == sentence
    assert store.runs() == []


WRITER = """
import sys
from penstock import LocalRunner, Pipeline, run
from tests_toys import Make, Fit
root, store, text = sys.argv[1:]
for number in range(4):
    make = Make(rows=number + 1, text=text)
    pipeline = Pipeline("p" + text, [make, Fit(examples=make.examples)])
    result = run(pipeline, root, store=store, runner=LocalRunner())
    assert result.state.value == "complete"
"""


def test_several_processes_write_one_store_and_lose_nothing(
    store_url: str, tmp_path: Path
) -> None:
    # Under another name, because a package named `tests` may be installed.
    toys = Path(__file__).with_name("toys.py")
    (tmp_path / "tests_toys.py").write_bytes(toys.read_bytes())
    environment = {
        **ENVIRONMENT,
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}",
    }
    writers = [
        subprocess.Popen(
            [
                *(sys.executable, "-c", WRITER),
                *(tmp_path / "root", store_url, str(number % 2)),
            ],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for writer in writers:
        _, err = writer.communicate()
        assert writer.returncode == 0, err
    store = Store(store_url, create=False)
    runs = store.runs()
    assert len(runs) == len({each.id for each in runs}) == 16
    assert {each.state for each in runs} == {RunState.COMPLETE}
    assert len(store.runs("p0")) == len(store.runs("p1")) == 8
    executions = [one for each in runs for one in store.executions(each.id)]
    assert len(executions) == len({each.id for each in executions}) == 32
    # Two of them run the same pipelines: what one has made, the other takes.
    assert {each.state for each in executions} <= {State.COMPLETE, State.CACHED}
    assert len(store.artifacts(Examples)) == len(store.artifacts(Model)) == 8
    assert all(each.path.is_dir() for each in store.artifacts())


# What comes back -----------------------------------------------------------------


def test_artifacts_are_found_by_type_pipeline_and_number(
    store_url: str, tmp_path: Path
) -> None:
    made = toy(serving_dir=tmp_path / "serving")
    run(made, tmp_path, store=store_url, runner=LocalRunner())
    store = Store(store_url, create=False)
    everything = store.artifacts()
    assert [each.id for each in everything] == sorted(
        each.id for each in everything if each.id is not None
    )
    (model,) = store.artifacts(Model)
    assert [each.id for each in store.artifacts("Model", pipeline="toy")] == [model.id]
    assert store.artifacts(Model, pipeline="other") == []
    assert model.id is not None
    assert type(store.artifact(model.id)) is Model
    with pytest.raises(MetadataError) as raised:
        store.artifact(999)
    assert str(raised.value) == (
        f"Artifact 999 is not in the lineage store '{shown(store_url)}'. 'penstock "
        "artifacts' lists what is."
    )
    with pytest.raises(MetadataError) as raised:
        store.executions("nope")
    assert str(raised.value) == (
        f"Run 'nope' is not in the lineage store '{shown(store_url)}'. 'penstock runs' "
        "lists what is."
    )


def test_what_is_done_outside_of_a_run_is_recorded_at_once(
    store_url: str, tmp_path: Path
) -> None:
    made = toy(serving_dir=tmp_path / "serving")
    run(made, tmp_path, store=store_url, runner=LocalRunner())
    store = Store(store_url, create=False)
    (examples,), (model,) = store.artifacts(Examples), store.artifacts(Model)
    assert store.executions_of_type("by.Hand") == []
    inputs = {"model": model, "examples": examples}
    outputs = {"first": Model("/first", properties={"auc": 0.5}), "second": Model("/2")}
    number = store.record_execution(
        "by.Hand",
        component="hand",
        pipelines=["toy", "other"],
        inputs=inputs,
        outputs=outputs,
        properties={"reason": "because", "level": 3},
    )
    (record,) = store.executions_of_type("by.Hand")
    assert (record.id, record.type, record.component) == (number, "by.Hand", "hand")
    assert (record.run_id, record.state, record.reason) == (
        *("", State.COMPLETE, "because"),
    )
    assert record.properties["level"] == 3
    assert {key: each.id for key, (each,) in record.inputs.items()} == {
        key: each.id for key, each in inputs.items()
    }
    assert {key: each.id for key, (each,) in record.outputs.items()} == {
        key: each.id for key, each in outputs.items()
    }
    assert record.outputs["first"][0].properties["auc"] == 0.5
    for pipeline in ("toy", "other"):
        listed = [each.id for each in store.artifacts(Model, pipeline=pipeline)]
        assert listed[-2:] == [each.id for each in outputs.values()]
    assert store.find_artifact(999) is None


class Trips(Artifact):
    """A type of a user's own."""

    TYPE_NAME = "Trips"


def test_types_of_a_users_own_come_back_as_artifacts(store_url: str) -> None:
    store = Store(store_url)
    store.begin_run("p", "r", {})
    trips = Trips("/trips", properties={"rows": 3}, digest="sha256:1")
    store.begin_execution(Make(), pipeline="p", run_id="r", inputs={"trips": [trips]})
    (record,) = store.executions("r")
    (back,) = record.inputs["trips"]
    assert (back.TYPE_NAME, back.uri, back.digest) == ("Trips", "/trips", "sha256:1")
    assert back.properties["rows"] == 3


def test_the_same_bytes_from_outside_are_recorded_once(store_url: str) -> None:
    store = Store(store_url)
    store.begin_run("p", "r", {})
    for digest in ("sha256:1", "sha256:1", "sha256:2"):
        outside = ExternalArtifact("/data/*.csv", digest=digest)
        store.begin_execution(
            Make(), pipeline="p", run_id="r", inputs={}, external=[outside]
        )
    found = store.artifacts(ExternalArtifact)
    assert [each.digest for each in found] == ["sha256:1", "sha256:2"]
    used = [each.inputs["external"][0].id for each in store.executions("r")]
    assert used == [found[0].id, found[0].id, found[1].id]


def test_one_artifact_under_several_keys_comes_back_under_each(store_url: str) -> None:
    store = Store(store_url)
    store.begin_run("p", "r", {})
    one, two = Examples("/1", digest="1"), Examples("/2", digest="2")
    inputs = {"train": [one, two, one], "eval": [one]}
    store.begin_execution(Make(), pipeline="p", run_id="r", inputs=inputs)
    (record,) = store.executions("r")
    assert {
        key: [each.uri for each in made] for key, made in record.inputs.items()
    } == {"train": ["/1", "/2", "/1"], "eval": ["/1"]}


PLAIN = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    # Surrogates are no UTF-8, and SQLite ends text at a NUL.
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    st.text("\\⧵/'\"%$;-{}[] \t\n"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text("\\⧵/'\"é"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
        | st.text("\\⧵/'\"%$", min_size=1),
        PLAIN | st.lists(JSON) | st.dictionaries(st.text(), JSON, min_size=1),
        max_size=4,
    ),
    st.text("a\\⧵/'\" é", min_size=1),
)
@example({"text": "__MLMD_NULL__", "tiny": 1e-12, "third": 1 / 3, "big": 2**40}, "/x")
@example({"sum": 0.1 + 0.2, "time": 1763745600.123456, "huge": 1e300, "x": 5e-324}, "/")
def test_what_is_recorded_comes_back_as_it_was(
    store: Store, properties: dict[str, Any], uri: str
) -> None:
    made = Model(uri, properties=properties)
    store.record_execution(
        "test",
        component="test",
        pipelines=["p"],
        inputs={},
        outputs={"model": made},
        properties={},
    )
    assert made.id is not None
    back = store.artifact(made.id)
    assert back.uri == uri
    kept = {key: back.properties[key] for key in properties}
    assert same(kept, properties)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, to the type and the last digit, NaN included."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other)


def test_parameters_are_recorded_as_numbers_text_or_json() -> None:
    from google.protobuf import duration_pb2

    from tests.components.test_base import Color, Span, measure

    assert recorded(True) == 1
    assert recorded(2**70) == str(2**70)
    assert [recorded(each) for each in (3, 0.5, "x")] == [3, 0.5, "x"]
    assert recorded(Path("/data")) == "/data"
    assert recorded(Color.RED) == "RED"
    assert recorded(b"\x00\xff") == "00ff"
    assert recorded(("a", 1)) == '["a", 1]'
    assert recorded({"b": 1, "a": (Path("x"),)}) == '{"a": ["x"], "b": 1}'
    span = recorded(Span(1, ["a"]))
    assert json.loads(str(span)) == {"kind": "Span", "first": 1, "names": ["a"]}
    assert recorded(measure) == "tests.components.test_base.measure"
    duration = recorded((duration_pb2.Duration(seconds=3),))
    assert duration == '["3s"]'


def test_the_tail_of_a_traceback_is_forty_lines() -> None:
    lines = [f"line {number}" for number in range(100)]
    assert traceback_tail("\n".join(lines) + "\n\n").splitlines() == lines[-40:]
    assert traceback_tail("one") == "one"


def test_a_store_in_memory_is_empty_and_its_own() -> None:
    one, other = Store("sqlite://"), Store("sqlite://")
    one.begin_run("p", "r", {})
    assert [each.id for each in one.runs()] == ["r"]
    assert other.runs() == []
