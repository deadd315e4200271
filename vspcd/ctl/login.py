"""Logging in on a console: who, with what password, and how its prompts look.

Does: finds the login for a console on the command line or in a file, logs in and out.
Owns: the usual prompts.
Never: sends a password but to a prompt for one; reads a password file that others can read; shows a password.
"""

from __future__ import annotations

import os
import re
import stat
import time
from argparse import Namespace
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from vspcd.core.names import visible
from vspcd.core.patterns import matches
from vspcd.ctl.dialogue import Dialogue
from vspcd.ctl.expect import wait
from vspcd.ctl.failure import NOBODY, USAGE, Failure
from vspcd.ctl.transcript import Transcript, compiled
from vspcd.ctl.typed import ENTER

LOGIN = r"(?i)(?:login|user ?name|user): ?$(?!\n)"
PASSWORD = r"(?i)(?:password|passphrase)[^\n:]{0,60}: ?$(?!\n)"
PROMPT = r"[#$%>\]] ?$(?!\n)"
REFUSED = r"(?i)(?:incorrect|denied|failed|failure|invalid)"
FILES = ("~/.config/vspcctl/logins.yaml", "/etc/vspcd/logins.yaml")
PASSWORD_LIMIT = 1024
ASKED_WITHIN, ADMITTED_WITHIN, LEFT_WITHIN, TYPED_WITHIN = 15.0, 30.0, 3.0, 10.0
PARTS = ("consoles", "user", "password_file", "login_pattern", "password_pattern", "prompt_pattern")


class Login(NamedTuple):
    """How to get in. Without a user, only the patterns count."""

    user: Optional[str] = None
    password_file: Optional[str] = None
    login_pattern: str = LOGIN
    password_pattern: str = PASSWORD
    prompt_pattern: str = PROMPT

    def patterns(self) -> list[re.Pattern[str]]:
        """Of login, password and shell prompts. Raises Failure."""
        return compiled([self.login_pattern, self.password_pattern, self.prompt_pattern])


class _Called:
    """A console as the patterns of a file see it."""

    def __init__(self, dialogue: Dialogue) -> None:
        self.id = dialogue.id
        self.uuid = dialogue.id.partition(".")[0].replace("-", "")
        self.label = dialogue.id.partition(".")[2]
        self.name: Optional[str] = dialogue.name


def login_for(dialogue: Dialogue, arguments: Namespace) -> Login:
    """What the command line says, and the rest from the first file there is. Raises Failure."""
    given = {part: getattr(arguments, part, None) for part in PARTS[1:]}
    known = {} if given["user"] else _from_files(dialogue, arguments.logins)
    return Login(**{**known, **{part: value for part, value in given.items() if value is not None}})


def _from_files(dialogue: Dialogue, named: Optional[str]) -> dict[str, str]:
    for name in FILES if named is None else (named,):
        path = os.path.expanduser(name)
        if named is not None or os.path.exists(path):
            return _entry(path, dialogue)
    return {}


def _entry(path: str, dialogue: Dialogue) -> dict[str, str]:
    """The first entry of a file whose patterns mean the console."""
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            tree = yaml.safe_load(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Failure(f"{path} cannot be read: {_one_line(error)}", USAGE) from None
    entries = tree if isinstance(tree, list) else [tree]
    for place, entry in enumerate(entries, 1):
        wrong = _wrong(entry)
        if wrong:
            raise Failure(f"{path}: entry {place}: {wrong}; there are {', '.join(PARTS)}", USAGE)
    for entry in entries:
        consoles = entry.get("consoles", ["*"])
        if matches([consoles] if isinstance(consoles, str) else consoles, _Called(dialogue)):
            return {part: entry[part] for part in PARTS[1:] if part in entry}
    return {}


def _wrong(entry: Any) -> str:
    """What is wrong with an entry; nothing when it is right."""
    if not isinstance(entry, Mapping):
        return "it is no mapping"
    unknown = [str(part) for part in entry if part not in PARTS]
    if unknown:
        return f"{unknown[0]!r} is no part of a login"
    consoles = entry.get("consoles", "")
    several = isinstance(consoles, list) and all(isinstance(each, str) for each in consoles)
    texts = all(isinstance(entry[part], str) for part in PARTS[1:] if part in entry)
    return "" if texts and (several or isinstance(consoles, str)) else "a part is no text"


def _one_line(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).replace("\n", " ")


def password_of(login: Login) -> bytes:
    """The first line of the password file. Raises Failure when others can read it too."""
    if login.password_file is None:
        raise Failure(f"a password is asked for; name a file with --password-file for {login.user}", NOBODY)
    path = os.path.expanduser(login.password_file)
    try:
        with open(path, "rb") as file:
            about = os.fstat(file.fileno())
            data = file.read(PASSWORD_LIMIT + 1)
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}", USAGE) from None
    if stat.S_ISREG(about.st_mode) and about.st_mode & 0o077:
        raise Failure(f"{path} can be read or written by others; use chmod 600 {path}", USAGE)
    password = data.split(b"\n")[0].rstrip(b"\r")
    if not password or len(password) > PASSWORD_LIMIT:
        raise Failure(f"{path} has no password of 1 to {PASSWORD_LIMIT} bytes in its first line", USAGE)
    return password


def log_in(dialogue: Dialogue, transcript: Transcript, login: Login, end: float) -> None:
    """Log in at the login prompt that is there. Raises Failure."""
    if login.user is None:
        raise Failure(
            f"nobody is logged in on {dialogue.name}: it asks for a user",
            NOBODY,
            "name one with --user and --password-file, or in a file; see docs/automation.md",
        )
    patterns = login.patterns()
    _answer(dialogue, transcript, login.user.encode())
    found = wait(dialogue, transcript, patterns, _left(end, ASKED_WITHIN))
    if found is not None and found.number == 1:
        _answer(dialogue, transcript, password_of(login))
        found = wait(dialogue, transcript, patterns, _left(end, ADMITTED_WITHIN))
    if found is None:
        raise Failure(f"no prompt came on {dialogue.name} after the login of {visible(login.user)}", NOBODY)
    if found.number != 2:
        raise Failure(f"{dialogue.name} has refused the login of {visible(login.user)}", NOBODY)


def _answer(dialogue: Dialogue, transcript: Transcript, text: bytes) -> None:
    transcript.forget()
    dialogue.type(text + ENTER, TYPED_WITHIN)


def log_out(dialogue: Dialogue, login: Login) -> None:
    """Leave the console as it was found, if that goes quickly."""
    transcript = Transcript()
    try:
        dialogue.type(b" exit" + ENTER, LEFT_WITHIN)
        wait(dialogue, transcript, login.patterns()[:1], LEFT_WITHIN)
    except Failure:
        pass  # the command has its outcome, and this is not it


def _left(end: float, most: float) -> float:
    return max(0.01, min(most, end - time.monotonic()))
