"""Runs a component in a process of its own: killable, seeded, measured alone.

The parent writes a request and starts `python -m penstock.pipelines.child FOLDER`;
the child reads it, runs the component and writes a response. Both files lie in the
execution's temporary folder, which only the two of them write.
"""

from __future__ import annotations

import ctypes
import dataclasses
import importlib.util
import logging
import os
import pickle
import resource
import runpy
import signal
import subprocess
import sys
import time
import traceback
import types
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.components.base import Canceled, Component, RunContext
from penstock.pipelines.failures import place_of
from penstock.pipelines.logs import LINE
from penstock.schemas.errors import PenstockError, PipelineError

if TYPE_CHECKING:
    from penstock.pipelines.execution import ActiveRun, Execution

_REQUEST = "request.pickle"
_RESPONSE = "response.pickle"
_PR_SET_PDEATHSIG = 1  # from Linux's prctl.h

# Layer names and hash orders depend on these, and with them the bytes of a model.
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "TF_DETERMINISTIC_OPS": "1",
    "TF_CUDNN_DETERMINISTIC": "1",
    "TF_CPP_MIN_LOG_LEVEL": "1",
}


class ChildFailed(Exception):
    """What a component raised in its process, as far as it can be carried over.

    Attributes:
        type_name: Name of the exception's class.
        message_text: Its text.
        place: Where it was raised.
        traceback_text: The whole traceback.
        type_names: Paths of the exception's class and of those it derives from.
        errno: The system's number of the error, if it was one of the system.
        filename: The file it was about.
    """

    errno: int | None = None
    filename: object = None
    type_names: tuple[str, ...] = ()

    def __init__(
        self, type_name: str, message_text: str, place: str, traceback_text: str
    ) -> None:
        super().__init__(f"{type_name}: {message_text}\n\n{traceback_text}")
        self.type_name = type_name
        self.message_text = message_text
        self.place = place
        self.traceback_text = traceback_text

    def __reduce__(self) -> Any:
        parts = (self.type_name, self.message_text, self.place, self.traceback_text)
        return ChildFailed, parts, vars(self)


@dataclasses.dataclass(frozen=True)
class _Request:
    component: bytes
    main_path: str
    module_files: dict[str, str]
    sys_path: list[str]
    run_id: str
    temp_dir: Path
    beam_args: tuple[str, ...]
    external_inputs: tuple[Any, ...]
    progress_descriptor: int
    parent: int


@dataclasses.dataclass(frozen=True)
class _Response:
    properties: dict[str, dict[str, Any]]
    cpu_seconds: float
    peak_memory_bytes: int
    error: PenstockError | ChildFailed | None
    traceback_text: str


