"""Templates of pages that need nothing else, not even a network.

Everything that comes from data is escaped; what a page allows of styles and scripts are
its own, by their digests.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.components.evaluation.drawing import shown

if TYPE_CHECKING:
    import jinja2


@functools.cache
def template(path: Path) -> jinja2.Template:
    """Return the template in a file.

    It may include and import those beside it, and what pages share: `page.css.jinja`,
    `page.js.jinja` and `page.parts.jinja`. It has two filters more than Jinja: `shown`,
    for text from data, and `digest`, for what a Content-Security-Policy calls a style
    or a script by.

    Args:
        path: The file.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([path.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    environment.filters["digest"] = _digest
    return environment.get_template(path.name)


def _digest(text: Any) -> str:
    code = base64.b64encode(hashlib.sha256(str(text).encode()).digest()).decode()
    return f"'sha256-{code}'"
