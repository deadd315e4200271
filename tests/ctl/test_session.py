"""vspcctl console on a real terminal: typing, the escape menu, notices, and the terminal restored after any end."""

from __future__ import annotations

import os
import signal
import subprocess
import termios
from typing import Callable

import pytest

from tests.ctl.conftest import Daemon, Terminal, command, has_socket

Terminals = Callable[..., Terminal]


@pytest.fixture
def session(web01: Daemon, terminals: Terminals) -> Terminal:
    return attached(web01, terminals)


def attached(daemon: Daemon, terminals: Terminals, *options: str) -> Terminal:
    terminal = terminals(*command("--root", str(daemon.root), "console", "web01", *options))
    terminal.see(b"welcome to web01")
    terminal.see(b"\r\n")
    return terminal


def test_the_first_line_tells_where_one_is_and_how_to_leave(web01: Daemon, terminals: Terminals) -> None:
    terminal = terminals(*command("--root", str(web01.root), "console", "web01"))
    assert b"[vspcctl: on web01, connected; ^] . leaves, ^] ? helps]\r\n" in terminal.see(b"welcome")


def test_typing_reaches_the_vm_and_its_answer_the_terminal(session: Terminal) -> None:
    session.type(b"uname\r")
    assert session.see(b"uname\r") == b"uname\r"


def test_the_terminal_is_raw_in_a_session(session: Terminal) -> None:
    assert session.is_raw


def test_control_keys_go_to_the_vm(session: Terminal) -> None:
    session.type(b"\x03\x1a\x1c\x11\x13\x7f")
    session.see(b"\x03\x1a\x1c\x11\x13\x7f")


def test_escape_dot_detaches_and_restores_the_terminal(session: Terminal) -> None:
    session.type(b"\x1d.")
    assert session.wait() == 0
    assert b"[vspcctl: detached from web01]" in session.output
    assert session.is_restored


def test_what_was_typed_just_before_detaching_is_sent(web01: Daemon, terminals: Terminals) -> None:
    session = attached(web01, terminals)
    session.type(b"reboot\r\x1d.")
    assert session.wait() == 0
    session.until(lambda: web01.typed == b"reboot\r")


def test_escape_alone_shows_the_menu(session: Terminal) -> None:
    session.type(b"\x1d")
    session.see(b"[vspcctl: . leave  ? help  Enter back]")
    session.type(b".")
    assert session.wait() == 0


def test_escape_twice_sends_escape_to_the_vm(session: Terminal) -> None:
    session.type(b"\x1d\x1d")
    session.see(b"\x1d")


def test_help_lists_the_keys(session: Terminal) -> None:
    session.type(b"\x1d?")
    session.see(b"detach: leave the console")


def test_break_is_sent(session: Terminal) -> None:
    session.type(b"\x1db")
    session.see(b"break: Enter, SysRq or ?: ")
    session.type(b"\r")
    session.see(b"<break>")


def test_info_tells_of_the_console_and_the_session(session: Terminal) -> None:
    session.type(b"\x1di")
    session.see(b"10.1.2.3:55555")
    session.see(b"you: number 7, read-write")


def test_an_unknown_key_is_explained(session: Terminal) -> None:
    session.type(b"\x1dx")
    session.see(b"[vspcctl: x is no command; ^] ? lists them]")


def test_another_escape_key_can_be_chosen(web01: Daemon, terminals: Terminals) -> None:
    session = attached(web01, terminals, "--escape", "^A")
    session.type(b"\x1d")
    session.see(b"\x1d")
    session.type(b"\x01.")
    assert session.wait() == 0


def test_a_notice_stands_on_its_own_line_and_the_line_comes_again(session: Terminal) -> None:
    session.type(b"!prompt")
    session.see(b"login: \r\n[vspcd: hello]\r\nlogin: ")


def test_a_notice_does_not_cut_a_colour_in_two(session: Terminal) -> None:
    session.type(b"!half")
    session.see(b"red \x1b[31mtext\r\n\r[vspcd: hello]\r\n")


