"""The pictures of the docs, made anew: python -m tests.pictures

They are of invented numbers and always the same, but for the fonts of the machine.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from penstock.components.evaluation.report import render
from penstock.components.monitoring import report as monitoring_report_page
from tests.browser import Page, browser
from tests.components.evaluation.reports import taxi_report
from tests.components.monitoring.documents import alert_document

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"

MONITORING_REPORTS: dict[str, Any] = {
    "monitoring-report.png": {"width": 1280, "height": 3260, "scheme": "light"},
    "monitoring-report-phone.png": {"width": 360, "height": 1900, "scheme": "dark"},
}
"""How the page of a watched model is looked at, by the file of the picture."""

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


def monitoring_report(folder: Path, *, width: int, height: int, scheme: str) -> bytes:
    """Return a picture of the page of a watched model, from its top."""
    file = folder / "report.html"
    file.write_text(monitoring_report_page.render(alert_document()), encoding="utf-8")
    with browser() as running:
        page = Page(running)
        page.look(width=width, height=height, scheme=scheme)
        page.open(file)
        return page.picture()


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = {
            "evaluation-report.png": evaluation_report(folder),
            **{
                file: monitoring_report(folder, **look)
                for file, look in MONITORING_REPORTS.items()
            },
        }
    for file, picture in pictures.items():
        # A page has few colors: a palette makes the file a third as large.
        image = Image.open(io.BytesIO(picture)).quantize(128, dither=Image.Dither.NONE)
        image.save(IMAGES / file, optimize=True)


if __name__ == "__main__":
    main()
