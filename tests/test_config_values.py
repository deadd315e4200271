"""Configured values: which are understood, which are refused, and in which words."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from tests.configuring import problems
from vspcd.config import load
from vspcd.config_schema import value_of

GOOD = [
    ("proxy.listen=[127.0.0.1:0]", (("127.0.0.1", 0),)),
    ("proxy.listen=:0", (("", 0),)),
    ("proxy.listen=8000", (("", 8000),)),
    ("proxy.listen='*:8000'", (("", 8000),)),
    ("proxy.listen=0.0.0.0:8000", (("0.0.0.0", 8000),)),
    ("proxy.listen=['[::1]:7', 'LocalHost:8']", (("::1", 7), ("localhost", 8))),
    ("proxy.listen=['[0:0::1]:7', '[::1]:7']", (("::1", 7),)),
    ("admin.listen=[]", ()),
    ("proxy.allow=10.0.0.0/8", (ipaddress.ip_network("10.0.0.0/8"),)),
    (
        "proxy.allow=['fd00::/8', 10.1.2.3]",
        (ipaddress.ip_network("fd00::/8"), ipaddress.ip_network("10.1.2.3")),
    ),
    ("proxy.uri=[a, b]", ("a", "b")),
    ("proxy.handshake_timeout=2.5", 2.5),
    ("proxy.handshake_timeout=250ms", 0.25),
    ("ports.expire=90s", 90.0),
    ("ports.expire=2d", 172800.0),
    ("ports.first=0", 0),
    ("ports.first=65535", 65535),
    ("ports.enabled=no", False),
    ("ports.address='::1'", "::1"),
    ("ports.address='[::1]'", "::1"),
    ("ports.address='*'", "0.0.0.0"),
    ("ports.address=''", "0.0.0.0"),
    ("ports.address='0:0:0:0:0:0:0:1'", "::1"),
    ("ports.address=LocalHost", "127.0.0.1"),
    ("sockets.mode=0600", 0o600),
    ("sockets.mode=600", 0o600),
    ("sockets.mode='0o600'", 0o600),
    ("sockets.group=tty", "tty"),
    ("sockets.group=5", "5"),
    ("sockets.group=''", None),
    ("sockets.group=null", None),
    ("log.dir=off", None),
    ("log.dir='off'", None),
    ("log.dir=null", None),
    ("log.dir=''", None),
    ("log.dir=", None),
    ("log.dir=consoles", Path("/var/log/vspc/consoles")),
    ("log.dir=/srv/consoles", Path("/srv/consoles")),
    ("log.max_size=64M", 64 << 20),
    ("log.max_size=1GiB", 1 << 30),
    ("log.max_size=12345", 12345),
    ("log.max_size='2 k'", 2048),
    ("log.keep=0", 0),
    ("clients.replay=0", 0),
    ("clients.max=112", 112),
    ("proxy.balancers=[10.9.0.0/28]", (ipaddress.ip_network("10.9.0.0/28"),)),
    ("tls.mode=off", "off"),
    ("tls.certificate=/etc/vspcd/cert.pem", Path("/etc/vspcd/cert.pem")),
    ("tls.certificate=null", None),
    ("tls.min_version=1.0", "1.0"),
    ("tls.min_version='1.3'", "1.3"),
    ("vmotion.timeout=2m", 120.0),
    ("vmotion.limit=2500ms", 2.5),
    ("identity.fallback=bios", "bios"),
    ("log_level=debug", "debug"),
]


@pytest.mark.parametrize(("override", "value"), GOOD)
def test_a_value_is_understood(override: str, value: object) -> None:
    assert value_of(load(None, [override]), override.partition("=")[0]) == value


BAD = [
    ("proxy.listen=:70000", "port 70000 is above 65535"),
    ("proxy.listen=:123456789012345678901234567890", "is above 65535"),
    ("proxy.listen=host", "'host' is not an address with a port"),
    ("proxy.listen='::1:80'", "'::1:80' is not an address with a port"),
    ("proxy.listen='[::1]'", "not an address with a port"),
    ("proxy.listen='[10.0.0.1]:8'", "'10.0.0.1' is not an IPv6 address"),
    ("proxy.listen=10.0.0.256:80", "'10.0.0.256' is neither an address nor a host name"),
    ("proxy.listen='under_score:80'", "neither an address nor a host name"),
    ("proxy.listen=1:30", "'1' is neither an address nor a host name"),
    ("proxy.listen=:-1", "not an address with a port"),
    ("proxy.listen=null", "no value is not an address with a port"),
    ("proxy.listen={a: 1}", "a section is not an address with a port"),
    ("proxy.listen=[[1]]", "a list is not an address with a port"),
    ("proxy.allow=10.0.0.1/8", "did you mean 10.0.0.0/8?"),
    ("proxy.allow=10.0.0.0/33", "'10.0.0.0/33' is not a network"),
    ("proxy.allow=[esx01]", "'esx01' is not a network"),
    ("proxy.allow=true", "'true' is not a network"),
    ("proxy.uri=[]", "the list is empty"),
    ("proxy.uri='vSPC.py?port=a'", "is not a service name"),
    ("proxy.handshake_timeout=0", "'0' is out of range"),
    ("proxy.handshake_timeout=-5", "'-5' is not a time"),
    ("proxy.handshake_timeout=1:30", "'1:30' is not a time"),
    ("proxy.handshake_timeout=.inf", "'.inf' is not a time"),
    ("proxy.handshake_timeout=", "no value is not a time"),
    ("ports.expire=99999w", "out of range"),
    ("proxy.max_pending=0", "0 is out of range; expected a whole number from 1 to 1000000"),
    ("ports.first=-1", "-1 is out of range; expected a whole number from 1 to 65535, or 0"),
    ("ports.first=65536", "65536 is out of range"),
    ("ports.first=1.5", "'1.5' is not a whole number"),
    ("ports.first='50000 '", "is not a whole number"),
    ("ports.first='\"50000\"'", "is not a whole number"),
    ("ports.first=010", "'010' is not a whole number"),
    ("ports.enabled=1", "'1' is neither true nor false"),
    ("ports.address=10.0.0.256", "'10.0.0.256' is not an address in numbers"),
    (
        "ports.address=console.example.com",
        "'console.example.com' is not an address in numbers; expected one such as",
    ),
    ("ports.address='::g'", "'::g' is not an IPv6 address"),
    ("sockets.mode=0990", "'0990' is not an octal mode"),
    ("sockets.mode=rw", "'rw' is not an octal mode"),
    ("sockets.mode=4755", "'4755' is not an octal mode"),
    ("sockets.group=[a]", "a list is not a name"),
    ("log.dir=true", "'true' is not a path"),
    ("log.max_size=0", "'0' is out of range; expected a number of bytes, at least 1"),
    ("log.max_size=64Q", "'64Q' is not a size"),
    ("log.max_size=-1", "'-1' is not a size"),
    ("log.max_size=9999999999T", "out of range"),
    ("log.keep=-1", "-1 is out of range; expected a whole number from 0 to 10000"),
    ("log.sync=sometimes", "'sometimes' is not one of the words; expected one of interval, always, never"),
    ("clients.max=0", "0 is out of range"),
    ("clients.max=113", "113 is out of range; expected a whole number from 1 to 112"),
    ("proxy.balancers=[lb1]", "'lb1' is not a network"),
    ("tls.mode=on", "is not one of the words; expected one of auto, required, off"),
    ("tls.certificate=cert.pem", "'cert.pem' is not an absolute path"),
    ("tls.certificate=[/a]", "a list is not a path"),
    ("tls.min_version=1", "'1' is not one of the words; expected one of 1.0, 1.1, 1.2, 1.3"),
    ("tls.min_version=1.4", "'1.4' is not one of the words"),
    ("vmotion.limit=0", "'0' is out of range"),
    ("identity.fallback=location", "expected one of none, bios"),
    ("ports.tls=maybe", "'maybe' is neither true nor false"),
    ("dirs.run=run", "'run' is not an absolute path"),
    ("dirs.run=''", "'' is not a path"),
    ("log_level=loud", "expected one of debug, info, warning, error"),
]


@pytest.mark.parametrize(("override", "words"), BAD)
def test_an_impossible_value_is_refused(override: str, words: str) -> None:
    (problem,) = problems(override)
    assert problem.startswith(f"-o {override}: ")
    assert words in problem
    assert "; expected " in problem
