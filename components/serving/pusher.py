"""Pusher: makes a model the next version of a serving directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from penstock.components.base import Component, RunContext, output
from penstock.components.serving.load_check import check_loads
from penstock.components.serving.place import local_directory
from penstock.schemas.artifacts import (
    WARMUP_FILE,
    InfraBlessing,
    Model,
    ModelBlessing,
    PushedModel,
)
from penstock.schemas.digests import file_digest, folder_manifest, manifest_digest
from penstock.schemas.errors import DataError, PipelineError, ServingError


class Pusher(Component):
    """Push a model into a serving directory, where a model server picks it up.

    Reads a Model; writes it into the serving directory as the next numbered version,
    which appears at once and whole, and a copy of it as a PushedModel. Use it at the
    end of a pipeline, gated by the Evaluator's blessing: unless that says yes, nothing
    is pushed.

    Before it becomes visible, the copy is read back from disk and compared, and loaded
    in a process of its own. A model that was changed since it was made, does not load,
    or has no signature is refused.

    Where an InfraValidator made a warm-up file, the version has it.

    Example:
        pusher = Pusher(
            model=trainer.model, blessing=evaluator.blessing, serving_dir=serving_dir
        )

    Attributes:
        model: The model to push.
        blessing: The verdict on its quality; the push waits for a yes.
        infra_blessing: The verdict on whether a server can run it, likewise. What it
            has loaded need not be loaded again, and its warm-up file is pushed.
        serving_dir: The serving directory, on a POSIX file system; made if missing.
        pushed_model: Copy of what was pushed. Its properties `pushed_version`,
            `pushed_destination` (the version's folder) and `digest` say what it became.
    """

    EXECUTION_TYPE: ClassVar[str] = "tfx.components.pusher.component.Pusher"
    BASE_TYPE: ClassVar[str | None] = "DEPLOY"

    model: Model
    blessing: ModelBlessing | None = None
    infra_blessing: InfraBlessing | None = None
    serving_dir: Path | str
    pushed_model: PushedModel = output()

    def check(self) -> None:
        """Check that versions can appear at once where they are pushed to.

        Raises:
            PipelineError: If the serving directory is a URL.
        """
        try:
            local_directory(self.serving_dir)
        except ServingError as error:
            raise PipelineError(str(error)) from None

    def why_stale(self) -> str:
        """Say why a version that was pushed earlier does not stand for a new push.

        One that was quarantined or rolled back since does: an unchanged pipeline does
        not push again what was taken back. So does one that is stable, whatever was
        pushed after it.

        Returns:
            That it is gone, changed, or no longer the newest that was not taken back;
            or nothing.
        """
        # Imported where they are used: SQLite would slow every `import penstock`.
        from penstock.components.serving.ledger import Ledger
        from penstock.components.serving.standing import Standing, standings
        from penstock.components.serving.version_dir import verify, versions

        number = int(str(self.pushed_model.properties["pushed_version"]))
        directory = local_directory(self.serving_dir)
        try:
            with Ledger(directory, read_only=True) as ledger:
                standing = standings(ledger)
            mine = standing.get(number, Standing(number))
            if mine.fault:
                return ""
            found = [each.number for each in versions(directory)]
            if number not in found:
                return f"version {number} is no longer in '{directory}'"
            later = [
                each
                for each in found
                if each > number and not standing.get(each, Standing(each)).fault
            ]
            if later and not mine.is_stable:
                return f"version {later[-1]} was pushed after version {number}"
            changed = verify(directory, number)
            if _digest_of(self.pushed_model.path / WARMUP_FILE) != self._warmup_digest:
                return f"version {number} has another warm-up file than it would now"
        except ServingError as error:
            return f"version {number} cannot be looked at: {error}"
        return (
            f"version {number} is not as it was pushed: {changed[0]}" if changed else ""
        )

    def run(self, context: RunContext) -> None:
        """Push the model.

        Raises:
            DataError: If the model is not what its producer wrote, or does not load.
            ServingError: If the serving directory cannot take it, or the same model
                was pushed there before and was quarantined or rolled back.
        """
        from penstock.components.serving.version_dir import copy_folder, push

        manifest = serving_manifest(self.model)
        loaded = self._loaded_before(manifest_digest(manifest))

        def progress() -> None:
            context.progress(0)

        def check(copy: Path) -> dict[str, Any]:
            if loaded is not None:
                return loaded
            context.logger.info("Loading %s in a process of its own", self.model.uri)
            subject = f"Model '{self.model.uri}'"
            return check_loads(copy, subject, context.temp_dir, progress)

        # Copied before it is pushed, so that a full disk stops both; and never linked:
        # a link would change with the served files, or they with it.
        copy_folder(self.model.serving_dir, self.pushed_model.path, progress)
        manifest.update(self._add_warmup())
        digest = manifest_digest(manifest)
        self._refuse_turned_down(digest)
        version = push(
            local_directory(self.serving_dir),
            self.pushed_model.path,
            digest=digest,
            check=check,
            progress=progress,
            model_uri=self.model.uri,
            run_id=context.run_id,
            blessing=self.blessing.uri if self.blessing is not None else None,
        )
        context.logger.info("Pushed version %d: %s", version.number, version.path)
        self.pushed_model.properties.update(
            pushed=1,
            pushed_destination=str(version.path),
            pushed_version=str(version.number),
            digest=digest,
        )

    def _refuse_turned_down(self, digest: str) -> None:
        from penstock.components.serving.ledger import Ledger
        from penstock.components.serving.standing import why_turned_down

        directory = local_directory(self.serving_dir)
        if not directory.is_dir():
            return
        with Ledger(directory, read_only=True) as ledger:
            before = why_turned_down(ledger, digest, self.model.uri)
        if before:
            raise ServingError(
                f"Model '{self.model.uri}' was pushed before, as {before.rstrip('.')}. "
                "Train another, or take that back first: penstock quarantine DIR "
                "VERSION --release --reason TEXT."
            )

    @property
    def _warmup_digest(self) -> str:
        """Digest of the warm-up file that a version has now; empty if it has none."""
        if self.infra_blessing is not None:
            made = _digest_of(self.infra_blessing.warmup_file)
            if made:
                return made
        return _digest_of(self.model.serving_dir / WARMUP_FILE)

    def _add_warmup(self) -> dict[str, tuple[str, int]]:
        """Copy the warm-up file beside the model; return its entry in the manifest."""
        from penstock.components.serving.version_dir import copy_folder

        blessing = self.infra_blessing
        if blessing is None or not blessing.warmup_file.is_file():
            return {}
        _check_unchanged(blessing, folder_manifest(blessing.path))
        folder = Path(WARMUP_FILE).parent
        target = self.pushed_model.path / folder
        target.mkdir(exist_ok=True)
        copied = copy_folder(blessing.warmup_file.parent, target)
        return {(folder / name).as_posix(): entry for name, entry in copied.items()}

    def _loaded_before(self, digest: str) -> dict[str, Any] | None:
        """Return what loading the model gave, if the blessing is of the same bytes."""
        blessing = self.infra_blessing
        if blessing is None or blessing.properties.get("model_digest") != digest:
            return None
        said = {
            key: blessing.properties.get(key) for key in ("signatures", "tensorflow")
        }
        return said if all(said.values()) else None


def serving_manifest(model: Model) -> dict[str, tuple[str, int]]:
    """Return what a model's SavedModel holds, as `folder_manifest` reads it.

    Raises:
        DataError: If the artifact has other bytes than those recorded, or no
            SavedModel.
    """
    manifest = folder_manifest(model.path)
    _check_unchanged(model, manifest)
    prefix = model.serving_dir.relative_to(model.path).as_posix() + "/"
    serving = {
        path.removeprefix(prefix): entry
        for path, entry in manifest.items()
        if path.startswith(prefix)
    }
    if not serving:
        raise DataError(
            f"Model '{model.uri}' has no SavedModel in '{prefix}', where Trainer "
            "writes it. Put it there, or train it again."
        )
    return serving


def _check_unchanged(
    artifact: Model | InfraBlessing, manifest: dict[str, tuple[str, int]]
) -> None:
    found = manifest_digest(manifest)
    if artifact.digest and artifact.digest != found:
        cure = (
            "Train it again."
            if isinstance(artifact, Model)
            else "Run its InfraValidator again."
        )
        raise DataError(
            f"{artifact.TYPE_NAME} '{artifact.uri}' has the digest '{found}' where "
            f"'{artifact.digest}' was recorded when it was made: something wrote to it "
            f"since. {cure}"
        )


def _digest_of(file: Path) -> str:
    return file_digest(file) if file.is_file() else ""
