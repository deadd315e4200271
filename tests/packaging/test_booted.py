"""The package on a system that was really booted: its scriptlets, its unit, its confinement, consoles that stay."""

from __future__ import annotations

import signal
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.packaging import machine as machines
from tests.packaging.machine import Machine, Service, Stream
from tests.packaging.rpms import NEXT, VERSION, Packages
from tests.system.tls_peers import TlsVm, dialled, self_signed
from tests.system.wait import PATIENCE, until

NO_MACHINE = machines.objection()
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),  # the tree is made first
    pytest.mark.skipif(NO_MACHINE is not None, reason=str(NO_MACHINE)),
]

CONFIG = "/etc/vspcd/vspcd.yaml"
DROP_IN = "/etc/systemd/system/vspcd.service.d/override.conf"


@pytest.fixture
def machine(tmp_path: Path, packages: Packages) -> Iterator[Machine]:
    """With the package, as it is after it was installed."""
    made = Machine(tmp_path / "machine")
    try:
        made.boot()
        made.install(packages.main())
        yield made
        print(made.journal())
    finally:
        made.power_off()


@pytest.fixture
def service(machine: Machine) -> Service:
    machine.must("systemctl", "start", "vspcd")
    return Service(machine)


def drop_in(machine: Machine, *lines: str) -> None:
    """What ``systemctl edit vspcd`` makes."""
    machine.write(DROP_IN, "\n".join(("[Service]", *lines, "")))
    machine.must("systemctl", "daemon-reload")


def restarted(service: Service, times: int, seconds: float = 30) -> None:
    """Wait until systemd has started it again so often, and it is ready."""
    until(lambda: service.machine.shows("NRestarts") == str(times), "it is started again", seconds)
    until(lambda: service.machine.shows("ActiveState") == "active", "it is ready again")


def errors(machine: Machine) -> str:
    """What the daemon has complained of."""
    return machine.must("journalctl", "-q", "-u", "vspcd", "-p", "err", "--no-pager")


def told(machine: Machine) -> str:
    """What the hook has written down."""
    path = machine.path("/var/log/vspc/told")
    return path.read_text() if path.exists() else ""


def test_installing_makes_the_user_and_starting_is_over_when_vms_can_dial(machine: Machine) -> None:
    assert machine.must("id", "-un", "vspc").strip() == "vspc"
    assert machine.shows("ActiveState") == "inactive"
    machine.must("systemctl", "start", "vspcd")
    with Service(machine).dial() as vm:
        until(
            lambda: "1 console, 1 connected" in machine.shows("StatusText"),
            "systemd knows of the console",
            15,
        )
        vm.send(b"said")
    assert machine.does("rpm", "-V", "--nodeps", "vspcd").stdout == ""
    assert "VMs dial" in machine.must("systemctl", "status", "--no-pager", "vspcd")


def test_the_daemon_is_confined_and_nobody_special(service: Service) -> None:
    with service.dial() as vm:
        for pid in (service.pid, service.worker(vm.name)):
            words = dict(
                line.split(":\t", 1)
                for line in service.machine.path(f"/proc/{pid}/status").read_text().splitlines()
            )
            assert (words["CapBnd"], words["CapEff"], words["NoNewPrivs"]) == ("0" * 16, "0" * 16, "1")
            assert words["Seccomp"] == "2"
            assert "0" not in words["Uid"].split()


def test_a_reload_keeps_the_stream(service: Service) -> None:
    pid = service.pid
    with service.dial() as vm, Stream(service, vm) as stream:
        for _ in range(3):
            service.machine.must("systemctl", "reload", "vspcd")
            stream.goes_on()
        stream.finish()
    assert service.pid == pid


def test_a_mistake_in_the_configuration_is_a_failed_reload_and_nothing_else(service: Service) -> None:
    with service.dial() as vm, Stream(service, vm) as stream:
        service.machine.write(CONFIG, "log_levle: debug\n")
        done = service.machine.does("systemctl", "reload", "vspcd")
        assert done.returncode != 0
        stream.goes_on()
        stream.finish()
    assert "log_levle" in service.log()
    assert service.machine.shows("ActiveState") == "active"


