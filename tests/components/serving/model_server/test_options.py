"""Flags, text configs and fault files: what they take, and the sentences they give."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from penstock.components.serving.model_server.faults import Fault, Faults, read_faults
from penstock.components.serving.model_server.options import (
    Options,
    flags,
    parse_flags,
    usage,
)
from penstock.components.serving.model_server.server import ModelServer
from penstock.components.serving.model_server.text_configs import (
    read_metrics_path,
    read_ssl_config,
)
from penstock.components.serving.server_metrics import METRICS_PATH
from penstock.schemas.errors import ServingError

RECOMMENDED = [
    "--port=8500",
    "--rest_api_port=8501",
    "--model_config_file=/etc/models.config",
    "--num_load_threads=1",
    "--num_unload_threads=1",
    "--max_num_load_retries=0",
    "--file_system_poll_wait_seconds=1",
    "--enable_model_warmup=true",
    "--monitoring_config_file=/etc/monitoring.config",
    "--allow_version_labels_for_unavailable_models",
]


def test_the_words_of_the_real_server_are_understood() -> None:
    options, idle = parse_flags(RECOMMENDED)
    assert options == Options(
        rest_api_port=8501,
        model_config_file="/etc/models.config",
        num_load_threads=1,
        num_unload_threads=1,
        max_num_load_retries=0,
        monitoring_config_file="/etc/monitoring.config",
        allow_version_labels_for_unavailable_models=True,
    )
    assert idle == ()


def test_options_survive_being_written_as_flags() -> None:
    options = Options(
        port="auto",
        rest_api_port="auto",
        file_system_poll_wait_seconds=0.5,
        enable_model_warmup=False,
        model_base_path="/a b",
    )
    assert parse_flags(flags(options)) == (options, ())
    assert flags(Options()) == []


def test_defaults_are_those_of_the_real_server() -> None:
    options = Options()
    assert (options.port, options.rest_api_port) == (8500, 0)
    assert options.model_name == "default"
    assert options.file_system_poll_wait_seconds == 1
    assert options.max_num_load_retries == 5
    assert options.load_retry_interval_micros == 60_000_000
    assert (options.num_load_threads, options.num_unload_threads) == (0, 0)
    assert options.enable_model_warmup
    assert not options.allow_version_labels_for_unavailable_models
    assert not options.enable_signature_method_name_check
    # And one is not: who wants the world to ask has to say so.
    assert options.host == "127.0.0.1"


def test_flags_that_change_no_answer_are_taken() -> None:
    _, idle = parse_flags(
        ["--enable_batching", "--per_process_gpu_memory_fraction=0.5"]
    )
    assert idle == ("enable_batching", "per_process_gpu_memory_fraction")


@pytest.mark.parametrize(
    ("word", "text"),
    [
        (
            "--model_nmae=m",
            "The model server has no flag '--model_nmae'. Did you mean 'model_name'? "
            "'--help' lists them.",
        ),
        (
            "--zzz=1",
            "The model server has no flag '--zzz'. '--help' lists them.",
        ),
        (
            "model_name",
            "'model_name' is no flag of the model server. Write flags as "
            "'--name=value'.",
        ),
        (
            "--model_name",
            "Flag '--model_name' has no value. Write '--model_name=<value>'.",
        ),
        (
            "--num_load_threads=many",
            "Flag '--num_load_threads' is 'many', where an integer is needed.",
        ),
        (
            "--enable_model_warmup=yes",
            "Flag '--enable_model_warmup' is 'yes', where true or false is needed.",
        ),
        (
            "--file_system_poll_wait_seconds=soon",
            "Flag '--file_system_poll_wait_seconds' is 'soon', where a number is "
            "needed.",
        ),
        ("--port=http", "Flag '--port' is 'http', where a port, or 'auto' is needed."),
        (
            "--use_alts_credentials",
            "The Python model server cannot follow '--use_alts_credentials': it has "
            "TLS, by --ssl_config_file, and no ALTS. Leave it out, or start "
            "tensorflow_model_server.",
        ),
    ],
)
def test_wrong_flags_get_a_sentence(word: str, text: str) -> None:
    with pytest.raises(ServingError) as error:
        parse_flags([word])
    assert str(error.value) == text


def test_every_flag_has_a_meaning() -> None:
    said = usage()
    for word in flags(Options(host="x", port=1, rest_api_port=2, drain_seconds=1)):
        assert word.partition("=")[0] in said


def test_a_channel_argument_without_a_value_gets_a_sentence(tmp_path: Path) -> None:
    server = ModelServer(
        model_base_path=str(tmp_path), grpc_channel_arguments="grpc.max_metadata_size"
    )
    with pytest.raises(ServingError) as error:
        server._bind()
    assert str(error.value) == (
        "Channel argument 'grpc.max_metadata_size' has no value. Write "
        "--grpc_channel_arguments=<name>=<value>,..."
    )


# --- text configs


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config"


def test_metrics_are_where_the_config_says(path: Path) -> None:
    path.write_text("prometheus_config { enable: true }")
    assert read_metrics_path(path) == METRICS_PATH
    path.write_text('prometheus_config { enable: true path: "/m" }')
    assert read_metrics_path(path) == "/m"
    path.write_text('prometheus_config { path: "/m" }')
    assert read_metrics_path(path) == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'prometheus_config { enable: true path: "m" }',
            "MonitoringConfig file '{path}' has the metrics path 'm', which does not "
            "begin with '/'. Write '/monitoring/prometheus/metrics'.",
        ),
        (
            "\nprometheus { }",
            "MonitoringConfig file '{path}', line 2, is no MonitoringConfig in text "
            "form. Check --monitoring_config_file.",
        ),
    ],
)
def test_wrong_monitoring_configs_get_a_sentence(
    path: Path, text: str, words: str
) -> None:
    path.write_text(text)
    with pytest.raises(ServingError) as error:
        read_metrics_path(path)
    assert str(error.value) == words.format(path=path)


PEM = '"-----BEGIN X-----"'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "",
            "SSL config file '{path}' has no PEM in 'server_key'. Put the text of the "
            "file itself there, with \\n for its line ends, not its path.",
        ),
        (
            f'server_key: {PEM} server_cert: "/etc/server.crt"',
            "SSL config file '{path}' has no PEM in 'server_cert'. Put the text of the "
            "file itself there, with \\n for its line ends, not its path.",
        ),
        (
            f"server_key: {PEM} server_cert: {PEM} client_verify: true",
            "SSL config file '{path}' asks for certificates of clients but has no "
            "'custom_ca' to verify them by. Put the authority's certificate there.",
        ),
        (
            'server_key: "SECRET',
            "SSLConfig file '{path}', line 1, is no SSLConfig in text form. Check "
            "--ssl_config_file.",
        ),
    ],
)
def test_wrong_ssl_configs_get_a_sentence_without_the_key(
    path: Path, text: str, words: str
) -> None:
    path.write_text(text)
    with pytest.raises(ServingError) as error:
        read_ssl_config(path)
    assert str(error.value) == words.format(path=path)


def test_an_absent_config_gets_a_sentence(path: Path) -> None:
    with pytest.raises(ServingError) as error:
        read_ssl_config(path)
    assert str(error.value) == (
        f"SSLConfig file '{path}' cannot be read: No such file or directory. Check "
        "--ssl_config_file."
    )


# --- fault files


def test_the_nearest_fault_counts(path: Path) -> None:
    path.write_text(
        '{"m": {"1": {"error_share": 1}, "*": {"error_share": 0.5}},'
        ' "*": {"*": {"latency_seconds": 0.1}}}'
    )
    faults = Faults(path)
    assert faults.of("m", 1) == Fault(error_share=1)
    assert faults.of("m", 2) == Fault(error_share=0.5)
    assert faults.of("n", 1) == Fault(latency_seconds=0.1)
    path.unlink()
    assert faults.of("m", 1) == Fault()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[1]",
            "Fault file '{path}' is not made of models, versions and faults. Write "
            '{{"model": {{"43": {{"error_share": 0.5}}}}}}.',
        ),
        (
            '{"m": {"1": {"eror_share": 1}}}',
            "Fault file '{path}' has 'eror_share' for 'm/1', which is no fault (known "
            "are 'crash_after', 'crash_on_load', 'error_code', 'error_message', "
            "'error_share', 'error_when', 'latency_seconds', 'latency_share', "
            "'load_error', 'load_error_code', 'load_seconds', 'partial'). Did you mean "
            "'error_share'?",
        ),
        (
            '{"m": {"1": {"error_share": "half"}}}',
            "Fault file '{path}' has error_share='half' for 'm/1', where a number is "
            "needed.",
        ),
        (
            '{"m": {"1": {"partial": 1}}}',
            "Fault file '{path}' has partial=1 for 'm/1', where true or false is "
            "needed.",
        ),
        (
            '{"m": {"1": {"error_share": 2}}}',
            "Fault file '{path}' has error_share=2 for 'm/1', where a share from 0 to "
            "1 is needed.",
        ),
        (
            '{"m": {"1": {"error_code": "INTERN"}}}',
            "Fault file '{path}' has error_code='INTERN' for 'm/1', which is no code. "
            "Did you mean 'INTERNAL'?",
        ),
        (
            '{"m": {"1": {"error_when": {"x": 1}}}}',
            "Fault file '{path}' has error_when={{'x': 1}} for 'm/1'. Write "
            '{{"input": "category", "equals": "x"}}.',
        ),
        (
            '{"m": {"1": {"crash_after": 1}}}',
            "Fault file '{path}' has 'crash_after' for 'm/1', but the server runs in "
            "this process, which would end. Start it in a process of its own.",
        ),
    ],
)
def test_wrong_faults_get_a_sentence(path: Path, text: str, words: str) -> None:
    path.write_text(text)
    with pytest.raises(ServingError) as error:
        read_faults(path)
    assert str(error.value) == words.format(path=path)


def test_a_fault_file_that_is_no_json_gets_a_sentence(path: Path) -> None:
    path.write_text("{")
    with pytest.raises(ServingError) as error:
        read_faults(path)
    assert str(error.value).startswith(f"Fault file '{path}' cannot be read: ")
    assert str(error.value).endswith(
        'Write JSON such as {"model": {"43": {"error_share": 0.5}}}.'
    )


def test_starting_a_server_elsewhere_imports_no_tensorflow() -> None:
    code = (
        "import sys\n"
        "import penstock.components.serving.model_server.spawn\n"
        "import penstock.components.serving.model_server.core\n"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
