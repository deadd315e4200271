"""The values that options take: what argparse turns words into.

Owns: nothing.
Never: decides what a value is for.
"""

from __future__ import annotations

import argparse

Wrong = argparse.ArgumentTypeError


def given(text: str) -> str:
    if not text:
        raise Wrong("the name is empty")
    return text


def whole_number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise Wrong(f"{text!r} is not a whole number")
    return int(text)


def seconds(text: str) -> float:
    return _number(text, "a number of seconds", least=0.0)


def factor(text: str) -> float:
    return _number(text, "a factor above 0.001", least=0.001)


def boot(text: str) -> int:
    """A boot as journalctl counts them: 0 the latest, -1 the one before, 1 the oldest."""
    try:
        return int(text)
    except ValueError:
        raise Wrong(f"{text!r} is no boot: 0 is the latest, -1 the one before, 1 the oldest") from None


def _number(text: str, what: str, least: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not least <= number < 1e9:
        raise Wrong(f"{text!r} is not {what}")
    return number
