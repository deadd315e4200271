"""A TLS peer that does what others cannot: close one direction, break off, send what is no TLS.

Owns its state of the session; the socket is the bench's.
"""

from __future__ import annotations

import socket
import ssl


class TlsPeer:
    """A client over a blocking socket. ``fin`` and ``raw`` reach below TLS."""

    def __init__(self, sock: socket.socket, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = context.maximum_version = version
        self.sock = sock
        self.notified = False  # the helper has sent a close_notify
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing)

    def handshake(self) -> TlsPeer:
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._fetch()
        self._flush()
        return self

    def _flush(self) -> None:
        self.sock.sendall(self._outgoing.read())

    def _fetch(self) -> bool:
        data = self.sock.recv(65536)
        self._incoming.write(data)
        if not data:
            self._incoming.write_eof()
        return bool(data)

    def send(self, data: bytes) -> None:
        for at in range(0, len(data), 65536):
            self.tls.write(data[at : at + 65536])
            self._flush()

    def receive(self, size: int = 1 << 40) -> bytes:
        """So many bytes, or all there are before the end."""
        data = bytearray()
        while len(data) < size and not self.notified:
            try:
                piece = self.tls.read(65536)
                self.notified = not piece
                data += piece
            except ssl.SSLZeroReturnError:
                self.notified = True
            except ssl.SSLWantReadError:
                self._fetch()
        return bytes(data)

    def close_notify(self) -> None:
        """End our direction of the session; the connection stays open."""
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass  # the helper's direction is still open
        self._flush()

    def fin(self) -> None:
        """End our direction of the connection."""
        self.sock.shutdown(socket.SHUT_WR)

    def raw(self, data: bytes) -> None:
        """Send what is no TLS."""
        self.sock.sendall(data)

    def reset(self) -> None:
        """Break the connection off."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()
