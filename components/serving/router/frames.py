"""TFRecord files without TensorFlow: records of bytes, each with two checksums.

A record is its length (8 bytes, little endian), the masked CRC-32C of those, its bytes,
and the masked CRC-32C of them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import google_crc32c

from penstock.schemas.errors import DataError

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_LENGTH = struct.Struct("<Q")


def framed(record: bytes) -> bytes:
    """Return a record as it stands in a file."""
    length = _LENGTH.pack(len(record))
    return b"".join(
        (length, _FOOTER.pack(_masked(length)), record, _FOOTER.pack(_masked(record)))
    )


def read_frames(path: Path, *, torn: bool = True) -> Iterator[tuple[int, bytes]]:
    """Yield where each record ends, and the record.

    Args:
        path: The file.
        torn: Whether the last record may be cut off, as it is when the process that
            wrote it was killed. It is left out then.

    Raises:
        DataError: A record is damaged, or cut off and `torn` is False.
    """
    with open(path, "rb") as file:
        size = path.stat().st_size
        end = count = 0
        while end < size:
            header = file.read(_HEADER.size)
            short = len(header) < _HEADER.size
            length = 0
            if not short:
                length, checksum = _HEADER.unpack(header)
                if _masked(header[: _LENGTH.size]) != checksum:
                    raise _damaged(path, count)
                short = end + _HEADER.size + length + _FOOTER.size > size
            if short:
                if torn:
                    return
                raise DataError(
                    f"'{path}', record {count + 1}: the file ends inside the record. "
                    "It is no whole TFRecord file; write it again."
                )
            record = file.read(length)
            (checksum,) = _FOOTER.unpack(file.read(_FOOTER.size))
            if _masked(record) != checksum:
                raise _damaged(path, count)
            end += _HEADER.size + length + _FOOTER.size
            count += 1
            yield end, record


def _damaged(path: Path, count: int) -> DataError:
    return DataError(
        f"'{path}', record {count + 1}: a checksum is wrong. The file is damaged; "
        "take its other copies, or remove it."
    )


def _masked(content: bytes) -> int:
    # Masked, because the checksum of bytes that hold their checksum says little.
    checksum: int = google_crc32c.value(content)
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF
