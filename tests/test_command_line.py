"""The command line: every verb for people and as JSON, its exit codes and sentences."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.import_time import HEAVY
from penstock.pipelines.metadata import Store
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.run import RunResult, run
from penstock.pipelines.runners import LocalRunner
from penstock.schemas.errors import ComponentFailed
from tests.conftest import Said
from tests.pipelines.toys import Bless, Fit, Make, Push, toy
from tests.terminals import after_live, on_terminal

TOYS = Path(__file__).parent / "pipelines" / "toys.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a complete, a stopped and a failed run."""
    folder = tmp_path_factory.mktemp("root")
    serving = folder / "serving"
    run(toy(serving_dir=serving), folder, runner=LocalRunner())
    run_anew(toy(good=False), folder)
    with pytest.raises(ComponentFailed):
        run_anew(toy(fail=True), folder)
    return folder


def run_anew(pipeline: Pipeline, folder: Path) -> RunResult:
    """Run a pipeline whatever was run before."""
    names = [each.name for each in pipeline.components]
    return run(pipeline, folder, runner=LocalRunner(), force=names)


# run -----------------------------------------------------------------------------


def test_run_prints_a_table_and_exits_with_0(
    tmp_path: Path, penstock: Callable[..., Said]
) -> None:
    said = penstock("run", f"{TOYS}:toy", "--runner=local", "--root", tmp_path)
    assert said.code == 0
    assert said.err == ""
    title, header, *rows, end = said.out.splitlines()
    assert re.fullmatch(r"run \d{8}-\d{6}\.\d{6} *", title)
    assert header.split() == ["component", "state", "rows", "seconds", "outputs"]
    assert [row.split()[:2] for row in rows] == [
        [name, "complete"] for name in ("Make", "Check", "Fit", "Bless", "Push")
    ]
    assert rows[0].split()[2] == "3"
    assert re.fullmatch(rf"complete in \d+\.\d s, in {tmp_path}", end)


def test_run_prints_json(tmp_path: Path, penstock: Callable[..., Said]) -> None:
    said = penstock(
        *("run", f"{TOYS}:toy", "--runner=local", "--root", tmp_path, "--json"),
        *("--param", "rows=5", "--param", "good=yes"),
    )
    assert (said.code, said.err) == (0, "")
    assert said.json["state"] == "complete"
    assert said.json["pipeline"] == "toy"
    made = said.json["components"][0]
    assert (made["component"], made["rows"], made["state"]) == ("Make", 5, "complete")
    assert made["outputs"]["examples"]["digest"].startswith("sha256:")


def test_a_verdict_that_says_no_exits_with_3_and_one_sentence(
    tmp_path: Path, penstock: Callable[..., Said]
) -> None:
    said = penstock(
        *("run", f"{TOYS}:toy", "--runner=local", "--root", tmp_path),
        *("--param", "good=false"),
    )
    assert said.code == 3
    assert said.err == (
        "'Fit' did not run: 'Check.anomalies' says no: Split 'train': payment_type is "
        "new.\n"
    )
    assert "stopped in" in said.out


def test_not_enough_data_exits_with_4(
    tmp_path: Path, penstock: Callable[..., Said]
) -> None:
    said = penstock("run", f"{TOYS}:unsure", "--runner=local", "--root", tmp_path)
    assert said.code == 4
    assert "'Check.anomalies' says not enough data" in said.err


@pytest.mark.parametrize(
    ("state", "code", "word"),
    [
        ("ok", 0, "ok"),
        ("watch", 0, "watch"),
        ("alert", 3, "alert"),
        ("insufficient_data", 4, "insufficient data"),
    ],
)
def test_what_a_monitor_says_is_told_though_it_gates_nothing(
    state: str, code: int, word: str, tmp_path: Path, penstock: Callable[..., Said]
) -> None:
    file = tmp_path / f"watching_{state}.py"
    file.write_text(
        "from penstock import Pipeline\n"
        "from penstock import Component, output\n"
        "from penstock.schemas.artifacts import DriftVerdict\n"
        "class Monitor(Component):\n"
        "    state: str\n"
        "    verdict: DriftVerdict = output()\n"
        "    def run(self, context):\n"
        "        self.verdict.decide(self.state)\n"
        "        self.verdict.set_reasons(['\\'fare\\' [0, 1] is as it is.'])\n"
        "        self.verdict.properties['window'] = '2026-11-30'\n"
        f"p = Pipeline('p', [Monitor(state='{state}')])\n"
    )
    asked = ("run", f"{file}:p", "--runner=local", "--root", tmp_path / "root")
    for _ in range(2):  # made, and from the cache
        said = penstock(*asked)
        assert (said.code, said.err) == (code, "")
        told = said.out.splitlines()[-3:]
        assert told[0] == f"Monitor: {word}, 2026-11-30"
        assert told[1] == "- 'fare' [0, 1] is as it is."
        assert told[2].startswith(f"in {tmp_path / 'root' / 'p' / 'Monitor'}")


