"""The command ``vspcd``: options, configuration, and the master in the foreground.

Does: reads the command line, checks the configuration, runs the master.
Owns: nothing.
Never: goes into the background; systemd and its like see to that.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Optional

import vspcd
from vspcd import authorities, inheritance, vspcpy
from vspcd import config as configuration
from vspcd.config import ConfigError
from vspcd.config_schema import Config
from vspcd.console_listeners import group_number
from vspcd.handover import Unfit
from vspcd.master import Master
from vspcd.portmap.backends import Choice, from_the_future, objection
from vspcd.proto.control import QUOTED
from vspcd.rundir import CannotStart
from vspcd.unix.logline import Log
from vspcd.upgrade import GRANTED, command_line

DEFAULT_CONFIG = Path("/etc/vspcd/vspcd.yaml")
TLS_FILES = ("certificate", "key")
LATER = ("workers.tls_helper", "workers.watcher")
"""What children import when they begin."""

MARGIN = 2
EXIT_CONFIG = 2
EXIT_CANNOT_START = 1


def width() -> int:
    """Columns of a help text. Asking argparse for them would bring compression libraries into each worker."""
    told = os.environ.get("COLUMNS", "")
    if told.isdigit() and int(told):
        return int(told) - MARGIN
    try:
        return os.get_terminal_size().columns - MARGIN
    except OSError:
        return 80 - MARGIN


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="vspcd",
        description="A virtual serial port concentrator: VMs dial in, people and programs share their consoles.",
        epilog="Exit status: 0 ended as asked, 1 could not start or had to end, 2 wrong options or configuration.",
        formatter_class=partial(argparse.HelpFormatter, width=width()),
    )
    made.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help=f"the configuration (default: {DEFAULT_CONFIG}, if it is there)",
    )
    made.add_argument(
        "--root",
        metavar="DIR",
        type=Path,
        help="keep run/, state/ and log/ below DIR and listen on loopback only",
    )
    made.add_argument(
        "-o",
        metavar="KEY=VALUE",
        dest="overrides",
        action="append",
        default=[],
        help="set a key of the configuration, such as -o 'proxy.listen=[127.0.0.1:0]'",
    )
    made.add_argument("--no-vm-ports", action="store_true", help="the same as -o ports.enabled=false")
    made.add_argument("--check-handover", metavar="FD", type=int, help=argparse.SUPPRESS)
    made.add_argument("--check", action="store_true", help="say whether the configuration is valid, and end")
    made.add_argument("--version", action="version", version=f"vspcd {vspcd.__version__}")
    vspcpy.add_options(made)
    return made


def read(options: argparse.Namespace) -> Config:
    """The configuration as the command line wants it. Raises ConfigError."""
    path: Optional[Path] = options.config
    if path is None and options.root is None and DEFAULT_CONFIG.exists():
        path = DEFAULT_CONFIG
    given = vspcpy.Given(options)
    mistake, before = given.mistake(), given.overrides()
    if mistake is not None:
        raise ConfigError([mistake])
    overrides = [*before, *options.overrides, *(["ports.enabled=false"] if options.no_vm_ports else [])]
    config = configuration.load(path, overrides, options.root)
    problems = [problem for key in TLS_FILES for problem in unreadable(key, getattr(config.tls, key))]
    try:
        group_number(config.sockets.group)
    except KeyError:
        problems.append(
            f"sockets.group: there is no group {str(config.sockets.group)[:QUOTED]!r}; expected one of this machine"
        )
    problems += unusable("tls.client_ca", config.tls.client_ca)
    problems += unusable("ports.client_ca", config.ports.client_ca)
    ports = config.ports
    lacking = objection(Choice(ports.backend, ports.backend_path))
    if lacking is not None:
        problems.append(f"ports.backend: {lacking}; expected memory, file, or module:Class")
    if problems:
        raise ConfigError(problems)
    return config


def unreadable(key: str, path: Optional[Path]) -> Iterator[str]:
    """What is wrong with a file that the configuration names: nothing, or one line."""
    if path is not None:
        try:
            path.open("rb").close()
        except OSError as error:
            yield f"tls.{key}: {path} cannot be read: {error.strerror}; expected a PEM file"


def unusable(key: str, path: Optional[Path]) -> Iterator[str]:
    """What is wrong with the authorities that the configuration names: nothing, or one line."""
    wrong = None if path is None else authorities.objection(path)
    if wrong is not None:
        yield f"{key}: {wrong}; expected a PEM file with the certificates of authorities"


def write_pid(path: Optional[Path]) -> None:
    """Where an init script of vSPC.py looks for it. Raises CannotStart."""
    if path is not None:
        try:
            path.write_text(f"{os.getpid()}\n")
        except OSError as error:
            raise CannotStart(f"--pidfile: {path} cannot be written: {error.strerror}") from None


def check_handover(fd: int, config: Config) -> int:
    """Say whether this version can go on where the running one is; its state is in a memory file."""
    for name in LATER:
        import_module(name)
    try:
        inheritance.fits(fd, config.dirs.run)
        newer = from_the_future(Choice(config.ports.backend), config.dirs.state)
        if newer is not None:
            raise Unfit(newer)
    except Unfit as reason:
        print(f"version {vspcd.__version__} cannot go on with this state: {reason}", file=sys.stderr)
        return EXIT_CANNOT_START
    print(f"{GRANTED}{vspcd.__version__}")
    return 0


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the daemon; returns the exit status."""
    command = command_line() if arguments is None else None
    options = parser().parse_args(arguments)
    given = vspcpy.Given(options)
    try:
        config = read(options)
    except ConfigError as error:
        for problem in error.problems:
            print(f"vspcd: {problem}", file=sys.stderr)
        return EXIT_CONFIG
    if options.check:
        print("the configuration is valid")
        return 0
    if options.check_handover is not None:
        return check_handover(options.check_handover, config)
    log = Log(config.log_level)
    for note in given.notes():
        log.warning("option-ignored", reason=note)
    try:
        inherited = inheritance.found(log, config.dirs.state, config.dirs.run)
        master = Master(config, log, lambda: read(options), command, inherited)  # which has the lock now
        if inherited is None:
            write_pid(given.pid_file)
        failure = master.run()
    except CannotStart as error:
        print(f"vspcd: {error}", file=sys.stderr)
        return EXIT_CANNOT_START
    if failure is not None:
        log.error("ended", reason=failure)
        return EXIT_CANNOT_START
    log.info("ended")
    return 0


if __name__ == "__main__":
    sys.exit(main())
