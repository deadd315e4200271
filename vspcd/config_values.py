"""What a configured value may look like: one Kind for each sort of value, from a YAML node to a Python value.

Pure. Owns the spellings of sizes, times, modes and addresses and the words that explain a wrong one. Knows no
key by name, and never looks at the machine: whether a group or an address exists is for its user to find.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, Optional, TypeVar, Union

import yaml

T = TypeVar("T")
Address = tuple[str, int]
Parts = dict[str, Any]
Part = Callable[[yaml.Node], Any]
Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

WILDCARDS = frozenset({"", "0.0.0.0", "::"})
KNOWN_HOSTS = MappingProxyType({"": "0.0.0.0", "*": "0.0.0.0", "localhost": "127.0.0.1"})
SIZE_LIMIT = 1 << 60
SHARE_LIMIT = 50  # percent
TIME_LIMIT = 10 * 365 * 86400

_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = frozenset(_TAG + name for name in ("str", "int", "float", "timestamp"))
_SIZE = re.compile(r"([0-9]+) ?([kmgt]?)(?:i?b)?", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?%")
_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(ms|[smhdw]?)")
_TIME_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_MODE = re.compile(r"(?:0o?)?([0-7]{3})")
_LISTEN = re.compile(r"(?:(?:\[(?P<six>[^\]]*)\]|(?P<host>[^:\[\]]*)):)?(?P<port>[0-9]+)")
_HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)(?!.*\.[0-9]+\Z)(?![0-9]+\Z)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
    r"(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
)


class Unfit(Exception):
    """A value is wrong. `faults`: the nodes at fault (they know their lines) and what is wrong with each."""

    def __init__(self, faults: Sequence[tuple[yaml.Node, str]]) -> None:
        super().__init__("; ".join(text for _, text in faults))
        self.faults = list(faults)


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A sort of value: `expects` says in words what would be right, `parse` raises Unfit."""

    expects: str
    parse: Callable[[yaml.Node], T]


