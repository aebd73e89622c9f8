"""A lineage as a file: for Graphviz, for OpenLineage's readers, or as a page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from penstock.pipelines.exports import dot, openlineage, page
from penstock.pipelines.lineage import Lineage
from penstock.schemas.errors import DataError, PipelineError, did_you_mean, quoted

FORMS: dict[str, Callable[[Lineage], str]] = {
    ".dot": dot.text_of,
    ".html": page.text_of,
    ".json": openlineage.text_of,
}
"""What makes the text of a file, by how the file's name ends."""


def write(found: Lineage, path: Path) -> None:
    """Write a lineage to a file, in the form that its name asks for.

    Args:
        found: The lineage.
        path: The file, as `lineage.html`; what is there is replaced.

    Raises:
        PipelineError: If its name ends in nothing known.
        MetadataError: If the lineage is too large for a page.
        DataError: If it cannot be written.
    """
    if path.suffix not in FORMS:
        raise PipelineError(
            f"'{path}' does not say in which form the lineage is to be written: it "
            f"ends in '{path.suffix}', and not in one of {quoted(FORMS)}. Name a file "
            f"that does.{did_you_mean(path.suffix, FORMS)}"
        )
    text = FORMS[path.suffix](found)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"The lineage cannot be written to '{path}': {error.strerror}. Name a file "
            "in a folder that you may write to."
        ) from error