def test_a_failure_exits_with_1_and_names_the_log(
    tmp_path: Path, penstock: Callable[..., Said]
) -> None:
    said = penstock(
        *("run", f"{TOYS}:toy", "--runner=local", "--root", tmp_path),
        *("--param", "fail=true"),
    )
    assert said.code == 1
    sentence, hint = said.err.splitlines()
    assert sentence.startswith("'Fail' failed in run (toys.py, line ")
    run_id = re.search(r"run (\S+)", said.out)
    assert run_id is not None
    assert hint == f"'penstock logs {run_id[1]} Fail' prints its log."
    log = penstock("logs", run_id[1], "Fail", "--root", tmp_path)
    assert log.code == 0
    assert "ValueError: the feature 'fare' is all zeros" in log.out


@pytest.mark.parametrize(
    ("target", "options", "sentence"),
    [
        (
            "toys",
            [],
            "'toys' does not name a pipeline. Write MODULE:PIPELINE, as in "
            "penstock.pipelines.taxi:taxi or my_pipeline.py:taxi.",
        ),
        ("gone.py:toy", [], "There is no file 'gone.py'. Check the path."),
        (
            "no_such_module:toy",
            [],
            "There is no module 'no_such_module' on Python's path. Check its name, or "
            "name a file, as in path/to/module.py:pipeline.",
        ),
        (
            "no_such.module:toy",
            [],
            "There is no module 'no_such.module' on Python's path. Check its name, or "
            "name a file, as in path/to/module.py:pipeline.",
        ),
        (
            f"{TOYS}:toy",
            ["--param", "row=3"],
            "'toy' has no parameter 'row' (it has 'fail', 'good', 'rows', "
            "'serving_dir'). Did you mean 'rows'?",
        ),
        (
            f"{TOYS}:toy",
            ["--param", "rows=many"],
            "Parameter 'rows' is 'many', which is no int. Pass one that is.",
        ),
        (
            f"{TOYS}:toy",
            ["--param", "good=maybe"],
            "Parameter 'good' is 'maybe', which is no bool. Pass one that is.",
        ),
        (
            f"{TOYS}:waiting",
            [],
            "'waiting' needs 'started'. Pass --param started=....",
        ),
    ],
)
def test_a_target_that_does_not_fit_gets_a_sentence(
    tmp_path: Path,
    penstock: Callable[..., Said],
    target: str,
    options: list[str],
    sentence: str,
) -> None:
    said = penstock("run", target, "--root", tmp_path, *options)
    assert said == (1, "", sentence + "\n")


def test_arguments_are_read_as_they_are_annotated(
    tmp_path: Path, penstock: Callable[..., Said]
) -> None:
    call = ("run", f"{TOYS}:checked", "--runner=local", "--root", tmp_path)
    said = penstock(*call, "--param", "verdict=yess")
    assert said == (
        1,
        "",
        "Parameter 'verdict' is 'yess', which is not one of 'no', 'yes'. Did you mean "
        "'yes'?\n",
    )
    said = penstock(*call, "--param", "verdict=no", "--param", "rows=none", "--json")
    assert said.json["components"][0]["rows"] == 3
    said = penstock(*call, "--param", "rows=7", "--json")
    assert said.json["components"][0]["rows"] == 7


def test_a_misspelt_pipeline_gets_a_near_miss(
    tmp_path: Path, penstock: Callable[..., Said]
) -> None:
    said = penstock("run", f"{TOYS}:toyy", "--root", tmp_path)
    assert said.code == 1
    assert said.err.startswith("Module 'toys' has no 'toyy' (it has ")
    assert said.err.endswith(" Did you mean 'toy'?\n")


MODULE = """
from penstock import Pipeline
from toys import Make
made = Pipeline("made", [Make()])
def broken(rows: int = 3):
    return {}["rows"]
def wrong():
    return 3
{more}
"""


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        (
            "made",
            ["--param", "a=b"],
            "'{file}:made' is a Pipeline, which takes no --param. Name a function that "
            "returns one.",
        ),
        (
            "wrong",
            [],
            "'{file}:wrong' is a int, no Pipeline. Name a Pipeline or a function that "
            "returns one.",
        ),
        (
            "broken",
            [],
            "'{file}:broken' makes no pipeline: KeyError: 'rows' ({file}, line 6). "
            "Mend it and run again.",
        ),
    ],
)
def test_a_module_of_the_users_gets_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    penstock: Callable[..., Said],
    name: str,
    options: list[str],
    sentence: str,
) -> None:
    monkeypatch.syspath_prepend(str(TOYS.parent))
    file = tmp_path / f"module_{name}.py"
    file.write_text(MODULE.replace("{more}", ""))
    said = penstock("run", f"{file}:{name}", "--root", tmp_path, *options)
    assert said == (1, "", sentence.replace("{file}", str(file)) + "\n")


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("x = 1\n1 / 0\n", "ZeroDivisionError: division by zero ({file}, line 2)"),
        ("import no_such_thing\n", "No module named 'no_such_thing' ({file}, line 1)"),
        ("x = 1\ndef (:\n", "SyntaxError: invalid syntax ({file}, line 2). "),
    ],
)
def test_a_module_that_cannot_be_imported_gets_a_sentence(
    tmp_path: Path, penstock: Callable[..., Said], code: str, sentence: str
) -> None:
    file = tmp_path / f"broken_{abs(hash(code))}.py"
    file.write_text(code)
    said = penstock("run", f"{file}:toy", "--root", tmp_path)
    assert said.code == 1
    assert said.err.startswith(f"Module '{file.stem}' cannot be imported: ")
    assert sentence.replace("{file}", str(file)) in said.err
    assert said.err.endswith("Mend it and run again.\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", f"{TOYS}:toy", "--runner=bean"], "'bean' is no runner"),
        (["run", f"{TOYS}:toy", "--param", "rows"], "'rows' has no '='"),
        (["run", f"{TOYS}:toy", "--param", "=3"], "'=3' names no parameter. Write"),
        (
            ["run", f"{TOYS}:toy", "--param", "rows=3", "--param", "rows=4"],
            "'rows' is given twice. Give it once.",
        ),
        (["runs", "--store-wait=-1"], "--store-wait"),
        (["run"], "Missing argument"),
        (["run", f"{TOYS}:toy", "--rot=x"], "No such option"),
        (["shw", "last"], "No such command"),
        (["runs", "--store-wait=soon"], "--store-wait"),
    ],
)
def test_wrong_usage_exits_with_2(
    penstock: Callable[..., Said], arguments: list[str], words: str
) -> None:
    said = penstock(*arguments)
    assert said.code == 2
    assert words in said.err


