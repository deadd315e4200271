"""The system's programs that tests drive. A missing one is a failure that says what to install."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

PACKAGES = {
    "asciinema": "asciinema",
    "busybox": "busybox-static",
    "haproxy": "haproxy",
    "inetutils-telnet": "inetutils-telnet",
    "less": "less",
    "nc": "netcat-openbsd",
    "openssl": "openssl",
    "plink": "putty-tools",
    "qemu-system-x86_64": "qemu-system-x86",
    "rg": "ripgrep",
    "socat": "socat",
    "telnet-ssl": "telnet-ssl",
}


def tool(command: str) -> str:
    path = shutil.which(command)
    if path is None:
        pytest.fail(f"{command} is missing: apt-get install --no-install-recommends {PACKAGES[command]}")
    return path


def kernel() -> Path:
    """What tests/system/fetch-kernel has fetched."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache / "vspcd" / "vmlinuz"
    if not path.exists():
        pytest.fail(f"{path} is missing: run tests/system/fetch-kernel")
    return path
