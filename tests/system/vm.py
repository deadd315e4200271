"""A VM's serial port as an ESXi host dials it in: blocking sockets, deadlines, raw access for adversaries.

Written from the protocol's description alone, so that it and the product can be wrong only independently.
Owns its socket. Answers options as the recorded host did, and nothing by itself otherwise.
"""

from __future__ import annotations

import socket
import uuid as uuids
from collections.abc import Callable, Iterable
from typing import NamedTuple, Optional, Union

from tests.system.wait import PATIENCE, Deadline, Late

IAC, DONT, DO, WONT, WILL, SB, SE = 255, 254, 253, 252, 251, 250, 240
BINARY, ECHO, SGA, AUTHENTICATION, COM_PORT, VMWARE = 0, 1, 3, 37, 44, 232

KNOWN_1, KNOWN_2, UNKNOWN_1, UNKNOWN_2 = 0, 1, 2, 3
DO_PROXY, WILL_PROXY, WONT_PROXY = 70, 71, 73
VC_UUID, GET_VC_UUID, NAME, GET_NAME = 80, 81, 82, 83
BIOS_UUID, GET_BIOS_UUID, LOCATION_UUID, GET_LOCATION_UUID = 84, 85, 86, 87
ALL_KNOWN = bytes([0, 1, 2, 3, 40, 41, 43, 44, 45, 46, 48, 70, 71, 73, 80, 81, 82, 83, 84, 85, 86, 87])

READ = 262144


class Option(NamedTuple):
    verb: int
    option: int


class Command(NamedTuple):
    code: int


BREAK = Command(243)


class Sub(NamedTuple):
    option: int
    payload: bytes


Heard = Union[Option, Command, Sub]


def doubled(data: bytes) -> bytes:
    return data.replace(b"\xff", b"\xff\xff")


def option(verb: int, *options: int) -> bytes:
    return b"".join(bytes([IAC, verb, number]) for number in options)


def sub(payload: bytes, number: int = VMWARE) -> bytes:
    return bytes([IAC, SB, number]) + doubled(payload) + bytes([IAC, SE])


def vmware(code: int, payload: bytes = b"") -> bytes:
    return sub(bytes([code]) + payload)


def uuid_text(uuid: str) -> bytes:
    """A UUID in the spelling of a VM: 01 23 45 67 89 ab cd ef-fe dc ba 98 00 00 00 00."""
    digits = uuid.replace("-", "")
    pairs = [digits[i : i + 2] for i in range(0, 32, 2)]
    return (" ".join(pairs[:8]) + "-" + " ".join(pairs[8:])).encode()


def take(buffer: bytearray) -> Optional[Union[bytes, Heard]]:
    """The first whole token of buffer, taken out of it; None when there is none yet."""
    mark = buffer.find(IAC)
    if mark != 0:
        run = bytes(buffer[: mark if mark > 0 else len(buffer)])
        del buffer[: len(run)]
        return run or None
    if len(buffer) < 2:
        return None
    if buffer[1] == IAC:
        del buffer[:2]
        return b"\xff"
    if buffer[1] == SB:
        return take_sub(buffer)
    length = 3 if buffer[1] in (DO, DONT, WILL, WONT) else 2
    if len(buffer) < length:
        return None
    token = Option(buffer[1], buffer[2]) if length == 3 else Command(buffer[1])
    del buffer[:length]
    return token


def take_sub(buffer: bytearray) -> Optional[Sub]:
    at = 3
    while True:
        at = buffer.find(IAC, at)
        if at < 0 or at + 1 >= len(buffer):
            return None
        if buffer[at + 1] == SE:
            token = Sub(buffer[2], bytes(buffer[3:at]).replace(b"\xff\xff", b"\xff"))
            del buffer[: at + 2]
            return token
        at += 2


class Step(NamedTuple):
    """What the VM says, then what it waits for."""

    says: bytes
    awaits: tuple[Heard, ...]