def run_in_child(
    live: Component, context: RunContext, run: ActiveRun, execution: Execution
) -> None:
    """Run a component in a process of its own and take over what it set.

    Args:
        live: The component, with facts for inputs and outputs.
        context: What it may use.
        run: The run, which kills the process when it is canceled.
        execution: Given the processor time and memory of the process.

    Raises:
        ChildFailed: If the component raised, or its process died.
        PenstockError: If the component raised one.
        Canceled: If the run was canceled meanwhile.
        PipelineError: If the component's functions cannot be found by a process.
    """
    from penstock.pipelines.execution import kill

    folder = context.temp_dir.parent / f"{context.temp_dir.name}.child"
    folder.mkdir()
    pickled = _pickled(live)
    read_end, write_end = os.pipe()
    request = _Request(
        component=pickled,
        main_path=_main_path(live),
        module_files=_module_files(live),
        sys_path=list(sys.path),
        run_id=context.run_id,
        temp_dir=context.temp_dir.absolute(),
        beam_args=context.beam_args,
        external_inputs=context.external_inputs,
        progress_descriptor=write_end,
        parent=os.getpid(),
    )
    (folder / _REQUEST).write_bytes(pickle.dumps(request))
    limit = live.options.timeout_seconds
    started = time.monotonic()
    assert execution.log is not None
    with open(execution.log, "ab") as log, run.lock:
        if run.canceled.is_set():
            raise Canceled
        child = subprocess.Popen(
            [sys.executable, "-m", "penstock.pipelines.child", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={
                **os.environ,
                **ENVIRONMENT,
                "PYTHONPATH": os.pathsep.join(
                    os.path.abspath(each) for each in sys.path
                ),
            },
            pass_fds=[write_end],
            start_new_session=True,  # so that Ctrl-C reaches it only through us
        )
        run.children.add(child)
    os.close(write_end)
    try:
        timed_out = _follow(child, read_end, context, started, limit)
    except BaseException:
        kill(child)
        raise
    finally:
        os.close(read_end)
        child.wait()
        run.children.discard(child)
    if run.canceled.is_set():
        raise Canceled
    if timed_out:
        raise PipelineError(
            f"It ran longer than its timeout of {limit:g} s and was stopped. Allow "
            "more with options=Options(timeout_seconds=...), or give it less to do."
        )
    if not (folder / _RESPONSE).exists():
        raise ChildFailed(
            "ProcessDied", _death(child.returncode), "its own process", ""
        )
    # Written by the child that this process started, in a folder of its own.
    response: _Response = pickle.loads((folder / _RESPONSE).read_bytes())
    execution.cpu_seconds = response.cpu_seconds
    execution.peak_memory_bytes = response.peak_memory_bytes
    if response.error is not None:
        # The traceback that counts is the child's.
        vars(response.error)["traceback_text"] = response.traceback_text
        raise response.error
    for key, properties in response.properties.items():
        live.outputs[key].properties.update(properties)


def _pickled(live: Component) -> bytes:
    """Return the component as bytes.

    Raises:
        PipelineError: If its class or something it holds cannot be carried over.
    """
    try:
        return pickle.dumps(live)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise PipelineError(
            f"'{live.name}' runs in a process of its own and cannot be carried there: "
            f"{error}. Define '{type(live).__name__}' at the top level of a module."
        ) from error


def _follow(
    child: subprocess.Popen[bytes],
    read_end: int,
    context: RunContext,
    started: float,
    limit: float | None,
) -> bool:
    """Pass on progress until the child is done; return whether it ran out of time."""
    import select

    from penstock.pipelines.execution import kill

    pending = b""
    while True:
        ready, _, _ = select.select([read_end], [], [], 0.1)
        if ready:
            block = os.read(read_end, 65_536)
            if not block:
                return False
            *lines, pending = (pending + block).split(b"\n")
            rows = sum(int(line) for line in lines if line)
            if rows:
                context.progress(rows)
        if limit is not None and time.monotonic() - started > limit:
            kill(child)
            return True
        if child.poll() is not None and not ready:
            return False


def _death(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        hint = (
            "; the system kills processes when memory runs out"
            if name == "SIGKILL"
            else ""
        )
        return f"the process was ended by {name}{hint}"
    return f"the process exited with code {code} and left no result"


def _main_path(component: Component) -> str:
    """Return the script that the component's functions live in, if they do.

    Raises:
        PipelineError: If they live in a session that no file holds.
    """
    needed = [
        f"{component.name}.{name}"
        for name, value in component.parameters.items()
        if isinstance(value, types.FunctionType) and value.__module__ == "__main__"
    ]
    if type(component).__module__ == "__main__":
        needed.append(type(component).__qualname__)
    if not needed:
        return ""
    path: str = getattr(sys.modules["__main__"], "__file__", None) or ""
    if not path or not os.path.exists(path):
        raise PipelineError(
            f"{needed[0]} is defined in an interactive session, which the process that "
            f"'{component.name}' runs in cannot read. Put it in a module file and "
            "import it."
        )
    return os.path.abspath(path)


def _module_files(component: Component) -> dict[str, str]:
    """Return the files of the modules that a component's class and functions are in."""
    owners = [
        type(component),
        *(
            value
            for value in component.parameters.values()
            if isinstance(value, types.FunctionType)
        ),
    ]
    found = {}
    for name in {owner.__module__ for owner in owners} - {"__main__"}:
        path = getattr(sys.modules.get(name), "__file__", None)
        if path and path.endswith(".py") and os.path.exists(path):
            found[name] = os.path.abspath(path)
    return found


def main(folder: Path) -> None:
    """Run what the request in a folder asks for, and write the response there."""
    # If the parent is killed, so is this process: nothing goes on unrecorded.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    request: _Request = pickle.loads((folder / _REQUEST).read_bytes())
    if os.getppid() != request.parent:
        return  # it was killed before that was said
    sys.path[:] = request.sys_path
    logging.basicConfig(stream=sys.stderr, format=LINE)
    logging.getLogger("penstock").setLevel(logging.INFO)
    error: PenstockError | ChildFailed | None = None
    text = ""
    properties: dict[str, dict[str, Any]] = {}
    try:
        for name, path in request.module_files.items():
            _load_module(name, path)
        if request.main_path:
            load_main(request.main_path)
        live: Component = pickle.loads(request.component)
        context = RunContext(
            run_id=request.run_id,
            temp_dir=request.temp_dir,
            beam_args=request.beam_args,
            external_inputs=request.external_inputs,
            on_progress=lambda rows: _tell(request.progress_descriptor, rows),
        )
        live.run(context)
        properties = {key: made.properties for key, made in live.outputs.items()}
    except BaseException as raised:
        error, text = _carried(raised), traceback.format_exc()
        sys.stderr.write(text)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    response = _Response(
        properties=properties,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_memory_bytes=usage.ru_maxrss * 1024,
        error=error,
        traceback_text=text,
    )
    partial = folder / f"{_RESPONSE}.partial"
    partial.write_bytes(pickle.dumps(response))
    partial.rename(folder / _RESPONSE)
    sys.stdout.flush()
    sys.stderr.flush()


def _carried(raised: BaseException) -> PenstockError | ChildFailed:
    """Return what stands for an exception in the parent: itself, if it is ours."""
    if isinstance(raised, PenstockError):
        with suppress(Exception):  # a user's subclass may not survive pickling
            pickle.loads(pickle.dumps(raised))
            return raised
    place = place_of(raised.__traceback__)
    text = "".join(traceback.format_exception(raised))
    failed = ChildFailed(type(raised).__name__, str(raised), place, text)
    failed.type_names = tuple(
        f"{kind.__module__}.{kind.__qualname__}" for kind in type(raised).__mro__
    )
    if isinstance(raised, OSError):
        failed.errno, failed.filename = raised.errno, raised.filename
    return failed


def _tell(descriptor: int, rows: int) -> None:
    os.write(descriptor, f"{rows}\n".encode())


def _load_module(name: str, path: str) -> None:
    """Load a module from the file that the parent has it from, if a search would not.

    Test runners and module files are loaded in ways that `sys.path` knows nothing of.
    """
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        spec = None
    if spec is not None and spec.origin and os.path.samefile(spec.origin, path):
        return
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def load_main(path: str) -> None:
    """Make what a script defines importable as `__main__`, without running its main."""
    module = types.ModuleType("__main__")
    module.__dict__.update(runpy.run_path(path, run_name="__penstock_main__"))
    module.__name__ = "__main__"
    sys.modules["__main__"] = module


if __name__ == "__main__":
    # Imported by its real name, so that what is pickled here is known there.
    from penstock.pipelines import child

    child.main(Path(sys.argv[1]))
