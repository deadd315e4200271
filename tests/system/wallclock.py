"""A daemon whose wall clock can be set without touching anybody else's; its monotonic clock goes on as it should.

Uses libfaketime (Debian: faketime). Owns the file that says how far the clock is off.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Optional

from tests.system.daemon import VSPCCTL, Daemon

DAY = 86400
LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/local/lib")


def library() -> Optional[Path]:
    found = (path for top in LIBRARIES for path in Path(top).glob("**/libfaketime.so.1"))
    return next(found, None)


class MisledDaemon(Daemon):
    """The real daemon, and vspcctl, under a clock that the test sets."""

    def __init__(self, root: Path, *settings: str) -> None:
        super().__init__(root, *settings)
        self._offset = root / "clock"
        self.set_clock(0)

    def set_clock(self, offset: int) -> None:
        """The wall clock is off by so many seconds from now on."""
        whole = self._offset.with_suffix(".new")
        whole.write_text(f"{offset:+d}\n")
        os.replace(whole, self._offset)

    def _misled(self) -> list[str]:
        return [
            "env",
            f"LD_PRELOAD={library()}",
            f"FAKETIME_TIMESTAMP_FILE={self._offset}",
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
            "NO_FAKE_STAT=1",
        ]

    def command(self) -> list[str]:
        return [*self._misled(), *super().command()]

    def ctl(self, *words: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._misled(), VSPCCTL, "--root", str(self.root), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