def test_a_root_that_cannot_be_written_gets_a_sentence(
    tmp_path: Path, penstock: Callable[..., Said]
) -> None:
    (tmp_path / "file").touch()
    said = penstock("run", f"{TOYS}:toy", "--root", tmp_path / "file" / "root")
    assert said.code == 1
    assert said.err.startswith(f"Root '{tmp_path}/file/root' cannot be written: ")
    assert said.out == ""


def test_anything_else_is_a_defect(
    tmp_path: Path, penstock: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.pipelines import rules

    def breaks(*_: Any) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr("penstock.pipelines.metadata.Store.runs", breaks)
    (tmp_path / "metadata.sqlite").touch()
    said = penstock("runs", "--root", tmp_path)
    assert said.code == 1
    assert "ZeroDivisionError: inside" in said.err
    assert said.err.endswith(
        "This is a defect of penstock, not of your pipeline. Report it with the lines "
        "above.\n"
    )
    assert rules.RULES


# Questions -----------------------------------------------------------------------


def test_runs_lists_the_runs(root: Path, penstock: Callable[..., Said]) -> None:
    said = penstock("runs", "--root", root)
    assert said.code == 0
    header, *rows = said.out.splitlines()
    assert header.split() == ["run", "pipeline", "state", "started", "took", "reason"]
    assert [row.split()[1:3] for row in rows] == [
        ["toy", "complete"],
        ["toy", "stopped"],
        ["toy", "failed"],
    ]
    assert "payment_type is new." in rows[1]
    listed = penstock("runs", "--root", root, "--json").json
    assert [each["state"] for each in listed] == ["complete", "stopped", "failed"]
    assert penstock("runs", "--root", root, "--pipeline=toy", "--json").json == listed


def test_an_unknown_pipeline_gets_a_near_miss(
    root: Path, penstock: Callable[..., Said]
) -> None:
    for verb in ("runs", "artifacts"):
        said = penstock(verb, "--root", root, "--pipeline=tou")
        assert said == (
            1,
            "",
            "Pipeline 'tou' is not in the lineage store (it has 'toy'). Did you mean "
            "'toy'?\n",
        )


def test_show_tells_how_components_ended(
    root: Path, penstock: Callable[..., Said]
) -> None:
    stopped = penstock("runs", "--root", root, "--json").json[1]["run"]
    said = penstock("show", stopped, "--root", root)
    assert said.code == 0
    assert f"run {stopped} of pipeline toy, stopped, started" in said.out
    fit = next(line for line in said.out.splitlines() if line.startswith("Fit"))
    assert "skipped" in fit and "'Check.anomalies' says no" in fit
    told = penstock("show", stopped, "--root", root, "--json").json
    states = {each["component"]: each["state"] for each in told["components"]}
    assert states == {
        "Make": "complete",
        "Check": "complete",
        **dict.fromkeys(("Fit", "Bless", "Push"), "skipped"),
    }


def test_a_run_is_named_by_its_beginning_or_last(
    root: Path, penstock: Callable[..., Said]
) -> None:
    ids = [each["run"] for each in penstock("runs", "--root", root, "--json").json]
    last = penstock("show", "last", "--root", root, "--json").json
    assert last["run"] == ids[-1]
    whole = penstock("show", ids[0][:-1], "--root", root, "--json").json
    assert whole["run"] == ids[0]
    said = penstock("show", ids[0][:4], "--root", root)
    assert said.code == 1
    assert said.err.startswith(f"Run '{ids[0][:4]}' could be any of '{ids[0]}', ")
    assert said.err.endswith(". Write more of its id.\n")
    said = penstock("show", "lost", "--root", root)
    assert said.err == (
        "Run 'lost' is not in the lineage store. 'penstock runs' lists what is; 'last' "
        "is the newest.\n"
    )


def test_there_is_no_last_run_yet(
    tmp_path: Path, penstock: Callable[..., Said]
) -> None:
    Store(f"sqlite:///{tmp_path / 'metadata.sqlite'}")
    for words, of in (
        (("show", "last"), ""),
        (("plan", f"{TOYS}:toy", "--resume", "last"), " of pipeline 'toy'"),
    ):
        said = penstock(*words, "--root", tmp_path)
        assert (said.code, said.out) == (1, "")
        assert said.err == (
            f"No run{of} is in the lineage store, so there is no last one. Run a "
            "pipeline first.\n"
        )


def test_the_last_run_to_resume_is_one_of_the_same_pipeline(
    tmp_path: Path, penstock: Callable[..., Said]
) -> None:
    run(toy(), tmp_path, runner=LocalRunner())
    run(Pipeline("other", [Make()]), tmp_path, runner=LocalRunner())
    said = penstock("plan", f"{TOYS}:toy", "--resume", "last", "--root", tmp_path)
    assert (said.code, said.err) == (0, "")
    assert said.out.count(" hit ") == 5


def test_a_plan_leaves_nothing_behind(
    tmp_path: Path, penstock: Callable[..., Said]
) -> None:
    root = tmp_path / "root"
    said = penstock("plan", f"{TOYS}:toy", "--root", root)
    assert (said.code, said.err) == (0, "")
    assert "It has not run in this pipeline." in said.out
    assert not root.exists()


def test_a_hook_that_fails_hides_no_table(
    tmp_path: Path, penstock: Callable[..., Said]
) -> None:
    (tmp_path / "hooked.py").write_text(
        "from penstock import Pipeline\nfrom tests.pipelines.toys import Make\n\n\n"
        "def mail(result):\n    raise ValueError('away')\n\n\n"
        "p = Pipeline('p', [Make()], on_exit=[mail])\n"
    )
    said = penstock("run", f"{tmp_path}/hooked.py:p", "--root", tmp_path / "root")
    assert said.code == 1
    assert "complete in " in said.out
    assert "in mail (hooked.py, line 6): ValueError: away. The run is" in said.err


def test_logs_of_an_unknown_component_get_a_near_miss(
    root: Path, penstock: Callable[..., Said]
) -> None:
    said = penstock("logs", "last", "Fial", "--root", root)
    assert said.code == 1
    assert said.err.endswith(
        "has no component 'Fial' (it has 'Bless', 'Check', "
        "'Fail', 'Fit', 'Make', 'Push'). Did you mean 'Fail'?\n"
    )
    said = penstock("logs", "last", "Fail", "--root", root, "--json")
    assert "ValueError" in said.json["log"]


def test_logs_that_are_gone_get_a_sentence(
    tmp_path: Path, penstock: Callable[..., Said]
) -> None:
    result = run(toy(serving_dir=tmp_path), tmp_path, runner=LocalRunner())
    folder = tmp_path / ".penstock" / "runs" / result.run_id
    shutil.rmtree(folder)
    said = penstock("logs", "last", "Fit", "--root", tmp_path)
    assert said == (
        1,
        "",
        f"The log of 'Fit' in run '{result.run_id}' is not at '{folder}/Fit.log'. It "
        "is kept under the root of the machine that ran it.\n",
    )


def test_artifacts_are_listed(root: Path, penstock: Callable[..., Said]) -> None:
    said = penstock("artifacts", "--root", root, "--type=Model")
    assert said.code == 0
    header, *rows = said.out.splitlines()
    assert header.split() == ["id", "type", "digest", "location", "remarks"]
    assert len(rows) == 2
    assert all("Model" in row and f"{root}/toy/Fit/model/" in row for row in rows)
    everything = penstock("artifacts", "--root", root, "--json").json
    assert {each["type"] for each in everything} == {
        *("Examples", "ExampleAnomalies", "Model", "ModelBlessing", "PushedModel")
    }
    said = penstock("artifacts", "--root", root, "--type=Modle")
    assert said.code == 1
    assert said.err == (
        "No artifact of type 'Modle' is recorded (there are 'ExampleAnomalies', "
        "'Examples', 'Model', 'ModelBlessing', 'PushedModel'). Did you mean 'Model'?\n"
    )


def test_artifacts_are_asked_for_by_their_properties(
    root: Path, penstock: Callable[..., Said]
) -> None:
    said = penstock("artifacts", "--root", root, "--where", "auc > 0.4 or span == 8")
    assert (said.code, said.err) == (0, "")
    header, *rows = said.out.splitlines()
    assert header.split() == [
        *("id", "type", "digest", "auc", "span", "location", "remarks"),
    ]
    assert [row.split()[1] for row in rows] == ["Model", "Model"]
    assert all(row.split()[3] == "0.5" for row in rows)
    question = ("--type=Examples", "--where", "span == 7 and note == 'made by hand'")
    found = penstock("artifacts", "--root", root, *question, "--json").json
    assert [each["type"] for each in found] == ["Examples"] * 3
    said = penstock("artifacts", "--root", root, "--where", "auc > 0.5", "--json")
    assert (said.code, said.json) == (0, [])


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        (
            ["--type=Model", "--where=acu > 0.9"],
            "No artifact has the property 'acu' (there are 'auc', 'digest', "
            "'is_external', 'tfx_version'). Did you mean 'auc'?\n",
        ),
        (
            ["--where=auc > > 1"],
            "Expression 'auc > > 1' has '>' where a value is expected. Write a column, "
            "a number or a 'text' there.\n    auc > > 1\n          ^\n",
        ),
    ],
)
def test_a_question_that_cannot_be_asked_gets_a_sentence(
    root: Path, penstock: Callable[..., Said], question: list[str], sentence: str
) -> None:
    assert penstock("artifacts", "--root", root, *question) == (1, "", sentence)


