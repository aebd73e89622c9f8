"""Conformance: labels, and what the disk does to versions, over the wire.

Every case names what it mirrors in TensorFlow Serving, and runs against our server and,
where it is on PATH, against tensorflow_model_server.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import text_format

from penstock.components.serving.model_server.server import ModelServer
from penstock.schemas.errors import ServingError
from tests.components.serving.model_server.client import Client
from tests.components.serving.model_server.models import config, save_version
from tests.components.serving.model_server.test_conformance_core import state, y
from tests.components.serving.model_server.under_test import Starter, refused, until

Save = Callable[[int], Path]


# --- versions and labels


def test_model_spec_multiple_versions_available(two: Client, base: Path) -> None:
    """server_core_test.cc ModelSpecMultipleVersionsAvailable"""
    assert y(two) == 4  # the latest
    assert y(two, version=1) == 3
    labels = {"m": {"A": 1, "B": 2}}
    two.reload(config(m=base, specific={"m": [1, 2]}, labels=labels))
    assert y(two, label="A") == 3
    assert y(two, label="B") == 4
    assert refused(lambda: y(two, label="nonexistent label")) == (
        "INVALID_ARGUMENT",
        "Unrecognized servable version label: nonexistent label",
    )


def test_assign_label_to_unavailable_version(two: Client, base: Path) -> None:
    """server_core_test.cc AssignLabelToUnavailableVersion"""
    labels = {"m": {"nice try": 777}}
    wrong = config(m=base, specific={"m": [1, 2]}, labels=labels)
    assert refused(lambda: two.reload(wrong)) == (
        "FAILED_PRECONDITION",
        "Request to assign label to version 777 of model m, which is not currently "
        "available for inference",
    )


def test_assign_label_to_unavailable_version_allowed(
    start: Starter, base: Path, save: Save
) -> None:
    """server_core_test.cc AssignLabelToUnavailableVersionAllowed"""
    save(1)
    client = start(
        config(m=base), allow_version_labels_for_unavailable_models=True
    ).client
    client.reload(config(m=base, labels={"m": {"nice try": 777}}))
    assert refused(lambda: y(client, label="nice try")) == (
        "NOT_FOUND",
        "Servable not found for request: Specific(m, 777)",
    )


def test_assign_existing_label_to_unavailable_version(
    start: Starter, base: Path, save: Save
) -> None:
    """server_core_test.cc AssignExistingLabelToUnavailableVersion"""
    save(1)
    client = start(
        config(m=base), allow_version_labels_for_unavailable_models=True
    ).client
    client.reload(config(m=base, labels={"m": {"A": 1}}))
    wrong = config(m=base, labels={"m": {"A": 777}})
    assert refused(lambda: client.reload(wrong))[0] == "FAILED_PRECONDITION"
    assert y(client, label="A") == 3


def test_labels_are_checked_before_anything_loads(
    start: Starter, base: Path, save: Save
) -> None:
    """server_core.cc ReloadConfig (labels before sources)"""
    save(1)
    client = start(config(m=base, specific={"m": [1]})).client
    save(2)
    together = config(m=base, specific={"m": [1, 2]}, labels={"m": {"canary": 2}})
    assert refused(lambda: client.reload(together))[0] == "FAILED_PRECONDITION"
    time.sleep(0.2)
    assert client.states("m") == {1: "AVAILABLE"}  # nothing of it was applied
    # In two steps it works.
    client.reload(config(m=base, specific={"m": [1, 2]}))
    until(lambda: state(client, 2) == "AVAILABLE")
    client.reload(together)
    assert y(client, label="canary") == 4


def test_a_label_may_point_to_what_the_same_config_unloads(
    two: Client, base: Path
) -> None:
    """server_core.cc UpdateModelVersionLabelMap (does not look at the policy)"""
    two.reload(config(m=base, specific={"m": [2]}, labels={"m": {"stable": 1}}))
    until(lambda: state(two, 1) == "END")
    assert refused(lambda: y(two, label="stable")) == (
        "NOT_FOUND",
        "Servable not found for request: Specific(m, 1)",
    )


def test_a_label_is_moved_and_removed(two: Client, base: Path) -> None:
    """server_core.cc UpdateModelVersionLabelMap (swap)"""
    both = {"m": [1, 2]}
    two.reload(config(m=base, specific=both, labels={"m": {"stable": 1}}))
    assert y(two, label="stable") == 3
    two.reload(config(m=base, specific=both, labels={"m": {"stable": 2, "also": 2}}))
    assert y(two, label="stable") == y(two, label="also") == 4
    two.reload(config(m=base, specific=both))
    assert refused(lambda: y(two, label="stable")) == (
        "INVALID_ARGUMENT",
        "Unrecognized servable version label: stable",
    )


def test_a_refused_reload_leaves_labels_and_versions(two: Client, base: Path) -> None:
    """server_core.cc ReloadConfig (a failed reload applies nothing)"""
    both = {"m": [1, 2]}
    two.reload(config(m=base, specific=both, labels={"m": {"stable": 1}}))
    wrong = config(m=base, specific={"m": [2]}, labels={"m": {"stable": 9}})
    assert refused(lambda: two.reload(wrong))[0] == "FAILED_PRECONDITION"
    assert y(two, label="stable") == 3
    assert two.states("m") == {2: "AVAILABLE", 1: "AVAILABLE"}


def test_labels_are_of_one_model(two: Client, base: Path) -> None:
    """server_core.cc GetModelVersionForLabel (by model)"""
    labels = {"m": {"A": 1}}
    two.reload(config(m=base, n=base, specific={"m": [1, 2]}, labels=labels))
    assert y(two, label="A") == 3
    assert refused(lambda: y(two, model="n", label="A")) == (
        "INVALID_ARGUMENT",
        "Unrecognized servable version label: A",
    )


def test_a_config_with_labels_does_not_start(base: Path, save: Save) -> None:
    """server_core.cc ReloadConfig (restart trap: serving#1608, #1230)"""
    save(1)
    labelled = config(m=base, labels={"m": {"stable": 1}})
    path = base / "labelled.config"
    path.write_text(text_format.MessageToString(labelled))
    with (
        pytest.raises(ServingError) as error,
        ModelServer(model_config_file=str(path)),
    ):
        pass
    assert str(error.value) == (
        "Request to assign label to version 1 of model m, which is not currently "
        "available for inference"
    )
    with (
        ModelServer(
            model_config_file=str(path),
            allow_version_labels_for_unavailable_models=True,
        ) as server,
        Client(server.ports.address) as client,
    ):
        assert y(client, label="stable") == 3


# --- the disk


def test_a_new_latest_version_takes_over(
    start: Starter, base: Path, save: Save
) -> None:
    """availability_preserving_policy.h and serving_config.md (latest)"""
    save(1)
    client = start(config(m=base)).client
    save(2)
    until(lambda: y(client) == 4)
    until(lambda: client.states("m") == {2: "AVAILABLE", 1: "END"})


def test_a_lower_number_is_not_the_latest(
    start: Starter, base: Path, save: Save
) -> None:
    """serving_config.md (latest: the largest version number)"""
    save(5)
    client = start(config(m=base)).client
    save(4)
    time.sleep(0.2)
    assert client.states("m") == {5: "AVAILABLE"}


def test_two_latest_versions(start: Starter, base: Path, save: Save) -> None:
    """model_server_config.proto latest.num_versions"""
    for version in (1, 2, 3):
        save(version)
    client = start(config(m=base, latest={"m": 2})).client
    until(lambda: client.states("m") == {3: "AVAILABLE", 2: "AVAILABLE"})


def test_all_versions(start: Starter, base: Path, save: Save) -> None:
    """model_server_config.proto all"""
    for version in (1, 2, 3):
        save(version)
    client = start(config(m=base, every=["m"])).client
    until(lambda: list(client.states("m").values()) == ["AVAILABLE"] * 3)
    assert list(client.states("m")) == [3, 2, 1]
    assert [y(client, version=version) for version in (1, 2, 3)] == [3, 4, 5]


def test_a_renamed_version_is_rolled_back(
    start: Starter, base: Path, save: Save
) -> None:
    """file_system_storage_path_source_test.cc ServableVersionDirRenamed (served)"""
    save(1)
    save(2)
    client = start(config(m=base)).client
    assert y(client) == 4
    (base / "2").rename(base / "2.denied")
    until(lambda: y(client) == 3)
    until(lambda: state(client, 2) == "END")


def test_the_last_version_is_unloaded_when_it_goes(
    start: Starter, base: Path, save: Save
) -> None:
    """file_system_storage_path_source.proto servable_versions_always_present (off)"""
    save(1)
    client = start(config(m=base)).client
    shutil.rmtree(base / "1")
    until(lambda: state(client, 1) == "END")
    assert refused(lambda: y(client))[0] == "NOT_FOUND"


def test_a_missing_base_path_changes_nothing(
    start: Starter, base: Path, save: Save
) -> None:
    """file_system_storage_path_source.cc (transiently unavailable base-path)"""
    save(1)
    client = start(config(m=base)).client
    base.rename(base.with_name("away"))
    time.sleep(0.2)
    assert y(client) == 3
    base.with_name("away").rename(base)


def test_a_served_folder_is_never_read_again(
    start: Starter, template: Path, base: Path, save: Save
) -> None:
    """architecture.md (a version is immutable) and basic_manager.cc"""
    save(1)
    other = save_version(template, base.with_name("other"), 7)
    client = start(config(m=base)).client
    # At once: a version that is seen to be gone is unloaded.
    os.rename(base / "1", base.with_name("gone"))
    os.rename(other, base / "1")
    time.sleep(0.2)
    assert y(client) == 3


def test_a_failed_version_leaves_the_old_one_serving(
    start: Starter, base: Path, save: Save
) -> None:
    """availability_preserving_policy_test.cc DoesNotUnloadWhenOtherInError (served)"""
    save(1)
    client = start(config(m=base)).client
    (base / "2").mkdir()
    until(lambda: state(client, 2) == "END")
    code, text = client.error("m", 2)
    assert code == 5
    assert text.startswith("Could not find SavedModel .pb or .pbtxt")
    assert y(client) == 3
    assert state(client, 1) == "AVAILABLE"


def test_a_failed_version_is_not_tried_again(
    start: Starter, template: Path, base: Path, save: Save
) -> None:
    """server_core.h enable_reload_servables_with_error (off, no flag)"""
    save(1)
    client = start(config(m=base)).client
    (base / "2").mkdir()
    until(lambda: state(client, 2) == "END")
    # The copy that was not finished is finished now: too late for this number.
    whole = save_version(template, base.with_name("other"), 2)
    shutil.copytree(whole, base / "2", dirs_exist_ok=True)
    time.sleep(0.3)
    assert state(client, 2) == "END"
    assert y(client) == 3
    save(3)
    until(lambda: y(client) == 5)


def test_a_plain_file_is_tried_and_fails(
    start: Starter, base: Path, save: Save
) -> None:
    """file_system_storage_path_source.cc (a file is aspired) and reader.cc"""
    save(1)
    client = start(config(m=base)).client
    (base / "43").touch()
    until(lambda: state(client, 43) == "END")
    assert client.error("m", 43)[0] == 5


def test_a_partial_copy_is_available_and_fails(
    start: Starter, base: Path, save: Save
) -> None:
    """serving#1086 and loader.cc RunRestore (no variables.index)"""
    folder = save(1)
    (folder / "variables" / "variables.index").unlink()
    client = start(config(m=base)).client
    assert state(client, 1) == "AVAILABLE"
    for _ in range(3):
        assert refused(lambda: y(client))[0] == "FAILED_PRECONDITION"
