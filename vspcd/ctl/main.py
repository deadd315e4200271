"""vspcctl: runs the command that the command line names, and turns its end into an exit code.

Owns: nothing.
Never: does a command's work; imports a command that was not asked for, or anything before an interrupt has its meaning.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # the real one costs an import
if TYPE_CHECKING:
    from collections.abc import Callable

SIGPIPE = 13
INTERRUPTED = 130
"""As in ``vspcd.ctl.failure``, which is not there yet when the imports are interrupted."""


def main(argv: list[str] | None = None) -> int:
    """The entry point; returns the exit code. Without ``argv`` the process ends with it."""
    # Most of a short command's time goes into imports: whoever interrupts them is not to see a traceback.
    try:
        import signal

        if argv is not None or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            return _main(sys.argv[1:] if argv is None else argv, lambda: None)
        # At the start there is nothing to put in order, and an exception could be lost: imports have such places.
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
        # The outcome stands. The interpreter's own end would show where it was interrupted.
        ending = signal.SIG_IGN
        try:
            return _main(sys.argv[1:], lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
        except KeyboardInterrupt:
            # Words that nobody reads may hold up that end: the next interrupt is the last.
            ending = signal.SIG_DFL
            raise
        finally:
            signal.signal(signal.SIGINT, ending)
    except KeyboardInterrupt:
        return INTERRUPTED


def _main(words: list[str], begins: Callable[[], object]) -> int:
    """``begins`` is called when all is imported, before the command itself."""
    from vspcd.ctl.failure import FAILED, SIGNALLED, Failure

    try:
        call = _prepared(words)
        begins()
        code = call()
        sys.stdout.flush()
    except Failure as failure:
        code = failure.exit_code
        lines = [f"vspcctl: {failure.message}"] + ([f"  {failure.hint}"] if failure.hint else [])
        sys.stderr.write("".join(line + "\n" for line in lines))
    except BrokenPipeError:
        _forget_output()
        code = SIGNALLED + SIGPIPE
    except OSError as error:
        from errno import EDQUOT, EFBIG, EIO, ENOSPC

        if error.errno not in (EDQUOT, EFBIG, EIO, ENOSPC) or error.filename is not None:
            raise
        _forget_output()
        sys.stderr.write(f"vspcctl: the output cannot be written: {error.strerror}\n")
        code = FAILED
    return code


def _forget_output() -> None:
    """Python flushes stdout at exit and would complain there."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _prepared(words: list[str]) -> Callable[[], int]:
    """What does the command."""
    from importlib import import_module

    from vspcd.ctl.commandline import COMMANDS, HIDDEN, parse

    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    arguments = parse(words)
    command = {**COMMANDS, **HIDDEN}[arguments.command]
    function = getattr(import_module(command.module), command.function)
    return lambda: int(function(arguments))


if __name__ == "__main__":
    sys.exit(main())
