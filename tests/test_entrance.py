"""Who comes to a console's TLS port, as the master deals with him."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stage import Stage, ended

PEER = "192.0.2.7:4000"


class TlsStage(Stage):
    """Clients have to show a certificate. No helper is there: we say what becomes of a handshake."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        files = ["tls.certificate=/none.pem", "tls.mode=off", "ports.tls=true", "ports.client_ca=/none.pem"]
        super().__init__(root, patch, *files)
        self.owner()
        self.secured: list[int] = []

        def secure(number: int, _peer: str, sock: socket.socket, clients: bool = False) -> socket.socket:
            self.secured.append(number)
            return sock

        patch.setattr(self.master.tls, "secure", secure)

    def comes(self) -> socket.socket:
        near, far = socket.socketpair()
        far.settimeout(10)
        self.master.entrance.came(self.console, "telnet", near, PEER)
        self._fars.append(far)
        return far


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TlsStage]:
    made = TlsStage(tmp_path, monkeypatch)
    yield made
    made.close()


def test_who_has_shown_no_certificate_is_refused_though_a_helper_let_him_in(stage: TlsStage) -> None:
    far = stage.comes()
    stage.master._tls_secured(stage.secured[0], None, False)
    assert ended(far)
    assert not stage.console.clients


def test_who_has_shown_a_certificate_without_a_name_is_let_in(stage: TlsStage) -> None:
    stage.comes()
    stage.master._tls_secured(stage.secured[0], None, True)
    assert len(stage.console.clients) == 1


def test_a_helper_that_cannot_be_told_what_is_demanded_gets_nobody_any_more(stage: TlsStage) -> None:
    tls = stage.master.tls
    helper = tls._spawn(clients=True)
    tls.reload(stage.master.config)
    assert tls._with_room(True) is helper
    helper.channel.close()
    tls.reload(stage.master.config)
    assert helper.retiring
