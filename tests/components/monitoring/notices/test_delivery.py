"""Notices arrive, at real servers of mail and HTTP, once; or they are kept."""

from __future__ import annotations

import base64
import email
import email.policy
import ipaddress
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components.monitoring.document import Document, State, write_document
from penstock.components.monitoring.notices.channels import (
    Mail,
    Settings,
    read_settings,
)
from penstock.components.monitoring.notices.delivery import (
    deliver_notices,
    write_notices,
)
from penstock.components.monitoring.notices.notice import Notice, Standing, news
from penstock.components.monitoring.notices.senders import mail_message, slack_json
from penstock.components.monitoring.outbox import Outbox
from tests.components.monitoring.documents import alert_document, document
from tests.components.monitoring.prometheus import until
from tests.components.monitoring.receivers import (
    Clock,
    Got,
    SmtpReceiver,
    closed_port,
    http_receiver,
    smtp_receiver,
)
from tests.components.serving.certificates import key_bytes

TOKEN = "a-token-that-nobody-sees"
PASSWORD = "a password that nobody sees"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outbox(tmp_path: Path, clock: Clock) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.sqlite", clock=clock) as opened:
        yield opened


def made(tmp_path: Path, channels: dict[str, Any], **others: Any) -> Settings:
    for name, secret in (("token", TOKEN), ("password", PASSWORD)):
        (tmp_path / name).write_text(secret + "\n")
        (tmp_path / name).chmod(0o600)
    path = tmp_path / "notices.json"
    path.write_text(json.dumps({"channels": channels, **others}))
    return read_settings(path)


def slack(tmp_path: Path, url: str) -> dict[str, Any]:
    (tmp_path / "slack").write_text(url)
    (tmp_path / "slack").chmod(0o600)
    return {"kind": "slack", "url_file": "slack"}


def mail(port: int, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "mail",
        "server": f"127.0.0.1:{port}",
        "security": "none",
        "sender": "penstock@example.com",
        "to": ["team@example.com", "boss@example.com"],
        **changes,
    }


def day(number: int, state: State, **changes: Any) -> Document:
    window = {
        "start": f"2026-11-{number:02}T00:00:00Z",
        "end": f"2026-11-{number:02}T23:59:59Z",
        "name": f"2026-11-{number:02}",
    }
    return document(window=window, state=state, **changes)


def parsed(data: bytes) -> EmailMessage:
    read = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(read, EmailMessage)
    return read


def test_an_alert_is_a_mail_to_everybody_and_its_end_answers_it(
    tmp_path: Path, outbox: Outbox, clock: Clock
) -> None:
    with smtp_receiver() as server:
        to = made(
            tmp_path,
            {"team": mail(server.port)},
            link="https://reports.example.com/{model}/{window}.html",
        )
        written = write_notices([alert_document()], to, outbox, clock=clock)
        found = deliver_notices(to, outbox)
        assert len(written) == 1 and len(found.sent) == 2
        assert [each.recipients for each in server.mails] == [
            ["team@example.com"],
            ["boss@example.com"],
        ]
        one, other = (parsed(each.data) for each in server.mails)
        assert one["To"] == "team@example.com, boss@example.com"
        assert one["From"] == "penstock@example.com"
        assert one["Subject"].startswith("[penstock] taxi: alert on 2026-11-30 in fare")
        assert one["Message-ID"] == other["Message-ID"]
        text = one.get_content()
        for reason in alert_document()["reasons"]:
            assert f"- {reason}" in text
        assert "https://reports.example.com/taxi/2026-11-30.html" in text
        over = document(
            window={
                "start": "2026-12-01T00:00:00Z",
                "end": "2026-12-02T00:00:00Z",
                "name": "2026-12-01",
            },
            columns=alert_document()["columns"],
            quality=alert_document()["quality"],
        )
        write_notices([over], to, outbox, clock=clock)
        deliver_notices(to, outbox)
        assert len(server.mails) == 4
        assert parsed(server.mails[-1].data)["In-Reply-To"] == one["Message-ID"]


