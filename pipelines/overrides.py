"""What people say over an evaluation's head: forced blessings and the block-list.

Each is an execution of type `penstock.Bless` in the lineage store, with the reason, a
Model as input and a ModelBlessing as output, which other tools of ML Metadata read as
any other. The block-list goes by the digest of a model's bytes: a copy, or the same
bytes made again, is blocked too. The later record wins.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import shutil
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path

from penstock.pipelines.disk import sync, sync_folder
from penstock.pipelines.metadata import ExecutionRecord, Store
from penstock.schemas.artifacts import Artifact, Model, ModelBlessing, PropertyValue
from penstock.schemas.digests import folder_digest
from penstock.schemas.errors import DataError, MetadataError, PipelineError

EXECUTION_TYPE = "penstock.Bless"
COMPONENT = "penstock bless"


class Action(enum.Enum):
    """What is done to a model."""

    FORCE = "force"
    BLOCK = "block"
    UNBLOCK = "unblock"


@dataclasses.dataclass(frozen=True)
class Override:
    """One record of what somebody did to a model.

    Attributes:
        action: What was done.
        model: The model that was named.
        digest: Digest of its bytes.
        reason: Why.
        at: When, in seconds since 1970.
        blessing: The blessing that says so.
    """

    action: Action
    model: Model
    digest: str
    reason: str
    at: float
    blessing: ModelBlessing


class BlockList:
    """The models that are blocked now.

    Args:
        overrides: All that was done to models, in the order it was done.
    """

    def __init__(self, overrides: Iterable[Override]) -> None:
        self._entries: dict[str, Override] = {}
        self._digests: dict[int | None, str] = {}
        for each in overrides:
            self._digests[each.model.id] = each.digest
            if each.action is Action.BLOCK:
                self._entries[each.digest] = each
            elif each.action is Action.UNBLOCK:
                self._entries.pop(each.digest, None)

    def entry(self, model: Model) -> Override | None:
        """Return the record that blocks a model, or None.

        A model that TFX recorded, without a digest, is known by its number.
        """
        digest = model.digest or self._digests.get(model.id, "")
        return self._entries.get(digest)


class Remarks:
    """What to say beside an artifact that somebody did something to.

    Args:
        overrides: All that was done to models, in the order it was done.
    """

    def __init__(self, overrides: Iterable[Override]) -> None:
        done = list(overrides)
        self._blocked = BlockList(done)
        self._forced = {
            each.model.id: each.reason for each in done if each.action is Action.FORCE
        }

    def of(self, artifact: Artifact) -> dict[str, str]:
        """Return reasons by what was done: `blocked`, `forced`, `unblocked`, `deleted`.

        Of a model, what counts now; of a blessing, what it records.
        """
        gone = {"deleted": "by housekeeping"} if artifact.is_deleted else {}
        return {**self._said_of(artifact), **gone}

    def _said_of(self, artifact: Artifact) -> dict[str, str]:
        if isinstance(artifact, ModelBlessing):
            return {
                word: str(artifact.properties[f"{word}_reason"])
                for word in ("blocked", "forced", "unblocked")
                if f"{word}_reason" in artifact.properties
            }
        if not isinstance(artifact, Model):
            return {}
        entry = self._blocked.entry(artifact)
        found = {"blocked": entry.reason} if entry else {}
        if artifact.id in self._forced:
            found["forced"] = self._forced[artifact.id]
        return found


def overrides(store: Store) -> list[Override]:
    """Return all that was done to models, in the order it was done.

    Args:
        store: The lineage store.
    """
    return [_override(each) for each in store.executions_of_type(EXECUTION_TYPE)]


def block_list(store: Store) -> BlockList:
    """Return the models that are blocked now.

    Args:
        store: The lineage store.
    """
    return BlockList(overrides(store))


def _override(record: ExecutionRecord) -> Override:
    (model,), (blessing,) = record.inputs["model"], record.outputs["blessing"]
    assert isinstance(model, Model) and isinstance(blessing, ModelBlessing)
    return Override(
        Action(record.properties["penstock_action"]),
        model,
        str(record.properties["penstock_model_digest"]),
        record.reason,
        record.started,
        blessing,
    )


def why_blocked(store: Store, blessing: ModelBlessing, read: Iterable[Artifact]) -> str:
    """Return why a blessing opens no gate: its model is blocked; or "".

    Args:
        store: The lineage store.
        blessing: A blessing that says yes.
        read: What the gated component reads: its models count where the blessing does
            not say, with a number of this store, which one it is of.
    """
    blocked = block_list(store)
    named = _judged(store, blessing)
    models = [named] if named else [each for each in read if isinstance(each, Model)]
    for model in models:
        entry = blocked.entry(model)
        if entry is not None:
            return f"{_with_bytes(model, entry)} is on the block-list: {entry.reason}"
    return ""


def _judged(store: Store, blessing: ModelBlessing) -> Model | None:
    number = blessing.properties.get("current_model_id")
    if not isinstance(number, int | float):
        return None
    found = store.find_artifact(int(number))
    if not isinstance(found, Model):
        return None
    # A blessing of another store has the numbers of that store.
    uri = blessing.properties.get("current_model", found.uri)
    return found if uri == found.uri else None


def _with_bytes(model: Model, entry: Override) -> str:
    if model.id == entry.model.id:
        return f"Model {model.id}"
    subject = f"Model {model.id}" if model.id is not None else f"'{model.uri}'"
    return f"{subject} has the bytes of Model {entry.model.id}, which"


def force(store: Store, root: Path, model: Model, reason: str) -> ModelBlessing:
    """Bless a model whatever its evaluation said.

    Args:
        store: The lineage store.
        root: Folder that artifacts lie in.
        model: A model of the store.
        reason: Why.

    Returns:
        The blessing, recorded.

    Raises:
        PipelineError: If the reason is empty.
        DataError: If the model's folder is gone or has other bytes than recorded.
        MetadataError: If the model is blessed already, or blocked.
    """
    entry = block_list(store).entry(model)
    if entry is not None:
        raise MetadataError(
            f"{_with_bytes(model, entry)} is on the block-list: {entry.reason} Take it "
            f"off with 'penstock bless {model.id} --unblock --reason ...' first."
        )
    standing = _standing(store, model)
    if standing is not None and standing.properties.get("blessed") == 1:
        raise MetadataError(
            f"Model {model.id} is blessed already, by ModelBlessing {standing.id}. "
            "There is nothing to force."
        )
    digest = _digest(model, must_exist=True)
    sentence = one_sentence(reason)
    evaluation = _evaluation(store, model)
    properties: dict[str, PropertyValue] = {
        "blessed": 1,
        **_verdict(evaluation),
        "forced": 1,
        "forced_reason": sentence,
    }
    blessing = _blessing(model, properties)
    blessing.set_reasons(
        [f"Blessed by force: {sentence}", *(evaluation.reasons if evaluation else ())],
        against=0,
    )
    return _record(store, root, Action.FORCE, model, digest, sentence, blessing)


def block(store: Store, root: Path, model: Model, reason: str) -> ModelBlessing:
    """Put the bytes of a model on the block-list.

    Args:
        store: The lineage store.
        root: Folder that artifacts lie in.
        model: A model of the store; its folder may be gone.
        reason: Why.

    Returns:
        The blessing that says no, recorded.

    Raises:
        PipelineError: If the reason is empty.
        DataError: If no digest is recorded and the model's folder is gone.
        MetadataError: If it is blocked already.
    """
    entry = block_list(store).entry(model)
    if entry is not None:
        raise MetadataError(
            f"{_with_bytes(model, entry)} is on the block-list already: {entry.reason}"
        )
    digest = _digest(model, must_exist=False)
    sentence = one_sentence(reason)
    properties: dict[str, PropertyValue] = {
        "blessed": 0,
        "verdict": "NOT_BLESSED",
        "blocked": 1,
        "blocked_reason": sentence,
    }
    blessing = _blessing(model, properties)
    blessing.set_reasons([f"On the block-list: {sentence}"])
    return _record(store, root, Action.BLOCK, model, digest, sentence, blessing)


def unblock(store: Store, root: Path, model: Model, reason: str) -> ModelBlessing:
    """Take the bytes of a model off the block-list.

    The model stands as it stood: what its evaluation, or a forced blessing, said
    before counts again, and the record repeats it.

    Args:
        store: The lineage store.
        root: Folder that artifacts lie in.
        model: A model of the store with the blocked bytes.
        reason: Why.

    Returns:
        The blessing that repeats what was said before, recorded.

    Raises:
        PipelineError: If the reason is empty.
        DataError: If no digest is recorded and the model's folder is gone.
        MetadataError: If it is not blocked.
    """
    if block_list(store).entry(model) is None:
        raise MetadataError(
            f"Model {model.id} is not on the block-list, so it cannot be taken off it. "
            "'penstock artifacts --type Model' says which models are."
        )
    digest = _digest(model, must_exist=False)
    sentence = one_sentence(reason)
    standing = _standing(store, model)
    said: Mapping[str, PropertyValue] = standing.properties if standing else {}
    properties: dict[str, PropertyValue] = {
        "blessed": int(said.get("blessed") == 1),
        **_verdict(standing),
        **{key: said[key] for key in ("forced", "forced_reason") if key in said},
        "blocked": 0,
        "unblocked_reason": sentence,
    }
    blessing = _blessing(model, properties)
    against = standing.reasons_against if standing else ()
    reasons = standing.reasons if standing else ()
    blessing.set_reasons(
        [*reasons, f"Off the block-list: {sentence}"], against=len(against)
    )
    return _record(store, root, Action.UNBLOCK, model, digest, sentence, blessing)


def one_sentence(reason: str) -> str:
    """Return a reason in one line that ends as a sentence does.

    Raises:
        PipelineError: If it is empty.
    """
    text = " ".join(reason.split())
    if not text:
        raise PipelineError(
            "The reason is empty. It is all that later readers of the lineage will "
            "know: write why."
        )
    return text if text[-1] in ".!?" else f"{text}."


def _digest(model: Model, *, must_exist: bool) -> str:
    """Return the digest of a model's bytes, as recorded, or else read from them.

    Raises:
        DataError: If the bytes are wanted and are gone, or are not those recorded.
    """
    if model.digest and not must_exist:
        return model.digest
    if model.is_deleted or not model.path.is_dir():
        raise DataError(
            f"Model {model.id} is not at '{model.uri}' any more. It was moved or "
            "deleted: train it again."
        )
    found = folder_digest(model.path)
    if model.digest and model.digest != found:
        raise DataError(
            f"Model '{model.uri}' has the digest '{found}' where '{model.digest}' was "
            "recorded when it was made: something wrote to it since. Train it again."
        )
    return found


def _verdicts(
    store: Store, model: Model
) -> list[tuple[ExecutionRecord, ModelBlessing]]:
    """Return what was said of a model, in order, with what said it."""
    return [
        (execution, made)
        for execution in store.consumers([model])
        for artifacts in execution.outputs.values()
        for made in artifacts
        if isinstance(made, ModelBlessing)
        and made.properties.get("current_model_id") == model.id
    ]


def _evaluation(store: Store, model: Model) -> ModelBlessing | None:
    """Return what the newest evaluation said of a model."""
    said = [
        each
        for execution, each in _verdicts(store, model)
        if execution.type != EXECUTION_TYPE
    ]
    return said[-1] if said else None


def _standing(store: Store, model: Model) -> ModelBlessing | None:
    """Return what counts of a model when it is not blocked."""
    said = [
        each for _, each in _verdicts(store, model) if "blocked" not in each.properties
    ]
    return said[-1] if said else None


def _verdict(blessing: ModelBlessing | None) -> dict[str, PropertyValue]:
    """Return the word of a blessing as a property; TFX's have none but yes and no."""
    if blessing is None:
        return {}
    word = "BLESSED" if blessing.properties.get("blessed") == 1 else "NOT_BLESSED"
    return {"verdict": blessing.properties.get("verdict", word)}