class FakeVm:
    """One serial port of one VM. `heard` holds all that the concentrator said but console data."""

    def __init__(
        self,
        proxy: tuple[str, int],
        *,
        name: str = "web01",
        uuid: Optional[str] = None,
        uri: str = "vSPC.py",
        direction: str = "S",
        source: str = "127.0.0.1",
    ) -> None:
        self.name = name
        self.uuid = str(uuids.UUID(uuid)) if uuid else str(uuids.uuid4())
        self.uri = uri
        self.direction = direction
        self.heard: list[Heard] = []
        self.data = bytearray()
        self.closed = False
        self._buffer = bytearray()
        self.socket = self.dialled(proxy, source)

    # The connection

    def dialled(self, proxy: tuple[str, int], source: str) -> socket.socket:
        """A connection to vspcd's VM port."""
        return socket.create_connection(proxy, timeout=PATIENCE, source_address=(source, 0))

    def __enter__(self) -> FakeVm:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> str:
        host, port = self.socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def console(self) -> str:
        """The id of the console that this port asks for."""
        label = self.uri.partition("?port=")[2]
        return f"{self.uuid}.{label}" if label else self.uuid

    def close(self) -> None:
        self.socket.close()

    def send_raw(self, data: bytes, seconds: float = PATIENCE) -> None:
        self.socket.settimeout(seconds)
        self.socket.sendall(data)

    def send(self, data: bytes) -> None:
        """Console output of the guest."""
        self.send_raw(doubled(data))

    # What comes in

    def receive(self, deadline: Deadline) -> None:
        """One read from the socket, taken apart."""
        self.socket.settimeout(deadline.left())
        try:
            chunk = self.socket.recv(READ)
        except socket.timeout:
            raise Late(f"{deadline.what}; heard {self.heard}, data {bytes(self.data[-200:])!r}") from None
        except ConnectionResetError:
            chunk = b""
        self.closed = not chunk
        self._buffer += chunk
        while True:
            token = take(self._buffer)
            if token is None:
                return
            if isinstance(token, bytes):
                self.data += token
            else:
                self.heard.append(token)

    def until(self, test: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        deadline = Deadline(f"{self.name}: {what}", seconds)
        while not test():
            assert not self.closed, f"hung up before: {what}; heard {self.heard}, data {bytes(self.data)!r}"
            self.receive(deadline)

    def hear(self, *tokens: Heard) -> None:
        """Waits until each of these has been said."""
        self.until(lambda: all(token in self.heard for token in tokens), f"hears {tokens}")

    def hear_code(self, code: int, payload: bytes = b"") -> None:
        self.hear(Sub(VMWARE, bytes([code]) + payload))

    def read(self, count: int) -> bytes:
        """Exactly so many bytes of console input."""
        self.until(lambda: len(self.data) >= count, f"{count} bytes typed")
        taken = bytes(self.data[:count])
        del self.data[:count]
        return taken

    def wait_closed(self, seconds: float = PATIENCE) -> None:
        deadline = Deadline(f"{self.name} is hung up on", seconds)
        while not self.closed:
            self.receive(deadline)

    # The recorded order

    def steps(self) -> list[Step]:
        proxy = self.direction.encode() + self.uri.encode()
        return [
            Step(
                option(WILL, AUTHENTICATION),
                (Option(WILL, BINARY), Option(WILL, SGA), Option(WILL, ECHO)),
            ),
            Step(
                option(DO, BINARY),
                (Option(DO, BINARY), Option(DO, SGA), Option(DO, VMWARE)),
            ),
            Step(option(DO, SGA, ECHO) + option(WILL, BINARY, SGA), (Option(DONT, AUTHENTICATION),)),
            Step(option(WILL, VMWARE), ()),
            Step(
                vmware(KNOWN_1, ALL_KNOWN) + vmware(DO_PROXY, proxy),
                (Sub(VMWARE, bytes([GET_VC_UUID])), Sub(VMWARE, bytes([GET_NAME]))),
            ),
            Step(vmware(VC_UUID, uuid_text(self.uuid)), (Sub(VMWARE, bytes([WILL_PROXY])),)),
            Step(
                vmware(NAME, self.name.encode()) + option(WILL, COM_PORT),
                (Option(DO, COM_PORT),),
            ),
        ]

    def handshake(self) -> FakeVm:
        for step in self.steps():
            self.take_step(step)
        return self

    def take_step(self, step: Step) -> None:
        self.send_raw(step.says)
        self.hear(*step.awaits)

    def rename(self, name: str) -> None:
        self.name = name
        self.send_raw(vmware(NAME, name.encode()))

    def vmware_codes(self) -> list[int]:
        """The codes of the extension that were said, in order."""
        return [token.payload[0] for token in self.heard if isinstance(token, Sub) and token.option == VMWARE]


def dial_all(proxy: tuple[str, int], ports: Iterable[dict[str, str]]) -> list[FakeVm]:
    """Many VMs side by side, each step of one beside that of the others, as after the restart of an estate."""
    vms = []
    for port in ports:
        vms.append(FakeVm(proxy, **port))
        vms[-1].send_raw(vms[-1].steps()[0].says)
    for number, steps in enumerate(zip(*(vm.steps() for vm in vms))):
        for vm, step in zip(vms, steps):
            vm.send_raw(step.says if number else b"")
        for vm, step in zip(vms, steps):
            vm.hear(*step.awaits)
    return vms


def close_all(vms: Iterable[FakeVm]) -> None:
    for vm in vms:
        vm.close()
