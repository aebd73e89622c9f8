"""Options and arguments that several verbs take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RootOption = Annotated[
    Path,
    typer.Option(
        "--root",
        envvar="PENSTOCK_ROOT",
        help="Folder of artifacts, logs and the default store.",
    ),
]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="PENSTOCK_STORE",
        help="URL of the lineage store; metadata.sqlite in the root by default.",
        show_default=False,
    ),
]
WaitOption = Annotated[
    float,
    typer.Option(
        "--store-wait",
        min=0.0,
        help="Seconds to wait while another process holds the store.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:PIPELINE",
        help="A Pipeline, or a function that returns one, in a module or a file.",
    ),
]
ParamOption = Annotated[
    list[str] | None,
    typer.Option("--param", help="An argument of the function, as KEY=VALUE."),
]
ForceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--force", metavar="NAME", help="Run this component whatever was run before."
    ),
]
ResumeOption = Annotated[
    str | None,
    typer.Option(
        "--resume",
        metavar="RUN",
        help="Take what is complete in this run from it, and run the rest.",
        show_default=False,
    ),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="NAME", help="Run this component and no other."),
]
FromOption = Annotated[
    list[str] | None,
    typer.Option(
        "--from", metavar="NAME", help="Run this component and what depends on it."
    ),
]
ToOption = Annotated[
    list[str] | None,
    typer.Option(
        "--to", metavar="NAME", help="Run this component and what it depends on."
    ),
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="Id of the run, its beginning, or 'last'.")
]
