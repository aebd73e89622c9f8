"""penstock gc on the command line: tables, JSON, exit codes and sentences."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.pipelines.inputs import Latest, LatestBlessed
from penstock.pipelines.metadata import Store
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.root_lock import in_use, unused
from penstock.pipelines.run import run
from penstock.pipelines.runners import LocalRunner
from penstock.schemas.artifacts import ArtifactState, Examples
from tests.conftest import Said
from tests.pipelines.histories import alive, tree
from tests.pipelines.toys import Bless, Fit, Make, Push

Gc = Callable[..., Said]

ALL = ("--runs", "0", "--blessed", "0", "--younger-than", "0s")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with three versions, of which the second is served."""
    for version, rows in enumerate((3, 4, 5), start=1):
        make = Make(rows=rows)
        fit = Fit(examples=make.examples)
        bless = Bless(model=fit.model)
        push = Push(
            model=fit.model,
            blessing=bless.blessing,
            serving_dir=tmp_path / "serving",
            version=version,
        )
        pipeline = Pipeline("p", [make, fit, bless, push])
        run(pipeline, tmp_path / "root", runner=LocalRunner())
    (tmp_path / "serving" / "2").mkdir(parents=True)
    return tmp_path / "root"


@pytest.fixture
def gc(root: Path, penstock: Callable[..., Said]) -> Gc:
    """Call penstock gc for that root."""
    return lambda *words: penstock("gc", "--root", root, *words)


def test_it_lists_what_could_go_and_deletes_nothing(root: Path, gc: Gc) -> None:
    before = tree(root)
    said = gc(*ALL)
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    title, header, *kept = lines
    assert title.rstrip() == "kept"
    assert header.split() == ["artifact", "size", "because", "location"]
    serving = root.parent / "serving"
    assert kept[0].split(maxsplit=2)[:2] == ["Examples", "5"]
    assert f"served: version 2 lies in '{serving}'" in kept[0]
    assert "blessed: Model 10 is one of the last blessed of 'p'" in said.out
    assert re.search(r"^Examples 1 +12 +\S+/p/Make/examples/1 *$", said.out, re.M)
    assert re.search(r"^run +\d+ +\S+/\.penstock/runs/\S+ *$", said.out, re.M)
    assert re.search(r"^folder +0 +\S+/p/Make/\.tmp *$", said.out, re.M)
    assert lines[-3] == "kept: 7 artifacts, 72 bytes"
    assert re.fullmatch(
        r"would be deleted: 5 artifacts, 1 run, 4 folders, \d+ bytes", lines[-2]
    )
    assert lines[-1] == "Nothing is deleted yet: --delete does it."
    assert tree(root) == before
    assert gc(*ALL).out == said.out


def test_it_deletes_and_has_nothing_to_do_then(
    root: Path, gc: Gc, penstock: Callable[..., Said]
) -> None:
    listed = gc(*ALL, "--json").json
    done = gc(*ALL, "--delete", "--json")
    assert (done.code, done.err) == (0, "")
    assert listed.pop("deleted") is False
    found = done.json
    assert found.pop("deleted") is True
    for each in (listed, found):
        for item in each["garbage"]:
            for artifact in item["artifacts"]:
                del artifact["properties"]
    assert listed["garbage"] == found["garbage"]
    assert sum(each["size"] for each in found["garbage"]) == found["size"] > 0
    assert {each["what"] for each in found["garbage"]} == {"artifact", "run", "folder"}
    assert found["untouched"] == {}
    assert found["remarks"] == found["restored"] == []
    served, *_ = found["kept"]
    assert (served["why"], served["path"]) == (
        *("served", str(root / "p" / "Make" / "examples" / "5")),
    )
    assert [each["id"] for each in served["artifacts"]] == [5]
    again = gc(*ALL, "--delete")
    assert again.out.splitlines()[-1] == "deleted: nothing, 0 bytes"
    artifacts = penstock("artifacts", "--root", root)
    assert re.search(
        r"^1 +Examples .* deleted: by housekeeping *$", artifacts.out, re.M
    )
    (first, *_) = penstock("artifacts", "--root", root, "--json").json
    assert first["remarks"] == {"deleted": "by housekeeping"}


def test_a_run_finds_after_it_what_it_found_before(root: Path, gc: Gc) -> None:
    def found() -> list[int | None]:
        make = Make(rows=5)
        fit = Fit(examples=make.examples, baseline=LatestBlessed())
        other = Make(name="Other", rows=9)
        new = Fit(name="New", examples=other.examples, baseline=LatestBlessed())
        ask = Fit(name="Ask", examples=Latest(Examples))
        pipeline = Pipeline("p", [ask, make, other, fit, new])
        result = run(pipeline, root, runner=LocalRunner(max_workers=1))
        assert result["Ask"].inputs["examples"]
        return [result[each].inputs["baseline"][0].id for each in ("Fit", "New")]

    before = found()
    assert gc(*ALL, "--delete").code == 0
    assert gc("--runs", "0", "--blessed", "0", "--delete").code == 0
    assert found() == before


