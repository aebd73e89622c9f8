"""A login of our own to a database server, in the server's own protocol.

ml_metadata says of every login that fails only that there is no connection, and waits
a minute for a server of another kind; so the server is asked before it. And it lets
two processes make the same tables or the same type at once, which leaves two of them;
so whoever does that holds a lock of the database meanwhile.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import importlib.metadata
import io
import os
import socket
import struct
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

_ANSWER_SECONDS = 10.0
_LOCK_SECONDS = 30

# What the lock is called: penstock, as bytes and as a number.
_LOCK_NAME = "penstock"
_LOCK_NUMBER = int.from_bytes(b"penstock", "big")

_NATIVE = "mysql_native_password"


@dataclasses.dataclass(frozen=True)
class Login:
    """A server, a database there, and who asks for it.

    Attributes:
        scheme: What the server is: mysql, postgresql or grpc.
        host: Name or address of the server.
        port: Its port.
        user: Who logs in.
        password: Their password.
        database: Name of the database.
    """

    scheme: str
    host: str
    port: int
    user: str = ""
    password: str = dataclasses.field(default="", repr=False)
    database: str = ""

    @property
    def place(self) -> str:
        """The server, as texts name it."""
        return f"{self.host}:{self.port}"

    @property
    def kind(self) -> str:
        """What the server is, as texts name it."""
        return {
            "mysql": "MySQL or MariaDB server",
            "postgresql": "PostgreSQL server",
            "grpc": "server of ML Metadata",
        }[self.scheme]


class Refused(Exception):
    """Why one is not let in, as the rest of a sentence, and what to do."""


# What comes of reading as an answer what is none.
_NO_SUCH_SERVER = (OSError, EOFError, struct.error, ValueError, LookupError)


@contextmanager
def alone(login: Login) -> Iterator[None]:
    """Log in, and be the only one who does so by this function until the block ends.

    A server of ML Metadata is only looked for: it does one thing after another itself.

    Args:
        login: The server, the database, and who asks for it.

    Raises:
        Refused: If the server is not there, is another one, or does not let one in.
    """
    place = (login.host, login.port)
    try:
        connection = socket.create_connection(place, timeout=_ANSWER_SECONDS)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Refused(
            f"cannot be reached at {login.place}: {reason}. Start the server, or check "
            "host and port."
        ) from error
    with connection, connection.makefile("rwb") as stream:
        log_in, lock = _PROTOCOLS[login.scheme]
        try:
            log_in(stream, login)
            connection.settimeout(_LOCK_SECONDS + _ANSWER_SECONDS)
            lock(stream, login)
        except _NO_SUCH_SERVER as error:
            raise Refused(
                f"cannot be used: what answers at {login.place} is no {login.kind}. "
                "Check host and port, and that the URL begins with what the server is."
            ) from error
        yield


def _library() -> str:
    return f"ML Metadata {importlib.metadata.version('ml-metadata')}"


def _wrong_password(login: Login, said: str) -> Refused:
    return Refused(
        f"does not let '{login.user}' in: {said.rstrip('.')}. Check user and password; "
        "in a URL, '@', ':', '/', '?', '#' and '%' are written %40, %3A, %2F, %3F, "
        "%23 and %25."
    )


def _no_database(login: Login, how: str) -> Refused:
    return Refused(
        f"cannot be opened: {login.place} has no database '{login.database}' that "
        f"'{login.user}' may use. Make it there: {how}"
    )


def _unknown_method(login: Login, method: str, how: str) -> Refused:
    return Refused(
        f"wants '{login.user}' to log in by '{method}', which {_library()} cannot. "
        f"{how}"
    )


def _needs_encryption(login: Login, said: str, how: str) -> Refused:
    return Refused(
        f"does not let '{login.user}' in: {said.rstrip('.')}. {_library()} does not "
        f"encrypt its connections. {how}, or connect through a tunnel (ssh -L)."
    )


def _busy() -> Refused:
    return Refused(
        f"is being made ready by another process for more than {_LOCK_SECONDS} s. Wait "
        "for that process and run again."
    )


def _other(login: Login, said: str) -> Refused:
    return Refused(
        f"does not let '{login.user}' in: {said.rstrip('.')}. Ask whoever runs the "
        "server."
    )


def _exactly(stream: io.BufferedRWPair, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


# MySQL and MariaDB -----------------------------------------------------------------


def _log_in_to_mysql(stream: io.BufferedRWPair, login: Login) -> None:
    """Do what a client does up to the choice of a database.

    https://mariadb.com/kb/en/connection/
    """
    greeting = _mysql_packet(stream, login)
    if greeting[:1] != b"\x0a":
        raise EOFError
    rest = greeting[greeting.index(b"\0") + 1 :]
    nonce = rest[4:12] + rest[31:43]
    # Protocol 4.1 with named ways to log in.
    flags = 0x1 | 0x200 | 0x8000 | 0x80000
    proof = _native_proof(login.password, nonce)
    answer = struct.pack("<IIB23x", flags, 1 << 24, 33)
    answer += login.user.encode() + b"\0" + bytes([len(proof)]) + proof
    _send_mysql(stream, 1, answer + _NATIVE.encode() + b"\0")
    reply = _mysql_packet(stream, login)
    if reply[:1] == b"\xfe":
        method, _, data = reply[1:].partition(b"\0")
        if method != _NATIVE.encode():
            raise _unknown_method(
                login,
                method.decode("ascii", "replace"),
                f"Let that user log in by '{_NATIVE}', or take one who does.",
            )
        _send_mysql(stream, 3, _native_proof(login.password, data[:20]))
        reply = _mysql_packet(stream, login)
    if reply[:1] != b"\0":
        raise EOFError
    _send_mysql(stream, 0, b"\x02" + login.database.encode())
    _mysql_packet(stream, login)


def _lock_mysql(stream: io.BufferedRWPair, login: Login) -> None:
    """Take the lock until the connection ends."""
    # One for each database; names of locks are short.
    name = hashlib.sha256(login.database.encode()).hexdigest()[:32]
    query = f"SELECT GET_LOCK('{_LOCK_NAME} {name}', {_LOCK_SECONDS})"
    _send_mysql(stream, 0, b"\x03" + query.encode())
    # How many columns, the column, the end of columns, the row, the end of rows.
    packets = [_mysql_packet(stream, login) for _ in range(5)]
    if packets[3] != b"\x011":
        raise _busy()


def _native_proof(password: str, nonce: bytes) -> bytes:
    if not password:
        return b""
    once = hashlib.sha1(password.encode()).digest()
    mask = hashlib.sha1(nonce + hashlib.sha1(once).digest()).digest()
    return _xor(once, mask)


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def _send_mysql(stream: io.BufferedRWPair, number: int, body: bytes) -> None:
    stream.write(struct.pack("<I", len(body))[:3] + bytes([number]) + body)
    stream.flush()


def _mysql_packet(stream: io.BufferedRWPair, login: Login) -> bytes:
    """Return the next packet, unless it is an error."""
    size = int.from_bytes(_exactly(stream, 4)[:3], "little")
    body = _exactly(stream, size)
    if body[:1] != b"\xff":
        return body
    (code,) = struct.unpack("<H", body[1:3])
    # Once the client has spoken, '#' and five letters stand before the text.
    text = body[9:] if body[3:4] == b"#" else body[3:]
    said = text.decode("utf-8", "replace")
    if code in (1045, 1698):
        raise _wrong_password(login, said)
    if code in (1044, 1049):
        how = (
            f"CREATE DATABASE `{login.database}` CHARACTER SET utf8mb4 COLLATE "
            f"utf8mb4_bin; and GRANT ALL ON `{login.database}`.* TO that user."
        )
        raise _no_database(login, how)
    if code == 3159:
        raise _needs_encryption(login, said, "Set require_secure_transport=OFF there")
    raise _other(login, said)


# PostgreSQL ------------------------------------------------------------------------


def _log_in_to_postgresql(stream: io.BufferedRWPair, login: Login) -> None:
    """Do what a client does up to the server's word that it is ready.

    https://www.postgresql.org/docs/current/protocol-flow.html
    """
    begin = f"user\0{login.user}\0database\0{login.database}\0\0"
    _send_postgresql(stream, b"", struct.pack(">I", 3 << 16) + begin.encode())
    # Passwords are compared in one form of Unicode (RFC 4013).
    password = unicodedata.normalize("NFKC", login.password).encode()
    nonce = base64.b64encode(os.urandom(18))
    for kind, body in _postgresql_messages(stream, login):
        if kind == b"S" and body.startswith(b"server_encoding\0"):
            _check_encoding(body.split(b"\0")[1].decode())
        if kind == b"R":
            answer = _answer(login, body, password, nonce)
            if answer:
                _send_postgresql(stream, b"p", answer)


def _lock_postgresql(stream: io.BufferedRWPair, login: Login) -> None:
    """Take the lock until the connection ends."""
    # Locks of a transaction are let go even if the connection goes on in a pool.
    query = (
        f"BEGIN; SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'; "
        f"SELECT pg_advisory_xact_lock({_LOCK_NUMBER})\0"
    )
    _send_postgresql(stream, b"Q", query.encode())
    for _ in _postgresql_messages(stream, login):
        pass


def _answer(login: Login, asked: bytes, password: bytes, nonce: bytes) -> bytes:
    """Return what proves who one is, or nothing if there is nothing to prove."""
    (method,) = struct.unpack(">I", asked[:4])
    rest = asked[4:]
    if method == 3:
        return password + b"\0"
    if method == 5:
        inner = hashlib.md5(password + login.user.encode()).hexdigest()
        outer = hashlib.md5(inner.encode() + rest).hexdigest()
        return f"md5{outer}\0".encode()
    if method == 10 and b"SCRAM-SHA-256" in rest.split(b"\0"):
        first = b"n,,n=,r=" + nonce
        return b"SCRAM-SHA-256\0" + struct.pack(">I", len(first)) + first
    if method == 11:
        return _scram_proof(password, nonce, rest)
    if method in (0, 12):
        return b""
    method_name = {2: "kerberos", 7: "gss", 9: "sspi", 10: "sasl"}.get(method, method)
    raise _unknown_method(
        login,
        str(method_name),
        "Let that user log in by 'scram-sha-256' in the server's pg_hba.conf, or take "
        "one who does.",
    )


def _scram_proof(password: bytes, nonce: bytes, server_first: bytes) -> bytes:
    """Return a client's last word of SCRAM-SHA-256 (RFC 5802, RFC 7677)."""
    said = dict(part.split(b"=", 1) for part in server_first.split(b","))
    salt = base64.b64decode(said[b"s"])
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, int(said[b"i"]))
    key = hmac.digest(salted, b"Client Key", "sha256")
    last = b"c=biws,r=" + said[b"r"]
    signed = b",".join((b"n=,r=" + nonce, server_first, last))
    signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
    return last + b",p=" + base64.b64encode(_xor(key, signature))


