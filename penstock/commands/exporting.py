"""Verbs that let others know of watched models: export, rules, notify."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.commands.housekeeping import seconds_of
from penstock.commands.options import JsonOption, RootOption
from penstock.commands.terminal import ERROR, new_console, plain, print_json
from penstock.pipelines.run import DEFAULT_ROOT
from penstock.schemas.errors import DataError

if TYPE_CHECKING:
    from penstock.components.monitoring.outbox import Delivery, Outbox

OutboxOption = Annotated[
    Path | None,
    typer.Option(
        "--outbox",
        metavar="FILE",
        help="Where waits what could not be sent; .penstock/outbox.sqlite in the root "
        "by default.",
        show_default=False,
    ),
]


def export(
    document: Annotated[
        Path,
        typer.Argument(
            metavar="DOCUMENT",
            help="A drift.json or quality.json, or a folder with such files below it, "
            "of which the newest of each model count.",
        ),
    ],
    textfile: Annotated[
        Path | None,
        typer.Option(
            "--textfile",
            metavar="FILE",
            help="Write metrics for the node exporter; FILE ends with .prom.",
        ),
    ] = None,
    push: Annotated[
        str,
        typer.Option(
            "--push",
            metavar="URL",
            help="Push metrics to a Pushgateway, and what it could not take before.",
        ),
    ] = "",
    serve: Annotated[
        str,
        typer.Option(
            "--serve",
            metavar="ADDRESS",
            help="Answer to Prometheus at PORT of this machine, or at HOST:PORT, until "
            "Ctrl-C.",
        ),
    ] = "",
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file", help="File with the bearer token of the Pushgateway."
        ),
    ] = None,
    features: Annotated[
        int,
        typer.Option(
            "--features", min=0, help="Features of a model with series of their own."
        ),
    ] = 50,
    slices: Annotated[
        int,
        typer.Option(
            "--slices", min=0, help="Metrics of slices with series of their own."
        ),
    ] = 50,
    hash_slices: Annotated[
        bool,
        typer.Option(
            "--hash-slices", help="Show values of slices as digests, not as they are."
        ),
    ] = False,
    root: RootOption = DEFAULT_ROOT,
    outbox: OutboxOption = None,
) -> None:
    """Turn what was found of watched models into metrics for Prometheus.

    Without an option that says where to, metrics are printed.
    """
    from penstock.components.monitoring import publishing
    from penstock.components.monitoring.document_folder import DocumentFolder
    from penstock.components.monitoring.exporter import Limits, exposition
    from penstock.components.serving.security import read_token

    limits = Limits(features, slices, hash_slices)
    folder = DocumentFolder(document)

    def text() -> bytes:
        found = folder.newest()
        unreadable = len(folder.faults) if folder.is_whole else None
        return exposition(found, limits=limits, unreadable=unreadable)

    if serve:
        _serve(text, serve, document)
        return
    found = folder.newest()
    if not found and not folder.faults:
        raise DataError(
            f"Folder '{document}' holds no monitoring report. Name the folder that "
            "verdicts of DriftMonitor or QualityMonitor lie in, or wait for the first."
        )
    failed = bool(folder.faults)
    for fault in folder.faults:
        typer.echo(fault, err=True)
    if textfile is not None:
        publishing.write_textfile(textfile, text())
    if push:
        token = None if token_file is None else read_token(token_file)
        with _outbox(root, outbox) as opened:
            # Of a model whose document cannot be read nobody knows that it is no more.
            whole = folder.is_whole and not folder.faults
            delivery = publishing.push(
                push, found, opened, whole=whole, token=token, limits=limits
            )
            again = f"the next 'penstock export --push {push}'"
            failed |= _told(delivery, opened, again, "Mend that, and push again.")
    if textfile is None and not push:
        typer.echo(text().decode(), nl=False)
    if failed:
        raise typer.Exit(ERROR)


def _serve(text: Any, address: str, document: Path) -> None:
    from penstock.components.monitoring.publishing import served

    text()  # what is wrong from the beginning is told at once
    ends = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        with served(text, address) as url:
            typer.echo(f"Serving the metrics of '{document}' at {url}.")
            signal.sigwait(ends)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _outbox(root: Path, path: Path | None) -> Outbox:
    from penstock.components.monitoring.outbox import Outbox

    return Outbox(path or root / ".penstock" / "outbox.sqlite")


def _told(delivery: Delivery, outbox: Outbox, again: str, cure: str) -> bool:
    """Tell what could not be sent, each reason once; return whether there was any."""
    for why in dict.fromkeys(why for _, why in delivery.kept):
        count = sum(each == why for _, each in delivery.kept)
        what = "What it was to get is" if count == 1 else f"{count} letters are"
        typer.echo(
            f"{why} {what} kept in '{outbox.path}', and sent with {again}.", err=True
        )
    for _, why in delivery.dead:
        typer.echo(
            f"{why} It is not tried again, and is kept in '{outbox.path}' as a dead "
            f"letter. {cure}",
            err=True,
        )
    return bool(delivery.kept or delivery.dead)


def notify(
    document: Annotated[
        Path | None,
        typer.Argument(
            metavar="DOCUMENT",
            help="A drift.json or quality.json, or a folder with such files below it; "
            "nothing new is told without it.",
            show_default=False,
        ),
    ] = None,
    settings: Annotated[
        Path,
        typer.Option(
            "--settings", metavar="FILE", help="JSON that says who is told, and how."
        ),
    ] = Path("notices.json"),
    root: RootOption = DEFAULT_ROOT,
    outbox: OutboxOption = None,
    wait: Annotated[
        str,
        typer.Option(
            "--wait",
            metavar="TIME",
            help="For how long to try again what cannot be sent, as 10m.",
        ),
    ] = "0s",
    retry_dead: Annotated[
        bool, typer.Option("--retry-dead", help="Try dead letters again.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Tell people of watched models, by mail, Slack or a webhook; once per change."""
    from penstock.components.monitoring.document_folder import DocumentFolder
    from penstock.components.monitoring.notices.channels import read_settings
    from penstock.components.monitoring.notices.delivery import (
        deliver_notices,
        write_notices,
    )

    seconds = seconds_of(wait, "--wait")
    to = read_settings(settings)
    folder = None if document is None else DocumentFolder(document)
    found = () if folder is None else folder.newest()
    with _outbox(root, outbox) as opened:
        revived = opened.revive() if retry_dead else 0
        told = write_notices(found, to, opened)
        delivery = deliver_notices(to, opened, wait_seconds=seconds)
        failed = _told(
            *(delivery, opened, "the next 'penstock notify'"),
            "Mend that, and pass --retry-dead.",
        )
    for fault in folder.faults if folder else ():
        typer.echo(fault, err=True)
        failed = True
    if as_json:
        print_json(
            {
                "notices": [each.to_json() for each in told],
                "sent": [_letter_json(each) for each in delivery.sent],
                "kept": [{**_letter_json(e), "why": why} for e, why in delivery.kept],
                "dead": [{**_letter_json(e), "why": why} for e, why in delivery.dead],
                "revived": revived,
            }
        )
    else:
        console = new_console()
        for each in told:
            console.print(plain(f"{each.kind}: {each.title}"), soft_wrap=True)
        console.print(
            f"{len(delivery.sent)} sent, {len(delivery.kept)} kept, "
            f"{len(delivery.dead)} dead"
        )
    if failed:
        raise typer.Exit(ERROR)


