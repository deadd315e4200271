"""A bad configuration: nothing starts, and every mistake is named with its place."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.system.conftest import StartDaemon
from tests.system.daemon import VSPCD

EXAMPLE = Path(__file__).resolve().parents[2] / "conf" / "vspcd.yaml"

MISTAKES = {
    "an unknown key": ("ports:\n  frist: 50000\n", ["2", "ports.frist", "first"]),
    "an unknown section": ("port:\n  first: 50000\n", ["1", "port", "ports"]),
    "a wrong type": ("ports:\n  first: lots\n", ["2", "ports.first", "lots"]),
    "an impossible value": ("ports:\n  first: 70000\n", ["2", "ports.first", "65535"]),
    "a wrong choice": ("log:\n  sync: sometimes\n", ["2", "log.sync", "always"]),
    "a wrong network": ("proxy:\n  allow: [10.0.0.0/99]\n", ["2", "proxy.allow", "10.0.0.0/99"]),
    "the same key twice": ("ports:\n  first: 1024\n  first: 2048\n", ["3", "first"]),
    "broken YAML": ("ports: [\n", ["vspcd.yaml"]),
}


def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [VSPCD, "--root", str(root), *words], capture_output=True, text=True, timeout=20, check=False
    )


def write(root: Path, text: str) -> str:
    path = root / "vspcd.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("check", [[], ["--check"]], ids=["start", "check"])
@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_mistake_is_named_with_its_place_and_nothing_starts(
    mistake: str, check: list[str], root: Path
) -> None:
    text, words = MISTAKES[mistake]
    done = run(root, "--config", write(root, text), *check)
    assert done.returncode != 0
    assert [word for word in ["vspcd.yaml", *words] if word not in done.stderr] == []
    assert "Traceback" not in done.stderr
    assert not (root / "run").exists()


def test_all_mistakes_are_named_at_once(root: Path) -> None:
    text = "ports:\n  frist: 1\nlog:\n  sync: sometimes\n"
    done = run(root, "--config", write(root, text), "-o", "clients.max=none")
    assert [key for key in ("ports.frist", "log.sync", "clients.max") if key not in done.stderr] == []


@pytest.mark.parametrize("option", ["ports.frist=1", "ports.first=lots", "ports", "=1"])
def test_wrong_option_on_the_command_line_is_named(option: str, root: Path) -> None:
    done = run(root, "-o", option)
    assert done.returncode != 0
    assert option in done.stderr
    assert not (root / "run").exists()


@pytest.mark.parametrize("group", ["nosuchgroup", "4294967295", "9" * 5000], ids=["name", "number", "digits"])
def test_a_group_that_is_not_there_is_named(group: str, root: Path) -> None:
    done = run(root, "-o", f"sockets.group='{group}'", "--check")
    assert done.returncode == 2
    assert f"sockets.group: there is no group '{group[:40]}" in done.stderr


def test_missing_configuration_file_is_named(root: Path) -> None:
    done = run(root, "--config", str(root / "nowhere.yaml"))
    assert done.returncode != 0
    assert "nowhere.yaml" in done.stderr


def test_private_root_does_not_listen_on_other_than_loopback(root: Path) -> None:
    done = run(root, "-o", "proxy.listen=[192.0.2.1:13370]")
    assert done.returncode != 0
    assert "192.0.2.1" in done.stderr


def test_example_configuration_is_right(root: Path) -> None:
    done = run(root, "--config", str(EXAMPLE), "--check")
    assert (done.returncode, done.stderr) == (0, "")


def test_check_starts_nothing(root: Path) -> None:
    assert run(root, "--check").returncode == 0
    assert list(root.iterdir()) == []


def test_port_in_use_for_vms_is_named_and_nothing_starts(start_daemon: StartDaemon, root: Path) -> None:
    host, port = start_daemon().proxy
    second = root / "second"
    done = run(second, "-o", f"proxy.listen=['{host}:{port}']", "-o", "admin.listen=[127.0.0.1:0]")
    assert done.returncode != 0
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr


def test_reload_keeps_the_old_configuration_when_the_new_one_is_wrong(
    start_daemon: StartDaemon, root: Path
) -> None:
    path = root / "vspcd.yaml"
    path.write_text("clients:\n  max: 3\n")
    daemon = start_daemon(config=path)
    path.write_text("clients:\n  maximum: 4\n")
    done = daemon.ctl("reload")
    assert done.returncode != 0
    assert "clients.maximum" in done.stdout + done.stderr
    assert daemon.status()["pid"] == daemon.pid


def test_a_second_daemon_by_mistake_leaves_the_first_ones_pid(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    daemon, path = start_daemon(), tmp_path / "pid"
    path.write_text("the first one's")
    done = run(daemon.root, "--pidfile", str(path), "-o", "proxy.listen=[127.0.0.1:0]")
    assert done.returncode == 1
    assert "vspcd runs already in" in done.stderr
    assert path.read_text() == "the first one's"
