"""Makes the manual pages from the command lines and the table of configuration keys, so that they cannot differ.

Does: writes vspcd.8, vspcctl.1 and vspcd.yaml.5 beside itself (``make man``, and every build of a package).
Owns: the words that are in no help text.
Never: is needed at run time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from vspcd import config, daemon  # noqa: E402
from vspcd.ctl import commandline  # noqa: E402

SEE = "The files in /usr/share/doc/vspcd, or docs/ of the source, say more."


def escaped(text: str) -> str:
    """Text as troff shows it; a line must not begin with a dot or a quote."""
    shown = text.replace("\\", "\\e").replace("-", "\\-")
    shown = "".join(char if char.isascii() else f"\\[u{ord(char):04X}]" for char in shown)
    return "\n".join("\\&" + line if line[:1] in (".", "'") else line for line in shown.split("\n"))


def heading(name: str, section: int, about: str) -> Iterator[str]:
    yield f'.TH {name.upper()} {section} "" vspcd'
    yield ".SH NAME"
    yield escaped(f"{name} - {about}")


def invocation(action: argparse.Action) -> str:
    value = (
        ""
        if action.nargs == 0
        else str(action.metavar or "|".join(map(str, action.choices or ())) or "VALUE")
    )
    if not action.option_strings:
        return escaped(f"[{value}]" if action.nargs in ("?", "*") else value)
    names = ", ".join(f"\\fB{escaped(name)}\\fR" for name in action.option_strings)
    return f"{names} \\fI{escaped(value)}\\fR" if value else names


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if action.help != argparse.SUPPRESS and not isinstance(action, argparse._SubParsersAction):
            yield ".TP"
            yield invocation(action)
            yield escaped(str(action.help or "").replace("%%", "%") or "(see above)")


def vspcd() -> Iterator[str]:
    parser = daemon.parser()
    yield from heading("vspcd", 8, "virtual serial port concentrator for VMware VMs")
    yield from (".SH SYNOPSIS", "\\fBvspcd\\fR [\\fIOPTION\\fR]...", ".SH DESCRIPTION")
    yield escaped(
        str(parser.description) + " It stays in the foreground; see conf/vspcd.service for systemd."
    )
    yield from (".SH OPTIONS", *options(parser), ".SH EXIT STATUS", escaped(str(parser.epilog)))
    yield from (
        ".SH SIGNALS",
        escaped("SIGTERM, SIGINT: end. SIGHUP: read the configuration and open the logs again."),
    )
    yield from (".SH FILES", ".TP", "/etc/vspcd/vspcd.yaml", "the configuration")
    yield from (".SH SEE ALSO", ".BR vspcctl (1),", ".BR vspcd.yaml (5)", ".PP", SEE)


def vspcctl() -> Iterator[str]:
    parser = commandline.build_parser(list(commandline.COMMANDS))
    yield from heading("vspcctl", 1, "operator's tool of vspcd")
    yield from (".SH SYNOPSIS", "\\fBvspcctl\\fR [\\fIOPTION\\fR]... \\fICOMMAND\\fR [\\fIARGUMENT\\fR]...")
    yield from (".SH DESCRIPTION", escaped(str(parser.description)), ".SH OPTIONS", *options(parser))
    yield ".SH COMMANDS"
    for name, below in commandline.subparsers(parser).items():
        yield f".SS {escaped(name)}"
        yield escaped(str(below.description).replace("%%", "%"))
        yield from options(below)
    yield from (".SH EXIT STATUS", ".nf", escaped(str(parser.epilog)), ".fi")
    yield from (".SH SEE ALSO", ".BR vspcd (8),", ".BR vspcd.yaml (5)", ".PP", SEE)


def yaml() -> Iterator[str]:
    yield from heading("vspcd.yaml", 5, "configuration of vspcd")
    yield from (
        ".SH DESCRIPTION",
        escaped("YAML. A key left out has its default; vspcd --check finds mistakes."),
    )
    yield escaped("Keys are named here as -o takes them: proxy.listen is listen below proxy.")
    yield ".SH KEYS"
    for key in config.describe():
        yield from (".TP", f"\\fB{escaped(key.name)}\\fR ({escaped(key.default)})")
        yield escaped(f"{key.meaning}{' [reload]' if key.reloads else ''}")
    yield from (".PP", escaped("[reload]: vspcctl reload or SIGHUP applies it; the others need a restart."))
    yield from (".SH SEE ALSO", ".BR vspcd (8),", ".BR vspcctl (1)", ".PP", SEE)


PAGES = {"vspcd.8": vspcd, "vspcctl.1": vspcctl, "vspcd.yaml.5": yaml}


def page(name: str) -> str:
    """The text of a page."""
    return "\n".join(PAGES[name]()) + "\n"


def write(folder: Path) -> None:
    """Write all pages into this folder."""
    for name in PAGES:
        (folder / name).write_text(page(name), encoding="utf-8")


if __name__ == "__main__":
    write(HERE)
