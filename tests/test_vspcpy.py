"""vSPC.py's command lines: each of its options is taken, and means what it meant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vspcd import daemon, vspcpy
from vspcd.config_schema import Config, value_of
from vspcd.rundir import CannotStart

# All options of vSPCServer 0.8.2 and of the versions before it.
EVERY = """
-d --debug --stdout --no-fork --ssl -s --server -v --verbose --no-vm-ports -a=1 --admin-port=1 --admin=1 -p=1
--proxy-port=1 --proxy=1 --proxy-iface=127.0.0.1 --admin-iface=127.0.0.1 -r=50000 --port-range-start=50000
-i=127.0.0.1 --interface=127.0.0.1 --vm-expire-time=60 --backend=Memory -f=x --persist-file=x --file=x
--cert=x --ssl-cert=x --key=x --ssl-key=x --pidfile=x -l=/x --logdir=/x --prefix=1 --context=200 -m=0600 --mode=0600
"""


def config(*words: str) -> Config:
    return daemon.read(daemon.parser().parse_args(["--config", os.devnull, *words]))


@pytest.mark.parametrize("option", EVERY.split())
def test_every_option_of_vspc_py_is_taken(option: str) -> None:
    name, _, value = option.partition("=")
    daemon.parser().parse_args([name, value] if value else [name])


WILD = value_of(Config(), "proxy.listen")[0][0]
MEANINGS = [
    ("--proxy-port 1", "proxy.listen", ((WILD, 1),)),
    ("-p 1", "proxy.listen", ((WILD, 1),)),
    ("-p 10.0.0.1:1", "proxy.listen", (("10.0.0.1", 1),)),
    ("--proxy-iface 10.0.0.1", "proxy.listen", (("10.0.0.1", 13370),)),
    ("--proxy-iface ::1 --proxy-port 5", "proxy.listen", (("::1", 5),)),
    ("-a 7", "admin.listen", (("127.0.0.1", 7),)),
    ("--admin-iface 10.0.0.1 -a 7", "admin.listen", (("10.0.0.1", 7),)),
    ("-r 40000", "ports.first", 40000),
    ("-i 0.0.0.0", "ports.address", "0.0.0.0"),
    ("--vm-expire-time 3600", "ports.expire", 3600),
    ("--no-vm-ports", "ports.enabled", False),
    ("-l /var/log/consoles", "log.dir", Path("/var/log/consoles")),
    ("--backend Logging -p pre --context 300", "clients.replay", 300),
    ("-d", "log_level", "debug"),
    ("-r 40000 -o ports.first=41000", "ports.first", 41000),
]


@pytest.mark.parametrize(("words", "key", "value"), MEANINGS)
def test_what_they_mean(words: str, key: str, value: object) -> None:
    assert value_of(config(*words.split()), key) == value


def test_tls(tmp_path: Path) -> None:
    for name in ("c.pem", "k.pem"):
        (tmp_path / name).touch()
    words = ["--cert", f"{tmp_path}/c.pem", "--key", f"{tmp_path}/k.pem"]
    tls = config("--ssl", *words).tls
    assert (tls.mode, tls.certificate, tls.key) == ("required", tmp_path / "c.pem", tmp_path / "k.pem")
    assert config(*words).tls.certificate is None


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--ssl"], "--cert FILE"), (["--backend", "Mine"], "docs/from-vspc.md")],
)
def test_what_cannot_be_had_is_said(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert daemon.main(["--root", "/nonexistent", "--check", *words]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", ["--stdout", "--no-fork", "-m 0600", "-f /tmp/map", "--backend Logging -p pre"]
)
def test_what_is_ignored_is_said(words: str) -> None:
    (note,) = vspcpy.Given(daemon.parser().parse_args(words.split())).notes()
    assert "ignored" in note


def test_the_pid_file_is_written(tmp_path: Path) -> None:
    daemon.write_pid(tmp_path / "pid")
    assert int((tmp_path / "pid").read_text()) > 0
    with pytest.raises(CannotStart, match="--pidfile"):
        daemon.write_pid(tmp_path / "none" / "pid")
