"""What became of pushed models, as the ledgers of their serving directories say.

The ledger in the serving directory is the truth about versions; nothing of it is copied
into the lineage store. Where the directory is on no file system of this machine,
nothing is known of it here.
"""

from __future__ import annotations

import os
from pathlib import Path

from penstock.components.serving.ledger import Ledger
from penstock.components.serving.routing import routing_of
from penstock.components.serving.standing import (
    Standing,
    standing_of,
    standings,
    why_turned_down,
)
from penstock.components.serving.story import Chapter, story_of
from penstock.components.serving.versions import VersionState, versions
from penstock.pipelines.metadata import Store
from penstock.schemas.artifacts import Model, PushedModel


def serving_dir_of(pushed: PushedModel) -> str:
    """Return the serving directory that a model was pushed to, or the empty string.

    Args:
        pushed: The pushed model.
    """
    destination = str(pushed.properties.get("pushed_destination", ""))
    if not destination or pushed.properties.get("pushed") == 0:
        return ""
    # It is the version's folder, or, as some pushers have it, the one above.
    place, _, name = destination.rstrip("/").rpartition("/")
    version = str(pushed.properties.get("pushed_version", ""))
    return normal(place if name == version else destination)


def normal(place: str) -> str:
    """Return a serving directory by the one name that all records of it have."""
    return place.rstrip("/") if "://" in place else os.path.abspath(place)


def version_of(pushed: PushedModel) -> int | None:
    """Return the number of the version that a model became; None if it has none."""
    said = str(pushed.properties.get("pushed_version", ""))
    return int(said) if said.isdecimal() else None


def _ledger_of(pushed: PushedModel) -> Ledger | None:
    place = serving_dir_of(pushed)
    if not place or "://" in place or not Path(place).is_dir():
        return None
    return Ledger(place, read_only=True)


def standing_behind(pushed: PushedModel) -> Standing | None:
    """Return how a version stands now; None if nothing is known of it here.

    Args:
        pushed: The pushed model that became it.

    Raises:
        ServingError: If its serving directory is here and the ledger cannot be read.
    """
    ledger, version = _ledger_of(pushed), version_of(pushed)
    if ledger is None or version is None:
        return None
    with ledger:
        return standing_of(ledger, version)


def remark_on(pushed: PushedModel) -> str:
    """Return what became of a version, as a clause; empty if there is nothing to say.

    Args:
        pushed: The pushed model that became it.

    Raises:
        ServingError: If its serving directory is here and the ledger cannot be read.
    """
    standing = standing_behind(pushed)
    return "" if standing is None else "; ".join(standing.remarks)


def story_behind(pushed: PushedModel) -> tuple[Chapter, ...]:
    """Return the story of a version; empty if nothing is known of it here.

    Args:
        pushed: The pushed model that became it.

    Raises:
        ServingError: If its serving directory is here and the ledger cannot be read.
    """
    ledger, version = _ledger_of(pushed), version_of(pushed)
    if ledger is None or version is None:
        return ()
    with ledger:
        return story_of(ledger, version)


def taken_back(store: Store, model: Model) -> str:
    """Return why a model was taken back after its push, or the empty string.

    Args:
        store: The lineage store.
        model: A model of the store.

    Returns:
        A clause such as "version 43 of '/srv/taxi', which was rolled back: …", of any
        serving directory that it was pushed to and that is here.

    Raises:
        ServingError: If a serving directory is here and its ledger cannot be read.
    """
    for pushed in store.made_of(model, PushedModel, but=("baseline", "baseline_model")):
        ledger = _ledger_of(pushed)
        if ledger is None:
            continue
        digest = str(pushed.properties.get("digest") or pushed.digest)
        with ledger:
            why = why_turned_down(ledger, digest, model.uri)
        if why:
            version, _, rest = why.partition(", ")
            return f"{version} of '{serving_dir_of(pushed)}', {rest}"
    return ""


def served_version(serving_dir: Path) -> int | None:
    """Return the version that is stable; None if there is none to be served.

    Before anything was rolled out it is the newest that is whole and was not taken
    back: the one that TensorFlow Serving takes by itself.

    Args:
        serving_dir: The serving directory, which exists.

    Raises:
        ServingError: If it or its ledger cannot be read.
    """
    with Ledger(serving_dir, read_only=True) as ledger:
        stable = routing_of(ledger).stable
        if stable is not None:
            return stable
        standing = standings(ledger)
    whole = [
        each.number
        for each in versions(serving_dir)
        if each.state is VersionState.COMPLETE
        and not standing.get(each.number, Standing(each.number)).fault
    ]
    return max(whole, default=None)
