"""vspcctl log --list-boots: a table of a VM's boots, or one JSON object per line.

Owns: the form of the table.
Never: decides what a boot is; boots does.
"""

from __future__ import annotations

import json
from typing import Optional

from vspcd.ctl import table
from vspcd.ctl.boots import BEGINNING, CONNECTED, KERNEL, Boot, boots
from vspcd.ctl.failure import OK
from vspcd.ctl.pager import Output
from vspcd.ctl.printer import UNKNOWN_TIME
from vspcd.ctl.segments import Segments
from vspcd.ctl.times import stamp

COLUMNS = (
    table.Column("BOOT", right=True),
    table.Column("NUMBER", rank=2, right=True),
    table.Column("FIRST"),
    table.Column("LAST"),
    table.Column("BYTES", rank=1, right=True),
    table.Column("KNOWN BY", rank=3),
)
REASONS = {
    CONNECTED: "the VM connected",
    KERNEL: "its kernel's first line",
    BEGINNING: "the log begins here",
}


def show(segments: Segments, as_json: bool, paged: bool) -> int:
    found = boots(segments)
    with Output(paged and not as_json) as output:
        if as_json:
            for at, boot in enumerate(found):
                output.write(json.dumps(_facts(boot, at, len(found))).encode() + b"\n")
        else:
            rows = [_cells(boot, at, len(found)) for at, boot in enumerate(found)]
            lines = table.lay_out(COLUMNS, rows, table.terminal_width(1)).lines
            output.write("".join(line + "\n" for line in lines).encode())
    return OK


def _facts(boot: Boot, at: int, count: int) -> dict[str, object]:
    return {
        "boot": at + 1 - count,
        "number": at + 1,
        "first": boot.since,
        "last": boot.until,
        "bytes": boot.bytes,
        "known_by": list(boot.known_by),
    }


def _cells(boot: Boot, at: int, count: int) -> list[str]:
    return [
        str(at + 1 - count),
        str(at + 1),
        _time(boot.since),
        _time(boot.until),
        table.size(boot.bytes),
        ", ".join(REASONS[each] for each in boot.known_by),
    ]


def _time(moment: Optional[float]) -> str:
    return UNKNOWN_TIME if moment is None else stamp(moment)
