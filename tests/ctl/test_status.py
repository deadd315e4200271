"""vspcctl status and list, as people and programs see them."""

from __future__ import annotations

import json
import os
import re
import time
from typing import Any, Callable

import pytest

from tests.ctl.conftest import UUIDS, Daemon, Terminal, command, console

Daemons = Callable[..., Daemon]
Terminals = Callable[..., Terminal]
EVIL = "\x1b]0;owned\x07\u202e"


def seen(daemon: Daemon, terminals: Terminals, width: int, *words: str, **env: str) -> str:
    terminal = terminals(*command("--root", str(daemon.root), "status", *words), width=width, **env)
    assert terminal.wait() == 0
    return terminal.output.decode().replace("\r\n", "\n")


def test_the_daemons_health_is_told(web01: Daemon) -> None:
    shown = web01.ctl("status").stdout
    assert "vspcd 0.1.0, up 2h05m, pid 4711" in shown
    assert "Proxy listens on: 127.0.0.1:41000" in shown
    assert "Consoles: 1 (1 connected, 0 waiting), clients: 0" in shown
    assert "connections 12" in shown


def test_the_table_tells_all_of_a_console(web01: Daemon) -> None:
    row = web01.ctl("status").stdout.splitlines()[-1].split()
    assert row[:6] == ["web01", UUIDS[1], "connected", "1m", "10.1.2.3:55555", "50001"]
    assert row[6:10] == ["0", "1.2M", "89", str(os.getpid())]


def test_refused_vms_are_told_with_reason_and_time(daemons: Daemons) -> None:
    refused = {"peer": "10.9.9.9:1", "reason": "blank VC UUID", "when": time.time() - 130}
    shown = daemons(refused=[refused]).ctl("status").stdout
    assert re.search(r"10\.9\.9\.9:1 2m ago \(.*\): blank VC UUID", shown)


def test_many_refused_vms_do_not_flood_the_screen(daemons: Daemons) -> None:
    refused = [{"peer": f"10.0.0.{n}:1", "reason": "no", "when": n} for n in range(50)]
    shown = daemons(refused=refused).ctl("status").stdout
    assert shown.count("10.0.0.") == 5
    assert "10.0.0.49" in shown
    assert "45 before" in shown


def test_a_daemon_of_another_version_is_pointed_out(daemons: Daemons) -> None:
    assert "This vspcctl is of version 0.1.0." in daemons(version="0.0.9").ctl("status").stdout


def test_a_log_in_trouble_is_pointed_out_with_the_reason(daemons: Daemons) -> None:
    shown = daemons(console(1, "web01", log_trouble="No space left on device")).ctl("status").stdout
    assert "Logs in trouble on 1 consoles: web01 (No space left on device)" in shown


def test_bytes_that_were_not_logged_are_pointed_out(daemons: Daemons) -> None:
    shown = daemons(console(1, "web01", not_logged=5000)).ctl("status").stdout
    assert "Bytes not logged on 1 consoles: web01 (4.9K)" in shown


def test_parked_vms_are_pointed_out_and_how_they_are_let_in(daemons: Daemons) -> None:
    until = time.time() + 1830  # half a minute for a busy machine
    parked = [console(n, f"web{n:02}", state="parked", parked_until=until) for n in range(1, 8)]
    shown = daemons(*parked).ctl("status").stdout
    assert "Parked VMs: web01 (for 30m), web02 (for 30m)," in shown
    assert "web05 (for 30m) and 2 more; let in again by vspcctl unpark NAME" in shown


def test_quarantine_is_pointed_out_and_its_files_are_named(daemons: Daemons) -> None:
    kept = {"when": time.time(), "file": "/log/x.quarantine.1", "bytes": 12}
    daemon = daemons(console(1, "web01", quarantined=[kept]))
    assert "Put into quarantine, see vspcctl status NAME: web01 (1)" in daemon.ctl("status").stdout
    assert "12 bytes in /log/x.quarantine.1, " in daemon.ctl("status", "web01").stdout


def test_without_consoles_there_is_a_sentence(daemons: Daemons) -> None:
    assert "No VM has connected yet." in daemons().ctl("status").stdout


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(daemons: Daemons, terminals: Terminals, width: int) -> None:
    refused = [{"peer": "10.0.0.1:1", "reason": "a long reason " * 10, "when": 1}]
    daemon = daemons(console(1, "web01"), console(2, "database-with-a-long-name"), refused=refused)
    lines = seen(daemon, terminals, width, NO_COLOR="1").split("\n")
    assert [line for line in lines if len(line) > width] == []
    assert any(line.startswith("web01") for line in lines)