def _check_encoding(encoding: str) -> None:
    if encoding != "UTF8":
        raise Refused(
            f"keeps text as {encoding}, which does not hold every name. Make the "
            "database anew, with ENCODING 'UTF8' TEMPLATE template0."
        )


def _send_postgresql(stream: io.BufferedRWPair, kind: bytes, body: bytes) -> None:
    stream.write(kind + struct.pack(">I", len(body) + 4) + body)
    stream.flush()


def _postgresql_messages(
    stream: io.BufferedRWPair, login: Login
) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and body of what the server says until it is ready, or an error."""
    kind = b""
    while kind != b"Z":
        kind = _exactly(stream, 1)
        if kind not in _POSTGRESQL_KINDS:
            raise EOFError
        (size,) = struct.unpack(">I", _exactly(stream, 4))
        body = _exactly(stream, size - 4)
        if kind == b"E":
            raise _postgresql_error(login, body)
        yield kind, body


# What is said at a login and of a query: an error, a key, a notice, and so on.
_POSTGRESQL_KINDS = {bytes([each]) for each in b"EKNRSZvCDTI"}


def _postgresql_error(login: Login, body: bytes) -> Refused:
    parts = body.decode("utf-8", "replace").split("\0")
    fields = {part[0]: part[1:] for part in parts if part}
    said, code = fields.get("M", ""), fields.get("C", "")
    if code == "28P01":
        return _wrong_password(login, said)
    if code == "55P03":
        return _busy()
    if code == "3D000":
        how = f'CREATE DATABASE "{login.database}" OWNER "{login.user}";'
        return _no_database(login, how)
    if code == "28000" and said.endswith("no encryption"):
        how = "Let them in by a line 'host' of the server's pg_hba.conf"
        return _needs_encryption(login, said, how)
    return _other(login, said)


_Talk: TypeAlias = Callable[[io.BufferedRWPair, Login], None]

_PROTOCOLS: dict[str, tuple[_Talk, _Talk]] = {
    "mysql": (_log_in_to_mysql, _lock_mysql),
    "postgresql": (_log_in_to_postgresql, _lock_postgresql),
    "grpc": (lambda stream, login: None, lambda stream, login: None),
}
