"""Serving: a blessed model becomes a numbered version of a serving directory."""

from penstock.components.serving.pusher import Pusher

__all__ = ["Pusher"]
