"""A target and a server through any sequence of deeds and misfortunes."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components.serving import target as target_module
from penstock.components.serving.messages import Code, ModelServerConfig, State
from penstock.components.serving.server_config import Layout
from penstock.components.serving.server_record import read_record
from penstock.components.serving.target import TfServingTarget
from penstock.schemas.errors import ServingError
from tests.components.serving.server_double import ServerDouble, running_double

VERSIONS = (1, 2, 3)
OTHERS = """model_config_list { config { name: "other" base_path: "/srv/other"
model_platform: "tensorflow" model_version_policy { latest { num_versions: 2 } } } }"""


class Sent(list[Any]):
    """Holds every configuration against the rules at the moment it arrives."""

    def __init__(self, double: ServerDouble) -> None:
        super().__init__()
        self._double = double
        self.wrong: list[str] = []
        self.bare = False
        self.pinned: set[int] = set()

    def append(self, config: Any) -> None:
        other = text_format.Parse(OTHERS, ModelServerConfig()).model_config_list.config
        models = config.model_config_list.config
        if list(models[:1]) != list(other):
            self.wrong.append("the user's model is not as it was")
        if len({model.name for model in models}) != len(models):
            self.wrong.append("two models have one name")
        for model in models[1:]:
            policy = set(model.model_version_policy.specific.versions)
            available = set(self._double.available(model.name))
            labelled = set(model.version_labels.values())
            if not labelled <= policy:
                self.wrong.append(f"{labelled} labelled, {policy} loaded")
            if not labelled <= available:
                self.wrong.append(f"{labelled} labelled, {available} available")
            if model.name == "m" and self.bare:
                # It moves only to a version that answers under a name of its own.
                names = self._double.names()
                answers = {n for name in names for n in self._double.available(name)}
                if policy != self.pinned and not policy <= answers:
                    self.wrong.append(f"bare name on {policy}, {answers} available")
                if self._double.refusal is None:  # what is refused does not hold
                    self.pinned = policy
        super().append(config)


class World:
    """One target, killed and made anew at will, and one server."""

    def __init__(
        self, folder: Path, double: ServerDouble, layout: Layout, bare: bool
    ) -> None:
        self.double = double
        self.double.models["other"] = {7: (State.AVAILABLE, "")}
        self.sent = Sent(double)
        self.sent.bare = bare and layout == "names"
        self.double.sent = self.sent
        for version in VERSIONS:
            (folder / "m" / str(version)).mkdir(parents=True)
        user = folder / "models.config"
        user.write_text(OTHERS)
        self._settings: dict[str, Any] = {
            "layout": layout,
            "bare_name": bare,
            "user_config": user,
        }
        self._folder = folder / "m"
        self.target = self.make()

    def make(self) -> TfServingTarget:
        address = self.double.address
        return TfServingTarget("m", self._folder, address, **self._settings)

    def load(self, *versions: int) -> None:
        self.target.load(versions)

    def announce(self, stable: int | None, canary: int | None) -> None:
        self.target.announce(stable, canary)

    def look(self) -> None:
        self.target.states()

    def target_dies(self) -> None:
        self.target.close()
        self.target = self.make()

    def server_dies(self) -> None:
        self.double.start_anew()
        self.double.models["other"] = {7: (State.AVAILABLE, "")}

    def breaks(self, version: int) -> None:
        self.double.broken[version] = "no disk"

    def mends(self) -> None:
        self.double.broken.clear()

    def settles(self) -> None:
        """Look until labels and versions are as they were asked for."""
        with suppress(ServingError):
            self.look()
            self.look()
            if self.sent and self.target._new.layout == "labels":
                record = read_record(self.target._record).served.get("m")
                available = self.double.available("m")
                if record is not None:
                    assert self.double.labels.get("m", {}) == {
                        label: version
                        for label, version in record.labels.items()
                        if version in available
                    }


VERSION = st.sampled_from(VERSIONS)
REFUSALS = st.sampled_from([None] * 6 + [Code.FAILED_PRECONDITION, Code.UNAVAILABLE])
LOADS = st.sets(VERSION, min_size=1).map(lambda found: ("load", *sorted(found)))
DEEDS = st.one_of(
    LOADS,
    LOADS,
    st.tuples(st.just("announce"), VERSION, st.none() | VERSION),
    st.tuples(st.just("announce"), VERSION, st.none()),
    st.tuples(st.just("announce"), st.none(), st.none()),
    st.tuples(st.just("breaks"), VERSION),
    st.sampled_from(
        [("mends",), ("look",), ("settles",), ("target_dies",), ("server_dies",)]
    ),
)


@settings(max_examples=40)
@given(
    layout=st.sampled_from(["names", "labels", "labels"]),
    bare=st.booleans(),
    story=st.lists(st.tuples(DEEDS, REFUSALS), min_size=25, max_size=40),
)
def test_nothing_wrong_is_ever_sent(layout: Layout, bare: bool, story: Any) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        running_double() as double,
        # Every answer is waited for, however slow this machine is.
        mock.patch.object(target_module, "_REFUSAL_SECONDS", 30.0),
    ):
        world = World(Path(folder), double, layout, bare)
        for (deed, *arguments), refusal in story:
            double.refusal = None if refusal is None else (refusal, "not now")
            with suppress(ServingError):
                getattr(world, deed)(*arguments)
            assert world.sent.wrong == []
            for name, labels in double.labels.items():
                assert set(labels.values()) <= set(double.available(name))
        world.target.close()
