"""Addresses as people write them."""

from __future__ import annotations

import ipaddress

import pytest

from vspcd.core.address import allowed, endpoint, host_of, plain_host

ADDRESSES = [
    (("192.0.2.1", 80), "192.0.2.1:80", "192.0.2.1"),
    (("2001:db8::1", 80, 0, 0), "[2001:db8::1]:80", "2001:db8::1"),
    (("::1", 0, 0, 0), "[::1]:0", "::1"),
    (("::", 13370, 0, 0), "[::]:13370", "::"),
    (("fe80::1%eth0", 80, 0, 2), "[fe80::1]:80", "fe80::1"),
    (("::ffff:192.0.2.1", 80, 0, 0), "192.0.2.1:80", "192.0.2.1"),
    (("::FFFF:192.0.2.1", 80, 0, 0), "192.0.2.1:80", "192.0.2.1"),
]


@pytest.mark.parametrize(("address", "text", "host"), ADDRESSES)
def test_a_socket_address_is_written_as_people_do(address: tuple[object, ...], text: str, host: str) -> None:
    assert endpoint(address) == text


@pytest.mark.parametrize(("address", "text", "host"), ADDRESSES)
def test_the_host_comes_back_out_of_what_was_written(
    address: tuple[object, ...], text: str, host: str
) -> None:
    assert host_of(text) == host
    assert ipaddress.ip_address(host)


def test_an_ipv6_address_that_looks_like_a_mapped_one_stays() -> None:
    assert plain_host("::ffff:0:1") == "::ffff:0:1"


NETWORKS = [ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8::/32")]


@pytest.mark.parametrize(
    ("host", "welcome"),
    [
        ("192.0.2.1", True),
        ("192.0.2.255", True),
        ("192.0.3.1", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("::1", False),
    ],
)
def test_a_host_is_allowed_in_one_of_the_networks_only(host: str, welcome: bool) -> None:
    assert allowed(host, NETWORKS) is welcome


def test_without_networks_everybody_is_allowed() -> None:
    assert allowed("203.0.113.9", [])


def test_an_ipv4_host_seen_through_ipv6_is_matched_as_ipv4() -> None:
    assert allowed(host_of(endpoint(("::ffff:192.0.2.1", 1, 0, 0))), NETWORKS)