def _letter_json(letter: Any) -> dict[str, Any]:
    return {"key": letter.key, "channel": letter.channel, "tries": letter.tries + 1}


def rules(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Name of the model, as documents have it."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where files go.")
    ],
    every: Annotated[
        str,
        typer.Option(
            "--every", metavar="TIME", help="How often a window is looked at, as 1d."
        ),
    ] = "1d",
    quality: Annotated[
        bool,
        typer.Option("--quality", help="Its quality is looked at by itself, too."),
    ] = False,
    label_delay: Annotated[
        str,
        typer.Option(
            "--label-delay", metavar="TIME", help="How long labels may take, as 7d."
        ),
    ] = "0d",
    serving: Annotated[
        str,
        typer.Option(
            "--serving", metavar="NAME", help="What penstock's router serves it as."
        ),
    ] = "",
    wait: Annotated[
        str,
        typer.Option(
            "--wait", metavar="TIME", help="How long something holds before an alert."
        ),
    ] = "1m",
    max_errors: Annotated[
        float, typer.Option("--max-errors", help="Share of requests that may fail.")
    ] = 0.02,
    min_requests: Annotated[
        int,
        typer.Option(
            "--min-requests",
            help="Below so many in 10 minutes nothing is said of errors.",
        ),
    ] = 100,
    retraining_url: Annotated[
        str,
        typer.Option(
            "--retraining-url",
            metavar="URL",
            help="Where 'penstock retrain serve' takes alerts.",
        ),
    ] = "",
    retraining_token_file: Annotated[
        Path | None,
        typer.Option(
            "--retraining-token-file",
            help="File with its bearer token, where Alertmanager runs.",
        ),
    ] = None,
    slack_url_file: Annotated[
        Path | None,
        typer.Option(
            "--slack-url-file",
            help="File with the URL of Slack's incoming webhook, where Alertmanager "
            "runs.",
        ),
    ] = None,
    slack_channel: Annotated[
        str, typer.Option("--slack-channel", help="Where in Slack.")
    ] = "",
    mail_to: Annotated[
        list[str] | None,
        typer.Option("--mail-to", metavar="ADDRESS", help="Whom mail goes to."),
    ] = None,
    mail_from: Annotated[
        str, typer.Option("--mail-from", metavar="ADDRESS", help="Whom mail is from.")
    ] = "",
    mail_server: Annotated[
        str,
        typer.Option(
            "--mail-server", metavar="HOST:PORT", help="Server of outgoing mail."
        ),
    ] = "",
    mail_user: Annotated[
        str, typer.Option("--mail-user", help="Whom to log in as there.")
    ] = "",
    mail_password_file: Annotated[
        Path | None,
        typer.Option(
            "--mail-password-file",
            help="File of its password, where Alertmanager runs.",
        ),
    ] = None,
    report_url: Annotated[
        str,
        typer.Option(
            "--report-url", metavar="URL", help="Where reports are, for the dashboard."
        ),
    ] = "",
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Replace files that say something else."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write files for Prometheus, Alertmanager and Grafana, with tests of the rules."""
    from penstock.components.monitoring.alertmanager import AlertmanagerOptions
    from penstock.components.monitoring.monitoring_files import (
        monitoring_files,
        write_files,
    )
    from penstock.components.monitoring.rules import RuleOptions

    files = monitoring_files(
        RuleOptions(
            model,
            every_seconds=round(seconds_of(every, "--every")),
            quality=quality,
            label_delay_seconds=round(seconds_of(label_delay, "--label-delay")),
            serving=serving,
            wait_seconds=round(seconds_of(wait, "--wait")),
            max_error_ratio=max_errors,
            min_requests=min_requests,
        ),
        AlertmanagerOptions(
            retraining_url=retraining_url,
            retraining_token_file=retraining_token_file,
            slack_url_file=slack_url_file,
            slack_channel=slack_channel,
            mail_to=tuple(mail_to or ()),
            mail_from=mail_from,
            mail_server=mail_server,
            mail_user=mail_user,
            mail_password_file=mail_password_file,
        ),
        report_url=report_url,
    )
    write_files(out, files, replace=replace)
    if as_json:
        print_json({"folder": str(out), "files": sorted(files)})
        return
    for name in files:
        typer.echo(str(out / name))
