"""The options of the commands that read logs: log, grep, replay, tail.

Owns: nothing.
Never: imports what does the work.
"""

from __future__ import annotations

import argparse

from vspcd.ctl.values import boot, factor, given, seconds, whole_number

NAMES_HELP = "names, unique prefixes, UUIDs, or patterns such as 'web*'"


def log(parser: argparse.ArgumentParser) -> None:
    _name(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes, over rotations")
    parser.add_argument(
        "-n", "--lines", type=whole_number, metavar="LINES", help="only the last LINES lines, or matches"
    )
    _range(parser)
    parser.add_argument(
        "--list-boots", action="store_true", help="the VM's boots: number, first and last time, bytes"
    )
    parser.add_argument("-g", "--grep", metavar="REGEX", help="only lines that match")
    _matching(parser)
    _context(parser)
    parser.add_argument("-t", "--timestamps", action="store_true", help="the time before each line")
    parser.add_argument("--raw", action="store_true", help="every byte as it is, on a terminal too")
    parser.add_argument("--json", action="store_true", help="one JSON object per line, for programs")
    parser.add_argument(
        "--export", choices=("asciicast",), help="the range as a recording that asciinema plays"
    )
    parser.add_argument("--output", metavar="FILE", help="where --export writes (default: stdout)")
    parser.add_argument(
        "--no-pager", action="store_true", help="never through $VSPCCTL_PAGER, $PAGER or less"
    )
    _place(parser)


def grep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", metavar="PATTERN", help="a regular expression, or a text with -F")
    parser.add_argument(
        "names",
        nargs="*",
        default=[],  # else it would be asked for
        type=given,
        metavar="NAME",
        help=f"{NAMES_HELP} (default: all consoles)",
    )
    _matching(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("-l", "--names-only", action="store_true", help="only the names of consoles that match")
    what.add_argument("-c", "--count", action="store_true", help="only how many lines match, per console")
    what.add_argument("--json", action="store_true", help="one JSON object per line, for programs")
    _context(parser)
    _range(parser, boots=False)
    parser.add_argument("-t", "--timestamps", action="store_true", help="the time before each line")
    parser.add_argument("--raw", action="store_true", help="every byte as it is, on a terminal too")
    _place(parser)


def replay(parser: argparse.ArgumentParser) -> None:
    _name(parser)
    _range(parser)
    parser.add_argument(
        "--speed", type=factor, default=1.0, metavar="FACTOR", help="how much faster than it was (default 1)"
    )
    parser.add_argument(
        "--max-idle",
        type=seconds,
        default=2.0,
        metavar="SECONDS",
        help="the longest pause, before --speed (default 2; 0 for none at all)",
    )
    parser.add_argument("--raw", action="store_true", help="every byte as it is, on a terminal too")
    _place(parser)


def tail(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", type=given, metavar="NAME", help=NAMES_HELP)
    parser.add_argument("-a", "--all", action="store_true", help="all consoles, those that come later too")
    parser.add_argument(
        "-n",
        "--lines",
        type=whole_number,
        metavar="LINES",
        help="first the last LINES lines of each (default 10; 0 with --all or a pattern)",
    )
    parser.add_argument("-g", "--grep", metavar="REGEX", help="only lines that match")
    _matching(parser)
    parser.add_argument("-t", "--timestamps", action="store_true", help="the time before each line")
    parser.add_argument("--raw", action="store_true", help="every byte as it is, on a terminal too")
    parser.add_argument("--json", action="store_true", help="one JSON object per line, for programs")
    _place(parser)


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", type=given, metavar="NAME", help="name, unique prefix, UUID, or UUID.label")


def _range(parser: argparse.ArgumentParser, boots: bool = True) -> None:
    parser.add_argument("--since", metavar="TIME", help="10m, '2h ago', yesterday, 14:30, 2026-11-20T14:30 …")
    parser.add_argument("--until", metavar="TIME", help="the same forms")
    if boots:
        parser.add_argument(
            "-b",
            "--boot",
            type=boot,
            metavar="N",
            help="one boot: 0 the latest, -1 the one before, 1 the oldest",
        )


def _matching(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-i", "--ignore-case", action="store_true", help="A matches a")
    parser.add_argument("-F", "--fixed-strings", action="store_true", help="the pattern is plain text")


def _context(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-A", "--after", type=whole_number, metavar="N", help="N lines behind each match too")
    parser.add_argument(
        "-B", "--before", type=whole_number, metavar="N", help="N lines before each match too"
    )
    parser.add_argument("-C", "--context", type=whole_number, metavar="N", help="both")


def _place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", metavar="DIR", help="read the logs in this directory")
    parser.add_argument("--config", metavar="FILE", help="read the logs where this vspcd.yaml has them")
