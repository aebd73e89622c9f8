"""Who may talk to a server: TLS and mutual TLS for gRPC, bearer tokens, size limits."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import ssl
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from penstock.schemas.errors import ServingError

MAX_REQUEST_BYTES = 64 << 20
"""The largest prediction request or answer that is taken, in bytes."""

MAX_CONTROL_BYTES = 4 << 20
"""The largest configuration, status or control request that is taken, in bytes."""

MIN_TOKEN_LENGTH = 16
"""The shortest token that is taken: shorter ones can be found by trying."""

_MAX_FILE_BYTES = 1 << 20
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # what RFC 6750 lets stand after 'Bearer'
_PEM = re.compile(
    rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL
)


@dataclass(frozen=True)
class Tls:
    """The files of one side of a TLS connection, all of them PEM.

    A client needs none of them where the system's authorities signed the server; it
    needs `authority` for a server of its own kind, and `certificate` and `key` where
    the server asks for them (mutual TLS). A server needs `certificate` and `key`; with
    `authority` it answers only clients whose certificate that authority signed.

    Attributes:
        certificate: Our certificate, followed by those between it and the authority.
        key: The private key of our certificate, without a passphrase.
        authority: Certificates of the authorities that sign the other side.
        server_name: The name a client expects in the server's certificate, where that
            is not the host it connects to.
    """

    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None
    server_name: str | None = None

    def channel_credentials(self) -> Any:
        """Return `grpc.ChannelCredentials` for a client.

        Raises:
            ServingError: A file is missing, unreadable, readable by others, expired, or
                does not belong to the others.
        """
        import grpc

        authority, key, certificate = self.read()
        return grpc.ssl_channel_credentials(authority, key, certificate)

    def server_credentials(self) -> Any:
        """Return `grpc.ServerCredentials`; with `authority`, clients need theirs too.

        Raises:
            ServingError: As for a client, or there is no certificate.
        """
        import grpc

        authority, key, certificate = self.read()
        if certificate is None:
            raise ServingError(
                "A TLS server has no certificate. Pass both a certificate and its key."
            )
        return grpc.ssl_server_credentials(
            [(key, certificate)], authority, require_client_auth=authority is not None
        )

    def read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Return the authority's certificates, our key and our certificate, in PEM.

        Raises:
            ServingError: As for a client.
        """
        authority = certificate = key = None
        if self.authority is not None:
            subject = f"TLS authority file '{self.authority}'"
            authority = _read_file(self.authority, subject)
            _check_authority(authority, subject)
        if (self.certificate is None) != (self.key is None):
            given, missing = ("certificate", "key")
            if self.certificate is None:
                given, missing = missing, given
            raise ServingError(
                f"TLS has a {given} ('{getattr(self, given)}') but no {missing}. Pass "
                "both, or neither."
            )
        if self.certificate is not None and self.key is not None:
            subject = f"TLS certificate '{self.certificate}'"
            certificate = _read_file(self.certificate, subject)
            _check_dates(certificate, subject)
            key = _read_file(self.key, f"TLS key '{self.key}'", secret=True)
            _check_pair(self.certificate, self.key)
        return authority, key, certificate


def channel_options(
    tls: Tls | None = None, max_bytes: int = MAX_REQUEST_BYTES
) -> list[tuple[str, Any]]:
    """Return the options of a gRPC channel or server: sizes, retries, expected name."""
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", max_bytes),
        ("grpc.max_send_message_length", max_bytes),
        # gRPC's own maximum is two minutes, in which a server that was started anew
        # would not be tried.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]
    if tls is not None and tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def open_channel(
    address: str, tls: Tls | None = None, max_bytes: int = MAX_REQUEST_BYTES
) -> Any:
    """Return a `grpc.Channel` to an address, which connects when it is first used.

    Args:
        address: 'host:port', '[::1]:port' or 'unix:/path'.
        tls: How to secure it; None for plain text.
        max_bytes: The largest message in either direction.

    Raises:
        ServingError: The address is none, or a file of `tls` is not right.
    """
    import grpc

    check_address(address)
    options = channel_options(tls, max_bytes)
    if tls is None:
        return grpc.insecure_channel(address, options)
    return grpc.secure_channel(address, tls.channel_credentials(), options)


