"""Which login is for a console, and which files are refused."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from vspcd.ctl.dialogue import Dialogue
from vspcd.ctl.failure import Failure
from vspcd.ctl.login import LOGIN, PASSWORD, PROMPT, Login, login_for, password_of
from vspcd.ctl.transcript import Transcript, compiled

FILE = """\
- {consoles: ["db*", "!db-old"], user: dba, password_file: /etc/db, prompt_pattern: "=> $"}
- {user: root}
"""


def on(name: str) -> Dialogue:
    dialogue = Dialogue("/nowhere", "5000")
    dialogue.name = name
    return dialogue


def options(**given: Any) -> Namespace:
    parts = ("user", "password_file", "login_pattern", "password_pattern", "prompt_pattern", "logins")
    return Namespace(**{**dict.fromkeys(parts), **given})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "logins.yaml"
    path.write_text(FILE)
    return path


def test_the_first_entry_that_means_the_console_counts(file: Path) -> None:
    assert login_for(on("db1"), options(logins=str(file))) == Login("dba", "/etc/db", prompt_pattern="=> $")
    assert login_for(on("db-old"), options(logins=str(file))) == Login("root")


def test_the_command_line_goes_first(file: Path) -> None:
    assert login_for(on("db1"), options(logins=str(file), user="me")) == Login("me")
    assert login_for(on("db1"), options(logins=str(file), password_file="/p"))[:2] == ("dba", "/p")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- {user: root, pass: x}", "entry 1: 'pass' is no part of a login"),
        ("- {user: root}\n- root", "entry 2: it is no mapping"),
        ("- {user: 1}", "a part is no text"),
        ("- {consoles: [1]}", "a part is no text"),
        ("- {", "cannot be read"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "logins.yaml"
    path.write_text(text + "\n")
    with pytest.raises(Failure, match=words):
        login_for(on("zzz"), options(logins=str(path)))


def test_a_password_is_the_first_line_of_a_file_that_nobody_else_can_read(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("secret\nmore\n")
    path.chmod(0o600)
    assert password_of(Login("root", str(path))) == b"secret"
    path.chmod(0o640)
    with pytest.raises(Failure, match="chmod 600"):
        password_of(Login("root", str(path)))


@pytest.mark.parametrize("text", ["", "\nx", "x" * 2000])
def test_a_file_without_a_password_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "password"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(Failure, match="has no password"):
        password_of(Login("root", str(path)))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("\r\nUbuntu 22.04 web01 ttyS0\r\n\r\nweb01 login: ", 0),
        ("Username:", 0),
        ("Password: ", 1),
        ("[sudo] password for alice: ", 1),
        ("root@web01:~# ", 2),
        ("\x1b[32mfish\x1b[0m> ", 2),
        ("Last login: Sat Nov 21 09:00:00 on ttyS0\r\n", None),
        ("login: alice\r\n", None),
        ("starting login: done\r\n", None),
    ],
)
def test_the_usual_prompts_are_known(text: str, number: int | None) -> None:
    transcript = Transcript()
    transcript.feed(text.encode())
    found = transcript.search(compiled([LOGIN, PASSWORD, PROMPT]))
    assert (None if found is None else found.number) == number
