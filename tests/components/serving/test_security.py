"""TLS with real handshakes, and tokens in files."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from penstock.components.serving import security
from penstock.components.serving.security import (
    Tls,
    authorized,
    bearer,
    channel_options,
    check_address,
    is_local,
    open_async_channel,
    open_channel,
    read_secret,
    read_token,
    require_token,
)
from penstock.schemas.errors import ServingError
from tests.components.serving.certificates import (
    DAY,
    Authority,
    key_bytes,
    write_secret,
)

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server_files(authority: Authority) -> tuple[Path, Path]:
    return authority.sign("server")


@pytest.fixture(scope="module")
def client_files(authority: Authority) -> tuple[Path, Path]:
    return authority.sign("client")


def refused(tls: Tls, *, server: bool = False) -> str:
    with pytest.raises(ServingError) as caught:
        tls.server_credentials() if server else tls.channel_credentials()
    return str(caught.value)


# --- handshakes


@contextmanager
def echo_server(tls: Tls | None, max_bytes: int = 1 << 20) -> Iterator[int]:
    """Serve a call that answers with its request; yield the port."""

    def answer(request: bytes, context: Any) -> bytes:
        return request

    class Echo(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(
        ThreadPoolExecutor(2), options=channel_options(max_bytes=max_bytes)
    )
    server.add_generic_rpc_handlers((Echo(),))
    if tls is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", tls.server_credentials())
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def call(
    port: int, tls: Tls | None, request: bytes = b"hello", **options: Any
) -> bytes:
    with open_channel(f"127.0.0.1:{port}", tls, **options) as channel:
        answer: bytes = channel.unary_unary("/echo/Echo")(request, timeout=10)
        return answer


def test_both_sides_know_each_other_by_the_authority(
    authority: Authority,
    server_files: tuple[Path, Path],
    client_files: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    with echo_server(Tls(*server_files, authority.file)) as port:
        assert call(port, Tls(*client_files, authority.file)) == b"hello"

        stranger = Authority(tmp_path / "stranger").sign("client")
        for wrong in (
            None,  # plain text
            Tls(authority=authority.file),  # a client without a certificate
            Tls(*stranger, authority.file),  # one that another authority signed
            Tls(*client_files),  # which trusts the system's authorities only
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call(port, wrong)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_server_without_an_authority_answers_any_client(
    authority: Authority, server_files: tuple[Path, Path]
) -> None:
    with echo_server(Tls(*server_files)) as port:
        assert call(port, Tls(authority=authority.file)) == b"hello"


def test_the_server_is_expected_under_another_name(
    authority: Authority, server_files: tuple[Path, Path]
) -> None:
    with echo_server(Tls(*server_files)) as port:
        named = Tls(authority=authority.file, server_name="localhost")
        assert call(port, named) == b"hello"
        with pytest.raises(grpc.RpcError):
            call(port, Tls(authority=authority.file, server_name="elsewhere"))


def test_a_message_over_the_limit_is_refused_on_either_side() -> None:
    with echo_server(None, max_bytes=1000) as port:
        assert len(call(port, None, b"x" * 900)) == 900
        with pytest.raises(grpc.RpcError) as caught:
            call(port, None, b"x" * 1100)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.RpcError) as caught:
            call(port, None, b"x" * 900, max_bytes=800)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def _async_call(port: int, tls: Tls | None) -> bytes:
    async with open_async_channel(f"127.0.0.1:{port}", tls) as channel:
        answer: bytes = await channel.unary_unary("/echo/Echo")(b"hello", timeout=10)
        return answer


def test_asynchronous_channels_do_the_same(
    authority: Authority, server_files: tuple[Path, Path]
) -> None:
    import asyncio

    for tls in (None, Tls(authority=authority.file)):
        with echo_server(tls and Tls(*server_files)) as port:
            assert asyncio.run(_async_call(port, tls)) == b"hello"


# --- files of TLS


def test_a_missing_file_gets_a_sentence(tmp_path: Path) -> None:
    assert refused(Tls(authority=tmp_path / "ca.pem")) == (
        f"TLS authority file '{tmp_path}/ca.pem' cannot be read: No such file or "
        "directory. Check the path."
    )


def test_a_folder_gets_a_sentence(tmp_path: Path) -> None:
    assert refused(Tls(authority=tmp_path)) == (
        f"TLS authority file '{tmp_path}' is not a file. Pass the path of a file."
    )


def test_a_file_that_may_not_be_read_gets_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: Any, **__: Any) -> int:  # root may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    assert refused(Tls(authority=tmp_path / "ca.pem")) == (
        f"TLS authority file '{tmp_path}/ca.pem' cannot be read: Permission denied. "
        "Let this user read it."
    )


def test_a_very_large_file_gets_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(b"x" * (1 << 20) + b"x")
    assert refused(Tls(authority=path)) == (
        f"TLS authority file '{path}' is larger than 1,048,576 bytes. Pass "
        "another file."
    )


def test_a_certificate_without_its_key_gets_a_sentence(
    server_files: tuple[Path, Path],
) -> None:
    certificate, key = server_files
    assert refused(Tls(certificate=certificate)) == (
        f"TLS has a certificate ('{certificate}') but no key. Pass both, or neither."
    )
    assert refused(Tls(key=key)) == (
        f"TLS has a key ('{key}') but no certificate. Pass both, or neither."
    )
    assert refused(Tls(), server=True) == (
        "A TLS server has no certificate. Pass both a certificate and its key."
    )


def test_a_key_of_another_certificate_gets_a_sentence(
    server_files: tuple[Path, Path], client_files: tuple[Path, Path]
) -> None:
    certificate, key = server_files[0], client_files[1]
    assert refused(Tls(certificate, key)) == (
        f"TLS certificate '{certificate}' and key '{key}' do not belong together. Pass "
        "the key that the certificate was made for."
    )


def test_a_key_that_is_none_gets_a_sentence(
    server_files: tuple[Path, Path], tmp_path: Path
) -> None:
    key = write_secret(tmp_path / "key", b"no key")
    text = refused(Tls(server_files[0], key))
    assert text.startswith(
        f"TLS key '{key}' cannot be used with certificate '{server_files[0]}': "
    )
    assert text.endswith(". Pass a private key in PEM.")


def test_a_key_with_a_passphrase_gets_a_sentence_and_no_question(
    server_files: tuple[Path, Path], tmp_path: Path
) -> None:
    locked = key_bytes(ec.generate_private_key(ec.SECP256R1()), b"open sesame")
    key = write_secret(tmp_path / "key", locked)
    assert refused(Tls(server_files[0], key)) == (
        f"TLS key '{key}' has a passphrase, which nobody is there to type. Write it "
        f"without one: openssl pkey -in {key} -out <new file>."
    )


def test_certificates_out_of_their_time_get_a_sentence(
    authority: Authority, tmp_path: Path
) -> None:
    old = authority.sign("old", start=-3 * DAY, end=-2 * DAY)
    end = x509.load_pem_x509_certificate(old[0].read_bytes())
    when = end.not_valid_after_utc.strftime("%Y-%m-%d %H:%M")
    assert refused(Tls(*old), server=True) == (
        f"TLS certificate '{old[0]}' has expired on {when} UTC. Get a new one."
    )
    assert refused(Tls(authority=old[0])) == (
        f"TLS authority file '{old[0]}' has expired on {when} UTC. Pass the current "
        "certificate of the authority."
    )
    early = authority.sign("early", start=2 * DAY, end=3 * DAY)
    text = refused(Tls(*early))
    assert text.startswith(f"TLS certificate '{early[0]}' is valid only from 2")
    assert text.endswith(" UTC on. Wait, or set this machine's clock.")
    # One authority of several that is still good is enough: they are being replaced.
    both = tmp_path / "both.pem"
    both.write_bytes(old[0].read_bytes() + authority.file.read_bytes())
    Tls(authority=both).channel_credentials()


def test_files_that_hold_no_certificate_get_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(b"\x30\x82")
    assert refused(Tls(authority=path)) == (
        f"TLS authority file '{path}' holds no certificate in PEM. Convert it with: "
        "openssl x509 -inform der."
    )
    for body in ("MIIB", "AAAA", "MIIBAAAA", "%%%%"):
        path.write_text(
            f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"
        )
        assert refused(Tls(authority=path)) == (
            f"TLS authority file '{path}' holds a certificate that cannot be read. Get "
            "it again."
        )


@given(st.binary(max_size=60))
def test_bytes_that_are_no_certificate_raise_nothing_else(content: bytes) -> None:
    with suppress(ValueError, IndexError):
        security._validity(content)


def test_validity_is_read_as_the_library_reads_it(authority: Authority) -> None:
    # 2049 is the last year that is written with two digits.
    for end in (DAY, 365 * 40 * DAY):
        path, _ = authority.sign("far", end=end)
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        der = ssl.PEM_cert_to_DER_cert(path.read_text())
        assert security._validity(der) == (
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
        )


# --- secrets


@pytest.mark.parametrize("mode", [0o604, 0o622, 0o660, 0o777])
def test_a_secret_that_others_may_read_is_refused(
    mode: int, server_files: tuple[Path, Path], tmp_path: Path
) -> None:
    token = write_secret(tmp_path / "token", TOKEN.encode())
    key = write_secret(tmp_path / "key", server_files[1].read_bytes())
    for path in (token, key):
        path.chmod(mode)
    cure = "640" if os.getuid() == 0 else "600"
    with pytest.raises(ServingError) as caught:
        read_token(token)
    assert str(caught.value) == (
        f"Token file '{token}' has the permissions {mode:04o}, with which others can "
        f"read or change a secret. Run: chmod {cure} {token}"
    )
    assert refused(Tls(server_files[0], key)) == (
        f"TLS key '{key}' has the permissions {mode:04o}, with which others can read "
        f"or change a secret. Run: chmod {cure} {key}"
    )


def test_a_group_may_read_what_root_owns(tmp_path: Path) -> None:
    path = write_secret(tmp_path / "token", TOKEN.encode())
    path.chmod(0o640)
    if os.getuid() == 0:
        assert read_token(path) == TOKEN
        os.chown(path, 1234, 1234)
    with pytest.raises(ServingError, match=r"0640, with which .* chmod 600 "):
        read_token(path)


# --- tokens


def test_a_token_is_the_word_in_its_file(tmp_path: Path) -> None:
    assert read_token(write_secret(tmp_path / "token", b" abc.DEF-123_~+/9==\n")) == (
        "abc.DEF-123_~+/9=="
    )


def test_a_secret_is_the_line_in_its_file(tmp_path: Path) -> None:
    path = write_secret(tmp_path / "password", " a long sentence, \u00e9\n".encode())
    assert read_secret(path, f"Password file '{path}'") == "a long sentence, \u00e9"


@pytest.mark.parametrize(
    ("content", "text"), [(b"\n", "is empty"), (b"one\ntwo", "holds more than a line")]
)
def test_a_secret_that_is_none_is_refused_and_not_shown(
    content: bytes, text: str, tmp_path: Path
) -> None:
    path = write_secret(tmp_path / "password", content)
    with pytest.raises(ServingError) as caught:
        read_secret(path, "Password file 'p'")
    assert str(caught.value) == (
        f"Password file 'p' {text}. Write the secret, and nothing else."
    )


HOW = "Write one with: python -c 'import secrets; print(secrets.token_urlsafe())'."


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\n", f"is empty. {HOW}"),
        (
            b"one-token-of-many\nanother-token-of-many",
            "holds more than a token: one word of letters, digits and '-._~+/' is one. "
            + HOW,
        ),
        (
            "schlüssel-der-stadt".encode(),
            "holds more than a token: one word of letters, digits and '-._~+/' is one. "
            + HOW,
        ),
        (
            b"secret",
            "holds a token of 6 characters, which can be guessed; 16 are the least. "
            + HOW,
        ),
    ],
)
def test_a_file_without_a_good_token_gets_a_sentence(
    content: bytes, text: str, tmp_path: Path
) -> None:
    path = write_secret(tmp_path / "token", content)
    with pytest.raises(ServingError) as caught:
        read_token(path)
    assert str(caught.value) == f"Token file '{path}' {text}"


def test_the_token_authorizes_and_nothing_else_does() -> None:
    assert authorized(bearer(TOKEN), TOKEN)
    assert authorized(f"bearer   {TOKEN} ", TOKEN)
    for header in (
        None,
        "",
        TOKEN,
        "Bearer",
        "Bearer ",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN} {TOKEN}",
        "Bearer \udcff",
    ):
        assert not authorized(header, TOKEN)


@given(st.text(), st.text())
def test_only_the_same_text_authorizes(header: str, token: str) -> None:
    assert authorized(f"Bearer {header}", token) == (header.strip() == token)


@pytest.mark.parametrize(
    ("header", "what"),
    [
        (None, "needs a token, and the request has none"),
        ("", "needs a token, and the request has none"),
        (
            "Basic YTpi",
            "needs a bearer token, and the request is authorized in another way",
        ),
        ("Bearer wrong", "was asked for with a wrong token"),
    ],
)
def test_a_request_without_the_token_gets_a_sentence(
    header: str | None, what: str
) -> None:
    with pytest.raises(ServingError) as caught:
        require_token(header, TOKEN, "A reload of the configuration")
    assert str(caught.value) == (
        f"A reload of the configuration {what}. Send the header 'Authorization: Bearer "
        "<token>' with the token of the server's token file."
    )
    assert TOKEN not in str(caught.value)


def test_where_no_token_is_asked_for_none_is_needed() -> None:
    require_token(None, None, "A reload")
    require_token(bearer(TOKEN), TOKEN, "A reload")


# --- addresses


@pytest.mark.parametrize(
    "address", ["localhost:8500", "10.0.0.1:1", "[::1]:8500", "unix:/run/tfs.sock"]
)
def test_addresses_are_taken(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost",
        ":8500",
        "host:",
        "host:0",
        "host:65536",
        "host:８５００",
        "::1:8500",
        "http://host:8500",
        "unix:run.sock",
    ],
)
def test_what_is_no_address_gets_a_sentence(address: str) -> None:
    for opened in (open_channel, open_async_channel):
        with pytest.raises(ServingError) as caught:
            opened(address)
        assert str(caught.value) == (
            f"'{address}' is no address of a gRPC server. Write it as 'host:port', "
            "'[::1]:port' or 'unix:/path/of/socket'."
        )


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("localhost:8500", True),
        ("127.0.0.2:1", True),
        ("[::1]:8500", True),
        ("unix:/run/x", True),
        ("127.0.0.1", True),
        ("0.0.0.0:8500", False),
        ("10.0.0.1:8500", False),
        ("localhost.example.com:8500", False),
    ],
)
def test_only_this_machine_reaches_loopback(address: str, local: bool) -> None:
    assert is_local(address) is local


def test_the_module_imports_neither_grpc_nor_tensorflow() -> None:
    code = (
        "import sys; from penstock.components.serving import security; "
        "print([name for name in ('tensorflow', 'grpc') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
