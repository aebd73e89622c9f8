"""Any sequence of pushes, kills, deletions and strange folders keeps the promises."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from penstock.components.serving import staging, version_dir
from penstock.components.serving.version_dir import (
    VersionState,
    parse_version,
    push,
    verify,
    versions,
)
from penstock.schemas.digests import folder_digest

# Kills lose no page cache, so memory shows as much as a disk, and shows it sooner.
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

_SEAMS = ("copy_folder", "compare_copy", "_checked", "publish", "rename_new")


class _Killed(BaseException):
    """The process ends here: no clean-up runs, and the kernel frees its locks."""


class ServingDirectory(RuleBasedStateMachine):
    """A serving directory and what was ever seen in it."""

    @initialize()
    def start(self) -> None:
        self.root = Path(tempfile.mkdtemp(dir=_MEMORY))
        self.serving = self.root / "serving"
        self.serving.mkdir()
        self.model = self.root / "model"
        self.model.mkdir()
        self.greatest = 0
        self.ours: dict[int, str] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @rule(content=st.binary(min_size=1, max_size=20))
    def push(self, content: bytes) -> None:
        (self.model / "saved_model.pb").write_bytes(content)
        version = push(self.serving, self.model, check=lambda _: {})
        assert version.number > self.greatest
        self.greatest = version.number
        assert version.digest is not None
        self.ours[version.number] = version.digest
        assert os.listdir(self.serving / ".penstock" / "staging") == []

    @rule(seam=st.sampled_from(_SEAMS), call=st.integers(0, 2), before=st.booleans())
    def killed_push(self, seam: str, call: int, before: bool) -> None:
        (self.model / "saved_model.pb").write_bytes(b"killed")
        original = getattr(version_dir, seam)
        calls = 0

        def dying(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls <= call:
                return original(*args)
            if not before:
                original(*args)
            raise _Killed

        with (
            mock.patch.object(version_dir, seam, dying),
            mock.patch.object(staging, "_discard"),
        ):
            try:
                number = push(self.serving, self.model, check=lambda _: {}).number
            except _Killed:
                number = 0
        for version in versions(self.serving):
            if version.number > self.greatest and version.digest is not None:
                number = version.number
        if number:
            # It got as far as appearing, so it must be whole.
            self.greatest = number
            self.ours[number] = folder_digest(self.model)

    @precondition(lambda self: self.ours)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.ours)))
        shutil.rmtree(self.serving / str(number))
        del self.ours[number]

    @rule(
        name=st.sampled_from(["007", " 9", "+3", "-1", "abc", "43.tmp", ".44"])
        | st.integers(0, 60).map(str),
        is_file=st.booleans(),
    )
    def another_tool(self, name: str, is_file: bool) -> None:
        number = parse_version(name)
        taken = number is not None and number <= self.greatest
        if (self.serving / name).exists() or (taken and name == str(number)):
            return  # A number of ours that is gone; nobody else may take it either.
        if is_file:
            (self.serving / name).touch()
        else:
            (self.serving / name).mkdir()
        self.greatest = max(self.greatest, number or 0)

    @invariant()
    def versions_are_whole_and_ours(self) -> None:
        found = {
            version.number: version
            for version in versions(self.serving)
            if version.state is not VersionState.FOREIGN
        }
        assert {n: version.digest for n, version in found.items()} == self.ours
        for number, version in found.items():
            assert version.state is VersionState.COMPLETE
            assert verify(self.serving, number) == ()


TestServingDirectory = ServingDirectory.TestCase
TestServingDirectory.settings = settings(max_examples=40, stateful_step_count=15)
