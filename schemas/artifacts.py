"""Artifact types: typed folders, and where the files lie inside each of them.

Type names, properties and layouts are TFX's, so that its tools read ours and we
read theirs.
"""

from __future__ import annotations

import enum
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

from penstock.schemas.digests import file_digest, folder_manifest, manifest_digest
from penstock.schemas.errors import (
    DataError,
    MetadataError,
    PipelineError,
    did_you_mean,
    quoted,
)

A = TypeVar("A", bound="Artifact")

PropertyValue: TypeAlias = (
    "int | float | str | bool | list[Any] | dict[str, Any]"  # anything JSON can say
)

_SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class ArtifactState(enum.Enum):
    """Whether the bytes of an artifact are to be counted on."""

    LIVE = "live"
    """As far as anybody knows."""
    MARKED_FOR_DELETION = "marked for deletion"
    """Housekeeping has begun to remove them: some may be gone."""
    DELETED = "deleted"
    """They are gone; what is recorded of the artifact stays."""


class Source(Protocol):
    """Where an artifact that is still a promise will come from."""

    def __str__(self) -> str:
        """Return how texts name the promise, as `Trainer.model`."""


class Records(Protocol):
    """What knows how artifacts came about: the lineage store."""

    def upstream(self, artifact: Artifact, kind: type[A]) -> tuple[A, ...]:
        """Return the artifacts of a type that one came from."""

    def downstream(self, artifact: Artifact, kind: type[A]) -> tuple[A, ...]:
        """Return the artifacts of a type that came of one."""


class Artifact:
    """A typed folder: a promise before its producer ran, a fact after.

    Make one from a path to hand a component something that is on disk already;
    components make the promises themselves (`trainer.model`).

    Args:
        uri: The folder, as a path or a URL.
        properties: What is recorded about it in the lineage store.
        digest: Digest of its contents, `sha256:...`, where it is known.
        id: Its number in the lineage store, where it has one.
        source: Where it will come from, for a promise.
        records: The lineage store that it was read from.

    Attributes:
        state: Whether its bytes are to be counted on, as the lineage store says.
        TYPE_NAME: Name of the type in ML Metadata.
        BASE_TYPE: ML Metadata's system type that it extends, if any.
        PROPERTIES: Typed properties; all other properties are custom ones.
        ORIGIN: Properties that say where it came from, not what it is.
    """

    TYPE_NAME: ClassVar[str] = "Artifact"
    BASE_TYPE: ClassVar[str | None] = None
    PROPERTIES: ClassVar[Mapping[str, type]] = {}
    ORIGIN: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        uri: str | Path = "",
        *,
        properties: Mapping[str, PropertyValue] | None = None,
        digest: str = "",
        id: int | None = None,
        source: Source | None = None,
        records: Records | None = None,
    ) -> None:
        self._uri = str(uri)
        self.properties: dict[str, PropertyValue] = dict(properties or {})
        self.digest = digest
        self.id = id
        self.source = source
        self.state = ArtifactState.LIVE
        self._records = records

    def __getstate__(self) -> dict[str, Any]:
        # A store stays in its process.
        return {**self.__dict__, "_records": None}

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({str(self.source) if self.source else self._uri!r})"
        )

    @property
    def is_promise(self) -> bool:
        """Whether the artifact's producer has still to run."""
        return not self._uri

    @property
    def is_deleted(self) -> bool:
        """Whether housekeeping has removed its bytes, or begun to."""
        return self.state is not ArtifactState.LIVE

    @property
    def uri(self) -> str:
        """The folder's location.

        Raises:
            PipelineError: If the artifact is a promise.
        """
        if not self._uri:
            raise PipelineError(
                f"'{self.source}' has no location: its producer has not run. Run the "
                "pipeline, and take the artifact from the RunResult."
            )
        return self._uri

    @property
    def path(self) -> Path:
        """The folder's location on this machine.

        Raises:
            DataError: If the artifact lies behind a URL.
        """
        if "://" in self.uri:
            raise DataError(
                f"{type(self).__name__} '{self.uri}' is not on a local file system. "
                "Copy it to a local folder and use that."
            )
        return Path(self.uri)

    def upstream(self, kind: type[A]) -> tuple[A, ...]:
        """Return the artifacts of a type that this one came from, the oldest first.

        Args:
            kind: The type, such as Examples.

        Raises:
            MetadataError: If it was not read from a lineage store.
        """
        return self._recorded_in().upstream(self, kind)

    def downstream(self, kind: type[A]) -> tuple[A, ...]:
        """Return the artifacts of a type that have something of this one inside.

        Args:
            kind: The type, such as PushedModel.

        Raises:
            MetadataError: If it was not read from a lineage store.
        """
        return self._recorded_in().downstream(self, kind)

    def _recorded_in(self) -> Records:
        if self._records is None:
            raise MetadataError(
                f"{self!r} was not read from a lineage store, so that nothing is known "
                "of what came before and after it. Take it from there, as with "
                "store.artifact(number)."
            )
        return self._records

    @property
    def is_old_layout(self) -> bool:
        """Whether a TFX before 0.29 wrote it, with the layouts of its time."""
        version = self.properties.get("tfx_version")
        if not isinstance(version, str):
            return False
        numbers = re.findall(r"\d+", version)[:2]
        return [int(number) for number in numbers] < [0, 29]

    def only_file(self, *names: str) -> Path:
        """Return the first of the named files that exists.

        Args:
            *names: Paths relative to the folder, in order of preference.

        Raises:
            DataError: If none exists.
        """
        for name in names:
            if (self.path / name).is_file():
                return self.path / name
        raise DataError(
            f"{type(self).__name__} '{self.uri}' holds no '{names[0]}'. It was "
            "moved, deleted or written by something else; run its producer again."
        )


