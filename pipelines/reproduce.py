"""Making a served version again from what was recorded, and comparing the digests.

The executions that made the version's model, and judged it, are run once more in a root
of their own: with the code that was kept, the parameters and the inputs that were
recorded. Another process does it, whose path begins with that code.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import penstock
from penstock.pipelines import lineage
from penstock.pipelines.metadata import ExecutionRecord, Store
from penstock.schemas.artifacts import (
    Artifact,
    ExternalArtifact,
    Model,
    ModelRun,
    PushedModel,
)
from penstock.schemas.errors import DataError, MetadataError, PipelineError

_REPLAY = (
    "import sys; del sys.path[0]; from penstock.pipelines.replay import main; main()"
)


@dataclasses.dataclass(frozen=True)
class Compared:
    """An output that was made again.

    Attributes:
        component: Name of the component.
        output: The output's key.
        type_name: The output's type.
        recorded: Digest that was recorded.
        found: Digest of what was made now.
        reasons: What was different this time, a sentence each.
    """

    component: str
    output: str
    type_name: str
    recorded: str
    found: str
    reasons: tuple[str, ...]

    @property
    def is_equal(self) -> bool:
        """Whether it is the same, byte for byte."""
        return self.recorded == self.found

    @property
    def is_log(self) -> bool:
        """Whether it tells of the work itself, so that it is never the same."""
        return self.type_name == ModelRun.TYPE_NAME


def reproduce(
    store: Store,
    root: Path,
    artifact: Artifact,
    *,
    folder: Path | None = None,
    is_here: bool = False,
) -> list[Compared]:
    """Make a version or a model again, and compare it with what was recorded.

    Args:
        store: The lineage store.
        root: The folder that artifacts lie in, with the code that was kept.
        artifact: A PushedModel or a Model of the store.
        folder: Where to make it; a temporary folder that is removed, if None.
        is_here: Whether other versions of libraries than the recorded ones will do.

    Returns:
        Every output, in the order that they were made in.

    Raises:
        MetadataError: If the record is not enough, or of other libraries.
        DataError: If an input is no longer as it was.
        PipelineError: If the recorded code fails.
    """
    executions = _executions(store, artifact)
    if not is_here:
        _check_libraries(executions)
    for each in executions:
        _check_external(each)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        return _made_again(root, executions, folder)
    with tempfile.TemporaryDirectory(prefix="penstock-reproduce-") as temporary:
        return _made_again(root, executions, Path(temporary))


def _executions(store: Store, artifact: Artifact) -> list[ExecutionRecord]:
    """Return what made a model, and what judged it for this push, in order."""
    model: Artifact = lineage.model_behind(store, artifact)
    starts = [model]
    if isinstance(artifact, PushedModel):
        for push in store.producers([artifact]):
            starts += [each for given in push.inputs.values() for each in given]
    found: dict[int, ExecutionRecord] = {}
    seen: set[int | None] = set()
    left = list(starts)
    while left:
        each = left.pop()
        # Another model (a baseline, a warm start) is taken as it lies on disk.
        if each.id in seen or (isinstance(each, Model) and each.id != model.id):
            continue
        seen.add(each.id)
        made = store.producers([each])[:1]  # first of all; the others were cached
        for execution in made:
            if execution.id not in found and "penstock_class" in execution.properties:
                found[execution.id] = execution
                left += [one for given in execution.inputs.values() for one in given]
    if not found:
        raise MetadataError(
            f"{artifact.TYPE_NAME} {artifact.id} was not made by a run of penstock, so "
            "that there is nothing to run again."
        )
    for execution in found.values():
        if "penstock_parameters" not in execution.properties:
            raise MetadataError(
                f"Execution {execution.id} of '{execution.component}' was recorded by "
                "a penstock that kept too little to run it again. Run the pipeline "
                "again to have a version that can be reproduced."
            )
    return [found[id] for id in sorted(found)]


def _parts(execution: ExecutionRecord) -> dict[str, str]:
    parts: dict[str, str] = json.loads(str(execution.properties["penstock_parts"]))
    return parts


def _check_libraries(executions: list[ExecutionRecord]) -> None:
    from penstock.pipelines.fingerprint import python_version, version_of

    differing: dict[str, None] = {}
    for execution in executions:
        for name, was in _parts(execution).items():
            library = name.removeprefix("library ")
            if name == "python":
                now = python_version()
            elif library != name:
                now = version_of(library)
            else:
                continue
            if now != was:
                differing[f"{library} {was} (here {now})"] = None
    if differing:
        raise MetadataError(
            f"It was made with {', '.join(differing)}. Install what it was made with, "
            "or pass --here to make it with what is here, which may give other bytes."
        )


def _check_external(execution: ExecutionRecord) -> None:
    """Check that files from outside are still as they were read."""
    from penstock.schemas.digests import file_digest

    for artifact in execution.inputs.get("external", ()):
        files = artifact.properties.get("files")
        if not isinstance(files, dict):
            files = {Path(artifact.uri).name: None}
        for name, digest in files.items():
            path = _place(artifact, str(name))
            if not path.is_file():
                raise DataError(
                    f"'{path}', which '{execution.component}' read, is gone. Put it "
                    "back to reproduce what was made of it."
                )
            if digest is not None and file_digest(path) != digest:
                raise DataError(
                    f"'{path}' has other bytes than when '{execution.component}' read "
                    "it. Put back what it was to reproduce what was made of it."
                )


def _place(artifact: Artifact, name: str) -> Path:
    """Return where a file of an external artifact lies: its uri ends in a pattern."""
    path = Path(artifact.uri)
    folders = [path, *path.parents]
    return next((each / name for each in folders if (each / name).is_file()), path)


def _made_again(
    root: Path, executions: list[ExecutionRecord], folder: Path
) -> list[Compared]:
    sources = folder / "code"
    for execution in executions:
        _lay_out(root, _parts(execution)["code"], sources)
    request = {
        "root": str(folder / "root"),
        "sources": str(sources),
        "executions": [_request(each) for each in executions],
    }
    asked, answered = folder / "request.json", folder / "answer.json"
    asked.write_text(json.dumps(request), encoding="utf-8")
    done = subprocess.run(
        # Without the folder that Python would look in first: the user's code of today.
        [sys.executable, "-c", _REPLAY, asked, answered],
        env={**os.environ, "PYTHONPATH": _python_path(sources)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if not answered.exists():
        said = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise PipelineError(
            f"The recorded code could not be run again: {said[0]}. Look at it in "
            f"'{root / '.penstock' / 'code'}'."
        )
    answer: dict[str, Any] = json.loads(answered.read_text(encoding="utf-8"))
    if "error" in answer:
        raise PipelineError(answer["error"])
    return [
        Compared(
            execution.component,
            key,
            made.TYPE_NAME,
            made.digest,
            answer["digests"][str(execution.id)][key],
            tuple(_differences(_parts(execution), answer["parts"][str(execution.id)])),
        )
        for execution in executions
        for key, (made,) in execution.outputs.items()
    ]


def _lay_out(root: Path, digest: str, sources: Path) -> None:
    """Write the files of recorded code as modules that can be imported."""
    kept = root / ".penstock" / "code"
    listing = kept / f"{digest.removeprefix('sha256:')}.json"
    try:
        files = json.loads(listing.read_text("utf-8"))["files"]
    except OSError as error:
        raise MetadataError(
            f"The code {digest} is not kept in '{kept}' ({error.strerror}). Restore "
            "that folder to reproduce what it made."
        ) from error
    for module, each in files.items():
        path = sources.joinpath(*module.split("."))
        path = path / "__init__.py" if each["is_package"] else path.with_suffix(".py")
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            source = (kept / each["sha256"]).read_bytes()
            if hashlib.sha256(source).hexdigest() != each["sha256"]:
                raise MetadataError(
                    f"'{kept / each['sha256']}', the code of '{module}' as it was, has "
                    "other bytes than its name says. Restore it to reproduce what it "
                    "made."
                )
            path.write_bytes(source)


def _python_path(sources: Path) -> str:
    """Return where the other process finds modules: the recorded ones first.

    Of penstock, what was not recorded is added from the one that is installed.
    """
    ours = Path(penstock.__file__).parent
    for place, folders, names in os.walk(ours, followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        target = sources / "penstock" / Path(place).relative_to(ours)
        target.mkdir(parents=True, exist_ok=True)
        for name in names:
            if not (target / name).exists():
                shutil.copyfile(Path(place, name), target / name)
    return os.pathsep.join(
        [str(sources), *(os.path.abspath(each) for each in sys.path)]
    )


def _request(execution: ExecutionRecord) -> dict[str, Any]:
    return {
        "id": execution.id,
        "component": execution.component,
        "pipeline": execution.pipeline,
        "class": execution.properties["penstock_class"],
        "parameters": json.loads(str(execution.properties["penstock_parameters"])),
        "inputs": {
            key: [_described(each) for each in artifacts]
            for key, artifacts in execution.inputs.items()
            if not any(isinstance(each, ExternalArtifact) for each in artifacts)
        },
        "outputs": {key: made.id for key, (made,) in execution.outputs.items()},
    }


def _described(artifact: Artifact) -> dict[str, Any]:
    return {
        "id": artifact.id,
        "uri": artifact.uri,
        "digest": artifact.digest,
        "properties": artifact.properties,
    }


def _differences(was: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [
        f"{name}: {was.get(name, 'nothing')} -> {now.get(name, 'nothing')}."
        for name in sorted({*was, *now})
        if was.get(name) != now.get(name)
    ]