def test_a_narrow_terminal_keeps_what_matters(web01: Daemon, terminals: Terminals) -> None:
    shown = seen(web01, terminals, 60, NO_COLOR="1")
    assert re.search(r"web01 .* connected .* 50001", shown)
    assert "Not everything fits" in shown


def test_a_wide_terminal_shows_every_column(web01: Daemon, terminals: Terminals) -> None:
    assert "Not everything fits" not in seen(web01, terminals, 200, NO_COLOR="1")


def test_a_terminal_gets_colours(web01: Daemon, terminals: Terminals) -> None:
    assert "\x1b[32mconnected\x1b[0m" in seen(web01, terminals, 80)


@pytest.mark.parametrize("setting", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_declined(web01: Daemon, terminals: Terminals, setting: dict[str, str]) -> None:
    assert "\x1b" not in seen(web01, terminals, 80, **setting)


def test_a_pipe_gets_no_colours(web01: Daemon) -> None:
    assert "\x1b" not in web01.ctl("status").stdout


@pytest.mark.parametrize("words", [["status"], ["list"], ["status", UUIDS[1]]])
def test_what_a_vm_chose_is_shown_escaped(daemons: Daemons, words: list[str]) -> None:
    shown = daemons(console(1, EVIL, peer=EVIL), refused=[{"peer": EVIL, "reason": EVIL, "when": 1}]).ctl(
        *words
    )
    assert not set(EVIL) & set("\x1b\x07\u202e") & set(shown.stdout)
    assert r"\x1b]0;owned\x07\u202e" in shown.stdout


def test_a_name_that_the_locale_cannot_show_is_no_error(daemons: Daemons) -> None:
    done = daemons(console(1, "größe")).ctl(
        "status", LANG="C", LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_one_console_is_told_in_full(daemons: Daemons) -> None:
    client = {
        "id": 7,
        "kind": "telnet",
        "from": "10.0.0.9:4",
        "mode": "rw",
        "lag": 12,
        "since": time.time() - 90,
    }
    line = {
        "baud": 9600,
        "data_size": 8,
        "parity": "none",
        "stop_size": "1",
        "flow": "none",
        "break_on": False,
    }
    shown = (
        daemons(console(1, "web01", clients=[client], line=line), console(2, "db"))
        .ctl("status", "web01")
        .stdout
    )
    assert re.search(r"Serial line: +9600 8N1\n", shown)
    assert re.search(r"7 +telnet +10\.0\.0\.9:4 +rw +1m +12", shown)
    assert f"/run/vspc/{UUIDS[1]}.sock" in shown
    assert "db" not in shown


def test_status_of_an_unknown_console_fails_with_a_suggestion(web01: Daemon) -> None:
    done = web01.ctl("status", "web1")
    assert (done.returncode, done.stderr) == (3, "vspcctl: no console is named web1; did you mean web01?\n")


def fact(shown: str, heading: str) -> str:
    """What stands behind a heading."""
    found = re.search(rf"^{heading}: +(.*)$", shown, re.MULTILINE)
    assert found is not None, f"no {heading} in {shown}"
    return found[1]


@pytest.mark.parametrize(
    ("field", "heading", "told"),
    [
        ({"moves": []}, "Moves", "none"),
        ({"not_logged": 0}, "Not logged", "0 bytes"),
        ({"not_logged": 5000}, "Not logged", "5000 bytes (4.9K)"),
        ({"tls": True}, "TLS", "yes"),
        ({"tls": False}, "TLS", "no"),
        ({"hints": []}, "Hints", "none"),
        ({"line": None}, "Serial line", "-"),
    ],
)
def test_facts_of_a_console_are_told_in_words(
    daemons: Daemons, field: dict[str, Any], heading: str, told: str
) -> None:
    assert fact(daemons(console(1, "web01", **field)).ctl("status", "web01").stdout, heading) == told


def a_move(**more: Any) -> dict[str, Any]:
    return {
        "when": time.time() - 2 * 86400,
        "from": "10.1.2.3:55555",
        "to": "[2001:db8::1]:4711",
        "goahead_ms": 0.8,
        "peer_ms": 10.0,
        "complete_ms": 20.0,
        "done_ms": 21.25,
        "held": 1500,
        "outcome": "moved",
        **more,
    }


STALLED = {"when": 1, "from": "10.1.2.3:5", "to": "", "held": 0, "outcome": "not now: the VM does not read"}


def test_moves_are_told_as_a_table(daemons: Daemons) -> None:
    shown = daemons(console(1, "web01", moves=[a_move(), STALLED])).ctl("status", "web01").stdout
    assert fact(shown, "Moves") == "2"
    *_, heading, moved, stalled = shown.splitlines()
    assert heading.split() == ["WHEN", "FROM", "TO", "GOAHEAD", "ms", "TOTAL", "ms", "HELD", "OUTCOME"]
    assert re.search(r" \d\d:\d\d +10\.1\.2\.3 +2001:db8::1 +0\.8 +21\.2 +1\.5K +moved$", moved)
    assert re.search(r" 10\.1\.2\.3 +- +- +- +0 +not now: the VM does not read$", stalled)


def test_a_move_of_today_is_told_with_its_second(daemons: Daemons) -> None:
    now = time.time()
    shown = daemons(console(1, "web01", moves=[a_move(when=now)])).ctl("status", "web01").stdout
    assert time.strftime(" %H:%M:%S ", time.localtime(now)) in shown.splitlines()[-1]


@pytest.mark.parametrize("width", [60, 200])
def test_moves_and_clients_fit_the_terminal(daemons: Daemons, terminals: Terminals, width: int) -> None:
    client = {"id": 7, "kind": "telnet", "from": "10.0.0.9:4" * 4, "mode": "rw", "lag": 12, "since": 1}
    daemon = daemons(console(1, "web01", moves=[a_move(), STALLED], clients=[client]))
    lines = seen(daemon, terminals, width, "web01", NO_COLOR="1").split("\n")
    assert [line for line in lines if len(line) > width] == []
    assert sum("Not everything fits" in line for line in lines) == (2 if width == 60 else 0)


def test_a_move_that_failed_is_coloured(daemons: Daemons, terminals: Terminals) -> None:
    daemon = daemons(console(1, "web01", moves=[STALLED, a_move()]))
    assert re.findall(r"\x1b\[33m +(\S+)", seen(daemon, terminals, 200, "web01")) == ["1970-01-01"]


def a_certificate(days: float) -> dict[str, Any]:
    return {
        "sha1": ":".join(["AB"] * 20),
        "sha256": ":".join(["CD"] * 32),
        "not_after": int(time.time() + days * 86400 + 30),
        "subject": f"CN={EVIL}",
        "names": [],
    }


def test_the_certificate_is_told_with_its_thumbprints(daemons: Daemons) -> None:
    shown = daemons(certificate=a_certificate(45)).ctl("status").stdout
    assert re.search(
        r"^Certificate: 45 days left \(until \d{4}-..-..\), CN=\\x1b]0;owned", shown, re.MULTILINE
    )
    assert "\n  SHA-1   " + ":".join(["AB"] * 20) + "\n" in shown
    assert "\n  SHA-256 " + ":".join(["CD"] * 32) + "\n" in shown


@pytest.mark.parametrize(
    ("days", "told"),
    [
        (31, "Certificate: 31 days left ("),
        (29, "\x1b[33m29 days left\x1b[0m"),
        (1, "\x1b[33m1 day left\x1b[0m"),
        (0.5, "\x1b[33m12h00m left\x1b[0m"),
        (-1, "\x1b[31mexpired\x1b[0m"),
    ],
)
def test_a_certificate_that_ends_soon_is_a_warning(
    daemons: Daemons, terminals: Terminals, days: float, told: str
) -> None:
    assert told in seen(daemons(certificate=a_certificate(days)), terminals, 80)


def test_a_thumbprint_is_never_broken_within_a_byte(daemons: Daemons, terminals: Terminals) -> None:
    lines = seen(daemons(certificate=a_certificate(90)), terminals, 60, NO_COLOR="1").splitlines()
    pieces = [line.split()[-1] for line in lines if "CD:CD" in line]
    assert "".join(pieces) == ":".join(["CD"] * 32)
    assert [piece.strip(":").split(":") for piece in pieces] == [["CD"] * 16] * 2


@pytest.mark.parametrize("certificate", [{}, {"certificate": None}])
def test_without_a_certificate_nothing_is_said_of_one(daemons: Daemons, certificate: dict[str, Any]) -> None:
    assert "Certificate" not in daemons(**certificate).ctl("status").stdout


def test_connections_over_tls_are_counted_and_marked(daemons: Daemons) -> None:
    shown = daemons(console(1, "web01", tls=True), console(2, "web02", tls=False)).ctl("status").stdout
    assert "Consoles: 2 (2 connected, 0 waiting; 1 over TLS), clients: 0" in shown
    assert [" 10.1.2.3:55555 tls " in line for line in shown.splitlines()[-2:]] == [True, False]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["status"], " connected "),
        (["list"], "\tconnected\t50001\n"),
        (["_names"], "web01\n"),
        (["doctor"], "1 of 1 known VMs are connected"),
        (["top", "--once"], "web01"),
        (["broadcast", "--dry-run", "web*", "x"], "web01: would be typed to"),
    ],
)
def test_an_older_daemon_that_tells_all_fields_or_none_is_understood(
    daemons: Daemons, words: list[str], shown: str
) -> None:
    answer = daemons(console(1, "web01"), old=True).ctl(*words)
    assert shown in answer.stdout, answer.stderr
    assert "fields" not in answer.stderr


