"""Control of a server: what is sent to it, what is refused, and what it says."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.components.serving import target as target_module
from penstock.components.serving.control import (
    Loaded,
    LoadState,
    ServerControl,
)
from penstock.components.serving.ledger import Ledger
from penstock.components.serving.messages import Code, ModelServerConfig, State
from penstock.components.serving.routing import Routing, route
from penstock.components.serving.security import Tls
from penstock.components.serving.server_config import (
    Served,
    read_config,
    server_config,
)
from penstock.components.serving.server_metrics import parse_metrics, read_metrics
from penstock.components.serving.target import TfServingTarget
from penstock.schemas.errors import ServingError
from tests.components.serving.certificates import Authority
from tests.components.serving.server_double import (
    ServerDouble,
    running_double,
    running_metrics,
)

AVAILABLE = Loaded(LoadState.AVAILABLE)


@pytest.fixture
def server() -> Iterator[ServerDouble]:
    with running_double() as double:
        yield double


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for the answer to each reload, however slow this machine is."""
    monkeypatch.setattr(target_module, "_REFUSAL_SECONDS", 30.0)


@pytest.fixture
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no answer that takes a while."""
    monkeypatch.setattr(target_module, "_REFUSAL_SECONDS", 0.05)


@pytest.fixture
def serving(tmp_path: Path) -> Path:
    return with_versions(tmp_path / "ranker", 1, 2, 3, 42, 43)


def with_versions(folder: Path, *versions: int) -> Path:
    for version in versions:
        (folder / str(version)).mkdir(parents=True)
    return folder


def until(claim: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def text_of(call: Callable[[], Any]) -> str:
    with pytest.raises(ServingError) as caught:
        call()
    return str(caught.value)


def policies(config: ModelServerConfig) -> dict[str, list[int]]:
    return {
        model.name: list(model.model_version_policy.specific.versions)
        for model in config.model_config_list.config
    }


def labels(config: ModelServerConfig) -> dict[str, int]:
    (model,) = config.model_config_list.config
    return dict(model.version_labels)


# --- names: one for each version


def test_versions_are_loaded_under_names_of_their_own(
    server: ServerDouble, serving: Path
) -> None:
    with TfServingTarget("ranker", serving, server.address) as target:
        assert target.states() == {}
        target.load((42, 43))
        assert policies(server.sent[-1]) == {"ranker__v42": [42], "ranker__v43": [43]}
        assert target.states() == {42: AVAILABLE, 43: AVAILABLE}
        target.probe(42)
        target.load((43,))
        assert policies(server.sent[-1]) == {"ranker__v43": [43]}
        assert target.states() == {42: Loaded(LoadState.END), 43: AVAILABLE}
        assert text_of(lambda: target.probe(42)) == (
            f"The model server at '{server.address}' answered 'GetModelMetadata' with "
            "NOT_FOUND: Servable not found for request. See its log."
        )


def test_a_load_is_not_waited_for(
    server: ServerDouble, serving: Path, haste: None
) -> None:
    server.gate.clear()
    with TfServingTarget("ranker", serving, server.address) as target:
        target.load((42,))
        until(lambda: target.states() == {42: Loaded(LoadState.LOADING)})
        target.load((42,))  # asking twice is asking once
        server.gate.set()
        until(lambda: target.states() == {42: AVAILABLE})


def test_a_version_that_does_not_load_is_a_state_and_no_error(
    server: ServerDouble, serving: Path
) -> None:
    server.broken[43] = "Could not find SavedModel"
    with TfServingTarget("ranker", serving, server.address) as target:
        target.load((42, 43))
        assert target.states() == {
            42: AVAILABLE,
            43: Loaded(LoadState.END, "Could not find SavedModel"),
        }


def test_what_a_version_was_before_it_was_asked_for_is_not_its_state(
    server: ServerDouble, serving: Path
) -> None:
    with TfServingTarget("ranker", serving, server.address) as target:
        target.load((42, 43))
        target.load((42,))
        assert target.states()[43] == Loaded(LoadState.END)
        server.refusal = (Code.UNKNOWN, "1 servable(s) did not become available")
        target.load((42, 43))  # the server has not looked at its folders yet
        assert server.models["ranker__v43"][43][0] is State.END
        assert target.states()[43] == Loaded(LoadState.START)
        # It is believed when it goes on saying so.
        target._stale_until = time.monotonic()
        assert target.states()[43] == Loaded(LoadState.END)


def test_the_bare_name_answers_with_the_stable_version(
    server: ServerDouble, serving: Path
) -> None:
    with TfServingTarget("ranker", serving, server.address, bare_name=True) as target:
        target.load((42, 43))
        target.announce(42)
        assert policies(server.sent[-1]) == {
            "ranker__v42": [42],
            "ranker__v43": [43],
            "ranker": [42],
        }
        target.load((43,))
        assert policies(server.sent[-1]) == {"ranker__v43": [43], "ranker": [42]}
        assert text_of(lambda: target.announce(3)) == (
            "Version 3 of model 'ranker' cannot become stable: the server has not "
            "loaded it (it has 42, 43). Load it first, and wait until it is available."
        )
        target.announce(43)
        assert policies(server.sent[-1])["ranker"] == [43]


def test_without_a_bare_name_nothing_is_announced(
    server: ServerDouble, serving: Path
) -> None:
    with TfServingTarget("ranker", serving, server.address) as target:
        target.load((42,))
        target.announce(42)
        assert len(server.sent) == 1


# --- labels: two phases


def test_a_label_moves_only_after_its_version_is_available(
    server: ServerDouble, serving: Path
) -> None:
    with TfServingTarget("ranker", serving, server.address, layout="labels") as target:
        target.load((42,))
        target.announce(42)
        assert labels(server.sent[-1]) == {"stable": 42}
        server.gate.clear()
        target.load((42, 43))
        assert policies(server.sent[-1]) == {"ranker": [42, 43]}
        assert labels(server.sent[-1]) == {"stable": 42}
        assert text_of(lambda: target.announce(42, 43)) == (
            "Version 43 of model 'ranker' cannot become canary: the server has not "
            "loaded it (it has 42). Load it first, and wait until it is available."
        )
        server.gate.set()
        until(lambda: target.states()[43] == AVAILABLE)
        target.announce(42, 43)
        assert labels(server.sent[-1]) == {"stable": 42, "canary": 43}
        target.probe(43)
        # The candidate is given up: its label goes with it, in one configuration.
        target.load((42,))
        assert policies(server.sent[-1]) == {"ranker": [42]}
        assert labels(server.sent[-1]) == {"stable": 42}


def test_a_stable_version_is_not_unloaded_under_its_label(
    server: ServerDouble, serving: Path
) -> None:
    with TfServingTarget("ranker", serving, server.address, layout="labels") as target:
        target.load((42, 43))
        until(lambda: len(server.available("ranker")) == 2)
        target.announce(42)
        sent = len(server.sent)
        assert text_of(lambda: target.load((43,))) == (
            "Label 'stable' of model 'ranker' names version 42, which the same "
            "configuration does not load (it loads 43). Keep it loaded, or move the "
            "label first."
        )
        assert len(server.sent) == sent
        target.announce(43)
        target.load((43,))
        assert server.available("ranker") == [43]


def test_what_the_server_refuses_is_not_recorded(
    server: ServerDouble, serving: Path
) -> None:
    with TfServingTarget("ranker", serving, server.address, layout="labels") as target:
        target.load((42, 43))
        until(lambda: len(server.available("ranker")) == 2)
        server.refusal = (Code.FAILED_PRECONDITION, "not\n available.")
        assert text_of(lambda: target.announce(42)) == (
            f"The model server at '{server.address}' refuses the configuration: not "
            "available. Nothing of it holds; mend that, and send it again."
        )
        server.refusal = None
        target.load((43,))  # no label holds version 42
        assert labels(server.sent[-1]) == {}


def test_a_refusal_may_stand_in_the_answer(server: ServerDouble, serving: Path) -> None:
    with TfServingTarget("ranker", serving, server.address) as target:
        server.complaint = (Code.INVALID_ARGUMENT, "two names")
        assert "refuses the configuration: two names. Nothing of it" in text_of(
            lambda: target.load((42,))
        )
        server.complaint = (Code.UNKNOWN, "1 servable(s) did not become available")
        target.load((42,))  # the states tell


def test_a_reload_without_an_answer_gets_a_sentence(server: ServerDouble) -> None:
    server.gate.clear()
    with ServerControl(server.address) as control:
        config = server_config(ModelServerConfig(), [Served("m", Path("/m"), (1,))])
        answered = control.reload(config, deadline_seconds=0.5)
        assert not answered(0.0)
        assert text_of(lambda: answered(10.0)) == (
            f"The model server at '{server.address}' did not answer "
            "'HandleReloadConfigRequest' in 0.5 seconds. See what it is busy with, or "
            "allow more time."
        )


def test_a_server_started_anew_is_told_everything_again(
    server: ServerDouble, serving: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = tmp_path / "boot.config"
    with TfServingTarget(
        "ranker", serving, server.address, layout="labels", boot_config=boot
    ) as target:
        target.load((42, 43))
        until(lambda: len(server.available("ranker")) == 2)
        target.announce(42, 43)
        # It starts with what is loaded, and without the labels it would die of.
        assert policies(read_config(boot)) == {"ranker": [42, 43]}
        assert labels(read_config(boot)) == {}
        server.start_anew()
        server.gate.clear()
        monkeypatch.setattr(target_module, "_REFUSAL_SECONDS", 0.05)
        sent = len(server.sent)
        target.load((42, 43))  # a label now, and all of it would be refused
        until(lambda: len(server.sent) > sent)
        assert labels(server.sent[-1]) == {}
        until(lambda: target.states().get(42) == Loaded(LoadState.LOADING))
        server.gate.set()
        until(lambda: target.states()[43] == AVAILABLE)
        until(lambda: target.states() == {42: AVAILABLE, 43: AVAILABLE})
        # Not while the answer to the reload without labels is still due.
        wanted = {"stable": 42, "canary": 43}
        until(lambda: bool(target.states()) and server.labels.get("ranker") == wanted)
        # Whoever looks sees to it that labels hold, even if all versions were kept.
        server.labels.clear()
        target.states()
        assert server.labels["ranker"] == {"stable": 42, "canary": 43}
        sent = len(server.sent)
        target.states()
        assert len(server.sent) == sent
        # A server that tells no metadata here is believed to have what it was given.
        server.unknown.add("GetModelMetadata")
        target.states()
        assert len(server.sent) == sent


def test_what_the_server_may_not_have_heard_is_said_again(
    server: ServerDouble, serving: Path
) -> None:
    with TfServingTarget("ranker", serving, server.address, layout="labels") as target:
        target.load((42,))
        until(lambda: target.states().get(42) == AVAILABLE)
        target.announce(42)
        server.refusal = (Code.UNAVAILABLE, "it dies")
        assert "cannot be reached" in text_of(lambda: target.announce(None))
        assert server.labels["ranker"] == {"stable": 42}
        server.refusal = None
    with TfServingTarget("ranker", serving, server.address, layout="labels") as target:
        target.states()
        assert server.labels["ranker"] == {}
        sent = len(server.sent)
        target.states()
        assert len(server.sent) == sent


def test_a_server_that_lost_the_bare_name_gets_it_again(
    server: ServerDouble, serving: Path
) -> None:
    with TfServingTarget("ranker", serving, server.address, bare_name=True) as target:
        target.load((42,))
        target.announce(42)
        del server.models["ranker"]
        target.states()
        assert server.available("ranker") == [42]


def test_labels_of_other_models_hold_nothing_up(
    server: ServerDouble, serving: Path, tmp_path: Path
) -> None:
    user = tmp_path / "models.config"
    user.write_text(OTHERS)
    second = with_versions(tmp_path / "scorer", 7)
    with (
        TfServingTarget(
            "ranker", serving, server.address, user_config=user, layout="labels"
        ) as one,
        TfServingTarget("scorer", second, server.address, user_config=user) as two,
    ):
        one.load((42,))
        until(lambda: one.states().get(42) == AVAILABLE)
        one.announce(42)
        server.start_anew()
        two.load((7,))
        until(lambda: server.names() == ["other", "ranker", "scorer__v7"][1:])
        one.states()
        assert server.labels["ranker"] == {"stable": 42}


def test_a_version_that_requests_go_to_is_not_unloaded(
    server: ServerDouble, serving: Path
) -> None:
    with TfServingTarget("ranker", serving, server.address) as target:
        target.load((42, 43))
        with Ledger(serving) as ledger, ledger.writing() as transaction:
            event = transaction.event("routed")
            route(transaction, Routing(stable=42, candidate=43, weight=0.05), event)
        assert text_of(lambda: target.load((43,))) == (
            "Requests for model 'ranker' go to version 42, which would be unloaded "
            "(what would be loaded is 43). Send requests elsewhere first, by a rollout "
            "or a rollback."
        )
        assert (
            "go to version 42 and 43, which would be unloaded (what would be loaded is "
            "nothing)" in text_of(target.release)
        )
        target.load((3, 42, 43))
        assert server.names() == ["ranker__v3", "ranker__v42", "ranker__v43"]


# --- the models of others


OTHERS = """model_config_list { config { name: "other" base_path: "/srv/other"
model_platform: "tensorflow" model_version_policy { all {} } } }"""


def test_the_users_models_and_those_of_other_targets_go_along(
    server: ServerDouble, serving: Path, tmp_path: Path
) -> None:
    user = tmp_path / "models.config"
    user.write_text(OTHERS)
    second = with_versions(tmp_path / "scorer", 7)
    with (
        TfServingTarget("ranker", serving, server.address, user_config=user) as one,
        TfServingTarget("scorer", second, server.address, user_config=user) as two,
    ):
        one.load((42,))
        two.load((7,))
        assert policies(server.sent[-1]) == {
            "other": [],
            "ranker__v42": [42],
            "scorer__v7": [7],
        }
        user.write_text(OTHERS.replace("/srv/other", "/srv/moved"))
        one.load((43,))
        sent = server.sent[-1].model_config_list.config
        assert [model.name for model in sent] == ["other", "scorer__v7", "ranker__v43"]
        assert sent[0].base_path == "/srv/moved"
        user.write_text(OTHERS.replace('"tensorflow"', '"jax"'))
        assert "Model 'other' changes its platform" in text_of(lambda: one.load((42,)))
        user.write_text(OTHERS)
        two.release()
        assert policies(server.sent[-1]) == {"other": [], "ranker__v43": [43]}
        one.release()
        assert policies(server.sent[-1]) == {"other": []}
        assert [path.suffix for path in (tmp_path / ".penstock-servers").iterdir()] == [
            ".lock"
        ]


def loaded(path: str, status: str) -> str:
    """Return the line with which a server tells that it tried to load a folder."""
    path = path.replace('"', '\\"')
    name = ":tensorflow:cc:saved_model:load_attempt_count"
    return f'{name}{{model_path="{path}",status="{status}"}} 1\n'


METRICS = (
    "# TYPE :tensorflow:serving:request_count counter\n"
    ':tensorflow:serving:request_count{model_name="wanted",status="OK"} 3\n'
    ':tensorflow:serving:request_count{status="NOT_FOUND",model_name="mistyped"} 9\n'
    "# TYPE :tensorflow:cc:saved_model:load_attempt_count counter\n"
    + loaded("/srv/other/7", "success")
    + loaded("/srv/gone/3", "success")
    + loaded('/srv/odd "name"/3', "fail")
)


def test_a_server_that_holds_models_of_others_is_refused(
    server: ServerDouble, serving: Path, tmp_path: Path
) -> None:
    server.models = {
        "wanted": {1: (State.AVAILABLE, "")},
        "gone": {3: (State.END, "")},
    }
    user = tmp_path / "models.config"
    user.write_text(OTHERS)
    with running_metrics(METRICS) as rest:
        with TfServingTarget(
            "ranker", serving, server.address, user_config=user, rest_address=rest
        ) as target:
            assert text_of(lambda: target.load((42,))) == (
                f"The model server at '{server.address}' holds a model of '/srv/odd "
                f"\"name\"' and 'wanted', which '{user}' does not name, and a reload "
                "would unload. Pass the file that lists all its models as the user's "
                "configuration."
            )
        with TfServingTarget(
            "ranker", serving, server.address, rest_address=rest
        ) as target:
            assert "which no configuration names, and a reload would unload" in text_of(
                lambda: target.load((42,))
            )
    assert server.sent == []


def test_a_server_that_holds_only_what_is_known_is_controlled(
    server: ServerDouble, serving: Path
) -> None:
    metrics = METRICS.replace("/srv/other", str(serving)).replace("wanted", "ranker")
    metrics = "\n".join(line for line in metrics.splitlines() if "odd" not in line)
    server.models["gone"] = {3: (State.END, "")}
    with (
        running_metrics(metrics) as rest,
        TfServingTarget("ranker", serving, server.address, rest_address=rest) as target,
    ):
        target.load((42,))
        target.load((43,))
        assert server.names() == ["ranker__v43"]


def test_metrics_that_are_not_there_get_a_sentence(
    server: ServerDouble, serving: Path
) -> None:
    cure = (
        "Start the server with --rest_api_port and --monitoring_config_file, or pass "
        "no REST address: then nobody looks whether it holds models of others."
    )
    with running_metrics("", 404) as rest:
        assert text_of(lambda: read_metrics(rest, 5.0)) == (
            f"The metrics of the model server at '{rest}' cannot be read: "
            f"'/monitoring/prometheus/metrics' gives status 404. {cure}"
        )
    assert text_of(lambda: read_metrics(rest, 5.0)) == (
        f"The metrics of the model server at '{rest}' cannot be read: Connection "
        f"refused. {cure}"
    )
    assert text_of(lambda: read_metrics("nonsense:port", 5.0)).endswith(cure)


def test_metrics_name_what_was_asked_for_and_loaded() -> None:
    seen = parse_metrics(METRICS)
    assert seen.names == {"wanted", "mistyped"}
    assert seen.base_paths == {"/srv/other", "/srv/gone", '/srv/odd "name"'}
    assert parse_metrics("").names == frozenset()


# --- one channel


def test_a_server_that_polls_a_file_is_told_by_the_file(
    server: ServerDouble, serving: Path, tmp_path: Path
) -> None:
    file = tmp_path / "polled.config"
    with TfServingTarget("ranker", serving, server.address, config_file=file) as target:
        target.load((42,))
        assert policies(read_config(file)) == {"ranker__v42": [42]}
        assert server.sent == []
        assert target.states() == {}
        server.models["ranker__v42"] = {42: (State.AVAILABLE, "")}
        assert target.states() == {42: AVAILABLE}
        file.write_text(OTHERS)
        assert "was not written by penstock" in text_of(lambda: target.load((43,)))


def test_two_channels_of_one_server_are_refused(
    server: ServerDouble, serving: Path, tmp_path: Path
) -> None:
    file = tmp_path / "polled.config"
    record = serving / ".penstock" / "servers" / f"127.0.0.1%3A{server.port}.json"
    with (
        TfServingTarget("ranker", serving, server.address) as calls,
        TfServingTarget("ranker", serving, server.address, config_file=file) as polled,
    ):
        calls.load((42,))
        for refused in (lambda: polled.load((42,)), polled.release):
            assert text_of(refused) == (
                f"The model server at '{server.address}' is controlled through calls, "
                f"not the file '{file}': whichever speaks last would undo what the "
                "other did. Use the same one, or end that control and remove "
                f"'{record}'."
            )
        assert not file.exists()
        calls.release()
        polled.load((42,))
        assert "is controlled through the file" in text_of(lambda: calls.load((42,)))


def test_another_folder_or_layout_of_the_model_is_refused(
    server: ServerDouble, serving: Path, tmp_path: Path
) -> None:
    user = tmp_path / "models.config"
    user.write_text(OTHERS)
    elsewhere = with_versions(tmp_path / "elsewhere", 42)
    with TfServingTarget("ranker", serving, server.address, user_config=user) as target:
        target.load((42,))
    with TfServingTarget(
        "ranker", elsewhere, server.address, user_config=user
    ) as other:
        assert text_of(lambda: other.load((42,))) == (
            f"Model 'ranker' is served from '{serving}' at '{server.address}', not "
            f"from '{elsewhere}'. Pass that folder, or give the model another name."
        )
    with TfServingTarget(
        "ranker", serving, server.address, user_config=user, layout="labels"
    ) as other:
        said = text_of(lambda: other.load((42,)))
        assert said == text_of(other.check)
        assert said.startswith(
            f"Model 'ranker' is served in the layout 'names' at '{server.address}', "
            "not 'labels'. Use that layout, or end its rollout and remove '"
        )


def test_many_controllers_lose_none_of_their_models(
    server: ServerDouble, tmp_path: Path
) -> None:
    user = tmp_path / "models.config"
    user.write_text(OTHERS)

    def control(model: str) -> None:
        folder = with_versions(tmp_path / model, 1, 2)
        with TfServingTarget(model, folder, server.address, user_config=user) as target:
            for versions in ((1,), (1, 2), (2,)):
                target.load(versions)

    threads = [
        threading.Thread(target=control, args=(model,)) for model in ("a", "b", "c")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.names() == ["a__v2", "b__v2", "c__v2"]
    assert policies(server.sent[-1]) == {
        "other": [],
        "a__v2": [2],
        "b__v2": [2],
        "c__v2": [2],
    }


# --- bad input


def test_a_version_that_is_not_there_gets_a_sentence(
    server: ServerDouble, serving: Path
) -> None:
    with TfServingTarget("ranker", serving, server.address) as target:
        assert text_of(lambda: target.load((42, 44))) == (
            f"Version 44 is not in serving directory '{serving}' (it has 1, 2, 3, 42, "
            "43). Name one of these, or push it again."
        )
        assert text_of(lambda: target.load((-1,))) == (
            "-1 is no version of 'ranker'. Pass a whole number from 1 on."
        )
    assert server.sent == []


def test_a_serving_directory_that_is_none_gets_a_sentence(tmp_path: Path) -> None:
    assert text_of(lambda: TfServingTarget("m", tmp_path / "no", "h:1")) == (
        f"Serving directory '{tmp_path}/no' does not exist. Pass the folder that holds "
        "the numbered versions."
    )
    assert "is no name of a model" in text_of(
        lambda: TfServingTarget("../m", tmp_path, "h:1")
    )
    assert "is no address of a gRPC server" in text_of(
        lambda: TfServingTarget("m", tmp_path, "nowhere")
    )


def test_a_server_that_is_not_there_gets_a_sentence(serving: Path) -> None:
    with running_double() as double:
        address = double.address
    with TfServingTarget("ranker", serving, address) as target:
        for call in (target.states, lambda: target.load((42,))):
            text = text_of(call)
            assert text.startswith(f"The model server at '{address}' cannot be reached")
            assert text.endswith(
                "Start it, or mend the address; it was tried without TLS."
            )


def test_what_was_recorded_holds_when_the_server_comes_back(
    server: ServerDouble, serving: Path
) -> None:
    with TfServingTarget("ranker", serving, server.address) as target:
        target.load((42,))
        server.refusal = (Code.UNAVAILABLE, "it dies")
        assert "cannot be reached: it dies." in text_of(lambda: target.load((42, 43)))
        server.refusal = None
        target.load((42, 43))
        assert server.names() == ["ranker__v42", "ranker__v43"]


@pytest.mark.parametrize("call", ["GetModelStatus", "HandleReloadConfigRequest"])
def test_a_server_that_is_too_old_gets_a_sentence(
    call: str, server: ServerDouble, serving: Path
) -> None:
    server.unknown.add(call)
    with TfServingTarget("ranker", serving, server.address) as target:
        assert text_of(lambda: target.load((42,))) == (
            f"The model server at '{server.address}' does not know the call '{call}': "
            "it is too old, or no TensorFlow Serving. Run TensorFlow Serving 2 or "
            "newer there."
        )


def test_a_server_that_does_not_allow_a_call_gets_a_sentence(
    server: ServerDouble, serving: Path
) -> None:
    server.refusal = (Code.PERMISSION_DENIED, "This port only predicts.")
    with TfServingTarget("ranker", serving, server.address) as target:
        assert text_of(lambda: target.load((42,))) == (
            f"The model server at '{server.address}' does not allow "
            "'HandleReloadConfigRequest': This port only predicts. Use the address and "
            "the token or certificate that it allows it to."
        )


def test_a_server_that_does_not_answer_gets_a_sentence(
    server: ServerDouble, serving: Path
) -> None:
    server.pause.clear()
    with TfServingTarget(
        "ranker", serving, server.address, deadline_seconds=0.2
    ) as target:
        assert text_of(target.states) == (
            f"The model server at '{server.address}' did not answer 'GetModelStatus' "
            "in 0.2 seconds. See what it is busy with, or allow more time."
        )


def test_states_of_later_servers_are_told_as_far_as_they_are_known(
    server: ServerDouble,
) -> None:
    server.models["m"] = {1: (State.UNLOADING, ""), 2: (State.END, "no disk")}
    unheard: Any = 60
    server.models["m"][3] = (unheard, "")
    with ServerControl(server.address) as control:
        assert control.statuses(["m", "n"]) == {
            "m": {
                1: Loaded(LoadState.UNLOADING),
                2: Loaded(LoadState.END, "no disk"),
                3: Loaded(LoadState.UNKNOWN),
            },
            "n": {},
        }


# --- security


TOKEN = "a-token-of-some-length"


def test_a_token_goes_with_every_call(server: ServerDouble, serving: Path) -> None:
    server.token = TOKEN
    with TfServingTarget("ranker", serving, server.address, token=TOKEN) as target:
        target.load((42,))
        assert target.states() == {42: AVAILABLE}
        target.probe(42)
    assert set(server.tokens) == {f"Bearer {TOKEN}"}
    for token in (None, "another-token-of-some-length"):
        with TfServingTarget("ranker", serving, server.address, token=token) as target:
            assert text_of(target.states) == (
                f"The model server at '{server.address}' lets nobody without the right "
                "token do 'GetModelStatus': No token. Pass the token of its token file."
            )


def test_a_token_does_not_cross_a_network_in_plain_text() -> None:
    text = text_of(lambda: ServerControl("10.0.0.1:8500", token=TOKEN))
    assert text == (
        "The token for '10.0.0.1:8500' would cross the network in plain text. Pass "
        "tls, or connect by loopback or a UNIX socket."
    )


def test_a_server_is_controlled_over_mutual_tls(serving: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    ours = Tls(*authority.sign("client"), authority.file)
    with running_double(Tls(*authority.sign("server"), authority.file)) as double:
        with TfServingTarget(
            "ranker", serving, double.address, tls=ours, token=TOKEN
        ) as target:
            target.load((42,))
            assert target.states() == {42: AVAILABLE}
        # Who has no certificate can load and unload nothing.
        nobody = Tls(authority=authority.file)
        with TfServingTarget("ranker", serving, double.address, tls=nobody) as target:
            assert text_of(target.states).endswith("it was tried with TLS.")


# --- imports


def test_control_imports_no_tensorflow() -> None:
    code = (
        "import sys\n"
        "from penstock.components.serving import target, server_process\n"
        "print([n for n in ('tensorflow', 'tensorflow_serving') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
