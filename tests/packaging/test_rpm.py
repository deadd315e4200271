"""The RPM: built from the archive, installed, verified, upgraded, erased in a root of its own, and running there."""

from __future__ import annotations

import shutil
import subprocess
import sys
import xml.etree.ElementTree as xml
from contextlib import ExitStack
from pathlib import Path
from typing import Optional

import pytest

from tests.packaging.rpms import NEXT, SOURCE, VERSION, Packages, Root, run
from tests.system.clients import TcpClient
from tests.system.daemon import Daemon
from vspcd import config

pytestmark = pytest.mark.timeout(300)  # all processes of a run wait for the one that builds

LIBRARY = "/usr/lib/vspcd"
CONFIG = "/etc/vspcd/vspcd.yaml"
SELINUX_TOOLS = Path("/usr/share/selinux/devel/Makefile")


@pytest.fixture
def installed(packages: Packages, tmp_path: Path) -> Root:
    made = Root(tmp_path / "root")
    made.install(packages.main())
    return made


class InstalledDaemon(Daemon):
    """A daemon that runs from the package's files. Its own first line names the system's Python, which has no libraries
    here."""

    def __init__(self, root: Path, installed: Root) -> None:
        super().__init__(root)
        self._installed = installed

    def launched(self, name: str) -> list[str]:
        return [sys.executable, "-I", str(self._installed.path(f"/usr/bin/{name}"))]

    def command(self) -> list[str]:
        return [*self.launched("vspcd"), *super().command()[1:]]

    def ctl(self, *words: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        command = [*self.launched("vspcctl"), "--root", str(self.root), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def test_the_packages_are_for_all_architectures_and_of_this_version(packages: Packages) -> None:
    told = run("rpm", "-qp", "--qf", "%{name} %{version} %{arch}", packages.main())
    assert told == f"vspcd {VERSION} noarch"


@pytest.mark.skipif(shutil.which("rpmlint") is None, reason="there is no rpmlint")
def test_rpmlint_finds_nothing_that_has_no_reason(packages: Packages) -> None:
    redhat = SOURCE / "contrib" / "redhat"
    rpms = [packages.source(), packages.main(), *packages.selinux()]
    told = run("rpmlint", "-r", redhat / "vspcd.rpmlintrc", redhat / "vspcd.spec", *rpms)
    assert " 0 errors, 0 warnings" in told, told


def test_each_waiver_for_rpmlint_has_its_reason() -> None:
    lines = (SOURCE / "contrib" / "redhat" / "vspcd.rpmlintrc").read_text().splitlines()
    waivers = [number for number, line in enumerate(lines) if line.startswith("addFilter")]
    assert len(waivers) > 5
    assert [
        lines[number] for number in waivers if not lines[number - 1].startswith(("# ", "addFilter"))
    ] == []


def test_nothing_is_where_the_systems_python_looks(installed: Root) -> None:
    modules = {name for name in installed.files() if name.endswith((".py", ".pyc"))}
    assert f"{LIBRARY}/workers/shell.py" in modules
    assert [name for name in modules if not name.startswith(f"{LIBRARY}/")] == []


def test_all_modules_are_compiled_so_that_nobody_compiles_them_at_each_start(installed: Root) -> None:
    library = installed.path(LIBRARY)
    sources = {path.relative_to(library) for path in library.rglob("*.py")}
    compiled = {path.parent.parent / path.name.partition(".")[0] for path in library.rglob("*.pyc")}
    assert {path.with_suffix("") for path in sources} == {path.relative_to(library) for path in compiled}
    assert len(sources) > 150


def test_what_is_installed_verifies(installed: Root) -> None:
    assert installed.verify() == []
    installed.path("/usr/bin/vspcd").write_text("something else")
    assert [line.split()[-1] for line in installed.verify()] == ["/usr/bin/vspcd"]


def test_secrets_are_for_the_daemon_and_its_group(installed: Root) -> None:
    listed = installed.rpm(
        "-q", "--qf", "[%{filenames} %{filemodes:octal} %{fileusername}:%{filegroupname}\n]", "vspcd"
    )
    found = dict(line.split(" ", 1) for line in listed.splitlines())
    assert found[CONFIG] == "100640 root:vspc"
    assert found["/var/log/vspc"] == found["/var/lib/vspc"] == "40750 vspc:vspc"
    assert {owner.split()[1] for name, owner in found.items() if not name.startswith(("/etc", "/var"))} == {
        "root:root"
    }


def test_pages_and_completion_are_there(installed: Root) -> None:
    for page in ("man8/vspcd.8.gz", "man1/vspcctl.1.gz", "man5/vspcd.yaml.5.gz"):
        assert b".SH NAME" in subprocess.check_output(
            ["gzip", "-dc", installed.path(f"/usr/share/man/{page}")]
        )
    for script in (
        "bash-completion/completions/vspcctl",
        "zsh/site-functions/_vspcctl",
        "fish/vendor_completions.d/vspcctl.fish",
    ):
        assert "broadcast" in installed.path(f"/usr/share/{script}").read_text()


def test_the_requirements_have_fedoras_names(packages: Packages) -> None:
    needs = set(run("rpm", "-qp", "--requires", packages.main()).split())
    assert {"python3-pyyaml", "python3-sdnotify", "python3-setproctitle"} <= needs


@pytest.mark.skipif(not SELINUX_TOOLS.exists(), reason="the tools for SELinux policies are not there")
def test_the_selinux_module_is_compiled_where_the_tools_are(packages: Packages) -> None:
    (package,) = packages.selinux()
    assert "/usr/share/selinux/packages/vspcd.pp" in run("rpm", "-qpl", package).split()


def test_the_firewalls_service_opens_the_port_that_vms_dial(installed: Root) -> None:
    service = xml.parse(installed.path("/usr/lib/firewalld/services/vspcd.xml")).getroot()
    defaults = config.load(None, (), None).proxy.listen
    assert [port.get("port") for port in service.iter("port")] == [str(port) for _host, port in defaults]


@pytest.mark.skipif(shutil.which("systemd-tmpfiles") is None, reason="there is no systemd-tmpfiles")
def test_tmpfiles_make_the_folders_again(installed: Root) -> None:
    for folder in ("/var/log/vspc", "/var/lib/vspc"):
        installed.path(folder).rmdir()
    run(
        "systemd-tmpfiles",
        f"--root={installed.folder}",
        "--create",
        installed.path("/usr/lib/tmpfiles.d/vspcd.conf"),
    )
    assert installed.path("/run/vspc").is_dir()
    assert installed.verify() == []


@pytest.mark.skipif(shutil.which("logrotate") is None, reason="there is no logrotate")
def test_logrotate_reads_the_example(tmp_path: Path) -> None:
    lines = (
        (SOURCE / "conf" / "vspcd.logrotate").read_text().replace("su vspc vspc", "su root root").splitlines()
    )
    first = next(number for number, line in enumerate(lines) if line.startswith("#/var/log"))
    for name, text in (("audit", lines[:first]), ("consoles", [line.lstrip("#") for line in lines[first:]])):
        path = tmp_path / name
        path.write_text("\n".join(text) + "\n")
        done = subprocess.run(["logrotate", "-d", str(path)], capture_output=True, text=True, check=False)
        assert (done.returncode, "error" in done.stderr) == (0, False), done.stderr


def test_an_upgrade_leaves_the_administrators_file_alone(installed: Root, packages: Packages) -> None:
    installed.path(CONFIG).write_text("log_level: debug\n")
    installed.install(packages.main(NEXT))
    assert installed.path(CONFIG).read_text() == "log_level: debug\n"
    assert "only the next version" in installed.path(f"{CONFIG}.rpmnew").read_text()
    assert [line.split()[-1] for line in installed.verify()] == [CONFIG]


def test_erasing_leaves_logs_and_what_was_changed_and_nothing_else(installed: Root) -> None:
    installed.path(CONFIG).write_text("log_level: debug\n")
    installed.path("/var/log/vspc/kept.log").write_text("said")
    installed.erase()
    kept = {"/etc/vspcd", f"{CONFIG}.rpmsave", "/var/log/vspc", "/var/log/vspc/kept.log"}
    assert {name for name in installed.files() if "vsp" in name} == kept


@pytest.fixture
def running(installed: Root, root: Path, stack: ExitStack) -> InstalledDaemon:
    made = InstalledDaemon(root, installed)
    stack.callback(made.clean_up)
    stack.callback(lambda: print(made.log()))
    made.start()
    return made


def test_the_installed_daemon_serves_and_writes_nothing_to_its_library(
    installed: Root, packages: Packages, root: Path, stack: ExitStack
) -> None:
    installed.install(packages.main(NEXT))
    before = installed.files()
    daemon = InstalledDaemon(root, installed)
    stack.callback(daemon.clean_up)
    daemon.start()
    assert daemon.status()["version"] == NEXT  # which no other place has that Python looks into
    with daemon.dial() as vm, TcpClient(daemon.port(vm.name)) as client:
        daemon.wait_clients(vm.name, 1)
        vm.send(b"hello")
        client.read_until(b"hello")
        assert vm.name in daemon.ctl("status").stdout
    assert NEXT in daemon.ctl("--version").stdout
    daemon.stop()
    assert (installed.verify(), installed.files()) == ([], before)


def test_a_reload_after_the_packages_upgrade_lets_it_take_over(
    running: InstalledDaemon, installed: Root, packages: Packages
) -> None:
    pid: Optional[int] = running.pid
    with running.dial() as vm, TcpClient(running.port(vm.name)) as client:
        installed.install(packages.main(NEXT))
        done = running.ctl("reload", timeout=90)
        assert (done.returncode, NEXT in done.stdout) == (0, True), done.stdout + done.stderr
        vm.send(b"still here")
        client.read_until(b"still here")
        assert (running.status()["version"], running.status()["pid"]) == (NEXT, pid)
    assert installed.verify() == []
