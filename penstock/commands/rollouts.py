"""Verbs of rollouts: start, status, hold, resume, abort, promote; and rollback."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.commands.options import JsonOption
from penstock.commands.terminal import (
    DONE,
    NOT_ENOUGH_DATA,
    SAID_NO,
    new_console,
    print_json,
    when,
)

if TYPE_CHECKING:
    from rich.console import Console

    from penstock.components.serving.ledger import Ledger
    from penstock.components.serving.rollout.controller import Controller
    from penstock.components.serving.rollout.state import State
    from penstock.components.serving.routing import Routing
    from penstock.components.serving.story import Chapter

_QUIET = ("slow", "took over", "watches")
"""What a story on the terminal can do without."""

app = typer.Typer(
    name="rollout",
    help="Roll a version out step by step, and take it back.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

DirArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="The serving directory.")
]
ReasonOption = Annotated[
    str, typer.Option("--reason", help="Why; it is kept in the ledger.")
]
NoWaitOption = Annotated[
    bool,
    typer.Option("--no-wait", help="Do not control it; another process does."),
]


@app.command()
def start(
    serving_dir: DirArgument,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="The candidate.")],
    server: Annotated[
        str,
        typer.Option("--server", metavar="ADDRESS", help="HOST:PORT of its gRPC side."),
    ],
    plan: Annotated[
        str,
        typer.Option(
            "--plan",
            metavar="PLAN",
            help="A Rollout as FILE.py:NAME, or a file of JSON; the default plan if "
            "left out.",
            show_default=False,
        ),
    ] = "",
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="Name of the model in the server; that of DIR if left out.",
            show_default=False,
        ),
    ] = "",
    rest: Annotated[
        str,
        typer.Option(
            "--rest",
            metavar="ADDRESS",
            help="HOST:PORT of its REST side, to see what else it holds.",
            show_default=False,
        ),
    ] = "",
    layout: Annotated[
        str,
        typer.Option("--layout", help="names (one served name per version) or labels."),
    ] = "names",
    server_config: Annotated[
        Path | None,
        typer.Option(
            "--server-config",
            metavar="FILE",
            help="The configuration that the server was started with; its other "
            "models stay.",
        ),
    ] = None,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config-file",
            metavar="FILE",
            help="A file that the server polls, to control it by that.",
        ),
    ] = None,
    boot_config: Annotated[
        Path | None,
        typer.Option(
            "--boot-config",
            metavar="FILE",
            help="Where to keep a configuration to start the server with.",
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            "--ca", metavar="FILE", help="Who signs the server's certificate."
        ),
    ] = None,
    cert: Annotated[
        Path | None,
        typer.Option("--cert", metavar="FILE", help="Our certificate."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="Its key.")
    ] = None,
    server_name: Annotated[
        str,
        typer.Option(
            "--server-name",
            help="The name in the server's certificate, if it is not the host.",
            show_default=False,
        ),
    ] = "",
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="FILE", help="Token of control calls."),
    ] = None,
    unblessed: Annotated[
        str,
        typer.Option(
            "--unblessed",
            metavar="REASON",
            help="Why a version without a blessing is rolled out all the same.",
            show_default=False,
        ),
    ] = "",
    no_wait: NoWaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Start the rollout of a version, and control it until it is over."""
    from penstock.components.serving.ledger import Ledger
    from penstock.components.serving.place import existing
    from penstock.components.serving.rollout import verbs
    from penstock.components.serving.rollout.plan import Rollout
    from penstock.components.serving.rollout.servers import ModelServer

    def text(path: Path | None) -> str:
        return str(path.absolute()) if path is not None else ""

    folder = existing(serving_dir)
    if plan:
        from penstock.commands.plans import load_plan

        chosen = load_plan(plan)
    else:
        chosen = Rollout(model or folder.name)
    named = ModelServer(
        model=model or chosen.model,
        address=server,
        rest_address=rest,
        layout=layout,
        user_config=text(server_config),
        config_file=text(config_file),
        boot_config=text(boot_config),
        authority=text(ca),
        certificate=text(cert),
        key=text(key),
        server_name=server_name,
        token_file=text(token_file),
    )
    with named.target(folder) as target, Ledger(folder) as ledger:
        verbs.check_candidate(ledger, version, unblessed=unblessed, reads_bytes=False)
        if not no_wait:
            target.check()  # before anything is written down that cannot be done
        state = verbs.start(
            ledger, version, chosen, server=named.to_json(), unblessed=unblessed
        )
    if no_wait:
        _print_state(folder, as_json=as_json)
        return
    _control(folder, state, as_json=as_json)