def _blessing(model: Model, properties: Mapping[str, PropertyValue]) -> ModelBlessing:
    """Return a blessing of a model that has still to be given its folder."""
    assert model.id is not None
    named: dict[str, PropertyValue] = {
        "current_model": model.uri,
        "current_model_id": model.id,
        "component_id": COMPONENT,
    }
    return ModelBlessing(properties={**properties, **named})


def _record(
    store: Store,
    root: Path,
    action: Action,
    model: Model,
    digest: str,
    reason: str,
    blessing: ModelBlessing,
) -> ModelBlessing:
    """Write the folder of a blessing, under a temporary name first, then record it."""
    pipelines = _pipelines(store, model)
    place = root.joinpath(*pipelines[:1], EXECUTION_TYPE, "blessing")
    name = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S.%f")
    staged, final = place / f".{name}.partial", place / name
    try:
        staged.mkdir(parents=True)
        is_blessed = blessing.properties["blessed"] == 1
        (staged / ("BLESSED" if is_blessed else "NOT_BLESSED")).touch()
        committed = ModelBlessing(
            final, properties=blessing.properties, digest=folder_digest(staged)
        )
        sync_folder(staged)
        os.rename(staged, final)
        sync(place)
        store.record_execution(
            EXECUTION_TYPE,
            component=COMPONENT,
            pipelines=pipelines,
            inputs={"model": model},
            outputs={"blessing": committed},
            properties={
                "penstock_action": action.value,
                "penstock_model_digest": digest,
                "reason": reason,
            },
        )
    except BaseException as error:
        shutil.rmtree(staged, ignore_errors=True)
        shutil.rmtree(final, ignore_errors=True)
        if isinstance(error, OSError):
            raise DataError(
                f"The blessing of Model {model.id} cannot be written to '{place}': "
                f"{error.strerror}. Nothing is recorded; mend it and say it again."
            ) from error
        raise
    return committed


def _pipelines(store: Store, model: Model) -> list[str]:
    """Return the pipelines that made or judged a model, or else those that read it."""
    made = [each.pipeline for each in store.producers([model])]
    judged = [execution.pipeline for execution, _ in _verdicts(store, model)]
    read = [each.pipeline for each in store.consumers([model])]
    found = made + judged or read
    return list(dict.fromkeys(each for each in found if each))
