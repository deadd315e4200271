"""Whether a file has certificate authorities by whom somebody can be checked.

Does: has a child load the file, just as a TLS helper will.
Owns: the child, which lives for the length of one look.
Never: loads OpenSSL in the daemon; lets a file pass that could not be looked at.
"""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import Optional

from vspcd.unix import process

WITHIN = 5.0  # seconds; a file system that does not answer must not hold up the daemon for ever
LONGEST = 4096  # bytes of an answer; a pipe takes them at once


def objection(path: Path) -> Optional[str]:
    """Why nobody can be checked by the authorities in this file; None when it can be used."""
    try:
        reader, writer = os.pipe()
        try:
            pid = process.fork(lambda: _look(path, writer), {writer})
        finally:
            os.close(writer)
    except OSError as error:
        return f"{path} cannot be looked at: {error.strerror}"
    with open(reader, "rb", buffering=0) as answer:
        if not select.select([answer], [], [], WITHIN)[0]:
            process.kill(pid)
            return f"{path} cannot be looked at: it does not answer within {WITHIN:.0f} s"
        told = answer.read(LONGEST) or b""
    how = process.describe(os.waitpid(pid, 0)[1])
    if told:
        return told.decode(errors="replace")
    return None if how == process.ENDINGS[0] else f"{path} cannot be looked at: its reader {how}"


def _look(path: Path, writer: int) -> None:
    from workers.tls_context import BadCertificate, check_authorities

    try:
        check_authorities(str(path))
    except BadCertificate as reason:
        os.write(writer, str(reason).encode(errors="replace")[:LONGEST])
