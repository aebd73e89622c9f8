"""Files of grids and profiles: whole, checked when read, equal to what was written.

A folder holds each grid once, named by its id, and a file per window beside it, of at
most 8 kB per column. What is hashed is the content before compression, because zlib's
bytes differ between its builds.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.components.columns.whole import write_whole
from penstock.components.monitoring import names
from penstock.components.monitoring.distinct import REGISTERS, Distinct
from penstock.components.monitoring.grid import FORMAT, ColumnGrid, Grid
from penstock.components.monitoring.profile import ColumnProfile, Profile
from penstock.components.monitoring.windows import Window
from penstock.schemas.errors import DataError

PROFILE_FORMAT = 1
"""Version of a profile's canonical form and file."""

SUFFIX = ".profile"
"""What the names of profile files end with."""

_INTEGERS = (
    "rows",
    "missing",
    "values",
    "nan",
    "pos_inf",
    "neg_inf",
    "zeros",
    "mistyped",
    "unseen_other",
    "unseen_error",
)
_FLOATS = ("sum", "sum_squares", "minimum", "maximum")
_SCALARS = struct.Struct(f"<{len(_INTEGERS)}q{len(_FLOATS)}d")
_LENGTH = struct.Struct("<I")


def grid_path(folder: Path, grid_id: str) -> Path:
    """Return where the grid of an id is in a folder."""
    return folder / f"{grid_id.partition(':')[2][:16]}.grid"


def profile_path(folder: Path, window: Window) -> Path:
    """Return where the profile of a window is in a folder."""
    named = window.name.replace("-", "").replace(":", "") if "/" in window.name else ""
    return folder / f"{named.replace('/', '-') or window.name}{SUFFIX}"


def write_grid(grid: Grid, folder: Path) -> Path:
    """Write a grid below a folder, unless it is there already.

    Args:
        grid: What to write.
        folder: Made if it is not there.

    Returns:
        Its file.
    """
    path = grid_path(folder, grid.id)
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    about = [
        {
            "name": each.name,
            "kind": each.kind,
            "role": each.role,
            "type": each.type,
            "categories": each.categories,
            "is_open": each.is_open,
            "center": each.center,
            "edges": len(each.edges),
            "others": len(each.others),
        }
        for each in grid
    ]
    arrays = b"".join(
        each.edges.astype("<f8").tobytes() + each.others.astype("<u8").tobytes()
        for each in grid
    )
    content = _with_header({"id": grid.id, "columns": about}) + arrays
    write_whole(path, _sealed("grid", FORMAT, content))
    return path


def read_grid(path: Path) -> Grid:
    """Read a grid.

    Raises:
        DataError: If the file is not there, is no grid, or is damaged.
    """
    header, rest = _header(_opened(path, "grid", FORMAT))
    columns = []
    place = 0
    for about in header["columns"]:
        edges, others = about.pop("edges"), about.pop("others")
        middle, end = place + 8 * edges, place + 8 * (edges + others)
        columns.append(
            ColumnGrid(
                **about,
                edges=np.frombuffer(rest[place:middle], "<f8"),
                others=np.frombuffer(rest[middle:end], "<u8"),
            )
        )
        place = end
    grid = Grid.of_columns(columns)
    if grid.id != header["id"]:
        raise _damaged(path, "Make the reference again, or take it from a copy")
    return grid


def write_profile(profile: Profile, folder: Path, name: str | None = None) -> Path:
    """Write a profile below a folder, and its grid, unless that is there.

    Args:
        profile: What to write; replaces the one of that name.
        folder: Made if it is not there.
        name: Of the file, without suffix; that of its window if None.

    Returns:
        Its file.
    """
    write_grid(profile.grid, folder)
    path = (
        profile_path(folder, profile.window)
        if name is None
        else folder / f"{name}{SUFFIX}"
    )
    write_whole(path, _sealed("profile", PROFILE_FORMAT, _content(profile)))
    return path


def _content(profile: Profile) -> bytes:
    """Return a header, the columns' blocks, and the same of each slice."""
    encoded = {name: encoded_column(each) for name, each in profile.columns.items()}
    blocks = [_compressed(block) for block in encoded.values()]
    slices = {name: _content(each) for name, each in profile.slices.items()}
    header = {
        **_about(profile),
        "lengths": [len(block) for block in blocks],
        "slices": {name: len(each) for name, each in slices.items()},
        "digest": _digest(profile, encoded),
    }
    return b"".join([_with_header(header), *blocks, *slices.values()])


def read_profile(path: Path, grid: Grid | None = None) -> Profile:
    """Read a profile.

    Args:
        path: The file.
        grid: The grid that it has to be counted on; the one beside it if None.

    Raises:
        DataError: If the file is not there, is no profile, is damaged, or was counted
            on another grid.
    """
    return read_with_digest(path, grid)[0]