@app.command()
def status(serving_dir: DirArgument, as_json: JsonOption = False) -> None:
    """Say where a rollout is, and what its guards say."""
    from penstock.components.serving.ledger import Ledger
    from penstock.components.serving.rollout.state import state_of

    with Ledger(serving_dir, read_only=True) as ledger:
        state = state_of(ledger)
    _print_state(serving_dir, as_json=as_json)
    if state is not None:
        raise typer.Exit(_code(state))


@app.command()
def hold(
    serving_dir: DirArgument, reason: ReasonOption, as_json: JsonOption = False
) -> None:
    """Keep a rollout at its step; its guards go on watching."""
    from penstock.components.serving.ledger import Ledger
    from penstock.components.serving.rollout import verbs

    with Ledger(serving_dir) as ledger:
        state = verbs.hold(ledger, reason)
    if as_json:
        _print_state(serving_dir, as_json=True)
        return
    new_console().print(
        f"The rollout of version {state.candidate} stays at {100 * state.weight:g} % "
        "until it is resumed.",
        markup=False,
    )


@app.command()
def resume(
    serving_dir: DirArgument,
    server: Annotated[
        str,
        typer.Option(
            "--server",
            metavar="ADDRESS",
            help="Where the model server is from now on.",
            show_default=False,
        ),
    ] = "",
    no_wait: NoWaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let a rollout go on, and control it if nobody does.

    Without a rollout, load what is stable into the model server again.
    """
    from penstock.components.serving.ledger import Ledger
    from penstock.components.serving.rollout import verbs
    from penstock.components.serving.rollout.state import state_of

    with Ledger(serving_dir) as ledger:
        if server:
            verbs.move_server(ledger, server)
        state = state_of(ledger)
        if state is None or state.phase.is_over:
            _load_again(ledger)
            _print_state(serving_dir, as_json=as_json)
            return
        if state.phase.value != "rolling back":
            state = verbs.resume(ledger)
        controller = ledger.controller()
    if no_wait or controller is not None:
        if controller is not None and not as_json:
            new_console().print(f"It is controlled by {controller}.", markup=False)
        _print_state(serving_dir, as_json=as_json)
        return
    _control(serving_dir, state, as_json=as_json)


@app.command()
def abort(
    serving_dir: DirArgument, reason: ReasonOption, as_json: JsonOption = False
) -> None:
    """Send everybody to the stable version, and end the rollout."""
    from penstock.components.serving.ledger import Ledger
    from penstock.components.serving.rollout import verbs
    from penstock.components.serving.routing import routing_of

    with Ledger(serving_dir) as ledger:
        state = verbs.abort(ledger, reason)
        routing = routing_of(ledger)
        remarks = [_tell(ledger, routing), _finish(ledger, serving_dir)]
        remarks.append(_unfinished(ledger))
    everybody = (
        "No version is stable."
        if routing.stable is None
        else f"Version {routing.stable} answers everybody."
    )
    if as_json:
        _print_lines(*remarks, stderr=True)
        _print_state(serving_dir, as_json=True)
        return
    _print_lines(f"Version {state.candidate} is taken back. {everybody}", *remarks)


@app.command()
def promote(
    serving_dir: DirArgument,
    reason: ReasonOption,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask whether that is meant.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the candidate stable now, whatever steps are left."""
    from penstock.components.serving.ledger import Ledger
    from penstock.components.serving.rollout import verbs
    from penstock.components.serving.rollout.state import state_of
    from penstock.components.serving.routing import routing_of

    with Ledger(serving_dir) as ledger:
        now = state_of(ledger)
        if now is not None and not now.phase.is_over and not yes:
            typer.confirm(
                f"Send everybody to version {now.candidate} now, which answers "
                f"{100 * now.weight:g} % of units?",
                abort=True,
            )
        state = verbs.promote(ledger, reason, loaded=_loaded(ledger))
        told = _tell(ledger, routing_of(ledger))
    if as_json:
        _print_lines(told, stderr=True)
        _print_state(serving_dir, as_json=True)
        return
    _print_lines(
        f"Version {state.candidate} is stable. Back again with: penstock rollback "
        f"{serving_dir} --reason TEXT",
        told,
    )


def rollback(
    serving_dir: DirArgument, reason: ReasonOption, as_json: JsonOption = False
) -> None:
    """Send everybody to the last good version, at once."""
    from penstock.components.serving.ledger import Ledger
    from penstock.components.serving.rollout import verbs
    from penstock.components.serving.rollout.state import state_of

    with Ledger(serving_dir) as ledger:
        last = state_of(ledger, any_plan=True)
        # Stable is loaded as long as a rollout runs, and nobody is asked.
        loaded = None if last and not last.phase.is_over else _loaded(ledger)
        routing = verbs.roll_back(ledger, reason, loaded=loaded)
        told = _tell(ledger, routing)
        late = _finish(ledger, serving_dir)
        unfinished = _unfinished(ledger)
    if as_json:
        print_json(
            {
                "stable": routing.stable,
                "seq": routing.seq,
                "late": late,
                "not_told": told,
            }
        )
        return
    everybody = (
        "No version is stable."
        if routing.stable is None
        else f"Version {routing.stable} answers everybody."
    )
    _print_lines(everybody, told, late, unfinished)


def _load_again(ledger: Ledger, seconds: float = 300.0) -> None:
    """Load what is stable, and what was before it, into the model server.

    A server that was started anew without a boot configuration has neither.
    """
    from penstock.components.serving.control import LoadState
    from penstock.components.serving.rollout import verbs
    from penstock.components.serving.rollout.servers import server_of
    from penstock.components.serving.routing import routing_of
    from penstock.components.serving.shelf import usable
    from penstock.schemas.errors import ServingError

    routing = routing_of(ledger)
    if routing.stable is None:
        verbs.resume(ledger)  # says that there is nothing to resume
    wanted = []
    for version in (routing.stable, routing.previous):
        if version is not None:
            try:
                wanted.append(usable(ledger, version, reads_bytes=False).number)
            except ServingError:
                if version == routing.stable:
                    raise
    with server_of(ledger).target(ledger.directory) as target:
        target.load(tuple(sorted(wanted)))
        deadline = time.monotonic() + seconds
        while True:
            found = target.states().get(wanted[0])
            if found is not None and found.state is LoadState.AVAILABLE:
                break
            failed = found is not None and found.state is LoadState.END
            if time.monotonic() > deadline or (failed and found and found.error):
                why = found.error if found and found.error else "it is not there yet"
                raise ServingError(
                    f"The model server has not loaded version {wanted[0]}: {why}. "
                    "Look into its log."
                )
            time.sleep(0.1)
        target.announce(routing.stable)


# --- controlling


def _control(serving_dir: Path, state: State, *, as_json: bool) -> None:
    """Control a rollout until it is over, and exit with the code of how it ended."""
    from penstock.components.serving.ledger import Ledger
    from penstock.components.serving.rollout.controller import Controller
    from penstock.components.serving.rollout.servers import server_of
    from penstock.components.serving.shelf import quarantine
    from penstock.components.serving.signals import stopped_by_signals

    console = new_console(stderr=as_json)
    with (
        stopped_by_signals() as stop,
        Ledger(serving_dir) as ledger,
        server_of(ledger).target(serving_dir) as target,
    ):
        controller = Controller(
            serving_dir,
            target,
            quarantine=lambda version, why: quarantine(
                ledger, version, why, lease=controller.lease
            ),
        )
        try:
            with _Shown(console, ledger, state, controller) as shown:
                state = controller.run(shown, stop)
        finally:
            controller.close()
    if as_json:
        _print_state(serving_dir, as_json=True)
    if not state.phase.is_over:
        then = (
            f"it stays at {100 * state.weight:g} %, and routers send everybody to "
            f"version {state.stable} after {state.plan.dead_man_seconds:g} seconds."
            if state.weight
            else f"it stays {state.phase.value}, and nobody is answered by it."
        )
        console.print(
            f"Nobody controls the rollout of version {state.candidate} any more: "
            f"{then} Go on with: penstock rollout resume {serving_dir}",
            markup=False,
        )
        raise KeyboardInterrupt
    raise typer.Exit(_code(state))


class _Shown:
    """Prints what happens, and on a terminal a line that says how things are."""

    def __init__(
        self, console: Console, ledger: Ledger, state: State, controller: Controller
    ) -> None:
        self._console = console
        self._ledger = ledger
        self._controller = controller
        self._rollout = state.id
        self._seen = 0
        self._live: Any = None

    def __enter__(self) -> _Shown:
        if self._console.is_terminal:
            self._live = self._console.status("")
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, state: State) -> None:
        from penstock.components.serving.story import told

        events = self._ledger.events(rollout=self._rollout, since=self._seen)
        for chapter in told(events):
            _print_chapter(self._console, chapter)
        if events:
            self._seen = events[-1].seq
        if self._live is not None:
            self._live.update(_line(state, self._controller))


