"""From documents to notices that arrive: written down with what is known, then sent."""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import Iterable

from penstock.components.monitoring.document import Document
from penstock.components.monitoring.exporter import age_of, monitor_of
from penstock.components.monitoring.notices.channels import Settings
from penstock.components.monitoring.notices.notice import Notice, Standing, news
from penstock.components.monitoring.notices.senders import send
from penstock.components.monitoring.outbox import (
    Clock,
    Delivery,
    Letter,
    NotSent,
    Outbox,
)
from penstock.schemas.errors import quoted

_SUBJECT = "standing"


def write_notices(
    documents: Iterable[Document],
    settings: Settings,
    outbox: Outbox,
    *,
    clock: Clock = time.time,
) -> tuple[Notice, ...]:
    """Write down what documents have to tell; nothing is sent yet.

    What was told is remembered in the same transaction, so that a process that is
    killed either told all of it or nothing.

    Args:
        documents: In any order; older windows are looked at first.
        settings: Who is told.
        outbox: Where notices wait.
        clock: Tells the time, in seconds since 1970.

    Returns:
        What there was to tell, of which each channel gets what it wants.
    """
    found = []
    for document in sorted(documents, key=age_of):
        with outbox.changes():
            subject = json.dumps([document["model"], monitor_of(document)])
            before = Standing.from_json(outbox.recall(_SUBJECT, subject))
            after, notice = news(document, before, _link(settings.link, document))
            outbox.remember(_SUBJECT, subject, after.to_json())
            if notice is not None:
                _put(notice, settings, outbox, clock())
                found.append(notice)
    return tuple(found)


def _link(pattern: str, document: Document) -> str:
    model, window = (
        urllib.parse.quote(each, safe="", errors="replace")
        for each in (document["model"], document["window"]["name"])
    )
    return pattern.format(model=model, window=window)


def _put(notice: Notice, settings: Settings, outbox: Outbox, now: float) -> None:
    body = json.dumps(notice.to_json()).encode()
    for channel in settings.channels.values():
        if not channel.wants(notice):
            continue
        later = settings.not_before(notice, channel, now)
        for recipient in channel.recipients:
            to = f"{channel.name} {recipient}".strip()
            # An alert that began and was over while it was silent is no news.
            if notice.kind == "resolved" and outbox.silence(to, notice.thread):
                continue
            outbox.put(Letter(notice.key, to, body, notice.thread, later))


def deliver_notices(
    settings: Settings, outbox: Outbox, *, wait_seconds: float = 0.0
) -> Delivery:
    """Send the notices that are due.

    Args:
        settings: How channels are reached.
        outbox: Where notices wait.
        wait_seconds: For how long to go on, with what becomes due meanwhile.

    Returns:
        What was sent, what is kept and tried again later, and what is dead.
    """

    def send_one(letter: Letter) -> None:
        name, _, recipient = letter.channel.partition(" ")
        channel = settings.channels.get(name)
        if channel is None or recipient not in channel.recipients:
            what = f", recipient '{recipient}'," if channel else ""
            raise NotSent(
                f"Channel '{name}'{what} is not in the settings any more (they have "
                f"{quoted(settings.channels)}), and a notice waits for it.",
                unreachable=True,
            )
        send(channel, Notice.from_json(json.loads(letter.body)), recipient, letter.made)

    def is_ours(channel: str) -> bool:
        return not channel.startswith("push:")

    return outbox.deliver_for(send_one, wait_seconds, channels=is_ours)
