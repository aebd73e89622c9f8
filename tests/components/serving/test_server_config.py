"""Configurations of servers: what is sent, what is refused, how it is written."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_serving.config import model_server_config_pb2

from penstock.components.serving import server_config as module
from penstock.components.serving.messages import ModelServerConfig
from penstock.components.serving.server_config import (
    Served,
    address_of,
    check_available,
    check_change,
    check_config,
    config_text,
    parse_config,
    read_config,
    served_name,
    server_config,
    without_labels,
    write_config,
)
from penstock.components.serving.server_record import (
    Record,
    locked_record,
    read_record,
    record_path,
    write_record,
)
from penstock.schemas.errors import ServingError

RANKER = Path("/srv/ranker")

USERS = """
model_config_list {
  config {
    name: "other" base_path: "/srv/other" model_platform: "tensorflow"
    model_version_policy { all {} }
    version_labels { key: "best" value: 7 }
    logging_config { sampling_config { sampling_rate: 0.25 } }
  }
  config { name: "old" base_path: "/srv/old" model_type: OTHER }
}
"""


def config(text: str) -> Any:
    return text_format.Parse(text, ModelServerConfig())


def refused(check: Any, *arguments: Any) -> str:
    with pytest.raises(ServingError) as caught:
        check(*arguments)
    return str(caught.value)


# --- what is sent


def test_every_version_has_a_name_of_its_own() -> None:
    made = server_config(ModelServerConfig(), [Served("ranker", RANKER, (43, 42))])
    assert made == config(
        """model_config_list {
          config { name: "ranker__v43" base_path: "/srv/ranker"
            model_platform: "tensorflow"
            model_version_policy { specific { versions: 43 } } }
          config { name: "ranker__v42" base_path: "/srv/ranker"
            model_platform: "tensorflow"
            model_version_policy { specific { versions: 42 } } } }"""
    )


def test_the_bare_name_is_pinned_to_the_stable_version() -> None:
    served = Served("ranker", RANKER, (42, 43), stable=42)
    made = server_config(ModelServerConfig(), [served])
    assert [each.name for each in made.model_config_list.config] == list(served.names)
    assert served.names == ("ranker__v42", "ranker__v43", "ranker")
    bare = made.model_config_list.config[2]
    assert list(bare.model_version_policy.specific.versions) == [42]


def test_one_name_has_all_versions_and_their_labels() -> None:
    served = Served("ranker", RANKER, (43, 42), "labels", stable=42, canary=43)
    made = server_config(ModelServerConfig(), [served])
    assert made == config(
        """model_config_list { config { name: "ranker" base_path: "/srv/ranker"
            model_platform: "tensorflow"
            model_version_policy { specific { versions: 42 versions: 43 } }
            version_labels { key: "stable" value: 42 }
            version_labels { key: "canary" value: 43 } } }"""
    )
    assert served.names == ("ranker",)


def test_the_users_other_models_go_along_unchanged() -> None:
    user = config(USERS)
    made = server_config(user, [Served("ranker", RANKER, (1,))])
    assert list(made.model_config_list.config[:2]) == list(
        user.model_config_list.config
    )
    assert made.model_config_list.config[2].name == "ranker__v1"


def test_a_server_of_no_models_is_sent_an_empty_list_and_not_nothing() -> None:
    # TensorFlow Serving does nothing at all with a configuration that has no list.
    for layout in ("names", "labels"):
        made = server_config(ModelServerConfig(), [Served("m", RANKER, (), layout)])
        assert made.WhichOneof("config") == "model_config_list"
        theirs = model_server_config_pb2.ModelServerConfig.FromString(
            made.SerializeToString()
        )
        assert theirs.WhichOneof("config") == "model_config_list"


def test_tensorflow_serving_reads_the_text_as_it_is_meant() -> None:
    made = server_config(
        config(USERS), [Served("ranker", RANKER, (42,), "labels", stable=42)]
    )
    theirs = text_format.Parse(
        config_text(made), model_server_config_pb2.ModelServerConfig()
    )
    assert ModelServerConfig.FromString(theirs.SerializeToString()) == made
    assert parse_config(config_text(made)) == made


def test_an_entry_of_the_same_model_gives_way() -> None:
    user = config(
        'model_config_list { config { name: "ranker" base_path: "/srv/ranker/" '
        'model_platform: "tensorflow" } }'
    )
    for served in (
        Served("ranker", RANKER, (42,), stable=42),
        Served("ranker", RANKER, (42,), "labels"),
    ):
        made = server_config(user, [served])
        assert [each.name for each in made.model_config_list.config] == list(
            served.names
        )


def test_an_entry_that_means_something_else_does_not() -> None:
    def user(path: str, platform: str) -> Any:
        return config(
            f'model_config_list {{ config {{ name: "ranker" base_path: "{path}" '
            f'model_platform: "{platform}" }} }}'
        )

    pinned = Served("ranker", RANKER, (42,), stable=42)
    assert refused(server_config, user("/srv/else", "tensorflow"), [pinned]) == (
        "Model 'ranker' lies in '/srv/else' in your configuration and in '/srv/ranker' "
        "here. Use one of the folders for both."
    )
    assert refused(server_config, user("/srv/ranker", "jax"), [pinned]) == (
        "Model 'ranker' has the platform 'jax' in your configuration, and penstock "
        "controls models of the platform 'tensorflow'. Control another model, or "
        "rename one."
    )
    unpinned = Served("ranker", RANKER, (42, 43))
    assert refused(server_config, user("/srv/ranker", "tensorflow"), [unpinned]) == (
        "Your configuration serves 'ranker' under its bare name, whose callers get "
        "another version as soon as one is loaded. Take it out of your file, or say "
        "which version is stable, and penstock pins it to that."
    )


def test_the_configuration_to_start_with_has_no_labels() -> None:
    served = Served("ranker", RANKER, (42, 43), "labels", stable=42, canary=43)
    made = server_config(config(USERS), [served])
    boot = without_labels(made)
    assert not any(each.version_labels for each in boot.model_config_list.config)
    assert len(made.model_config_list.config[2].version_labels) == 2
    for each in made.model_config_list.config:
        each.ClearField("version_labels")
    assert boot == made


# --- rules

VERSIONS = st.lists(st.integers(1, 6), max_size=4, unique=True).map(tuple)
MAYBE = st.none() | st.integers(1, 6)


@given(VERSIONS, MAYBE, MAYBE, st.sampled_from(["names", "labels"]))
def test_no_configuration_labels_what_it_does_not_load(
    versions: tuple[int, ...], stable: int | None, canary: int | None, layout: Any
) -> None:
    served = Served("m", RANKER, versions, layout, stable, canary)
    lost = layout == "labels" and not {stable, canary} - {None} <= set(versions)
    if lost:
        assert "which the same configuration does not load" in refused(
            server_config, ModelServerConfig(), [served]
        )
        return
    made = server_config(ModelServerConfig(), [served])
    names = [each.name for each in made.model_config_list.config]
    assert len(set(names)) == len(names)
    loaded = set()
    for each in made.model_config_list.config:
        policy = set(each.model_version_policy.specific.versions)
        assert set(each.version_labels.values()) <= policy
        loaded |= policy
        assert each.base_path == "/srv/ranker"
    pinned = {stable} - {None} if layout == "names" else set()
    assert loaded == set(versions) | pinned


@given(VERSIONS, MAYBE, MAYBE)
def test_nobody_is_sent_to_what_is_not_available(
    available: tuple[int, ...], stable: int | None, canary: int | None
) -> None:
    served = Served("m", RANKER, (), "labels", stable, canary)
    if {stable, canary} - {None} <= set(available):
        check_available(served, available)
    else:
        with pytest.raises(ServingError):
            check_available(served, available)


def test_a_label_that_would_lose_its_version_gets_a_sentence() -> None:
    served = Served("ranker", RANKER, (43, 44), "labels", stable=42)
    assert refused(server_config, ModelServerConfig(), [served]) == (
        "Label 'stable' of model 'ranker' names version 42, which the same "
        "configuration does not load (it loads 43, 44). Keep it loaded, or move the "
        "label first."
    )
    assert refused(check_available, served, [43]) == (
        "Version 42 of model 'ranker' cannot become stable: the server has not loaded "
        "it (it has 43). Load it first, and wait until it is available."
    )
    served = Served("ranker", RANKER, (43, 44), "labels", canary=44)
    assert refused(check_available, served, []) == (
        "Version 44 of model 'ranker' cannot become canary: the server has not loaded "
        "it (it has none). Load it first, and wait until it is available."
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            'model_config_list { config { name: "a" base_path: "/a" model_platform: "t"'
            ' } config { name: "a" base_path: "/b" model_platform: "t" } }',
            "The configuration names model 'a' twice, and names are unique in a "
            "server. Rename one of them.",
        ),
        (
            'model_config_list { config { base_path: "/a" model_platform: "t" } }',
            "The configuration has a model without a name, at '/a'. Give it one.",
        ),
        (
            'model_config_list { config { name: "a" base_path: "models/a" } }',
            "Model 'a' has the base path 'models/a', which means another folder in "
            "every process. Write it from '/' on.",
        ),
        (
            'model_config_list { config { name: "a" base_path: "/a" } }',
            "Model 'a' has no platform. Write 'model_platform: \"tensorflow\"' into "
            "its configuration.",
        ),
        (
            "custom_model_config {}",
            "The configuration has a 'custom_model_config', with which TensorFlow "
            "Serving ends. List the models in 'model_config_list'.",
        ),
        (
            'model_config_list { config { name: "a" base_path: "gs://b/a" '
            'model_platform: "t" model_version_policy { specific { versions: 1 } } '
            'version_labels { key: "x" value: 2 } } }',
            "Label 'x' of model 'a' names version 2, which the same configuration does "
            "not load (it loads 1). Keep it loaded, or move the label first.",
        ),
    ],
)
def test_a_configuration_against_the_rules_gets_a_sentence(
    text: str, sentence: str, tmp_path: Path
) -> None:
    assert refused(check_config, config(text)) == sentence
    path = tmp_path / "models.config"
    path.write_text(text)
    assert refused(read_config, path) == f"Model config file '{path}': {sentence}"


def test_a_platform_that_changes_gets_a_sentence() -> None:
    def of(platform: str) -> Any:
        return config(
            f'model_config_list {{ config {{ name: "a" base_path: "/a" {platform} }} }}'
        )

    tensorflow = of('model_platform: "tensorflow"')
    check_change(tensorflow, of("model_type: TENSORFLOW"))
    check_change(ModelServerConfig(), tensorflow)
    check_change(tensorflow, ModelServerConfig())
    assert refused(check_change, of("model_type: OTHER"), tensorflow) == (
        "Model 'a' changes its platform from 'other' to 'tensorflow', which a running "
        "server does not take. Give it another name, or start the server anew."
    )


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a:b", "a b", "ä", "a\n", "x" * 201]
)
def test_a_name_that_means_more_than_a_name_gets_a_sentence(name: str) -> None:
    for made in (lambda: Served(name, RANKER), lambda: served_name(name, 1)):
        assert refused(made) == (
            f"'{name}' is no name of a model: letters, digits, '_', '-' and '.' are "
            "taken, at most 200 of them. Choose another name."
        )


@pytest.mark.parametrize("version", [0, -1, 2**63, True, "7", 1.0, "../7"])
def test_a_number_that_is_no_version_gets_a_sentence(version: Any) -> None:
    for made in (
        lambda: Served("m", RANKER, (version,)),
        lambda: Served("m", RANKER, stable=version),
        lambda: served_name("m", version),
        lambda: address_of("m", version, "labels"),
    ):
        text = refused(made)
        assert "is no version of 'm'. Pass a whole number from 1 on." in text
        assert str(version) in text


def test_an_unknown_layout_gets_a_sentence() -> None:
    layout: Any = "label"
    assert refused(lambda: Served("m", RANKER, layout=layout)) == (
        "'label' is no layout. Choose 'names' (one served name per version) or "
        "'labels'. Did you mean 'labels'?"
    )


def test_versions_are_reached_by_name_or_by_number() -> None:
    assert address_of("ranker", 42, "names") == ("ranker__v42", None)
    assert address_of("ranker", 42, "labels") == ("ranker", 42)


# --- files


def test_no_file_is_a_server_of_no_other_models() -> None:
    assert read_config(None) == ModelServerConfig()


def test_a_file_that_cannot_be_used_gets_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    assert refused(read_config, path) == (
        f"Model config file '{path}' cannot be read: No such file or directory. Pass "
        "the file that the server is started with."
    )
    for content in (b"model_config_list { nmae: 3 }", b"\xff\xfe"):
        path.write_bytes(content)
        text = refused(read_config, path)
        assert text.startswith(
            f"Model config file '{path}' is no configuration of TensorFlow Serving: "
        )
        assert text.endswith(
            ". Mend it; it looks like "
            "'model_config_list { config { name: \"m\" ... } }'."
        )
    path.write_bytes(b"model_config_list {\n nmae: 3 }")
    assert 'no field named "nmae"' in refused(read_config, path)


def test_a_configuration_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "boot.config"
    for versions in ((1,), (1, 2)):
        made = server_config(config(USERS), [Served("m", RANKER, versions)])
        write_config(path, made)
        assert read_config(path) == made
    assert path.read_text().startswith("# Written by penstock")
    assert os.listdir(tmp_path) == ["boot.config"]


def test_a_file_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text(USERS)
    assert refused(write_config, path, ModelServerConfig()) == (
        f"'{path}' was not written by penstock, which would replace it. Pass the path "
        "of a new file, and your own file as the user's configuration."
    )
    assert path.read_text() == USERS
    assert refused(write_config, tmp_path, ModelServerConfig()) == (
        f"'{tmp_path}' cannot be read: Is a directory. Let this user read it."
    )


def test_a_folder_that_is_not_there_gets_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "none" / "boot.config"
    assert refused(write_config, path, ModelServerConfig()) == (
        f"'{path}' cannot be written: No such file or directory. Let this user write "
        "to its folder, and make room on the disk."
    )


def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "boot.config"
    write_config(path, ModelServerConfig())
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ServingError, match="No space left on device"):
        write_config(path, config(USERS))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["boot.config"]


def test_a_reader_sees_the_old_configuration_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "boot.config"
    made = [
        server_config(ModelServerConfig(), [Served("m", RANKER, tuple(range(1, n)))])
        for n in (2, 200)
    ]
    write_config(path, made[0])
    done = threading.Event()
    seen = []

    def watch() -> None:
        while not done.is_set():
            seen.append(read_config(path))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for turn in range(40):
            write_config(path, made[turn % 2])
    finally:
        done.set()
        watcher.join()
    assert seen
    assert all(each in made for each in seen)


# --- the record


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = record_path("127.0.0.1:8500", None, tmp_path)
    assert read_record(path) == Record()
    record = Record(
        "rpc",
        {
            "m": Served("m", tmp_path, (1, 2), "labels", stable=1, canary=2),
            "n": Served("n", tmp_path, (3,)),
        },
        "model_config_list {\n}\n",
        told=False,
    )
    with locked_record(path):
        write_record(path, record)
    assert read_record(path) == record


def test_a_server_has_one_record_for_all_models_of_the_users_file(
    tmp_path: Path,
) -> None:
    user = tmp_path / "models.config"
    paths = {
        record_path(address, user, tmp_path / folder)
        for address in ("localhost:8500", "127.0.0.1:8500", "[::1]:8500")
        for folder in ("a", "b")
    }
    assert paths == {
        tmp_path / ".penstock-servers" / "models.config@127.0.0.1%3A8500.json"
    }
    assert record_path("unix:/run/x", None, tmp_path) == (
        tmp_path / ".penstock" / "servers" / "unix%3A%2Frun%2Fx.json"
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "Expecting property name enclosed in double quotes: line 1 column 2 "),
        ("{}", "KeyError: 'format'"),
        ('{"format": 2}', "ValueError: format 2"),
        ("[]", "TypeError: "),
    ],
)
def test_a_record_of_another_penstock_gets_a_sentence(
    content: str, why: str, tmp_path: Path
) -> None:
    path = tmp_path / "record.json"
    path.write_text(content)
    text = refused(read_record, path)
    assert text.startswith(f"'{path}' is not what this penstock writes ({why}")
    assert text.endswith(
        "). Install the penstock that wrote it, or remove the file and tell the server "
        "anew what to load."
    )


def test_a_record_that_is_held_for_long_gets_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder" / "record.json"
    monkeypatch.setattr("penstock.components.serving.server_record._WAIT_SECONDS", 0.05)
    with locked_record(path):
        caught = []

        def rival() -> None:
            try:
                with locked_record(path):
                    pass
            except ServingError as error:
                caught.append(str(error))

        thread = threading.Thread(target=rival)
        thread.start()
        thread.join()
    assert caught == [
        "Another process has been sending a configuration for 0.05 seconds. End the "
        f"process that holds '{path}.lock', and try again."
    ]


def test_a_record_that_cannot_be_kept_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("")
    with (
        pytest.raises(ServingError) as caught,
        locked_record(tmp_path / "folder" / "record.json"),
    ):
        pass
    assert str(caught.value).startswith(f"'{tmp_path}/folder' cannot be written: ")
    assert str(caught.value).endswith(
        ". Let this user write there: what is asked of a server is kept in it."
    )


def test_the_module_imports_neither_tensorflow_nor_its_serving_api() -> None:
    source = Path(module.__file__).read_text(encoding="utf-8")
    assert "tensorflow_serving" not in source
