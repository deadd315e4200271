"""The table of all configuration keys: name, type, default, what it means, and whether a reload is enough.

Each section is a frozen dataclass and each key one field of it; everything else (reading, messages, the
documentation, what a reload may change) is derived from these fields. Never reads a file.
"""

# ruff: noqa: RUF009  (what the calls return is a dataclass field)

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Optional, TypeVar

from vspcd import config_values as kinds
from vspcd.config_access import ACCESS
from vspcd.config_automation import HOOKS, TRIGGERS
from vspcd.config_backend import BACKEND, OPTIONS
from vspcd.config_values import Address, Kind, Network, Share, compose
from vspcd.core.automation import Hook, Trigger
from vspcd.core.rights import Rule
from vspcd.unix.page import MAX_CLIENTS

T = TypeVar("T")


@dataclass(frozen=True)
class Key:
    """One line of the table. `default` is YAML; `reloads`: a change needs a reload only, no restart."""

    name: str
    kind: Kind[Any]
    default: str
    meaning: str
    reloads: bool


def _key(kind: Kind[T], default: str, meaning: str, reloads: bool = False) -> T:
    """A field; what it returns at run time is dataclasses' business, so its type is that of the value."""
    facts: Any = field(
        default_factory=lambda: kind.parse(compose(default)),
        metadata={"key": Key("", kind, default, meaning, reloads)},
    )
    value: T = facts
    return value


@dataclass(frozen=True)
class Proxy:
    """The port that the VMs dial."""

    listen: tuple[Address, ...] = _key(kinds.LISTEN, '[":13370"]', "where VMs dial in; port 0 is a free one")
    allow: tuple[Network, ...] = _key(
        kinds.NETWORKS, "[]", "networks that VMs may dial from; an empty list is any", reloads=True
    )
    uri: tuple[str, ...] = _key(
        kinds.SERVICES, "[vSPC.py]", "service names that VMs may ask for", reloads=True
    )
    handshake_timeout: float = _key(
        kinds.DURATION, "10s", "a VM that has not identified itself by then is disconnected", reloads=True
    )
    max_pending: int = _key(
        kinds.integer(1, 1000000), "2000", "VMs that may be unidentified at one time", reloads=True
    )
    max_pending_per_source: int = _key(
        kinds.integer(1, 1000000), "1000", "the same, from one address", reloads=True
    )
    balancers: tuple[Network, ...] = _key(
        kinds.NETWORKS,
        "[]",
        "networks of load balancers, whose connections begin with a PROXY protocol header (v1 or v2)",
        reloads=True,
    )


@dataclass(frozen=True)
class Tls:
    """Encrypted connections."""

    mode: str = _key(
        kinds.choice("auto", "required", "off"),
        "auto",
        "the VM port takes plain and, with a certificate, TLS connections; TLS alone; or plain alone",
        reloads=True,
    )
    certificate: Optional[Path] = _key(
        kinds.OPTIONAL_FILE,
        "null",
        "PEM file with the certificate and what else is in its chain",
        reloads=True,
    )
    key: Optional[Path] = _key(
        kinds.OPTIONAL_FILE,
        "null",
        "PEM file with the private key; null: it is in the certificate's file",
        reloads=True,
    )
    client_ca: Optional[Path] = _key(
        kinds.OPTIONAL_FILE,
        "null",
        "PEM file; when set, a VM's host must show a certificate that one of these has signed",
        reloads=True,
    )
    min_version: str = _key(
        kinds.choice("1.0", "1.1", "1.2", "1.3"),
        '"1.2"',
        "the oldest TLS version; 1.0 and 1.1 are broken, and bring weak ciphers with them",
        reloads=True,
    )


@dataclass(frozen=True)
class Vmotion:
    """VMs that move between hosts."""

    timeout: float = _key(
        kinds.DURATION, "120s", "a move that has not ended by then is given up", reloads=True
    )
    limit: float = _key(kinds.DURATION, "5s", "the time that a VM's host gives us to let it go", reloads=True)


@dataclass(frozen=True)
class Identity:
    """How a VM is known."""

    fallback: str = _key(
        kinds.choice("none", "bios"),
        "none",
        "a VM without a usable VC UUID is refused, or known by its BIOS UUID",
        reloads=True,
    )