def read_with_digest(path: Path, grid: Grid | None = None) -> tuple[Profile, str]:
    """Read a profile as `read_profile`, and its `profile_digest` as it was written."""
    header, rest = _header(_opened(path, "profile", PROFILE_FORMAT))
    if grid is None:
        grid = read_grid(grid_path(path.parent, header["grid"]))
    if grid.id != header["grid"]:
        raise DataError(
            f"'{path}' was counted on grid {header['grid']}, and the reference's is "
            f"{grid.id}. Profile its window again on this reference, or compare it "
            "with its own."
        )
    return _profile(header, rest, grid), header["digest"]


def _profile(header: Mapping[str, Any], rest: memoryview, grid: Grid) -> Profile:
    columns = {}
    place = 0
    for name, length in zip(header["columns"], header["lengths"], strict=True):
        block = zlib.decompress(rest[place : place + length], wbits=-15)
        columns[name] = decoded_column(grid[name], block)
        place += length
    slices = {}
    for name, length in header.get("slices", {}).items():
        slices[name] = _profile(*_header(rest[place : place + length]), grid)
        place += length
    return Profile(
        Window(*header["window"]),
        header["model"],
        header["versions"],
        header["rows"],
        grid,
        columns,
        header["rate"],
        slices,
    )


def read_profiles(folder: Path, grid: Grid | None = None) -> tuple[Profile, ...]:
    """Read all the profiles of a folder, in the order of their windows.

    Args:
        folder: Where they are.
        grid: As `read_profile` takes it; each grid beside them is read once if None.
    """
    grids: dict[str, Grid] = {} if grid is None else {grid.id: grid}
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        used = grid
        if used is None:
            wanted = _header(_opened(path, "profile", PROFILE_FORMAT))[0]["grid"]
            if wanted not in grids:
                grids[wanted] = read_grid(grid_path(folder, wanted))
            used = grids[wanted]
        found.append(read_profile(path, used))
    return tuple(sorted(found, key=lambda each: each.window))


def stored_lengths(path: Path) -> dict[str, int]:
    """Return how many bytes each column of a profile takes as stored.

    Raises:
        DataError: As `read_profile`.
    """
    header, _ = _header(_opened(path, "profile", PROFILE_FORMAT))
    return dict(zip(header["columns"], header["lengths"], strict=True))


def profile_digest(profile: Profile) -> str:
    """Return 'sha256:...' of a profile's canonical content."""
    return _digest(
        profile, {name: encoded_column(each) for name, each in profile.columns.items()}
    )


def _digest(profile: Profile, encoded: Mapping[str, bytes]) -> str:
    made = hashlib.sha256(b"penstock profile %d\n" % PROFILE_FORMAT)
    made.update(_json({**_about(profile), "columns": sorted(encoded)}))
    for name in sorted(encoded):
        made.update(_LENGTH.pack(len(encoded[name])))
        made.update(encoded[name])
    for name, each in profile.slices.items():
        made.update(_json([name, profile_digest(each)]))
    return f"sha256:{made.hexdigest()}"


def encoded_column(profile: ColumnProfile) -> bytes:
    """Return the canonical bytes of a column's counts, without its grid."""
    scalars = _SCALARS.pack(
        *(getattr(profile, each) for each in _INTEGERS),
        *(_plain(getattr(profile, each)) for each in _FLOATS),
    )
    ordered = sorted(profile.unseen)
    texts = [name.encode("utf-8", "surrogatepass") for name in ordered]
    shared = [
        names.shared(before, text)
        for before, text in zip([b"", *texts], texts, strict=False)
    ]
    ends = [text[same:] for same, text in zip(shared, texts, strict=True)]
    kind = profile.type.encode()
    return b"".join(
        [
            scalars,
            _LENGTH.pack(len(kind)),
            kind,
            profile.distinct.registers.tobytes(),
            _integers(profile.counts),
            _LENGTH.pack(len(texts)),
            _integers(np.array([profile.unseen[name] for name in ordered], np.int64)),
            _integers(np.array(shared, np.int64)),
            _integers(np.array([len(end) for end in ends], np.int64)),
            *ends,
        ]
    )


def decoded_column(grid: ColumnGrid, block: bytes) -> ColumnProfile:
    """Return the profile of a column from its canonical bytes."""
    reader = _Reader(block)
    scalars = _SCALARS.unpack(reader.take(_SCALARS.size))
    known: dict[str, Any] = dict(zip([*_INTEGERS, *_FLOATS], scalars, strict=True))
    kind = reader.take(reader.length()).decode()
    registers = np.frombuffer(reader.take(REGISTERS), np.uint8)
    counts = reader.integers(grid.places)
    return ColumnProfile(
        grid=grid,
        **known,
        counts=counts,
        unseen=reader.unseen(),
        distinct=Distinct(registers),
        type=kind,
    )


