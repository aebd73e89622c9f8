"""The report of a day in headless Chromium: how large it is, and how soon it is seen.

A page of 300 features is opened from its file in new tabs, in turn at the width of a
desk and of a phone. `first_paint_ms` is what Chromium itself says (first contentful
paint, from the beginning of the navigation); the first tab is the worst, because the
browser is still starting.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from penstock.components.monitoring.report import render
from tests.browser import Page, browser
from tests.components.monitoring.documents import large_document

WIDTHS = (1280, 390)
_MOST_SECONDS = 10.0
_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"


def main(argv: list[str]) -> dict[str, Any]:
    """Open the page in tab after tab, and return what it took."""
    parser = argparse.ArgumentParser(prog="report", description=__doc__)
    parser.add_argument("--features", type=int, default=300)
    parser.add_argument("--tabs", type=int, default=20)
    options = parser.parse_args(argv)
    begun = time.perf_counter()
    page = render(large_document(options.features))
    rendering = time.perf_counter() - begun
    paints, requests, complaints = [], 0, 0
    with tempfile.TemporaryDirectory() as folder, browser() as running:
        file = Path(folder) / "report.html"
        file.write_text(page, encoding="utf-8")
        for number in range(options.tabs):
            tab = Page(running)
            tab.look(width=WIDTHS[number % len(WIDTHS)])
            tab.open(file)
            paints.append(_painted(tab))
            requests += len([each for each in tab.requests if each != file.as_uri()])
            complaints += len(tab.complaints)
    return {
        "features": options.features,
        "bytes": len(page.encode()),
        "render_s": round(rendering, 3),
        "first_paint_ms": round(statistics.median(paints)),
        "worst_first_paint_ms": round(max(paints)),
        "tabs": len(paints),
        "requests": requests,
        "complaints": complaints,
    }


def _painted(tab: Page) -> float:
    """Return milliseconds until the first paint; it is told a little after loading."""
    end = time.monotonic() + _MOST_SECONDS
    while time.monotonic() < end:
        found = tab.ask(_PAINT)
        if found is not None:
            return float(found)
        time.sleep(0.02)
    raise AssertionError(f"Nothing was painted within {_MOST_SECONDS:g} seconds.")
