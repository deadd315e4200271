"""The configuration: what is read, what is refused, and in which words."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from pathlib import Path
from typing import Optional

import pytest
import yaml

from vspcd.config import Config, ConfigError, describe, differences, load, reloaded
from vspcd.config_schema import KEYS, SECTIONS, value_of

EXAMPLE = Path(__file__).parent.parent / "conf" / "vspcd.yaml"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "vspcd.yaml"
    path.write_text(text)
    return path


def problems(*overrides: str, path: Optional[Path] = None, root: Optional[Path] = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides, root)
    return caught.value.problems


def with_active_dirs(text: str) -> str:
    """Activates the settings that are commented out: a # with no space behind it."""
    return re.sub(r"(?m)^( *)#(?=[a-z_]+:)", r"\1", text)


# The example


def test_the_example_gives_exactly_the_defaults() -> None:
    assert load(EXAMPLE) == load()


def test_the_example_with_its_inactive_keys_gives_exactly_the_defaults(tmp_path: Path) -> None:
    assert load(written(tmp_path, with_active_dirs(EXAMPLE.read_text()))) == load()


def test_the_example_holds_every_key_and_no_other() -> None:
    tree = yaml.safe_load(with_active_dirs(EXAMPLE.read_text()))
    names = [f"{name}.{leaf}" for name in SECTIONS for leaf in tree.pop(name)] + list(tree)
    assert sorted(names) == sorted(KEYS)


def test_the_example_marks_the_keys_that_a_reload_changes() -> None:
    comment, was_comment, section = "", False, ""
    marked = set()
    for line in with_active_dirs(EXAMPLE.read_text()).splitlines():
        setting = re.match(r"( *)([a-z_]+):", line)
        is_comment = line.lstrip().startswith("#")
        if is_comment:
            comment = comment + line if was_comment else line
        elif setting is None or setting[2] in SECTIONS:
            comment, section = "", setting[2] + "." if setting else ""
        elif "[reload]" in comment:
            marked.add(section + setting[2])
        was_comment = is_comment
    assert marked == {key.name for key in describe() if key.reloads}


# Defaults and files


def test_defaults_are_what_users_of_its_predecessor_know() -> None:
    config = load()
    assert config.proxy.listen == (("", 13370),)
    assert config.admin.listen == (("127.0.0.1", 13371),)
    assert (config.ports.address, config.ports.first, config.ports.expire) == ("127.0.0.1", 50000, 86400.0)
    assert config.proxy.uri == ("vSPC.py",)
    assert (str(config.dirs.run), str(config.dirs.state)) == ("/run/vspc", "/var/lib/vspc")
    assert config.log.dir == config.dirs.log == Path("/var/log/vspc")


@pytest.mark.parametrize("text", ["", "# nothing\n", "proxy:\n", "---\n"])
def test_an_empty_file_gives_the_defaults(tmp_path: Path, text: str) -> None:
    assert load(written(tmp_path, text)) == load()


def test_a_file_sets_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    config = load(written(tmp_path, "ports:\n  first: 20000\nlog_level: debug\n"))
    ports = dataclasses.replace(load().ports, first=20000)
    assert config == dataclasses.replace(load(), ports=ports, log_level="debug")


def test_an_override_beats_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "ports: {first: 20000, enabled: false}\n")
    config = load(path, ["ports.first=30000"])
    assert (config.ports.first, config.ports.enabled) == (30000, False)


def test_the_last_of_two_overrides_of_one_key_counts() -> None:
    assert load(None, ["log.keep=1", "log.keep=2"]).log.keep == 2


def test_an_override_can_set_a_whole_section() -> None:
    config = load(None, ["log={keep: 9, dir: off}"])
    assert (config.log.keep, config.log.dir) == (9, None)


def test_a_config_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load().log_level = "debug"  # type: ignore[misc]


# Values

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
    ("ports.address='*'", ""),
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
    ("ports.address=10.0.0.256", "neither an address nor a host name"),
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


# Mistakes and their places


def test_a_wrong_value_names_file_line_key_and_what_is_right(tmp_path: Path) -> None:
    path = written(tmp_path, "# first\nlog:\n  keep: -1\n")
    expected = f"{path}:3: log.keep: -1 is out of range; expected a whole number from 0 to 10000"
    assert problems(path=path) == [expected]


