"""The error that a client is told, with the canonical code it goes under."""

from __future__ import annotations

from penstock.components.serving.descriptors import Code
from penstock.schemas.errors import ServingError

__all__ = ["Code", "ServableError"]


class ServableError(ServingError):
    """A request, a load or a configuration that the server refuses.

    Attributes:
        code: What kind of refusal it is.
        message: What the client is told; TensorFlow Serving's words where it has some.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def labelled(self) -> str:
        """The code and the message, as TensorFlow prints a status."""
        return f"{self.code.name}: {self.message}"
