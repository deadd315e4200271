"""The options of the commands for programs: exec, expect, wait-for, send, broadcast.

Owns: nothing.
Never: imports what does the work.
"""

from __future__ import annotations

import argparse

from vspcd.ctl.values import given, seconds, whole_number


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", type=given, metavar="NAME", help="name, unique prefix, UUID, or UUID.label")


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")


def _timeout(parser: argparse.ArgumentParser, default: float, what: str) -> None:
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=default,
        metavar="SECONDS",
        help=f"{what} (default {default:g}" + ("; 0 is for ever)" if default != 10 else ")"),
    )


def run(parser: argparse.ArgumentParser) -> None:
    _name(parser)
    parser.add_argument(
        "words",
        nargs="+",
        metavar="CMD",
        help="the command, behind --; one word is a shell's line, several are words that the shell takes as they are",
    )
    _timeout(parser, 60, "all has to be over by then")
    parser.add_argument("--user", type=given, metavar="USER", help="log in as USER if nobody is logged in")
    parser.add_argument("--password-file", metavar="FILE", help="its first line is the password")
    for part, what in (("login", "a user"), ("password", "a password"), ("prompt", "a command")):
        parser.add_argument(
            f"--{part}-pattern", metavar="REGEX", help=f"what the end of a prompt for {what} looks like"
        )
    parser.add_argument("--logins", metavar="FILE", help="a file with logins, see docs/automation.md")
    parser.add_argument("--stay", action="store_true", help="do not log out again")
    _json(parser)


def _waiting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-i", "--ignore-case", action="store_true", help="upper and lower case are the same")
    _timeout(parser, 60, "how long to wait")
    parser.add_argument(
        "--replay",
        type=whole_number,
        default=0,
        metavar="BYTES",
        help="look at so much of what came before, too",
    )
    parser.add_argument(
        "--send", metavar="TEXT", help="type this and Enter first; nothing can be missed in between"
    )
    _json(parser)


def expect(parser: argparse.ArgumentParser) -> None:
    _name(parser)
    parser.add_argument(
        "pattern", nargs="+", metavar="PATTERN", help="regular expressions; exit code 0, 11, 12 … tells which"
    )
    _waiting(parser)


def wait_for(parser: argparse.ArgumentParser) -> None:
    _name(parser)
    parser.add_argument("pattern", metavar="PATTERN", help="a regular expression")
    _waiting(parser)


def _typing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "text", metavar="TEXT", help=r"what is typed, with \r \t \e \xHH; - is standard input as it is"
    )
    parser.add_argument("-n", "--no-enter", action="store_true", help="without Enter at its end")
    _timeout(parser, 10, "the VM has to take it by then")
    _json(parser)


def send(parser: argparse.ArgumentParser) -> None:
    _name(parser)
    _typing(parser)


def broadcast(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "pattern",
        type=given,
        metavar="PATTERN",
        help="such as 'web*' or 'web*,!web-old'; those with a VM are meant",
    )
    _typing(parser)
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument("--dry-run", action="store_true", help="only tell on which consoles it would be")
