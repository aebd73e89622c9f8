"""Starting and ending a model server."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock.components.serving.control import ServerControl
from penstock.components.serving.security import Tls
from penstock.components.serving.server_config import Served, read_config
from penstock.components.serving.server_process import (
    FLAGS,
    find_server,
    started_server,
)
from penstock.schemas.errors import ServingError
from tests.components.serving.certificates import Authority

PROGRAM = (sys.executable, "-m", "tests.components.serving.server_program")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_server_runs_as_long_as_the_block(tmp_path: Path) -> None:
    served = Served("m", tmp_path, (1,), "labels", stable=1)
    with started_server([served], tmp_path, command=(*PROGRAM, "answer")) as server:
        with ServerControl(server.address) as control:
            assert control.statuses(["m"]) == {"m": {}}
        assert alive(server.pid)
        said = server.log.read_text()
    assert not alive(server.pid)
    given = set(said.split()[1:])
    assert given == {flag[2:].partition("=")[0] for flag in FLAGS} | {
        "port",
        "rest_api_port",
        "model_config_file",
        "monitoring_config_file",
    }
    # A server that starts with labels would end at once.
    (model,) = read_config(server.boot_config).model_config_list.config
    assert model.name == "m"
    assert not model.version_labels
    assert "prometheus_config" in (tmp_path / "monitoring.config").read_text()


def test_a_server_that_ends_gets_a_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(ServingError) as caught,
        started_server([], tmp_path, command=(*PROGRAM, "die")),
    ):
        pass
    assert str(caught.value) == (
        "The model server exited with code 1 before it answered. It said: 'Failed to "
        "start server. Error: no such model'. All that it said is in "
        f"'{tmp_path}/server.log'."
    )


def test_a_server_that_does_not_answer_gets_a_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(ServingError) as caught,
        started_server([], tmp_path, command=(*PROGRAM, "silent"), startup_seconds=2.0),
    ):
        pass
    assert str(caught.value).startswith(
        "The model server did not answer in 2 seconds. It said: 'flags: "
    )
    assert str(caught.value).endswith(
        f"See '{tmp_path}/server.log', or allow more time."
    )


def test_a_program_that_is_not_there_gets_a_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(ServingError, match=r"exited with code 1 .*No such file"),
        started_server([], tmp_path, command=("/no/such/server",)),
    ):
        pass


def test_a_server_that_does_not_end_is_ended(tmp_path: Path) -> None:
    with started_server(
        [], tmp_path, command=(*PROGRAM, "stay"), grace_seconds=0.2
    ) as server:
        pass
    assert not alive(server.pid)


def test_a_server_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from penstock.components.serving.server_process import started_server\n"
        f"with started_server([], Path({str(tmp_path)!r}), command={PROGRAM!r} + "
        "('answer',)) as server:\n"
        "    print(server.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_real_server_is_used_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server() == (
        sys.executable,
        "-m",
        "penstock.components.serving.model_server",
    )
    program = tmp_path / "tensorflow_model_server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert find_server() == (str(program),)


def test_files_of_tls_become_the_configuration_of_a_server(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    tls = Tls(*authority.sign("server"), authority.file)
    with (
        pytest.raises(ServingError, match="exited with code 1"),
        started_server([], tmp_path, command=(*PROGRAM, "die"), tls=tls),
    ):
        pass
    path = tmp_path / "ssl.config"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert tls.certificate is not None
    written = path.read_text()
    for content in (tls.certificate.read_text(), authority.file.read_text()):
        assert content.replace("\n", "\\n") in written
    assert written.endswith("client_verify: true\n")
    with (
        pytest.raises(ServingError) as caught,
        started_server([], tmp_path, tls=Tls(authority=authority.file)),
    ):
        pass
    assert str(caught.value) == (
        "A TLS server has no certificate. Pass both a certificate and its key."
    )
