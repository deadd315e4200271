"""The options of vSPC.py's server, so that its command lines and init scripts go on.

Does: says what each of them is in our configuration, or that it means nothing here.
Owns: the table of those options.
Never: changes what our own options mean; -o has the last word.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Optional

PROXY_PORT, ADMIN_PORT = "13370", "13371"
ADMIN_HOST = "127.0.0.1"
BACKENDS = ("Memory", "File", "Logging")

KEPT: Mapping[str, str] = MappingProxyType(
    {
        "stdout": "the log goes to standard error, as ever",
        "fork": "vspcd stays in the foreground, as ever",
        "server": "vspcd is a server, as ever",
        "mode": "console logs keep the mode that they have here",
        "prefix": "console logs are named by UUID, with links by name",
    }
)
"""Options that change nothing, and why."""


class Option(NamedTuple):
    """One option: its names, what its value is called (None: it has none), and what is said of it."""

    names: tuple[str, ...]
    metavar: Optional[str]
    dest: str
    help: str


OPTIONS = (
    Option(("-d", "--debug", "-v", "--verbose"), None, "debug", "log_level=debug"),
    Option(("-a", "--admin-port", "--admin"), "PORT", "admin_port", "admin.listen=[IFACE:PORT]"),
    Option(("--admin-iface",), "IFACE", "admin_iface", "admin.listen=[IFACE:PORT]"),
    Option(("--proxy-port", "--proxy"), "PORT", "proxy_port", "proxy.listen=[IFACE:PORT]"),
    Option(("--proxy-iface",), "IFACE", "proxy_iface", "proxy.listen=[IFACE:PORT]"),
    Option(
        ("-p", "--prefix"), "PORT", "p", "the same as --proxy-port; with --backend Logging a prefix, ignored"
    ),
    Option(("-r", "--port-range-start"), "PORT", "first", "ports.first=PORT"),
    Option(("-i", "--interface"), "IFACE", "interface", "ports.address=IFACE"),
    Option(("--vm-expire-time",), "SECONDS", "expire", "ports.expire=SECONDS"),
    Option(("--ssl",), None, "ssl", "tls.mode=required, with --cert"),
    Option(("--cert", "--ssl-cert"), "FILE", "cert", "tls.certificate=FILE, with --ssl"),
    Option(("--key", "--ssl-key"), "FILE", "key", "tls.key=FILE, with --ssl"),
    Option(("-l", "--logdir"), "DIR", "logdir", "log.dir=DIR"),
    Option(("--context",), "COUNT", "context", "clients.replay=COUNT"),
    Option(("--pidfile",), "FILE", "pidfile", "write the process's number there as well"),
    Option(
        ("--backend",), "NAME", "backend", f"{', '.join(BACKENDS)}: all that they do is done; others fail"
    ),
    Option(
        ("-f", "--persist-file", "--file"),
        "FILE",
        "file",
        "ignored, ports are kept anyhow; vspcctl import-vspc FILE takes over the old ones",
    ),
    Option(("-m", "--mode"), "MODE", "mode", "ignored"),
    Option(("--stdout",), None, "stdout", "ignored"),
    Option(("--no-fork",), None, "fork", "ignored"),
    Option(("-s", "--server"), None, "server", "ignored"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let the parser take them."""
    group = parser.add_argument_group(
        "options of vSPC.py", "Kept for compatibility: what they are in our configuration."
    )
    for option in OPTIONS:
        about = f"{option.help}: {KEPT[option.dest]}" if option.dest in KEPT else option.help
        if option.metavar is None:
            group.add_argument(*option.names, dest=f"vspc_{option.dest}", action="store_true", help=about)
        else:
            group.add_argument(*option.names, dest=f"vspc_{option.dest}", metavar=option.metavar, help=about)


class Given:
    """The options of vSPC.py that a command line has."""

    def __init__(self, options: argparse.Namespace) -> None:
        values = {option.dest: getattr(options, f"vspc_{option.dest}") for option in OPTIONS}
        if values["backend"] == "Logging":
            values["prefix"] = values["p"]
        else:
            values["prefix"], values["proxy_port"] = None, values["p"] or values["proxy_port"]
        self._values = values

    @property
    def pid_file(self) -> Optional[Path]:
        """Where the process's number is wanted."""
        return Path(self._values["pidfile"]) if self._values["pidfile"] else None

    def mistake(self) -> Optional[str]:
        """What makes no sense, if anything does not."""
        backend = self._values["backend"]
        if self._values["ssl"] and not self._values["cert"]:
            return "--ssl needs a certificate: --cert FILE"
        if backend is not None and backend not in BACKENDS:
            return (
                f"--backend {backend}: vSPC.py's back ends cannot run here, only {', '.join(BACKENDS)} mean "
                "something; see docs/from-vspc.md for what takes the place of others"
            )
        return None

    def notes(self) -> Iterator[str]:
        """What is ignored, and why."""
        for dest, reason in KEPT.items():
            if self._values[dest]:
                yield f"the option for vSPC.py's {dest} is ignored: {reason}"
        if self._values["file"]:
            yield f"-f is ignored: vspcctl import-vspc {self._values['file']} takes over the old ports, once"
        if self._values["cert"] and not self._values["ssl"]:
            yield "--cert is ignored without --ssl, as vSPC.py did; tls.certificate takes TLS and plain VMs"

    def overrides(self) -> Iterator[str]:
        """KEY=VALUE for all that means something."""
        values = self._values
        if values["proxy_port"] or values["proxy_iface"]:
            yield f"proxy.listen=['{address(values['proxy_port'] or PROXY_PORT, values['proxy_iface'] or '')}']"
        if values["admin_port"] or values["admin_iface"]:
            host = values["admin_iface"] or ADMIN_HOST
            yield f"admin.listen=['{address(values['admin_port'] or ADMIN_PORT, host)}']"
        for dest, key in (
            ("first", "ports.first"),
            ("interface", "ports.address"),
            ("expire", "ports.expire"),
            ("logdir", "log.dir"),
            ("context", "clients.replay"),
        ):
            if values[dest]:
                yield f"{key}={values[dest]}"
        if values["debug"]:
            yield "log_level=debug"
        if values["ssl"]:
            yield "tls.mode=required"
            yield f"tls.certificate={values['cert']}"
            if values["key"]:
                yield f"tls.key={values['key']}"


def address(port: str, host: str) -> str:
    """HOST:PORT as the configuration has it; the oldest vSPC.py took that itself as a port."""
    if ":" in port:
        return port
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
