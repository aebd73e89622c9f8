"""What is kept of a watched model in a folder, and how a window of it is looked at.

Below `<folder>/<model>`: `references/`, each frozen, by its id; `reference.json`, which
of them counts; `thresholds/`, by reference, policy and size; `profiles/`, a file per
window, kept for good; `windows/<name>/`, with evidence, document and page of each. All
but references and profiles can be made again.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from penstock.components.columns.whole import write_whole
from penstock.components.monitoring.budget import MONTH, calibrate
from penstock.components.monitoring.comparing import compare_windows, shared_slices
from penstock.components.monitoring.decision import (
    DriftDecision,
    Thresholds,
    column_level,
    decide,
)
from penstock.components.monitoring.document import Document, write_document
from penstock.components.monitoring.drift_document import RowFindings, drift_document
from penstock.components.monitoring.measures import WindowEvidence
from penstock.components.monitoring.profile import Profile
from penstock.components.monitoring.profile_files import (
    profile_path,
    read_profiles,
    write_profile,
)
from penstock.components.monitoring.reference import (
    Reference,
    read_reference,
    write_reference,
)
from penstock.components.monitoring.replay import Backtest, replay
from penstock.components.monitoring.windows import (
    DAY,
    Window,
    is_alike,
    is_recent,
    iso,
    recent_since,
)
from penstock.schemas.errors import DataError, did_you_mean, quoted

_CURRENT = "reference.json"
_EVIDENCE = "evidence.json"
DOCUMENT = "drift.json"
"""Name of the document of a window."""

PAGE = "report.html"
"""Name of its page."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclasses.dataclass(frozen=True)
class Policy:
    """What is asked of alerts about drift.

    Attributes:
        budget: False alerts per model and month that are borne, on average.
        k: In how many of the last m windows drift has to be there.
        m: See `k`.
        min_rows: Below them a window decides nothing.
        effects: Least effects that may raise an alert, by drift type; the default
            where not named.
    """

    budget: float = 1.0
    k: int = 2
    m: int = 3
    min_rows: int = 500
    effects: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Look:
    """What a look at a window came to.

    Attributes:
        decision: The state and what it is for.
        document: All of it, for reports, metrics and notices.
        folder: Where it is kept.
    """

    decision: DriftDecision
    document: Document
    folder: Path


