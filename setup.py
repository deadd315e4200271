"""Packaging of vspcd. Reads the version as text, so that a build needs none of the dependencies."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

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
    data_files=[
        ("share/man/man1", ["man/vspcctl.1"]),
        ("share/man/man5", ["man/vspcd.yaml.5"]),
        ("share/man/man8", ["man/vspcd.8"]),
    ],
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
