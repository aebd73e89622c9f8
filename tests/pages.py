"""What tests of pages share: hostile texts, what a page holds, contrasts of colors."""

from __future__ import annotations

from html.parser import HTMLParser

HOSTILE = [
    "<script>alert(1)</script>",
    "</style></script><img src=https://example.org/x onerror=alert(2)>",
    "\" onmouseover=alert(3) x='",
    "&lt;b&gt; & {{ 7 * 7 }} {% if %}",
    "<!-- ]]> -->",
    "javascript:alert(4)",
    "abc \u202eevil\u202c \u2067x",
    "שלום עולם",
    "مرحبا بالعالم",
    "nul \x00 and \x1b[31m and\nlines\r\n\u2028",
    "half \ud800 a letter",
    "👩\u200d🚕 taxi 🚕",
    "x" * 10_000,
]
"""Texts that must stay texts wherever a page shows data."""


class Seen(HTMLParser):
    """The elements of a page, and the text that is not its style or script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] not in ("style", "script"):
            self.text += data


CONTRASTS = """(() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (text) => {
    const [r, g, b] = channels(text).slice(0, 3).map((c) => c / 255)
      .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const backing = (each) => {
    for (; each; each = each.parentElement) {
      const color = getComputedStyle(each).backgroundColor;
      if ((channels(color)[3] ?? 1) > 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const found = {};
  for (const each of document.querySelectorAll("body *")) {
    const text = [...each.childNodes].some((node) => node.nodeType === 3
      && node.data.trim());
    if (!text || !each.getClientRects().length) continue;
    const style = getComputedStyle(each);
    const color = each instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(color), light(backing(each))].sort((x, y) => y - x);
    found[`${color} on ${backing(each)}`] = (a + 0.05) / (b + 0.05);
  }
  return found;
})()"""
"""An expression whose value is the contrast, as WCAG 2 has it, by pair of colors."""