def _line(state: State, controller: Controller) -> str:
    """Return how things are in one line."""
    where = f"version {state.candidate}: {state.phase.value}"
    if state.phase.value == "step":
        planned = state.plan.steps[state.step]
        where += (
            f" {state.step + 1} of {len(state.plan.steps)} at {planned.weight:g} %, "
            f"{state.step_seconds:.0f} of {planned.seconds:.0f} s"
        )
    decision = controller.decision
    if decision is not None:
        guards = (
            f"{each.name} {each.evidence:.3g}/{each.limit:.3g}"
            for each in decision.guards
            if each.limit != float("inf")
        )
        where += "; evidence " + ", ".join(guards)
    return where


# --- what several verbs do


def _loaded(ledger: Ledger) -> frozenset[int] | None:
    """Return the versions that the server has loaded; None if it does not say."""
    from penstock.components.serving.rollout.servers import server_of
    from penstock.schemas.errors import ServingError

    try:
        with server_of(ledger).target(ledger.directory) as target:
            found = target.states()
    except ServingError:
        return None
    return frozenset(
        version for version, each in found.items() if each.state.value == "AVAILABLE"
    )


def _tell(ledger: Ledger, routing: Routing) -> str:
    """Tell the model server where those go that come through no router.

    Returns:
        Why it does not know, as sentences; empty if it does, or need not.
    """
    from penstock.components.serving.rollout.servers import server_of
    from penstock.schemas.errors import ServingError

    canary = routing.candidate if routing.weight > 0 else None
    try:
        server = server_of(ledger)
        if server.layout == "labels" or server.bare_name:
            with server.target(ledger.directory) as target:
                target.announce(routing.stable, canary)
    except ServingError as error:
        return f"Who comes through no router is answered as before: {error}"
    return ""


