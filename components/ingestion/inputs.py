"""The input files of an ExampleGen: found by pattern, digested, grouped for reading."""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from penstock.components.ingestion import spans
from penstock.schemas.artifacts import ExternalArtifact, check_split_name
from penstock.schemas.digests import file_digest, manifest_digest
from penstock.schemas.errors import DataError, PipelineError

SINGLE_SPLIT = "single_split"
"""What TFX calls the input when it has no splits of its own."""

GROUP_BYTES = 256 << 20
"""Files are read together up to about this size, and written to one file per split."""


@dataclasses.dataclass(frozen=True)
class InputSplit:
    """The files of one input split.

    Attributes:
        name: Its name.
        pattern: The pattern with span and version filled in, below the folder.
        files: Paths, sorted.
    """

    name: str
    pattern: str
    files: tuple[Path, ...]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What an ExampleGen reads.

    Attributes:
        splits: The input splits.
        span: Number of the span; 0 if the patterns have none.
        version: Number of the version, None if the patterns have none.
    """

    splits: tuple[InputSplit, ...]
    span: int
    version: int | None

    @property
    def files(self) -> tuple[Path, ...]:
        """Paths of all the files, split by split."""
        return tuple(path for split in self.splits for path in split.files)


@dataclasses.dataclass(frozen=True)
class Group:
    """Files that are read together: a handle, fit for a Beam graph.

    Attributes:
        files: Their paths.
        number: Number of the group, from 0, among the groups of its split.
        of: How many groups its split has.
        split: The split that all the rows go to; None if rows are dealt out.
    """

    files: tuple[str, ...]
    number: int
    of: int
    split: str | None


def check_inputs(
    subject: str,
    pattern: str,
    input_splits: Mapping[str, str] | None,
    span: int | None,
    version: int | None,
) -> None:
    """Check the parameters that say what an ExampleGen reads.

    Raises:
        PipelineError: If they do not go together.
    """
    patterns = [pattern] if input_splits is None else list(input_splits.values())
    if input_splits is not None:
        if pattern != "*":
            raise PipelineError(
                f"{subject} has both pattern and input_splits. Give input_splits a "
                "pattern for every split, and leave pattern out."
            )
        if not input_splits:
            raise PipelineError(
                f"{subject}.input_splits names no split. Name each split with its "
                "pattern, or leave input_splits out."
            )
        for name in input_splits:
            check_split_name(name)
    for each in patterns:
        spans.check_pattern(each)
        if each.startswith("/") or ".." in each.split("/") or not each:
            raise PipelineError(
                f"{subject} has the pattern '{each}', which leads out of input_dir. "
                "Write patterns relative to it."
            )
        if span is not None and not spans.has_span(each):
            raise PipelineError(
                f"{subject} asks for span {span}, and pattern '{each}' has no span. "
                "Add '{SPAN}' or a date to it, or leave span out."
            )
        if version is not None and not spans.has_version(each):
            raise PipelineError(
                f"{subject} asks for version {version}, and pattern '{each}' has no "
                "version. Add '{VERSION}' to it, or leave version out."
            )


def find(
    input_dir: Path | str,
    pattern: str,
    input_splits: Mapping[str, str] | None,
    *,
    span: int | None = None,
    version: int | None = None,
) -> Inputs:
    """Find the files that match.

    Files and folders whose names begin with '.' or '_' are left out where the pattern
    does not begin so itself: markers and hidden files are no data.

    Raises:
        DataError: If the folder is missing or empty, nothing matches, or the splits'
            latest spans or versions differ.
    """
    folder = Path(input_dir)
    if not folder.is_dir():
        kind = "is a file" if folder.exists() else "does not exist"
        cure = (
            f"Pass its folder, '{folder.parent}', and pattern='{folder.name}'"
            if folder.exists()
            else "Pass the folder that holds the input files"
        )
        raise DataError(f"Input folder '{folder}' {kind}. {cure}.")
    patterns = {SINGLE_SPLIT: pattern} if input_splits is None else input_splits
    found = {}
    for name, each in patterns.items():
        matched = spans.select(
            each, _matching(folder, each), span=span, version=version
        )
        if not matched.files:
            raise _nothing(folder, each)
        found[name] = matched
    first_name, first = next(iter(found.items()))
    for name, matched in found.items():
        for noun in ("span", "version"):
            one, other = getattr(first, noun), getattr(matched, noun)
            if one != other:
                raise DataError(
                    f"The latest {noun} of input split '{first_name}' is {one}, that "
                    f"of '{name}' is {other}. Wait until both are there, or ask for "
                    f"one by {noun}=."
                )
    return Inputs(
        tuple(
            InputSplit(name, m.pattern, tuple(folder / path for path in m.files))
            for name, m in found.items()
        ),
        first.span or 0,
        first.version,
    )


def _matching(folder: Path, pattern: str) -> list[str]:
    wanted = spans.glob_of(pattern)
    parts = wanted.split("/")
    return [
        path
        for path in glob.glob(wanted, root_dir=folder)
        if (folder / path).is_file()
        and not any(
            name.startswith("_") and not part.startswith("_")
            for name, part in zip(
                path.replace(os.sep, "/").split("/"), parts, strict=True
            )
        )
    ]


def _nothing(folder: Path, pattern: str) -> DataError:
    there = sorted(path.name for path in folder.iterdir())
    if not there:
        return DataError(
            f"Input folder '{folder}' is empty. Put the input files there, or pass "
            "another folder."
        )
    some = ", ".join(f"'{name}'" for name in there[:5])
    more = f" and {len(there) - 5} more" if len(there) > 5 else ""
    return DataError(
        f"No file in '{folder}' matches '{pattern}' (it holds {some}{more}). Pass the "
        "pattern of the files to read."
    )


def external_inputs(
    inputs: Inputs, input_dir: Path | str
) -> tuple[ExternalArtifact, ...]:
    """Return one artifact per input split, with the digests of its files."""
    files = inputs.files
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = dict(zip(files, pool.map(file_digest, files), strict=True))
    made = []
    for split in inputs.splits:
        manifest = {
            path.relative_to(input_dir).as_posix(): (digests[path], path.stat().st_size)
            for path in split.files
        }
        properties: dict[str, object] = {
            "split": split.name,
            "span": inputs.span,
            "files": {name: digest for name, (digest, _) in manifest.items()},
            "total_bytes": sum(size for _, size in manifest.values()),
        }
        if inputs.version is not None:
            properties["version"] = inputs.version
        made.append(
            ExternalArtifact(
                Path(os.path.abspath(input_dir)) / split.pattern,
                digest=manifest_digest(manifest),
                properties=properties,  # type: ignore[arg-type]
            )
        )
    return tuple(made)


def fingerprint(artifacts: Sequence[ExternalArtifact]) -> str:
    """Return what TFX calls the input's fingerprint, made of contents, not of times."""
    return "\n".join(
        f"split:{each.properties['split']},"
        f"num_files:{len(each.properties['files'])},"  # type: ignore[arg-type]
        f"total_bytes:{each.properties['total_bytes']},"
        f"digest:{each.digest}"
        for each in artifacts
    )


def groups(inputs: Inputs, *, keep_splits: bool) -> list[Group]:
    """Return the files in groups to read together.

    Args:
        inputs: The files.
        keep_splits: Whether the input's splits stay, rather than rows being dealt out.
    """
    made = []
    for split in inputs.splits:
        packed: list[list[str]] = []
        size = GROUP_BYTES
        for path in split.files:
            if size >= GROUP_BYTES:
                packed.append([])
                size = 0
            packed[-1].append(os.path.abspath(path))  # workers have their own cwd
            size += path.stat().st_size
        made += [
            Group(
                tuple(paths), number, len(packed), split.name if keep_splits else None
            )
            for number, paths in enumerate(packed)
        ]
    return made


def files_of(artifact: ExternalArtifact, input_dir: Path | str) -> tuple[Path, ...]:
    """Return the files that an artifact of `external_inputs` stands for."""
    names: Mapping[str, str] = artifact.properties["files"]  # type: ignore[assignment]
    return tuple(Path(input_dir) / name for name in names)
