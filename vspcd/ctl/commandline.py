"""The command line of vspcctl: its commands, their options, and what is said about a wrong one.

Does: builds the parser; names where each command's work is done.
Owns: the table of commands.
Never: imports a command's module, but for ``simulate``'s options when they are asked for.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn, Optional

from vspcd import __version__
from vspcd.ctl.failure import EXIT_CODES, USAGE
from vspcd.ctl.table import terminal_width
from vspcd.ctl.values import given as _given
from vspcd.ctl.values import seconds as _seconds
from vspcd.ctl.values import whole_number as _whole_number


class Command(NamedTuple):
    """A command: its help, where its work is done, and what adds its arguments."""

    help: str
    module: str
    function: str
    arguments: Callable[[argparse.ArgumentParser], None]


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Knows the terminal's width without the large module that argparse would import for it, even without --help."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=(terminal_width(1) or 100) - 2)


class Parser(argparse.ArgumentParser):
    """An argument parser that says which commands there are, and which one was meant."""

    def error(self, message: str) -> NoReturn:
        if "invalid choice" in message and "COMMAND" in message:
            message = _unknown_command(message)
        elif message.endswith("required: COMMAND"):
            message = f"a command is missing; there are {', '.join(COMMANDS)}"
        self.exit(USAGE, f"{self.prog}: {message}\n(more: {self.prog} --help)\n")


def _history(command: str) -> Callable[[argparse.ArgumentParser], None]:
    """Adds the options of a command that reads logs."""

    def add(parser: argparse.ArgumentParser) -> None:
        from vspcd.ctl import historyline

        getattr(historyline, command)(parser)

    return add


def _automation(command: str) -> Callable[[argparse.ArgumentParser], None]:
    """Adds the options of a command for programs."""

    def add(parser: argparse.ArgumentParser) -> None:
        from vspcd.ctl import automationline

        getattr(automationline, command)(parser)

    return add


def _simulate(parser: argparse.ArgumentParser) -> None:
    from vspcd.simulator.options import add_arguments

    add_arguments(parser)


def _cert(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--self-signed", nargs="+", metavar="HOST", help="make one for these names and addresses of vspcd"
    )
    what.add_argument(
        "--show", nargs="?", const="", metavar="FILE", help="show a PEM file, or the configured certificate"
    )
    parser.add_argument(
        "--days", type=_whole_number, default=825, metavar="DAYS", help="how long it is valid (default 825)"
    )
    parser.add_argument("--out", default=".", metavar="DIR", help="where to put it (default: here)")
    parser.add_argument("--force", action="store_true", help="replace a certificate that is there already")
    parser.add_argument("--config", metavar="FILE", help="show the certificate of this vspcd.yaml")


def _completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def _import_vspc(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", help="what was behind vSPCServer's -f, or what vSPCClient -s HOST has printed"
    )
    parser.add_argument("--dry-run", action="store_true", help="only show what would be taken over")


def _no_arguments(_: argparse.ArgumentParser) -> None:
    return


def _json(add: Callable[[argparse.ArgumentParser], None]) -> Callable[[argparse.ArgumentParser], None]:
    """The same arguments, and --json."""

    def both(parser: argparse.ArgumentParser) -> None:
        add(parser)
        parser.add_argument("--json", action="store_true", help="one JSON object, for programs")

    return both


def _upgrade(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        action="store_true",
        help="renew the workers too, one after the other; nobody is disconnected",
    )


def _status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", type=_given, metavar="NAME", help="show everything about this console"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")
    parser.add_argument(
        "--memory", action="store_true", help="measure every worker's memory, even of more than 50"
    )


def _doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", type=_given, metavar="NAME", help="this VM; default: all of them")
    parser.add_argument(
        "--host", metavar="HOST", help="vspcd as the ESXi hosts reach it, for the lines that are shown"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")


def _top(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sort", choices=("traffic", "cpu", "lag", "name"), default="traffic", help="what comes first"
    )
    parser.add_argument(
        "-i", "--interval", type=_seconds, metavar="SECONDS", help="how often (live: 2), or how long (1)"
    )
    parser.add_argument(
        "-n", "--lines", type=_whole_number, metavar="COUNT", help="with --once: at most so many"
    )
    parser.add_argument("--once", action="store_true", help="print it once, as it does when piped")
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", type=_given, metavar="NAME", help="name, unique prefix, UUID, or UUID.label")


def _console(parser: argparse.ArgumentParser) -> None:
    _name(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("-r", "--read-only", action="store_true", help="watch only: nothing is sent")
    how.add_argument(
        "--mode",
        choices=("rw", "ro", "lock", "exclusive"),
        help="how to share it (default rw, with the others)",
    )
    how.add_argument("--lock", action="store_true", help="nobody else may type; short for --mode lock")
    how.add_argument(
        "--exclusive", action="store_true", help="nobody else may type or come; short for --mode exclusive"
    )
    parser.add_argument(
        "--or-read-only", action="store_true", help="watch when somebody has a lock, or typing is not allowed"
    )
    _reason(parser, "why you lock it, for the others")
    parser.add_argument(
        "-e",
        "--escape",
        metavar="KEY",
        help="the escape key: ^] (default, or $VSPCCTL_ESCAPE), C-a, ^Ec, &, none",
    )
    parser.add_argument(
        "--replay",
        type=_whole_number,
        metavar="BYTES",
        help="how much of the latest output to show first (default: clients.replay of the configuration)",
    )
    parser.add_argument(
        "--linger",
        type=_seconds,
        default=1.0,
        metavar="SECONDS",
        help="after the end of a piped input, leave when the console has been quiet so long (default 1)",
    )


def _reason(parser: argparse.ArgumentParser, help: str) -> None:
    parser.add_argument("--reason", metavar="TEXT", help=help)


def _who(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", type=_given, metavar="NAME", help="on this console alone")
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")


def _lock(parser: argparse.ArgumentParser) -> None:
    _name(parser)
    parser.add_argument(
        "id",
        nargs="?",
        type=_whole_number,
        metavar="ID",
        help="the session that gets it (default: your only one)",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--exclusive", action="store_true", help="nobody else is let in either")
    how.add_argument("--take-over", action="store_true", help="take the lock from whoever has it")
    _reason(parser, "why, for the others")


def _break(parser: argparse.ArgumentParser) -> None:
    _name(parser)
    parser.add_argument(
        "--sysrq", metavar="KEY", help="a magic SysRq key of Linux behind it, such as s or sync; ? lists them"
    )
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask whether it is meant")


def _kick(parser: argparse.ArgumentParser) -> None:
    _name(parser)
    parser.add_argument("id", type=_whole_number, metavar="ID", help="the number that who shows")
    _reason(parser, "why, for the one who has to go")


COMMANDS = {
    "status": Command("show the daemon's health and its consoles", "vspcd.ctl.status", "run", _status),
    "top": Command("show which consoles are busy, live", "vspcd.ctl.top", "run", _top),
    "doctor": Command("say why a VM is not here, and what helps", "vspcd.ctl.doctor", "run", _doctor),
    "list": Command(
        "one line per console: name, id, state, port",
        "vspcd.ctl.commands",
        "list_consoles",
        _json(_no_arguments),
    ),
    "console": Command("get on a console", "vspcd.ctl.console", "run", _console),
    "who": Command("show who is on the consoles", "vspcd.ctl.people", "who", _who),
    "lock": Command("let nobody else type on a console", "vspcd.ctl.people", "lock", _json(_lock)),
    "unlock": Command("end the lock on a console", "vspcd.ctl.people", "unlock", _json(_name)),
    "kick": Command("send somebody away from a console", "vspcd.ctl.people", "kick", _json(_kick)),
    "break": Command("send a VM a serial break", "vspcd.ctl.breaking", "run", _json(_break)),
    "log": Command("show a console's log", "vspcd.ctl.log", "run", _history("log")),
    "grep": Command("search the logs of all consoles", "vspcd.ctl.grep", "run", _history("grep")),
    "tail": Command("follow the logs of many consoles", "vspcd.ctl.tail", "run", _history("tail")),
    "replay": Command("play a log in its own time", "vspcd.ctl.replay", "run", _history("replay")),
    "exec": Command("run a command in a console's shell", "vspcd.ctl.exec", "run", _automation("run")),
    "expect": Command("wait for one of some patterns", "vspcd.ctl.expect", "run", _automation("expect")),
    "wait-for": Command("wait for a pattern", "vspcd.ctl.expect", "wait_for", _automation("wait_for")),
    "send": Command("type something on a console", "vspcd.ctl.send", "run", _automation("send")),
    "broadcast": Command(
        "type something on many consoles", "vspcd.ctl.broadcast", "run", _automation("broadcast")
    ),
    "forget": Command(
        "forget a console that has neither VM nor client", "vspcd.ctl.commands", "forget", _json(_name)
    ),
    "unpark": Command(
        "let a VM in again whose bytes have killed its workers", "vspcd.ctl.commands", "unpark", _json(_name)
    ),
    "reload": Command(
        "make the daemon read its configuration again", "vspcd.ctl.commands", "reload", _json(_no_arguments)
    ),
    "upgrade": Command(
        "let the installed version take the running one's place",
        "vspcd.ctl.commands",
        "upgrade",
        _json(_upgrade),
    ),
    "stop": Command("stop the daemon", "vspcd.ctl.commands", "stop", _json(_no_arguments)),
    "cert": Command("make a certificate for TLS, or show one", "vspcd.ctl.cert", "run", _json(_cert)),
    "import-vspc": Command(
        "take over the ports of vSPC.py's VMs", "vspcd.ctl.importvspc", "run", _json(_import_vspc)
    ),
    "simulate": Command("play ESXi hosts whose VMs dial in", "vspcd.simulator.main", "run", _simulate),
    "completion": Command(
        "print a completion script for a shell", "vspcd.ctl.completion", "run", _completion
    ),
}
HIDDEN = {
    "_names": Command("", "vspcd.ctl.commands", "list_names", _no_arguments),
}


def build_parser(words: Sequence[str] = ()) -> Parser:
    """The parser of the whole command line. ``words`` tells which commands' arguments are needed."""
    parser = Parser(
        prog="vspcctl",
        description="The operator's tool of vspcd: status, consoles, logs.",
        epilog=_epilog(),
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"vspcctl {__version__}")
    _where(parser, None)
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=Parser, prog=parser.prog
    )
    for name, command in _wanted(words).items():
        about = command.help[:1].upper() + command.help[1:] + "."
        below = commands.add_parser(
            name, help=command.help, description=about, allow_abbrev=False, formatter_class=Formatter
        )
        if name in words:
            command.arguments(below)
        _where(below, argparse.SUPPRESS)
    for name in HIDDEN.keys() & set(words):
        _where(commands.add_parser(name, formatter_class=Formatter), argparse.SUPPRESS)
    return parser


