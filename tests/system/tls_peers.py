"""Hosts and balancers in front of the daemon's VM port: VMs over TLS, behind headers, through real programs.

Owns the programs that it starts, and the certificates that it makes. Never shares code with the product.
"""

from __future__ import annotations

import ctypes
import socket
import ssl
import struct
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Callable, NamedTuple, Optional, TypeVar, Union

from tests.system import processes
from tests.system.daemon import Address, Daemon, Json
from tests.system.tools import tool
from tests.system.vm import FakeVm
from tests.system.wait import PATIENCE, until

V = TypeVar("V", bound=FakeVm)
Words = list[Union[str, Path]]

SO_ATTACH_FILTER = 26
DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)

# Certificates


class Pair(NamedTuple):
    """The files of a certificate and its key."""

    certificate: Path
    key: Path

    @property
    def settings(self) -> tuple[str, str]:
        """For the daemon."""
        return f"tls.certificate={self.certificate}", f"tls.key={self.key}"

    def thumbprint(self, algorithm: str) -> str:
        """What people compare, such as AA:BB:…"""
        printed = openssl("x509", "-in", self.certificate, "-noout", "-fingerprint", f"-{algorithm}")
        return printed.strip().partition("=")[2]


def openssl(*words: Union[str, Path]) -> str:
    """What an openssl command prints."""
    command = [tool("openssl"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def self_signed(directory: Path, name: str, days: int = 400) -> Pair:
    """A certificate that vouches for itself, and for others if it is used as an authority."""
    pair = Pair(directory / f"{name}-cert.pem", directory / f"{name}-key.pem")
    files: Words = ["-keyout", pair.key, "-out", pair.certificate, "-addext", "subjectAltName=IP:127.0.0.1"]
    openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-days", str(days), *files
    )
    return pair


def signed(authority: Pair, name: str) -> Pair:
    """A certificate that an authority vouches for."""
    directory = authority.certificate.parent
    pair = Pair(directory / f"{name}-cert.pem", directory / f"{name}-key.pem")
    request = directory / f"{name}.csr"
    openssl(
        "req",
        "-new",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        f"/CN={name}",
        "-keyout",
        pair.key,
        "-out",
        request,
    )
    signers: Words = ["-CA", authority.certificate, "-CAkey", authority.key, "-CAcreateserial", "-days", "30"]
    openssl("x509", "-req", "-in", request, "-out", pair.certificate, *signers)
    return pair


# VMs


def trusting(shown: Optional[Pair] = None) -> ssl.SSLContext:
    """A host that trusts anybody, and shows a certificate if it has one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if shown is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    return context


class BalancedVm(FakeVm):
    """A VM whose connection begins with something before telnet."""

    def __init__(self, proxy: Address, *, header: bytes = b"", **what: str) -> None:
        super().__init__(proxy, **what)
        self.socket.sendall(header)


class TlsVm(BalancedVm):
    """A VM that speaks TLS from the first byte, or from behind the header."""

    def __init__(
        self, proxy: Address, *, header: bytes = b"", context: Optional[ssl.SSLContext] = None, **what: str
    ) -> None:
        super().__init__(proxy, header=header, **what)
        self.socket = (context or trusting()).wrap_socket(self.socket)


class OpensslVm(FakeVm):
    """A VM whose TLS is that of ``openssl s_client``: its telnet goes through the program's input and output."""

    def __init__(self, proxy: Address, *options: str, **what: str) -> None:
        host, port = proxy
        with socket.create_server(("127.0.0.1", 0)) as listener:
            super().__init__(listener.getsockname(), **what)
            program, _ = listener.accept()
        with program:
            self.process = subprocess.Popen(
                [tool("openssl"), "s_client", "-quiet", "-connect", f"{host}:{port}", *options],
                stdin=program.fileno(),
                stdout=program.fileno(),
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def close(self) -> None:
        super().close()
        processes.kill_session(self.process.pid)
        self.process.wait(timeout=20)


def dialled(daemon: Daemon, vm: V) -> V:
    """The VM gone through the recorded order, its console named and open."""
    vm.handshake()
    daemon.wait_console(vm.console, lambda c: bool(c["socket"] and c["name"]), "is named and open")
    return vm


def vanish(vm: FakeVm) -> None:
    """Its host acknowledges nothing any more, and closes nothing. It must have nothing on its way."""
    code = ctypes.create_string_buffer(DROP_ALL, len(DROP_ALL))
    program = struct.pack("HP", 1, ctypes.addressof(code))
    vm.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def dial_raw(address: Address, words: bytes, source: str = "127.0.0.1") -> socket.socket:
    """A connection that says a few bytes, and nothing more."""
    connection = socket.create_connection(address, timeout=PATIENCE, source_address=(source, 0))
    connection.sendall(words)
    return connection


def hung_up(connection: socket.socket) -> bytes:
    """All it was still told before it was closed."""
    told = bytearray()
    try:
        while data := connection.recv(65536):
            told += data
    except ConnectionResetError:
        pass
    return bytes(told)


# Helpers of the daemon, and its records


def tls_helpers(daemon: Daemon) -> list[int]:
    """The pids of the TLS helpers."""
    return [pid for pid, title in daemon.titles().items() if title == "vspcd: tls"]


def wait_certificate(daemon: Daemon, test: Callable[[Json], bool], what: str) -> Json:
    """The certificate that status tells of."""

    def probe() -> Optional[Json]:
        found: Optional[Json] = daemon.status()["certificate"]
        return found if found is not None and test(found) else None

    return until(probe, f"the status tells of {what}")


def events(daemon: Daemon, name: str) -> list[str]:
    """The lines of a console's event index."""
    return daemon.log_file(name).with_suffix(".idx").read_text().splitlines()


# Balancers


def version_1(source: Address, target: Address) -> bytes:
    return b"PROXY TCP4 %s %s %d %d\r\n" % (source[0].encode(), target[0].encode(), source[1], target[1])


def version_2(source: Address, target: Address, extra: bytes = b"") -> bytes:
    hosts = socket.inet_aton(source[0]) + socket.inet_aton(target[0])
    addresses = hosts + struct.pack("!HH", source[1], target[1]) + extra
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x21, 0x11, len(addresses)) + addresses


LOCAL_1 = b"PROXY UNKNOWN\r\n"
LOCAL_2 = b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x20, 0, 0)


class Haproxy:
    """The real one, from an address of its own, which looks after the daemon's health all the time."""

    def __init__(self, daemon: Daemon, source: str, words: str) -> None:
        host, port = daemon.proxy
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: Address = self._listener.getsockname()[:2]
        number = self._listener.fileno()
        config = daemon.root / "haproxy.cfg"
        config.write_text(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
            f"frontend vms\n bind fd@{number}\n default_backend vspcd\n"
            f"backend vspcd\n server vspcd {host}:{port} source {source} {words} check inter 100ms\n"
        )
        with (daemon.root / "haproxy.out").open("wb") as output:
            self.process = subprocess.Popen(
                [tool("haproxy"), "-db", "-f", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[number],
                start_new_session=True,
            )

    def __enter__(self) -> Haproxy:
        return self

    def __exit__(self, *_: object) -> None:
        processes.kill_session(self.process.pid)
        self.process.wait(timeout=20)
        self._listener.close()


def silent_ones(address: Address, words: bytes, count: int, stack: ExitStack) -> Sequence[socket.socket]:
    """Many connections that say the same few bytes, and nothing more."""
    return [stack.enter_context(dial_raw(address, words)) for _ in range(count)]
