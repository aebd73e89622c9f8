"""The pictures of the docs, made anew: python -m tests.pictures

They are of invented numbers and always the same, but for the fonts of the machine.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image

from penstock.components.evaluation.report import render
from tests.browser import Page, browser
from tests.components.evaluation.reports import taxi_report

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"

SHOW_ONE_METRIC = """
const each = document.querySelector("#tools select");
each.value = "0";
each.dispatchEvent(new Event("input"));
"""


def evaluation_report(folder: Path) -> bytes:
    """Return a picture of the page of an evaluation, with the slices of one metric."""
    file = folder / "report.html"
    file.write_text(render(taxi_report()), encoding="utf-8")
    with browser() as running:
        page = Page(running)
        page.look(width=1280)
        page.open(file)
        page.ask(SHOW_ONE_METRIC)
        page.look(width=1280, height=page.ask("document.documentElement.scrollHeight"))
        return page.picture()


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        picture = evaluation_report(Path(folder))
    # A page has few colors: a palette makes the file a third as large.
    image = Image.open(io.BytesIO(picture)).quantize(128, dither=Image.Dither.NONE)
    image.save(IMAGES / "evaluation-report.png", optimize=True)


if __name__ == "__main__":
    main()
