"""What an execution ran in: packages, Python, processor, settings, and the commit.

The packages are kept as a text file named by its digest; all else are properties of the
execution. Nothing here names a person, a host, or a place that code comes from.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from penstock.pipelines.child import ENVIRONMENT
from penstock.pipelines.disk import sync
from penstock.schemas.artifacts import PropertyValue

PREFIX = "penstock_environment_"
"""How the names of these properties begin."""

_GIT_SECONDS = 2.0

# What changes the results of the same code on the same machine.
_VARIABLES = (
    *ENVIRONMENT,
    "CUDA_VISIBLE_DEVICES",
    "KERAS_BACKEND",
    "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_USE_LEGACY_KERAS",
    "TF_XLA_FLAGS",
    "XLA_FLAGS",
)


def capture(root: Path, run_folder: Path, code_dir: Path) -> dict[str, PropertyValue]:
    """Return what a process of its own, started now, runs in.

    Args:
        root: Folder that artifacts lie in; the list of packages is kept there.
        run_folder: The run's own folder; the list is written there first.
        code_dir: Folder of the user's code, in a Git repository or not.

    Returns:
        Properties of an execution: `penstock_environment_packages` (the digest of the
        list), `..._python`, `..._platform`, `..._cpu`, `..._cpu_count`,
        `..._variables` (JSON), `..._git_commit` (or why there is none) and, with a
        commit, `..._git_dirty` (0 or 1).
    """
    said: dict[str, PropertyValue] = {
        "packages": _kept(root, run_folder, packages()),
        **_machine(),
        "variables": json.dumps(_variables(), sort_keys=True),
        **_commit(code_dir),
    }
    return {f"{PREFIX}{name}": value for name, value in said.items()}


def described(properties: Mapping[str, PropertyValue]) -> str:
    """Return in one line what an execution ran in; the empty string if not captured."""
    if f"{PREFIX}packages" not in properties:
        return ""
    said = {
        name: str(properties.get(f"{PREFIX}{name}", ""))
        for name in ("packages", "python", "cpu", "cpu_count", "git_commit")
    }
    commit = said["git_commit"]
    if re.fullmatch(r"[0-9a-f]{40,}", commit):
        is_dirty = properties.get(f"{PREFIX}git_dirty") == 1
        commit = f"commit {commit[:12]}{' with changes' if is_dirty else ''}"
    return (
        f"{said['python']}, packages {said['packages'].removeprefix('sha256:')[:12]}, "
        f"{said['cpu_count']} x {said['cpu']}, {commit}"
    )


def packages_file(root: Path, digest: str) -> Path:
    """Return the file that holds a list of packages.

    Args:
        root: Folder that artifacts lie in.
        digest: As an execution records it, `sha256:...`.
    """
    name = digest.removeprefix("sha256:")
    return root / ".penstock" / "environments" / f"{name}.txt"


def packages() -> str:
    """Return the installed packages, `name==version`, sorted, a line each."""
    # Installing changes a folder of the path, as a notebook does between two runs.
    return _packages(
        tuple((place, _changed_at(place)) for place in dict.fromkeys(sys.path))
    )


def _changed_at(place: str) -> int:
    try:
        return os.stat(place or ".").st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=1)
def _packages(_: tuple[tuple[str, int], ...]) -> str:
    found: dict[str, str] = {}
    for each in importlib.metadata.distributions():
        # Parsed by hand: the library's parser takes 20 times as long.
        text = each.read_text("METADATA") or each.read_text("PKG-INFO") or ""
        header = dict(re.findall(r"^(Name|Version): *(.+?) *$", text, re.MULTILINE)[:2])
        if len(header) == 2:
            name = re.sub(r"[-_.]+", "-", header["Name"]).lower()
            found.setdefault(name, header["Version"])  # as imports find them
    return "".join(f"{name}=={found[name]}\n" for name in sorted(found))


def _kept(root: Path, run_folder: Path, text: str) -> str:
    """Write a list of packages where it is not yet, and return its digest."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    path = packages_file(root, digest)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two components of a run may be doing the same.
        partial = run_folder / f"{digest}-{threading.get_ident()}.partial"
        try:
            partial.write_text(text, encoding="utf-8")
            sync(partial)
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
        sync(path.parent)
    return f"sha256:{digest}"


@lru_cache(maxsize=1)
def _machine() -> Mapping[str, PropertyValue]:
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cpu_count": os.cpu_count() or 0,
    }


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    model = re.search(r"^model name\s*: *(.+)$", text, re.MULTILINE)
    return model[1] if model else platform.processor() or platform.machine()


def _variables() -> dict[str, str]:
    """Return the settings of a component's own process, without paths in them."""
    environment = {**os.environ, **ENVIRONMENT}
    return {
        name: re.sub(r"=\S*/\S*", "=...", environment[name])
        for name in _VARIABLES
        if name in environment
    }


def _commit(code_dir: Path) -> dict[str, PropertyValue]:
    """Return the commit that is checked out, and whether files are changed or new."""
    try:
        status = _git(code_dir, "status", "--porcelain=v2", "--branch", "-uno")
        oid = re.search(r"^# branch\.oid (\S+)$", status, re.MULTILINE)
        if oid is None or oid[1] == "(initial)":
            return {"git_commit": "no commit yet"}
        # Of files that Git knows nothing of, only code makes a difference.
        new = _git(
            code_dir, "ls-files", "--others", "--exclude-standard", "--", ":/*.py"
        )
    except OSError:
        return {"git_commit": "git failed" if shutil.which("git") else "no git"}
    except subprocess.TimeoutExpired:
        return {"git_commit": f"git took over {_GIT_SECONDS:g} s"}
    except subprocess.CalledProcessError as error:
        is_none = "not a git repository" in error.stderr
        return {"git_commit": "no repository" if is_none else "git failed"}
    changed = any(not line.startswith("#") for line in status.splitlines())
    return {"git_commit": oid[1], "git_dirty": int(changed or bool(new))}


def _git(folder: Path, *arguments: str) -> str:
    # Not what a hook that runs us has set, and nothing that a repository's own
    # settings would start.
    environment = {
        name: value for name, value in os.environ.items() if name[:4] != "GIT_"
    }
    return subprocess.run(
        ["git", "-c", "core.fsmonitor=false", *arguments],
        cwd=folder,
        env={**environment, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=True,
        timeout=_GIT_SECONDS,
    ).stdout
