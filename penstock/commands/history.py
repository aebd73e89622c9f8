"""Verbs that list and show what was recorded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.commands.options import (
    JsonOption,
    RootOption,
    RunArgument,
    StoreOption,
    WaitOption,
)
from penstock.commands.records import (
    artifact_json,
    execution_json,
    find_remarks,
    find_run_id,
    open_store,
    remarked,
    run_json,
)
from penstock.commands.terminal import (
    new_console,
    plain,
    print_json,
    short,
    styled,
    took,
    when,
)
from penstock.pipelines.run import DEFAULT_ROOT
from penstock.schemas.errors import MetadataError, did_you_mean, quoted

if TYPE_CHECKING:
    from penstock.pipelines.metadata import Store


def runs(
    root: RootOption = DEFAULT_ROOT,
    store: StoreOption = "",
    store_wait: WaitOption = 30.0,
    as_json: JsonOption = False,
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", help="Only runs of this pipeline.")
    ] = None,
) -> None:
    """List the runs, the newest last."""
    opened = open_store(root, store, store_wait)
    _require_pipeline(opened, pipeline)
    found = opened.runs(pipeline)
    if as_json:
        print_json([run_json(each) for each in found])
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("run", "pipeline", "state", "started", "took", "reason"):
        table.add_column(title, overflow="fold", no_wrap=title in ("run", "started"))
    for each in found:
        seconds = None if each.finished is None else each.finished - each.started
        table.add_row(
            each.id,
            each.pipeline,
            styled(each.state.value),
            when(each.started),
            took(seconds),
            plain(each.reason),
        )
    new_console().print(table)


def _require_pipeline(opened: Store, name: str | None) -> None:
    """Check that a pipeline is in the store, if one is named."""
    if name is not None:
        opened.pipelines[name]


def show(
    run_id: RunArgument,
    root: RootOption = DEFAULT_ROOT,
    store: StoreOption = "",
    store_wait: WaitOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Show the components of a run: how they ended, what they read and wrote."""
    from penstock.pipelines.environment import described
    from penstock.pipelines.retraining import why_started

    opened = open_store(root, store, store_wait)
    record = opened.run(find_run_id(opened, run_id))
    executions = opened.executions(record.id)
    remarks = find_remarks(opened)
    if as_json:
        print_json(
            {
                **run_json(record),
                "components": [execution_json(each, remarks) for each in executions],
            }
        )
        return
    from rich.table import Table

    console = new_console()
    console.print(
        f"run [bold]{record.id}[/] of pipeline [bold]{record.pipeline}[/], "
        f"{styled(record.state.value)}, started {when(record.started)}"
    )
    for sentence in why_started(record):
        console.print(sentence, markup=False)
    table = Table(box=None, pad_edge=False)
    for title in ("component", "state", "took", "read", "wrote", "reason"):
        table.add_column(title, overflow="fold")
    for each in executions:
        table.add_row(
            each.component,
            styled(each.state.value),
            took(each.seconds),
            _keys(each.inputs),
            _keys(each.outputs),
            plain(each.reason),
        )
    console.print(table)
    for each in executions:
        environment = described(each.properties)
        if environment:
            console.print(f"{each.component} ran in {environment}.", markup=False)
        for made in each.outputs.values():
            for artifact in made:
                said = remarked(remarks, artifact)
                if said:
                    subject = f"{artifact.TYPE_NAME} {artifact.id}"
                    console.print(f"{subject} is {said}.", markup=False)


def _keys(sides: Any) -> str:
    return ", ".join(
        f"{key} ({' '.join(str(each.id) for each in made)})"
        for key, made in sides.items()
    )