def test_a_notices_control_characters_are_shown_escaped(session: Terminal) -> None:
    session.type(b"!evil")
    session.see(rb"[vspcd: \x1b]0;x\x07]")


def test_skipped_bytes_are_told(session: Terminal) -> None:
    session.type(b"!skipped")
    session.see(b"[vspcd: 1234 bytes skipped]")


def test_the_daemons_reason_to_end_a_session_is_shown(session: Terminal) -> None:
    session.type(b"!bye")
    assert session.wait() == 1
    assert b"kicked by root" in session.output
    assert session.is_restored


@pytest.mark.parametrize("word", [b"!stopping", b"!orphaned"])
def test_a_daemon_that_ends_with_a_goodbye_has_the_exit_code_of_a_lost_one(
    session: Terminal, word: bytes
) -> None:
    session.type(word)
    assert session.wait() == 4


def test_the_daemons_death_is_told_and_the_terminal_restored(web01: Daemon, terminals: Terminals) -> None:
    session = attached(web01, terminals)
    web01.end()
    assert session.wait() == 4
    assert b"[vspcctl: lost web01: the daemon has ended]" in session.output
    assert session.is_restored


def test_a_workers_death_is_not_taken_for_the_daemons(session: Terminal) -> None:
    session.type(b"!die")
    assert session.wait() == 1
    assert b"[vspcctl: lost web01: its process has ended; the same command gets back on it]" in session.output
    assert session.is_restored


@pytest.mark.parametrize("last", [b"\x1d.", b"!bye", b"!die", b"!garbage"])
def test_the_vms_prompt_does_not_come_again_at_the_end(session: Terminal, last: bytes) -> None:
    session.type(b"!login")
    session.see(b"login: ")
    session.type(last)
    session.wait()
    assert session.output.startswith(b"\r\n[vspcctl: ")
    assert session.output.endswith(b"]\r\n")


def test_nonsense_from_the_daemon_restores_the_terminal(session: Terminal) -> None:
    session.type(b"!garbage")
    assert session.wait() == 1
    assert b"was not understood" in session.output
    assert session.is_restored


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_restores_the_terminal(session: Terminal, number: signal.Signals) -> None:
    session.process.send_signal(number)
    assert session.wait() == 128 + number
    assert session.is_restored


def test_modes_that_the_vm_left_are_taken_back(session: Terminal) -> None:
    session.type(b"!vi")
    session.see(b"vi")
    session.type(b"\x1d.")
    assert session.wait() == 0
    assert b"\x1b[?1049l\x1b[?25h\x1b[0m\x1b(B\x0f\x1b>\r\n[vspcctl: detached" in session.output


def test_a_terminal_that_hangs_up_ends_the_session(web01: Daemon, terminals: Terminals) -> None:
    session = attached(web01, terminals)
    os.close(session.user_side)
    os.close(session.fd)
    try:
        # The kernel's own SIGHUP may come when the tool has noticed and is leaving; a shell sees 129 either way.
        assert session.process.wait(20) in (128 + signal.SIGHUP, -signal.SIGHUP)
    finally:
        session.fd, session.user_side = os.openpty()


def test_a_continue_signal_makes_the_terminal_raw_again(session: Terminal) -> None:
    termios.tcsetattr(session.user_side, termios.TCSANOW, session.settings)
    session.process.send_signal(signal.SIGCONT)
    session.until(lambda: session.is_raw)
    session.type(b"\x1d.")
    assert session.wait() == 0
    assert session.is_restored


def test_read_only_sends_nothing_and_says_so(web01: Daemon, terminals: Terminals) -> None:
    session = attached(web01, terminals, "--read-only")
    session.type(b"secret")
    assert b"secret" not in session.see(b"[vspcctl: read-only: what you type is not sent]")
    session.type(b"\x1db")
    assert b"<break>" not in session.see(b"no break was sent")
    session.type(b"\x1d.")
    assert session.wait() == 0
    assert b"secret" not in session.output


