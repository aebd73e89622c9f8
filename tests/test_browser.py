"""The browser of the tests: what it would see, and what it says where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser import Page, browser, chromium


@pytest.mark.browser
def test_requests_and_complaints_are_seen(tmp_path: Path) -> None:
    file = tmp_path / "bad.html"
    file.write_text(
        "<!doctype html><img src=https://example.org/a.png>"
        "<script>console.error('oh'); nothing();</script>"
    )
    with browser() as running:
        page = Page(running)
        page.open(file)
        assert page.ask("1 + 1") == 2
        assert "https://example.org/a.png" in page.requests
        assert any("oh" in each for each in page.complaints)
        assert any("nothing is not defined" in each for each in page.complaints)
        assert any("ERR_INTERNET_DISCONNECTED" in each for each in page.complaints)


def test_a_missing_chromium_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AssertionError) as caught:
        chromium()
    assert str(caught.value) == (
        "No Chromium is on PATH, so pages cannot be looked at. Install one, on Debian "
        "and Ubuntu with 'apt-get install chromium', or leave these tests out with "
        "-m 'not browser'."
    )
