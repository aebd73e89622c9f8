"""The model server of a serving directory, as it was named when a rollout started.

The ledger keeps where it is and where its keys lie, so that whoever rolls back at night
has to know neither. It keeps no secret: of keys and tokens only the paths.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.components.serving.ledger import Ledger
from penstock.schemas.errors import ServingError

if TYPE_CHECKING:
    from penstock.components.serving.target import TfServingTarget

FACT = "server"


@dataclass(frozen=True)
class ModelServer:
    """Where a model server is, and how it is spoken to.

    Attributes:
        model: The name that the model is served under.
        address: 'host:port' or 'unix:/path' of its gRPC side.
        rest_address: 'host:port' of its REST side; empty if it is not to be asked.
        layout: 'names' for one served name per version, 'labels' for labels.
        user_config: The configuration that the user started it with; empty for none.
        config_file: A file that it polls, to control it by that; empty for calls.
        boot_config: Where to keep a configuration to start it with; empty for nowhere.
        bare_name: Whether stable also answers under the model's own name.
        authority: Certificates of the authority that signs the server's; empty for
            plain text, unless there is a certificate.
        certificate: Our certificate; empty for none.
        key: Its key.
        server_name: The name in the server's certificate, if it is not the host.
        token_file: The file of the token for control calls; empty for none.
    """

    model: str
    address: str
    rest_address: str = ""
    layout: str = "names"
    user_config: str = ""
    config_file: str = ""
    boot_config: str = ""
    bare_name: bool = False
    authority: str = ""
    certificate: str = ""
    key: str = ""
    server_name: str = ""
    token_file: str = ""

    def __post_init__(self) -> None:
        if self.layout not in ("names", "labels"):
            raise ServingError(
                f"A model server has no layout '{self.layout}'. Say 'names' for one "
                "served name per version, or 'labels'."
            )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return dataclasses.asdict(self)

    def target(self, serving_dir: Path) -> TfServingTarget:
        """Return what controls it.

        Raises:
            ServingError: If a name, a folder or a file is not right.
        """
        from penstock.components.serving.security import Tls, read_token
        from penstock.components.serving.target import TfServingTarget

        def path(text: str) -> Path | None:
            return Path(text) if text else None

        tls = None
        if self.authority or self.certificate or self.key:
            tls = Tls(
                path(self.certificate),
                path(self.key),
                path(self.authority),
                self.server_name or None,
            )
        return TfServingTarget(
            self.model,
            serving_dir,
            self.address,
            layout="labels" if self.layout == "labels" else "names",
            user_config=path(self.user_config),
            tls=tls,
            token=read_token(Path(self.token_file)) if self.token_file else None,
            rest_address=self.rest_address or None,
            config_file=path(self.config_file),
            boot_config=path(self.boot_config),
            bare_name=self.bare_name,
        )


def server_of(ledger: Ledger) -> ModelServer:
    """Return the model server of a serving directory.

    Raises:
        ServingError: If none was ever named, or another penstock wrote it.
    """
    held = ledger.fact(FACT)
    if held is None:
        raise ServingError(
            f"Serving directory '{ledger.directory}' has no model server yet. Name it "
            "with --server HOST:PORT when a rollout is started."
        )
    try:
        return ModelServer(**held)
    except TypeError as error:
        raise ServingError(
            f"The ledger's model server is not what this penstock writes ({error}). "
            "Install the penstock that wrote it, or a newer one."
        ) from error
