"""Digests depend on contents and relative names, and on nothing else."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.schemas.digests import (
    file_digest,
    folder_digest,
    folder_manifest,
    manifest_digest,
)

NAMES = st.text("abcdef.é ", min_size=1, max_size=6).filter(
    lambda name: name.strip(". ") != ""
)
TREES = st.dictionaries(
    st.tuples(st.sampled_from(["", "Split-a", "Split-a/deep", "Split-b"]), NAMES),
    st.binary(max_size=300),
    max_size=8,
)


def written(tree: dict[tuple[str, str], bytes], *, backwards: bool = False) -> str:
    """Write a tree into a new folder and return its digest."""
    with tempfile.TemporaryDirectory() as folder:
        items = sorted(tree.items(), reverse=backwards)
        for (below, name), content in items:
            parent = Path(folder, below)
            parent.mkdir(parents=True, exist_ok=True)
            # A suffix keeps file names apart from the folders' names.
            (parent / f"{name}_").write_bytes(content)
        return folder_digest(Path(folder))


@settings(max_examples=50)
@given(TREES)
def test_digest_does_not_depend_on_the_order_of_writing(
    tree: dict[tuple[str, str], bytes],
) -> None:
    assert written(tree) == written(tree, backwards=True)


@settings(max_examples=50)
@given(TREES, TREES)
def test_digests_are_equal_exactly_if_the_contents_are(
    one: dict[tuple[str, str], bytes], other: dict[tuple[str, str], bytes]
) -> None:
    assert (written(one) == written(other)) == (one == other)


@settings(max_examples=50)
@given(TREES.filter(bool), st.data())
def test_one_flipped_bit_changes_the_digest(
    tree: dict[tuple[str, str], bytes], data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from(sorted(tree)))
    content = bytearray(tree[key] or b"\0")
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    assert written(tree) != written({**tree, key: bytes(content)})


def test_digest_is_that_of_a_sorted_manifest(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two").write_bytes(b"22")
    (tmp_path / "a").write_bytes(b"1")
    one, two = (hashlib.sha256(text).hexdigest() for text in (b"1", b"22"))
    lines = f"{one} 1 a\n{two} 2 b/two\n"
    expected = "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
    assert folder_manifest(tmp_path) == {"a": (one, 1), "b/two": (two, 2)}
    assert folder_digest(tmp_path) == expected
    reordered = dict(reversed(folder_manifest(tmp_path).items()))
    assert manifest_digest(reordered) == expected


def test_times_and_empty_folders_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    before = folder_digest(tmp_path)
    os.utime(tmp_path / "a", (1, 1))
    (tmp_path / "empty").mkdir()
    assert folder_digest(tmp_path) == before


def test_links_count_as_what_they_point_at(tmp_path: Path) -> None:
    plain, linked = tmp_path / "plain", tmp_path / "linked"
    plain.mkdir()
    linked.mkdir()
    (plain / "a").write_bytes(b"1")
    (linked / "a").symlink_to(plain / "a")
    assert folder_digest(linked) == folder_digest(plain)


def test_a_file_larger_than_one_block_is_read_whole(tmp_path: Path) -> None:
    content = os.urandom(3 << 20) + b"tail"
    (tmp_path / "large").write_bytes(content)
    assert file_digest(tmp_path / "large") == hashlib.sha256(content).hexdigest()
