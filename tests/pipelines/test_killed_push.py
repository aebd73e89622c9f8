"""A run that pushes, killed before and after every call of the lineage store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.components.serving import version_dir
from penstock.pipelines.metadata import Store
from penstock.schemas.artifacts import PushedModel

KILLS_AT_EACH_POINT = 3

# Runs a pipeline of one Pusher; kills itself at the given call of the store, counted
# before and after, or prints how many such points there are.
CHILD = """
import os, signal, sys
from pathlib import Path
import penstock
from penstock.components import Pusher
from penstock.pipelines.metadata import Store
from penstock.schemas import Model

model, serving, root = map(Path, sys.argv[1:4])
kill_at = int(sys.argv[4])
points = 0

def reached():
    global points
    points += 1
    if points == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)

def hooked(name):
    original = getattr(Store, name)
    def call(self, *args, **kwargs):
        reached()
        result = original(self, *args, **kwargs)
        reached()
        return result
    setattr(Store, name, call)

for name in ("begin_run", "begin_execution", "complete_execution", "end_run"):
    hooked(name)
pusher = Pusher(
    model=Model(model), serving_dir=serving, options=penstock.Options(cache=False)
)
pipeline = penstock.Pipeline("push", [pusher])
penstock.run(pipeline, root, runner=penstock.LocalRunner())
print(points)
"""

SAVE = """
import sys
import tensorflow as tf

class Triple(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def serve(self, x):
        return {"y": 3.0 * x}

tf.saved_model.save(
    triple := Triple(), sys.argv[1], signatures={"serving_default": triple.serve}
)
"""


def push(model: Path, serving: Path, root: Path, kill_at: int) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, model, serving, root, str(kill_at)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    return done.returncode, done.stdout or done.stderr


@pytest.mark.long
def test_a_push_killed_at_a_call_of_the_store_leaves_no_partial_version(
    tmp_path: Path,
) -> None:
    model, serving, root = (tmp_path / name for name in ("model", "serving", "root"))
    subprocess.run(
        [sys.executable, "-c", SAVE, model / "Format-Serving"],
        check=True,
        capture_output=True,
    )
    code, said = push(model, serving, root, kill_at=0)
    assert code == 0, said
    points = int(said)
    assert points == 8, "four calls of the store, before and after each"
    looks = 0
    for point in range(1, points + 1):
        for _ in range(KILLS_AT_EACH_POINT):
            code, said = push(model, serving, root, kill_at=point)
            assert code == -signal.SIGKILL, said
            for version in version_dir.versions(serving):
                assert version.state is version_dir.VersionState.COMPLETE
                assert version_dir.verify(serving, version.number) == ()
                looks += 1
    print(f"{points * KILLS_AT_EACH_POINT} kills, {looks} versions compared")
    code, said = push(model, serving, root, kill_at=0)
    assert code == 0, said
    numbers = [version.number for version in version_dir.versions(serving)]
    # A push that was killed after its version appeared has used the number.
    assert numbers == list(range(1, len(numbers) + 1))
    recorded = Store(f"sqlite:///{root / 'metadata.sqlite'}").artifacts(PushedModel)
    versions = [int(str(each.properties["pushed_version"])) for each in recorded]
    assert versions == sorted(set(versions))
    assert versions[-1] == numbers[-1]
    for each in recorded:
        assert each.path.is_dir()
