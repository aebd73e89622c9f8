"""Which models are trained again, as a file says it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from penstock.components.monitoring.retraining.config import read_config
from penstock.components.monitoring.retraining.journal import Limits
from penstock.schemas.errors import PipelineError


def test_a_file_says_what_is_run_for_which_model_and_how_often(tmp_path: Path) -> None:
    file = tmp_path / "models.json"
    file.write_text(
        json.dumps(
            {
                "model_label": "model",
                "models": {
                    "taxi": {
                        "target": "pipe.py:taxi",
                        "params": {"rows": 3, "serving_dir": "s", "fast": True},
                        "root": "here",
                        "store": "sqlite:////x.sqlite",
                        "runner": "local",
                        "cool_down": "90m",
                        "runs_per_day": 1,
                        "schedule": ["every 7d", "0 3 * * mon"],
                        "alerts": ["ModelDrift"],
                    },
                    "tips": {"target": "pipe.py:tips", "schedule": "every 1d"},
                },
            }
        )
    )
    config = read_config(file)
    assert config.model_label == "model"
    taxi, tips = config.models["taxi"], config.models["tips"]
    assert taxi.recipe.target == "pipe.py:taxi"
    assert taxi.recipe.params == {"rows": "3", "serving_dir": "s", "fast": "true"}
    assert taxi.recipe.root == str(Path("here").absolute())
    assert taxi.recipe.folder == os.getcwd()
    assert taxi.recipe.store_url == "sqlite:////x.sqlite"
    assert taxi.recipe.runner == "local"
    assert taxi.limits == Limits(5_400.0, 1)
    assert [each.text for each in taxi.schedules] == ["every 7d", "0 3 * * mon"]
    assert taxi.alerts == ("ModelDrift",)
    assert tips.limits == Limits(6 * 3_600.0, 2)
    assert [each.text for each in tips.schedules] == ["every 1d"]
    root = Path("penstock-root").absolute()
    assert tips.recipe.store_url == f"sqlite:///{root}/metadata.sqlite"
    with pytest.raises(PipelineError) as raised:
        config.model("taxis")
    assert str(raised.value) == (
        "There is no model 'taxis' to train again (there are 'taxi', 'tips'). Did you "
        "mean 'taxi'? Add it to the models that 'penstock retrain' is given."
    )


def said(**changed: Any) -> str:
    return json.dumps({"models": {"taxi": {"target": "pipe.py:taxi", **changed}}})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "{",
            "The models file 'models.json' is no JSON: Expecting property name "
            "enclosed in double quotes: line 1 column 2 (char 1). Mend it.",
        ),
        (
            "[]",
            "The models file 'models.json' is list data, and has to be a JSON object.",
        ),
        (
            '{"model": {}}',
            "The models file 'models.json' has 'model', which means nothing there "
            "(there are 'model_label', 'models'). Did you mean 'models'?",
        ),
        (
            '{"models": {}}',
            "The models file 'models.json' names no model, so that nothing could ever "
            "start. Add one under 'models'.",
        ),
        (
            '{"models": []}',
            "'models' in the models file 'models.json' is list data, and has to be a "
            "JSON object.",
        ),
        (
            '{"models": {"": {"target": "a:b"}}}',
            "Model '' in the models file 'models.json' has no name. Name it as its "
            "alerts do.",
        ),
        (
            '{"model_label": 5, "models": {}}',
            "'model_label' in the models file 'models.json' is 5, and has to be the "
            "name of a label.",
        ),
        (
            '{"models": {"taxi": {}}}',
            "Model 'taxi' in the models file 'models.json' has the target '', which "
            "names no pipeline. Write MODULE:PIPELINE, as in "
            "penstock.pipelines.taxi:taxi.",
        ),
        (
            said(cooldown="6h"),
            "Model 'taxi' in the models file 'models.json' has 'cooldown', which means "
            "nothing there (there are 'alerts', 'cool_down', 'params', 'root', "
            "'runner', 'runs_per_day', 'schedule', 'store', 'target'). Did you mean "
            "'cool_down'?",
        ),
        (
            said(cool_down="soon"),
            "'cool_down' of model 'taxi' in the models file 'models.json' is 'soon', "
            "which is no length of time. Write '90s', '30m', '6h' or '7d'.",
        ),
        (
            said(runs_per_day=0),
            "Model 'taxi' in the models file 'models.json' has 0 for 'runs_per_day', "
            "and has to have a whole number from 1. Leave the model out to start none.",
        ),
        (
            said(runner="flink"),
            "Model 'taxi' in the models file 'models.json' has the runner 'flink', "
            "which is none (there are 'beam', 'local').",
        ),
        (
            said(root=5),
            "Model 'taxi' in the models file 'models.json' has 5 for 'root', and has "
            "to have a text.",
        ),
        (
            said(alerts=[5]),
            "Model 'taxi' in the models file 'models.json' has [5] for 'alerts', and "
            "has to have a text or a list of texts.",
        ),
        (
            said(params={"rows": []}),
            "Parameter 'rows' of model 'taxi' in the models file 'models.json' is [], "
            "and has to be a text, a number, true or false.",
        ),
        (
            said(schedule="daily"),
            "Schedule 'daily' has 1 fields where cron has 5 (minute, hour, day of the "
            "month, month, weekday). Write '0 3 * * *' for every day at 3, or an "
            "interval, as 'every 6h'.",
        ),
    ],
)
def test_a_file_that_says_something_else_gets_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models.json").write_text(text)
    with pytest.raises(PipelineError) as raised:
        read_config("models.json")
    assert str(raised.value) == sentence


def test_a_file_that_is_not_there_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as raised:
        read_config(tmp_path / "no.json")
    assert str(raised.value) == (
        f"The models file '{tmp_path}/no.json' cannot be read: No such file or "
        "directory. Check the path."
    )
