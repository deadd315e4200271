"""What a console's log is given: the ``log`` section of the configuration, and whom to call. Reads nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, NamedTuple

OFF_SIZE = 256 << 10
"""With logging off, the last bytes are kept in two files of this size for clients that lag."""

SPARE = 10.0
"""Percent of the run directory's file system, which others need too, that neither such files nor spools take."""


@dataclass
class LogSettings:
    """Sizes in bytes. ``sync``: interval, always or never. ``dir``: the log folder's path, empty when unknown.

    ``spool_dir`` is made when it is needed. ``quota`` 0 is none. The larger of ``reserve`` bytes and
    ``reserve_percent`` of the file system is to be left free.
    """

    enabled: bool = True
    max_size: int = 64 << 20
    keep: int = 5
    sync: str = "interval"
    dir: str = ""
    spool: int = 1 << 20
    spool_dir: str = ""
    quota: int = 0
    reserve: int = 0
    reserve_percent: float = 0.0

    def in_force(self) -> LogSettings:
        """The settings of the files that are written, which with logging off are for lagging clients alone."""
        if self.enabled:
            return self
        return LogSettings(False, OFF_SIZE, 1, "never", self.spool_dir, 0, reserve_percent=SPARE)


class Ties(NamedTuple):
    """Whom a log calls.

    ``changed(inode)``: that file has new bytes, said about every 0.4 s; whether it was heard. ``trouble``: writing
    begins to fail, with the reason, or works again, without; ``later(seconds, call)``: call once; ``renewed``: the
    folder is a new one.
    """

    changed: Callable[[int], bool]
    trouble: Callable[[str], None]
    later: Callable[[float, Callable[[], None]], object]
    renewed: Callable[[], object] = lambda: None
