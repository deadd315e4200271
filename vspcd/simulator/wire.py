"""The socket of one connection from a simulated host: plain, or encrypted as ``telnets://`` asks.

Does: reads, writes and ends; falls silent as a host does that has lost its power.
Owns: the socket, and under TLS the bytes of one record that wait to be sent.
Never: knows telnet; looks at what it carries.

One task may read while another writes. Both may be cancelled at any await: nothing that was read is lost.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import ssl
import struct
import termios

from vspcd.simulator import pipe
from vspcd.simulator.tls import Tls, Untrusted, reason_of

RECORD = 16384
"""The most plaintext that is encrypted at once: what one TLS record holds."""

# From the kernel's headers; Python's socket module does not have them.
_SO_ATTACH_FILTER = 26
_TAKE_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF: return 0 bytes of every segment


class Wire:
    """A plain connection; ``sock`` is connected and does not block."""

    def __init__(self, sock: socket.socket) -> None:
        self.local: str = "{}:{}".format(*sock.getsockname()[:2])
        self._socket = sock
        self._descriptor = sock.fileno()

    async def read(self) -> bytes:
        """What has come, waiting for the first byte; b"" is the end. Raises OSError."""
        return await pipe.read(self._descriptor)

    async def write(self, data: bytes) -> int:
        """Send some of the data: how many bytes are with the kernel. Raises OSError."""
        return await pipe.write(self._descriptor, data)

    async def shut(self) -> None:
        """Say that nothing more will be sent. Raises OSError."""
        self._socket.shutdown(socket.SHUT_WR)

    def unacknowledged(self) -> int:
        """Bytes that the concentrator's kernel has not taken yet."""
        size: int = struct.unpack("i", fcntl.ioctl(self._descriptor, termios.TIOCOUTQ, bytes(4)))[0]
        return size

    def silence(self) -> None:
        """Be a host that has vanished: acknowledge nothing from now on, and end nothing.

        A packet filter on the socket, which needs no privilege, drops every segment before TCP sees it. Only
        what was sent and not acknowledged before would still be repeated.
        """
        code = ctypes.create_string_buffer(_TAKE_NOTHING, len(_TAKE_NOTHING))
        program = struct.pack("HP", 1, ctypes.addressof(code))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    def close(self) -> None:
        """End both directions."""
        self._socket.close()


class TlsWire(Wire):
    """An encrypted connection, once ``handshake`` is over."""

    def __init__(self, sock: socket.socket, tls: Tls) -> None:
        super().__init__(sock)
        self._trust = tls
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._waiting = b""
        self._tls = tls.context.wrap_bio(self._incoming, self._outgoing, server_hostname=tls.name)

    async def handshake(self) -> None:
        """Agree on keys, and find out whether it is the concentrator that was meant. Raises OSError."""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fetch()
            except ssl.SSLError as error:
                await self._flush()  # the alert that tells the concentrator
                raise Untrusted(reason_of(error)) from None
        await self._flush()
        self._trust.check(self._tls.getpeercert(binary_form=True) or b"")

    async def read(self) -> bytes:
        """As for a plain wire. What TLS itself wants to answer goes out with the next write."""
        while True:
            try:
                return self._tls.read(pipe.CHUNK)
            except ssl.SSLWantReadError:
                await self._fetch()
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLError as error:
                raise ConnectionError(reason_of(error)) from None

    async def write(self, data: bytes) -> int:
        """As for a plain wire: a record is with the kernel as a whole, or counts for nothing."""
        await self._flush()
        try:
            size = self._tls.write(data[:RECORD])
        except ssl.SSLError as error:
            raise ConnectionError(reason_of(error)) from None
        await self._flush()
        return size

    async def shut(self) -> None:
        """End our direction of the session, and of the connection."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # SSLWantReadError: the concentrator's direction is still open
        await self._flush()
        await super().shut()

    async def _fetch(self) -> None:
        data = await pipe.read(self._descriptor)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        self._waiting += self._outgoing.read()
        while self._waiting:
            self._waiting = self._waiting[await pipe.write(self._descriptor, self._waiting) :]
