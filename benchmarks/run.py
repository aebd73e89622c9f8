"""Runs one benchmark by name; the last line it prints is one JSON object.

`python benchmarks/run.py NAME [options]` calls `main(options)` of the module
`benchmarks/<name>.py` and adds the name and the dependency set to what it returns.
"""

from __future__ import annotations

import importlib
import json
import sys
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(argv: list[str]) -> int:
    """Run the benchmark named first in `argv` with the options after it."""
    names = sorted(
        file.stem.replace("_", "-")
        for file in HERE.glob("[!_]*.py")
        if file != HERE / "run.py"
    )
    listed = f"Benchmarks: {', '.join(names)}."
    if not argv or argv[0] in ("-h", "--help"):
        print(f"scripts/bench NAME [options]. {listed}")
        return 0 if argv else 2
    name, *options = argv
    if name not in names:
        close = get_close_matches(name, names, n=1)
        meant = f" Did you mean '{close[0]}'?" if close else ""
        print(f"There is no benchmark '{name}'.{meant} {listed}", file=sys.stderr)
        return 2

    sys.path.insert(0, str(HERE.parent))
    module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
    result = module.main(options)
    print(json.dumps({"benchmark": name, "set": dependency_set(), **result}))
    return 0


def dependency_set() -> str:
    """Return 'old' or 'current', told by the release of TensorFlow Data Validation."""
    release = version("tensorflow-data-validation").split(".")
    return "old" if [int(part) for part in release[:2]] < [1, 17] else "current"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
