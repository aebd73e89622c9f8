"""Files that Beam steps write: whole under their names, however often a step runs.

A runner may do a step again elsewhere while the first try, cut off from it, still goes
on. So every try writes under a name of its own, in the temporary folder, and either
returns the name or takes the right one when it is done. The component moves from there
what it keeps.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def name_to_try(path: Path) -> Path:
    """Return a name beside a file that no other try to write it has.

    Raises:
        FileNotFoundError: If this machine does not see the folder; naming that.
    """
    os.stat(path.parent)
    return path.with_name(f"{path.name}.{uuid.uuid4().hex}")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, which is there with all of its content or not at all.

    Raises:
        FileNotFoundError: If this machine does not see its folder.
    """
    tried = name_to_try(path)
    tried.write_bytes(content)
    os.replace(tried, path)
