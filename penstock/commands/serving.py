"""The verb that routes requests to versions of a model."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from penstock.schemas.errors import ServingError


def serve(
    serving_dir: Annotated[
        Path, typer.Argument(metavar="DIR", help="The serving directory.")
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="Name of the model; that of the serving directory by default.",
            show_default=False,
        ),
    ] = "",
    server: Annotated[
        str,
        typer.Option("--server", help="The model server's gRPC side, as host:port."),
    ] = "127.0.0.1:8500",
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            help="What tells versions apart there: 'names' (MODEL__vN) or 'labels'.",
        ),
    ] = "names",
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            "--port", min=0, max=65535, help="Port; 0 lets the system choose one."
        ),
    ] = 8501,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Processes that answer.")
    ] = 1,
    threads: Annotated[
        int,
        typer.Option(
            "--threads", min=1, help="Requests under way at once, in each process."
        ),
    ] = 32,
    deadline: Annotated[
        float, typer.Option("--deadline", help="Seconds that a request may take.")
    ] = 1.0,
    fallback: Annotated[
        bool,
        typer.Option(
            "--fallback/--no-fallback",
            help="Ask the stable version what the candidate failed.",
        ),
    ] = True,
    unit_header: Annotated[
        str, typer.Option("--unit-header", help="Header with the id of the unit.")
    ] = "X-Unit-Id",
    max_request_bytes: Annotated[
        int, typer.Option("--max-request-bytes", min=1, help="The largest request.")
    ] = 64 << 20,
    tls: Annotated[
        bool,
        typer.Option("--tls", help="Secure the connection to the model server."),
    ] = False,
    tls_authority: Annotated[
        Path | None,
        typer.Option("--tls-authority", help="Who signs its certificate, in PEM."),
    ] = None,
    tls_certificate: Annotated[
        Path | None,
        typer.Option("--tls-certificate", help="Our certificate, in PEM."),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", help="Its private key, in PEM.")
    ] = None,
    tls_server_name: Annotated[
        str | None,
        typer.Option("--tls-server-name", help="Name in its certificate."),
    ] = None,
    log_dir: Annotated[
        Path | None,
        typer.Option("--log-dir", help="Where a sample of the requests is logged."),
    ] = None,
    log_rate: Annotated[
        list[str] | None,
        typer.Option(
            "--log-rate",
            metavar="STRATUM=SHARE",
            help="Share of a stratum that is logged; ordinary=0.01 by default.",
        ),
    ] = None,
    log_at_least: Annotated[
        int,
        typer.Option(
            "--log-at-least", min=0, help="Requests of a stratum a minute in any case."
        ),
    ] = 100,
    log_header: Annotated[
        str | None,
        typer.Option("--log-header", help="Header that names the stratum."),
    ] = None,
    log_input: Annotated[
        str | None, typer.Option("--log-input", help="Input that names the stratum.")
    ] = None,
    private: Annotated[
        list[str] | None,
        typer.Option(
            "--private", metavar="NAME", help="Input or feature that is never logged."
        ),
    ] = None,
    with_model_server: Annotated[
        bool,
        typer.Option(
            "--with-model-server",
            help="Start a model server at --server, with the versions that are routed.",
        ),
    ] = False,
) -> None:
    """Route requests for a model to its versions, as rollouts say."""
    from penstock.components.serving.place import existing
    from penstock.components.serving.router.service import Service
    from penstock.components.serving.router.service import serve as run
    from penstock.components.serving.server_config import Served
    from penstock.components.serving.versions import versions
    from penstock.schemas.errors import did_you_mean

    if layout not in ("names", "labels"):
        raise typer.BadParameter(
            f"'{layout}' is no layout. Choose 'names' or 'labels'."
            f"{did_you_mean(layout, ['names', 'labels'])}",
            param_hint="--layout",
        )
    if log_header is not None and log_input is not None:
        raise typer.BadParameter(
            "A stratum is named by a header or by an input, not by both. Pass one of "
            "--log-header and --log-input.",
            param_hint="--log-input",
        )
    if log_dir is None:
        for given, flag in (
            (log_rate, "--log-rate"),
            (log_header, "--log-header"),
            (log_input, "--log-input"),
        ):
            if given:
                raise typer.BadParameter(
                    "Nothing is logged without a folder for it. Pass --log-dir too.",
                    param_hint=flag,
                )
    rates = _rates(log_rate or [])
    folder = existing(serving_dir)
    if not versions(folder) and not (folder / ".penstock" / "ledger.sqlite").exists():
        raise ServingError(
            f"'{folder}' is no serving directory: it has no numbered version, and "
            "nothing was ever pushed to it. Pass the folder that holds the numbered "
            "versions."
        )
    service = Service(
        str(folder),
        model or folder.name,
        server,
        "names" if layout == "names" else "labels",
        authority=_text(tls_authority),
        certificate=_text(tls_certificate),
        key=_text(tls_key),
        server_name=tls_server_name,
        tls=tls,
        deadline_seconds=deadline,
        fallback=fallback,
        unit_header=unit_header,
        max_bytes=max_request_bytes,
        threads=threads,
        log_dir=_text(log_dir),
        log_rates=rates,
        log_at_least=log_at_least,
        log_header=log_header,
        log_input=log_input,
        private=tuple(private or ()),
    )

    def ready(host: str, port: int) -> None:
        shown = f"[{host}]" if ":" in host else host
        typer.echo(
            f"Routing requests for '{service.model}' at http://{shown}:{port}/v1/"
            f"models/{service.model}:predict to the model server at '{server}'."
        )

    with contextlib.ExitStack() as stack:
        if with_model_server:
            from penstock.components.serving.ledger import Ledger
            from penstock.components.serving.routing import routing_of
            from penstock.components.serving.security import is_local
            from penstock.components.serving.server_process import started_server

            local, _, number = server.rpartition(":")
            if not is_local(server) or local.startswith("unix"):
                raise ServingError(
                    f"A model server cannot be started at '{server}', only on this "
                    "machine. Pass --server 127.0.0.1:PORT with --with-model-server."
                )
            with Ledger(folder, read_only=True) as ledger:
                routed = routing_of(ledger).routed
            served = Served(service.model, folder, routed, service.layout)
            stack.enter_context(
                started_server(
                    [served], folder / ".penstock" / "model-server", port=int(number)
                )
            )
        run(service, host, port, workers=workers, ready=ready)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _rates(pairs: list[str]) -> dict[str, float]:
    rates = {}
    for pair in pairs:
        name, equals, share = pair.rpartition("=")
        try:
            if not equals or not name:
                raise ValueError
            rates[name] = float(share)
        except ValueError:
            raise typer.BadParameter(
                f"'{pair}' names no stratum and share. Write STRATUM=SHARE, as in "
                "vip=1.",
                param_hint="--log-rate",
            ) from None
    return rates
