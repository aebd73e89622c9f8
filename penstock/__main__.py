"""The command line: run a pipeline, evaluate a model, ask the lineage store.

Exit codes, for every verb: 0 yes or done, 1 error, 2 usage, 3 a verdict said no,
4 not enough data, 130 canceled. Nothing heavy is imported before a verb needs it.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import typer

from penstock.commands.drifting import backtest, drift
from penstock.commands.evaluating import evaluate
from penstock.commands.exporting import export, notify, rules
from penstock.commands.history import artifacts, diff, logs, runs, show
from penstock.commands.housekeeping import gc
from penstock.commands.lineage import impact, lineage
from penstock.commands.models import bless, versions
from penstock.commands.retraining import app as retrain
from penstock.commands.rollouts import app as rollout
from penstock.commands.rollouts import rollback
from penstock.commands.running import plan, reproduce, run
from penstock.commands.serving import serve
from penstock.commands.shelf import pin, quarantine, retain, verify
from penstock.commands.simulating import simulate
from penstock.commands.terminal import CANCELED, DONE, ERROR
from penstock.commands.tiers import hold, labels, tiers
from penstock.schemas.errors import PenstockError

app = typer.Typer(
    name="penstock",
    help="Pipelines that end in a served TensorFlow model, and their lineage.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # drawn by Rich, --help would take twice as long
    pretty_exceptions_enable=False,
)
for verb in (
    *(run, plan, evaluate, runs, show, logs, artifacts, lineage, reproduce, impact),
    *(diff, bless, gc, versions, verify, pin, quarantine, retain),
    *(serve, simulate, rollback),
    *(drift, backtest, export, notify, rules, labels, tiers, hold),
):
    app.command()(verb)
app.add_typer(rollout)
app.add_typer(retrain)


def command_line() -> int:
    """Run the command line; print sentences for errors that the user can mend.

    Returns:
        The exit code.
    """
    try:
        app()
    except SystemExit as ended:
        if _is_interrupt(ended):
            print("Canceled.", file=sys.stderr)
            return CANCELED
        return ended.code if isinstance(ended.code, int) else ERROR
    except PenstockError as error:
        print(error, file=sys.stderr)
        return ERROR
    except KeyboardInterrupt:
        print("Canceled.", file=sys.stderr)
        return CANCELED
    except BrokenPipeError:
        # The reader of our output went away, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception:
        import traceback

        traceback.print_exc()
        print(
            "\nThis is a defect of penstock, not of your pipeline. Report it with the "
            "lines above.",
            file=sys.stderr,
        )
        return ERROR
    return DONE


def _is_interrupt(ended: SystemExit) -> bool:
    """Return whether Typer made an exit of Ctrl-C, as some of its versions do."""
    reason: BaseException | None = ended
    while reason is not None and not isinstance(reason, KeyboardInterrupt):
        reason = reason.__cause__ or reason.__context__
    return reason is not None


class _NoPandas:
    """Lets nobody import pandas, for a verb that has no use for it.

    pyarrow does, where there is one, with the first value that it makes, and that
    takes longer than all else that such a verb does.
    """

    def find_spec(self, name: str, *_: Any) -> None:
        """Raise for pandas; leave all else to others."""
        if name == "pandas":
            raise ModuleNotFoundError("This verb has no use for pandas.", name=name)


def main() -> None:
    """Run the command line and end the process."""
    if sys.argv[1:2] == ["artifacts"]:
        sys.meta_path.insert(0, _NoPandas())
    code = command_line()
    sys.stdout.flush()
    sys.stderr.flush()
    # At once: after a cancel a component may still compute in a thread that nothing
    # waits for, and TensorFlow's functions complain when the interpreter ends.
    os._exit(code)


if __name__ == "__main__":
    main()