def logs(
    run_id: RunArgument,
    component: Annotated[str, typer.Argument(help="Name of the component.")],
    root: RootOption = DEFAULT_ROOT,
    store: StoreOption = "",
    store_wait: WaitOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Print what a component printed and logged in a run."""
    opened = open_store(root, store, store_wait)
    record = opened.run(find_run_id(opened, run_id))
    executions = opened.executions(record.id)
    known = [each.component for each in executions]
    if component not in known:
        raise MetadataError(
            f"Run '{record.id}' has no component '{component}' (it has "
            f"{quoted(known)}).{did_you_mean(component, known)}"
        )
    place = Path(str(record.properties.get("penstock_root", root)))
    path = place / ".penstock" / "runs" / record.id / f"{component}.log"
    try:
        text = path.read_text(encoding="utf-8", errors="backslashreplace")
    except FileNotFoundError as error:
        raise MetadataError(
            f"The log of '{component}' in run '{record.id}' is not at '{path}'. It is "
            "kept under the root of the machine that ran it."
        ) from error
    if as_json:
        print_json({"run": record.id, "component": component, "log": text})
    else:
        sys.stdout.write(text)


def artifacts(
    root: RootOption = DEFAULT_ROOT,
    store: StoreOption = "",
    store_wait: WaitOption = 30.0,
    as_json: JsonOption = False,
    kind: Annotated[
        str | None, typer.Option("--type", help="Only artifacts of this type.")
    ] = None,
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", help="Only those of this pipeline.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            metavar="EXPRESSION",
            help="Only those whose properties it is true of, as 'auc > 0.9'; an odd "
            "name stands in backticks.",
        ),
    ] = None,
) -> None:
    """List the artifacts, the newest last."""
    opened = open_store(root, store, store_wait)
    _require_pipeline(opened, pipeline)
    everything = opened.artifacts(None, pipeline=pipeline)
    types = {each.TYPE_NAME for each in everything}
    if kind is not None and kind not in types:
        raise MetadataError(
            f"No artifact of type '{kind}' is recorded (there are {quoted(types)})."
            f"{did_you_mean(kind, types)}"
        )
    found = [each for each in everything if kind in (None, each.TYPE_NAME)]
    asked: tuple[str, ...] = ()
    if where is not None:
        from penstock.pipelines import where as questions

        asked = questions.properties_read(where)
        found = questions.where(found, where)
    remarks = find_remarks(opened)
    if as_json:
        print_json([artifact_json(each, remarks) for each in found])
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("id", "type", "digest", *map(plain, asked), "location", "remarks"):
        table.add_column(title, overflow="fold")
    for each in found:
        table.add_row(
            str(each.id),
            each.TYPE_NAME,
            each.digest.removeprefix("sha256:")[:12],
            *(plain(str(each.properties.get(name, ""))) for name in asked),
            plain(each.uri),
            plain(remarked(remarks, each)),
        )
    new_console().print(table)


def diff(
    before: RunArgument,
    after: RunArgument,
    root: RootOption = DEFAULT_ROOT,
    store: StoreOption = "",
    store_wait: WaitOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Show in what two runs differ: parameters, code, environment, data, metrics."""
    from penstock.pipelines.difference import difference

    opened = open_store(root, store, store_wait)
    first = find_run_id(opened, before)
    # 'last' is the last of the same pipeline.
    second = find_run_id(opened, after, opened.run(first).pipeline)
    found = difference(opened, first, second)
    if as_json:
        import dataclasses

        print_json(
            {
                "before": run_json(found.before),
                "after": run_json(found.after),
                **{
                    name: [dataclasses.asdict(change) for change in changes]
                    for name, changes in found.sections.items()
                },
            }
        )
        return
    from rich.table import Table

    console = new_console()
    runs = f"runs [bold]{found.before.id}[/] and [bold]{found.after.id}[/]"
    differs = any(found.sections.values())
    console.print(runs if differs else f"{runs} differ in nothing that is recorded.")
    for name, changes in found.sections.items():
        table = Table(title=f"\n{name}", title_justify="left", box=None, pad_edge=False)
        for title in ("name", "before", "after", "components"):
            table.add_column(title, overflow="fold")
        rows: dict[tuple[str, str, str], list[str]] = {}
        for each in changes:  # several components may share what changed
            row = each.name, short(each.before), short(each.after)
            rows.setdefault(row, []).append(each.component)
        for row, components in rows.items():
            table.add_row(*map(plain, row), plain(", ".join(filter(None, components))))
        if changes:
            console.print(table)
