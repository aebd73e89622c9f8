"""Verbs that say what made something, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.commands.options import (
    JsonOption,
    RootOption,
    StoreOption,
    WaitOption,
)
from penstock.commands.records import (
    artifact_json,
    execution_json,
    find_remarks,
    find_subject,
    open_store,
    remarked,
)
from penstock.commands.terminal import new_console, plain, print_json, short, when
from penstock.pipelines.run import DEFAULT_ROOT

if TYPE_CHECKING:
    from rich.text import Text

    from penstock.components.serving.story import Chapter
    from penstock.pipelines.lineage import Lineage
    from penstock.pipelines.metadata import ExecutionRecord
    from penstock.pipelines.overrides import Remarks
    from penstock.schemas.artifacts import Artifact, PushedModel


def lineage(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT|VERSION",
            help="Number of an artifact, its location, or a served version as "
            "SERVING_DIR/NUMBER.",
        ),
    ],
    root: RootOption = DEFAULT_ROOT,
    store: StoreOption = "",
    store_wait: WaitOption = 30.0,
    downstream: Annotated[
        bool, typer.Option("--downstream", help="What came of it, not what made it.")
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export",
            metavar="FILE",
            help="Write it to a file: .html is a page with the graph, .dot is for "
            "Graphviz, .json has OpenLineage events.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what made an artifact or a served version, back to the files it read."""
    from penstock.pipelines import lineage as ask

    opened = open_store(root, store, store_wait)
    artifact = find_subject(opened, subject)
    walk = ask.downstream if downstream else ask.upstream
    found = walk(opened, artifact)
    if export is not None:
        from penstock.pipelines import exports

        exports.write(found, export)
    remarks = find_remarks(opened)
    if as_json:
        print_json(
            {
                "start": artifact_json(found.start, remarks),
                "story": [
                    {
                        "at": each.at,
                        "kind": each.kind,
                        "text": each.text,
                        "actor": each.actor,
                        "rollout": each.rollout,
                        "data": dict(each.data),
                    }
                    for each in _story(found)
                ],
                "artifacts": [
                    artifact_json(each, remarks)
                    for _, each in sorted(found.artifacts.items())
                ],
                "executions": [
                    {**execution_json(each, remarks), "recipe": _recipe_json(each)}
                    for _, each in sorted(found.executions.items())
                ],
            }
        )
        return
    print_lineage(found, remarks, downstream=downstream)
    _print_causes(found)
    if not downstream:
        _print_recipes(found)
        _print_story(found)
    if export is not None:
        new_console().print(f"\nwritten: {export}", markup=False, soft_wrap=True)


def _story(found: Lineage) -> tuple[Chapter, ...]:
    """Return what was done to the version that a lineage is of, if it is of one."""
    from penstock.pipelines.served import story_behind
    from penstock.schemas.artifacts import PushedModel

    start = found.start
    return story_behind(start) if isinstance(start, PushedModel) else ()


def _print_story(found: Lineage) -> None:
    from rich.table import Table

    chapters = _story(found)
    if not chapters:
        return
    table = Table(box=None, pad_edge=False)
    for title in ("when", "what was done to the version", "by"):
        table.add_column(title, overflow="fold")
    for each in chapters:
        table.add_row(when(each.at), plain(each.text), plain(each.actor))
    console = new_console()
    console.print()
    console.print(table)


def _print_causes(found: Lineage) -> None:
    """Print why runs were started, where it was not somebody who just ran them."""
    from penstock.pipelines.retraining import RetrainingDecision, why_decided

    console = new_console()
    for _, each in sorted(found.artifacts.items()):
        if each.TYPE_NAME == RetrainingDecision.TYPE_NAME:
            why = " ".join(why_decided(each))
            console.print(f"\n{each.TYPE_NAME} {each.id}: {why}", markup=False)


def _recipe_json(execution: ExecutionRecord) -> dict[str, Any]:
    import dataclasses

    from penstock.pipelines.recipes import recipe

    return dataclasses.asdict(recipe(execution))


def _print_recipes(found: Lineage) -> None:
    """Print what executions were made with, those with the same once, and the data."""
    from rich.table import Table

    from penstock.pipelines import lineage as ask
    from penstock.pipelines.recipes import recipe

    rows: dict[tuple[str, ...], None] = {}
    for _, each in sorted(found.executions.items()):
        made = recipe(each)
        parameters = [f"{key}={short(on)}" for key, on in made.parameters.items()]
        environment = [f"{key} {short(on)}" for key, on in made.environment.items()]
        listed = (", ".join(each) for each in (parameters, environment))
        row = (each.component, short(made.code), *listed)
        rows[row] = None
    console = new_console()
    for title, lines in (
        (("component", "code", "parameters", "environment"), rows),
        (
            ("data", "span", "digest", "location"),
            {
                (
                    f"{each.TYPE_NAME} {each.id}",
                    str(each.properties.get("span", "")),
                    short(each.digest),
                    each.uri,
                ): None
                for each in ask.beginnings(found)
            },
        ),
    ):
        table = Table(box=None, pad_edge=False)
        for name in title:
            table.add_column(name, overflow="fold")
        for line in lines:
            table.add_row(*map(plain, line))
        console.print()
        console.print(table)