def as_json(daemon: Daemon, *words: str) -> Any:
    return json.loads(daemon.ctl("status", "--json", *words).stdout)


def test_json_is_one_object_with_all_fields(daemons: Daemons) -> None:
    refused = [{"peer": "10.9.9.9:1", "reason": "blank VC UUID", "when": 1795214000.5}]
    status = as_json(daemons(console(1, "web01"), refused=refused))
    assert set(status) == {"version", "pid", "uptime", "listeners", "totals", "consoles", "refused"}
    assert set(console(1, "web01")) == set(status["consoles"][0])
    assert status["refused"] == refused


def test_json_has_all_of_a_thousand_consoles(daemons: Daemons) -> None:
    status = as_json(daemons(*(console(n, f"vm{n}") for n in range(1000))))
    assert [c["name"] for c in status["consoles"]] == [f"vm{n}" for n in range(1000)]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_json_has_a_line_for_each_console(daemons: Daemons, count: int) -> None:
    shown = daemons(*(console(n, EVIL) for n in range(count))).ctl("status", "--json").stdout
    lines = [json.loads(line.rstrip(",")) for line in shown.splitlines() if line.startswith("    {")]
    assert lines == json.loads(shown)["consoles"]
    assert len(lines) == count


def test_json_has_names_as_they_are(daemons: Daemons) -> None:
    assert as_json(daemons(console(1, EVIL)))["consoles"][0]["name"] == EVIL