def _wanted(words: Sequence[str]) -> dict[str, Command]:
    """The commands that need a parser: argparse takes longer to make all of them than a short command has."""
    at = 0
    while at < len(words) and words[at] in ("--root", "--socket"):
        at += 2
    if at < len(words) and words[at] in COMMANDS:
        return {name: command for name, command in COMMANDS.items() if name in words}
    return COMMANDS


def parse(words: Sequence[str]) -> argparse.Namespace:
    """What the command line says. Ends the program with an explanation when it is wrong."""
    parser = build_parser(words)
    arguments, superfluous = parser.parse_known_args(words)
    if superfluous:
        below = subparsers(parser)[arguments.command]
        below.error(_superfluous(superfluous, below, arguments.command))
    return arguments


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Each command's parser."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return {name: found for action in below for name, found in action.choices.items()}


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


def _superfluous(words: Sequence[str], parser: argparse.ArgumentParser, command: str) -> str:
    """What is wrong with words that no argument takes: a mistyped option if one is among them."""
    import difflib

    option = next((word.partition("=")[0] for word in words if word.startswith("-")), None)
    if option is None:
        return f"{words[0]!r} is one word too many; a name with spaces goes between quotes"
    options = [name for action in parser._actions for name in action.option_strings]
    if option in options:
        return f"{option} goes behind {command}"
    near = difflib.get_close_matches(option, options, 1)
    if command == "exec" and not near:
        return f"exec has no option {option}; the command goes behind --, as in: exec NAME -- uname -a"
    return f"there is no option {option}" + (f"; did you mean {near[0]}?" if near else "")
