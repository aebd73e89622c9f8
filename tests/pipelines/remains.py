"""What must be true of a root whatever was killed in it, and once a run has ended.

It looks at files and into SQLite itself and shares no code with penstock.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

# States and events as ML Metadata numbers them.
_RUNNING, _LIVE = 2, 2


class Row(NamedTuple):
    """An execution, artifact or run of a store, with its properties."""

    id: int
    name: str
    state: int
    properties: Mapping[str, Any]


class Records(NamedTuple):
    """What a store holds."""

    executions: list[Row]
    artifacts: list[Row]  # their names are their locations
    runs: list[Row]


def records(store: Path) -> Records:
    """Read a store of ML Metadata, and leave what a kill left of it as it is."""
    if not store.exists():
        return Records([], [], [])
    with tempfile.TemporaryDirectory() as folder:
        for path in store.parent.glob(f"{store.name}*"):  # with its journal
            shutil.copy(path, folder)
        with closing(sqlite3.connect(Path(folder) / store.name)) as database:
            tables = {
                row[0] for row in database.execute("SELECT name FROM sqlite_master")
            }
            if "Artifact" not in tables:
                return Records([], [], [])
            return Records(
                _rows(database, "Execution", "name, last_known_state"),
                _rows(database, "Artifact", "uri, state"),
                _rows(
                    database,
                    "Context",
                    "name, 0",
                    "WHERE type_id = (SELECT id FROM Type WHERE name = 'pipeline_run')",
                ),
            )


def _rows(
    database: sqlite3.Connection, table: str, columns: str, where: str = ""
) -> list[Row]:
    properties: dict[int, dict[str, Any]] = {}
    query = (
        f"SELECT {table}_id, name, coalesce(int_value, double_value, string_value) "
        f"FROM {table}Property"
    )
    for id, name, value in database.execute(query):
        properties.setdefault(id, {})[name] = value
    found = database.execute(f"SELECT id, {columns} FROM {table} {where} ORDER BY id")
    return [Row(id, name, state, properties.get(id, {})) for id, name, state in found]


def digest(folder: Path) -> str:
    """Return the digest of a folder, made as the documentation says."""
    lines = []
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            name = path.relative_to(folder).as_posix()
            lines.append((name, hashlib.sha256(content).hexdigest(), len(content)))
    text = "".join(f"{sha} {size} {name}\n" for name, sha, size in sorted(lines))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def partial_outputs(found: Records) -> list[str]:
    """Say which artifacts of a store are not whole; at no moment may one be."""
    faults = []
    for artifact in found.artifacts:
        if artifact.state != _LIVE or artifact.properties.get("is_external"):
            continue
        folder = Path(artifact.name)
        if not folder.is_dir():
            faults.append(f"artifact {artifact.id} is recorded and not at '{folder}'")
        elif digest(folder) != artifact.properties.get("digest"):
            faults.append(f"artifact {artifact.id} is recorded and partial: '{folder}'")
    return faults


def finished(root: Path, found: Records) -> set[int]:
    """Return the executions that are done, so that nothing of them may be lost."""
    done = {each.id for each in found.executions if _is_complete(each)}
    for path in root.glob(".penstock/runs/*/*.commit.json"):
        note = json.loads(path.read_text())
        if all(
            _is_there(root.glob(f"*/{note['component']}/{key}/*"), output["digest"])
            for key, output in note["outputs"].items()
        ):
            done.add(note["execution_id"])
    return done


def _is_there(folders: Iterable[Path], wanted: str) -> bool:
    return any(digest(each) == wanted for each in folders)


def lost(done: set[int], found: Records) -> list[str]:
    """Say which executions were done and do not count any more."""
    complete = {each.id for each in found.executions if _is_complete(each)}
    return [f"execution {id} was done and is lost" for id in sorted(done - complete)]


def _is_complete(execution: Row) -> bool:
    return execution.properties.get("penstock_state") == "complete"


def faults_at_rest(root: Path, *stores: Path) -> list[str]:
    """Say what is wrong with a root in which nothing runs and the last run ended well.

    Args:
        root: The root.
        stores: All stores of it.
    """
    found = [records(each) for each in stores]
    faults = [fault for each in found for fault in partial_outputs(each)]
    known = {artifact.name for each in found for artifact in each.artifacts}
    faults += [f"no store knows '{each}'" for each in _outputs(root) - known]
    for each in found:
        faults += _unended(each)
        counts = Counter(
            execution.properties.get("penstock_fingerprint")
            for execution in each.executions
            if _is_complete(execution)
        )
        faults += [
            f"what has fingerprint '{fingerprint}' was done {count} times"
            for fingerprint, count in counts.items()
            if count > 1
        ]
    faults += [f"'{each}' was left behind" for each in _left_behind(root)]
    return sorted(faults)


def _unended(found: Records) -> Iterator[str]:
    for execution in found.executions:
        ours = execution.properties.get("penstock_state")
        if execution.state == _RUNNING or ours in (None, "running"):
            yield f"execution {execution.id} is {execution.state}, {ours}"
    for run in found.runs:
        state = run.properties.get("penstock_state")
        if state in (None, "running"):
            yield f"run '{run.name}' is {state}"


def _outputs(root: Path) -> set[str]:
    """Return all folders of outputs: `<pipeline>/<component>/<key>/<number>`."""
    return {
        str(path)
        for path in root.glob("*/*/*/*")
        if not any(part.startswith(".") for part in path.relative_to(root).parts)
    }


def _left_behind(root: Path) -> set[Path]:
    patterns = (
        *("*/*/.tmp/*", "*/*/[!.]*/.*"),
        *(".penstock/live/*", ".penstock/locks/*"),
        *(".penstock/code/.*", ".penstock/environments/.*", ".penstock/runs/.*"),
        *(".penstock/runs/*/*.partial", ".penstock/runs/*/*.commit.*"),
    )
    return {path for pattern in patterns for path in root.glob(pattern)}


def processes(ledger: Path) -> list[int]:
    """Return the processes that counted components ran in, by their ledger."""
    if not ledger.exists():
        return []
    lines = ledger.read_text(encoding="utf-8").splitlines()
    return sorted({int(line.split()[2]) for line in lines if line.count(" ") == 2})


def children(parents: Collection[int], ledger: Path) -> list[int]:
    """Return the processes in the ledger that these started and that still work."""
    wanted = {str(each) for each in parents}
    return [
        pid
        for pid in processes(ledger)
        if works(pid) and wanted.intersection(_status(pid)[1:2])
    ]


def works(pid: int) -> bool:
    """Return whether a process is there and not just waiting to be buried."""
    status = _status(pid)
    return bool(status) and status[0] != "Z"


def _status(pid: int) -> list[str]:
    """Return a process's state, its parent, and so on; nothing if it is not there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
