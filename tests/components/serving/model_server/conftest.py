"""One template of a tiny SavedModel per session, from which versions are copied."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.components.serving.model_server import models


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.save_template(tmp_path_factory.mktemp("template") / "model")
