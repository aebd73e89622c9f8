"""The names of `tfx.v1` that trainer modules use: import this in place of `tfx`.

    from penstock.components.training import tfx  # was: from tfx import v1 as tfx

Everything else in a `run_fn` module stays as it is.
"""

from __future__ import annotations

from typing import TypeVar

from penstock.components.training.data_accessor import DataAccessor as _DataAccessor
from penstock.components.training.fn_args import FnArgs as _FnArgs

_Message = TypeVar("_Message")


class components:
    """The names of `tfx.v1.components`."""

    DataAccessor = _DataAccessor
    FnArgs = _FnArgs


class utils:
    """The names of `tfx.v1.utils`, and of `tfx.utils.io_utils`."""

    @staticmethod
    def parse_pbtxt_file(file_name: str, message: _Message) -> _Message:
        """Read a text proto file, such as `fn_args.schema_path`, into a message."""
        from google.protobuf import text_format

        with open(file_name, encoding="utf-8") as file:
            parsed: _Message = text_format.Parse(file.read(), message)
        return parsed