def _unfinished(ledger: Ledger) -> str:
    """Return how to finish what rolls back and nobody controls; empty if nothing."""
    from penstock.components.serving.rollout.state import Phase, state_of

    state = state_of(ledger, any_plan=True)
    if state is None or state.phase is not Phase.ROLLING_BACK or ledger.controller():
        return ""
    return (
        f"Nobody controls the rollout: version {state.candidate} stays loaded until: "
        f"penstock rollout resume {ledger.directory}"
    )


def _print_lines(*lines: str, stderr: bool = False) -> None:
    console = new_console(stderr=stderr)
    for line in lines:
        if line:
            console.print(line, markup=False, soft_wrap=True)


def _finish(ledger: Ledger, serving_dir: Path, seconds: float = 5.0) -> str:
    """Wait until every router follows; return which ones do not, as a sentence."""
    from penstock.components.serving.routing import routing_of
    from penstock.components.serving.traffic import Traffic
    from penstock.schemas.errors import ServingError

    seq, late = routing_of(ledger).seq, ["?"]
    deadline = time.monotonic() + seconds
    try:
        with Traffic(serving_dir) as traffic:
            while late and time.monotonic() < deadline:
                late = [
                    each.router
                    for each in traffic.routers()
                    if each.seconds_ago <= 10 and each.acknowledged < seq
                ]
                if late:
                    time.sleep(0.02)
    except ServingError as error:  # it is done all the same
        return f"Whether routers follow is not known: {error}"
    return f"These routers did not say that they follow: {', '.join(late)}." * bool(
        late
    )


