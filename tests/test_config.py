"""The configuration's file and overrides: what is read, which mistakes are found, and where."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.configuring import problems, written
from vspcd.config import load


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
    ("zzz=1", "no key is named 'zzz'; conf/vspcd.yaml lists the keys"),
    ("=1", "no key is named ''; conf/vspcd.yaml lists"),
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