def test_slack_and_webhooks_get_json_with_the_key_and_the_token(
    tmp_path: Path, outbox: Outbox, clock: Clock
) -> None:
    with http_receiver() as server:
        hook = {"kind": "webhook", "url": f"{server.url}/h", "token_file": "token"}
        url = f"{server.url}/services/T0/B0/secret"
        to = made(tmp_path, {"oncall": slack(tmp_path, url), "hook": hook})
        (notice,) = write_notices([alert_document()], to, outbox, clock=clock)
        assert len(deliver_notices(to, outbox).sent) == 2
        oncall, hooked = server.got
    assert oncall.path == "/services/T0/B0/secret"
    said = json.loads(oncall.body)
    assert said["text"] == notice.title
    (block,) = said["blocks"]
    assert block["text"]["text"].startswith(":red_circle: *taxi: alert on 2026-11-30")
    assert "• 'fare' drifted in 3 of the last 3 windows" in block["text"]["text"]
    for got in (oncall, hooked):
        assert got.headers["Idempotency-Key"] == notice.key
    assert hooked.headers["Authorization"] == f"Bearer {TOKEN}"
    data = json.loads(hooked.body)
    assert (data.pop("format"), data.pop("version")) == ("penstock-notice", 1)
    assert Notice.from_json(data) == notice


@pytest.mark.parametrize("kind", ["slack", "webhook", "mail"])
def test_an_unreachable_receiver_keeps_notices_until_it_is_there(
    tmp_path: Path, outbox: Outbox, clock: Clock, kind: str
) -> None:
    port = closed_port()
    url = f"http://127.0.0.1:{port}/secret-path"
    channel = {
        "slack": slack(tmp_path, url),
        "webhook": {"kind": "webhook", "url": url},
        "mail": mail(port, to=["team@example.com"]),
    }[kind]
    to = made(tmp_path, {"a": channel})
    documents = [day(1, "alert"), day(2, "ok"), day(1, "alert", model="fares")]
    write_notices(documents, to, outbox, clock=clock)
    found = deliver_notices(to, outbox)
    name = {"slack": "Slack"}.get(kind, kind)
    assert {why for _, why in found.kept} == {
        f"Channel 'a' ({name}) cannot be reached: Connection refused."
    }
    assert len(found.kept) == 3 and not found.sent
    clock.now += 7_200
    if kind == "mail":
        with smtp_receiver(port) as mails:
            assert len(deliver_notices(to, outbox).sent) == 3
            subjects = [parsed(each.data)["Subject"] for each in mails.mails]
    else:
        with http_receiver(port) as hooks:
            assert len(deliver_notices(to, outbox).sent) == 3
            subjects = [got.body.decode() for got in hooks.got]
    alert, resolved = (
        next(n for n, each in enumerate(subjects) if text in each)
        for text in ("taxi: drift on", "taxi: resolved")
    )
    assert alert < resolved, "an alert arrives before its end"


def test_a_recipient_that_is_refused_stops_no_other(
    tmp_path: Path, outbox: Outbox, clock: Clock
) -> None:
    with smtp_receiver() as server:
        server.refuse = lambda line: "550 no such boss" if "boss" in line else None
        to = made(tmp_path, {"team": mail(server.port)})
        write_notices([alert_document()], to, outbox, clock=clock)
        found = deliver_notices(to, outbox)
    assert [each.channel for each in found.sent] == ["team team@example.com"]
    assert [why for _, why in found.dead] == [
        "Channel 'team' (mail), recipient 'boss@example.com', answered 550: no such "
        "boss."
    ]


@pytest.mark.parametrize(
    ("begin", "answer", "dead"),
    [
        ("MAIL", "451 later", False),
        ("MAIL", "550 never you", True),
        ("END OF DATA", "452 full", False),
        ("END OF DATA", "554 spam", True),
        ("RCPT", "450 busy", False),
        ("EHLO", "421 closing", False),
    ],
)
def test_what_a_mail_server_says_decides_whether_it_is_tried_again(
    tmp_path: Path, outbox: Outbox, clock: Clock, begin: str, answer: str, dead: bool
) -> None:
    with smtp_receiver() as server:
        server.refuse = lambda line: answer if line.upper().startswith(begin) else None
        to = made(tmp_path, {"team": mail(server.port, to=["team@example.com"])})
        write_notices([alert_document()], to, outbox, clock=clock)
        found = deliver_notices(to, outbox)
        assert not server.mails
    assert (len(found.dead), len(found.kept)) == (int(dead), int(not dead))


