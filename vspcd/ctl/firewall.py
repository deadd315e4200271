"""What this machine's firewall does to VMs that dial in, as far as it may be read.

Does: asks firewalld, else reads the rules of nftables; where it may not, names the commands that root has for it.
Owns: what is said about each.
Never: says that nothing is in the way when it could not look; changes anything.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import NamedTuple, Optional

from vspcd.core.names import visible
from vspcd.ctl.ailments import BAD, GOOD, WARNING, Finding
from vspcd.ctl.packetfilter import DROPS, Judgement, Ruleset

TOOL_WITHIN = 5.0


class Said(NamedTuple):
    """What a tool has printed; ``code`` is None when it is not there or was late."""

    code: Optional[int]
    text: str = ""


def findings(port: int) -> Iterator[Finding]:
    """What is known about a port."""
    if _said("firewall-cmd", "--state").text == "running":
        yield _firewalld(port)
        return
    rules = _said("nft", "--json", "list", "ruleset")
    if rules.code == 0:
        yield from _nftables(rules.text, port)
    elif rules.code is None:
        yield from _without_nft(port)
    else:
        yield _unread(port, "nft list ruleset")


def _firewalld(port: int) -> Finding:
    if _said("firewall-cmd", f"--query-port={port}/tcp").text == "yes":
        return Finding(GOOD, f"firewalld lets port {port} in")
    cure = [f"firewall-cmd --permanent --add-port={port}/tcp && firewall-cmd --reload"]
    return Finding(BAD, f"firewalld does not let port {port} in (unless a service or rich rule does)", cure)


def _nftables(text: str, port: int) -> Iterator[Finding]:
    try:
        found = list(Ruleset(text).judged(port))
    except (ValueError, KeyError, TypeError, AttributeError):
        cure = [f"# does a rule drop or let in tcp port {port}?", "nft list ruleset"]
        yield Finding(WARNING, "the rules of nftables were not understood: look yourself", cure)
        return
    for each in found:
        yield _judged(each, port)
    if not found:
        yield Finding(
            GOOD, f"no rule of nftables keeps port {port} out (all that see what comes in were read)"
        )


def _judged(found: Judgement, port: int) -> Finding:
    chain = visible(str(found.chain))
    look = f"nft --handle list table {visible(found.chain.family)} {visible(found.chain.table)}"
    numbers = ", ".join(map(str, found.rules))
    cure = [
        "# before all its rules:",
        f"nft insert rule {chain} tcp dport {port} accept",
        "# to see them:",
        look,
    ]
    if found.what == DROPS:
        why = (
            f"its rule with handle {numbers} does"
            if found.rules
            else "no rule lets it in, and its policy is drop"
        )
        return Finding(BAD, f"nftables drops what comes in on port {port}, in the chain {chain}: {why}", cure)
    text = f"nftables may drop what comes in on port {port}, in the chain {chain}"
    if numbers:
        text += f": that depends on the rules with handle {numbers}, on where it comes from or the like"
    return Finding(WARNING, text, [*cure[2:], *cure[:2]])


def _without_nft(port: int) -> Iterator[Finding]:
    rules = _said("iptables", "-S", "INPUT")
    if rules.code == 0 and rules.text.split("\n") == ["-P INPUT ACCEPT"]:
        yield Finding(GOOD, f"iptables has no rule for what comes in, port {port} either (IPv4)")
    elif rules.code == 0:
        cure = [
            f"# does a rule drop or let in tcp port {port}? If it is dropped:",
            "iptables -S",
            f"iptables -I INPUT -p tcp --dport {port} -j ACCEPT",
        ]
        yield Finding(WARNING, "iptables has rules for what comes in, which are not understood here", cure)
    elif rules.code is not None:
        yield _unread(port, "iptables -S")
    elif os.geteuid():  # whose PATH seldom has the folder of these tools
        yield _unread(port, "nft list ruleset")
    else:
        yield Finding(
            WARNING, "neither nft nor iptables is installed: if this machine has a firewall, it is not known"
        )


def _unread(port: int, command: str) -> Finding:
    who = "by you" if os.geteuid() else "even by root"
    cure = [
        "# as root:",
        "sudo vspcctl doctor",
        f"# or look yourself what happens to tcp port {port}:",
        f"sudo {command}",
    ]
    return Finding(
        WARNING, f"the firewall of this machine cannot be read {who}; nothing is known of it", cure
    )


def _said(*command: str) -> Said:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_WITHIN, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return Said(None)
    return Said(done.returncode, done.stdout.strip())
