"""vspcctl cert: the pair that it makes, what it prints, and what it refuses to do."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.ctl.conftest import command, environment, run
from vspcd.config import load
from vspcd.ctl.cert import CERTIFICATE, KEY, described
from vspcd.proto.certificate import Facts, facts


def openssl(*words: object) -> str:
    done = subprocess.run(
        ["openssl", *map(str, words)], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The directory with the pair, and what was printed."""
    directory = tmp_path_factory.mktemp("cert") / "new"
    hosts = ["vspc.example", "10.0.0.1", "fd00::1"]
    done = run("cert", "--self-signed", *hosts, "--days", "100", "--out", str(directory))
    assert (done.returncode, done.stderr) == (0, "")
    return directory, done.stdout


def test_the_pair_can_be_served(made: tuple[Path, str]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made[0] / CERTIFICATE, made[0] / KEY)


def test_whoever_trusts_it_accepts_it_for_its_hosts_and_no_other(made: tuple[Path, str]) -> None:
    path = made[0] / CERTIFICATE
    verify = ["verify", "-CAfile", path, "-purpose", "sslserver"]
    for option, host in (
        ("-verify_hostname", "vspc.example"),
        ("-verify_ip", "10.0.0.1"),
        ("-verify_ip", "fd00::1"),
    ):
        assert "OK" in openssl(*verify, option, host, path)
    with pytest.raises(subprocess.CalledProcessError):
        openssl(*verify, "-verify_hostname", "other.example", path)


def test_the_key_is_for_its_owner_alone_and_nothing_else_is_left(made: tuple[Path, str]) -> None:
    assert (made[0] / KEY).stat().st_mode & 0o777 == 0o600
    assert (made[0] / CERTIFICATE).stat().st_mode & 0o777 == 0o644
    assert sorted(os.listdir(made[0])) == sorted([CERTIFICATE, KEY])


def test_it_is_rsa_which_old_hosts_know_and_valid_as_long_as_asked(made: tuple[Path, str]) -> None:
    known = facts((made[0] / CERTIFICATE).read_text())
    assert known.not_after - known.not_before == 100 * 86400
    assert "rsaEncryption" in openssl("x509", "-in", made[0] / CERTIFICATE, "-noout", "-text")


def test_the_thumbprints_are_printed_as_openssl_has_them(made: tuple[Path, str]) -> None:
    for option in ("-sha1", "-sha256"):
        shown = openssl("x509", "-in", made[0] / CERTIFICATE, "-noout", "-fingerprint", option)
        assert shown.strip().partition("=")[2] in made[1]


def test_the_printed_lines_are_a_configuration(made: tuple[Path, str], tmp_path: Path) -> None:
    text = made[1][made[1].index("\ntls:") :]
    path = tmp_path / "vspcd.yaml"
    path.write_text(text)
    config = load(path)
    assert (config.tls.certificate, config.tls.key) == (made[0] / CERTIFICATE, made[0] / KEY)


def test_a_strange_directory_is_quoted_in_the_printed_lines(tmp_path: Path) -> None:
    directory = tmp_path / 'a: "b" #c'
    done = run("cert", "--self-signed", "h", "--out", str(directory))
    tree = yaml.safe_load(done.stdout[done.stdout.index("\ntls:") :])
    assert tree["tls"]["certificate"] == str(directory / CERTIFICATE)


def test_nothing_is_overwritten_unasked(made: tuple[Path, str]) -> None:
    before = (made[0] / KEY).read_bytes(), (made[0] / CERTIFICATE).read_bytes()
    done = run("cert", "--self-signed", "h", "--out", str(made[0]))
    assert done.returncode == 1
    assert f"{made[0] / KEY} and {made[0] / CERTIFICATE} exist already" in done.stderr
    assert "--force" in done.stderr
    assert ((made[0] / KEY).read_bytes(), (made[0] / CERTIFICATE).read_bytes()) == before


def test_force_replaces_the_pair(tmp_path: Path) -> None:
    (tmp_path / KEY).write_text("old")
    assert run("cert", "--self-signed", "h", "--out", str(tmp_path)).returncode == 1
    assert run("cert", "--self-signed", "h", "--out", str(tmp_path), "--force").returncode == 0
    assert facts((tmp_path / CERTIFICATE).read_text()).subject == "CN=h"
    assert (tmp_path / KEY).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("host", ["a,DNS:b", "a b", "a\nb", "", "-", "[::1]", "a/CN=b", "1.2.3.4/8"])
def test_what_is_no_host_is_refused(tmp_path: Path, host: str) -> None:
    done = run("cert", "--self-signed=" + host, "--out", str(tmp_path / "new"))
    assert (done.returncode, "is neither a host name nor an address" in done.stderr) == (2, True)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("days", ["0", "36501", "many"])
def test_impossible_days_are_refused(tmp_path: Path, days: str) -> None:
    done = run("cert", "--self-signed", "h", "--days", days, "--out", str(tmp_path))
    assert (done.returncode, os.listdir(tmp_path)) == (2, [])


def test_a_missing_openssl_is_told_of(tmp_path: Path) -> None:
    words = command("cert", "--self-signed", "h", "--out", str(tmp_path))
    nowhere = {**environment(), "PATH": str(tmp_path)}
    done = subprocess.run(words, env=nowhere, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == "vspcctl: there is no openssl command\n  install the package openssl\n"
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("cert", "--self-signed", "h", "--out", str(tmp_path / "file" / "below"))
    assert (done.returncode, "Not a directory" in done.stderr) == (1, True)


def test_show_tells_the_facts_of_a_file(made: tuple[Path, str]) -> None:
    done = run("cert", "--show", str(made[0] / CERTIFICATE))
    known = facts((made[0] / CERTIFICATE).read_text())
    lines = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert (lines["subject"], lines["names"]) == ("CN=vspc.example", "vspc.example 10.0.0.1 fd00::1")
    assert (lines["SHA-1"], lines["SHA-256"]) == (known.sha1, known.sha256)
    assert lines["until"].endswith("UTC, 100 days left")


def test_show_without_a_file_takes_the_configured_one(made: tuple[Path, str], tmp_path: Path) -> None:
    path = tmp_path / "vspcd.yaml"
    path.write_text(f"tls: {{certificate: {made[0] / CERTIFICATE}}}\n")
    assert "CN=vspc.example" in run("cert", "--show", "--config", str(path)).stdout


NOT_SHOWN = [("key.pem", "it holds no certificate in PEM form"), ("gone.pem", "No such file or directory")]


@pytest.mark.parametrize(("name", "words"), NOT_SHOWN)
def test_what_cannot_be_shown_is_told_of(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "key.pem").write_text("nothing")
    done = run("cert", "--show", str(tmp_path / name))
    assert (done.returncode, words in done.stderr) == (1, True)


def test_an_expired_certificate_and_its_control_characters_are_shown_as_such() -> None:
    text = described(Facts("A", "B", 0, 1000, "CN=\x1b[2J", ()), 2000.0)
    assert "1970-01-01 00:16:40 UTC, expired" in text
    assert r"CN=\x1b[2J" in text


def test_a_certificate_for_programs(made: tuple[Path, str]) -> None:
    path = made[0] / CERTIFICATE
    told = json.loads(run("cert", "--show", str(path), "--json").stdout)
    known = facts(path.read_text())
    assert told == {
        "exit": 0,
        "error": None,
        "file": str(path),
        **known._asdict(),
        "names": list(known.names),
    }
