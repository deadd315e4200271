"""Pure protocol code: bytes in, events and bytes out. Never a socket, a clock or a file."""