def compose(text: Union[str, bytes]) -> yaml.Node:
    """The node tree of one YAML document; an empty one is a null node. Raises yaml.YAMLError."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    return node if node is not None else yaml.ScalarNode(_TAG + "null", "")


def is_null(node: yaml.Node) -> bool:
    return node.tag == _TAG + "null"


def shown(node: yaml.Node) -> str:
    """How a message names a value."""
    if is_null(node):
        return "no value"
    if isinstance(node, yaml.ScalarNode):
        return repr(node.value)
    return "a list" if isinstance(node, yaml.SequenceNode) else "a section"


def _wrong(node: yaml.Node, text: str) -> Unfit:
    return Unfit([(node, text)])


def _text(node: yaml.Node, what: str) -> str:
    """The spelling of a scalar as it was written: numbers keep their zeros, and a:b never becomes base 60."""
    if not isinstance(node, yaml.ScalarNode) or node.tag not in _TEXT_TAGS:
        raise _wrong(node, f"{shown(node)} is not {what}")
    return str(node.value).strip()


def _boolean(node: yaml.Node) -> bool:
    if node.tag != _TAG + "bool":
        raise _wrong(node, f"{shown(node)} is neither true nor false")
    return bool(yaml.SafeLoader.bool_values[str(node.value).lower()])


BOOLEAN = Kind("true or false", _boolean)


def integer(low: int, high: int, extra: Optional[int] = None) -> Kind[int]:
    """Whole numbers from low to high, and `extra` beside them."""

    def parse(node: yaml.Node) -> int:
        text = _text(node, "a whole number")
        if node.tag != _TAG + "int" or not re.fullmatch(r"[+-]?(0|[1-9][0-9]{0,17})", text):
            raise _wrong(node, f"{shown(node)} is not a whole number")
        if not low <= int(text) <= high and int(text) != extra:
            raise _wrong(node, f"{text} is out of range")
        return int(text)

    beside = "" if extra is None else f", or {extra}"
    return Kind(f"a whole number from {low} to {high}{beside}", parse)


def size(low: int) -> Kind[int]:
    """A number of bytes. K, M, G, T are powers of 1024."""

    def parse(node: yaml.Node) -> int:
        match = _SIZE.fullmatch(_text(node, "a size"))
        if match is None:
            raise _wrong(node, f"{shown(node)} is not a size")
        value = int(match[1]) * _SIZE_UNITS[match[2].lower()]
        if not low <= value <= SIZE_LIMIT:
            raise _wrong(node, f"{shown(node)} is out of range")
        return value

    return Kind(f"a number of bytes, at least {low}, such as 4096, 64M or 1G", parse)


def size_or_off(low: int) -> Kind[int]:
    """A number of bytes; off is 0."""
    some = size(low)

    def parse(node: yaml.Node) -> int:
        return 0 if _is_off(node) or _text(node, "a size") == "0" else some.parse(node)

    return Kind(f"{some.expects}, or off", parse)


def _is_off(node: yaml.Node) -> bool:
    """YAML takes the word off for false."""
    return node.tag == _TAG + "bool" and str(node.value).lower() == "off"


class Share(NamedTuple):
    """Bytes, or percent of a whole; one of them is 0."""

    size: int = 0
    percent: float = 0.0


def _share(node: yaml.Node) -> Share:
    if _is_off(node):
        return Share()
    match = _PERCENT.fullmatch(_text(node, "a size or a share"))
    if match is None:
        return Share(size(0).parse(node))
    if float(match[1]) > SHARE_LIMIT:
        raise _wrong(node, f"{shown(node)} is out of range")
    return Share(percent=float(match[1]))


SHARE = Kind(f"a size such as 1G, a share such as 2% (at most {SHARE_LIMIT}%), or off", _share)


def _duration(node: yaml.Node) -> float:
    match = _TIME.fullmatch(_text(node, "a time"))
    if match is None:
        raise _wrong(node, f"{shown(node)} is not a time")
    value = float(match[1]) * _TIME_UNITS[match[2]]
    if not 0 < value <= TIME_LIMIT:
        raise _wrong(node, f"{shown(node)} is out of range")
    return value


def _duration_or_never(node: yaml.Node) -> float:
    return 0.0 if _is_off(node) or _text(node, "a time") == "0" else _duration(node)


DURATION = Kind("a time above 0, such as 10 (seconds), 90s, 15m, 24h or 7d", _duration)
DURATION_OR_NEVER = Kind("a time such as 90s, 15m or 24h, or 0 for never", _duration_or_never)


def choice(*words: str) -> Kind[str]:
    def parse(node: yaml.Node) -> str:
        is_off = node.tag == _TAG + "bool"  # YAML takes the word off for false
        text = str(node.value) if is_off else _text(node, "one of the words")
        if text not in words:
            raise _wrong(node, f"{shown(node)} is not one of the words")
        return text

    return Kind("one of " + ", ".join(words), parse)


def _mode(node: yaml.Node) -> int:
    match = _MODE.fullmatch(_text(node, "a mode"))
    if match is None:
        raise _wrong(node, f"{shown(node)} is not an octal mode")
    return int(match[1], 8)


MODE = Kind('an octal file mode such as "0660"', _mode)


def _optional_text(node: yaml.Node) -> Optional[str]:
    if is_null(node):
        return None
    text = _text(node, "a name")
    if not text.isprintable() or "/" in text or ":" in text:
        raise _wrong(node, f"{shown(node)} is not a name")
    return text or None


GROUP = Kind("the name or number of a group, or null", _optional_text)


def _path(node: yaml.Node) -> Path:
    text = _text(node, "a path")
    if not text or "\0" in text:
        raise _wrong(node, f"{shown(node)} is not a path")
    return Path(text)


def _absolute(node: yaml.Node) -> Path:
    path = _path(node)
    if not path.is_absolute():
        raise _wrong(node, f"{shown(node)} is not an absolute path")
    return path


FOLDER = Kind("an absolute path", _absolute)


def _optional_file(node: yaml.Node) -> Optional[Path]:
    return None if is_null(node) else _absolute(node)


OPTIONAL_FILE = Kind("an absolute path, or null", _optional_file)


def _optional_folder(node: yaml.Node) -> Optional[Path]:
    if is_null(node) or (node.tag == _TAG + "bool" and not _boolean(node)):
        return None
    return None if _text(node, "a path") in ("", "off") else _path(node)


OPTIONAL_FOLDER = Kind("a path, absolute or relative to dirs.log, or off", _optional_folder)


def _host(node: yaml.Node, text: str) -> str:
    """An IPv4 address or a host name; '' is every address."""
    if text in ("", "*"):
        return ""
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        if not _HOST_NAME.fullmatch(text):
            raise _wrong(node, f"{text!r} is neither an address nor a host name") from None
    return text.lower()


def _host_six(node: yaml.Node, text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise _wrong(node, f"{text!r} is not an IPv6 address") from None


def _any_address(node: yaml.Node) -> str:
    """No name: it is bound again for each console, and looking it up would take its time each time."""
    text = _text(node, "an address")
    if ":" in text:
        return _host_six(node, text[1:-1] if text[0] + text[-1] == "[]" else text)
    if text.lower() in KNOWN_HOSTS:
        return KNOWN_HOSTS[text.lower()]
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise _wrong(node, f"{text!r} is not an address in numbers") from None


ADDRESS = Kind("one such as 127.0.0.1, ::1 or 0.0.0.0, which is every IPv4 address", _any_address)


def _listen(node: yaml.Node) -> Address:
    match = _LISTEN.fullmatch(_text(node, "an address with a port"))
    if match is None:
        raise _wrong(node, f"{shown(node)} is not an address with a port")
    if len(match["port"]) > 5 or int(match["port"]) > 65535:
        raise _wrong(node, f"port {match['port']} is above 65535")
    host = _host(node, match["host"] or "") if match["six"] is None else _host_six(node, match["six"])
    return host, int(match["port"])


def _network(node: yaml.Node) -> Network:
    text = _text(node, "a network")
    try:
        wide = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise _wrong(node, f"{shown(node)} is not a network") from None
    if "/" in text and ipaddress.ip_address(text.split("/")[0]) != wide.network_address:
        raise _wrong(node, f"{shown(node)} has bits set behind its prefix (did you mean {wide}?)")
    return wide


def _service(node: yaml.Node) -> str:
    text = _text(node, "a service name")
    if not text or not text.isprintable() or "?" in text or " " in text:
        raise _wrong(node, f"{shown(node)} is not a service name")
    return text


def _name(node: yaml.Node) -> str:
    text = _text(node, "a name")
    if not text or not text.isprintable() or any(char in text for char in "/: "):
        raise _wrong(node, f"{shown(node)} is not a name")
    return text


def _pattern(node: yaml.Node) -> str:
    text = _text(node, "a pattern")
    if not text.strip("!") or not text.isprintable():
        raise _wrong(node, f"{shown(node)} is not a pattern")
    return text


def mapping(node: yaml.Node, what: str, known: Mapping[str, Part]) -> Parts:
    """The parts of a section, by name. Raises Unfit with all that is wrong."""
    if not isinstance(node, yaml.MappingNode):
        raise _wrong(node, f"{shown(node)} is no {what}")
    values: Parts = {}
    faults: list[tuple[yaml.Node, str]] = []
    for label, value in node.value:
        name = str(label.value)
        if name not in known:
            faults.append((label, f"{name!r} is no part of a {what}"))
        elif name in values:
            faults.append((label, f"{name!r} stands there twice"))
        else:
            values[name] = None
            try:
                values[name] = known[name](value)
            except Unfit as unfit:
                faults += unfit.faults
    if faults:
        raise Unfit(faults)
    return values


def several(expects: str, item: Callable[[yaml.Node], T], least: int = 0) -> Kind[tuple[T, ...]]:
    """A list; a single value stands for a list of one. All wrong items are told, not just the first."""

    def parse(node: yaml.Node) -> tuple[T, ...]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        values: list[T] = []
        faults: list[tuple[yaml.Node, str]] = []
        for child in nodes:
            try:
                values.append(item(child))
            except Unfit as unfit:
                faults += unfit.faults
        if faults or len(nodes) < least:
            raise Unfit(faults or [(node, "the list is empty")])
        return tuple(dict.fromkeys(values))

    return Kind(expects, parse)


LISTEN = several('a list of "HOST:PORT", ":PORT" (every address) or "[::1]:PORT", port 0 to 65535', _listen)
NETWORKS = several("a list of networks such as 10.1.0.0/16 or fd00::/8", _network)
SERVICES = several("a list of at least one name without spaces and question marks", _service, least=1)
NAMES = several("a list of names or numbers", _name)
PATTERNS = several("a list of patterns such as web* or db[0-9]", _pattern)
