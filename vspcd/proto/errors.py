"""The two ways in which protocol code can fail. Owns nothing; any other exception is a bug."""

from __future__ import annotations


class PeerError(Exception):
    """The peer broke the protocol. Its connection is closed with this text as the reason."""


class LocalError(Exception):
    """Our own code used an interface wrongly."""
