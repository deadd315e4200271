"""The TLS helper's pump: every byte, both ways, in order, up to the end; and flat memory whatever a side does."""

from __future__ import annotations

import os
import random
import select
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workers.tls_bench import Client, End, TlsBench, all_of, pump, received, self_signed, stuffed
from tests.workers.tls_peer import TlsPeer

MEGABYTE = 1 << 20
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
both_versions = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return self_signed(tmp_path_factory.mktemp("tls"), "vspc.example")


@pytest.fixture
def bench(files: tuple[Path, Path]) -> Iterator[TlsBench]:
    made = TlsBench(*files)
    made.wait("certificate")
    yield made
    made.close()


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def secure(
    bench: TlsBench, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> tuple[TlsPeer, socket.socket]:
    peer, worker = bench.connect()
    tls = TlsPeer(peer, version).handshake()
    bench.wait("secured", bench.legs)
    return tls, worker


# Bytes


@pytest.mark.parametrize("option", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize(("peer_gulp", "worker_gulp"), [(65536, 65536), (5000, 65536), (65536, 5000)])
def test_ten_megabytes_go_both_ways_at_once_whoever_reads_slowly(
    bench: TlsBench, option: str, peer_gulp: int, worker_gulp: int
) -> None:
    size = 10 * MEGABYTE
    up, down = noise(size, 1), noise(size, 2)
    with Client(bench, option) as client:
        worker = bench.adopt()
        outer = End(client.stdout.fileno(), client.stdin.fileno(), up, peer_gulp)
        inner = End(worker.fileno(), worker.fileno(), down, worker_gulp)
        pump(outer, inner, expect=size)
        assert (inner.incoming == up, outer.incoming == down) == (True, True)


@both_versions
def test_every_byte_value_and_any_length_passes(bench: TlsBench, version: ssl.TLSVersion) -> None:
    tls, worker = secure(bench, version)
    for size in (1, 2, 255, 16383, 16384, 16385, 40000):
        data = (bytes(range(256)) * 200)[:size]
        tls.send(data)
        assert received(worker, size) == data
        worker.sendall(data)
        assert tls.receive(size) == data


def test_sixty_four_legs_do_not_mix(bench: TlsBench) -> None:
    legs = [secure(bench) for _ in range(64)]
    for number, (tls, worker) in enumerate(legs):
        tls.send(b"up %d" % number)
        worker.sendall(b"down %d" % number)
    for number, (tls, worker) in enumerate(legs):
        assert received(worker, len(b"up %d" % number)) == b"up %d" % number
        assert tls.receive(len(b"down %d" % number)) == b"down %d" % number


# The end of a stream


@both_versions
def test_after_a_peers_close_notify_everything_arrives_and_the_worker_can_still_answer(
    bench: TlsBench, version: ssl.TLSVersion
) -> None:
    tls, worker = secure(bench, version)
    up, down = noise(200000, 3), noise(3 * MEGABYTE, 4)
    tls.send(up)
    tls.close_notify()
    assert all_of(worker) == up
    outer = End(tls.sock.fileno(), tls.sock.fileno())
    inner = End(worker.fileno(), worker.fileno(), down)
    pump(outer, inner, expect=len(down))  # ciphertext is longer than what it carries
    worker.setblocking(True)
    worker.sendall(inner.outgoing)
    worker.shutdown(socket.SHUT_WR)
    tls.sock.settimeout(10)
    tls._incoming.write(bytes(outer.incoming))
    assert tls.receive() == down
    bench.wait("tls-ended", 1)


@both_versions
def test_a_fin_without_close_notify_ends_the_stream_as_well(bench: TlsBench, version: ssl.TLSVersion) -> None:
    tls, worker = secure(bench, version)
    up = noise(300000, 5)
    tls.send(up[:200000])
    worker_got = received(worker, 100000)
    tls.send(up[200000:])
    tls.fin()
    assert worker_got + all_of(worker) == up
    worker.sendall(b"bye")
    worker.close()
    assert tls.receive() == b"bye"
    bench.wait("tls-ended", 1)


@both_versions
def test_a_worker_that_is_done_sending_can_still_receive(bench: TlsBench, version: ssl.TLSVersion) -> None:
    tls, worker = secure(bench, version)
    worker.sendall(b"last words")
    worker.shutdown(socket.SHUT_WR)
    assert tls.receive() == b"last words"
    assert tls.notified
    tls.send(b"heard you" * 20000)
    tls.close_notify()
    assert all_of(worker) == b"heard you" * 20000
    bench.wait("tls-ended", 1)
    assert tls.sock.recv(1) == b""


@both_versions
def test_a_worker_can_close_while_its_last_megabyte_is_on_its_way(
    bench: TlsBench, version: ssl.TLSVersion
) -> None:
    tls, worker = secure(bench, version)
    data = noise(150000, 6)
    worker.sendall(data)
    worker.shutdown(socket.SHUT_RDWR)
    assert tls.receive() == data
    tls.close_notify()
    tls.fin()
    bench.wait("tls-ended", 1)


def test_a_worker_can_end_its_direction_with_the_other_one_stuffed(bench: TlsBench) -> None:
    tls, worker = secure(bench)
    up = noise(16 * MEGABYTE, 7)
    tls.tls.write(up)
    outer = End(tls.sock.fileno(), tls.sock.fileno(), tls._outgoing.read())
    while select.select([], [outer.writer], [], 0.5)[1]:
        outer.step([], [outer.writer])
    assert outer.outgoing
    worker.sendall(b"enough")
    worker.shutdown(socket.SHUT_WR)
    tls.sock.settimeout(10)
    assert (tls.receive(), tls.notified) == (b"enough", True)
    inner = End(worker.fileno(), worker.fileno())
    outer.ended = True
    pump(End(outer.reader, outer.writer, bytes(outer.outgoing)), inner, expect=len(up))
    assert inner.incoming == up
    tls.fin()
    bench.wait("tls-ended", 1)


def test_the_end_waits_for_what_a_slow_worker_has_not_taken_yet(bench: TlsBench) -> None:
    tls, worker = secure(bench)
    up = noise(16 * MEGABYTE, 8)
    tls.tls.write(up)
    with pytest.raises(ssl.SSLWantReadError):
        tls.tls.unwrap()
    outer = End(tls.sock.fileno(), tls.sock.fileno(), tls._outgoing.read())
    outer.ended = True
    inner = End(worker.fileno(), worker.fileno(), gulp=9000)
    pump(outer, inner, expect=len(up))
    worker.settimeout(10)
    assert (inner.incoming == up, worker.recv(1)) == (True, b"")


def test_the_end_waits_for_what_a_slow_peer_has_not_taken_yet(bench: TlsBench) -> None:
    tls, worker = secure(bench)
    inner = End(worker.fileno(), worker.fileno(), noise(16 * MEGABYTE, 9))
    sent = 0
    while select.select([], [inner.writer], [], 0.5)[1]:
        before = len(inner.outgoing)
        inner.step([], [inner.writer])
        sent += before - len(inner.outgoing)
    worker.shutdown(socket.SHUT_WR)
    assert tls.receive() == noise(16 * MEGABYTE, 9)[:sent]
    assert tls.notified


def test_bytes_before_a_reset_reach_the_worker(bench: TlsBench) -> None:
    tls, worker = secure(bench)
    tls.send(b"before")
    assert received(worker, 6) == b"before"
    tls.reset()
    assert worker.recv(1) == b""
    worker.close()
    bench.wait("tls-ended", 1)


def test_a_dead_worker_ends_the_connection_of_its_peer(bench: TlsBench) -> None:
    tls, worker = secure(bench)
    tls.send(b"nobody reads this")
    worker.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    worker.shutdown(socket.SHUT_RDWR)
    assert tls.receive() == b""
    tls.fin()
    bench.wait("tls-ended", 1)


# A side that stops reading


def test_a_peer_that_stops_reading_holds_up_its_worker_and_costs_no_memory(bench: TlsBench) -> None:
    tls, worker = secure(bench)
    other, other_worker = secure(bench)
    before = bench.memory()
    stuffed(worker.fileno())
    assert bench.memory() - before < MEGABYTE
    other.send(b"undisturbed")
    assert received(other_worker, 11) == b"undisturbed"
    tls.send(b"and the other direction")
    worker.settimeout(10)
    assert received(worker, 23) == b"and the other direction"


def test_a_worker_that_stops_reading_holds_up_its_peer_and_costs_no_memory(bench: TlsBench) -> None:
    with Client(bench) as client:
        worker = bench.adopt()
        bench.wait("secured", 1)
        other, other_worker = secure(bench)
        before = bench.memory()
        sent = stuffed(client.stdin.fileno())
        assert bench.memory() - before < MEGABYTE
        other.send(b"undisturbed")
        assert received(other_worker, 11) == b"undisturbed"
        assert received(worker, sent) == bytes(sent)


@pytest.mark.parametrize("end", ["fin", "reset"])
def test_a_leg_that_waits_for_its_worker_does_not_spin_when_its_peer_ends(bench: TlsBench, end: str) -> None:
    tls, worker = secure(bench)
    tls.tls.write(bytes(16 * MEGABYTE))
    outer = End(tls.sock.fileno(), tls.sock.fileno(), tls._outgoing.read())
    while select.select([], [outer.writer], [], 0.5)[1]:
        outer.step([], [outer.writer])
    tls.fin() if end == "fin" else tls.reset()
    before = cpu_of(bench.process.pid)
    time.sleep(0.5)
    assert cpu_of(bench.process.pid) - before < 0.1
    assert len(all_of(worker)) > 0
    worker.close()
    bench.wait("tls-ended", 1)


def test_a_leg_that_waits_for_its_peer_does_not_spin(bench: TlsBench) -> None:
    tls, worker = secure(bench)
    stuffed(worker.fileno())
    tls.fin()
    before = cpu_of(bench.process.pid)
    time.sleep(0.5)
    assert cpu_of(bench.process.pid) - before < 0.1


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# Peers that break the rules in mid-stream


@both_versions
def test_garbage_in_mid_stream_ends_that_leg_alone_and_loses_nothing_before_it(
    bench: TlsBench, version: ssl.TLSVersion
) -> None:
    tls, worker = secure(bench, version)
    other, other_worker = secure(bench)
    tls.send(b"good" * 10000)
    tls.raw(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert all_of(worker) == b"good" * 10000
    worker.close()
    bench.wait("tls-ended", 1)
    other.send(b"undisturbed")
    assert received(other_worker, 11) == b"undisturbed"


def test_what_broke_a_session_is_in_the_log(files: tuple[Path, Path]) -> None:
    bench = TlsBench(*files)
    tls, worker = secure(bench)
    tls.raw(b"\x17\x03\x03\x00\x20" + bytes(32))
    worker.recv(1)
    worker.close()
    bench.wait("tls-ended", 1)
    log = bench.close()
    assert "tls-broken leg=1 peer=192.0.2.1:1" in log
    assert "cannot be decrypted" in log


def test_a_renegotiation_is_refused_and_hurts_nobody_else(bench: TlsBench) -> None:
    other, other_worker = secure(bench)
    with Client(bench, "-tls1_2", quiet="-nbio") as client:
        worker = bench.adopt()
        client.stdin.write(b"before\n")
        assert received(worker, 7) == b"before\n"
        client.order(b"R\n")
        assert client.process.wait(10) != 0  # s_client gives up when it is refused
        assert all_of(worker) == b""
    worker.close()
    bench.wait("tls-ended", 2)
    other.send(b"undisturbed")
    assert received(other_worker, 11) == b"undisturbed"


def test_new_keys_are_taken_in_mid_stream(bench: TlsBench) -> None:
    with Client(bench, "-tls1_3", quiet="-nbio") as client:
        worker = bench.adopt()
        for order in (b"K\n", b"k\n", b"K\n"):
            client.order(b"up\n")
            assert received(worker, 3) == b"up\n"
            client.order(order)
            worker.sendall(b"down\n")
            client.read_until(b"down\n")
        client.order(b"end\n")
        assert received(worker, 4) == b"end\n"


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
def test_connections_that_come_and_go_leave_no_memory_behind(
    bench: TlsBench, version: ssl.TLSVersion
) -> None:
    def come_and_go(times: int) -> None:
        for _ in range(times):
            tls, worker = secure(bench, version)
            worker.close()
            tls.fin()
            bench.wait("tls-ended", bench.legs)
            for sock in bench._held:
                sock.close()
            bench._held.clear()
            bench.said.clear()

    come_and_go(100)
    before = bench.memory()
    come_and_go(500)
    assert bench.memory() - before < 200 << 10
