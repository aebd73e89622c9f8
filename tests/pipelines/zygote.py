"""Fresh processes at little cost: forks of one that has imported penstock alone.

A fork knows nothing of a user's modules, so that it imports them as they lie on disk:
as good as a new process, without the seconds that the imports of one take.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parent.parent.parent


class Zygote:
    """Answers requests, each in a fork of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-B", "-m", "tests.pipelines.zygote"],
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONHASHSEED": "random"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def ask(self, verb: str, folder: Path, **options: Any) -> dict[str, Any]:
        """Do what a verb says in a fresh process.

        Args:
            verb: Name of a function below.
            folder: The user's project; the process works there.
            options: What else the function takes.

        Returns:
            What it returned, or the sentence of the error that it raised: `error`.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        request = {"verb": verb, "folder": str(folder), "options": options}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert "broken" not in answer, answer["broken"]
        return answer


# In the fork --------------------------------------------------------------------------


def plan(target: str, root: str = "root", **options: Any) -> dict[str, Any]:
    """Plan the project's pipeline."""
    from penstock.pipelines.metadata import Store
    from penstock.pipelines.plan import plan as plan_pipeline

    folder = Path(root).absolute()
    path = folder / "metadata.sqlite"
    store = Store(f"sqlite:///{path}" if path.exists() else "sqlite://")
    planned = plan_pipeline(_made(target), folder, store, **options)
    found = planned.components
    return {
        "forecasts": {each.component: each.forecast.value for each in found},
        "reasons": {each.component: each.reasons for each in found},
        "remarks": planned.remarks,
    }


def run(target: str, root: str = "root", **options: Any) -> dict[str, Any]:
    """Run the project's pipeline."""
    from penstock.pipelines.run import run as run_pipeline
    from penstock.pipelines.runners import LocalRunner

    made = _made(target)
    result = run_pipeline(made, root, runner=LocalRunner(max_workers=2), **options)
    found = result.executions
    return {
        "run": result.run_id,
        "states": {name: each.state.value for name, each in found.items()},
        "reasons": {name: each.reason for name, each in found.items()},
        "digests": {
            f"{name}.{key}": output.digest
            for name, each in found.items()
            for key, output in each.outputs.items()
        },
    }


def settle(target: str, force: Sequence[str] = ()) -> dict[str, Any]:
    """Plan, and run what the plan is sure of, until it is sure of everything.

    Returns:
        `steps`: each plan with what then ran. The last ran all of the pipeline.
    """
    steps = []
    while True:
        planned = plan(target, force=force)
        reasons = planned["reasons"]
        will_run = [n for n, each in planned["forecasts"].items() if each == "will run"]
        depend = [
            name
            for name, each in planned["forecasts"].items()
            if each == "depends" and not reasons[name][0].startswith("It will be skip")
        ]
        # What always runs leaves open for ever what comes of it.
        always = ("It is forced.", "It is never cached (cache=False).")
        if not depend or any(reasons[name][0] in always for name in will_run):
            steps.append({"plan": planned, "run": run(target, force=force)})
            return {"steps": steps}
        steps.append({"plan": planned, "run": run(target, to=will_run)})


def _made(target: str) -> Any:
    """Return the pipeline that `module:function` makes."""
    module, _, function = target.partition(":")
    if module.endswith(".py"):
        return _script(Path(module))[function]()
    return getattr(importlib.import_module(module), function)()


def _script(path: Path) -> dict[str, Any]:
    """Execute a script as Python does that is given it, and return its names."""
    import types

    main = types.ModuleType("__main__")
    main.__file__ = str(path.absolute())
    sys.modules["__main__"] = main
    exec(compile(path.read_bytes(), str(path), "exec"), vars(main))
    return vars(main)


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    from penstock.pipelines import loaded
    from penstock.schemas.errors import PenstockError

    vars(loaded)["_STARTED"] = time.time()  # this process begins now
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the user's code may print
    os.chdir(request["folder"])
    sys.path.insert(0, request["folder"])
    try:
        found: dict[str, Any] = globals()[request["verb"]](**request["options"])
    except PenstockError as error:
        return {"error": str(error)}
    except BaseException:
        return {"broken": traceback.format_exc()}
    return found


def main() -> None:
    """Import, then fork once per request."""
    import sqlite3

    import penstock.pipelines.plan
    import penstock.pipelines.run  # noqa: F401
    from penstock.components.training import Trainer
    from penstock.components.validation import ImportSchemaGen
    from penstock.pipelines.code import Reader

    importlib.import_module("ml_metadata.metadata_store.metadata_store")
    # penstock's own files are taken apart once.
    Reader().code_of(ImportSchemaGen(schema_file=Path("schema.pbtxt")))
    del Trainer, sqlite3
    sys.path[:] = [each for each in sys.path if each not in ("", str(CHECKOUT))]
    sys.path.append(str(CHECKOUT))
    for line in sys.stdin:
        with tempfile.NamedTemporaryFile() as file:
            pid = os.fork()
            if not pid:
                text = json.dumps(_answer(json.loads(line)))
                Path(file.name).write_text(text)
                os._exit(0)
            os.waitpid(pid, 0)
            print(Path(file.name).read_text() or '{"broken": "killed"}', flush=True)


if __name__ == "__main__":
    main()