def test_what_is_pinned_is_kept(root: Path, gc: Gc) -> None:
    said = gc("--pin", root / "p" / "Fit" / "model" / "2", "--reason", "[the] audit")
    assert (said.code, said.out) == (0, "Model 2 is pinned: [the] audit.\n")
    assert "pinned: [the] audit" in gc(*ALL).out
    listed = gc(*ALL, "--json").json
    pinned = [each for each in listed["kept"] if each["why"] == "pinned"]
    assert [one["type"] for each in pinned for one in each["artifacts"]] == [
        *("Examples", "Model", "ModelBlessing")
    ]
    again = gc("--pin", "2", "--reason", "more")
    assert (again.code, again.err) == (1, "Model 2 is pinned already: [the] audit.\n")
    said = gc("--unpin", "2", "--reason", "it is over", "--json")
    assert said.json["action"] == "unpin"
    assert said.json["reason"] == "[the] audit."
    assert said.json["artifact"]["id"] == 2
    said = gc("--pin", root.parent / "serving" / "3", "--reason", "the next", "--json")
    assert said.json["action"] == "pin"
    assert said.json["artifact"]["type"] == "PushedModel"
    said = gc("--unpin", "12", "--reason", "over")
    assert said.out == "PushedModel 12 is pinned no more. It was: the next.\n"


@pytest.mark.parametrize(
    "words",
    [
        ("--pin", "2"),
        ("--pin", "2", "--reason", " "),
        ("--pin", "2", "--unpin", "3", "--reason", "x"),
        ("--unpin", "2", "--reason", "x", "--delete"),
    ],
)
def test_a_pin_is_recorded_by_itself_with_a_reason(
    penstock: Callable[..., Said], words: tuple[str, ...]
) -> None:
    said = penstock("gc", *words)
    assert said.code == 2
    assert (
        "a pin is recorded by itself, with the reason, which is all that later readers "
        "will know. Pass one of --pin and --unpin, --reason TEXT, and no --delete."
    ) in " ".join(re.sub(r"[│|]", " ", said.err).split())


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--reason", "x"), "--reason says why something is pinned. Pass --pin."),
        *(
            (
                ("--younger-than", text),
                f"'{text}' is no length of time. Write a number and one of 'd', 'h', "
                "'m', 's', 'w', as in 30d.",
            )
            for text in ("30", "d", "soon", "-1d", "nand", "infd", "30 days")
        ),
        (("--runs", "-1"), "-1 is not in the range x>=0."),
        (("--wait", "-1"), "-1.0 is not in the range x>=0."),
    ],
)
def test_wrong_usage_exits_with_2(
    penstock: Callable[..., Said], words: tuple[str, ...], text: str
) -> None:
    said = penstock("gc", *words)
    assert said.code == 2
    assert text in " ".join(re.sub(r"[│|]", " ", said.err).split())


def test_a_length_of_time_has_a_unit(gc: Gc) -> None:
    for text in ("720h", "30d", "4.5w", "43200m", "2592000s"):
        said = gc("--runs", "0", "--younger-than", text, "--json")
        assert "young" in {each["why"] for each in said.json["kept"]}


def test_while_a_run_goes_on_nothing_is_deleted(root: Path, gc: Gc) -> None:
    folder = root / ".penstock" / "runs"
    newest = sorted(folder.iterdir())[-1]
    with alive(newest):
        assert gc(*ALL).code == 0
        said = gc(*ALL, "--delete", "--wait", "0.1")
    assert (said.code, said.out) == (1, "")
    assert said.err == (
        f"Root '{root}' is in use by run '{newest.name}', which may need what would "
        "be deleted. Wait until that ends, or say with --wait SECONDS how long to "
        "wait for it.\n"
    )
    with in_use(root):
        assert gc(*ALL, "--delete").code == 1
    assert gc(*ALL, "--delete").code == 0


def test_an_unserved_directory_is_named_as_it_was_pushed_to(root: Path, gc: Gc) -> None:
    said = gc("--unserved", str(root.parent / "servin"))
    assert said.code == 1
    assert f"Did you mean '{root.parent / 'serving'}'?" in said.err
    (root.parent / "serving" / "2").rmdir()
    listed = gc(*ALL, "--json").json
    assert "served" in {each["why"] for each in listed["kept"]}
    serving = str(root.parent / "serving")
    listed = gc(*ALL, "--unserved", serving, "--json").json
    assert {each["why"] for each in listed["kept"]} == {"blessed"}


def test_a_store_that_is_not_there_is_not_made(
    tmp_path: Path, penstock: Callable[..., Said]
) -> None:
    said = penstock("gc", "--root", tmp_path / "root", "--delete")
    assert said.code == 1
    assert said.err.startswith("There is no lineage store at ")
    assert not (tmp_path / "root").exists()


def test_what_is_restored_is_said(root: Path, gc: Gc) -> None:
    store = Store(f"sqlite:///{root / 'metadata.sqlite'}")
    store.set_artifact_state([store.artifact(5)], ArtifactState.MARKED_FOR_DELETION)
    text = "Examples 5, which an earlier 'penstock gc' had begun to delete, is kept"
    assert f"{text} by --delete.\n" in gc(*ALL).out
    assert f"{text}.\n" in gc(*ALL, "--delete").out
    assert text not in gc(*ALL, "--delete").out


def test_a_model_is_not_blessed_while_something_is_deleted(
    root: Path, penstock: Callable[..., Said]
) -> None:
    """Else it could be blessed and deleted at the same time."""
    said = []
    words = ("bless", "2", "--block", "--reason", "bad", "--root", root)
    thread = threading.Thread(target=lambda: said.append(penstock(*words)))
    with unused(root):
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
    thread.join()
    assert said[0].code == 0