def test_suspending_restores_the_terminal_and_going_on_makes_it_raw(
    web01: Daemon, terminals: Terminals
) -> None:
    shell = terminals("/bin/bash", "--norc", "-i", PS1="$ ")
    shell.type(
        b" ".join(word.encode() for word in command("--root", str(web01.root), "console", "web01")) + b"\r"
    )
    shell.see(b"welcome to web01")
    shell.until(lambda: shell.is_raw)
    shell.type(b"\x1dz")
    shell.see(b"Stopped")
    shell.type(b"fg\r")
    shell.see(b"[vspcctl: back on web01]")
    shell.type(b"still here")
    shell.see(b"still here")
    shell.type(b"\x1d.")
    shell.see(b"detached")
    shell.type(b"exit\r")
    assert shell.wait() == 0


def test_escape_works_while_the_output_is_stuck(session: Terminal) -> None:
    session.type(b"!flood")
    session.type(b"\x1d.")
    assert session.process.wait(15) == 0
    assert session.is_restored


def test_a_stuck_output_is_not_made_non_blocking_for_others(session: Terminal) -> None:
    assert os.get_blocking(session.user_side)


def test_the_wrong_name_is_explained_before_the_terminal_changes(web01: Daemon, terminals: Terminals) -> None:
    terminal = terminals(*command("--root", str(web01.root), "console", "web1"))
    assert terminal.wait() == 3
    assert terminal.output == b"vspcctl: no console is named web1; did you mean web01?\r\n"


def test_ctrl_c_while_the_daemon_is_silent_ends_without_a_traceback(
    web01: Daemon, terminals: Terminals
) -> None:
    os.kill(web01.process.pid, signal.SIGSTOP)
    terminal = terminals(*command("--root", str(web01.root), "console", "web01"))
    terminal.until(lambda: has_socket(terminal.process.pid))
    terminal.type(b"\x03")
    assert terminal.wait() == 130
    assert b"Traceback" not in terminal.output


def test_a_pipes_bytes_are_all_sent_and_its_end_ends_the_session(web01: Daemon) -> None:
    everything = bytes(range(256)) * 1000
    done = subprocess.run(
        command("--root", str(web01.root), "console", "web01", "--replay", "0", "--linger", "0.5"),
        input=everything,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, everything)


def test_notices_of_a_piped_session_go_to_stderr(web01: Daemon) -> None:
    done = web01.ctl("console", "web01", "--linger", "0.5", stdin=b"!notice")
    assert done.stdout == "welcome to web01, rw\r\n"
    assert done.stderr == "[vspcctl: on web01, connected]\n[vspcd: web01 disconnected]\n"


def test_the_last_notice_of_a_piped_session_goes_to_stderr(web01: Daemon) -> None:
    done = web01.ctl("console", "web01", "--linger", "20", stdin=b"!bye")
    assert done.stderr.endswith("\n[vspcctl: the daemon has ended the session: kicked by root]\n")


def test_a_large_output_into_a_pipe_is_complete(web01: Daemon) -> None:
    done = web01.ctl("console", "web01", "--replay", "0", stdin=b"!flood")
    assert len(done.stdout.encode("utf-8", "surrogateescape")) == 1 << 20


def test_a_reader_that_goes_away_ends_the_session_quietly(web01: Daemon) -> None:
    session = subprocess.Popen(
        command("--root", str(web01.root), "console", "web01"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with session:
        assert session.stdout is not None
        assert session.stderr is not None
        session.stdout.readline()
        session.stdout.close()
        assert session.wait(10) == 141
        assert b"Traceback" not in session.stderr.read()


def test_a_busy_console_has_an_exit_code_of_its_own(daemons: Callable[..., Daemon]) -> None:
    from tests.ctl.conftest import console

    done = daemons(console(1, "busy")).ctl("console", "busy")
    assert (done.returncode, done.stderr) == (5, "vspcctl: busy has 64 clients already\n")


def test_a_wrong_escape_key_is_wrong_usage(web01: Daemon) -> None:
    done = web01.ctl("console", "web01", "--escape", "ctrl-x")
    assert (done.returncode, "is not a key" in done.stderr) == (2, True)