class _Reader:
    """Takes a column's canonical bytes apart, from the first to the last."""

    def __init__(self, block: bytes) -> None:
        self.block = block
        self.place = 0

    def take(self, length: int) -> bytes:
        self.place += length
        return self.block[self.place - length : self.place]

    def length(self) -> int:
        return int(_LENGTH.unpack(self.take(_LENGTH.size))[0])

    def integers(self, many: int) -> npt.NDArray[np.int64]:
        width = self.take(1)[0]
        planes = np.frombuffer(self.take(width * many), np.uint8)
        if width == 1:
            return planes.astype(np.int64)
        together = np.ascontiguousarray(planes.reshape(width, many).T)
        return together.view(f"<i{width}" if width == 8 else f"<u{width}")[:, 0].astype(
            np.int64
        )

    def unseen(self) -> dict[str, int]:
        many = self.length()
        counts = self.integers(many).tolist()
        shared = self.integers(many).tolist()
        lengths = self.integers(many).tolist()
        found = []
        text = b""
        for count, same, length in zip(counts, shared, lengths, strict=True):
            text = text[:same] + self.take(length)
            found.append((text.decode("utf-8", "surrogatepass"), count))
        return dict(sorted(found, key=lambda each: (-each[1], each[0])))


def _integers(values: npt.NDArray[np.int64]) -> bytes:
    """Return the width in bytes of the largest, and their first, second ... bytes.

    Bytes of one significance are alike, so that they take less when compressed.
    """
    largest = int(values.max(initial=0))
    width = next(each for each in (1, 2, 4, 8) if largest < 1 << (8 * each))
    planes = values.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width]
    return bytes([width]) + np.ascontiguousarray(planes.T).tobytes()


def _plain(value: float) -> float:
    """Return a number with one form: NaNs of other bits would make another hash."""
    return math.nan if math.isnan(value) else value


def _about(profile: Profile) -> dict[str, Any]:
    return {
        "window": [float(profile.window.start), float(profile.window.end)],
        "model": profile.model,
        "versions": dict(profile.versions),
        "rows": profile.rows,
        "rate": profile.rate,
        "grid": profile.grid.id,
        "columns": list(profile.columns),
    }


def _compressed(block: bytes) -> bytes:
    """Return raw deflate bytes: without looking for repeats where noise has none."""
    return min(_deflated(block), _deflated(block, zlib.Z_HUFFMAN_ONLY), key=len)


def _deflated(block: bytes, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    made = zlib.compressobj(9, zlib.DEFLATED, -15, 9, strategy)
    return made.compress(block) + made.flush()


def _json(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _with_header(header: dict[str, Any]) -> bytes:
    packed = zlib.compress(_json(header), 9)
    return _LENGTH.pack(len(packed)) + packed


def _header(content: memoryview) -> tuple[dict[str, Any], memoryview]:
    (length,) = _LENGTH.unpack_from(content)
    end = _LENGTH.size + length
    header: dict[str, Any] = json.loads(zlib.decompress(content[_LENGTH.size : end]))
    return header, content[end:]


def _sealed(kind: str, version: int, content: bytes) -> bytes:
    """Return a file's bytes: what it is, the hash of its content, its content."""
    first = f"penstock {kind} {version}\n".encode()
    return first + hashlib.sha256(content).digest() + content


def _opened(path: Path, kind: str, version: int) -> memoryview:
    """Return the content of a file that `_sealed` made.

    Raises:
        DataError: If it is not there, is something else, or is damaged.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(
            f"There is no {kind} '{path}'. Profile the window, or make the reference, "
            "that it is to hold."
        ) from None
    first, newline, rest = content.partition(b"\n")
    words = first.split(b" ")
    if not newline or words[:2] != [b"penstock", kind.encode()] or len(words) != 3:
        raise DataError(
            f"'{path}' is no {kind} that penstock wrote: it begins with "
            f"{first[:24]!r}. Name the file that was written."
        )
    if words[2] != str(version).encode():
        raise DataError(
            f"'{path}' is a {kind} of format {words[2].decode(errors='replace')}, and "
            f"this penstock reads format {version}. Read it with the penstock that "
            "wrote it, or profile again."
        )
    digest, body = rest[:32], memoryview(rest)[32:]
    if hashlib.sha256(body).digest() != digest:
        raise _damaged(path, "Profile its window again, or take it from a copy")
    return body


def _damaged(path: Path, cure: str) -> DataError:
    return DataError(
        f"'{path}' is damaged: its content is not what was written. {cure}."
    )