def test_lineage_of_a_version_a_number_and_a_place_is_the_same(
    root: Path, penstock: Callable[..., Said]
) -> None:
    version = penstock("lineage", root / "serving" / "1", "--root", root, "--json")
    assert version.code == 0
    start = version.json["start"]
    number = penstock("lineage", start["id"], "--root", root, "--json")
    place = penstock("lineage", start["uri"], "--root", root, "--json")
    assert number.json == place.json == version.json
    assert {each["component"] for each in version.json["executions"]} == {
        *("Make", "Check", "Fit", "Bless", "Push")
    }
    said = penstock("lineage", root / "serving" / "1", "--root", root)
    assert said.out.startswith(f"PushedModel {start['id']} pushed_version=1")
    for word in ("made by Push", "blessing: ModelBlessing", "made by Make", "(above)"):
        assert word in said.out


def test_lineage_says_what_it_was_made_with(
    root: Path, penstock: Callable[..., Said]
) -> None:
    version = penstock("lineage", root / "serving" / "1", "--root", root, "--json")
    recipes = {each["component"]: each["recipe"] for each in version.json["executions"]}
    assert recipes["Make"]["parameters"] == {"rows": 3, "text": "row"}
    assert recipes["Make"]["code"].startswith("sha256:")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert recipes["Make"]["environment"] == {"python": python}
    (digest,) = recipes["Check"]["data"].values()
    said = penstock("lineage", root / "serving" / "1", "--root", root).out
    lines = re.sub(" +", " ", said).splitlines()
    assert "component code parameters environment" in map(str.strip, lines)
    code = recipes["Make"]["code"][7:19]
    assert f"Make {code} rows=3, text=row python {python}" in map(str.strip, lines)
    assert "data span digest location" in map(str.strip, lines)
    down = penstock("lineage", "1", "--downstream", "--root", root, "--json")
    (examples,) = (each for each in down.json["artifacts"] if each["id"] == 1)
    assert examples["digest"] == digest


