"""The pictures of the docs can be made again, and are small."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.pictures import (
    IMAGES,
    MONITORING_REPORTS,
    evaluation_report,
    monitoring_report,
)


@pytest.mark.browser
def test_the_picture_of_an_evaluation_can_be_made_again(tmp_path: Path) -> None:
    picture = evaluation_report(tmp_path)
    width, height = struct.unpack(">II", picture[16:24])
    assert width == 1280
    assert 2_000 < height < 4_000


@pytest.mark.browser
@pytest.mark.parametrize("name", MONITORING_REPORTS)
def test_the_pictures_of_a_watched_model_can_be_made_again(
    tmp_path: Path, name: str
) -> None:
    look = MONITORING_REPORTS[name]
    picture = monitoring_report(tmp_path, **look)
    size = struct.unpack(">II", picture[16:24])
    assert size == (look["width"], look["height"])


def test_pictures_of_the_docs_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in IMAGES.iterdir()}
    assert {"evaluation-report.png", *MONITORING_REPORTS} <= sizes.keys()
    assert {name: size for name, size in sizes.items() if size >= 200_000} == {}
