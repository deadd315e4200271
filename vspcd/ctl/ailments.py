"""What vspcd says when it refuses a VM, what that means, and what puts it right.

Owns: the table of ailments, and the lines that configure a VM's serial port.
Never: prints; asks anybody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, Optional

from vspcd.core.names import visible

GOOD, WARNING, BAD = "ok", "warning", "problem"


class Finding(NamedTuple):
    """One thing that was looked at: how bad, in words, and lines to copy that put it right."""

    level: str
    text: str
    cure: Sequence[str] = ()


class Place(NamedTuple):
    """Where VMs find vspcd: host, port, and the certificate's SHA-1 thumbprint, if it has one."""

    host: str
    port: int
    thumbprint: Optional[str]
    services: Sequence[str] = ("vSPC.py",)

    @property
    def uri(self) -> str:
        """The proxy URI of a serial port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.thumbprint is None:
            return f"telnet://{host}:{self.port}"
        return f"telnets://{host}:{self.port}#thumbprint={self.thumbprint}"


class Ailment(NamedTuple):
    """A reason as the daemon words it, what it means, and the lines that help (for the VM of that name)."""

    pattern: str
    means: str
    cure: Callable[[Place, str], Sequence[str]]


def port_lines(place: Place, vm: str) -> Sequence[str]:
    """Point an existing serial port of a VM here."""
    return [
        "# govc (the VM switched off):",
        f"govc device.serial.connect -vm {shell(vm)} -vspc-proxy {shell(place.uri)} {place.services[0]}",
        "# PowerCLI (the VM switched off):",
        f"$vm = Get-VM {powershell(vm)}",
        "$port = $vm.ExtensionData.Config.Hardware.Device |",
        "    Where-Object { $_ -is [VMware.Vim.VirtualSerialPort] } | Select-Object -First 1",
        "$port.Backing = New-Object VMware.Vim.VirtualSerialPortURIBackingInfo",
        '$port.Backing.Direction = "server"',
        f"$port.Backing.ServiceURI = {powershell(place.services[0])}",
        f"$port.Backing.ProxyURI = {powershell(place.uri)}",
        "$port.Connectable.StartConnected = $true",
        "$change = New-Object VMware.Vim.VirtualDeviceConfigSpec",
        '$change.Operation = "edit"; $change.Device = $port',
        "$spec = New-Object VMware.Vim.VirtualMachineConfigSpec",
        "$spec.DeviceChange = @($change)",
        "$vm.ExtensionData.ReconfigVM($spec)",
    ]


def host_lines(_place: Place, _vm: str) -> Sequence[str]:
    """Let an ESXi host dial out."""
    return [
        "# on the VM's ESXi host:",
        "esxcli network firewall ruleset set --ruleset-id=vSPC --enabled=true",
    ]


def _new_uuid(_place: Place, vm: str) -> Sequence[str]:
    return [
        "# PowerCLI, for the clone (switched off): a UUID of its own",
        "$spec = New-Object VMware.Vim.VirtualMachineConfigSpec",
        "$spec.InstanceUuid = [guid]::NewGuid().ToString()",
        f"(Get-VM {powershell(vm)}).ExtensionData.ReconfigVM($spec)",
    ]


def _no_certificate(place: Place, vm: str) -> Sequence[str]:
    return [
        f"vspcctl cert --self-signed {shell(place.host)} --out /etc/vspcd   # then its lines into vspcd.yaml",
        "vspcctl reload",
        "# or without TLS: give the port a URI with telnet:// in place of telnets://",
        *port_lines(place, vm),
    ]


def _settings(*lines: str) -> Callable[[Place, str], Sequence[str]]:
    return lambda _place, _vm: ["# vspcd.yaml, then vspcctl reload:", *lines]


def _unpark(_place: Place, vm: str) -> Sequence[str]:
    return [f"vspcctl unpark {shell(vm)}   # after a look into the quarantine: vspcctl status {shell(vm)}"]


def _label(_place: Place, _vm: str) -> Sequence[str]:
    return ["# the port URI of each further port of the VM, with a label of its own:", "vSPC.py?port=second"]


AILMENTS = (
    Ailment("no tls.certificate", "TLS mismatch: the VM speaks TLS, and vspcd has no certificate.", _no_certificate),
    Ailment("tls.mode is required", "TLS mismatch: the VM speaks plain telnet, and vspcd wants TLS.", port_lines),
    Ailment(
        r"TLS:.*tls\.min_version", "TLS mismatch: the host is too old for the TLS that vspcd wants.",
        _settings('tls: {min_version: "1.0"}'),
    ),
    Ailment(
        r"TLS:.*its certificate is not accepted", "tls.client_ca has not signed the host's certificate.",
        _settings("tls: {client_ca: FILE}   # with the authority of the hosts' certificates, or null"),
    ),
    Ailment(
        "TLS:", "The host does not take our certificate: its thumbprint in the VM's URI is another one, or missing.",
        port_lines,
    ),
    Ailment(
        "its TLS connection has ended",
        "The host has closed right behind the TLS handshake: mostly it does not take our certificate, because its "
        "thumbprint in the VM's URI is another one, or missing.",
        port_lines,
    ),
    Ailment("claims to be this VM", "Duplicate UUID: a clone that has kept its original's, or an impostor.", _new_uuid),
    Ailment("without a label", "Two serial ports of one VM, and nothing tells them apart.", _label),
    Ailment("no such service", "The port URI is none of proxy.uri.", port_lines),
    Ailment("direction is|asks us to dial", "The port's direction has to be server.", port_lines),
    Ailment(
        "VC UUID is blank|not a UUID", "The VM has no UUID that it could be known by.",
        _settings("identity: {fallback: bios}   # or give the VM a UUID of its own"),
    ),
    Ailment("not in proxy.allow", "vspcd does not let that host in.", _settings("proxy: {allow: [NETWORK/24]}")),
    Ailment(
        "have not identified themselves", "More VMs dial in at once than are let in; they dial again by themselves.",
        _settings("proxy: {max_pending: 4000, max_pending_per_source: 2000}"),
    ),
    Ailment("parked:", "Its bytes have killed workers again and again; it is let in later.", _unpark),
    Ailment(
        "it did not|it said nothing|does not speak VMware's",
        "Stuck negotiation: a person, a scanner or a health check, or a VM behind a slow line or a proxy.",
        _settings("proxy: {handshake_timeout: 30s}   # balancers: their networks into proxy.balancers"),
    ),
)  # fmt: skip


def diagnosed(reason: str) -> Optional[Ailment]:
    """What a refusal's reason means; None when only the reason itself can be told."""
    return next((each for each in AILMENTS if re.search(each.pattern, reason)), None)


def shell(text: str) -> str:
    """One word for a POSIX shell. A VM has chosen its name: nothing of it is ever evaluated, or reaches a terminal."""
    text = visible(text)
    plain = re.fullmatch(r"[A-Za-z0-9_/.][A-Za-z0-9_.:/@%+=,#-]*", text, re.ASCII)
    return text if plain else "'" + text.replace("'", "'\\''") + "'"


def powershell(text: str) -> str:
    """One string for PowerShell, in which nothing is expanded; it takes other quotes for ' as well."""
    return "'" + re.sub("(['\u2018\u2019\u201a\u201b])", r"\1\1", visible(text)) + "'"
