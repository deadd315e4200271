"""vspcctl exec: run a command in the shell on a console, and end with its exit status.

Does: takes the lock of the console, sees who answers there, logs in if it has to and may, types the command, passes on
what it prints, logs out again.
Owns: the exit codes: a command's own status, or OURS plus one of vspcctl's.
Never: types the command before a shell has answered; types anything that ends a program which runs there, but for its
own command at Ctrl-C.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from typing import Optional

from vspcd.ctl.client import socket_path
from vspcd.ctl.dialogue import Dialogue
from vspcd.ctl.expect import wait
from vspcd.ctl.failure import NOBODY, TIMEOUT, USAGE, Failure
from vspcd.ctl.login import TYPED_WITHIN, log_in, log_out, login_for
from vspcd.ctl.outcome import Outcome, told
from vspcd.ctl.shellscript import COMMAND_LIMIT, KILL_LINE, ShellScript, command_text
from vspcd.ctl.shellscript import ENTER as RETURN
from vspcd.ctl.transcript import Transcript

OURS = 200
"""Added to vspcctl's own exit codes, so that a command's are known from them."""

CTRL_C = b"\x03"
STOPPED_WITHIN = 2.0
WAKE_WITHIN = 3.0
ANSWER_WITHIN = 10.0
CAPTURED = 16 << 20  # bytes of output that --json holds


def run(arguments: Namespace) -> int:
    """The command's exit status, or OURS + N."""
    return told(lambda: _exec(arguments), arguments.json, OURS)


def _exec(arguments: Namespace) -> Outcome:
    command = command_text(arguments.words)
    if not command.strip() or len(command) > COMMAND_LIMIT or "\0" in command:
        raise Failure(f"a command has 1 to {COMMAND_LIMIT} bytes and no zero byte", USAGE)
    began = time.monotonic()
    path = socket_path(arguments.socket, arguments.root)
    with Dialogue(path, arguments.name, "lock", "vspcctl exec") as dialogue:
        dialogue.must_be_connected()
        one = _Run(dialogue, arguments, ShellScript(command), began + (arguments.timeout or 1e9))
        status = one.run()
    facts = {"console": dialogue.id, "name": dialogue.name, "status": status}
    output = bytes(one.captured).decode("utf-8", "replace")
    return status, {
        **facts,
        "output": output,
        "cut": one.cut,
        "logged_in": one.logged_in,
        "seconds": round(time.monotonic() - began, 3),
    }


class _Run:
    """One command on one console. ``end``: by when all has to be over; monotonic."""

    def __init__(self, dialogue: Dialogue, arguments: Namespace, script: ShellScript, end: float) -> None:
        self.captured = bytearray()
        self.cut = 0
        self.logged_in = False
        self._dialogue = dialogue
        self._arguments = arguments
        self._script = script
        self._end = end
        self._login = login_for(dialogue, arguments)
        self._login.patterns()

    def run(self) -> int:
        """The command's exit status. Raises Failure."""
        self._find_shell()
        try:
            self._type()
            return self._follow()
        except KeyboardInterrupt:
            self._stop()
            raise
        finally:
            if self.logged_in and not self._arguments.stay:
                log_out(self._dialogue, self._login)

    # Who answers?

    def _find_shell(self) -> None:
        """See what is on the console. A line that somebody has begun is taken back, never executed."""
        transcript = Transcript()
        self._dialogue.type(KILL_LINE + RETURN, TYPED_WITHIN)
        found = wait(self._dialogue, transcript, self._login.patterns(), self._left(WAKE_WITHIN))
        if found is not None and found.number == 1:  # somebody has stopped at a password
            self._dialogue.type(RETURN, TYPED_WITHIN)
            found = wait(self._dialogue, transcript, self._login.patterns()[:1], self._left(ANSWER_WITHIN))
        if found is not None and found.number == 0:
            log_in(self._dialogue, transcript, self._login, self._end)
            self.logged_in = True
        self._probe()

    def _probe(self) -> None:
        """A harmless command first: who does not answer it gets no other one."""
        probe = ShellScript(":")
        ((line, _),) = probe.lines()
        self._dialogue.type(line, TYPED_WITHIN)
        transcript = Transcript()
        limit = min(self._end, time.monotonic() + ANSWER_WITHIN)
        while True:
            data = self._dialogue.read(limit - time.monotonic())
            if data is None:
                break
            transcript.feed(data)
            if probe.feed(data).exit is not None:
                return
            if transcript.search(self._login.patterns()[:1]) is not None:
                raise Failure(f"nobody is logged in on {self._dialogue.name}: it asks for a user", NOBODY)
        if self._end <= time.monotonic():
            raise self._late("no shell has answered")
        raise Failure(
            f"no shell answers on {self._dialogue.name} within {ANSWER_WITHIN:g} s",
            NOBODY,
            "a program may be running there, or the machine hangs; look with vspcctl console",
        )

    # The command.

    def _type(self) -> None:
        for line, marker in self._script.lines():
            self._dialogue.type(line, TYPED_WITHIN)
            seen = b""
            while marker is not None and marker.search(seen.replace(b"\r", b"")) is None:
                data = self._dialogue.read(self._left(ANSWER_WITHIN))
                if data is None:
                    raise self._late("the shell has not taken the command")
                seen = (seen + data)[-8192:]

    def _follow(self) -> int:
        while True:
            data = self._dialogue.read(self._end - time.monotonic())
            if data is None:
                raise self._late("the command has not ended")
            found = self._script.feed(data)
            self._pass_on(found.output)
            if found.exit is not None:
                return found.exit

    def _stop(self) -> None:
        """Ctrl-C ends the command too, as over ssh; it is told when that does not end."""
        try:
            self._dialogue.type(CTRL_C, STOPPED_WITHIN)
            ended = self._is_back(time.monotonic() + STOPPED_WITHIN)
        except (Failure, KeyboardInterrupt):
            ended = False
        if not (ended or self._arguments.json):
            told = f"the command may still run on {self._dialogue.name}; look with vspcctl console"
            sys.stderr.write(f"\nvspcctl: {told}\n")

    def _is_back(self, end: float) -> bool:
        """Whether the shell tells the command's end, or shows a prompt, by then."""
        transcript = Transcript()
        prompt = self._login.patterns()[2:]
        while (data := self._dialogue.read(end - time.monotonic())) is not None:
            transcript.feed(data)
            if self._script.feed(data).exit is not None or transcript.search(prompt) is not None:
                return True
        return False

    def _pass_on(self, output: bytes) -> None:
        if self._arguments.json:
            room = max(0, CAPTURED - len(self.captured))
            self.captured += output[:room]
            self.cut += max(0, len(output) - room)
        elif output:
            sys.stdout.buffer.write(output)
            sys.stdout.buffer.flush()

    def _left(self, most: float) -> float:
        return max(0.01, min(most, self._end - time.monotonic()))

    def _late(self, what: str) -> Failure:
        seconds: Optional[float] = self._arguments.timeout
        hint = "it may still run" if self._script.begun else "a program may be running there"
        hint += "; look with vspcctl console"
        return Failure(f"{self._dialogue.name}: {what} within {seconds or 0:g} s", TIMEOUT, hint)