def test_a_wrong_item_of_a_list_is_found_on_its_own_line(tmp_path: Path) -> None:
    path = written(tmp_path, "proxy:\n  allow:\n    - 10.0.0.0/8\n    - nonsense\n    - rubbish\n")
    places = [problem.split(" proxy.allow: ")[0] for problem in problems(path=path)]
    assert places == [f"{path}:4:", f"{path}:5:"]


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, "log:\n  keep: -1\n  kep: 3\nports:\n  first: 70000\n")
    told = problems("log_level=loud", "nonsense", path=path)
    assert [problem.split(": ")[0] for problem in told] == [
        f"{path}:2",
        f"{path}:3",
        f"{path}:5",
        "-o log_level=loud",
        "-o nonsense",
    ]


UNKNOWN = [
    ("log.kep=1", "no key is named 'log.kep'; did you mean log.keep?"),
    ("replay=1", "no key is named 'replay'; did you mean clients.replay?"),
    ("prox=1", "no key is named 'prox'; did you mean proxy?"),
    ("log={kep: 1}", "no key is named 'log.kep'; did you mean log.keep?"),
    ("zzz=1", "no key is named 'zzz'; the keys are listed in vspcd.yaml(5)"),
    ("=1", "no key is named ''; the keys"),
    ("log.keep.more=1", "no key is named 'log.keep.more'; did you mean log.keep?"),
]


@pytest.mark.parametrize(("override", "words"), UNKNOWN)
def test_an_unknown_key_suggests_the_nearest(override: str, words: str) -> None:
    (problem,) = problems(override)
    assert problem.startswith(f"-o {override}: {words}")


def test_an_unknown_key_in_a_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, "log:\n  keep: 3\n  kep: 3\n")
    assert problems(path=path) == [f"{path}:3: log.kep: no key is named 'log.kep'; did you mean log.keep?"]


def test_a_nameless_key_is_no_way_into_the_document(tmp_path: Path) -> None:
    path = written(tmp_path, '"": {log_level: debug}\n')
    assert "no key is named ''" in problems(path=path)[0]


@pytest.mark.parametrize("text", ["log:\n  keep: 1\nlog:\n  keep: 2\n", "? [a]\n: 1\n? [a]\n: 2\n"])
def test_a_key_given_twice_is_an_error(tmp_path: Path, text: str) -> None:
    assert any("line 1 has this key already" in problem for problem in problems(path=written(tmp_path, text)))


@pytest.mark.parametrize("text", ["log: 3\n", "log: [keep]\n", "just words\n", "- a\n"])
def test_something_else_in_place_of_a_section_is_an_error(tmp_path: Path, text: str) -> None:
    (problem,) = problems(path=written(tmp_path, text))
    assert "is no section; write lines of KEY: VALUE" in problem


def test_broken_yaml_is_told_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, "log:\n  keep: 1\n  dir: [\n")
    (problem,) = problems(path=path)
    assert problem.startswith(f"{path}:4: this is not YAML: ")


@pytest.mark.parametrize(
    "data",
    [
        b"log: \xff\n",
        b"log: \x00\n",
        b"a: 1\n---\nb: 2\n",
        b"a: *b\n",
    ],
)
def test_rubbish_is_an_error_like_any_other(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "vspcd.yaml"
    path.write_bytes(data)
    (problem,) = problems(path=path)
    assert problem.startswith(str(path))


def test_endless_nesting_is_an_error_like_any_other(tmp_path: Path) -> None:
    (problem,) = problems(path=written(tmp_path, "[" * 1200))
    assert problem.endswith(": this is not a configuration: it is nested too deeply")


def test_a_key_of_a_foreign_type_is_not_constructed(tmp_path: Path) -> None:
    path = written(tmp_path, "log_level: !!python/object/apply:os.getcwd []\n")
    assert "a list is not one of the words" in problems(path=path)[0]


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    (problem,) = problems(path=tmp_path / "none.yaml")
    assert problem.startswith(f"{tmp_path}/none.yaml: cannot be read: No such file or directory")


def test_an_override_that_is_not_yaml_is_an_error() -> None:
    assert problems("proxy.listen=[")[0].startswith("-o proxy.listen=[: the value is not YAML: ")


CLASHES = [
    ("proxy.listen=:13371", "port 13371 is wanted twice, by proxy.listen and by admin.listen"),
    ("proxy.listen=[0.0.0.0:1, 127.0.0.1:1]", "port 1 is wanted twice, by proxy.listen and by proxy.listen"),
    ("proxy.listen=[':1', '[::1]:1']", "port 1 is wanted twice"),
    ("proxy.listen=['[::]:1', '[::1]:1']", "port 1 is wanted twice"),
]


@pytest.mark.parametrize(("override", "words"), CLASHES)
def test_two_listeners_on_one_port_are_an_error(override: str, words: str) -> None:
    (problem,) = problems(override)
    assert problem.startswith(f"-o {override}: {words}")


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:0, 127.0.0.2:0", "127.0.0.1:1, 127.0.0.2:1", "'0.0.0.0:1', '[::]:1'", "':1', ':2'"]
)
def test_listeners_that_can_live_together_are_fine(listen: str) -> None:
    assert len(load(None, [f"proxy.listen=[{listen}]"]).proxy.listen) == 2


