"""How commands for programs tell what came of them: a line for people, or one JSON object with --json.

Does: turns a Failure into that object too, so that a program reads one thing in every case.
Owns: nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Callable

from vspcd.ctl.failure import INTERRUPTED, OK, Failure

Outcome = tuple[int, Mapping[str, Any]]


def told(call: Callable[[], Outcome], as_json: bool, shift: int = 0) -> int:
    """The exit code of ``call``; ``shift`` is added to that of a failure. Raises Failure when JSON is not asked for."""
    try:
        code, facts = call()
    except Failure as failure:
        code = failure.exit_code + shift
        if not as_json:
            raise Failure(failure.message, code, failure.hint) from None
        facts = {"error": failure.message}
    except KeyboardInterrupt:
        if not as_json:
            raise
        code, facts = INTERRUPTED, {"error": "interrupted"}
    if as_json:
        sys.stdout.write(json.dumps({"exit": code, "error": None, **facts}) + "\n")
    return code


def spoken(lines: Iterable[str], as_json: bool) -> int:
    """The exit code of a command that has only words to say: told as they come, or as a list when all is over."""

    def call() -> Outcome:
        heard = []
        for line in lines:
            heard += line.split("\n")
            if not as_json:
                print(line, flush=True)
        return OK, {"said": heard}

    return told(call, as_json)
