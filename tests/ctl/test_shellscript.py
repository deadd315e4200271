"""Commands for a shell behind a console: what is typed is never taken for what is printed."""

from __future__ import annotations

import re
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vspcd.ctl.shellscript import LINE, ShellScript, Status, command_text


def typed(script: ShellScript) -> bytes:
    return b"".join(line for line, _ in script.lines())


def shell(text: bytes) -> bytes:
    """What a real shell prints that reads this, line ends as a terminal makes them."""
    done = subprocess.run(
        ["/bin/sh"], input=text.replace(b"\r", b"\n"), capture_output=True, check=False, timeout=20
    )
    return done.stdout.replace(b"\n", b"\r\n")


def fed(script: ShellScript, data: bytes, *cuts: int) -> Status:
    """The whole of what was found in pieces that end at these places."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    output, status = b"", None
    for begin, end in zip(places, places[1:]):
        found = script.feed(data[begin:end])
        output += found.output
        if found.exit is not None:
            status = found.exit
            break
    return Status(output, status)


def test_a_command_has_its_output_and_its_status() -> None:
    script = ShellScript("echo one; echo two; exit 7")
    assert fed(script, shell(typed(script))) == (b"one\ntwo\n", 7)


def test_output_without_a_line_end_stays_without() -> None:
    script = ShellScript("printf half")
    assert fed(script, shell(typed(script))) == (b"half", 0)


def test_no_output_is_none() -> None:
    script = ShellScript("false")
    assert fed(script, shell(typed(script))) == (b"", 1)


@pytest.mark.parametrize("width", [1, 2, 7, 20, 80])
def test_an_echo_is_no_output_however_it_is_wrapped(width: int) -> None:
    script = ShellScript("echo x")
    line = typed(script)
    echo = b" \r".join(line[at : at + width] for at in range(0, len(line), width))
    for noise in (line, echo, echo.replace(b" \r", b"\r\n"), echo.replace(b" \r", b"")):
        assert fed(script, noise) == (b"", None)
    assert fed(script, b"# " + echo + b"\r\n" + shell(line) + b"# ") == (b"x\n", 0)


def test_a_message_in_the_middle_of_a_status_does_not_hide_it() -> None:
    script = ShellScript("echo x")
    output = shell(typed(script))
    first = re.search(rb"vspc[0-9a-f]{16}=0\r\n", output)
    assert first is not None
    at = first.end() - 6
    broken = output[:at] + b"\r\n[ 12.3] usb 1-1: new device\r\n" + output[at:]
    found = fed(script, broken)
    assert found.exit == 0
    assert found.output.startswith(b"x\n")


TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0\r"), max_size=300)


@settings(max_examples=60, deadline=None)
@given(TEXT, st.lists(st.integers(0, 5000), max_size=8))
def test_any_text_arrives_as_it_is_in_any_pieces(text: str, cuts: list[int]) -> None:
    script = ShellScript(command_text(["printf", "%s", text]))
    output = shell(typed(script))
    found = fed(script, output, *cuts)
    assert found == (text.encode(), 0)


def test_a_long_command_is_typed_in_lines_that_any_line_editor_takes() -> None:
    text = "".join(chr(33 + number % 90) for number in range(20000))
    script = ShellScript(command_text(["printf", "%s", text]))
    lines = list(script.lines())
    assert all(len(line) < 1023 for line, _ in lines)
    assert len(lines) > 20000 / LINE
    assert [marker is None for _, marker in lines] == [False] * (len(lines) - 1) + [True]
    assert typed(ShellScript("x" * 10)).isascii()
    output = shell(b"".join(line for line, _ in lines))
    for _, marker in lines[:-1]:
        assert marker is not None
        assert marker.search(output.replace(b"\r", b"")) is not None
    assert fed(script, output) == (text.encode(), 0)


def test_one_word_is_a_shells_line_and_several_are_words() -> None:
    assert command_text(["ls | wc -l"]) == "ls | wc -l"
    assert command_text(["ls", "a b", "*"]) == "ls 'a b' '*'"
