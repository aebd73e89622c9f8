"""The serving directory: numbered versions that appear whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from penstock.components.serving.durable import (
    compare_copy,
    copy_folder,
    model_size,
    publish,
    rename_new,
    sync_folder,
)
from penstock.components.serving.ledger import Ledger
from penstock.components.serving.locks import file_lock
from penstock.components.serving.place import control, explained, local_directory
from penstock.components.serving.staging import staged
from penstock.components.serving.standing import LIFE
from penstock.components.serving.stock import origin_of, stocktaking
from penstock.components.serving.versions import (
    MAX_VERSION,
    Version,
    VersionState,
    next_version,
    parse_version,
    verify,
    versions,
)
from penstock.schemas.digests import manifest_digest
from penstock.schemas.errors import ServingError

__all__ = [
    "MAX_VERSION",
    "Version",
    "VersionState",
    "copy_folder",
    "local_directory",
    "next_version",
    "parse_version",
    "push",
    "verify",
    "versions",
]


def push(
    serving_dir: Path,
    model: Path,
    *,
    digest: str | None = None,
    check: Callable[[Path], Mapping[str, Any]] | None = None,
    progress: Callable[[], object] = lambda: None,
    model_uri: str | None = None,
    run_id: str | None = None,
    blessing: str | None = None,
) -> Version:
    """Copy a SavedModel into a serving directory as its next version.

    The copy is made below `.penstock/`, forced to disk, read back and compared with
    what was read from `model`, and checked. Then, under a lock, the next number is
    written as the high-water mark, the manifest is written, the ledger is told what is
    to come, the copy is renamed to the number, and the ledger is told that it was
    pushed: whoever sees the number sees all of the version and its manifest, and
    numbers appear in rising order however many pushes run at once. Of a push that is
    killed the next writer finds a folder to remove, or a version to write down.

    Args:
        serving_dir: The serving directory; made if it is missing.
        model: Folder of the SavedModel.
        digest: The content digest `model` must have, if it is known.
        check: Called with the copy before it becomes visible; raises to refuse it.
            What it returns must be JSON data. It runs once for each content digest;
            at most two checks run at once in one serving directory.
        progress: Called often; may raise to stop the push.
        model_uri: Folder of the Model artifact, to be recorded.
        run_id: Pipeline run that pushes, to be recorded.
        blessing: Folder of the ModelBlessing that let it through, to be recorded.

    Returns:
        The version that is visible now.

    Raises:
        ServingError: The serving directory cannot take it, or the model cannot be
            read, is empty, or has another digest. Nothing became visible, and the
            copy was removed.
    """
    directory = str(local_directory(serving_dir))
    needed = model_size(model)
    with explained(directory, needed), staged(directory, progress) as staging:
        copy = os.path.join(staging, "model")
        os.mkdir(copy)
        manifest = copy_folder(model, Path(copy), progress)
        found = manifest_digest(manifest)
        if digest is not None and found != digest:
            raise ServingError(
                f"Model '{model}' has the digest '{found}' where '{digest}' was "
                "expected: it changed while it was pushed. Let nothing write to it, "
                "and push again."
            )
        compare_copy(Path(copy), manifest)
        checked = _checked(directory, staging, found, check, progress)
        record = {
            "push": os.path.basename(staging),
            "digest": found,
            "size_bytes": needed,
            "model_uri": model_uri,
            "run_id": run_id,
            "blessing": blessing,
            "checked": checked,
            "files": {
                path: {"sha256": sha256, "bytes": size}
                for path, (sha256, size) in manifest.items()
            },
        }
        return _commit(directory, staging, record, progress)


def _checked(
    directory: str,
    staging: str,
    digest: str,
    check: Callable[[Path], Mapping[str, Any]] | None,
    progress: Callable[[], object],
) -> Mapping[str, Any] | None:
    if check is None:
        return None
    sha256 = digest.partition(":")[2]
    path = control(directory, "checked", f"{sha256}.json")
    known = _known_check(path)
    if known is not None:
        return known
    # The slot depends on the digest, so equal models wait for one check.
    slot = control(directory, "checked", f"slot-{int(sha256[-1], 16) % 2}")
    with file_lock(slot, progress):
        known = _known_check(path)
        if known is None:
            known = check(Path(staging, "model"))
            publish(staging, known, path)
    return known


def _known_check(path: str) -> Mapping[str, Any] | None:
    try:
        known = json.loads(Path(path).read_bytes())
    except (FileNotFoundError, ValueError):
        return None  # Not checked yet, or the file was spoiled: check (again).
    return known if isinstance(known, dict) else None


def _commit(
    directory: str,
    staging: str,
    record: Mapping[str, Any],
    progress: Callable[[], object],
) -> Version:
    with Ledger(directory) as ledger, stocktaking(ledger, progress):
        number = max([_high_water(directory), *ledger.last_kinds(LIFE)])
        while True:
            # Manifests count too: they outlive a lost high-water mark and ledger.
            names = os.listdir(control(directory, "manifests"))
            stems = [name.removesuffix(".json") for name in names]
            number = next_version([*os.listdir(directory), *stems], number)
            if number > MAX_VERSION:
                raise ServingError(
                    f"Serving directory '{directory}' holds or held version "
                    f"{MAX_VERSION}, the greatest TensorFlow Serving can parse, so "
                    "there is no next one. Push to another serving directory."
                )
            # The number is burned before anybody can see it: whatever happens from
            # here on, no other version will ever have it.
            publish(staging, number, control(directory, "high-water"))
            manifest = control(directory, "manifests", f"{number}.json")
            pushed_at = datetime.now(timezone.utc)
            full = {"version": number, "pushed_at": pushed_at.isoformat(), **record}
            publish(staging, full, manifest)
            with ledger.writing() as transaction:
                transaction.event("pushing", number, **origin_of(full))
            target = os.path.join(directory, str(number))
            try:
                rename_new(os.path.join(staging, "model"), target)
            except FileExistsError:
                # Another tool, which knows no lock, has just taken the number.
                os.unlink(manifest)
                continue
            sync_folder(directory)
            with ledger.writing() as transaction:
                transaction.event("pushed", number, **origin_of(full))
            return Version(
                number=number,
                path=Path(target),
                state=VersionState.COMPLETE,
                size_bytes=record["size_bytes"],
                digest=record["digest"],
                pushed_at=pushed_at,
                model_uri=record["model_uri"],
                run_id=record["run_id"],
            )


def _high_water(directory: str) -> int:
    path = control(directory, "high-water")
    try:
        text = Path(path).read_bytes().decode(errors="replace").strip()
    except FileNotFoundError:
        return 0
    number = parse_version(text)
    if number is None:
        raise ServingError(
            f"The high-water mark '{path}' holds '{text[:40]}', which is no version "
            "number. Write the greatest version number ever used there into it."
        )
    return number
