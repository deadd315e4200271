"""What goes along with a session for a while: a file that is sent, a local copy, other consoles that hear the same.

Owns: nothing.
Never: blocks the session; each of its calls returns at once.
"""

from __future__ import annotations

from collections.abc import Mapping


class Companion:
    """The session calls these; what a companion does not need it leaves as it is here."""

    busy = False
    """Whether it has something to do, so that the end of a piped input is not the end yet."""

    def interests(self) -> dict[int, int]:
        """Descriptors and the events that are waited for."""
        return {}

    def serve(self, ready: Mapping[int, int]) -> None:
        """Called once in every turn of the session, with what has happened to any descriptor."""

    def due(self) -> float:
        """Seconds until it wants to be served, whatever happens."""
        return float("inf")

    def heard(self, data: bytes) -> None:
        """The console has said this."""

    def typed(self, data: bytes) -> bool:
        """The user types this; whether it is kept from the console."""
        return False

    def end(self) -> None:
        """The session is over, or on another console."""