def test_the_death_of_the_master_keeps_the_stream(service: Service) -> None:
    pid = service.pid
    with service.dial() as vm, Stream(service, vm) as stream:
        for deaths in (1, 2):
            service.machine.must("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "vspcd")
            stream.goes_on()
            restarted(service, deaths)
            stream.goes_on()
        assert service.pid != pid
        stream.finish()
    assert "1 console" in service.machine.shows("StatusText")


def test_a_master_that_dies_while_its_configuration_is_wrong_waits_for_it_to_be_mended(
    service: Service,
) -> None:
    machine = service.machine
    with service.dial() as vm, Stream(service, vm) as stream:
        machine.write(CONFIG, "log_levle: debug\n")
        machine.must("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "vspcd")
        until(lambda: machine.shows("ActiveState") == "failed", "systemd gives up")
        assert machine.shows("NRestarts") == "1"
        stream.goes_on()
        machine.write(CONFIG, "log_level: debug\n")
        machine.must("systemctl", "start", "vspcd")
        service.wait_clients(vm.name, 2)
        stream.finish()


def test_a_master_that_stands_still_is_replaced_and_the_stream_goes_on(service: Service) -> None:
    drop_in(service.machine, "WatchdogSec=3")
    service.machine.must("systemctl", "restart", "vspcd")
    pid = service.pid
    with service.dial() as vm, Stream(service, vm) as stream:
        service.machine.must(
            "systemctl", "kill", "--kill-whom=main", f"--signal={signal.SIGSTOP.name}", "vspcd"
        )
        restarted(service, 1, 60)
        stream.goes_on()
        assert service.pid != pid
        stream.finish()
    assert "watchdog" in service.machine.must("journalctl", "--no-pager", "-b").lower()


def test_a_restart_hangs_up_and_loses_nothing_that_was_heard(service: Service) -> None:
    vm = service.dial()
    port = service.port(vm.name)
    with Stream(service, vm) as stream:
        service.machine.must("systemctl", "restart", "vspcd")
    log = service.machine.path(f"/var/log/vspc/{vm.uuid}.log")
    before = log.read_bytes()
    assert len(before) >= 200_000
    assert stream.said.startswith(before) or before.startswith(bytes(stream.said))
    for client in stream.clients:
        assert before.startswith(bytes(client.seen))
    with service.dial(name=vm.name, uuid=vm.uuid) as again, Stream(service, again) as second:
        assert service.port(vm.name) == port
        second.__exit__()
        until(lambda: log.read_bytes() == before + bytes(second.said), "the log goes on where it was")


def test_an_upgrade_of_the_package_keeps_the_stream(service: Service, packages: Packages) -> None:
    pid = service.pid
    assert service.status()["version"] == VERSION
    with service.dial() as vm, Stream(service, vm) as stream:
        service.machine.install(packages.main(NEXT))
        assert (service.status()["version"], service.pid) == (NEXT, pid)
        stream.goes_on()
        done = service.ctl("upgrade", "--workers")
        assert done.returncode == 0, done.stderr
        stream.goes_on()
        before = service.log().count(f" to {NEXT}")
        service.machine.must("rpm", "-U", "--nodeps", "--replacepkgs", f"/var/tmp/{packages.main(NEXT).name}")
        assert (
            service.log().count(f" to {NEXT}") == before + 1
        )  # another build of one version takes over, too
        stream.goes_on()
        stream.finish()
    assert service.machine.shows("NRestarts") == "0"


def test_an_upgrade_that_cannot_go_on_is_told_of_and_the_old_version_stays(
    service: Service, packages: Packages
) -> None:
    with service.dial() as vm, Stream(service, vm) as stream:
        service.machine.write(CONFIG, "log_levle: debug\n")
        shown = service.machine.install(packages.main(NEXT))
        assert "the version that was running goes on" in shown
        assert "log_levle" in shown
        assert service.status()["version"] == VERSION
        service.machine.write(CONFIG, "log_level: debug\n")
        service.machine.must("vspcctl", "upgrade")
        assert service.status()["version"] == NEXT
        stream.finish()


def test_what_the_daemon_does_besides_works_in_its_confinement(machine: Machine, tmp_path: Path) -> None:
    pair = self_signed(tmp_path, "vspcd")
    for name, path in (("cert", pair.certificate), ("key", pair.key)):
        machine.write(f"/etc/vspcd/{name}.pem", path.read_text())
        machine.must("chgrp", "vspc", f"/etc/vspcd/{name}.pem")
    machine.must("chmod", "640", "/etc/vspcd/key.pem")
    machine.write(
        "/usr/local/bin/told",
        '#!/bin/sh\necho "$VSPC_EVENT $VSPC_NAME" >>/var/log/vspc/told\nlogger -t told "$VSPC_EVENT"\n',
        0o755,
    )
    machine.write(
        CONFIG,
        "tls: {certificate: /etc/vspcd/cert.pem, key: /etc/vspcd/key.pem}\n"
        "log: {sync: always}\n"
        "hooks: {rules: [{events: [connected], run: [/usr/local/bin/told]}]}\n"
        "triggers: [{name: panic, pattern: panic, run: [/usr/local/bin/told]}]\n",
    )
    machine.must("systemctl", "start", "vspcd")
    service = Service(machine)
    with machine.network():
        vm = TlsVm(service.proxy, name="secret")
    with dialled(service, vm):
        vm.send(b"Kernel panic\r\n")
        until(lambda: "connected secret" in told(machine), "the hook is told of the VM")
        until(lambda: "triggered secret" in told(machine), "it is told of the line")
        assert "secret" in service.ctl("top", "--once").stdout
        assert "Kernel panic" in service.ctl("log", "secret").stdout
    assert errors(machine) == ""
    assert "triggered" in machine.must("journalctl", "-t", "told", "--no-pager")


def test_another_group_may_use_the_sockets_and_a_reload_changes_their_mode(machine: Machine) -> None:
    machine.must("groupadd", "operators")
    drop_in(machine, "SupplementaryGroups=operators")
    machine.write(CONFIG, "sockets: {group: operators}\n")
    machine.must("systemctl", "start", "vspcd")
    service = Service(machine)
    with service.dial() as vm:
        sockets = ("/run/vspc/control.sock", service.wait_open(vm.name)["socket"])
        shown = ("stat", "-c", "%G %a", *sockets)
        assert machine.must(*shown).splitlines() == ["operators 660"] * 2
        machine.write(CONFIG, "sockets: {mode: 0600}\n")
        machine.must("systemctl", "reload", "vspcd")
        assert machine.must(*shown).splitlines() == ["vspc 600"] * 2
    assert errors(machine) == ""


def test_a_hook_finds_an_address_by_its_name_in_the_confinement(machine: Machine) -> None:
    with machine.network():
        server = socket.create_server(("127.0.0.1", 0))
    with server:
        server.settimeout(PATIENCE)
        machine.write("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
        address = f"http://localhost:{server.getsockname()[1]}/told"
        machine.write(CONFIG, f"hooks: {{rules: [{{events: [connected], post: '{address}'}}]}}\n")
        machine.must("systemctl", "start", "vspcd")
        with Service(machine).dial(), server.accept()[0] as posted:
            assert posted.recv(65536).startswith(b"POST /told ")


def test_a_port_below_1024_needs_the_capability_that_the_unit_names(machine: Machine) -> None:
    machine.write(CONFIG, 'proxy: {listen: ["127.0.0.1:23"]}\n')
    assert machine.does("systemctl", "start", "vspcd").returncode != 0
    assert "127.0.0.1:23" in machine.journal()
    capability = "CAP_NET_BIND_SERVICE"
    drop_in(machine, f"CapabilityBoundingSet={capability}", f"AmbientCapabilities={capability}")
    machine.must("systemctl", "restart", "vspcd")
    assert "VMs dial 127.0.0.1:23" in machine.shows("StatusText")


def test_logs_elsewhere_need_the_path_that_the_unit_names(machine: Machine) -> None:
    machine.write(CONFIG, "log: {dir: /srv/consoles}\n")
    machine.must("install", "-d", "-o", "vspc", "/srv/consoles")
    drop_in(machine, "ReadWritePaths=/srv/consoles")
    machine.must("systemctl", "start", "vspcd")
    service = Service(machine)
    with service.dial() as vm:
        vm.send(b"said")
        log = machine.path(f"/srv/consoles/{vm.uuid}.log")
        until(lambda: log.exists() and log.read_bytes() == b"said", "it is logged there")


def test_who_is_in_the_group_may_use_the_consoles_and_nobody_else(machine: Machine) -> None:
    machine.must("groupadd", "operators")
    for name, groups in (("alice", "vspc"), ("bob", "users"), ("carol", "operators")):
        machine.must("useradd", "-G", groups, name)
    machine.must("systemctl", "start", "vspcd")
    with Service(machine).dial() as vm:
        vm.send(b"secret\r\n")
        for command in (("status",), ("log", vm.name), ("grep", "secret")):
            machine.must("runuser", "-u", "alice", "--", "vspcctl", *command)
            denied = machine.does("runuser", "-u", "bob", "--", "vspcctl", *command)
            assert (denied.returncode != 0, "secret" in denied.stdout) == (True, False)
        assert "secret" in machine.must("runuser", "-u", "alice", "--", "vspcctl", "log", vm.name)
    machine.write(CONFIG, "sockets: {group: operators}\n")
    drop_in(machine, "SupplementaryGroups=operators")
    machine.must("systemctl", "restart", "vspcd")
    machine.must("runuser", "-u", "carol", "--", "vspcctl", "status")
    assert machine.does("runuser", "-u", "bob", "--", "vspcctl", "status").returncode != 0


def test_a_copy_of_the_map_that_was_made_while_it_ran_gives_the_ports_back(service: Service) -> None:
    machine = service.machine
    with service.dial(name="one") as one, service.dial(name="two") as two:
        ports = [service.port(vm.name) for vm in (one, two)]
    machine.must("cp", "/var/lib/vspc/portmap.db", "/root/copy")
    with closing(sqlite3.connect(machine.path("/root/copy"))) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    machine.must("systemctl", "stop", "vspcd")
    machine.must("find", "/var/lib/vspc", "-type", "f", "-delete")
    machine.must("cp", "/root/copy", "/var/lib/vspc/portmap.db")
    machine.must("chown", "-R", "vspc:vspc", "/var/lib/vspc", "/var/log/vspc")
    machine.must("systemctl", "start", "vspcd")
    with service.dial(name="two", uuid=two.uuid), service.dial(name="one", uuid=one.uuid):
        assert [service.port(name) for name in ("one", "two")] == ports


def test_removing_ends_the_consoles_of_a_master_that_systemd_has_given_up(service: Service) -> None:
    machine = service.machine
    with service.dial() as vm:
        machine.write(CONFIG, "log_levle: debug\n")
        machine.must("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "vspcd")
        until(lambda: machine.shows("ActiveState") == "failed", "systemd gives up")
        assert any(vm.uuid in title for title in machine.titles())
        machine.must("rpm", "-e", "vspcd")
        until(lambda: machine.titles() == [], "nobody is left")


def test_stopping_and_removing_leave_no_process_and_keep_the_logs(service: Service) -> None:
    machine = service.machine
    with service.dial() as vm:
        vm.send(b"said")
        log = service.log_file(vm.name)
        until(lambda: log.read_bytes() == b"said", "the log has it")
        assert any(vm.uuid in title for title in machine.titles())
        machine.must("systemctl", "stop", "vspcd")
        assert machine.titles() == []
        machine.must("systemctl", "start", "vspcd")
        assert machine.titles() != []
        machine.must("rpm", "-e", "vspcd")
        assert machine.titles() == []
    assert log.read_bytes() == b"said"
    assert machine.does("systemctl", "cat", "vspcd").returncode != 0
    assert machine.must("id", "-un", "vspc").strip() == "vspc"
    assert not machine.path("/usr/lib/vspcd").exists()