class Watched:
    """The folder of one watched model.

    Args:
        folder: Of all watched models; made when something is kept.
        model: Name of the model.

    Raises:
        DataError: If the name cannot be the name of a folder.
    """

    def __init__(self, folder: Path, model: str) -> None:
        if not _NAME.fullmatch(model):
            raise DataError(
                f"Model name '{model}' cannot be the name of a folder: letters, "
                "digits, '_', '-' and '.', beginning with a letter or digit, can. "
                "Rename it."
            )
        self.model = model
        self.place = folder / model

    @classmethod
    def existing(cls, folder: Path, model: str) -> Watched:
        """Return a model of which something is kept.

        Raises:
            DataError: If nothing is.
        """
        known = models(folder)
        if model not in known:
            what = f"it has {quoted(known)}" if known else "it has none"
            raise DataError(
                f"Model '{model}' is not watched in '{folder}' ({what})."
                f"{did_you_mean(model, known)} Watch it with a DriftMonitor, or with "
                "penstock drift."
            )
        return cls(folder, model)

    # --- the reference

    def reference(self, *, history: bool = True) -> Reference | None:
        """Return the reference that counts; None if there is none yet.

        Args:
            history: Whether to read its windows, too.

        Raises:
            DataError: If it is damaged.
        """
        path = self.place / _CURRENT
        if not path.exists():
            return None
        name = json.loads(path.read_text(encoding="utf-8"))["folder"]
        return read_reference(self.place / "references" / name, history=history)

    def made_from(self) -> str:
        """Return what the reference that counts was made from; "" if not known."""
        path = self.place / _CURRENT
        if not path.exists():
            return ""
        return str(json.loads(path.read_text(encoding="utf-8")).get("made_from", ""))

    def use(self, reference: Reference, made_from: str = "") -> None:
        """Let a reference count from now on. Those before it are kept.

        Args:
            reference: The reference.
            made_from: A digest of what it was made from, so that it need not be made
                again.
        """
        name = reference.id.partition(":")[2][:16]
        write_reference(reference, self.place / "references" / name)
        about = {"id": reference.id, "folder": name, "made_from": made_from}
        write_whole(self.place / _CURRENT, json.dumps(about).encode() + b"\n")

    # --- thresholds

    def thresholds(
        self, reference: Reference, rows: int, seconds: float, policy: Policy
    ) -> Thresholds:
        """Return the thresholds for windows of a size, found once and kept.

        Args:
            reference: What windows are compared with; of one season, if seasonal.
            rows: Rows of a window; thresholds are found for the next power of two.
            seconds: Length of a window.
            policy: What is asked of them.

        Raises:
            DataError: If the policy makes no sense.
        """
        size = 1 << max(rows - 1, policy.min_rows - 1, 1).bit_length()
        asked = [dataclasses.asdict(policy), reference.id, size, seconds]
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        path = self.place / "thresholds" / f"{digest[:16]}.json"
        if path.exists():
            return Thresholds.from_json(json.loads(path.read_text(encoding="utf-8")))
        found = calibrate(
            reference,
            size,
            policy.budget,
            MONTH * DAY / seconds,
            k=policy.k,
            m=policy.m,
            min_rows=policy.min_rows,
            effects=policy.effects,
        )
        # Windows of all seasons are decided about together.
        found = dataclasses.replace(found, reference_id=reference.whole or reference.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(found.to_json()).encode() + b"\n")
        return found

    # --- windows

    def look(
        self,
        profile: Profile,
        reference: Reference,
        policy: Policy,
        importances: Mapping[str, float] | None = None,
        rows: RowFindings | None = None,
    ) -> Look:
        """Compare a window with its reference, decide, and keep all of it.

        A window that was looked at before is looked at anew.

        Args:
            profile: Of the window, on the reference's grid.
            reference: The one that counts.
            policy: What is asked of alerts.
            importances: Of columns to the model, in any unit.
            rows: What its rows say beside their profile.

        Raises:
            DataError: If the window is not of the reference's model or grid, mixes
                versions of the model, or the policy makes no sense.
        """
        reference.check(profile)
        if len(profile.versions) > 1:
            _ = profile.version  # says which
        window = profile.window
        alike = reference.for_window(window)
        thresholds = self.thresholds(alike, profile.rows, window.seconds, policy)
        evidence = _evidence(profile, reference, thresholds)
        before = self._before(window, reference, thresholds)
        decision = decide([*before, evidence], thresholds, importances)
        document = drift_document(
            profile,
            alike,
            evidence,
            decision,
            thresholds,
            importances or {},
            rows or RowFindings(),
        )
        write_profile(profile, self._made("profiles"))
        folder = self._made("windows", profile_path(Path(), window).stem)
        kept = json.dumps(evidence.to_json()).encode()
        write_whole(folder / _EVIDENCE, kept + b"\n")
        self._write_page(document, folder)
        write_document(document, folder / DOCUMENT)
        return Look(decision, document, folder)

    def names_before(self, window: str, most: int = 8) -> str:
        """Return the names of the windows that are kept before one, for comparing."""
        folder = self.place / "windows"
        kept = sorted(each.name for each in folder.iterdir()) if folder.exists() else []
        stem = window.replace("-", "").replace(":", "").replace("/", "-")
        stem = stem if "/" in window else window
        return " ".join(each for each in kept[-most - 1 :] if each < stem)

    def profiles(self, reference: Reference) -> tuple[Profile, ...]:
        """Return the profiles of all windows on the grid of a reference.

        Raises:
            DataError: If one is damaged.
        """
        folder = self.place / "profiles"
        if not folder.exists():
            return ()
        found = read_profiles(folder)
        return tuple(each for each in found if each.grid.id == reference.grid.id)

    def backtest(
        self,
        policy: Policy,
        importances: Mapping[str, float] | None = None,
    ) -> Backtest:
        """Decide again about every window that is kept, as another policy would.

        Args:
            policy: What is asked of alerts.
            importances: Of columns to the model.

        Raises:
            DataError: If there is no reference or no window.
        """
        reference = self.reference()
        if reference is None:
            raise DataError(
                f"Model '{self.model}' has no reference yet, so there is nothing to "
                "compare its windows with. Watch it until it has one."
            )
        windows = self.profiles(reference)
        if not windows:
            raise DataError(
                f"No window of model '{self.model}' was compared with its reference "
                f"{reference.id} yet. Look at some with penstock drift."
            )
        seconds = windows[-1].window.seconds
        # A model that was watched by days and by hours is decided about as it is now.
        windows = tuple(
            each for each in windows if is_alike(each.window, windows[-1].window)
        )
        rows = sorted(each.rows for each in windows)[len(windows) // 2]
        if not reference.season:
            thresholds = self.thresholds(reference, rows, seconds, policy)
            return replay(reference.profile, windows, thresholds, importances)
        return self._seasonal_backtest(
            reference, windows, rows, seconds, policy, importances
        )

    def _seasonal_backtest(
        self,
        reference: Reference,
        windows: Sequence[Profile],
        rows: int,
        seconds: float,
        policy: Policy,
        importances: Mapping[str, float] | None,
    ) -> Backtest:
        thresholds = {}
        evidence: list[WindowEvidence] = []
        decisions = []
        for each in windows:
            alike = reference.for_window(each.window)
            if alike.id not in thresholds:
                thresholds[alike.id] = self.thresholds(alike, rows, seconds, policy)
            asked = thresholds[alike.id]
            evidence.append(_evidence(each, reference, asked))
            decisions.append(decide(evidence, asked, importances))
            evidence = evidence[-4 * policy.m :]
        return Backtest(tuple(decisions), asked)

    def _before(
        self, window: Window, reference: Reference, thresholds: Thresholds
    ) -> list[WindowEvidence]:
        """Return the evidence of the windows before, as far as it may count."""
        folder = self.place / "windows"
        found = []
        # Names begin with a date. Evidence of many columns takes long to read, so that
        # of years is not.
        oldest, newest = (
            iso(time)[:10].replace("-", "")
            for time in (recent_since(window, thresholds.m), window.start)
        )
        for path in folder.glob(f"*/{_EVIDENCE}") if folder.exists() else ():
            if not oldest <= path.parent.name.replace("-", "")[:8] <= newest:
                continue
            kept = WindowEvidence.from_json(json.loads(path.read_text("utf-8")))
            if kept.reference_id == reference.id and is_recent(
                kept.window, window, thresholds.m
            ):
                found.append(kept)
        found.sort(key=lambda each: each.window)
        enough = [each for each in found if each.rows >= thresholds.min_rows]
        return enough[-(thresholds.m - 1) :] if thresholds.m > 1 else []

    def _made(self, *names: str) -> Path:
        folder = self.place.joinpath(*names)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @staticmethod
    def _write_page(document: Document, folder: Path) -> None:
        from penstock.components.monitoring.report import render

        write_whole(folder / PAGE, render(document).encode())

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let nobody else write to the folder meanwhile, in this or other processes."""
        self.place.mkdir(parents=True, exist_ok=True)
        with (self.place / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def models(folder: Path) -> tuple[str, ...]:
    """Return the names of the models that are watched in a folder."""
    if not folder.is_dir():
        return ()
    return tuple(
        sorted(
            each.name
            for each in folder.iterdir()
            if (each / _CURRENT).exists() or (each / "observed").exists()
        )
    )


def _evidence(
    profile: Profile, reference: Reference, thresholds: Thresholds
) -> WindowEvidence:
    roles = [column.role for column in reference.grid]
    alike = reference.for_window(profile.window).profile
    return compare_windows(
        alike,
        profile,
        slices=shared_slices(alike, profile, thresholds.min_rows),
        reference_id=reference.id,
        effects=thresholds.effects,
        level=column_level(thresholds, roles, "feature", profile.rows),
    )