def test_lineage_is_exported(
    root: Path, tmp_path: Path, penstock: Callable[..., Said]
) -> None:
    for name in ("x.html", "x.dot", "x.json"):
        said = penstock(
            *("lineage", root / "serving" / "1", "--root", root),
            *("--export", tmp_path / name),
        )
        assert said.code == 0
        assert said.out.splitlines()[-1] == f"written: {tmp_path / name}"
    assert "Lineage of PushedModel" in (tmp_path / "x.html").read_text("utf-8")
    said = penstock("lineage", "1", "--root", root, "--export", tmp_path / "x.svg")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"'{tmp_path}/x.svg' does not say in which form")


def test_impact_of_a_span_an_artifact_and_a_place(
    root: Path, penstock: Callable[..., Said]
) -> None:
    span = penstock("impact", "toy", "--span=7", "--root", root, "--json")
    assert span.code == 0
    assert len(span.json["sources"]) == 3
    source = span.json["sources"][0]
    one = penstock("impact", source["id"], "--root", root, "--json").json
    assert one["sources"] == [source]
    assert penstock("impact", source["uri"], "--root", root, "--json").json == one
    assert [each["type"] for each in one["models"]] == ["Model"]
    assert [each["is_there"] for each in one["pushed"]] == [False]
    assert [each["type"] for each in span.json["models"]] == ["Model", "Model"]
    assert one["models"][0] in span.json["models"]
    said = penstock("impact", source["id"], "--root", root)
    assert said.code == 0
    first, *rows = said.out.splitlines()
    assert first.startswith(f"Examples {source['id']} span=7")
    assert [row.split()[0] for row in rows[1:]] == ["model", "version"]
    assert "not there any more" in rows[2]
    assert str(root / "serving" / "1") in rows[2]


