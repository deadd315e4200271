"""The configuration as a whole: keys that clash or need each other, and a private root."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.configuring import EXAMPLE, problems, written
from vspcd.config import load, reloaded

CLASHES = [
    ("proxy.listen=:13371", "port 13371 is wanted twice, by proxy.listen and by admin.listen"),
    ("proxy.listen=[0.0.0.0:1, 127.0.0.1:1]", "port 1 is wanted twice, by proxy.listen and by proxy.listen"),
    ("proxy.listen=[':1', '[::1]:1']", "port 1 is wanted twice"),
    ("proxy.listen=['[::]:1', '[::1]:1']", "port 1 is wanted twice"),
]


@pytest.mark.parametrize(("override", "words"), CLASHES)
def test_two_listeners_on_one_port_are_an_error(override: str, words: str) -> None:
    (problem,) = problems(override)
    assert problem.startswith(f"-o {override}: {words}")


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:0, 127.0.0.2:0", "127.0.0.1:1, 127.0.0.2:1", "'0.0.0.0:1', '[::]:1'", "':1', ':2'"]
)
def test_listeners_that_can_live_together_are_fine(listen: str) -> None:
    assert len(load(None, [f"proxy.listen=[{listen}]"]).proxy.listen) == 2


# What makes no sense together

NEEDS = [
    ("tls.mode=required", "there is no TLS without a certificate; set tls.certificate too"),
    ("ports.tls=true", "there is no TLS without a certificate; set tls.certificate too"),
    ("tls.key=/k.pem", "a key is of no use without its certificate; set tls.certificate too"),
    ("tls.client_ca=/c.pem", "there is no TLS without a certificate of our own; set tls.certificate too"),
    ("vmotion.timeout=4s", "a move is given up before the VM's host would wait no longer"),
    ("vmotion.limit=121s", "a move is given up before the VM's host would wait no longer"),
]


@pytest.mark.parametrize(("override", "words"), NEEDS)
def test_a_key_that_makes_no_sense_without_another_is_an_error(override: str, words: str) -> None:
    (problem,) = problems(override)
    assert problem.startswith(f"-o {override}: {words}")


@pytest.mark.parametrize(
    "override", ["tls.mode=required", "ports.tls=true", "tls.key=/k.pem", "tls.client_ca=/c.pem"]
)
def test_a_certificate_gives_tls_keys_their_sense(override: str) -> None:
    assert load(None, [override, "tls.certificate=/c.pem"]).tls.certificate == Path("/c.pem")


def test_a_certificate_that_is_named_as_none_is_none(tmp_path: Path) -> None:
    path = written(tmp_path, "tls:\n  certificate: null\n  mode: required\n")
    expected = "there is no TLS without a certificate; set tls.certificate too"
    assert problems(path=path) == [f"{path}:3: tls.mode: {expected}"]


def test_a_certificate_that_cannot_be_read_is_one_mistake_and_not_two() -> None:
    (problem,) = problems("tls.certificate=here", "tls.mode=required")
    assert "'here' is not an absolute path" in problem


def test_a_reload_keeps_what_tls_console_ports_are_until_a_restart() -> None:
    old = load(None, ["ports.tls=true", "tls.certificate=/c.pem"])
    assert reloaded(old, load()).ports.tls


def test_tls_files_are_not_opened() -> None:
    load(None, ["tls.certificate=/nonexistent/c.pem", "tls.key=/nonexistent/k.pem"])


# A private root


def test_a_root_holds_all_folders(tmp_path: Path) -> None:
    config = load(None, [], tmp_path)
    assert (config.dirs.run, config.dirs.state, config.dirs.log) == (
        tmp_path / "run",
        tmp_path / "state",
        tmp_path / "log",
    )
    assert config.log.dir == tmp_path / "log"
    assert config.root == tmp_path


def test_a_relative_root_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(None, [], Path("demo")).dirs.run == tmp_path / "demo" / "run"


def test_a_folder_that_is_set_stays_outside_the_root(tmp_path: Path) -> None:
    path = written(tmp_path, "dirs:\n  state: /srv/state\n")
    config = load(path, ["dirs.log=/srv/log"], tmp_path)
    assert (config.dirs.run, config.dirs.state, config.log.dir) == (
        tmp_path / "run",
        Path("/srv/state"),
        Path("/srv/log"),
    )


def test_the_example_can_be_used_with_a_root(tmp_path: Path) -> None:
    assert load(EXAMPLE, [], tmp_path) == load(None, [], tmp_path)


@pytest.mark.parametrize("wildcard", [":0", "0.0.0.0:0", "[::]:0"])
def test_a_wildcard_is_loopback_under_a_root(tmp_path: Path, wildcard: str) -> None:
    assert load(None, [f"proxy.listen='{wildcard}'"], tmp_path).proxy.listen == (("127.0.0.1", 0),)


@pytest.mark.parametrize("listen", ["[::1]:0", "127.9.9.9:0", "localhost:0"])
def test_a_loopback_address_is_kept_under_a_root(tmp_path: Path, listen: str) -> None:
    config = load(None, [f"proxy.listen='{listen}'"], tmp_path)
    assert config.proxy.listen == load(None, [f"proxy.listen='{listen}'"]).proxy.listen


@pytest.mark.parametrize(
    "override", ["proxy.listen=10.0.0.1:0", "admin.listen=esx01:0", "ports.address=10.0.0.1"]
)
def test_an_address_that_others_reach_is_refused_under_a_root(tmp_path: Path, override: str) -> None:
    (problem,) = problems(override, root=tmp_path)
    assert problem.startswith(f"-o {override}: ")
    assert "can be reached from outside, which --root forbids" in problem