class _InSplits(Artifact):
    """An artifact with one subfolder per split."""

    PROPERTIES: ClassVar[Mapping[str, type]] = {"span": int, "split_names": str}

    @property
    def split_names(self) -> tuple[str, ...]:
        """Names of the splits, as recorded, or else as the folders say.

        Raises:
            DataError: If neither the properties nor the folder name any split.
        """
        recorded = self.properties.get("split_names")
        if isinstance(recorded, str) and recorded:
            return tuple(json.loads(recorded))
        if isinstance(recorded, list | tuple):
            return tuple(recorded)
        found = sorted(folder.name[6:] for folder in self.path.glob("Split-*"))
        if not found:
            raise DataError(
                f"{type(self).__name__} '{self.uri}' has no split: no 'split_names' "
                "is recorded and no folder 'Split-…' is there. Run its producer again."
            )
        return tuple(found)

    @split_names.setter
    def split_names(self, names: Iterable[str]) -> None:
        self.properties["split_names"] = json.dumps(list(names))

    def require_split(self, name: str) -> None:
        """Check that a split exists.

        Raises:
            DataError: If there is no such split.
        """
        names = self.split_names
        if name not in names:
            subject = self.source or self._uri
            raise DataError(
                f"Split '{name}' is not in {type(self).__name__} '{subject}' (it has "
                f"{quoted(names)}).{did_you_mean(name, names)}"
            )

    def splits_without(self, excluded: Iterable[str]) -> tuple[str, ...]:
        """Return the splits but the excluded ones, each of which must exist.

        Raises:
            DataError: If an excluded split does not exist, or none is left.
        """
        excluded = tuple(excluded)
        for name in excluded:
            self.require_split(name)
        left = tuple(name for name in self.split_names if name not in excluded)
        if not left:
            raise DataError(
                f"No split of {type(self).__name__} '{self.source or self._uri}' is "
                f"left: exclude_splits names all of {quoted(excluded)}. Exclude fewer."
            )
        return left

    def split_dir(self, split: str) -> Path:
        """Return the folder of a split.

        Raises:
            DataError: If there is no such split.
        """
        self.require_split(split)
        return self.path / (split if self.is_old_layout else f"Split-{split}")