def test_json_tells_a_workers_memory_and_processor_time(web01: Daemon) -> None:
    worker = as_json(web01)["consoles"][0]["worker"]
    assert worker["pid"] == os.getpid()
    assert worker["uss"] > 1 << 20
    assert worker["cpu"] > 0


def test_json_has_null_for_a_worker_that_is_gone(daemons: Daemons) -> None:
    worker = as_json(daemons(console(1, "web01", worker={"pid": 0x3FFFFFFF, "uss": None, "cpu": None})))
    assert worker["consoles"][0]["worker"] == {"pid": 0x3FFFFFFF, "uss": None, "cpu": None}


def test_json_has_nulls_without_a_worker(daemons: Daemons) -> None:
    found = as_json(daemons(console(1, "web01", worker=None)))["consoles"][0]["worker"]
    assert found == {"pid": None, "uss": None, "cpu": None}


def test_json_of_one_console_has_that_alone(daemons: Daemons) -> None:
    status = as_json(daemons(console(1, "web01"), console(2, "db")), "db")
    assert [c["name"] for c in status["consoles"]] == ["db"]


def test_the_memory_of_very_many_workers_is_measured_on_request(daemons: Daemons) -> None:
    daemon = daemons(*(console(n, f"vm{n}") for n in range(51)))
    assert "measured with --memory" in daemon.ctl("status").stdout
    assert "measured with --memory" not in daemon.ctl("status", "--memory").stdout


def test_json_has_the_memory_of_very_many_workers_on_request(daemons: Daemons) -> None:
    daemon = daemons(*(console(n, f"vm{n}") for n in range(51)))
    quick = [c["worker"] for c in as_json(daemon)["consoles"]]
    assert all(worker["uss"] is None and worker["cpu"] is not None for worker in quick)
    assert all(c["worker"]["uss"] for c in as_json(daemon, "--memory")["consoles"])


def test_list_has_a_line_per_console_for_scripts(daemons: Daemons) -> None:
    daemon = daemons(
        console(2, "web02", state="waiting", port=None), console(1, "web01"), console(3, None, label="com2")
    )
    assert daemon.ctl("list").stdout.splitlines() == [
        f"-.com2\t{UUIDS[3]}.com2\tconnected\t50003",
        f"web01\t{UUIDS[1]}\tconnected\t50001",
        f"web02\t{UUIDS[2]}\twaiting\t-",
    ]


def test_a_reader_that_wants_no_more_is_no_error(daemons: Daemons, terminals: Terminals) -> None:
    daemon = daemons(*(console(n, "x" * 200 + str(n)) for n in range(1000)))
    line = " ".join(command("--root", str(daemon.root), "list"))
    terminal = terminals("/bin/bash", "-c", f"{line} | head -1; echo code=${{PIPESTATUS[0]}}", width=250)
    assert terminal.wait() == 0
    assert b"Traceback" not in terminal.output
    assert b"code=141" in terminal.output