def test_impact_of_what_is_in_no_model(
    root: Path, penstock: Callable[..., Said]
) -> None:
    everything = penstock("artifacts", "--root", root, "--json").json
    (verdict, *_) = (each for each in everything if each["type"] == "ModelBlessing")
    (push, *_) = (each for each in everything if each["type"] == "PushedModel")
    said = penstock("impact", verdict["id"], "--root", root, "--json")
    assert said.json["models"] == []
    said = penstock("impact", push["id"], "--root", root)
    assert said.code == 0
    assert "version" in said.out
    (anomalies, *_) = (
        each
        for each in everything
        if each["type"] == "ExampleAnomalies"
        and each["properties"]["blessed"] != {}
        and penstock("impact", each["id"], "--root", root, "--json").json["models"]
        == []
    )
    said = penstock("impact", anomalies["id"], "--root", root)
    assert said.out.splitlines()[-1] == "It is in no model."


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["toy"], 2, "'toy' is a pipeline. Pass --span NUMBER, or an artifact."),
        (["toy", "--span=9"], 1, "Span 9 of pipeline 'toy' is not in the lineage"),
        (["tou", "--span=7"], 1, "Pipeline 'tou' is not in the lineage store (it has"),
        (["nowhere"], 1, "'nowhere' is no artifact of the lineage store."),
    ],
)
def test_impact_of_something_unknown_gets_a_sentence(
    root: Path,
    penstock: Callable[..., Said],
    arguments: list[str],
    code: int,
    sentence: str,
) -> None:
    said = penstock("impact", *arguments, "--root", root)
    assert (said.code, said.out) == (code, "")
    assert sentence in said.err


def test_diff_says_in_what_two_runs_differ(
    tmp_path: Path, penstock: Callable[..., Said]
) -> None:
    for rows in (3, 5):
        run(toy(rows=rows), tmp_path, runner=LocalRunner(), parameters={"rows": rows})
    first, second = (
        each["run"] for each in penstock("runs", "--root", tmp_path, "--json").json
    )
    said = penstock("diff", first, "last", "--root", tmp_path, "--json")
    assert said.code == 0
    assert (said.json["before"]["run"], said.json["after"]["run"]) == (first, second)
    assert said.json["parameters"] == [
        {"component": component, "name": "rows", "before": 3, "after": 5}
        for component in ("", "Make")
    ]
    assert said.json["code"] == said.json["states"] == said.json["metrics"] == []
    data = {each["component"]: each["name"] for each in said.json["data"]}
    assert data["Check"] == "examples[0]"
    text = penstock("diff", first, second, "--root", tmp_path)
    assert (text.code, text.err) == (0, "")
    lines = [line.split() for line in text.out.splitlines() if line.strip()]
    assert lines[0] == ["runs", first, "and", second]
    assert ["rows", "3", "5", "Make"] in lines
    # What is the same for two components is told once.
    (shared,) = (line for line in lines if line[:1] == ["examples[0]"])
    assert shared[3:] == ["Check,", "Fit"]
    same = penstock("diff", first, first, "--root", tmp_path)
    assert same.out == f"runs {first} and {first} differ in nothing that is recorded.\n"
    said = penstock("diff", "lost", first, "--root", tmp_path)
    assert said.code == 1
    assert said.err.startswith("Run 'lost' is not in the lineage store.")


def test_lineage_downstream_leads_to_what_was_pushed(
    root: Path, penstock: Callable[..., Said]
) -> None:
    said = penstock("lineage", "1", "--downstream", "--root", root)
    assert said.code == 0
    assert said.out.startswith("Examples 1 span=7")
    assert "read by Fit" in said.out
    assert "pushed: PushedModel" in said.out


@pytest.mark.parametrize(
    ("subject", "sentence"),
    [
        ("999", "Artifact 999 is not in the lineage store '{url}'. "),
        (
            "nowhere",
            "'nowhere' is no artifact of the lineage store. Pass an artifact's",
        ),
        ("serving/7", "Version 7 of 'serving' was not pushed by a run of this lineage"),
    ],
)
def test_lineage_of_something_unknown_gets_a_sentence(
    root: Path, penstock: Callable[..., Said], subject: str, sentence: str
) -> None:
    said = penstock("lineage", subject, "--root", root)
    assert (said.code, said.out) == (1, "")
    url = f"sqlite:///{root / 'metadata.sqlite'}"
    assert said.err.startswith(sentence.replace("{url}", url))


@pytest.mark.parametrize(
    "verb",
    [
        ["runs"],
        ["show", "last"],
        ["logs", "last", "x"],
        ["artifacts"],
        ["impact", "1"],
        ["diff", "last", "last"],
        ["bless", "1", "--force", "--reason=because"],
    ],
)
def test_a_store_that_is_not_there_is_not_made(
    tmp_path: Path, penstock: Callable[..., Said], verb: list[str]
) -> None:
    said = penstock(*verb, "--root", tmp_path / "none")
    assert said == (
        1,
        "",
        f"There is no lineage store at '{tmp_path}/none/metadata.sqlite'. Run a "
        "pipeline first, or name the store with --root or --store.\n",
    )
    assert not (tmp_path / "none").exists()


def test_a_store_is_named_by_its_url(
    root: Path, tmp_path: Path, penstock: Callable[..., Said]
) -> None:
    url = f"sqlite:///{root / 'metadata.sqlite'}"
    assert penstock("runs", "--store", url).code == 0
    said = penstock("runs", "--store", "mysql://me:secret@host")
    assert said.code == 1
    assert said.err.startswith("'mysql://me:…@host' does not describe a lineage store.")