@dataclass(frozen=True)
class Admin:
    """The port of vSPC.py's query protocol."""

    listen: tuple[Address, ...] = _key(
        kinds.LISTEN, '["127.0.0.1:13371"]', "where admin queries come in; an empty list is nowhere"
    )


@dataclass(frozen=True)
class Ports:
    """The telnet port of each console."""

    enabled: bool = _key(kinds.BOOLEAN, "true", "whether each console has a TCP port")
    address: str = _key(kinds.ADDRESS, "127.0.0.1", "the address that these ports listen on, in numbers")
    first: int = _key(
        kinds.integer(1, 65535, extra=0),
        "50000",
        "the lowest console port; 0 lets the system choose, once per console",
    )
    expire: float = _key(
        kinds.DURATION,
        "24h",
        "a console with neither VM nor client for this long is forgotten",
        reloads=True,
    )
    backend: str = _key(
        BACKEND,
        "file",
        "where the port map is: file, memory (forgotten at the end), or module:Class of your own",
    )
    backend_path: Optional[Path] = _key(
        kinds.OPTIONAL_FILE, "null", "a folder that is searched for the module of ports.backend first"
    )
    backend_options: tuple[tuple[str, str], ...] = _key(
        OPTIONS, "{}", "what a class of your own is given: names and texts"
    )
    tls: bool = _key(kinds.BOOLEAN, "false", "whether these ports speak TLS, with tls.certificate")
    client_ca: Optional[Path] = _key(
        kinds.OPTIONAL_FILE,
        "null",
        "PEM file; when set, who comes to a TLS port must show a certificate that one of these has signed",
        reloads=True,
    )


@dataclass(frozen=True)
class Sockets:
    """The Unix socket of each console."""

    mode: int = _key(kinds.MODE, '"0660"', "file mode of the sockets", reloads=True)
    group: Optional[str] = _key(
        kinds.GROUP, "null", "group that owns the sockets; null is the daemon's", reloads=True
    )


@dataclass(frozen=True)
class Log:
    """The console logs."""

    dir: Optional[Path] = _key(
        kinds.OPTIONAL_FOLDER, ".", "where console logs are, relative to dirs.log; off is no logs"
    )
    max_size: int = _key(kinds.size(1), "64M", "a log is rotated at this size", reloads=True)
    keep: int = _key(kinds.integer(0, 10000), "5", "how many rotated logs a console has", reloads=True)
    sync: str = _key(
        kinds.choice("interval", "always", "never"),
        "interval",
        "when logs are forced to the disk: once a second, before anyone sees the bytes, or never",
        reloads=True,
    )
    spool: int = _key(
        kinds.size_or_off(4096),
        "1M",
        "what a console's log cannot take is kept in the run directory, up to this size, until it can",
        reloads=True,
    )
    quota: int = _key(
        kinds.size_or_off(65536),
        "off",
        "bytes that all logs and indexes of a console may have together",
        reloads=True,
    )
    reserve: Share = _key(
        kinds.SHARE,
        '"2%"',
        "free space of the logs' file system that is left to consoles that say little",
        reloads=True,
    )


@dataclass(frozen=True)
class Clients:
    """The people and programs on a console."""

    replay: int = _key(
        kinds.size(0), "4096", "bytes of earlier output that a client is shown on attach", reloads=True
    )
    max_lag: int = _key(
        kinds.size(1), "1G", "a client further behind than this is moved forward, visibly", reloads=True
    )
    max: int = _key(kinds.integer(1, MAX_CLIENTS), "64", "clients that one console may have", reloads=True)


@dataclass(frozen=True)
class Locks:
    """Who alone may type."""

    idle: float = _key(
        kinds.DURATION_OR_NEVER,
        "30m",
        "a lock whose holder has not typed for so long ends; 0 is never",
        reloads=True,
    )


