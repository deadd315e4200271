"""vspcctl doctor: each reason why a VM is not here, with what helps."""

from __future__ import annotations

import json
import os
import socket
import ssl
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.system.conftest import Dial, StartDaemon
from tests.system.daemon import Daemon
from tests.system.vm import FakeVm, option
from tests.system.wait import until


def test_a_vm_that_is_here(daemon: Daemon, dial: Dial) -> None:
    dial(name="web01")
    done = daemon.ctl("doctor", "web01")
    assert done.returncode == 0, done.stdout
    assert "ok: web01 is here: connected for" in done.stdout


def test_a_vm_that_was_never_seen(daemon: Daemon) -> None:
    done = daemon.ctl("doctor", "it's me", "--host", "vspc.example.org")
    assert done.returncode == 1
    assert "no console is named it's me" in done.stdout
    proxy = f"telnet://vspc.example.org:{daemon.proxy[1]}"
    assert rf"govc device.serial.connect -vm 'it'\''s me' -vspc-proxy {proxy} vSPC.py" in done.stdout
    assert "$vm = Get-VM 'it''s me'" in done.stdout
    assert f"$port.Backing.ProxyURI = '{proxy}'" in done.stdout
    assert "esxcli network firewall ruleset set --ruleset-id=vSPC --enabled=true" in done.stdout


def test_a_vm_that_has_left(daemon: Daemon) -> None:
    with daemon.dial(name="web01"):
        pass
    daemon.wait_state("web01", "waiting")
    done = daemon.ctl("doctor", "web01")
    assert done.returncode == 1
    assert "web01 is not connected; last seen" in done.stdout
    assert "govc device.info -vm web01" in done.stdout


def test_the_certificate_is_in_the_lines(start_daemon: StartDaemon, root: Path) -> None:
    made = Daemon(root).ctl("cert", "--self-signed", "127.0.0.1", "--out", str(root))
    assert made.returncode == 0
    files = (f"tls.certificate={root}/vspcd-cert.pem", f"tls.key={root}/vspcd-key.pem")
    daemon = start_daemon(*files, "tls.mode=required")
    certificate = until(lambda: daemon.status()["certificate"], "the certificate is loaded")
    with FakeVm(daemon.proxy) as vm, suppress(OSError):
        vm.send_raw(option(251, 37))
        vm.wait_closed()
    daemon.wait_refusal("tls.mode is required")
    done = daemon.ctl("doctor", "--host", "10.0.0.9")
    assert "TLS mismatch: the VM speaks plain telnet" in done.stdout
    assert f"telnets://10.0.0.9:{daemon.proxy[1]}#thumbprint={certificate['sha1']}" in done.stdout
    assert f"certificate: SHA-1 {certificate['sha1']}, 82" in done.stdout


def test_a_host_that_pins_another_certificate(start_daemon: StartDaemon, root: Path) -> None:
    """As ESXi does it: an alert in the middle of the handshake."""
    Daemon(root).ctl("cert", "--self-signed", "127.0.0.1", "--out", str(root))
    daemon = start_daemon(f"tls.certificate={root}/vspcd-cert.pem", f"tls.key={root}/vspcd-key.pem")
    with socket.create_connection(daemon.proxy, timeout=20) as sock, pytest.raises(ssl.SSLError):
        ssl.create_default_context().wrap_socket(sock, server_hostname="127.0.0.1")
    daemon.wait_refusal("TLS:")
    done = daemon.ctl("doctor")
    assert "The host does not take our certificate" in done.stdout
    assert "#thumbprint=" in done.stdout


def test_a_host_that_looks_at_the_certificate_behind_the_handshake(
    start_daemon: StartDaemon, root: Path
) -> None:
    Daemon(root).ctl("cert", "--self-signed", "127.0.0.1", "--out", str(root))
    daemon = start_daemon(f"tls.certificate={root}/vspcd-cert.pem", f"tls.key={root}/vspcd-key.pem")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(daemon.proxy, timeout=20) as sock:
        context.wrap_socket(sock).close()
    daemon.wait_refusal("TLS connection has ended")
    done = daemon.ctl("doctor")
    assert (
        "The host has closed right behind the TLS handshake: mostly it does not take our certificate"
        in done.stdout
    )
    assert "#thumbprint=" in done.stdout


