"""vspcctl: reads the command line, runs one command, turns its end into an exit code.

Owns: the table of commands and options.
Never: does a command's work; imports a command that was not asked for.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple, NoReturn, Optional

from vspcd import __version__
from vspcd.ctl.failure import EXIT_CODES, INTERRUPTED, SIGNALLED, USAGE, Failure

REPLAY_DEFAULT = 4096
SIGPIPE = 13


class Command(NamedTuple):
    """A command: its help, where its work is done, and what adds its arguments."""

    help: str
    module: str
    function: str
    arguments: Callable[[argparse.ArgumentParser], None]


class Parser(argparse.ArgumentParser):
    """An argument parser that suggests the command that was meant."""

    def error(self, message: str) -> NoReturn:
        if "invalid choice" in message and "COMMAND" in message:
            message = _unknown_command(message)
        self.exit(USAGE, f"{self.prog}: {message}\n(more: {self.prog} --help)\n")


def _no_arguments(_: argparse.ArgumentParser) -> None:
    return


def _status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="show everything about this console")
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")
    parser.add_argument("--memory", action="store_true", help="measure every worker, however many there are")


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name, unique prefix, UUID, or UUID.label")


def _console(parser: argparse.ArgumentParser) -> None:
    _name(parser)
    parser.add_argument("-r", "--read-only", action="store_true", help="watch only: nothing is sent")
    parser.add_argument("-e", "--escape", metavar="KEY", help="the escape key: ^] (default), C-a, none …")
    parser.add_argument(
        "--replay",
        type=_whole_number,
        default=REPLAY_DEFAULT,
        metavar="BYTES",
        help="how much of the latest output to show first (default %(default)s)",
    )
    parser.add_argument(
        "--linger",
        type=_seconds,
        default=1.0,
        metavar="SECONDS",
        help="after the end of a piped input, leave when the console has been quiet so long (default 1)",
    )


COMMANDS = {
    "status": Command("show the daemon's health and its consoles", "status", "run", _status),
    "list": Command(
        "one line per console: name, id, state, port", "commands", "list_consoles", _no_arguments
    ),
    "console": Command("get on a console", "console", "run", _console),
    "forget": Command("forget a console that has neither VM nor client", "commands", "forget", _name),
    "reload": Command("make the daemon read its configuration again", "commands", "reload", _no_arguments),
    "stop": Command("stop the daemon", "commands", "stop", _no_arguments),
}
HIDDEN = {
    "_names": Command("", "commands", "list_names", _no_arguments),
}


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The entry point; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(words)
        sys.stdout.flush()
    except Failure as failure:
        code = _report(failure)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout at exit and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = SIGNALLED + SIGPIPE
    return code


def _run(words: Sequence[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    arguments = build_parser(words).parse_args(words)
    command = {**COMMANDS, **HIDDEN}[arguments.command]
    function = getattr(import_module(f"vspcd.ctl.{command.module}"), command.function)
    return int(function(arguments))


def _report(failure: Failure) -> int:
    lines = [f"vspcctl: {failure.message}"] + ([f"  {failure.hint}"] if failure.hint else [])
    sys.stderr.write("".join(line + "\n" for line in lines))
    return failure.exit_code


def build_parser(words: Sequence[str] = ()) -> Parser:
    """The parser of the whole command line. ``words`` tells which commands' arguments are needed."""
    parser = Parser(
        prog="vspcctl",
        description="The operator's tool of vspcd: status, consoles, logs.",
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"vspcctl {__version__}")
    _where(parser, None)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, command in COMMANDS.items():
        about = command.help[:1].upper() + command.help[1:] + "."
        _add_command(commands.add_parser(name, help=command.help, description=about), command)
    for name in HIDDEN.keys() & set(words):
        _add_command(commands.add_parser(name), HIDDEN[name])
    return parser


def _add_command(parser: argparse.ArgumentParser, command: Command) -> None:
    command.arguments(parser)
    _where(parser, argparse.SUPPRESS)


def _where(parser: argparse.ArgumentParser, default: Optional[str]) -> None:
    """The options that find the daemon, allowed before the command and behind it."""
    parser.add_argument("--root", metavar="DIR", default=default, help="the daemon's private root")
    parser.add_argument("--socket", metavar="PATH", default=default, help="the daemon's control socket")


def _epilog() -> str:
    codes = "\n".join(f"  {code:<4} {meaning}" for code, meaning in EXIT_CODES.items())
    return f"exit codes:\n{codes}\n\nThe daemon is found by --socket, --root, $VSPCD_ROOT, or at /run/vspc."


def _unknown_command(message: str) -> str:
    import difflib

    given = message.partition("invalid choice: '")[2].partition("'")[0]
    near = difflib.get_close_matches(given, COMMANDS, 1)
    meant = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(COMMANDS)}"
    return f"there is no command {given!r}{meant}"


def _whole_number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
