"""vspcctl console on a terminal, and its escape menu."""

from __future__ import annotations

import re
from typing import Union

from tests.system.clients import PtyClient
from tests.system.daemon import VSPCCTL, Daemon

ESCAPE = b"\x1d"


class Menu(PtyClient):
    """A session on a terminal."""

    def choose(self, key: bytes, question: Union[bytes, re.Pattern[bytes]]) -> None:
        """Type a key behind the escape key, and wait for what it asks."""
        self.send(ESCAPE + key)
        self.read_until(question)

    def answer(self, line: bytes) -> None:
        self.send(line + b"\r")


def session(daemon: Daemon, name: str, *options: str, columns: int = 80) -> Menu:
    words = [VSPCCTL, "--root", str(daemon.root), "console", "--replay", "0", *options, name]
    client = Menu(words, columns=columns)
    client.read_until(b"helps]")
    return client
