"""The documents name all that the product says, and nothing that it does not."""

from __future__ import annotations

import errno
import os
import re
from functools import cache
from pathlib import Path

import pytest

from tests import documents
from tests.documents import GAP, Call, Command, calls, pages, rows, spans, text_of, words
from vspcd import daemon
from vspcd.config_schema import KEYS, SECTIONS
from vspcd.core import automation
from vspcd.ctl import ailments, commandline, failure
from vspcd.ctl.exec import OURS
from vspcd.proto import attach, control, vmware_codes
from vspcd.unix.logline import LEVELS

# The daemon's log. Words that the code puts together, by the expression that does.
PUT_TOGETHER = {
    "f'no-{self.kind}-process'": {"no-hooks-process", "no-watcher-process"},
    "f'{self.kind}-process-died'": {"hooks-process-died", "watcher-process-died"},
    "f'{aide.kind}-process-killed'": {"hooks-process-killed", "watcher-process-killed"},
    "f'worker-{what}'": {"worker-renewed", "worker-replaced"},
    "f'unknown-{what}'": {"unknown-user", "unknown-group"},
    "event": {"no-port", "no-socket"},
}
WRITTEN = {
    "vm-moved": {"info", "warning"},
    "worker-renewed": {"info"},
    "worker-replaced": {"error"},
    "log-lines-dropped": {"warning"},
}
"""Those whose level is chosen at run time, or that the log says of itself."""

LOG = re.compile(r"(^|\.)_?log$|^Log\(|^log$")


@cache
def logged() -> dict[str, set[str]]:
    """Each word that the daemon can log, with its levels."""
    found: dict[str, set[str]] = {word: set(levels) for word, levels in WRITTEN.items()}
    for call in calls():
        chosen = call.method == "write" and call.object == ""
        if (call.method in LEVELS and LOG.search(call.object)) or chosen:
            for word in {call.first} if call.constant else PUT_TOGETHER[call.first]:
                assert word in found or not chosen, f"{call}: which level has it?"
                if not chosen:
                    found.setdefault(word, set()).add(call.method)
    return found


def test_every_word_of_the_daemons_log_is_documented_with_its_levels_and_no_other() -> None:
    told: dict[str, set[str]] = {}
    for cells in rows("docs/log.md", "word"):
        levels = {level for level in LEVELS if re.search(rf"\b{level}\b", cells[1])}
        told.update(dict.fromkeys(spans(cells[0]), levels))
        if len(spans(cells[0])) > 1 and len(levels) > 1:
            told.update({word: logged()[word] & levels for word in spans(cells[0])})
        if "is an error when" in cells[2]:
            told["ended"] = levels | {"error"}
    assert told == logged()


def test_the_log_is_written_in_no_other_way() -> None:
    """Else the test above misses words."""
    made = [call for call in calls() if call.method in LEVELS and not LOG.search(call.object)]
    assert [call for call in made if call.object != "self"] == []


# Configuration, exit codes, hooks.


def named_keys(text: str) -> set[str]:
    """What looks like a key of a section: in code, so that sentences may end with a section's name."""
    found = {word for span in spans(text) for word in re.findall(r"(?<![\w./@-])([a-z]+\.[a-z_]+)\b", span)}
    return {word for word in found if word.partition(".")[0] in SECTIONS}


NO_KEYS = {"log.md", "hooks.rules", "audit.log", "proxy.db", "log.txt"}


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_key_that_a_page_names_exists(page: Path) -> None:
    assert named_keys(page.read_text(encoding="utf-8")) - set(KEYS) - NO_KEYS == set()


def test_every_exit_code_is_documented_and_no_other() -> None:
    told = {
        code
        for name in ("docs/consoles.md", "docs/automation.md")
        for cells in rows(name, "exit code")
        for code in re.findall(r"\d+", cells[0])
    }
    ranges = {str(OURS + code) for code in (1, 7)} | {"11", "12"}
    assert told == {str(code) for code in failure.EXIT_CODES} | ranges


def test_every_code_of_a_refusal_is_documented_with_its_exit_code() -> None:
    said = {call.first for call in calls() if call.method in ("Refusal", "refused", "refusal_packet")}
    told = {
        code: int(cells[1])
        for cells in rows("docs/protocol.md", "code")
        for code in spans(cells[0])
        if cells[1] in ("1", "3", "5")
    }
    assert told == failure.DAEMON_CODES
    assert {"bad-request", "busy", "too-big"} <= said & set(told)


def test_every_event_of_hooks_is_documented_and_no_other() -> None:
    assert words("docs/hooks.md", "event") == set(automation.EVENTS)


def test_every_word_of_the_index_is_documented_and_no_other() -> None:
    noted = {
        call.first
        for call in calls()
        if call.constant and call.method == "event" and re.search(r"journal|log|index", call.object)
    }
    always = {"base", "mark", "lost", "in-doubt", "rotated", "reopened"}
    told = words("docs/consoles.md", "word")
    assert (noted | always) - told == set()
    assert told - noted - always - texts_alone() == set()


def texts_alone() -> set[str]:
    return set(documents.texts())


def test_everything_that_is_audited_is_documented_and_no_other() -> None:
    did = {
        call.first
        for call in calls()
        if call.constant and call.method in ("did", "refused") and call.object.endswith("audit")
    }
    told = words("docs/sharing.md", "`what`")
    assert did - told == set()
    assert told <= texts_alone()


# The protocol.


