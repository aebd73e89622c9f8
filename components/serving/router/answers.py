"""What goes into a router and comes out of it, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy.typing as npt
from google.protobuf.message import DecodeError

from penstock.components.serving.messages import Message, Method, to_array
from penstock.components.serving.traffic import Arm
from penstock.schemas.errors import DataError, ServingError

MAX_UNIT_LENGTH = 1024
"""The longest id of a unit, in characters."""

MAX_METRIC_LENGTH = 200
"""The longest name of a business metric, in characters."""


class NoStable(ServingError):
    """No version is stable, so nobody can be answered."""


class NotRouted(ServingError):
    """A request names a version that requests are not sent to."""


@dataclass(frozen=True)
class Answer:
    """What a version answered.

    Attributes:
        version: The version.
        arm: Whether it is the stable version or the candidate.
        fell_back: Whether stable answered because the candidate failed.
        seconds: How long it all took.
        method: The call.
        response: The serialized answer.
    """

    version: int
    arm: Arm
    fell_back: bool
    seconds: float
    method: Method[Any, Any]
    response: bytes

    @cached_property
    def message(self) -> Message:
        """The answer, parsed."""
        parsed: Message = self.method.response.FromString(self.response)
        return parsed

    @cached_property
    def outputs(self) -> dict[str, npt.NDArray[Any]]:
        """The outputs of a Predict by name."""
        return {
            name: to_array(each, name) for name, each in self.message.outputs.items()
        }


class Call(NamedTuple):
    """A request on its way; times are those of the monotonic clock.

    Attributes:
        method: The call.
        request: The serialized request.
        unit: Id of its unit, if it has one.
        headers: Its headers in lower case, if there are any.
        began: When it came.
        end: When it has to be answered.
        candidate_end: When a candidate has to have answered, for stable to be asked.
    """

    method: Method[Any, Any]
    request: bytes
    unit: str | None
    headers: Mapping[str, str] | None
    began: float
    end: float
    candidate_end: float


def serialized(method: Method[Any, Any], request: Message | bytes) -> bytes:
    """Return the bytes of a request.

    Raises:
        DataError: They are no such message.
    """
    if not isinstance(request, bytes):
        data: bytes = request.SerializeToString()
        return data
    try:
        # Both versions would fail what is no message, and the candidate be blamed.
        method.request.FromString(request)
    except DecodeError as error:
        raise DataError(
            f"A request of {len(request):,} bytes is no "
            f"{method.request.DESCRIPTOR.name}. Serialize one with SerializeToString."
        ) from error
    return request


def check_deadline(seconds: float) -> None:
    """Refuse a deadline that cannot be kept.

    Raises:
        ServingError: It is not a positive number of seconds.
    """
    if not seconds > 0 or math.isinf(seconds):
        raise ServingError(
            f"A deadline of {seconds:g} seconds cannot be kept. Pass a positive number "
            "of seconds."
        )


def check_outcome(unit: str, metric: str, value: float) -> None:
    """Refuse what is no value of a metric of a unit.

    Raises:
        DataError: A text is too long, or the value is not finite.
    """
    if not metric or len(metric) > MAX_METRIC_LENGTH or len(unit) > MAX_UNIT_LENGTH:
        raise DataError(
            f"An outcome has a metric of {len(metric)} characters and a unit of "
            f"{len(unit)}, where 1 to {MAX_METRIC_LENGTH} and at most "
            f"{MAX_UNIT_LENGTH} are taken. Shorten them."
        )
    if not math.isfinite(value):
        raise DataError(
            f"The value of '{metric}' is {value}, which cannot be added up. Send a "
            "finite number."
        )