@dataclass(frozen=True)
class Audit:
    """What is written down of what people do."""

    file: Optional[Path] = _key(
        kinds.OPTIONAL_FOLDER,
        "audit.log",
        "where it is written down who did what, relative to dirs.log; off is nowhere",
        reloads=True,
    )
    typing: tuple[str, ...] = _key(
        kinds.PATTERNS,
        "[]",
        "consoles on which all that is typed is written down as well, passwords too",
        reloads=True,
    )


@dataclass(frozen=True)
class Workers:
    """The processes that serve the consoles."""

    memory: int = _key(
        kinds.size(16 << 20),
        "64M",
        "a worker that takes more memory than this is replaced by a new one",
        reloads=True,
    )


@dataclass(frozen=True)
class Hooks:
    """What is run or posted when something happens."""

    rules: tuple[Hook, ...] = _key(
        HOOKS, "[]", "commands that are run, and URLs that are posted to, on events of consoles", reloads=True
    )
    concurrency: int = _key(kinds.integer(1, 256), "8", "how many of them may run at one time", reloads=True)
    timeout: float = _key(
        kinds.DURATION, "30s", "one that runs longer is killed, with its process group", reloads=True
    )
    queue: int = _key(
        kinds.integer(1, 4000), "1000", "how many may wait; what is more is dropped and counted", reloads=True
    )


@dataclass(frozen=True)
class Dirs:
    """The daemon's folders; with --root DIR they are DIR/run, DIR/state and DIR/log unless set here."""

    run: Path = _key(kinds.FOLDER, "/run/vspc", "sockets and the pid file")
    state: Path = _key(kinds.FOLDER, "/var/lib/vspc", "the port map")
    log: Path = _key(kinds.FOLDER, "/var/log/vspc", "console logs")


def _section(kind: type[T]) -> T:
    facts: Any = field(default_factory=kind, metadata={"section": kind})
    value: T = facts
    return value


@dataclass(frozen=True)
class Config:
    """The whole configuration. `root` is the --root that it was loaded with, no key."""

    proxy: Proxy = _section(Proxy)
    tls: Tls = _section(Tls)
    vmotion: Vmotion = _section(Vmotion)
    identity: Identity = _section(Identity)
    admin: Admin = _section(Admin)
    ports: Ports = _section(Ports)
    sockets: Sockets = _section(Sockets)
    log: Log = _section(Log)
    clients: Clients = _section(Clients)
    locks: Locks = _section(Locks)
    audit: Audit = _section(Audit)
    workers: Workers = _section(Workers)
    hooks: Hooks = _section(Hooks)
    dirs: Dirs = _section(Dirs)
    access: tuple[Rule, ...] = _key(
        ACCESS, "[]", "who may do what on which console; an empty list: whoever can connect", reloads=True
    )
    triggers: tuple[Trigger, ...] = _key(
        TRIGGERS, "[]", "patterns in what VMs say, and what is done about them", reloads=True
    )
    log_level: str = _key(
        kinds.choice("debug", "info", "warning", "error"),
        "info",
        "what the daemon's own log tells",
        reloads=True,
    )
    root: Optional[Path] = None


def _sections() -> dict[str, type[Any]]:
    return {f.name: f.metadata["section"] for f in dataclasses.fields(Config) if "section" in f.metadata}


def _keys(kind: type[Any], prefix: str) -> Iterator[Key]:
    for each in dataclasses.fields(kind):
        if "key" in each.metadata:
            yield dataclasses.replace(each.metadata["key"], name=prefix + each.name)
        elif "section" in each.metadata:
            yield from _keys(each.metadata["section"], each.name + ".")


SECTIONS: Mapping[str, type[Any]] = MappingProxyType(_sections())
KEYS: Mapping[str, Key] = MappingProxyType({key.name: key for key in _keys(Config, "")})


def value_of(config: Config, name: str) -> Any:
    """The value of a key by its dotted name."""
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def build(values: Mapping[str, Any], root: Optional[Path]) -> Config:
    """A Config from values by dotted name; what is missing has its default."""
    facts: dict[str, Any] = {name: value for name, value in values.items() if "." not in name}
    for section, kind in SECTIONS.items():
        prefix = section + "."
        own = {name[len(prefix) :]: value for name, value in values.items() if name.startswith(prefix)}
        facts[section] = kind(**own)
    return Config(**facts, root=root)
