"""What ``python3 -m build`` makes: a wheel and an archive that install in an empty environment and run there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.packaging.rpms import VERSION, copied, run
from tests.system.clients import TcpClient
from tests.system.daemon import Daemon

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

VERSIONS = range(9, 20)
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input")
OFFLINE = re.compile(r"Could not find a version|NewConnectionError|No matching distribution|Max retries")


def pythons() -> dict[str, Path]:
    """The Pythons of this machine that we support, those of pyenv too."""
    folders = [Path(name) for name in os.environ["PATH"].split(":")]
    folders += sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/*/bin"))
    found: dict[str, Path] = {}
    for name in (f"python3.{minor}" for minor in VERSIONS):
        usable = (folder / name for folder in folders if "shims" not in folder.parts and works(folder / name))
        first = next(usable, None)
        if first is not None:
            found[name] = first
    return found


def works(python: Path) -> bool:
    """Whether it can make environments."""
    if not os.access(python, os.X_OK):
        return False
    done = subprocess.run([str(python), "-c", "import ensurepip, venv"], capture_output=True, check=False)
    return done.returncode == 0


PYTHONS = pythons()


class Built(NamedTuple):
    """The two files of a release."""

    wheel: Path
    archive: Path


class Environment:
    """An empty environment of some Python."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.bin = folder / "bin"
        run(python, "-m", "venv", folder)

    def install(self, what: object) -> None:
        """From the package index, where something is lacking. Without a network there is nothing to test."""
        command = [str(self.bin / "python"), *PIP, "install", str(what)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode and OFFLINE.search(done.stderr):
            pytest.skip("the package index cannot be reached")
        assert done.returncode == 0, done.stderr


class EnvironmentsDaemon(Daemon):
    """A daemon that runs from an environment."""

    def __init__(self, root: Path, environment: Environment) -> None:
        super().__init__(root)
        self._bin = environment.bin

    def command(self) -> list[str]:
        return [str(self._bin / "vspcd"), *super().command()[1:]]

    def ctl(self, *words: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        command = [str(self._bin / "vspcctl"), "--root", str(self.root), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    environment = Environment(folder / "environment", next(iter(PYTHONS.values())))
    environment.install("build")
    source = copied(folder)
    run(environment.bin / "python", "-m", "build", "--outdir", folder, source)
    shutil.rmtree(source)
    return Built(folder / f"vspcd-{VERSION}-py3-none-any.whl", folder / f"vspcd-{VERSION}.tar.gz")


def serves(environment: Environment, root: Path, stack: ExitStack) -> None:
    """A VM and a client meet on a console, and the tool tells of them."""
    daemon = EnvironmentsDaemon(root, environment)
    stack.callback(daemon.clean_up)
    stack.callback(lambda: print(daemon.log()))
    daemon.environment = {"PYTHONPATH": ""}
    daemon.start()
    with daemon.dial() as vm, TcpClient(daemon.port(vm.name)) as client:
        client.send(b"typed")
        assert vm.read(5) == b"typed"
        vm.send(b"said")
        assert client.read(4) == b"said"
        assert vm.name in daemon.ctl("status").stdout
        done = daemon.ctl("upgrade", timeout=90)
        assert done.returncode == 0, done.stderr
    daemon.stop()


def test_the_wheel_has_the_packages_and_the_manual_pages_and_nothing_else(built: Built) -> None:
    names = zipfile.ZipFile(built.wheel).namelist()
    pages = {name.rpartition("/")[2] for name in names if "/share/man/" in name}
    assert pages == {"vspcd.8", "vspcctl.1", "vspcd.yaml.5"}
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"vspcd", "workers"}


@pytest.mark.parametrize("python", PYTHONS)
def test_the_wheel_installs_and_runs(
    python: str, built: Built, tmp_path: Path, root: Path, stack: ExitStack
) -> None:
    environment = Environment(tmp_path / "environment", PYTHONS[python])
    environment.install(built.wheel)
    run(environment.bin / "python", "-m", "pip", "check")
    serves(environment, root, stack)


def test_the_archive_installs_and_runs(built: Built, tmp_path: Path, root: Path, stack: ExitStack) -> None:
    environment = Environment(tmp_path / "environment", next(iter(PYTHONS.values())))
    environment.install(built.archive)
    assert (tmp_path / "environment" / "share" / "man" / "man8" / "vspcd.8").exists()
    serves(environment, root, stack)