def test_tls_without_a_certificate(daemon: Daemon) -> None:
    with socket.create_connection(daemon.proxy, timeout=20) as sock, suppress(OSError):
        ssl.create_default_context().wrap_socket(sock, server_hostname="127.0.0.1")
    daemon.wait_refusal("no tls.certificate")
    done = daemon.ctl("doctor", "web01")
    assert "TLS mismatch: the VM speaks TLS, and vspcd has no certificate." in done.stdout
    assert "vspcctl cert --self-signed" in done.stdout


def test_a_port_uri_that_is_wrong(daemon: Daemon, stack: ExitStack) -> None:
    vm = stack.enter_context(FakeVm(daemon.proxy, uri="elsewhere"))
    for step in vm.steps()[:5]:
        vm.send_raw(step.says)
    daemon.wait_refusal("no such service")
    assert "The port URI is none of proxy.uri." in daemon.ctl("doctor").stdout


def test_a_duplicate_uuid(daemon: Daemon, dial: Dial, stack: ExitStack) -> None:
    vm = dial(name="web01")
    clone = stack.enter_context(FakeVm(daemon.proxy, name="clone", uuid=vm.uuid, source="127.0.0.2"))
    for step in clone.steps()[:6]:
        clone.send_raw(step.says)
    daemon.wait_refusal("claims to be this VM")
    done = daemon.ctl("doctor")
    assert "Duplicate UUID" in done.stdout
    assert "$spec.InstanceUuid = [guid]::NewGuid()" in done.stdout


def test_a_negotiation_that_is_stuck(start_daemon: StartDaemon, stack: ExitStack) -> None:
    daemon = start_daemon("proxy.handshake_timeout=1s")
    stack.enter_context(socket.create_connection(daemon.proxy, timeout=20)).sendall(option(251, 0))
    daemon.wait_refusal("it did not")
    assert "Stuck negotiation" in daemon.ctl("doctor").stdout


NFT = (Path(__file__).parents[1] / "ctl" / "nft.json").read_text()
OPEN = NFT.replace('"policy": "drop"', '"policy": "accept"').replace('{"reject": {', '{"log": {')
FROM_SOME = NFT.replace('"right": 13370', '"right": {"range": [1, 65535]}')


@pytest.mark.parametrize(
    ("program", "says", "words"),
    [
        ("firewall-cmd", 'test "$1" = --state && echo running || { echo no; exit 1; }', "problem: firewalld"),
        ("firewall-cmd", 'test "$1" = --state && echo running || echo yes', "ok: firewalld lets port"),
        ("nft", f"echo '{NFT}'", "inet filter input: its rule with handle 14 does"),
        ("nft", f"echo '{NFT}'", "nft insert rule inet filter input tcp dport"),
        ("nft", f"echo '{OPEN}'", "ok: no rule of nftables keeps port"),
        ("nft", f"echo '{FROM_SOME}'", "that depends on the rules with handle 4,"),
        ("nft", "echo Operation not permitted >&2; exit 1", "sudo nft list ruleset"),
        ("nft", "echo nonsense", "warning: the rules of nftables were not understood"),
        ("iptables", "echo -P INPUT ACCEPT", "ok: iptables has no rule"),
        ("iptables", "echo -P INPUT DROP", "iptables -I INPUT -p tcp --dport"),
        ("iptables", "exit 4", "sudo iptables -S"),
        ("true", "", "cannot be read by you" if os.geteuid() else "neither nft nor iptables is installed"),
    ],
    ids=lambda value: value[:20],
)  # fmt: skip
def test_the_firewall(program: str, says: str, words: str, daemon: Daemon, tmp_path: Path) -> None:
    tool = tmp_path / program
    tool.write_text(f"#!/bin/sh\n{says}\n")
    tool.chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = str(tmp_path)  # and none of this machine's tools
    try:
        assert words in daemon.ctl("doctor").stdout
    finally:
        os.environ["PATH"] = before


def test_for_programs(daemon: Daemon) -> None:
    answer = json.loads(daemon.ctl("doctor", "--json").stdout)
    assert {"level", "text", "cure"} == set(answer["findings"][0])
