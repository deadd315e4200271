"""A copy of what the console says, in a file of the user's.

Does: appends each chunk as it comes; ends with a word when the file cannot take it.
Owns: the open file.
Never: waits for a disk longer than a write takes; copies what the user types or what the tool says.
"""

from __future__ import annotations

import os
import stat
from typing import Callable

from vspcd.core.names import visible
from vspcd.ctl.companion import Companion

FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
MODE = 0o600


class LocalCopy(Companion):
    """``say`` tells the user something; ``over`` is called when the copy has ended by itself."""

    def __init__(self, path: str, say: Callable[[str], None], over: Callable[[Companion], None]) -> None:
        """Raises OSError when the file cannot be written, ValueError when it is no file."""
        self.path, self.written = visible(path), 0
        self._say, self._over = say, over
        self._fd = os.open(os.path.expanduser(path), FLAGS, MODE)
        found = os.fstat(self._fd)
        self.appends = found.st_size > 0
        if not stat.S_ISREG(found.st_mode):
            os.close(self._fd)
            raise ValueError("it is not a file")

    def heard(self, data: bytes) -> None:
        try:
            while data:
                size = os.write(self._fd, data)
                self.written += size
                data = data[size:]
        except OSError as error:
            self._say(
                f"the local copy has ended: {self.path}: {error.strerror}; it has {self.written} bytes, "
                "the daemon's log has all"
            )
            self._over(self)

    def end(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
