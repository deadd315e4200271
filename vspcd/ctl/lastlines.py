"""The last lines of a console's output, as they can be shown once more.

Owns: nothing.
Never: lets anything through that a terminal might obey, but for colours.
"""

from __future__ import annotations

from vspcd.ctl.plain import PlainText


def last_lines(data: bytes, count: int) -> list[str]:
    """Each as it was left: what a line had before its last carriage return is not shown."""
    plain = PlainText()
    found = plain.feed(data).rstrip(b"\r\n").split(b"\n")[-count:]
    shown = [line.rstrip(b"\r").rpartition(b"\r")[2] for line in found]
    shown[-1] += plain.finish()
    return [line.decode("utf-8", "replace") for line in shown]