def test_an_empty_store_has_no_runs(
    tmp_path: Path, penstock: Callable[..., Said]
) -> None:
    Store(f"sqlite:///{tmp_path / 'metadata.sqlite'}")
    assert penstock("runs", "--root", tmp_path, "--json").json == []
    assert penstock("runs", "--root", tmp_path).code == 0


def test_versions_lists_a_serving_directory(
    tmp_path: Path, penstock: Callable[..., Said]
) -> None:
    from penstock.components.serving import version_dir

    model = tmp_path / "model"
    model.mkdir()
    (model / "saved_model.pb").write_bytes(b"model")
    serving = tmp_path / "serving"
    (serving / "007").mkdir(parents=True)
    version_dir.push(serving, model, model_uri="/models/1", run_id="run-1")
    said = penstock("versions", serving)
    assert (said.code, said.err) == (0, "")
    header, *rows = said.out.splitlines()
    assert header.split() == [
        *("version", "state", "standing", "pushed", "size", "digest", "model")
    ]
    assert [row.split()[:2] for row in rows] == [["7", "foreign"], ["8", "complete"]]
    assert "/models/1" in rows[1]
    listed = penstock("versions", serving, "--json").json
    assert [each["version"] for each in listed] == [7, 8]
    assert listed[1]["run_id"] == "run-1"
    assert listed[1]["digest"].startswith("sha256:")


def test_a_serving_directory_that_is_not_there_gets_a_sentence(
    tmp_path: Path, penstock: Callable[..., Said]
) -> None:
    assert penstock("versions", tmp_path / "gone") == (
        1,
        "",
        f"Serving directory '{tmp_path}/gone' does not exist. Pass the folder that "
        "holds the numbered versions.\n",
    )


# bless ---------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A root of one's own with a model that is not blessed, and one that is."""
    for blessed, rows in ((False, 3), (True, 4)):
        make = Make(rows=rows)
        fit = Fit(examples=make.examples)
        bless = Bless(model=fit.model, blessed=blessed)
        push = Push(
            model=fit.model, blessing=bless.blessing, serving_dir=tmp_path / "serving"
        )
        pipeline = Pipeline("own", [make, fit, bless, push])
        run(pipeline, tmp_path, runner=LocalRunner())
    return tmp_path


def of_type(kind: str, root: Path, penstock: Callable[..., Said]) -> list[Any]:
    listed: list[Any] = penstock(
        "artifacts", "--root", root, "--type", kind, "--json"
    ).json
    return listed


def test_a_model_is_blessed_by_force(own: Path, penstock: Callable[..., Said]) -> None:
    refused, _ = of_type("Model", own, penstock)
    said = penstock(
        *("bless", refused["id"], "--root", own, "--force"),
        *("--reason", "labels were [late]"),
    )
    *_, blessing = of_type("ModelBlessing", own, penstock)
    assert said == (
        0,
        f"Model {refused['id']} is blessed by force: labels were [late].\n"
        "Its evaluation said NOT_BLESSED.\n"
        f"Recorded as ModelBlessing {blessing['id']}: {blessing['uri']}\n",
        "",
    )
    assert blessing["properties"]["forced"] == 1
    assert blessing["remarks"] == {"forced": "labels were [late]."}
    refused, other = of_type("Model", own, penstock)
    assert refused["remarks"] == {"forced": "labels were [late]."}
    assert other["remarks"] == {}
    said = penstock("artifacts", "--root", own, "--where", "forced == 1", "--json")
    assert said.json == [blessing]
    ran = penstock("runs", "--root", own, "--json").json
    said = penstock("show", ran[0]["run"], "--root", own)
    assert said.out.splitlines()[-1] == (
        f"Model {refused['id']} is blessed by force: labels were [late]."
    )
    assert "by force" not in penstock("show", ran[1]["run"], "--root", own).out
    for row in penstock("artifacts", "--root", own, "--type=Model").out.splitlines():
        forced = row.startswith(f"{refused['id']} ")
        assert row.rstrip().endswith("blessed by force: labels were [late]") is forced
    said = penstock("lineage", refused["id"], "--downstream", "--root", own)
    tree = said.out.splitlines()
    assert tree[0].startswith(
        f"Model {refused['id']} auc=0.5 blessed by force: labels were [late] sha256:"
    )
    made = next(line for line in tree if "read by penstock bless (complete, " in line)
    assert made.endswith(") labels were [late].")
    assert f"ModelBlessing {blessing['id']} blessed=1 verdict=NOT_BLESSED" in said.out


