"""The taxi pipeline from nothing: generate trips, run, show what was pushed and how.

Every step is one that the command line offers, and is shown as it would be typed.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import typer

from penstock.commands.lineage import lineage
from penstock.commands.running import run
from penstock.commands.terminal import DONE, ERROR
from penstock.pipelines.run import DEFAULT_ROOT
from penstock.pipelines.taxi.trips import Fault, write_trips
from penstock.schemas.errors import PenstockError

if TYPE_CHECKING:
    from rich.console import Console

_PIPELINE = "penstock.pipelines.taxi:taxi"


def demo(
    root: Path,
    serving_dir: Path,
    *,
    data: Path | None = None,
    rows: int = 5_000,
    fault: Fault | None = None,
) -> int:
    """Run the taxi pipeline and print what came of it.

    Args:
        root: Folder of artifacts, logs, store and generated trips.
        serving_dir: Where versions are pushed.
        data: Folder of CSV files; trips are generated, once, if None.
        rows: Trips of each of the five generated days.
        fault: What is wrong with the last of them, if anything.

    Returns:
        The exit code of `penstock run`: 0 if a version was pushed, 3 if a verdict
        stopped the run.
    """
    console = _console()
    if data is None:
        data = _generated(console, root, rows, fault)
    given = [f"data={data}", f"serving_dir={serving_dir}"]
    _show(console, "run", _PIPELINE, *_params(given), "--root", str(root))
    code = _exit_code(lambda: run(_PIPELINE, root=root, param=given))
    if code != DONE:
        return code

    from penstock.components.serving.version_dir import versions

    newest = str(serving_dir / str(versions(serving_dir)[-1].number))
    _show(console, "lineage", newest, "--root", str(root))
    lineage(newest, root=root)
    console.print("\n[bold]Try next[/]")
    python = shlex.quote(os.path.relpath(sys.executable))
    slices = ["--label", "big_tipper", "--model", newest, "--slice", "company"]
    for words, why in (
        (["evaluate", str(data), *slices], "other slices of it, and a page"),
        (["versions", str(serving_dir)], "what can be served"),
        (["runs", "--root", str(root)], "every run so far"),
        (["artifacts", "--type", "Model", "--root", str(root)], "every model"),
    ):
        console.print(f"  {python} -m penstock {shlex.join(words)}  [dim]# {why}[/]")
    module = f"{python} -m penstock.pipelines.taxi.demo"
    console.print(f"  {module} --fault new_payment_type  [dim]# a run that stops[/]")
    return code


def _generated(console: Console, root: Path, rows: int, fault: Fault | None) -> Path:
    folder = root / "trips" / (f"{rows}-{fault}" if fault else str(rows))
    if folder.is_dir():
        console.print(f"The trips in {folder} were generated before.")
        return folder
    # Renamed when whole: a demo that was interrupted leaves no half of a week behind.
    unfinished = folder.with_name(f".{folder.name}-{os.getpid()}")
    files = write_trips(unfinished, rows=rows, fault=fault)
    try:
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(unfinished)  # another demo was faster; its trips are the same
    console.print(
        f"Generated {rows * len(files):,} trips: {len(files)} days in {folder}."
    )
    return folder


def _params(given: Sequence[str]) -> list[str]:
    return [word for pair in given for word in ("--param", pair)]


def _show(console: Console, *words: str) -> None:
    console.print(f"\n[dim]$ penstock {shlex.join(words)}[/]")


def _exit_code(verb: Callable[[], None]) -> int:
    """Call a verb of the command line; return what it would exit with."""
    try:
        verb()
    except typer.Exit as ended:
        return ended.exit_code
    return DONE


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo as the command line says; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description="Run the taxi pipeline and push a model version.",
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=DEFAULT_ROOT,
        help="folder of artifacts, logs, store and trips (default: %(default)s)",
    )
    parser.add_argument(
        "--serving-dir",
        type=Path,
        help="where versions are pushed (default: serving/taxi in the root)",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data", type=Path, help="folder of your own CSV files")
    source.add_argument(
        "--fault", choices=get_args(Fault), help="what is wrong with the last day"
    )
    parser.add_argument(
        "--rows", type=int, default=5_000, help="trips a day (default: %(default)s)"
    )
    given = parser.parse_args(arguments)
    return demo(
        given.root,
        given.serving_dir or given.root / "serving" / "taxi",
        data=given.data,
        rows=given.rows,
        fault=given.fault,
    )


if __name__ == "__main__":
    # What libraries log and warn of as they are imported is not about the trips.
    logging.getLogger().addHandler(logging.NullHandler())
    warnings.filterwarnings("ignore", module=r"google\.")
    try:
        code = main()
    except PenstockError as error:
        print(error, file=sys.stderr)
        code = ERROR
    sys.stdout.flush()
    sys.stderr.flush()
    # At its end TensorFlow prints tracebacks of models that it tears down too late.
    os._exit(code)