def check_split_name(name: str) -> None:
    """Check that a name can be the name of a split.

    Raises:
        PipelineError: If it has other characters than letters, digits, `_` and `-`,
            or does not begin with a letter or a digit.
    """
    if not _SPLIT_NAME.fullmatch(name):
        raise PipelineError(
            f"Split name '{name}' cannot be used: split names begin with a letter or "
            "digit and have only letters, digits, '_' and '-'. Rename the split."
        )


def _whole_number(value: object) -> int | None:
    """Return a property that TFX also writes as text."""
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if isinstance(value, int) else None


class Examples(_InSplits):
    """Rows of data in splits, as Parquet or as TFRecord files."""

    TYPE_NAME = "Examples"
    BASE_TYPE = "DATASET"
    PROPERTIES: ClassVar[Mapping[str, type]] = {
        "span": int,
        "version": int,
        "split_names": str,
    }
    ORIGIN = frozenset({"input_fingerprint"})

    @property
    def payload_format(self) -> str:
        """What a record is: FORMAT_PARQUET, FORMAT_TF_EXAMPLE, ...

        TFX records no format for tf.Example, its default.
        """
        return str(self.properties.get("payload_format", "FORMAT_TF_EXAMPLE"))

    @property
    def span(self) -> int | None:
        """Which span of the data it is, where it is one."""
        return _whole_number(self.properties.get("span"))

    @property
    def version(self) -> int | None:
        """Which version of its span it is, where spans have versions."""
        return _whole_number(self.properties.get("version"))

    def files(self, split: str) -> tuple[Path, ...]:
        """Return the data files of a split, sorted by name.

        Raises:
            DataError: If there is no such split, or it has no file.
        """
        folder = self.split_dir(split)
        found = tuple(
            path
            for path in sorted(folder.glob("*"))
            if path.is_file() and not path.name.startswith((".", "_"))
        )
        if not found:
            raise DataError(
                f"Split '{split}' of Examples '{self.uri}' has no file. It was moved "
                "or deleted; run its producer again."
            )
        return found


class ExampleStatistics(_InSplits):
    """One `FeatureStats.pb` per split."""

    TYPE_NAME = "ExampleStatistics"
    BASE_TYPE = "STATISTICS"

    def file(self, split: str) -> Path:
        """Return the file that holds the statistics of a split.

        Raises:
            DataError: If there is no such split.
        """
        old = "stats_tfrecord" if self.is_old_layout else "FeatureStats.pb"
        return self.split_dir(split) / old


class Schema(Artifact):
    """A feature schema, `schema.pbtxt`."""

    TYPE_NAME = "Schema"

    @property
    def file(self) -> Path:
        """The text file of the schema proto."""
        return self.path / "schema.pbtxt"


class TransformGraph(Artifact):
    """A transformation of features, as a SavedModel and its metadata."""

    TYPE_NAME = "TransformGraph"


FLAVOR_FILE = "flavor.json"
"""In a model that is no SavedModel, the file that names the function that loads it."""


class Model(Artifact):
    """A trained model: a SavedModel below `Format-Serving`.

    Or there, instead, the files of a Python predictor and a `flavor.json`.
    """

    TYPE_NAME = "Model"
    BASE_TYPE = "MODEL"

    @property
    def serving_dir(self) -> Path:
        """The folder of the SavedModel that is served."""
        old = self.path / "serving_model_dir"
        return old if self.is_old_layout else self.path / "Format-Serving"


class ModelRun(Artifact):
    """What a training left beside the model: TensorBoard logs and the like."""

    TYPE_NAME = "ModelRun"


class ModelEvaluation(Artifact):
    """Metrics by slice, as `tfma.load_eval_result` reads them."""

    TYPE_NAME = "ModelEvaluation"


class PushedModel(Artifact):
    """A model that was pushed, with the version that it became."""

    TYPE_NAME = "PushedModel"
    BASE_TYPE = "MODEL"


class InferenceResult(Artifact):
    """Predictions, as TFRecord files of PredictionLog."""

    TYPE_NAME = "InferenceResult"


_MOST_FILES = 1_000  # that are recorded one by one


