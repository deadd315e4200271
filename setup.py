"""Packaging of vspcd. Reads the version as text; only the manual pages need the daemon's libraries."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.sdist import sdist

HERE = Path(__file__).resolve().parent

TEST = ["psutil", "pytest>=8", "pytest-timeout", "pytest-xdist", "hypothesis"]
DEV = [*TEST, "mypy", "ruff", "types-PyYAML", "types-psutil"]


def version() -> str:
    text = (HERE / "vspcd" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise SystemExit('vspcd/__init__.py has no line __version__ = "..."')
    return found.group(1)


def long_description() -> str:
    readme = HERE / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


def manual_pages() -> list[tuple[str, list[str]]]:
    """Made from the parsers, unless the archive brings them. Without the daemon's libraries there are none."""
    pages = {"man1": "man/vspcctl.1", "man5": "man/vspcd.yaml.5", "man8": "man/vspcd.8"}
    if not all((HERE / page).exists() for page in pages.values()):
        done = subprocess.run([sys.executable, str(HERE / "man" / "generate.py")], check=False)
        if done.returncode:
            print("setup.py: no manual pages, since man/generate.py has failed", file=sys.stderr)
            return []
    return [(f"share/man/{folder}", [page]) for folder, page in pages.items()]


class Sdist(sdist):  # type: ignore[misc]
    """The archive's spec file has the version, so that ``rpmbuild -ta`` takes the archive as it is."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        spec = Path(base_dir, "contrib", "redhat", "vspcd.spec")
        text, count = re.subn(r"^(Version:\s+)0$", rf"\g<1>{version()}", spec.read_text(), flags=re.MULTILINE)
        if count != 1:
            raise SystemExit("contrib/redhat/vspcd.spec has no line Version: 0")
        spec.unlink()  # it may be a link to the source's own
        spec.write_text(text)


setup(
    name="vspcd",
    version=version(),
    description="Virtual serial port concentrator: the consoles of a VMware estate, shared and logged",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    author="The vspcd authors",
    license="BSD-2-Clause",
    python_requires=">=3.9",
    packages=find_packages(include=["vspcd", "vspcd.*", "workers", "workers.*"]),
    package_data={"vspcd": ["py.typed"]},
    data_files=manual_pages(),
    cmdclass={"sdist": Sdist},
    install_requires=["setproctitle", "sdnotify", "pyyaml"],
    extras_require={"test": TEST, "dev": DEV},
    entry_points={
        "console_scripts": [
            "vspcd = vspcd.daemon:main",
            "vspcctl = vspcd.ctl.main:main",
        ]
    },
    classifiers=[
        "Environment :: No Input/Output (Daemon)",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.9",
        "Topic :: System :: Systems Administration",
    ],
)
