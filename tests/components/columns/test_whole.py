"""Files that are there whole or not at all, however many try to write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.components.columns.whole import name_to_try, write_whole


def test_every_try_has_a_name_of_its_own(tmp_path: Path) -> None:
    names = {name_to_try(tmp_path / "report") for _ in range(100)}
    assert len(names) == 100
    assert {each.parent for each in names} == {tmp_path}
    assert all(each.name.startswith("report.") for each in names)


def test_a_file_is_replaced_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "report"
    write_whole(file, b"first")
    write = Path.write_bytes

    def cut_off(path: Path, content: bytes) -> int:
        write(path, content[:3])
        raise OSError("The disk is full.")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk is full"):
        patch.setattr(Path, "write_bytes", cut_off)
        write_whole(file, b"second")
    assert file.read_bytes() == b"first"
    write_whole(file, b"third")
    assert file.read_bytes() == b"third"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_whole(tmp_path / "lost" / "report", b"")
    assert caught.value.filename == str(tmp_path / "lost")
    assert not (tmp_path / "lost").exists()