class ExternalArtifact(Artifact):
    """Something that was read from outside the pipeline: files by a pattern."""

    TYPE_NAME = "ExternalArtifact"

    @classmethod
    def of(cls, path: str | Path) -> ExternalArtifact:
        """Return what stands for a file, or for a folder with all that it holds.

        Its digest is that of the bytes, whenever they were written; of a file its name
        counts too, of a folder the names in it.

        Raises:
            OSError: If it cannot be read.
        """
        place = Path(os.path.abspath(path))
        if place.is_dir():
            manifest = folder_manifest(place)
        else:
            manifest = {place.name: (file_digest(place), place.stat().st_size)}
        files = {name: digest for name, (digest, _) in manifest.items()}
        properties = {"files": files} if len(files) <= _MOST_FILES else {}
        return cls(place, digest=manifest_digest(manifest), properties=properties)


class Answer(enum.Enum):
    """What a verdict says."""

    YES = "yes"
    NO = "no"
    NOT_ENOUGH_DATA = "not enough data"


class Verdict(Artifact):
    """An artifact that says yes, no or not-enough-data, with reasons.

    Wired into a component it gates it: unless the answer is yes, the component does
    not run.
    """

    @property
    def answer(self) -> Answer:
        """What it says; a verdict that says nothing is not a yes."""
        blessed = self.properties.get("blessed")
        if blessed == 1:
            return Answer.YES
        if self.properties.get("verdict") == "INCONCLUSIVE":
            return Answer.NOT_ENOUGH_DATA
        return Answer.NO

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why, one sentence each."""
        recorded = self.properties.get("reasons", [])
        return tuple(json.loads(recorded) if isinstance(recorded, str) else recorded)  # type: ignore[arg-type]

    def set_reasons(
        self, reasons: Iterable[str], *, against: int | None = None
    ) -> None:
        """Record why, one sentence each.

        Args:
            reasons: The sentences, those that speak against a yes first.
            against: How many of them do; all by default.
        """
        listed = list(reasons)
        self.properties["reasons"] = listed
        self.properties["reasons_against"] = len(listed) if against is None else against

    @property
    def reasons_against(self) -> tuple[str, ...]:
        """Those of the reasons that speak against a yes."""
        count = self.properties.get("reasons_against", len(self.reasons))
        return self.reasons[: int(count)]  # type: ignore[arg-type]


class ExampleAnomalies(Verdict, _InSplits):
    """What disagrees with the schema, one `SchemaDiff.pb` per split."""

    TYPE_NAME = "ExampleAnomalies"

    @property
    def answer(self) -> Answer:
        """Yes if every split is blessed.

        TFX writes 1 for a blessed split, 0 for one with anomalies, and 2 where there
        was no baseline to compare with.
        """
        blessed = self.properties.get("blessed")
        values = list(blessed.values()) if isinstance(blessed, dict) else []
        if values and all(value == 1 for value in values):
            return Answer.YES
        if 2 in values and 0 not in values:
            return Answer.NOT_ENOUGH_DATA
        return Answer.NO

    def file(self, split: str) -> Path:
        """Return the file that holds the anomalies of a split.

        Raises:
            DataError: If there is no such split.
        """
        old = "anomalies.pbtxt" if self.is_old_layout else "SchemaDiff.pb"
        return self.split_dir(split) / old


class ModelBlessing(Verdict):
    """Whether a model may be pushed: a file `BLESSED` or `NOT_BLESSED`.

    Its property `blessed` is 1 only for a final yes, which is all that readers of
    TFX's look at. The property `verdict` is the word behind it: BLESSED, NOT_BLESSED,
    INCONCLUSIVE or NO_THRESHOLDS. An INCONCLUSIVE one answers yes if it was blessed
    all the same (`on_inconclusive="bless"`), and else not-enough-data: nothing is
    pushed, and a run that it stops exits with 4 instead of 3. A forced one (property
    `forced` 1, and `forced_reason`) answers yes and keeps the word.
    """

    TYPE_NAME = "ModelBlessing"
    ORIGIN = frozenset(
        {
            *("current_model", "current_model_id", "baseline_model"),
            *("baseline_model_id", "component_id"),
        }
    )

    @property
    def word(self) -> str:
        """The word behind the answer; of a blessing by TFX, BLESSED or NOT_BLESSED."""
        blessed = self.properties.get("blessed") == 1
        word = "BLESSED" if blessed else "NOT_BLESSED"
        return str(self.properties.get("verdict", word))

    @property
    def is_forced(self) -> bool:
        """Whether somebody blessed the model whatever the word was."""
        return self.properties.get("forced") == 1

    @property
    def forced_reason(self) -> str:
        """Why it was forced; empty if it was not."""
        return str(self.properties.get("forced_reason", ""))

    def decide(self, word: str, *, blessed: bool) -> None:
        """Record the word and the final yes or no, and write the file that says it.

        Args:
            word: What the data say.
            blessed: Whether the model may be pushed.
        """
        self.properties["verdict"] = word
        self.properties["blessed"] = int(blessed)
        (self.path / ("BLESSED" if blessed else "NOT_BLESSED")).touch()


WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
"""Where TensorFlow Serving looks for warm-up requests, below a version's folder."""


