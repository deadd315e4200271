"""A stand-in for the daemon: speaks the control protocol and the attach framing to vspcctl's tests.

Run as `python -m tests.ctl.fake_daemon SOCKET`; stdin is a JSON object with "consoles", "refused" and what else
the status has. It prints one line when it listens, and keeps what is typed in the file "typed" beside the socket.
Everything that is typed comes back as it was, but for the words of SCRIPT: there the worker does something.
Never: judges; the tests do.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
import time
from typing import Any, NamedTuple, Optional

from vspcd.core.names import Ambiguous, NotFound, resolve
from vspcd.proto import attach, control
from vspcd.proto.errors import PeerError

LIFETIME = 60.0
"""Seconds after which a forgotten one ends itself."""
PACKED = 10
"""Consoles in one packet."""
CLIENT = 7
"""The number of whoever attaches."""
FLOOD = bytes(range(256)) * 4096

SCRIPT = {
    b"!notice": [attach.frame(attach.NOTICE, b"web01 disconnected")],
    b"!evil": [attach.frame(attach.NOTICE, b"\x1b]0;x\x07")],
    b"!skipped": [attach.frame(attach.SKIPPED, b"1234", 5000)],
    b"!bye": [attach.frame(attach.BYE, b"kicked by root")],
    b"!stopping": [attach.frame(attach.BYE, b"vspcd is stopping")],
    b"!orphaned": [attach.frame(attach.BYE, b"vspcd has ended")],
    b"!login": [attach.frame(attach.DATA, b"login: ")],
    b"!vi": [attach.frame(attach.DATA, b"\x1b[?1049h\x1b[?25l\x1b[7mvi")],
    b"!flood": [attach.frame(attach.DATA, FLOOD[at : at + 65536]) for at in range(0, len(FLOOD), 65536)],
    b"!prompt": [
        attach.frame(attach.DATA, b"login: "),
        attach.frame(attach.NOTICE, b"hello"),
    ],
    b"!half": [
        attach.frame(attach.DATA, b"red \x1b[3"),
        attach.frame(attach.NOTICE, b"hello"),
        attach.frame(attach.DATA, b"1mtext\r\n"),
    ],
    b"!garbage": [b"\xee" * 64],
    b"!die": [],
}
LAST_WORDS = (b"!die", b"!bye", b"!stopping", b"!orphaned")


class Named(NamedTuple):
    id: str
    uuid: str
    label: Optional[str]
    name: Optional[str]


class Daemon:
    def __init__(self, path: str, status: dict[str, Any]) -> None:
        self._status = status
        self._consoles = status.pop("consoles", [])
        self._refused = status.pop("refused", [])
        self._selector = selectors.DefaultSelector()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(path)
        self._record = os.path.join(os.path.dirname(path), "typed")
        listener.listen(64)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def serve(self) -> None:
        deadline = time.monotonic() + LIFETIME
        while time.monotonic() < deadline:
            for key, _ in self._selector.select(1):
                key.data(key.fileobj)

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        self._selector.register(connection, selectors.EVENT_READ, self._request)

    def _request(self, connection: socket.socket) -> None:
        data = connection.recv(control.PACKET_LIMIT)
        if not data:
            self._selector.unregister(connection)
            connection.close()
            return
        request = control.decode(data)
        control.check(request, control.TOOL, control.OWNER, 0)
        try:
            getattr(self, "_on_" + request["type"])(connection, request)
        except NotFound as error:
            self._refuse(connection, "not-found", str(error))
        except Ambiguous as error:
            self._refuse(connection, "ambiguous", str(error))

    def _refuse(self, connection: socket.socket, code: str, message: str) -> None:
        connection.send(control.encode({"type": "error", "code": code, "message": message, "end": True}))

    def _on_status(self, connection: socket.socket, request: dict[str, Any]) -> None:
        fields = request["fields"]
        if fields is not None and self._status.get("old"):
            self._refuse(connection, "bad-request", "status with the unknown field 'fields'")
            return
        consoles = [self._find(request["console"])] if request.get("console") else self._consoles
        if fields is not None:
            consoles = [{key: each[key] for key in fields if key in each} for each in consoles]
        packets = [{"type": "status", **self._status}]
        for at in range(0, len(consoles), PACKED):
            packets.append({"type": "consoles", "consoles": consoles[at : at + PACKED]})
        packets.append({"type": "refused", "refused": self._refused, "end": True})
        for packet in packets:
            connection.send(control.encode(packet))

    def _on_who(self, connection: socket.socket, request: dict[str, Any]) -> None:
        consoles = [self._find(request["console"])] if request["console"] else self._consoles
        found = [
            {"console": console["id"], "name": console["name"], "label": console["label"], **client}
            for console in consoles
            for client in console["clients"]
        ]
        for at in range(0, len(found), PACKED):
            connection.send(control.encode({"type": "who", "clients": found[at : at + PACKED]}))
        connection.send(control.encode({"type": "who", "clients": [], "end": True}))

    def _on_attach(self, connection: socket.socket, request: dict[str, Any]) -> None:
        console = self._find(request["console"])
        if console["name"] == "busy":
            self._refuse(connection, "busy", "busy has 64 clients already")
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        about = {key: console[key] for key in ("id", "uuid", "label", "name", "state")}
        mode = "ro" if request["mode"] == "ro" else "rw"
        packet = control.encode(
            {"type": "attached", **about, "client": CLIENT, "mode": mode, "lock": None, "end": True}
        )
        socket.send_fds(connection, [packet], [theirs.fileno()])
        theirs.close()
        replay = f"welcome to {console['name']}, {request['mode']}\r\n".encode()[: request["replay"]]
        ours.sendall(attach.frame(attach.DATA, replay) + attach.frame(attach.LIVE))
        self._selector.register(
            ours, selectors.EVENT_READ, Worker(ours, self._selector, self._record, len(replay)).receive
        )

    def _on_forget(self, connection: socket.socket, request: dict[str, Any]) -> None:
        console = self._find(request["console"])
        if console["state"] == "connected":
            self._refuse(connection, "busy", f"{console['name']} is connected")
        else:
            self._agree(connection, f"{console['name']} is forgotten")

    def _on_reload(self, connection: socket.socket, _: dict[str, Any]) -> None:
        if self._status.get("bad"):
            self._refuse(
                connection, "config", "the old configuration stays:\nvspcd.yaml:3: lgo: there is no such key"
            )
        else:
            self._agree(connection, "reloaded")

    def _on_stop(self, connection: socket.socket, _: dict[str, Any]) -> None:
        self._agree(connection, "stopping")
        time.sleep(self._status.get("slow", 0))
        sys.exit(0)

    def _agree(self, connection: socket.socket, message: str) -> None:
        connection.send(control.encode({"type": "ok", "message": message, "end": True}))

    def _find(self, query: str) -> dict[str, Any]:
        known: dict[str, dict[str, Any]] = {console["id"]: console for console in self._consoles}
        named = [Named(c["id"], c["uuid"], c["label"], c["name"]) for c in self._consoles]
        return known[resolve(query, named).id]


class Worker:
    """The worker's end of one attached session."""

    def __init__(
        self, connection: socket.socket, selector: selectors.BaseSelector, record: str, position: int
    ) -> None:
        self._record = record
        self._position = position
        self._connection = connection
        self._selector = selector
        self._received = b""

    def receive(self, connection: socket.socket) -> None:
        data = connection.recv(65536)
        if not data:
            self._close()
            return
        self._received += data
        found = attach.frames(self._received)
        for frame, _ in found:
            self._answer(frame)
        if found:
            self._received = self._received[found[-1][1] :]

    def _answer(self, frame: attach.Frame) -> None:
        if frame.type == attach.BREAK:
            self._send(attach.frame(attach.DATA, b"<break>"))
            return
        with open(self._record, "ab") as record:
            record.write(frame.payload)
        if frame.payload in SCRIPT:
            for piece in SCRIPT[frame.payload]:
                self._send(piece)
                time.sleep(0.02)
            if frame.payload in LAST_WORDS:
                self._close()
        else:
            self._send(attach.frame(attach.DATA, frame.payload))

    def _send(self, data: bytes) -> None:
        self._connection.setblocking(True)
        self._connection.settimeout(10)
        try:
            frames = attach.frames(data)
        except PeerError:
            self._connection.sendall(data)
            return
        for frame, _ in frames:
            self._connection.sendall(attach.frame(frame.type, frame.payload, self._position))
            if frame.type == attach.DATA:
                self._position += len(frame.payload)

    def _close(self) -> None:
        self._selector.unregister(self._connection)
        self._connection.close()


if __name__ == "__main__":
    daemon = Daemon(sys.argv[1], json.load(sys.stdin))
    os.write(1, b"listening\n")
    daemon.serve()
