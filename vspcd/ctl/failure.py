"""How a command ends: the exit codes that scripts rely on, and the one exception that carries them.

Owns: the meaning of the exit codes.
Never: prints.
"""

from __future__ import annotations

from typing import Optional

OK = 0
FAILED = 1
USAGE = 2
NO_CONSOLE = 3
NO_DAEMON = 4
DENIED = 5
TIMEOUT = 6
NOBODY = 7
INTERRUPTED = 130
SIGNALLED = 128
"""Plus the signal's number, as a shell counts."""

EXIT_CODES = {
    OK: "done",
    FAILED: "failed",
    USAGE: "wrong usage",
    NO_CONSOLE: "no such console, or more than one fits",
    NO_DAEMON: "the daemon is not running, or was lost",
    DENIED: "denied, or the console is busy or locked",
    TIMEOUT: "what was waited for did not come in time (expect, wait-for, exec, send)",
    NOBODY: "nobody is logged in on the console, or no shell answers (exec)",
    INTERRUPTED: "interrupted by Ctrl-C (128 + the number, for any signal)",
}

DAEMON_CODES = {
    "not-found": NO_CONSOLE,
    "ambiguous": NO_CONSOLE,
    "busy": DENIED,
    "denied": DENIED,
    "locked": DENIED,
    "bad-request": FAILED,
    "config": FAILED,
    "upgrade": FAILED,
    "too-big": FAILED,
}
"""The exit code for each error code of the daemon."""


class Failure(Exception):
    """A command cannot do what it was asked: the message for people and the exit code for scripts."""

    def __init__(
        self, message: str, exit_code: int = FAILED, hint: Optional[str] = None, code: Optional[str] = None
    ) -> None:
        """``code``: the daemon's word for it, if the daemon has refused."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.exit_code = exit_code
        self.hint = hint
