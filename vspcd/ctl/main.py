"""vspcctl: runs the command that the command line names, and turns its end into an exit code.

Owns: nothing.
Never: does a command's work; imports a command that was not asked for, or anything before an interrupt has its meaning.
"""

from __future__ import annotations

import os
import sys

SIGPIPE = 13
INTERRUPTED = 130
"""As in ``vspcd.ctl.failure``, which is not there yet when the imports are interrupted."""


def main(argv: list[str] | None = None) -> int:
    """The entry point; returns the exit code. Without ``argv`` the process ends with it."""
    # Most of a short command's time goes into imports: whoever interrupts them is not to see a traceback.
    try:
        import signal

        try:
            return _main(sys.argv[1:] if argv is None else argv)
        finally:
            if argv is None:
                # The outcome stands. The interpreter's own end would show where it was interrupted.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:
        return INTERRUPTED


def _main(words: list[str]) -> int:
    from vspcd.ctl.failure import SIGNALLED, Failure

    try:
        code = _run(words)
        sys.stdout.flush()
    except Failure as failure:
        code = failure.exit_code
        lines = [f"vspcctl: {failure.message}"] + ([f"  {failure.hint}"] if failure.hint else [])
        sys.stderr.write("".join(line + "\n" for line in lines))
    except BrokenPipeError:
        # Python flushes stdout at exit and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = SIGNALLED + SIGPIPE
    return code


def _run(words: list[str]) -> int:
    from importlib import import_module

    from vspcd.ctl.commandline import COMMANDS, HIDDEN, parse

    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    arguments = parse(words)
    command = {**COMMANDS, **HIDDEN}[arguments.command]
    function = getattr(import_module(command.module), command.function)
    return int(function(arguments))


if __name__ == "__main__":
    sys.exit(main())
