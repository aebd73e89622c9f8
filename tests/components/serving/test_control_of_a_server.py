"""Control of a real server: the Python one, or TensorFlow Serving's where it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from penstock.components.serving.control import Loaded, LoadState
from penstock.components.serving.messages import (
    PREDICT,
    ModelServerConfig,
    PredictRequest,
    to_array,
    to_tensor,
)
from penstock.components.serving.model_server.options import Ports
from penstock.components.serving.model_server.server import ModelServer
from penstock.components.serving.security import Tls, open_channel, read_token
from penstock.components.serving.server_config import (
    Served,
    server_config,
    write_config,
)
from penstock.components.serving.server_process import (
    RunningServer,
    ssl_config_text,
    started_server,
)
from penstock.components.serving.target import TfServingTarget
from penstock.schemas.errors import ServingError
from tests.components.serving.certificates import Authority, write_secret
from tests.components.serving.model_server.models import save_template, save_version

AVAILABLE = Loaded(LoadState.AVAILABLE)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_template(tmp_path_factory.mktemp("template") / "model")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server for all tests: each has it hold nothing of its own in the end."""
    with started_server([], tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def serving(template: Path, tmp_path: Path) -> Path:
    for version in (1, 2, 3):
        save_version(template, tmp_path / "ranker", version)
    return tmp_path / "ranker"


def until(claim: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def answer(address: str, tls: Tls | None = None, **spec: Any) -> float:
    """Return what a model answers to 0: the number of its version."""
    request = PredictRequest(
        model_spec=spec,
        inputs={"x": to_tensor(np.zeros(1, np.float32))},
    )
    with open_channel(address, tls) as channel:
        response = PREDICT.on(channel)(request, timeout=10)
    return float(to_array(response.outputs["y"])[0])


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return str(caught.value.code().name)


def test_each_version_answers_under_its_name_until_it_is_not_wanted(
    running: RunningServer, serving: Path
) -> None:
    with TfServingTarget(
        "ranker", serving, running.address, rest_address=running.rest_address
    ) as target:
        assert AVAILABLE not in target.states().values()
        target.load((1, 2))
        until(lambda: list(target.states().values()).count(AVAILABLE) == 2)
        for version in (1, 2):
            assert answer(running.address, name=f"ranker__v{version}") == version
            target.probe(version)
        # Callers who know no version reach no candidate.
        assert refusal(lambda: answer(running.address, name="ranker")) == "NOT_FOUND"
        target.load((2, 3))
        until(lambda: target.states().get(3) == AVAILABLE)
        until(lambda: target.states()[1].state is LoadState.END)
        with pytest.raises(ServingError, match="NOT_FOUND"):
            target.probe(1)
        # A version that was unloaded can be had again.
        target.load((1, 2, 3))
        until(lambda: target.states()[1] == AVAILABLE)
        assert answer(running.address, name="ranker__v1") == 1
        target.release()
        until(lambda: AVAILABLE not in target.states().values())


def test_a_version_that_does_not_load_leaves_the_others_and_says_why(
    running: RunningServer, serving: Path
) -> None:
    (serving / "3" / "saved_model.pb").write_bytes(b"no model")
    with TfServingTarget("broken", serving, running.address) as target:
        target.load((1,))
        until(lambda: target.states().get(1) == AVAILABLE)
        target.load((1, 3))
        until(lambda: target.states()[3].state is LoadState.END)
        assert target.states()[3].error
        assert answer(running.address, name="broken__v1") == 1
        target.load((1,))
        target.release()


def test_the_bare_name_follows_the_stable_version(
    running: RunningServer, serving: Path
) -> None:
    with TfServingTarget("direct", serving, running.address, bare_name=True) as target:
        target.load((1, 2))
        until(lambda: list(target.states().values()).count(AVAILABLE) == 2)
        target.announce(1)
        until(lambda: 1 in target.control.statuses(["direct"])["direct"])
        until(lambda: target.control.statuses(["direct"])["direct"].get(1) == AVAILABLE)
        assert answer(running.address, name="direct") == 1
        target.announce(2)
        until(lambda: answer(running.address, name="direct") == 2)
        target.release()


def test_labels_move_in_two_phases_and_no_request_is_lost(
    running: RunningServer, serving: Path
) -> None:
    with TfServingTarget(
        "labelled", serving, running.address, layout="labels"
    ) as target:
        target.load((1,))
        until(lambda: target.states().get(1) == AVAILABLE)
        target.announce(1)
        by_label: Any = {"name": "labelled", "version_label": "stable"}
        assert answer(running.address, **by_label) == 1
        target.load((1, 2))
        with pytest.raises(ServingError, match=r"cannot become canary|never"):
            while target.states().get(2) != AVAILABLE:
                target.announce(1, 2)
            raise ServingError("never")
        until(lambda: target.states().get(2) == AVAILABLE)
        target.announce(1, 2)
        assert answer(running.address, name="labelled", version_label="canary") == 2
        assert answer(running.address, **by_label) == 1
        target.announce(2)
        assert answer(running.address, **by_label) == 2
        assert refusal(
            lambda: answer(running.address, name="labelled", version_label="canary")
        ) == ("INVALID_ARGUMENT")
        target.load((2,))
        until(lambda: target.states()[1].state is LoadState.END)
        assert answer(running.address, **by_label) == 2
        target.release()


@contextmanager
def in_process(
    folder: Path, served: tuple[Served, ...] = (), **settings: Any
) -> Iterator[Ports]:
    """Run the Python server in this process, which has TensorFlow already."""
    folder.mkdir(exist_ok=True)
    boot, monitoring = folder / "boot.config", folder / "monitoring.config"
    write_config(boot, server_config(ModelServerConfig(), served))
    monitoring.write_text("prometheus_config { enable: true }")
    with ModelServer(
        model_config_file=str(boot),
        monitoring_config_file=str(monitoring),
        rest_api_port="auto",
        file_system_poll_wait_seconds=0.1,
        max_num_load_retries=0,
        num_load_threads=1,
        num_unload_threads=1,
        **settings,
    ) as server:
        yield server.ports


def test_a_server_with_models_of_others_is_left_alone(
    template: Path, serving: Path, tmp_path: Path
) -> None:
    other = save_version(template, tmp_path / "other", 7).parent
    others = Served("other", other, (7,), "labels")
    with in_process(tmp_path / "server", (others,)) as ports:
        assert ports.rest_url is not None
        rest = ports.rest_url.removeprefix("http://")
        target = TfServingTarget("ranker", serving, ports.address, rest_address=rest)
        with target, pytest.raises(ServingError, match=r"'other'.* would unload"):
            target.load((1,))
        assert answer(ports.address, name="other") == 7
        # The file that lists them makes them known.
        with TfServingTarget(
            "ranker",
            serving,
            ports.address,
            rest_address=rest,
            user_config=tmp_path / "server" / "boot.config",
        ) as target:
            target.load((1,))
            until(lambda: target.states().get(1) == AVAILABLE)
        assert answer(ports.address, name="other") == 7
        assert answer(ports.address, name="ranker__v1") == 1


def test_a_server_that_polls_a_file_follows_it(serving: Path, tmp_path: Path) -> None:
    file = tmp_path / "server" / "boot.config"
    with (
        in_process(
            tmp_path / "server", model_config_file_poll_wait_seconds=0.1
        ) as ports,
        TfServingTarget("ranker", serving, ports.address, config_file=file) as target,
    ):
        target.load((1,))
        until(lambda: target.states().get(1) == AVAILABLE)
        target.load((2,))
        until(lambda: target.states().get(2) == AVAILABLE)
        until(lambda: target.states()[1].state is LoadState.END)
        assert answer(ports.address, name="ranker__v2") == 2


def test_a_server_that_is_started_anew_comes_back_with_its_versions(
    serving: Path, tmp_path: Path
) -> None:
    boot = tmp_path / "kept.config"
    with (
        in_process(tmp_path / "server") as ports,
        TfServingTarget(
            "ranker", serving, ports.address, layout="labels", boot_config=boot
        ) as target,
    ):
        target.load((1, 2))
        until(lambda: list(target.states().values()).count(AVAILABLE) == 2)
        target.announce(1, 2)
    port = int(ports.address.rpartition(":")[2])
    with (
        ModelServer(model_config_file=str(boot), port=port) as server,
        TfServingTarget("ranker", serving, ports.address, layout="labels") as target,
    ):
        assert server.ports.address == ports.address
        by_label: Any = {"name": "ranker", "version_label": "stable"}
        assert refusal(lambda: answer(ports.address, **by_label)) == "INVALID_ARGUMENT"
        # It has its versions by itself, and its labels as soon as somebody looks.
        until(lambda: list(target.states().values()).count(AVAILABLE) == 2)
        assert answer(ports.address, **by_label) == 1
        assert answer(ports.address, name="ranker", version_label="canary") == 2


def test_control_has_a_port_and_a_token_of_its_own(
    serving: Path, tmp_path: Path
) -> None:
    token = write_secret(tmp_path / "token", b"a-token-of-some-length")
    with in_process(
        tmp_path / "server", control_port="auto", control_token_file=str(token)
    ) as ports:
        assert ports.control_address != ports.address
        target = TfServingTarget("ranker", serving, ports.address)
        with target, pytest.raises(ServingError, match="does not allow 'Handle"):
            target.load((1,))
        target = TfServingTarget("ranker", serving, ports.control_address)
        with target, pytest.raises(ServingError, match="without the right token"):
            target.load((1,))
        with TfServingTarget(
            "ranker", serving, ports.control_address, token=read_token(token)
        ) as target:
            target.load((1,))
            until(lambda: target.states().get(1) == AVAILABLE)
        assert answer(ports.address, name="ranker__v1") == 1


def test_a_server_is_controlled_and_asked_over_mutual_tls(
    serving: Path, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "authority")
    client = Tls(*authority.sign("client"), authority.file)
    ssl_config = tmp_path / "ssl.config"
    ours = Tls(*authority.sign("server"), authority.file)
    ssl_config.write_text(ssl_config_text(ours))
    with (
        in_process(tmp_path / "server", ssl_config_file=str(ssl_config)) as ports,
        TfServingTarget("ranker", serving, ports.address, tls=client) as target,
    ):
        target.load((1,))
        until(lambda: target.states().get(1) == AVAILABLE)
        assert answer(ports.address, client, name="ranker__v1") == 1
        nobody = Tls(authority=authority.file)
        assert (
            refusal(lambda: answer(ports.address, nobody, name="ranker__v1"))
            == "UNAVAILABLE"
        )
