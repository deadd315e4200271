"""Console logs as the daemon's writer leaves them, for tests of what reads them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.ctl.conftest import UUIDS, command, run


class Log:
    """A console's log as the daemon's writer leaves it: a file, an index, rotated ones."""

    def __init__(self, directory: Path, stem: str = UUIDS[1], name: str = "web01") -> None:
        self.directory, self.stem, self.position = directory, stem, 0
        (directory / "by-name").mkdir(parents=True, exist_ok=True)
        (directory / "by-name" / f"{name}.log").symlink_to(f"../{stem}.log")
        self.path = directory / f"{stem}.log"
        self.begin_file(at=1)

    def begin_file(self, at: float) -> None:
        self.path.touch()
        self.note(at, f"{self.position} base")

    def note(self, at: float, words: str) -> None:
        with (self.directory / f"{self.stem}.idx").open("a") as index:
            index.write(f"{at * 1000:.0f} {words}\n")

    def say(self, text: str, at: float = 1000) -> None:
        self.note(at, f"{self.position} mark")
        with self.path.open("ab") as file:
            file.write(text.encode())
        self.position += len(text.encode())

    def happen(self, word: str, at: float, **facts: object) -> None:
        """An event."""
        self.note(at, f"{self.position} {word} {json.dumps(facts, separators=(',', ':'))}")

    def ctl(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Runs vspcctl to its end, without a daemon."""
        return run("--root", str(self.directory.parent), *words, stdin=b"", **env)

    def command(self, *words: str) -> list[str]:
        return command("--root", str(self.directory.parent), *words)

    def rotate(self, at: float = 1000) -> None:
        for suffix in ("log", "idx"):
            names = [self.directory / f"{self.stem}.{suffix}{end}" for end in (".3", ".2", ".1", "")]
            for newer, older in zip(names[1:], names):
                if newer.exists():
                    newer.rename(older)
        self.begin_file(at)
