"""A notice as a mail, as a message of Slack and as JSON; and how each is sent.

What is sent again is the same, byte for byte, under the same key: the header
`Idempotency-Key` of a request, the `Message-ID` of a mail.
"""

from __future__ import annotations

import base64
import json
import smtplib
import socket
import ssl
import urllib.parse
from collections.abc import Iterable
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from typing import Any

from penstock.components.monitoring.notices.channels import (
    Channel,
    Mail,
    Slack,
    Webhook,
)
from penstock.components.monitoring.notices.notice import Notice
from penstock.components.monitoring.outbox import NotSent
from penstock.components.monitoring.web import (
    TIMEOUT_SECONDS,
    check_url,
    request,
)
from penstock.components.serving.security import bearer, read_secret, read_token
from penstock.schemas.errors import PenstockError

FORMAT = "penstock-notice"
VERSION = 1

_SLACK_MOST = 2_900
"""Slack takes 3,000 characters in one block."""


def send(channel: Channel, notice: Notice, recipient: str, made: float) -> None:
    """Send a notice to one recipient of a channel.

    Args:
        channel: How to get there.
        notice: What to say.
        recipient: One of the channel's.
        made: When the notice was made, in seconds since 1970.

    Raises:
        NotSent: If it was not taken. The text shows no secret.
    """
    try:
        if isinstance(channel, Mail):
            _send_mail(channel, notice, recipient, made)
        elif isinstance(channel, Slack):
            _send_slack(channel, notice)
        elif isinstance(channel, Webhook):
            _send_webhook(channel, notice)
    except PenstockError as error:
        # A secret that cannot be read, or is none: it can be mended, and is then sent.
        raise NotSent(f"Channel '{channel.name}': {error}", unreachable=True) from None


# --- requests


def webhook_json(notice: Notice) -> bytes:
    """Return what a webhook gets; docs/alerts.md describes it."""
    data: dict[str, Any] = {"format": FORMAT, "version": VERSION, **notice.to_json()}
    return json.dumps(data, indent=1).encode()


def slack_json(notice: Notice) -> bytes:
    """Return what an incoming webhook of Slack gets."""
    sign = {"alert": ":red_circle:", "resolved": ":large_green_circle:"}
    title = f"{sign.get(notice.kind, ':white_circle:')} *{_slack(notice.title)}*"
    text = title
    lines = [f"• {_slack(line)}" for line in notice.lines]
    if notice.hidden:
        lines.append(f"… and {notice.hidden} more")
    if notice.link:
        lines.append(f"<{_slack(notice.link)}|Report>")
    for line in lines:
        if len(text) + len(line) >= _SLACK_MOST:
            text += "\n…"
            break
        text += f"\n{line}"
    text = text[: _SLACK_MOST + 2]
    data = {
        "text": _slack(notice.title)[:_SLACK_MOST],
        "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": text}}],
    }
    return json.dumps(data).encode()


def _slack(text: str) -> str:
    """Return text in which Slack sees no markup, mention or link."""
    one = " ".join(text.split())
    return one.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _headers(notice: Notice) -> dict[str, str]:
    return {"Content-Type": "application/json", "Idempotency-Key": notice.key}


def _parts(url: str) -> list[str]:
    """Return what of a secret URL an answer might repeat."""
    path = urllib.parse.urlsplit(url).path
    return [url, *(each for each in (path, path.rpartition("/")[2]) if len(each) > 7)]


def _send_slack(channel: Slack, notice: Notice) -> None:
    url = read_secret(channel.url_file, f"URL file '{channel.url_file}'")
    url = check_url(url, f"What '{channel.url_file}' holds")
    secrets = _parts(url)
    subject = f"Channel '{channel.name}' (Slack)"
    request(subject, "POST", url, slack_json(notice), _headers(notice), secrets=secrets)


