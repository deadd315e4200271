"""Builds the packages as an administrator does, and keeps installed ones in roots of their own.

Owns the folders that it is given. Two processes of one test run share what is built.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import vspcd

SOURCE = Path(vspcd.__file__).resolve().parent.parent
VERSION = vspcd.__version__
NEXT = "99.1"
"""A version that is newer than this one will ever be."""

DATABASE = "/var/lib/rpm"  # Debian's rpm has another place
NEEDED = ("rpmbuild", "rpm", "systemd-sysusers")
MISSING = [tool for tool in NEEDED if shutil.which(tool) is None]

_FORGOTTEN = shutil.ignore_patterns(
    *(
        ".git",
        ".venv",
        ".demo",
        ".run",
        ".crash",
        "build",
        "dist",
        "*.egg-info",
        "__pycache__",
        ".*_cache",
        ".hypothesis",
    )
)


def run(*command: object, **options: str) -> str:
    """What a command prints. It must succeed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return str(done.stdout)


def copied(folder: Path) -> Path:
    """A copy of the source as a clean checkout has it."""
    copy = folder / "source"
    shutil.copytree(SOURCE, copy, ignore=_FORGOTTEN)
    for page in (copy / "man").glob("*.[158]"):
        page.unlink()
    return copy


def archive(folder: Path) -> Path:
    """The archive that ``setup.py sdist`` makes."""
    copy = copied(folder)
    run(sys.executable, "setup.py", "-q", "sdist", "--dist-dir", folder, cwd=str(copy))
    shutil.rmtree(copy)
    return folder / f"vspcd-{VERSION}.tar.gz"


def successor(made: Path) -> Path:
    """The archive of a later version, made of that of this one."""
    folder = made.parent
    with tarfile.open(made) as opened:
        opened.extractall(folder)
    tree = (folder / f"vspcd-{VERSION}").rename(folder / f"vspcd-{NEXT}")
    change(tree / "vspcd" / "__init__.py", r'^__version__ = ".*"$', f'__version__ = "{NEXT}"')
    change(tree / "contrib" / "redhat" / "vspcd.spec", r"^Version:.*$", f"Version: {NEXT}")
    change(tree / "conf" / "vspcd.yaml", r"\Z", "# A line that only the next version has.\n")
    later = folder / f"vspcd-{NEXT}.tar.gz"
    with tarfile.open(later, "w:gz") as opened:
        opened.add(tree, tree.name)
    shutil.rmtree(tree)
    return later


def change(path: Path, pattern: str, by: str) -> None:
    text, count = re.subn(pattern, by, path.read_text(), count=1, flags=re.MULTILINE)
    assert count == 1, f"{path} has nothing like {pattern}"
    path.write_text(text)


def build(made: Path, folder: Path) -> None:
    """``rpmbuild -ta``. There is no database that knows what is installed here, so it is not asked."""
    quick = dict.fromkeys(("_binary_payload", "_source_payload"), "w1.gzdio")
    places = {
        "_topdir": folder / "build",
        "_rpmdir": folder,
        "_srcrpmdir": folder,
        "__python3": sys.executable,
    }
    defined = {**places, **quick}
    words = [word for name, value in defined.items() for word in ("--define", f"{name} {value}")]
    run("rpmbuild", "-ta", "--quiet", "--nodeps", *words, made)
    shutil.rmtree(folder / "build")


class Packages:
    """What was built: packages of this version and of the next one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "complete").exists():
                made = archive(folder)
                build(made, folder)
                build(successor(made), folder)
                (folder / "complete").touch()

    def main(self, version: str = VERSION) -> Path:
        return next((self.folder / "noarch").glob(f"vspcd-{version}-1*.noarch.rpm"))

    def selinux(self) -> list[Path]:
        return list((self.folder / "noarch").glob(f"vspcd-selinux-{VERSION}-1*.noarch.rpm"))

    def source(self) -> Path:
        return next(self.folder.glob(f"vspcd-{VERSION}-1*.src.rpm"))


class Root:
    """A system of its own that has nothing but this package; scriptlets find no shell there and are left out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "etc").mkdir(parents=True)
        self.rpm("--initdb")
        run("systemd-sysusers", f"--root={folder}", SOURCE / "conf" / "vspcd.sysusers")

    def rpm(self, *words: object) -> str:
        """What rpm prints about this root."""
        return run("rpm", "--root", self.folder, "--dbpath", DATABASE, *words)

    def install(self, package: Path) -> None:
        self.rpm("-U", "--nodeps", "--noscripts", package)

    def erase(self) -> None:
        self.rpm("-e", "--noscripts", "vspcd")

    def verify(self) -> list[str]:
        """What differs from the package, one line a file."""
        command = ["rpm", "--root", str(self.folder), "--dbpath", DATABASE, "-V", "--nodeps", "vspcd"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout.splitlines()

    def path(self, inside: str) -> Path:
        return self.folder / inside.lstrip("/")

    def files(self) -> set[str]:
        """All files and folders of a package, or left behind by one."""
        names = {
            f"/{Path(where, name).relative_to(self.folder)}"
            for where, folders, files in os.walk(self.folder)
            for name in (*folders, *files)
        }
        own = ("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/etc/.pwd.lock")
        return (
            {name for name in names if not name.startswith(DATABASE)}
            - set(own)
            - {"/etc", "/var", "/var/lib"}
        )
