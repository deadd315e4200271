"""The simulated host over TLS: whom it trusts, what it shows, and that it loses nothing."""

from __future__ import annotations

import hashlib
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Optional

import pytest

from tests.simulator.concentrator import Concentrator
from tests.simulator.stories import ALL_BYTES, QUICK, in_loop, poll
from tests.simulator.tls_front import TlsFront
from tests.workers.tls_bench import self_signed
from vspcd.simulator import tls, vmotion
from vspcd.simulator.guests import Echo
from vspcd.simulator.host import HostSettings, SimulatedVm

Files = tuple[Path, Path]
HERE = "127.0.0.1"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return self_signed(tmp_path_factory.mktemp("tls"), "vspc", "-addext", f"subjectAltName=IP:{HERE}")


def digits(certificate: Path, algorithm: str) -> str:
    return hashlib.new(algorithm, ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()


class Estate:
    """A concentrator behind TLS, and what VMs report."""

    def __init__(self, files: Files, client_ca: Optional[Path] = None) -> None:
        self.proxy = Concentrator()
        self.said: list[str] = []
        self._files = files
        self._client_ca = client_ca
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Estate:
        await self._stack.enter_async_context(self.proxy)
        self.front = await self._stack.enter_async_context(
            TlsFront(self.proxy, *self._files, client_ca=self._client_ca)
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    def machine(self, settings: tls.Tls) -> SimulatedVm:
        host = HostSettings(self.front.address, backoff=QUICK, tls=settings)
        return SimulatedVm(host, "web01", guest=Echo, log=self.said.append)

    def told(self, words: str) -> bool:
        return any(words in line for line in self.said)


def test_all_byte_values_pass_both_ways(files: Files) -> None:
    async def story() -> None:
        async with Estate(files) as estate, estate.machine(tls.settings(HERE)) as web01:
            await web01.connected()
            await estate.proxy.console.send(ALL_BYTES * 4)
            await estate.proxy.until(lambda: len(estate.proxy.console.journal) >= len(ALL_BYTES) * 4)
            assert estate.proxy.console.journal == ALL_BYTES * 4
            assert (web01.port.sent, web01.port.received) == (len(ALL_BYTES) * 4,) * 2

    in_loop(story())


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_pinned_thumbprint_is_trusted(files: Files, algorithm: str) -> None:
    async def story() -> None:
        pinned = tls.thumbprint(
            ":".join(digits(files[0], algorithm).upper()[i : i + 2] for i in range(0, 64, 2))
        )
        async with Estate(files) as estate, estate.machine(tls.settings(HERE, pinned=pinned)) as web01:
            await web01.connected()

    in_loop(story())


def test_another_thumbprint_is_not_trusted_and_told(files: Files) -> None:
    async def story() -> None:
        settings = tls.settings(HERE, pinned="ab" * 32)
        async with Estate(files) as estate, estate.machine(settings):
            await poll(lambda: estate.told(f"thumbprint is {digits(files[0], 'sha256')}, not the pinned one"))
            assert not estate.proxy.consoles

    in_loop(story())


def test_a_certificate_that_the_authority_vouches_for_is_trusted(files: Files) -> None:
    async def story() -> None:
        async with Estate(files) as estate, estate.machine(tls.settings(HERE, ca=str(files[0]))) as web01:
            await web01.connected()

    in_loop(story())


def test_a_certificate_for_another_host_is_not_trusted(files: Files) -> None:
    async def story() -> None:
        async with Estate(files) as estate, estate.machine(tls.settings("vspc.test", ca=str(files[0]))):
            await poll(lambda: estate.told("not trusted: Hostname mismatch"))
            assert not estate.proxy.consoles

    in_loop(story())


def test_a_certificate_of_nobody_known_is_not_trusted(files: Files, tmp_path: Path) -> None:
    async def story() -> None:
        other = self_signed(tmp_path, "other")[0]
        async with Estate(files) as estate, estate.machine(tls.settings(HERE, ca=str(other))):
            await poll(lambda: estate.told("not trusted: self-signed certificate"))

    in_loop(story())


def test_a_client_certificate_is_shown(files: Files) -> None:
    async def story() -> None:
        settings = tls.settings(HERE, certificate=str(files[0]), key=str(files[1]))
        async with Estate(files, client_ca=files[0]) as estate, estate.machine(settings) as web01:
            await web01.connected()
            assert estate.front.subjects != [None]

    in_loop(story())


def test_a_session_that_is_cut_off_is_dialled_again(files: Files) -> None:
    async def story() -> None:
        async with Estate(files) as estate, estate.machine(tls.settings(HERE)) as web01:
            await web01.connected()
            estate.front.break_off()
            await poll(lambda: web01.port.accepted == 2)
            assert estate.told("closed: ")
            assert not estate.told("closed by the host")

    in_loop(story())


def test_a_vm_is_moved_over_tls(files: Files) -> None:
    async def story() -> None:
        async with Estate(files) as estate, estate.machine(tls.settings(HERE)) as web01:
            await web01.connected()
            outcome = await vmotion.move(web01.port, "127.0.0.3")
            assert outcome.word == vmotion.MOVED
            await estate.proxy.console.send(b"after the move")
            await estate.proxy.until(lambda: estate.proxy.console.journal == b"after the move")

    in_loop(story())


@pytest.mark.parametrize("text", ["", "12", "zz" * 20, "ab" * 33])
def test_what_is_no_thumbprint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="40 or 64 hex digits"):
        tls.thumbprint(text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ca\.pem: No such file"):
        tls.settings(HERE, ca=str(tmp_path / "ca.pem"))