def print_lineage(
    found: Lineage, remarks: Remarks, *, downstream: bool = False
) -> None:
    """Print a lineage as a tree, each artifact with its execution below it.

    Args:
        found: The lineage.
        remarks: What to say beside artifacts.
        downstream: Whether it leads to what came of the artifact.
    """
    from rich.tree import Tree

    next_of: dict[int, list[tuple[ExecutionRecord, list[tuple[str, Artifact]]]]] = {}
    for execution in found.executions.values():
        near = execution.inputs if downstream else execution.outputs
        far = execution.outputs if downstream else execution.inputs
        ends = [(key, each) for key, made in far.items() for each in made]
        for made in near.values():
            for each in made:
                if each.id is not None:
                    next_of.setdefault(each.id, []).append((execution, ends))
    shown: set[int] = set()

    def grow(branch: Tree, artifact: Artifact) -> None:
        if artifact.id is None or artifact.id in shown:
            return
        shown.add(artifact.id)
        cached = 0
        for execution, ends in next_of.get(artifact.id, []):
            if downstream and execution.state.value == "cached":
                cached += 1  # it only took what another one had made of it
                continue
            verb = "read by" if downstream else "made by"
            how = [execution.state.value, when(execution.started)]
            if execution.run_id:
                how.append(f"run {execution.run_id}")
            twig = branch.add(
                f"{verb} [bold]{execution.component}[/] [dim]({', '.join(how)})[/]"
                f" {plain(execution.reason)}".rstrip()
            )
            for key, each in ends:
                again = " [dim](above)[/]" if each.id in shown else ""
                grow(twig.add(_label(each, remarks, f"{key}: ", again)), each)
        if cached:
            runs = f"{cached:,} more {'time' if cached == 1 else 'times'}"
            branch.add(f"[dim]read {runs}, and what came of it taken from the cache[/]")

    tree = Tree(_label(found.start, remarks))
    grow(tree, found.start)
    new_console().print(tree)


def _label(
    artifact: Artifact, remarks: Remarks, before: str = "", after: str = ""
) -> Text:
    from rich.text import Text

    parts = [f"[cyan]{artifact.TYPE_NAME}[/] {artifact.id}"]
    for key in ("span", "pushed_version", "blessed", "verdict", "auc", "reason"):
        value = artifact.properties.get(key)
        if value not in (None, ""):
            parts.append(plain(f"{key}={value}"))
    said = remarked(remarks, artifact)
    if said:
        parts.append(f"[yellow]{plain(said)}[/]")
    if artifact.digest:
        parts.append(f"[dim]{artifact.digest[:19]}…[/]")
    parts.append(plain(artifact.uri))
    return Text.from_markup(before + " ".join(parts) + after, overflow="fold")


def impact(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT|PIPELINE",
            help="Number of an artifact or its location; or a pipeline, with --span.",
        ),
    ],
    root: RootOption = DEFAULT_ROOT,
    store: StoreOption = "",
    store_wait: WaitOption = 30.0,
    span: Annotated[
        int | None, typer.Option("--span", help="A span that the pipeline read.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show which models and pushed versions have an artifact's or a span's data."""
    from penstock.pipelines import lineage as ask
    from penstock.pipelines.served import remark_on

    opened = open_store(root, store, store_wait)
    if span is None and subject in opened.pipelines and not subject.isdecimal():
        raise typer.BadParameter(
            f"'{subject}' is a pipeline. Pass --span NUMBER, or an artifact.",
            param_hint="--span",
        )
    sources = (
        [find_subject(opened, subject)]
        if span is None
        else ask.of_span(opened, subject, span)
    )
    found = ask.impact(opened, *sources)
    remarks = find_remarks(opened)
    if as_json:
        print_json(
            {
                "sources": [artifact_json(each, remarks) for each in found.sources],
                "models": [artifact_json(each, remarks) for each in found.models],
                "pushed": [
                    {
                        **artifact_json(each, remarks),
                        "is_there": _is_there(each),
                        "remark": remark_on(each),
                    }
                    for each in found.pushed
                ],
            }
        )
        return
    from rich.table import Table

    console = new_console()
    table = Table(box=None, pad_edge=False)
    for title in ("", "id", "digest", "location", "remarks"):
        table.add_column(title, overflow="fold")
    for model in found.models:
        digest, said = short(model.digest), plain(remarked(remarks, model))
        table.add_row("model", str(model.id), digest, plain(model.uri), said)
    for pushed in found.pushed:
        said = _remark(pushed)
        place = str(pushed.properties.get("pushed_destination", pushed.uri))
        digest = short(pushed.digest)
        table.add_row("version", str(pushed.id), digest, plain(place), plain(said))
    for source in found.sources:
        console.print(_label(source, remarks))
    console.print(table if table.rows else "It is in no model.")


def _remark(pushed: PushedModel) -> str:
    from penstock.pipelines.served import remark_on

    there = "" if _is_there(pushed) else "not there any more"
    return "; ".join(filter(None, [there, remark_on(pushed)]))


def _is_there(pushed: Artifact) -> bool:
    """Return whether a version still lies where it was pushed to."""
    destination = pushed.properties.get("pushed_destination")
    return isinstance(destination, str) and Path(destination).is_dir()
