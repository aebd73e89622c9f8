"""One HTTP request, and a sentence without secrets on why it was not taken."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from typing import Any

from penstock.components.monitoring.outbox import NotSent
from penstock.schemas.errors import DataError

TIMEOUT_SECONDS = 15.0
"""How long a receiver may take to connect, and to answer."""

_LATER = (408, 425, 429)
"""Codes of 4xx that ask to come again; the others say that it is of no use."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: what is sent, and its token, are for one address only."""

    def redirect_request(self, *_: Any) -> None:
        """Refuse."""


def check_url(url: str, subject: str) -> str:
    """Return a URL without a slash at its end.

    Raises:
        DataError: If it is none of HTTP, or holds a password, which would be written
            where the URL is.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urllib.parse.urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise DataError(
            f"{subject} is not a URL of HTTP. Write it as 'https://host:port/path'."
        )
    if parts.username is not None or parts.password is not None:
        raise DataError(
            f"{subject} for '{parts.hostname}' holds a name or a password, which would "
            "show in logs. Put a token into a file and name that."
        )
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, by its name alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def request(
    subject: str,
    method: str,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    secrets: Iterable[str] = (),
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> bytes:
    """Send a request; return what was answered, at most 4 kB.

    Redirects are not followed. Proxies of the environment are used, but not to this
    machine.

    Args:
        subject: What sentences call the receiver.
        method: Such as POST.
        url: Where to; it is not shown in sentences.
        body: What to send.
        headers: Of the request.
        secrets: Texts that sentences never show, even where the receiver repeats them.
        timeout_seconds: How long it may take to connect, and to answer.

    Raises:
        NotSent: If the answer is not 2xx, or there is none.
    """
    host = urllib.parse.urlsplit(url).hostname or ""
    proxies = urllib.request.ProxyHandler({} if is_loopback(host) else None)
    opener = urllib.request.build_opener(_NoRedirects, proxies)
    asked = urllib.request.Request(
        url, data=body or None, headers=dict(headers), method=method
    )
    try:
        with opener.open(asked, timeout=timeout_seconds) as answer:
            return bytes(answer.read(4096))
    except urllib.error.HTTPError as error:
        with error:
            raise _refused(subject, error, secrets) from None
    except (OSError, http.client.HTTPException) as error:
        # URLError is an OSError. The context may hold the URL, hence `from None`.
        why = error.reason if isinstance(error, urllib.error.URLError) else error
        raise NotSent(
            f"{subject} cannot be reached: {_why(why, secrets)}.", unreachable=True
        ) from None


def _refused(
    subject: str, error: urllib.error.HTTPError, secrets: Iterable[str]
) -> NotSent:
    try:
        said = error.read(4096).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        said = ""
    said = " ".join(_hidden(said, secrets).split())[:200].rstrip(".")
    text = f"{subject} answered {error.code}" + (f": {said}." if said else ".")
    permanent = error.code < 500 and error.code not in _LATER
    after = error.headers.get("Retry-After", "") if error.headers else ""
    seconds = float(after) if after.isascii() and after.isdecimal() else 0.0
    return NotSent(text, permanent=permanent, after_seconds=min(seconds, 86_400.0))


def _why(reason: object, secrets: Iterable[str]) -> str:
    if isinstance(reason, TimeoutError | socket.timeout):
        return "it did not answer in time"
    text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return _hidden(text, secrets).rstrip(".")


def _hidden(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return text