class InfraBlessing(Verdict):
    """Whether a model server can load the model and answer with it.

    A file `INFRA_BLESSED` or `INFRA_NOT_BLESSED`, and the word behind it as the
    property `verdict`: BLESSED, NOT_BLESSED or INCONCLUSIVE. Where warm-up requests
    were made they lie inside, and become a part of the version that is pushed.
    """

    TYPE_NAME = "InfraBlessing"
    ORIGIN = frozenset({"current_model", "current_model_id", "component_id"})

    @property
    def warmup_file(self) -> Path:
        """Where the warm-up requests are, if any were made."""
        return self.path / WARMUP_FILE

    def decide(self, word: str, *, blessed: bool) -> None:
        """Record the word and the final yes or no, and write the file that says it.

        Args:
            word: What was found.
            blessed: Whether the model may be pushed.
        """
        self.properties["verdict"] = word
        self.properties["blessed"] = int(blessed)
        (self.path / ("INFRA_BLESSED" if blessed else "INFRA_NOT_BLESSED")).touch()


class _WatchVerdict(Verdict):
    """What watching a model in production came to, as a document and a page.

    Its property `verdict` is the state: OK, WATCH, ALERT or INSUFFICIENT_DATA. It
    answers yes unless the state is one of the last two.
    """

    FILE: ClassVar[str]

    @property
    def answer(self) -> Answer:
        """Yes for OK and WATCH, no for ALERT."""
        word = self.properties.get("verdict")
        if word == "INSUFFICIENT_DATA":
            return Answer.NOT_ENOUGH_DATA
        return Answer.YES if self.properties.get("blessed") == 1 else Answer.NO

    @property
    def file(self) -> Path:
        """The document, as `schemas/monitoring-report-1.json` describes it."""
        return self.path / self.FILE

    def decide(self, state: str) -> None:
        """Record the state, and the yes or no of it.

        Args:
            state: `ok`, `watch`, `alert` or `insufficient_data`.
        """
        self.properties["verdict"] = state.upper()
        self.properties["blessed"] = int(state in ("ok", "watch"))


class DriftVerdict(_WatchVerdict):
    """Whether what a model is asked still looks like what it was trained on."""

    TYPE_NAME = "DriftVerdict"
    FILE = "drift.json"


class QualityVerdict(_WatchVerdict):
    """Whether a model still answers as well as it did, slice by slice."""

    TYPE_NAME = "QualityVerdict"
    FILE = "quality.json"


ARTIFACT_TYPES: Mapping[str, type[Artifact]] = {
    kind.TYPE_NAME: kind
    for kind in (
        Examples,
        ExampleStatistics,
        Schema,
        ExampleAnomalies,
        TransformGraph,
        Model,
        ModelRun,
        ModelEvaluation,
        ModelBlessing,
        InfraBlessing,
        DriftVerdict,
        QualityVerdict,
        PushedModel,
        InferenceResult,
        ExternalArtifact,
    )
}
"""Every artifact type that penstock knows, by its name in ML Metadata."""
