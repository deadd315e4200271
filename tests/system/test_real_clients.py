"""The clients that people have, each on the console of a VM whose serial port is a shell."""

from __future__ import annotations

import os
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.system.clients import Client, PtyClient, TcpClient
from tests.system.daemon import VSPCCTL, Daemon
from tests.system.simulator import PLAIN_SHELL, PROMPT, Simulator
from tests.system.tools import tool
from tests.system.wait import until

NAME = "web01"
QUESTION = b"echo the answer is $((6*7)), $(expr 3 + 4)"
ANSWER = b"the answer is 42, 7"
RETURN = b"\r"
ESCAPE = b"\x1d"

Command = Callable[[Daemon], list[str]]


@pytest.fixture
def daemon(lent: Daemon) -> Daemon:
    return lent


@pytest.fixture
def shell(daemon: Daemon) -> Iterator[Daemon]:
    """A daemon with one VM that runs a shell."""
    with Simulator(daemon, NAME, "--shell", PLAIN_SHELL):
        yield daemon


def ask(client: Client) -> None:
    """Types a question at the prompt and waits for the answer, which the echo does not contain."""
    client.read_until(PROMPT)
    client.send(QUESTION + RETURN)
    client.read_until(ANSWER)


def greet(command: Command, client: Client) -> None:
    """Telnet clients and vspcctl are shown the prompt that was there before them; raw ones must ask for it."""
    if command in RAW:
        client.send(RETURN)


def port(daemon: Daemon) -> str:
    return str(daemon.port(NAME)[1])


def inetutils(daemon: Daemon) -> list[str]:
    return [tool("inetutils-telnet"), "127.0.0.1", port(daemon)]


def busybox(daemon: Daemon) -> list[str]:
    return [tool("busybox"), "telnet", "127.0.0.1", port(daemon)]


def plink(daemon: Daemon) -> list[str]:
    return [tool("plink"), "-telnet", "127.0.0.1", "-P", port(daemon)]


def netcat(daemon: Daemon) -> list[str]:
    return [tool("nc"), "127.0.0.1", port(daemon)]


def socat_terminal(daemon: Daemon) -> list[str]:
    return [tool("socat"), "-,rawer,escape=0x11", f"UNIX-CONNECT:{daemon.socket_path(NAME)}"]


def vspcctl(daemon: Daemon) -> list[str]:
    return [VSPCCTL, "--root", str(daemon.root), "console", NAME]


RAW = (netcat, socat_terminal)
ALL = (inetutils, busybox, plink, vspcctl, *RAW)


@pytest.mark.parametrize("command", ALL)
def test_client_on_a_terminal_uses_the_shell(command: Command, shell: Daemon, stack: ExitStack) -> None:
    client = stack.enter_context(PtyClient(command(shell)))
    shell.wait_clients(NAME, 1)
    greet(command, client)
    ask(client)


@pytest.mark.parametrize("command", [inetutils, plink, vspcctl])
def test_client_that_echoes_nothing_itself_shows_what_is_typed_once(
    command: Command, shell: Daemon, stack: ExitStack
) -> None:
    client = stack.enter_context(PtyClient(command(shell)))
    shell.wait_clients(NAME, 1)
    client.read_until(PROMPT)
    client.send(b"true once; echo $((6*7))" + RETURN)
    assert client.read_until(b"42").count(b"true once") == 1


@pytest.mark.parametrize("command", [inetutils, plink, socat_terminal, vspcctl])
def test_control_c_reaches_the_shell_and_not_the_client(
    command: Command, shell: Daemon, stack: ExitStack
) -> None:
    client = stack.enter_context(PtyClient(command(shell)))
    shell.wait_clients(NAME, 1)
    greet(command, client)
    client.read_until(PROMPT)
    client.send(b"cat" + RETURN + b"typed" + RETURN)
    client.read_until(b"typed\r\ntyped\r\n")
    client.send(b"\x03")
    ask(client)


def test_six_different_clients_see_one_another(shell: Daemon, stack: ExitStack) -> None:
    clients = [stack.enter_context(PtyClient(command(shell))) for command in ALL]
    shell.wait_clients(NAME, len(clients))
    for command, client in zip(ALL, clients):
        greet(command, client)
        client.read_until(PROMPT)
    clients[0].send(b"echo from $((6*7)) all" + RETURN)
    for client in clients:
        client.read_until(b"from 42 all")


def test_inetutils_telnet_leaves_as_usual(shell: Daemon, stack: ExitStack) -> None:
    client = stack.enter_context(PtyClient(inetutils(shell)))
    ask(client)
    client.send(ESCAPE)
    client.read_until(b"telnet> ")
    client.send(b"quit" + RETURN)
    assert client.wait() == 0
    shell.wait_clients(NAME, 0)


def test_socat_on_a_terminal_leaves_by_its_escape(shell: Daemon, stack: ExitStack) -> None:
    client = stack.enter_context(PtyClient(socat_terminal(shell)))
    greet(socat_terminal, client)
    ask(client)
    client.send(b"\x11")
    client.wait()
    shell.wait_clients(NAME, 0)


def test_vspcctl_console_leaves_by_its_escape_with_the_terminal_as_before(
    shell: Daemon, stack: ExitStack
) -> None:
    client = stack.enter_context(PtyClient(vspcctl(shell)))
    ask(client)
    assert client.terminal() != client.terminal_before
    client.send(ESCAPE + b"q")
    assert client.wait() == 0
    assert client.terminal() == client.terminal_before
    shell.wait_clients(NAME, 0)


def test_vspcctl_console_leaves_with_the_terminal_as_before_when_the_daemon_stops(
    shell: Daemon, stack: ExitStack
) -> None:
    client = stack.enter_context(PtyClient(vspcctl(shell)))
    ask(client)
    assert shell.ctl("stop").returncode == 0
    client.wait()
    assert client.terminal() == client.terminal_before


def test_socat_makes_a_tcp_port_of_the_socket(shell: Daemon, stack: ExitStack) -> None:
    bridge = stack.enter_context(
        PtyClient(
            [
                tool("socat"),
                "-dd",
                "TCP4-LISTEN:0,bind=127.0.0.1,reuseaddr,fork",
                f"UNIX-CONNECT:{shell.socket_path(NAME)}",
            ]
        )
    )
    line = bridge.read_until(b"listening on AF=2 127.0.0.1:") + bridge.read_until(b"\n")
    client = stack.enter_context(TcpClient(("127.0.0.1", int(line.rpartition(b":")[2]))))
    client.send(RETURN)
    ask(client)


def test_socat_makes_a_terminal_of_the_socket(shell: Daemon, stack: ExitStack) -> None:
    link = shell.root / "tty"
    stack.enter_context(
        PtyClient(
            [tool("socat"), f"PTY,link={link},rawer,wait-slave", f"UNIX-CONNECT:{shell.socket_path(NAME)}"]
        )
    )
    until(link.exists, "socat has made the terminal")
    client = stack.enter_context(TerminalClient(str(link)))
    client.send(RETURN)
    ask(client)


class TerminalClient(PtyClient):
    """A program that has opened a serial device."""

    def __init__(self, path: str) -> None:
        Client.__init__(self)
        self.master = os.open(path, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self.master)

    def _ended(self) -> bool:
        return False

    def close(self) -> None:
        os.close(self.master)