def test_a_version_is_blocked_and_its_bytes_are_not_pushed_again(
    own: Path, penstock: Callable[..., Said]
) -> None:
    _, good = of_type("Model", own, penstock)
    act = ("bless", own / "serving" / "1", "--root", own)
    said = penstock(*act, "--block", "--reason", "loses money", "--json")
    assert (said.code, said.err) == (0, "")
    assert said.json["action"] == "block"
    assert said.json["model"]["id"] == good["id"]
    assert said.json["model"]["remarks"] == {"blocked": "loses money."}
    assert said.json["blessing"]["properties"]["blessed"] == 0
    said = penstock("lineage", own / "serving" / "1", "--root", own)
    assert f"model: Model {good['id']} auc=0.5 blocked: loses money" in said.out
    make = Make(rows=4)
    fit = Fit(examples=make.examples)
    bless = Bless(model=fit.model)
    push = Push(model=fit.model, blessing=bless.blessing)
    result = run_anew(Pipeline("again", [make, fit, bless, push]), own)
    told = penstock("show", "last", "--root", own)
    again = result.artifact(fit.model)
    assert (
        f"'Bless.blessing' says yes, but Model {again.id} has the bytes of Model "
        f"{good['id']}, which is on the block-list: loses money."
    ) in told.out
    assert told.out.splitlines()[-1] == f"Model {again.id} is blocked: loses money."
    said = penstock(*act, "--unblock", "--reason", "it earns money")
    first, second = said.out.splitlines()
    assert first == f"Model {good['id']} is off the block-list: it earns money."
    assert second.startswith("Recorded as ModelBlessing ")
    assert {"remarks": {}}.items() <= of_type("Model", own, penstock)[-1].items()


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--force"],
        ["--reason=because"],
        ["--force", "--reason= "],
        ["--force", "--block", "--reason=because"],
    ],
)
def test_bless_wants_to_know_what_to_do_and_why(
    own: Path, penstock: Callable[..., Said], options: list[str]
) -> None:
    before = of_type("ModelBlessing", own, penstock)
    said = penstock("bless", "2", "--root", own, *options)
    assert (said.code, said.out) == (2, "")
    assert said.err.endswith(
        "bless overrules what the lineage says of a model, so it has to be told what "
        "to do and why. Pass one of --force (bless it, whatever its evaluation said), "
        "--block (put its bytes on the block-list) and --unblock (take them off), and "
        "--reason TEXT.\n"
    )
    assert of_type("ModelBlessing", own, penstock) == before


def test_only_models_are_blessed(own: Path, penstock: Callable[..., Said]) -> None:
    said = penstock("bless", "1", "--root", own, "--force", "--reason=because")
    assert said == (
        1,
        "",
        "Artifact 1 is of type Examples, no model. Pass the number or the location of "
        "a Model ('penstock artifacts --type Model' lists them), or a served version "
        "as SERVING_DIR/NUMBER.\n",
    )
    _, good = of_type("Model", own, penstock)
    said = penstock("bless", good["uri"], "--root", own, "--force", "--reason=because")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"Model {good['id']} is blessed already, by Model")


# As a user sees it ---------------------------------------------------------------


VERBS = [
    *("run", "evaluate", "runs", "show", "logs", "artifacts", "lineage", "bless"),
    *("impact", "diff", "versions", "gc", "plan", "reproduce"),
]


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_tells_about_every_verb(penstock: Callable[..., Said], verb: str) -> None:
    said = penstock(*([verb] if verb else []), "--help")
    assert said.code == 0
    assert "Usage:" in said.out
    if not verb:
        for each in VERBS:
            assert re.search(rf"^\W*{each} ", said.out, re.MULTILINE)


def test_what_goes_through_a_pipe_is_not_cut(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "penstock", "artifacts", "--root", root],
        env={**ENVIRONMENT, "COLUMNS": "40"},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = done.stdout.splitlines()[1:]
    assert all(f"{root}/toy/" in row for row in rows)
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("question", [[], ["--where", "auc > 0.4"]])
def test_asking_for_artifacts_loads_nothing_that_it_has_no_use_for(
    root: Path, question: list[str]
) -> None:
    verb = ["artifacts", "--root", str(root), *question]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "penstock", *verb],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    # An import of pandas itself is tried, and refused.
    heavy = {*HEAVY, "pandas.core"} - {
        "pandas",
        "ml_metadata",
        "google.protobuf",
        "grpc",
    }
    assert loaded & heavy == ({"numpy", "pyarrow"} if question else set())


def test_a_reader_that_goes_away_is_no_error(root: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m penstock show last --json --root {root} | head -n 1",
        shell=True,
        executable="/bin/bash",
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_the_live_table_on_a_terminal_is_whole_and_goes_away(tmp_path: Path) -> None:
    command: list[str | Path] = [
        *(sys.executable, "-m", "penstock", "run", f"{TOYS}:toy"),
        *("--root", tmp_path, "--runner=local", "--param", "good=false"),
    ]
    code, text = on_terminal(command, ENVIRONMENT)
    assert code == 3
    assert text.startswith("pipeline")
    assert len(re.findall("component", text)) > 1  # the live table was there
    assert "Traceback" not in text
    lines = after_live(text)
    assert any(line.startswith("run ") or " run " in line for line in lines)
    assert any("Push" in line and "skipped" in line for line in lines)
    # A terminal of 100 columns folds the sentence, and loses nothing of it.
    assert "payment_type is new." in " ".join(lines)
