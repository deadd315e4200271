"""Times as people write and read them.

Does: turns '10m', '2h ago', 'yesterday', '14:30' or an ISO time into a moment.
Owns: nothing.
Never: asks the clock; the caller says what time it is.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Optional

EXAMPLES = (
    "10m, '2h ago', 1d12h, yesterday, 14:30, 'yesterday 14:30', 2026-11-20, 2026-11-20T14:30:00Z, @1700000000"
)

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_UNIT = r"s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:(?:ou)?rs?)?|d(?:ays?)?|w(?:eeks?)?"
_PART = re.compile(rf"(\d+(?:\.\d+)?)\s*({_UNIT})\s*", re.IGNORECASE | re.ASCII)
_SPAN = re.compile(rf"(?:{_PART.pattern})+(?:ago)?", re.IGNORECASE | re.ASCII)
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?", re.ASCII)
_UNIX = re.compile(r"@(\d+(?:\.\d+)?)", re.ASCII)
_ISO = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(:\d{2}(?:\.\d{1,6})?)?)?\s*(Z|[+-]\d{2}:?\d{2})?",
    re.IGNORECASE | re.ASCII,
)
_DAYS = {"today": 0, "yesterday": 1}


def parse_moment(text: str, now: float) -> float:
    """The Unix time that ``text`` means at the Unix time ``now``, in the local time zone unless it names one.

    A span ('10m') is that long ago. A clock time that is still to come is yesterday's. Raises ValueError.
    """
    cleaned = " ".join(text.split()).lower()
    try:
        moment = _parse(cleaned, now)
    except (OverflowError, OSError):
        moment = None
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time: {error}") from None
    if moment is None:
        raise ValueError(f"{text!r} is not a time; try {EXAMPLES}")
    return moment


def _parse(text: str, now: float) -> Optional[float]:
    for form in (_now, _unix, _span, _clock, _day, _iso):
        moment = form(text, now)
        if moment is not None:
            return moment
    return None


def _now(text: str, now: float) -> Optional[float]:
    return now if text == "now" else None


def _unix(text: str, now: float) -> Optional[float]:
    match = _UNIX.fullmatch(text)
    return float(match[1]) if match else None


def _span(text: str, now: float) -> Optional[float]:
    if not _SPAN.fullmatch(text):
        return None
    return now - sum(float(count) * _UNITS[unit[0].lower()] for count, unit in _PART.findall(text))


def _clock(text: str, now: float) -> Optional[float]:
    match = _CLOCK.fullmatch(text)
    if not match:
        return None
    today = datetime.fromtimestamp(now)
    moment = _at(today, match).timestamp()
    return moment if moment <= now else _at(today - timedelta(days=1), match).timestamp()


def _day(text: str, now: float) -> Optional[float]:
    word, _, clock = text.partition(" ")
    match = _CLOCK.fullmatch(clock or "0:00")
    if word not in _DAYS or not match:
        return None
    return _at(datetime.fromtimestamp(now) - timedelta(days=_DAYS[word]), match).timestamp()


def _iso(text: str, now: float) -> Optional[float]:
    match = _ISO.fullmatch(text)
    if not match:
        return None
    date, clock, seconds, zone = match.groups()
    zone = {None: "", "z": "+0000"}.get(zone, (zone or "").replace(":", ""))
    whole, _, fraction = (seconds or ":00").partition(".")
    pattern = "%Y-%m-%d %H:%M:%S" + ("%z" if zone else "")
    moment = datetime.strptime(f"{date} {clock or '00:00'}{whole}{zone}", pattern)
    return moment.timestamp() + float(f"0.{fraction or 0}")


def _at(day: datetime, clock: re.Match[str]) -> datetime:
    return day.replace(hour=int(clock[1]), minute=int(clock[2]), second=int(clock[3] or 0), microsecond=0)


def stamp(moment: float) -> str:
    """A moment in local time, to the second."""
    return datetime.fromtimestamp(moment).strftime("%Y-%m-%d %H:%M:%S")