def _print_state(serving_dir: Path, *, as_json: bool) -> None:
    from penstock.components.serving.ledger import Ledger
    from penstock.components.serving.rollout.controller import observed
    from penstock.components.serving.rollout.decide import decide
    from penstock.components.serving.rollout.state import Phase, state_of
    from penstock.components.serving.routing import routing_of
    from penstock.components.serving.story import told
    from penstock.schemas.errors import ServingError

    with Ledger(serving_dir, read_only=True) as ledger:
        state, routing = state_of(ledger), routing_of(ledger)
        controller = ledger.controller()
        events = ledger.events(rollout=state.id) if state else ()
    decision, unknown = None, ""
    if state is not None and state.phase is Phase.STEP:
        try:
            decision = decide(state.plan, observed(serving_dir, state), state.seconds)
        except ServingError as error:
            unknown = str(error)
    if as_json:
        print_json(
            {
                "stable": routing.stable,
                "previous": routing.previous,
                "rollout": state.to_json() if state else None,
                "controller": controller,
                "guards": [vars(each) for each in decision.guards] if decision else [],
                "story": [vars(each) for each in told(events)],
            }
        )
        return
    console = new_console()
    stable = (
        "No version is" if routing.stable is None else f"Version {routing.stable} is"
    )
    console.print(f"{stable} stable.", markup=False)
    if state is None:
        console.print("There was no rollout yet.")
        return
    console.print(
        f"The rollout of version {state.candidate} is {_where(state)}.", markup=False
    )
    if not state.phase.is_over:
        console.print(
            f"It is controlled by {controller}."
            if controller
            else f"Nobody controls it: penstock rollout resume {serving_dir}",
            markup=False,
        )
    for text in (state.held and f"Held: {state.held}", state.holding, unknown):
        if text:
            console.print(text, markup=False)
    if decision is not None:
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for title in ("guard", "says", "evidence", "fails at", "why"):
            table.add_column(title, overflow="fold")
        for guard in decision.guards:
            limit = "" if guard.limit == float("inf") else f"{guard.limit:.3g}"
            evidence = f"{guard.evidence:.3g}" if limit else ""
            table.add_row(guard.name, guard.state, evidence, limit, guard.sentence)
        console.print(table)
    for chapter in told(events):
        _print_chapter(console, chapter)


def _print_chapter(console: Console, chapter: Chapter) -> None:
    if chapter.kind not in _QUIET:
        line = f"{when(chapter.at)}  {chapter.text}"
        console.print(line, markup=False, soft_wrap=True)


def _where(state: State) -> str:
    from penstock.components.serving.rollout.plan import duration_text

    if state.phase.value != "step":
        return state.phase.value
    planned = state.plan.steps[state.step]
    return (
        f"at step {state.step + 1} of {len(state.plan.steps)} ({planned.weight:g} %), "
        f"watched for {duration_text(state.step_seconds)} of "
        f"{duration_text(planned.seconds)}"
    )


def _code(state: State) -> int:
    """Return the exit code that says what a rollout has come to."""
    if state.phase.value == "promoted":
        return DONE
    if state.phase.is_over or state.phase.value == "rolling back":
        return SAID_NO
    return NOT_ENOUGH_DATA
