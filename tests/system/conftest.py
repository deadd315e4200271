"""Fixtures of the system tests: daemons, VMs and clients that are gone when the test is over."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Callable, Optional

import pytest

from tests.system.daemon import Daemon
from tests.system.lending import Lender
from tests.system.menus import Menu, session
from tests.system.vm import FakeVm

StartDaemon = Callable[..., Daemon]
Dial = Callable[..., FakeVm]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes what a test has opened, the last one first."""
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def root(stack: ExitStack) -> Path:
    """A short path: the name of a Unix socket holds 107 bytes, and pytest's own folders use most of them."""
    path = Path(tempfile.mkdtemp(prefix="vspcd-"))
    stack.callback(shutil.rmtree, path, ignore_errors=True)
    return path


@pytest.fixture
def start_daemon(root: Path, stack: ExitStack) -> StartDaemon:
    """start_daemon('log.dir=off') runs a daemon with settings of its own."""

    def start(*settings: str, config: Optional[Path] = None) -> Daemon:
        daemon = Daemon(root, *settings, config=config)
        stack.callback(end, daemon)
        return daemon.start()

    def end(daemon: Daemon) -> None:
        # Captured, and so shown with the report of a test that failed.
        print(daemon.log())
        try:
            if daemon.runs:
                daemon.stop()
        finally:
            daemon.clean_up()

    return start


@pytest.fixture
def daemon(start_daemon: StartDaemon) -> Daemon:
    return start_daemon()


@pytest.fixture(scope="module")
def lender(request: pytest.FixtureRequest) -> Iterator[Lender]:
    lender = Lender(lambda: request.session.testsfailed)
    yield lender
    lender.end()


@pytest.fixture
def lent(lender: Lender) -> Iterator[Daemon]:
    """Instead of ``daemon``, for modules whose tests have their own VMs and look at nothing that adds up."""
    daemon = lender.lend()
    yield daemon
    print(daemon.log())


@pytest.fixture
def dial(daemon: Daemon, stack: ExitStack) -> Dial:
    """dial(name=..., uuid=...) connects a VM, which is hung up at the end."""
    return lambda **what: stack.enter_context(daemon.dial(**what))


@pytest.fixture
def menu(daemon: Daemon, vm: FakeVm, stack: ExitStack) -> Menu:
    """A session on the console of the test's own ``vm``, wide enough for every question."""
    return stack.enter_context(session(daemon, vm.name, columns=200))
