"""The notebooks run from top to bottom, and are kept without outputs."""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat
import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))


def test_there_is_a_first_pipeline() -> None:
    assert [path.name for path in NOTEBOOKS] == ["01_first_pipeline.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_outputs_are_stripped(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_and_shows_nothing_from_the_network(
    path: Path, tmp_path: Path
) -> None:
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=1_200,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute(env={**os.environ, "PYTHONPATH": str(CHECKOUT)})
    shown = [
        str(output.get("data", {})) + str(output.get("text", ""))
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        # Libraries warn on stderr of their own future; that is not shown as a result.
        if output.get("name") != "stderr"
    ]
    assert not re.findall(r"(?:src|href)\s*=\s*.?.?https?://", "".join(shown))
    everything = "\n".join(shown)
    assert "payment_type" in everything  # statistics
    assert "Mobile" in everything  # anomalies
    assert "trip_start_day = " in everything  # slices
    assert "reached version 1" in everything  # lineage
