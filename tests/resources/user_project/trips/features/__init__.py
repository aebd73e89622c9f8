"""What is made of a row."""

from .. import settings
from .scaling import *
from .words import tidy as tidied


def clean(row, limits, mode):
    """Return a row with its number scaled and its word tidied, or None."""
    number, word = row.split(",")
    value = scaled(int(number))
    if not limits.low <= value <= limits.high:
        return None
    word = tidied(word)
    return f"{value},{word.upper() if mode is settings.Mode.UPPER else word}"


def unrelated(row):
    """Do what nobody asks for."""
    return row[::-1]