def _send_webhook(channel: Webhook, notice: Notice) -> None:
    url = channel.url
    secrets: list[str] = []
    if channel.url_file:
        url = read_secret(channel.url_file, f"URL file '{channel.url_file}'")
        url = check_url(url, f"What '{channel.url_file}' holds")
        secrets += _parts(url)
    headers = _headers(notice)
    if channel.token_file:
        token = read_token(channel.token_file)
        headers["Authorization"] = bearer(token)
        secrets.append(token)
    subject = f"Channel '{channel.name}' (webhook)"
    request(subject, "POST", url, webhook_json(notice), headers, secrets=secrets)


# --- mail


def mail_message(
    channel: Mail, notice: Notice, made: float, recipient: str = ""
) -> EmailMessage:
    """Return the mail of a notice; the same one whenever it is made again."""
    message = EmailMessage(policy=SMTP)
    host = channel.sender.rpartition("@")[2].strip("[]")
    message["From"] = channel.sender
    message["To"] = ", ".join(channel.to)
    message["Subject"] = _line(f"[penstock] {notice.title}")
    message["Date"] = formatdate(made)
    message["Message-ID"] = f"<{notice.key}@{host}>"
    if notice.kind == "resolved":
        message["In-Reply-To"] = f"<{notice.alert_key}@{host}>"
    message["Idempotency-Key"] = notice.key
    message["Auto-Submitted"] = "auto-generated"
    lines = [notice.title, "", *(f"- {_line(line)}" for line in notice.lines)]
    if notice.hidden:
        lines.append(f"- and {notice.hidden} more")
    if notice.link:
        lines += ["", notice.link]
    text = "\n".join(lines) + "\n"
    message.set_content(text.encode("utf-8", "replace").decode())
    return message


def _line(text: str) -> str:
    """Return text in one line of a mail, which no header can be smuggled into."""
    return " ".join(text.encode("utf-8", "replace").decode().split())


def _send_mail(channel: Mail, notice: Notice, recipient: str, made: float) -> None:
    subject = f"Channel '{channel.name}' (mail)"
    password = ""
    if channel.password_file:
        file = channel.password_file
        password = read_secret(file, f"Password file '{file}'")
    message = mail_message(channel, notice, made)
    try:
        with _connected(channel) as server:
            if password:
                server.login(channel.user, password)
            server.send_message(message, channel.sender, [recipient])
    except smtplib.SMTPRecipientsRefused as error:
        code, said = error.recipients[recipient]
        raise _refused(f"{subject}, recipient '{recipient}',", code, said) from None
    except smtplib.SMTPResponseException as error:
        # A server may repeat the line it does not like, in which they are encoded.
        together = f"\0{channel.user}\0{password}"
        hidden = [
            base64.b64encode(each.encode()).decode() for each in (together, password)
        ]
        raise _refused(
            subject, error.smtp_code, error.smtp_error, (password, *hidden)
        ) from None
    except smtplib.SMTPNotSupportedError:
        raise NotSent(
            f"{subject} does not offer what '{channel.security}' or the log-in needs.",
            permanent=True,
        ) from None
    except (smtplib.SMTPException, OSError) as error:
        if isinstance(error, TimeoutError | socket.timeout):
            why = "it did not answer in time"
        else:
            why = getattr(error, "strerror", None) or str(error) or "it hung up"
        raise NotSent(
            f"{subject} cannot be reached: {why.rstrip('.')}.", unreachable=True
        ) from None


def _connected(channel: Mail) -> smtplib.SMTP:
    # Asking the resolver for this machine's full name can take long, and is of no use.
    name = channel.sender.rpartition("@")[2]
    if channel.security == "tls":
        return smtplib.SMTP_SSL(
            channel.host,
            channel.port,
            local_hostname=name,
            timeout=TIMEOUT_SECONDS,
            context=ssl.create_default_context(),
        )
    server = smtplib.SMTP(
        channel.host, channel.port, local_hostname=name, timeout=TIMEOUT_SECONDS
    )
    if channel.security == "starttls":
        try:
            server.starttls(context=ssl.create_default_context())
        except BaseException:
            server.close()
            raise
    return server


def _refused(
    subject: str, code: int, said: bytes | str, secrets: Iterable[str] = ()
) -> NotSent:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    text = " ".join(text.split())[:200].rstrip(".")
    return NotSent(f"{subject} answered {code}: {text}.", permanent=code >= 500)