def test_the_log_in_works_and_a_refused_one_shows_no_password(
    tmp_path: Path, outbox: Outbox, clock: Clock
) -> None:
    with smtp_receiver() as server:
        server.login = True
        login = mail(
            server.port, user="u", password_file="password", to=["team@example.com"]
        )
        to = made(tmp_path, {"team": login})
        write_notices([day(1, "alert"), day(2, "ok")], to, outbox, clock=clock)
        assert len(deliver_notices(to, outbox).sent) == 2
        (plain, _) = [line for line in server.said if line.startswith("AUTH")]
        assert base64.b64decode(plain.split()[-1]) == f"\0u\0{PASSWORD}".encode()
        server.refuse = lambda line: (
            f"535 not {PASSWORD}" if line.startswith("AUTH") else None
        )
        write_notices([day(3, "alert")], to, outbox, clock=clock)
        ((_, why),) = deliver_notices(to, outbox).dead
    assert why == "Channel 'team' (mail) answered 535: not ***."


def test_a_mail_server_without_encryption_gets_nothing(
    tmp_path: Path, outbox: Outbox, clock: Clock
) -> None:
    with smtp_receiver() as server:
        to = made(tmp_path, {"team": mail(server.port, security="starttls")})
        write_notices([alert_document()], to, outbox, clock=clock)
        found = deliver_notices(to, outbox)
        assert {why for _, why in found.dead} == {
            "Channel 'team' (mail) does not offer what 'starttls' or the log-in needs."
        }
        assert not server.mails
        assert not any(line[:4].upper() in ("MAIL", "AUTH") for line in server.said)