# A private root


def test_a_root_holds_all_folders(tmp_path: Path) -> None:
    config = load(None, [], tmp_path)
    assert (config.dirs.run, config.dirs.state, config.dirs.log) == (
        tmp_path / "run",
        tmp_path / "state",
        tmp_path / "log",
    )
    assert config.log.dir == tmp_path / "log"
    assert config.root == tmp_path


def test_a_relative_root_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(None, [], Path("demo")).dirs.run == tmp_path / "demo" / "run"


def test_a_folder_that_is_set_stays_outside_the_root(tmp_path: Path) -> None:
    path = written(tmp_path, "dirs:\n  state: /srv/state\n")
    config = load(path, ["dirs.log=/srv/log"], tmp_path)
    assert (config.dirs.run, config.dirs.state, config.log.dir) == (
        tmp_path / "run",
        Path("/srv/state"),
        Path("/srv/log"),
    )


def test_the_example_can_be_used_with_a_root(tmp_path: Path) -> None:
    assert load(EXAMPLE, [], tmp_path) == load(None, [], tmp_path)


@pytest.mark.parametrize("wildcard", [":0", "0.0.0.0:0", "[::]:0"])
def test_a_wildcard_is_loopback_under_a_root(tmp_path: Path, wildcard: str) -> None:
    assert load(None, [f"proxy.listen='{wildcard}'"], tmp_path).proxy.listen == (("127.0.0.1", 0),)


@pytest.mark.parametrize("listen", ["[::1]:0", "127.9.9.9:0", "localhost:0"])
def test_a_loopback_address_is_kept_under_a_root(tmp_path: Path, listen: str) -> None:
    config = load(None, [f"proxy.listen='{listen}'"], tmp_path)
    assert config.proxy.listen == load(None, [f"proxy.listen='{listen}'"]).proxy.listen


@pytest.mark.parametrize(
    "override", ["proxy.listen=10.0.0.1:0", "admin.listen=esx01:0", "ports.address=10.0.0.1"]
)
def test_an_address_that_others_reach_is_refused_under_a_root(tmp_path: Path, override: str) -> None:
    (problem,) = problems(override, root=tmp_path)
    assert problem.startswith(f"-o {override}: ")
    assert "can be reached from outside, which --root forbids" in problem


# Documentation and reload


def test_every_key_says_what_it_means() -> None:
    assert [key.name for key in describe()] == list(KEYS)
    assert all(key.meaning and key.kind.expects and key.default for key in describe())


def test_a_config_made_without_load_has_the_defaults_too() -> None:
    assert Config() == dataclasses.replace(load(), log=Config().log)


RELOADABLE = [
    *(
        "proxy.allow",
        "proxy.uri",
        "proxy.handshake_timeout",
        "proxy.max_pending",
        "proxy.max_pending_per_source",
    ),
    *("ports.expire", "sockets.mode", "sockets.group", "log.max_size", "log.keep", "log.sync"),
    *("clients.replay", "clients.max_lag", "clients.max", "log_level"),
]


def test_these_keys_take_effect_on_reload() -> None:
    assert [key.name for key in describe() if key.reloads] == RELOADABLE


def test_differences_tell_the_key_and_its_effect() -> None:
    new = load(None, ["log.keep=7", "ports.first=0"])
    assert differences(load(), new) == [
        "ports.first changed: needs a restart",
        "log.keep changed: takes effect now",
    ]


def test_equal_configurations_have_no_differences() -> None:
    assert differences(load(), load(EXAMPLE)) == []


def test_a_reload_changes_only_what_needs_no_restart(tmp_path: Path) -> None:
    old = load(None, [], tmp_path)
    now = reloaded(old, load(None, ["log.keep=7", "ports.first=0", "log.dir=off"], tmp_path))
    assert now == dataclasses.replace(old, log=dataclasses.replace(old.log, keep=7))