def open_async_channel(
    address: str, tls: Tls | None = None, max_bytes: int = MAX_REQUEST_BYTES
) -> Any:
    """Return a `grpc.aio.Channel`; everything else is as for `open_channel`."""
    import grpc.aio

    check_address(address)
    options = channel_options(tls, max_bytes)
    if tls is None:
        return grpc.aio.insecure_channel(address, options)
    return grpc.aio.secure_channel(address, tls.channel_credentials(), options)


# --- addresses


def check_address(address: str) -> None:
    """Refuse an address that gRPC would take for a name to be looked up.

    Raises:
        ServingError: It is neither 'host:port' nor 'unix:/path'.
    """
    if address.startswith("unix:") and address[5:].startswith("/"):
        return
    host, colon, port = address.rpartition(":")
    if colon and host and "/" not in host and port.isascii() and port.isdigit():
        inside = host[1:-1] if host[0] == "[" and host[-1] == "]" else host
        if (":" not in inside or inside != host) and 0 < int(port) < 65536:
            return
    raise ServingError(
        f"'{address}' is no address of a gRPC server. Write it as 'host:port', "
        "'[::1]:port' or 'unix:/path/of/socket'."
    )


def is_local(address: str) -> bool:
    """Say whether only this machine can reach an address: loopback or a UNIX socket."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]") or address
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# --- tokens


def read_token(path: Path) -> str:
    """Return the bearer token in a file: one line, nobody else may read.

    Raises:
        ServingError: The file is missing, unreadable or readable by others, or holds no
            token or one that is too short. The text never shows the token.
    """
    subject = f"Token file '{path}'"
    token = _read_file(path, subject, secret=True).strip().decode("ascii", "replace")
    how = "Write one with: python -c 'import secrets; print(secrets.token_urlsafe())'."
    if not token:
        raise ServingError(f"{subject} is empty. {how}")
    if _TOKEN.fullmatch(token) is None:
        raise ServingError(
            f"{subject} holds more than a token: one word of letters, digits and "
            f"'-._~+/' is one. {how}"
        )
    if len(token) < MIN_TOKEN_LENGTH:
        raise ServingError(
            f"{subject} holds a token of {len(token)} characters, which can be "
            f"guessed; {MIN_TOKEN_LENGTH} are the least. {how}"
        )
    return token


def read_secret(path: Path, subject: str) -> str:
    """Return the line in a file that nobody else may read: a password, a secret URL.

    Raises:
        ServingError: The file is missing, unreadable or readable by others, or holds
            nothing, or more than a line. The text never shows what it holds.
    """
    secret = _read_file(path, subject, secret=True).decode("utf-8", "replace").strip()
    if not secret or len(secret.splitlines()) > 1:
        what = "is empty" if not secret else "holds more than a line"
        raise ServingError(f"{subject} {what}. Write the secret, and nothing else.")
    return secret


def bearer(token: str) -> str:
    """Return the value of the Authorization header that carries a token."""
    return f"Bearer {token}"


def authorized(header: str | None, token: str) -> bool:
    """Say whether an Authorization header carries a token, in constant time."""
    scheme, _, found = (header or "").strip().partition(" ")
    # Digests have one length, so that not even the length of the token shows.
    return scheme.lower() == "bearer" and hmac.compare_digest(
        _digest(found.strip()), _digest(token)
    )


def require_token(header: str | None, token: str | None, subject: str) -> None:
    """Refuse a request whose Authorization header does not carry the token.

    Args:
        header: The header's value; None if there is none.
        token: The token to be shown; None if none is asked for.
        subject: What is asked for, as the text calls it.

    Raises:
        ServingError: The header is missing, of another kind, or the token is wrong.
    """
    if token is None or authorized(header, token):
        return
    if not header:
        what = "needs a token, and the request has none"
    elif header.strip().partition(" ")[0].lower() != "bearer":
        what = "needs a bearer token, and the request is authorized in another way"
    else:
        what = "was asked for with a wrong token"
    raise ServingError(
        f"{subject} {what}. Send the header 'Authorization: Bearer <token>' with the "
        "token of the server's token file."
    )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


# --- files


def _read_file(path: Path, subject: str, *, secret: bool = False) -> bytes:
    try:
        # The checks are made on what was opened, not on what the name may come to mean.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ServingError(f"{subject} is not a file. Pass the path of a file.")
            if secret:
                _check_private(status, subject, path)
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(_MAX_FILE_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        cure = (
            "Check the path."
            if isinstance(error, FileNotFoundError)
            else "Let this user read it."
        )
        raise ServingError(
            f"{subject} cannot be read: {error.strerror}. {cure}"
        ) from error
    if len(content) > _MAX_FILE_BYTES:
        raise ServingError(
            f"{subject} is larger than {_MAX_FILE_BYTES:,} bytes. Pass another file."
        )
    return content


def _check_private(status: os.stat_result, subject: str, path: Path) -> None:
    # PostgreSQL's rule for its server's key: nobody but the owner, except that a group
    # may read what root owns, which is how a service is given a secret.
    mode = stat.S_IMODE(status.st_mode)
    allowed = 0o740 if status.st_uid == 0 else 0o700
    if mode & ~allowed & 0o777:
        raise ServingError(
            f"{subject} has the permissions {mode:04o}, with which others can read or "
            f"change a secret. Run: chmod {allowed & 0o640:o} {path}"
        )


def _check_pair(certificate: Path, key: Path) -> None:
    def no_passphrase() -> bytes:
        # Without this OpenSSL asks at the terminal, and a service waits for ever.
        raise ServingError(
            f"TLS key '{key}' has a passphrase, which nobody is there to type. "
            f"Write it without one: openssl pkey -in {key} -out <new file>."
        )

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, no_passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ServingError(
                f"TLS certificate '{certificate}' and key '{key}' do not belong "
                "together. Pass the key that the certificate was made for."
            ) from error
        raise ServingError(
            f"TLS key '{key}' cannot be used with certificate '{certificate}': "
            f"{error.reason or error}. Pass a private key in PEM."
        ) from error


def _check_authority(content: bytes, subject: str) -> None:
    dates = list(_dates(content, subject))
    now = datetime.now(timezone.utc)
    if all(end < now for _, end in dates):
        latest = max(end for _, end in dates)
        raise ServingError(
            f"{subject} has expired on {latest:%Y-%m-%d %H:%M} UTC. Pass the current "
            "certificate of the authority."
        )


def _check_dates(content: bytes, subject: str) -> None:
    start, end = next(_dates(content, subject))  # the first is ours
    now = datetime.now(timezone.utc)
    if end < now:
        raise ServingError(
            f"{subject} has expired on {end:%Y-%m-%d %H:%M} UTC. Get a new one."
        )
    if start > now:
        raise ServingError(
            f"{subject} is valid only from {start:%Y-%m-%d %H:%M} UTC on. Wait, or set "
            "this machine's clock."
        )


def _dates(content: bytes, subject: str) -> Iterator[tuple[datetime, datetime]]:
    """Yield the first and last moment of every certificate in a PEM file."""
    blocks = _PEM.findall(content)
    if not blocks:
        raise ServingError(
            f"{subject} holds no certificate in PEM. Convert it with: openssl x509 "
            "-inform der."
        )
    for block in blocks:
        try:
            yield _validity(ssl.PEM_cert_to_DER_cert(block.decode("ascii")))
        except (ValueError, IndexError) as error:
            raise ServingError(
                f"{subject} holds a certificate that cannot be read. Get it again."
            ) from error


def _validity(der: bytes) -> tuple[datetime, datetime]:
    """Return notBefore and notAfter of an X.509 certificate (RFC 5280, 4.1).

    The `ssl` module tells them only of a peer that it trusts.
    """
    body = _parts(_parts(_parts(der)[0][1])[0][1])  # Certificate, then tbsCertificate
    first = 1 if body[0][0] == 0xA0 else 0  # a version that is not the default
    start, end = _parts(body[first + 3][1])  # after serial, signature and issuer
    return _moment(*start), _moment(*end)


def _parts(data: bytes) -> list[tuple[int, bytes]]:
    """Return tag and content of each element of a DER sequence's content."""
    found = []
    at = 0
    while at < len(data):
        tag, size = data[at], data[at + 1]
        at += 2
        if size >= 0x80:
            width = size & 0x7F
            size = int.from_bytes(data[at : at + width], "big")
            at += width
        if at + size > len(data):
            raise ValueError("an element is longer than what holds it")
        found.append((tag, data[at : at + size]))
        at += size
    return found


def _moment(tag: int, content: bytes) -> datetime:
    text = content.decode("ascii")
    if tag == 0x17:  # UTCTime: two digits of the year, 50 is 1950
        text = ("19" if text >= "5" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)