def test_the_codes_of_vmwares_extension_are_those_of_the_code() -> None:
    told: dict[str, int] = {}
    for cells in rows("docs/protocol.md", "code"):
        numbers, names = re.findall(r"\d+", cells[0]), spans(cells[1])
        if numbers and names and not spans(cells[0]):
            told.update(zip(names, map(int, numbers)))
    codes = {
        name: value
        for name, value in vars(vmware_codes).items()
        if name.isupper()
        and isinstance(value, int)
        and not name.endswith("LIMIT")
        and not name.startswith("_")
    }
    assert told == codes


def test_the_requests_of_tools_are_those_of_the_code_with_all_their_fields() -> None:
    told = {
        spans(cells[0])[0]: set(spans(re.sub(r"\([^)]*\)|objects with.*", "", cells[1])))
        for cells in rows("docs/protocol.md", "request")
    }
    assert told == {name: set(rule.fields) for name, rule in control.TABLE[control.TOOL].items()}


def test_the_frames_of_a_session_are_those_of_the_code() -> None:
    told = {spans(cells[1])[0]: int(cells[0]) for cells in rows("docs/protocol.md", "type")}
    assert told == {name: getattr(attach, name) for name in told}
    assert set(told.values()) == set(attach.TYPES)


# Messages.

SYSTEMS = frozenset(os.strerror(number) for number in errno.errorcode)
NOT_OURS = frozenset({"database is locked", "no such table"})
"""Parts of messages that others word."""

VALUES = re.compile(
    r"\d+(\.\d+)?|/run/vspc(/control\.sock)?|vspc|vSPC\.py|FILE|LINE|tls\.key|proxy|console|listener|reason|vspcd|TLS|pid|its|and|s|in"
)
"""What may stand in the place of a gap."""

SHORTEST = 10


def messages() -> list[str]:
    """Every message that the page for trouble shows in the first column of a table."""
    found = {
        span
        for heading in ("message", "reason")
        for name in ("docs/troubleshooting.md", "docs/state.md")
        for cells in rows(name, heading)
        for span in spans(cells[0])
    }
    return sorted(found)


@pytest.mark.parametrize("message", messages())
def test_a_message_that_is_shown_is_one_that_the_product_says(message: str) -> None:
    for part in message.split(GAP):
        assert left_over(part) == [], "nothing says that"


def left_over(part: str) -> list[str]:
    """What nothing in the code says of a part of a message."""
    part = part.strip(' :;,.()[]="\n')
    if not part or VALUES.fullmatch(part) or part in SYSTEMS | NOT_OURS | logged().keys():
        return []
    if any(part in text for text in documents.texts()):
        return []
    for fragment in fragments():
        if fragment in part:
            before, _, behind = part.partition(fragment)
            return [*left_over(before), *left_over(behind)]
    word, _, behind = part.partition(" ")
    return left_over(behind) if word in logged() or VALUES.fullmatch(word.strip("=:")) else [part]


@cache
def fragments() -> list[str]:
    """What stands between the gaps of texts, the longest first."""
    found = {piece for text in documents.texts() for piece in text.split(GAP) if len(piece) >= SHORTEST}
    return sorted(found | SYSTEMS, key=len, reverse=True)


def test_every_ailment_of_doctor_is_one_that_the_product_says() -> None:
    """A reason that is worded anew would otherwise be shown without what helps."""
    reasons = [text.replace(GAP, " ") for text in documents.texts(documents.NOT_THE_DAEMON)]
    for each in ailments.AILMENTS:
        for alternative in each.pattern.split("|"):
            wanted = alternative.removeprefix("TLS:.*")
            assert any(re.search(wanted, text) for text in reasons), alternative


# Links.


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"(?m)^#+ (.*)$", there.read_text(encoding="utf-8"))
            assert anchor in {slug(heading) for heading in headings}, target


def slug(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_every_page_is_linked_from_the_readme() -> None:
    readme = text_of("README.md")
    assert [page.name for page in pages()[1:] if f"docs/{page.name}" not in readme] == []


def test_calls_know_what_they_look_at() -> None:
    assert Call("workers/watcher.py", "self._log", "error", "triggers-blind", True) in set(calls())


# Command lines.


@pytest.mark.parametrize("command", documents.commands(), ids=str)
def test_a_command_line_is_understood(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    tried = [list(command.words)]
    if not command.whole:  # in a sentence, the name of a console may go without saying
        tried += [[*tried[0], *more] for more in UNSAID]
    assert any(understood(command.program, words_) for words_ in tried), capsys.readouterr().err


UNSAID = (["NAME"], ["NAME", "X"], ["NAME", "1"], ["--show", "FILE"], ["status"])


def understood(program: str, words_: list[str]) -> bool:
    try:
        parse = commandline.parse if program == "vspcctl" else daemon.parser().parse_args
        parse([NUMBERS.get(word, word) for word in words_])
    except SystemExit as end:
        return end.code in (0, None)
    return True


NUMBERS = {"ID": "1", "BYTES": "4096", "LINES": "10", "SECONDS": "10", "HOST:PORT": "127.0.0.1:1", "N": "1"}


def test_command_lines_are_found() -> None:
    shown = {" ".join((each.program, *each.words)) for each in documents.commands()}
    assert {
        "vspcctl exec web01 -- ps ax | wc -l",
        "vspcctl who NAME --json",
        "vspcctl status --json",
        "vspcd --check",
        "vspcd --root /tmp/vspc",
        "vspcctl send -n web01 -",
        "vspcctl console --replay 0 web01",
    } <= shown
    assert len(shown) > 100
