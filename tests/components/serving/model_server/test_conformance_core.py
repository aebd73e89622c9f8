"""Conformance: configs, reloads, labels and states, over the wire.

Every case names what it mirrors in TensorFlow Serving, and runs against our server and,
where it is on PATH, against tensorflow_model_server.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2
from tensorflow_serving.config import model_server_config_pb2

from penstock.components.serving.model_server.server import ModelServer
from penstock.schemas.errors import ServingError
from tests.components.serving.model_server.client import Client
from tests.components.serving.model_server.models import (
    answer,
    config,
    predict_request,
    save_version,
)
from tests.components.serving.model_server.under_test import Starter, refused, until

Save = Callable[[int], Path]


def state(client: Client, version: int, model: str = "m") -> str:
    return client.states(model).get(version, "")


def y(client: Client, **which: object) -> float:
    """Return 2 + the version that answers."""
    request = predict_request([1.0], **{"model": "m", **which})  # type: ignore[arg-type]
    return float(answer(client.predict(request))[0])


# --- starting and reloading


def test_create_waits_till_models_available(
    start: Starter, base: Path, save: Save
) -> None:
    """server_core_test.cc CreateWaitsTillModelsAvailable"""
    save(123)
    client = start(config(m=base)).client
    assert client.states("m") == {123: "AVAILABLE"}
    assert y(client) == 125


def test_reload_config_waits_till_models_available(
    start: Starter, base: Path, save: Save
) -> None:
    """server_core_test.cc ReloadConfigWaitsTillModelsAvailable"""
    save(1)
    client = start(config()).client
    client.reload(config(m=base))
    assert client.states("m") == {1: "AVAILABLE"}


def test_reload_config_unloads_models(start: Starter, base: Path, save: Save) -> None:
    """server_core_test.cc ReloadConfigUnloadsModels"""
    save(1)
    client = start(config(m=base)).client
    client.reload(config())
    until(lambda: state(client, 1) == "END")
    assert refused(lambda: y(client)) == (
        "NOT_FOUND",
        "Servable not found for request: Latest(m)",
    )
    assert client.error("m", 1) == (0, "")


def test_reload_config_handles_loading_a_previously_unloaded_model(
    start: Starter, base: Path, save: Save
) -> None:
    """server_core_test.cc ReloadConfigHandlesLoadingAPreviouslyUnloadedModel"""
    save(1)
    client = start(config(m=base)).client
    client.reload(config())
    until(lambda: state(client, 1) == "END")
    client.reload(config(m=base))
    assert state(client, 1) == "AVAILABLE"


def test_reload_config_change_model_base_path(
    start: Starter, template: Path, tmp_path: Path
) -> None:
    """server_core_test.cc ReloadConfigChangeModelBasePath"""
    save_version(template, tmp_path / "one", 1)
    for version in (1, 2):
        save_version(template, tmp_path / "two", version)
    client = start(config(m=tmp_path / "one")).client
    client.reload(config(m=tmp_path / "two"))
    until(lambda: y(client) == 4)
    until(lambda: state(client, 1) == "END")
    client.reload(config(m=tmp_path / "one"))
    until(lambda: y(client) == 3)


def test_a_new_config_replaces_the_old_one(
    start: Starter, base: Path, save: Save
) -> None:
    """server_core.h ReloadConfig (models that are left out are unloaded)"""
    save(1)
    client = start(config(a=base, b=base)).client
    client.reload(config(b=base, c=base))
    assert y(client, model="b") == y(client, model="c") == 3
    until(lambda: state(client, 1, "a") == "END")


def test_two_names_may_share_a_base_path(
    start: Starter, base: Path, save: Save
) -> None:
    """server_core.cc ValidateModelConfigList (only names are unique)"""
    save(1)
    save(2)
    shared = config(a=base, b=base, specific={"a": [1], "b": [2]})
    client = start(shared).client
    assert (y(client, model="a"), y(client, model="b")) == (3, 4)


def test_a_reload_waits_for_a_new_name(start: Starter, base: Path, save: Save) -> None:
    """server_core.cc AddModelsViaModelConfigList (NewModelNamesInSourceConfig)"""
    client = start(config()).client
    base.mkdir()
    waiting = client.reload_future(config(m=base))
    time.sleep(0.2)
    assert not waiting.done()
    save(1)
    waiting.result()
    assert state(client, 1) == "AVAILABLE"


def test_a_reload_does_not_wait_for_a_new_version(
    start: Starter, base: Path, save: Save
) -> None:
    """server_core.cc WaitUntilModelsAvailable (of new names only)"""
    save(1)
    client = start(config(m=base, specific={"m": [1]})).client
    # Version 9 is not there and never will be; that is no error either.
    client.reload(config(m=base, specific={"m": [1, 9]}))
    assert client.states("m") == {1: "AVAILABLE"}


def test_a_new_name_that_does_not_load_is_an_error(start: Starter, base: Path) -> None:
    """server_core.cc WaitUntilModelsAvailable (did not become available)"""
    (base / "1").mkdir(parents=True)
    client = start(config()).client
    code, text = refused(lambda: client.reload(config(m=base)))
    assert code == "UNKNOWN"
    assert text.startswith(
        "1 model(s) did not become available: {{{name: m version: 1} due to error: "
    )
    assert "Could not find SavedModel .pb or .pbtxt at supplied export dir" in text
    assert state(client, 1) == "END"


def test_erroring_model(base: Path) -> None:
    """server_core_test.cc ErroringModel"""
    (base / "1").mkdir(parents=True)
    with (
        pytest.raises(ServingError, match=r"1 servable\(s\) did not become available"),
        ModelServer(model_base_path=str(base), max_num_load_retries=0),
    ):
        pass


def test_the_highest_version_decides(start: Starter, base: Path, save: Save) -> None:
    """servable_state_monitor.cc HasAnyServableInStreamReachedState"""
    save(1)
    (base / "2").mkdir()
    client = start(config()).client
    both = config(m=base, specific={"m": [1, 2]})
    # The highest is tried first and fails, which decides, though 1 loads.
    assert refused(lambda: client.reload(both))[0] == "UNKNOWN"
    until(lambda: state(client, 1) == "AVAILABLE")


def test_reload_with_an_empty_config_is_refused(
    start: Starter, base: Path, save: Save
) -> None:
    """model_service_impl.cc HandleReloadConfigRequest (only ModelConfigList)"""
    save(1)
    client = start(config(m=base)).client
    empty = model_server_config_pb2.ModelServerConfig()
    custom = model_server_config_pb2.ModelServerConfig()
    custom.custom_model_config.SetInParent()
    for wrong in (empty, custom):
        assert refused(lambda wrong=wrong: client.reload(wrong)) == (  # type: ignore[misc]
            "INVALID_ARGUMENT",
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
            "ModelConfigList is currently supported",
        )
    assert y(client) == 3


def test_a_reload_answers_ok(start: Starter, base: Path, save: Save) -> None:
    """model_management.proto ReloadConfigResponse status"""
    save(1)
    client = start(config(m=base)).client
    response = client.call(
        "ModelService/HandleReloadConfigRequest",
        model_management_pb2.ReloadConfigRequest(config=config(m=base)),
    )
    assert response.status.error_code == 0


def test_duplicate_model_name_in_config(start: Starter, base: Path, save: Save) -> None:
    """server_core_test.cc DuplicateModelNameInConfig"""
    save(1)
    client = start(config(m=base)).client
    twice = config(m=base)
    twice.model_config_list.config.add().CopyFrom(twice.model_config_list.config[0])
    assert refused(lambda: client.reload(twice)) == (
        "INVALID_ARGUMENT",
        "Illegal to list model m multiple times in config list",
    )


def test_relative_path_fails(start: Starter, base: Path, save: Save) -> None:
    """server_core_test.cc RelativePathFails"""
    save(1)
    client = start(config(m=base)).client
    assert refused(lambda: client.reload(config(m=base, r="models/r"))) == (
        "INVALID_ARGUMENT",
        "Expected model r to have an absolute path or URI; got base_path()=models/r",
    )
    assert refused(lambda: y(client, model="r"))[0] == "NOT_FOUND"


def test_unknown_model_platform(start: Starter, base: Path, save: Save) -> None:
    """server_core_test.cc UnknownModelPlatform"""
    save(1)
    client = start(config()).client
    odd = config(m=base)
    odd.model_config_list.config[0].model_platform = "not_a_known_platform"
    assert refused(lambda: client.reload(odd)) == (
        "INVALID_ARGUMENT",
        "Model m requests unsupported platform not_a_known_platform",
    )


def test_illegal_to_change_model_platform(
    start: Starter, base: Path, save: Save
) -> None:
    """server_core_test.cc IllegalToChangeModelPlatform"""
    save(1)
    client = start(config(m=base)).client
    odd = config(m=base)
    odd.model_config_list.config[0].model_platform = "caffe"
    assert refused(lambda: client.reload(odd)) == (
        "INVALID_ARGUMENT",
        "Illegal to change a model's platform. For model m platform was tensorflow "
        "and new platform requested is caffe",
    )
    assert y(client) == 3


def test_illegal_config_model_type_and_platform_set(
    start: Starter, base: Path, save: Save
) -> None:
    """server_core_test.cc IllegalConfigModelTypeAndPlatformSet"""
    save(1)
    client = start(config()).client
    both = config(m=base)
    both.model_config_list.config[0].model_type = model_server_config_pb2.TENSORFLOW
    code, text = refused(lambda: client.reload(both))
    assert code == "INVALID_ARGUMENT"
    assert "Illegal setting both" in text


def test_deprecated_model_type_config(start: Starter, base: Path, save: Save) -> None:
    """server_core_test.cc DeprecatedModelTypeConfig"""
    save(1)
    old = config(m=base)
    old.model_config_list.config[0].ClearField("model_platform")
    old.model_config_list.config[0].model_type = model_server_config_pb2.TENSORFLOW
    assert y(start(old).client) == 3


def test_neither_type_nor_platform(start: Starter, base: Path, save: Save) -> None:
    """server_core.cc GetPlatform (neither)"""
    save(1)
    client = start(config()).client
    neither = config(m=base)
    neither.model_config_list.config[0].ClearField("model_platform")
    code, text = refused(lambda: client.reload(neither))
    assert code == "INVALID_ARGUMENT"
    assert "Illegal setting neither" in text


def test_request_logging_without_a_logger(
    start: Starter, base: Path, save: Save
) -> None:
    """server_request_logger.cc Update (No request-logger-creator provided.)"""
    save(1)
    client = start(config()).client
    logged = config(m=base)
    logging = logged.model_config_list.config[0].logging_config
    logging.sampling_config.sampling_rate = 1.0
    assert refused(lambda: client.reload(logged)) == (
        "INVALID_ARGUMENT",
        "No request-logger-creator provided.",
    )
    # It is the last step, so the model is served all the same.
    assert y(client) == 3


# --- the config file


def test_a_config_file_is_read_again_and_again(
    start: Starter, base: Path, save: Save, tmp_path: Path
) -> None:
    """server.cc PollFilesystemAndReloadConfig"""
    save(1)
    client = start(config(m=base), model_config_file_poll_wait_seconds=1).client
    path = tmp_path / "models.config"
    path.write_text("this is no config {")  # only logged
    time.sleep(1.5)
    assert y(client) == 3
    path.write_text(text_format.MessageToString(config(n=base)))
    until(lambda: state(client, 1, "n") == "AVAILABLE")
    until(lambda: state(client, 1) == "END")


def test_a_config_file_is_read_once_by_default(
    start: Starter, base: Path, save: Save, tmp_path: Path
) -> None:
    """main.cc model_config_file_poll_wait_seconds (0)"""
    save(1)
    client = start(config(m=base)).client
    text = text_format.MessageToString(config(n=base))
    (tmp_path / "models.config").write_text(text)
    time.sleep(0.3)
    assert y(client) == 3
    assert client.states("n") == {}


def test_the_config_file_undoes_a_reload(
    start: Starter, base: Path, save: Save
) -> None:
    """server.cc PollFilesystemAndReloadConfig (unconditionally; serving#774)"""
    save(1)
    client = start(config(m=base), model_config_file_poll_wait_seconds=1).client
    client.reload(config(n=base))
    until(lambda: state(client, 1, "n") == "END")
    until(lambda: state(client, 1) == "AVAILABLE")


def test_a_broken_config_file_fails_the_start(tmp_path: Path) -> None:
    """server.cc ReadProtoFromFile (TF_CHECK_OK)"""
    path = tmp_path / "models.config"
    path.write_text("no config {")
    with pytest.raises(ServingError) as error:
        ModelServer(model_config_file=str(path))
    assert str(error.value).startswith(
        f"Model config file '{path}' is no ModelServerConfig in text form: "
    )
    with pytest.raises(ServingError) as error:
        ModelServer(model_config_file=str(tmp_path / "none"))
    assert str(error.value) == (
        f"Model config file '{tmp_path}/none' cannot be read: No such file or "
        "directory. Check --model_config_file."
    )


def test_an_empty_config_file_serves_nothing_yet(
    start: Starter, base: Path, save: Save, tmp_path: Path
) -> None:
    """server_core.cc ReloadConfig (Taking no action for empty config.)"""
    save(1)
    nothing = model_server_config_pb2.ModelServerConfig()
    client = start(nothing).client
    assert client.states("m") == {}
    client.reload(config(m=base))
    assert y(client) == 3


def test_a_custom_config_is_refused(base: Path, tmp_path: Path) -> None:
    """server.cc LoadCustomModelConfig (LOG(FATAL))"""
    path = tmp_path / "models.config"
    path.write_text("custom_model_config { }")
    with (
        pytest.raises(ServingError) as error,
        ModelServer(model_config_file=str(path)),
    ):
        pass
    assert str(error.value) == "ModelServer does not yet support custom model config."


def test_illegal_reconfiguration_to_custom_config(base: Path, save: Save) -> None:
    """server_core_test.cc IllegalReconfigurationToCustomConfig"""
    save(1)
    custom = model_server_config_pb2.ModelServerConfig()
    custom.custom_model_config.SetInParent()
    with (
        ModelServer(model_name="m", model_base_path=str(base)) as server,
        pytest.raises(ServingError) as error,
    ):
        server.core.reload(custom)
    assert str(error.value) == (
        "Cannot transition to requested config. It is only legal to transition from "
        "one ModelConfigList to another."
    )


# --- GetModelStatus


def test_missing_or_empty_model_spec_failure(two: Client) -> None:
    """get_model_status_impl_test.cc MissingOrEmptyModelSpecFailure"""
    empty = get_model_status_pb2.GetModelStatusRequest()
    assert refused(lambda: two.call("ModelService/GetModelStatus", empty)) == (
        "INVALID_ARGUMENT",
        "Missing ModelSpec",
    )


def test_invalid_model_name_failure(two: Client) -> None:
    """get_model_status_impl_test.cc InvalidModelNameFailure"""
    assert refused(lambda: two.status("nope")) == (
        "NOT_FOUND",
        "Could not find any versions of model nope",
    )


def test_invalid_model_version_failure(two: Client) -> None:
    """get_model_status_impl_test.cc InvalidModelVersionFailure"""
    assert refused(lambda: two.status("m", 9)) == (
        "NOT_FOUND",
        "Could not find version 9 of model m",
    )


def test_all_versions_success(two: Client) -> None:
    """get_model_status_impl_test.cc AllVersionsSuccess"""
    entries = two.status("m").model_version_status
    assert {entry.version for entry in entries} == {1, 2}
    assert {entry.status.error_code for entry in entries} == {0}
    assert {entry.status.error_message for entry in entries} == {""}


def test_single_version_success(two: Client) -> None:
    """get_model_status_impl_test.cc SingleVersionSuccess"""
    (entry,) = two.status("m", 1).model_version_status
    assert (entry.version, entry.state, entry.status.error_code) == (1, 30, 0)


def test_the_label_is_ignored_by_status(two: Client) -> None:
    """get_model_status_impl.cc (has_version is all it looks at)"""
    assert len(two.status("m", label="no such label").model_version_status) == 2


# --- loads and retries


def test_a_load_is_retried_in_the_managers_thread(
    base: Path, save: Save, tmp_path: Path
) -> None:
    """server.h num_load_threads (0) and retrier.cc"""
    save(1)
    faults = tmp_path / "faults"
    faults.write_text('{"m": {"2": {"load_error": "Not yet."}}}')
    with (
        ModelServer(
            model_name="m",
            model_base_path=str(base),
            file_system_poll_wait_seconds=0.03,
            max_num_load_retries=1_000_000,
            load_retry_interval_micros=20_000,
            fault_file=str(faults),
        ) as server,
        Client(server.ports.address) as client,
    ):
        save(2)
        until(lambda: state(client, 2) == "LOADING")
        save(3)
        time.sleep(0.3)
        # Nothing else is noticed meanwhile, but requests are answered.
        assert client.states("m") == {2: "LOADING", 1: "AVAILABLE"}
        assert y(client) == 3
        faults.unlink()
        until(lambda: y(client) == 5)


def test_the_reload_of_another_waits(base: Path, save: Save, tmp_path: Path) -> None:
    """server_core.cc ReloadConfig (config_mu_ is held for the whole of it)"""
    save(1)
    with (
        ModelServer(model_name="m", model_base_path=str(base)) as server,
        Client(server.ports.address) as client,
    ):
        empty = tmp_path / "empty"
        empty.mkdir()
        first = client.reload_future(config(m=base, n=empty))
        time.sleep(0.1)
        with pytest.raises(grpc.RpcError) as error:
            client.reload(config(m=base), seconds=0.3)
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert not first.done()
        first.cancel()