def authority(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Return the certificate of an authority, and a server that it vouches for.

    With the extensions that Python 3.13 insists on.
    """

    def signed(name: str, key: Any, of: Any, is_authority: bool) -> bytes:
        now = datetime.now(timezone.utc)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .add_extension(issuer, critical=False)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
                ),
                critical=False,
            )
            .add_extension(
                x509.KeyUsage(
                    *(not is_authority, False, False, False, False),
                    *(is_authority, is_authority, False, False),
                ),
                critical=True,
            )
        )
        made = builder.sign(of, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM)

    root, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    (folder / "root.pem").write_bytes(signed("root", root, root, True))
    (folder / "own.pem").write_bytes(signed("own", own, root, False))
    (folder / "own.key").write_bytes(key_bytes(own))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "own.pem", folder / "own.key")
    return folder / "root.pem", context


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_mail_and_its_password_go_through_tls_to_whom_an_authority_vouches_for(
    security: str,
    tmp_path: Path,
    outbox: Outbox,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root, context = authority(tmp_path)
    with smtp_receiver() as server:
        server.login = True
        server.tls, server.tls_first = context, security == "tls"
        channel = mail(
            server.port,
            security=security,
            user="u",
            password_file="password",
            to=["team@example.com"],
        )
        to = made(tmp_path, {"team": channel})
        write_notices([alert_document()], to, outbox, clock=clock)
        ((_, why),) = deliver_notices(to, outbox).kept
        assert "certificate verify failed" in why
        assert not any(line.upper().startswith("AUTH") for line in server.said)
        monkeypatch.setenv("SSL_CERT_FILE", str(root))
        clock.now += 7_200
        assert len(deliver_notices(to, outbox).sent) == 1
        assert len(server.mails) == 1
        assert sum(line.startswith("AUTH") for line in server.said) == 1


def test_no_secret_is_in_the_outbox_or_in_what_is_said(
    tmp_path: Path, outbox: Outbox, clock: Clock
) -> None:
    secret = "B0-secret-part"
    with http_receiver() as server, smtp_receiver() as mails:
        url = f"{server.url}/services/{secret}"
        server.answer = lambda got: (
            403,
            {},
            f"{got.path} {got.headers.get('Authorization')} refused".encode(),
        )
        mails.login = True
        mails.refuse = lambda line: f"535 {line}" if line.startswith("AUTH") else None
        hook = {"kind": "webhook", "url": f"{server.url}/h", "token_file": "token"}
        login = mail(mails.port, user="u", password_file="password")
        to = made(
            tmp_path, {"a": slack(tmp_path, url), "b": hook, "c": login, "d": hook}
        )
        write_notices([alert_document()], to, outbox, clock=clock)
        found = deliver_notices(to, outbox)
    assert len(found.dead) == 5
    encoded = base64.b64encode(f"\0u\0{PASSWORD}".encode()).decode()
    said = " ".join(why for _, why in found.dead)
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("outbox.sqlite*"))
    for hidden in (secret, TOKEN, PASSWORD, encoded):
        assert hidden not in said
        assert hidden.encode() not in kept


@pytest.mark.parametrize(
    ("code", "dead"),
    [(400, True), (404, True), (429, False), (500, False), (302, True)],
)
def test_what_a_webhook_answers_decides_whether_it_is_tried_again(
    tmp_path: Path, outbox: Outbox, clock: Clock, code: int, dead: bool
) -> None:
    with http_receiver() as server:
        server.answer = lambda got: (code, {"Retry-After": "700"}, b"")
        to = made(tmp_path, {"a": {"kind": "webhook", "url": server.url}})
        write_notices([alert_document()], to, outbox, clock=clock)
        found = deliver_notices(to, outbox)
    ((_, why),) = found.dead or found.kept
    assert why == f"Channel 'a' (webhook) answered {code}."
    assert bool(found.dead) == dead
    if not dead:
        assert outbox.letters("waiting")[0].due == clock() + 700


def test_notices_wait_for_a_channel_that_is_set_up_wrongly(
    tmp_path: Path, outbox: Outbox, clock: Clock
) -> None:
    with http_receiver() as server:
        channel = slack(tmp_path, server.url)
        to = made(tmp_path, {"oncall": channel})
        (tmp_path / "slack").unlink()
        write_notices([alert_document()], to, outbox, clock=clock)
        ((_, why),) = deliver_notices(to, outbox).kept
        file = tmp_path / "slack"
        assert why == (
            f"Channel 'oncall': URL file '{file}' cannot be read: No such file or "
            "directory. Check the path."
        )
        slack(tmp_path, server.url)
        file.chmod(0o644)
        clock.now += 7_200
        ((_, why),) = deliver_notices(to, outbox).kept
        assert "has the permissions 0644, with which others can read" in why
        file.chmod(0o600)
        clock.now += 7_200
        assert len(deliver_notices(to, outbox).sent) == 1


def test_notices_wait_for_a_channel_that_is_no_more(
    tmp_path: Path, outbox: Outbox, clock: Clock
) -> None:
    to = made(tmp_path, {"old": {"kind": "webhook", "url": "http://127.0.0.1:9"}})
    write_notices([alert_document()], to, outbox, clock=clock)
    to = made(tmp_path, {"new": {"kind": "webhook", "url": "http://127.0.0.1:9"}})
    ((_, why),) = deliver_notices(to, outbox).kept
    assert why == (
        "Channel 'old' is not in the settings any more (they have 'new'), and a notice "
        "waits for it."
    )


def test_in_a_silence_nothing_is_sent_and_what_still_holds_is_sent_afterwards(
    tmp_path: Path, outbox: Outbox, clock: Clock
) -> None:
    silence = {"from": "2026-01-01T00:00:00Z", "until": "2027-06-01T00:00:00Z"}
    with http_receiver() as server:
        hook = {"kind": "webhook", "url": server.url}
        to = made(tmp_path, {"a": hook}, silences=[silence])
        documents = [
            day(1, "alert"),
            day(2, "ok"),
            day(1, "alert", model="fares"),
        ]
        assert len(write_notices(documents, to, outbox, clock=clock)) == 3
        found = deliver_notices(to, outbox)
        assert not server.got and not found.kept
        (end,) = (each.end for each in to.silences)
        clock.now = end
        deliver_notices(to, outbox)
        told = [json.loads(got.body)["title"] for got in server.got]
    assert told == ["fares: drift on 2026-11-01"], "what was over is no news"


def test_the_same_documents_again_send_nothing(
    tmp_path: Path, outbox: Outbox, clock: Clock
) -> None:
    with http_receiver() as server:
        to = made(tmp_path, {"a": {"kind": "webhook", "url": server.url}})
        for _ in range(3):
            write_notices([alert_document()], to, outbox, clock=clock)
            deliver_notices(to, outbox)
        assert len(server.got) == 1


NOTIFIER = """
import sys
from pathlib import Path
from penstock.components.monitoring.document import read_document
from penstock.components.monitoring.notices.channels import read_settings
from penstock.components.monitoring.notices.delivery import *
from penstock.components.monitoring.outbox import Outbox

settings = read_settings(Path(sys.argv[1]))
with Outbox(Path(sys.argv[2])) as outbox:
    write_notices([read_document(Path(sys.argv[3]))], settings, outbox)
    deliver_notices(settings, outbox)
"""


def test_a_notifier_killed_at_any_request_tells_everything_under_the_same_keys(
    tmp_path: Path,
) -> None:
    outbox, report = tmp_path / "outbox.sqlite", tmp_path / "drift.json"
    write_document(alert_document(), report)
    with http_receiver() as server:
        hooks = {
            name: {"kind": "webhook", "url": f"{server.url}/{name}"} for name in "abc"
        }
        made(tmp_path, hooks)
        arguments = [tmp_path / "notices.json", outbox, report]
        killed: list[str] = []
        running: list[subprocess.Popen[bytes]] = []

        def kill_once(got: Got) -> tuple[int, dict[str, str], bytes]:
            if got.path not in killed:
                killed.append(got.path)
                os.kill(running[-1].pid, signal.SIGKILL)
                running[-1].wait()
            return 200, {}, b""

        server.answer = kill_once
        for _ in range(4):
            command = [sys.executable, "-c", NOTIFIER, *map(str, arguments)]
            running.append(subprocess.Popen(command))
            until(lambda: running[-1].poll() is not None, "the notifier to end")
        assert running[-1].returncode == 0
        assert [got.path for got in server.got] == ["/a", "/a", "/b", "/b", "/c", "/c"]
        assert len({got.headers["Idempotency-Key"] for got in server.got}) == 1
        assert len({got.body for got in server.got}) == 1


def channel_of(server: SmtpReceiver) -> Mail:
    return Mail(
        "team",
        ("*",),
        ("alert",),
        "127.0.0.1",
        server.port,
        "none",
        "",
        None,
        "a@b",
        ("c@d",),
    )


ODD = st.text(st.characters(exclude_categories=()), min_size=1, max_size=200)


@settings(max_examples=60)
@given(model=ODD, reasons=st.lists(ODD, max_size=4))
def test_whatever_a_model_is_called_no_header_or_mention_is_smuggled_in(
    model: str, reasons: list[str]
) -> None:
    attack = f"{model}\r\nBcc: all@example.com\r\n\r\n<!channel>"
    odd = document(model=attack, state="alert", reasons=[*reasons, attack])
    _, notice = news(odd, Standing())
    assert notice
    message = mail_message(channel_of(SmtpReceiver()), notice, 0.0)
    read = parsed(bytes(message))
    assert read["Bcc"] is None
    assert read["To"] == "c@d"
    assert bytes(message) == bytes(
        mail_message(channel_of(SmtpReceiver()), notice, 0.0)
    )
    said = json.loads(slack_json(notice))
    assert "<!channel" not in json.dumps(said)
    assert len(said["blocks"][0]["text"]["text"]) <= 3_000
