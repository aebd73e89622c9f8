"""Trips, step by step."""

from .features import clean as clean
