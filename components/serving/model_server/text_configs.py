"""TensorFlow Serving's SSLConfig and MonitoringConfig, which no Python package has."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
)

from penstock.components.serving.server_metrics import METRICS_PATH
from penstock.schemas.errors import ServingError

_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "tensorflow.serving"
_MESSAGES: dict[str, list[tuple[str, int, str]]] = {
    "SSLConfig": [
        ("server_key", _Field.TYPE_STRING, ""),
        ("server_cert", _Field.TYPE_STRING, ""),
        ("custom_ca", _Field.TYPE_STRING, ""),
        ("client_verify", _Field.TYPE_BOOL, ""),
    ],
    "PrometheusConfig": [
        ("enable", _Field.TYPE_BOOL, ""),
        ("path", _Field.TYPE_STRING, ""),
    ],
    "MonitoringConfig": [
        ("prometheus_config", _Field.TYPE_MESSAGE, f".{_PACKAGE}.PrometheusConfig"),
    ],
}


@functools.cache
def _message_classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="penstock/model_server.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, entries in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind, type_name) in enumerate(entries, start=1):
            message.field.add(
                name=field,
                number=number,
                type=kind,  # type: ignore[arg-type, unused-ignore]
                type_name=type_name or None,
                label=_Field.LABEL_OPTIONAL,
            )
    # A pool of our own: another library may know the real files.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")
        )
        for name in _MESSAGES
    }


@dataclass(frozen=True)
class SslConfig:
    """What a SSLConfig says.

    Attributes:
        server_key: The server's key, PEM.
        server_cert: The server's certificate, PEM.
        custom_ca: Certificates of the authorities that sign clients, PEM; may be empty.
        client_verify: Whether clients have to show a certificate.
    """

    server_key: str
    server_cert: str
    custom_ca: str
    client_verify: bool

    def credentials(self) -> Any:
        """Return `grpc.ServerCredentials`."""
        import grpc

        return grpc.ssl_server_credentials(
            [(self.server_key.encode(), self.server_cert.encode())],
            root_certificates=self.custom_ca.encode() or None,
            require_client_auth=self.client_verify,
        )


def read_ssl_config(path: Path) -> SslConfig:
    """Read a file as `--ssl_config_file` takes it.

    Raises:
        ServingError: It cannot be read, is no SSLConfig, or lacks key or certificate;
            or clients are to be verified by no authority.
    """
    found = _read(path, "SSLConfig", "--ssl_config_file")
    for name in ("server_key", "server_cert"):
        if "-----BEGIN " not in getattr(found, name):
            raise ServingError(
                f"SSL config file '{path}' has no PEM in '{name}'. Put the text of the "
                "file itself there, with \\n for its line ends, not its path."
            )
    if found.client_verify and not found.custom_ca:
        raise ServingError(
            f"SSL config file '{path}' asks for certificates of clients but has no "
            "'custom_ca' to verify them by. Put the authority's certificate there."
        )
    return SslConfig(
        found.server_key, found.server_cert, found.custom_ca, found.client_verify
    )


def read_metrics_path(path: Path) -> str:
    """Read a MonitoringConfig; return the path of the metrics, empty if they are off.

    Raises:
        ServingError: It cannot be read, is no MonitoringConfig, or its path is none.
    """
    found = _read(path, "MonitoringConfig", "--monitoring_config_file")
    if not found.prometheus_config.enable:
        return ""
    metrics_path = found.prometheus_config.path or METRICS_PATH
    if not metrics_path.startswith("/"):
        raise ServingError(
            f"MonitoringConfig file '{path}' has the metrics path '{metrics_path}', "
            f"which does not begin with '/'. Write '{METRICS_PATH}'."
        )
    return str(metrics_path)


def _read(path: Path, name: str, flag: str) -> Any:
    message = _message_classes()[name]()
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), message)
    except OSError as error:
        raise ServingError(
            f"{name} file '{path}' cannot be read: {error.strerror}. Check {flag}."
        ) from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        # The text of the error may show what stands in the file, a key among it.
        line = getattr(error, "GetLine", lambda: None)()
        where = f", line {line}," if line else ""
        raise ServingError(
            f"{name} file '{path}'{where} is no {name} in text form. Check {flag}."
        ) from None
    return message
