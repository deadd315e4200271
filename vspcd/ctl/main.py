"""vspcctl: runs the command that the command line names, and turns its end into an exit code.

Owns: nothing.
Never: does a command's work; imports a command that was not asked for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Optional

from vspcd.ctl.commandline import COMMANDS, HIDDEN, parse
from vspcd.ctl.failure import INTERRUPTED, SIGNALLED, Failure

SIGPIPE = 13


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
    arguments = parse(words)
    command = {**COMMANDS, **HIDDEN}[arguments.command]
    function = getattr(import_module(command.module), command.function)
    return int(function(arguments))


def _report(failure: Failure) -> int:
    lines = [f"vspcctl: {failure.message}"] + ([f"  {failure.hint}"] if failure.hint else [])
    sys.stderr.write("".join(line + "\n" for line in lines))
    return failure.exit_code


if __name__ == "__main__":
    sys.exit(main())
