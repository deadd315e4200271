"""A real guest: Debian's cloud kernel under QEMU's own processor, with busybox and nothing else.

Owns the QEMU process. The serial port ttyS0 is a Unix socket; QEMU waits for it to be taken before it boots.
"""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

from tests.system import processes
from tests.system.tools import kernel, tool

UP = "the guest is up"
INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
echo {UP}
exec setsid cttyhack sh
"""

DIRECTORY, EXECUTABLE = 0o040755, 0o100755


def entry(number: int, name: str, mode: int, content: bytes = b"") -> bytes:
    """One file of a cpio archive as the kernel reads it ("newc")."""
    fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return padded(header) + padded(content)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def initramfs() -> bytes:
    files = [
        ("bin", DIRECTORY, b""),
        ("dev", DIRECTORY, b""),
        ("proc", DIRECTORY, b""),
        ("bin/busybox", EXECUTABLE, Path(tool("busybox")).read_bytes()),
        ("init", EXECUTABLE, INIT.encode()),
        ("TRAILER!!!", 0, b""),
    ]
    return gzip.compress(b"".join(entry(n, *file) for n, file in enumerate(files, 1)), 1)


class Guest:
    def __init__(self, folder: Path) -> None:
        self.serial = folder / "ttyS0"
        ramdisk = folder / "initramfs.gz"
        ramdisk.write_bytes(initramfs())
        command = [
            *(tool("qemu-system-x86_64"), "-M", "pc", "-accel", "tcg", "-m", "96", "-nodefaults"),
            *("-display", "none", "-monitor", "none", "-no-reboot"),
            *("-kernel", str(kernel()), "-initrd", str(ramdisk)),
            *("-append", "console=ttyS0 quiet panic=-1"),
            *("-serial", f"unix:{self.serial},server=on,wait=on"),
        ]
        with (folder / "qemu.out").open("wb") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        processes.kill_session(self.process.pid)
        self.process.wait(timeout=20)
