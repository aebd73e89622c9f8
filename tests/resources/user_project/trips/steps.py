"""Steps on all the rows, known to the registry."""

from .registry import step


@step
def without_twins(rows):
    return list(dict.fromkeys(rows))
