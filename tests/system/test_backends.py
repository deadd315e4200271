"""Back ends of the port map with the real daemon: the documented example, memory, and one that misbehaves."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from tests.system.conftest import StartDaemon
from tests.system.daemon import VSPCD, Daemon
from tests.system.wait import until

DOCUMENT = Path(__file__).parents[2] / "docs" / "backends.md"


def example(folder: Path) -> list[str]:
    """The settings of a daemon with the back end of the document."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    (folder / "jsonmap.py").write_text(code)
    return ["ports.backend=jsonmap:JsonMap", f"ports.backend_path={folder}"]


def code(folder: Path, apply: str, load: str = "return []") -> list[str]:
    (folder / "own.py").write_text(
        "import os, time\nclass Map:\n"
        "    def __init__(self, state, options): self.state = state\n"
        f"    def load(self): {load}\n"
        f"    def apply(self, changes): {apply}\n"
        "    def close(self): pass\n"
    )
    return ["ports.backend=own:Map", f"ports.backend_path={folder}"]


def test_the_documented_example_keeps_the_ports(root: Path, start_daemon: StartDaemon) -> None:
    path = root / "map.json"
    settings = [*example(root), f"ports.backend_options={{file: {path}}}"]
    daemon = start_daemon(*settings)
    daemon.wait_log("port-map", "is not there; a new one is begun")
    with daemon.dial(name="web01") as vm:
        port = daemon.port("web01")
        entries = json.loads(path.read_text())
        assert [(each["console"], each["port"]) for each in entries] == [(vm.console, port[1])]
    daemon.stop()
    again = start_daemon(*settings)
    assert again.port("web01") == port
    assert again.ctl("forget", "web01").returncode == 0
    until(lambda: json.loads(path.read_text()) == [], "it is forgotten there too")


def test_the_documented_example_lives_through_deaths(root: Path, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(*example(root))
    with daemon.dial(name="web01"):
        port = daemon.port("web01")
        assert daemon.ctl("upgrade").returncode == 0
        assert daemon.port("web01") == port


def test_memory_is_forgotten_at_the_end(root: Path, start_daemon: StartDaemon) -> None:
    daemon = start_daemon("ports.backend=memory")
    with daemon.dial(name="web01"):
        assert daemon.ctl("upgrade").returncode == 0
        assert daemon.find("web01") is not None
    daemon.stop()
    assert start_daemon("ports.backend=memory").consoles() == []
    assert not (root / "state" / "portmap.db").exists()


def test_a_back_end_that_fails_is_told_and_tried_again(root: Path, start_daemon: StartDaemon) -> None:
    sign = root / "sign"
    sign.touch()
    daemon = start_daemon(*code(root, f"assert not os.path.exists({str(sign)!r}), 'disk gone'"))
    with daemon.dial(name="web01") as vm:
        daemon.wait_log("port-map-not-written", "own:Map", "apply failed: AssertionError: disk gone")
        vm.send(b"still here\r\n")
        until(lambda: b"still here" in daemon.log_file("web01").read_bytes(), "the console works")
        sign.unlink()
        daemon.port("web01")
    assert "keeper-died" not in daemon.log()


def test_a_back_end_that_hangs_for_good_is_ended(root: Path, start_daemon: StartDaemon) -> None:
    first = root / "first"
    hang = f"""
        if not os.path.exists({str(first)!r}):
            open({str(first)!r}, 'w').close()
            while True:
                try: time.sleep(1); sum(range(10**6))
                except BaseException: pass"""
    daemon = start_daemon(*code(root, hang))
    with daemon.dial(name="web01") as vm:
        vm.send(b"still here\r\n")
        until(lambda: b"still here" in daemon.log_file("web01").read_bytes(), "the console works")
        daemon.wait_log("keeper-killed", "hung")
        daemon.port("web01")


def ended(root: Path, settings: list[str]) -> tuple[int, str]:
    daemon = Daemon(root, *settings)
    process = daemon.spawn()
    try:
        return process.wait(timeout=40), daemon.log()
    finally:
        daemon.process = process
        daemon.clean_up()


def test_a_map_that_cannot_be_is_told_and_nothing_starts(root: Path) -> None:
    status, log = ended(root, code(root, "pass", "return ['x']"))
    assert status == 1
    assert "port-map-unusable" in log
    assert "own:Map has loaded 'str' in place of an Entry" in log
    assert "Traceback" not in log


def test_a_module_that_is_not_there_is_found_by_the_check(root: Path) -> None:
    for name, words in (("nowhere:Map", "there is no module 'nowhere'"), ("sqlite", "is no back end")):
        found = subprocess.run(
            [VSPCD, "--root", str(root), "--check", "-o", f"ports.backend={name}"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert found.returncode == 2
        assert words in found.stderr
