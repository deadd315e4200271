"""A copy of the product that a test can change, as a package upgrade does. Owns the copy."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import vspcd

SOURCE = Path(vspcd.__file__).parent.parent


class Installed:
    """The product below a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for package in ("vspcd", "workers"):
            # With the bytecode, which holds for a source of its time; what is being written has a longer name.
            ignore = shutil.ignore_patterns("*.pyc.*", "simulator")
            shutil.copytree(SOURCE / package, folder / package, ignore=ignore)

    @property
    def environment(self) -> dict[str, str]:
        """What makes Python take this copy, and no bytecode of a file that was changed in the same second."""
        return {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}

    def write(self, name: str, text: str) -> None:
        """Replace a file as package managers do: the old one stays whole for whoever has it open."""
        new = self.folder / f"{name}.new"
        new.write_text(text)
        os.replace(new, self.folder / name)

    def change(self, name: str, pattern: str, by: str) -> None:
        """Change what a file says."""
        text, count = re.subn(
            pattern, lambda _match: by, (self.folder / name).read_text(), count=1, flags=re.M
        )
        assert count == 1, f"{name} has nothing like {pattern}"
        self.write(name, text)

    def version(self, version: str) -> None:
        """Another version is on the disk from now on."""
        self.change("vspcd/__init__.py", r'^__version__ = ".*"$', f'__version__ = "{version}"')
