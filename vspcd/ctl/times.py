"""Times as people write and read them.

Does: turns '10m', '2h ago', 'yesterday', 'monday 2pm', 'Nov 20 14:30' or an ISO time into a moment.
Owns: nothing.
Never: asks the clock; the caller says what time it is.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Optional

EXAMPLES = (
    "10m, '2h ago', 1d12h, yesterday, 14:30, 2pm, 'yesterday 14:30', monday, 'Nov 20 14:30', 2026-11-20, "
    "2026-11-20T14:30:00Z, @1700000000"
)

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "o": 30 * 86400, "y": 365 * 86400}
_UNIT = (
    r"mo(?:nths?)?|y(?:ears?)?|s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:(?:ou)?rs?)?|d(?:ays?)?|w(?:eeks?)?"
)
_PART = re.compile(rf"(\d+(?:\.\d+)?)\s*({_UNIT})\s*", re.IGNORECASE | re.ASCII)
_SPAN = re.compile(rf"-?(?:{_PART.pattern})+(?:ago)?", re.IGNORECASE | re.ASCII)
_ONE = re.compile(r"\A(?:an?|last) (?=(?:second|minute|hour|month|year)\b)|\A(?:a|last) (?=(?:day|week)\b)")
_CLOCK = re.compile(r"(\d{1,2})(?::(\d{2})(?::(\d{2}))?(?: ?([ap]m))?| ?([ap]m))|(noon|midnight)", re.ASCII)
_DATE = re.compile(r"(?:([a-z]{3})[a-z]*\.? (\d{1,2})|(\d{1,2})\.? ([a-z]{3})[a-z]*\.?)(?: (.+))?", re.ASCII)
_UNIX = re.compile(r"@(\d+(?:\.\d+)?)", re.ASCII)
_ISO = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(:\d{2}(?:\.\d{1,6})?)?)?\s*(Z|[+-]\d{2}:?\d{2})?",
    re.IGNORECASE | re.ASCII,
)
_DAYS = {"today": 0, "yesterday": 1}
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def parse_moment(text: str, now: float) -> float:
    """The Unix time that ``text`` means at the Unix time ``now``, in the local time zone unless it names one.

    A span ('10m') is that long ago; a month has 30 days. A clock time that is still to come is yesterday's, a date
    without a year last year's, and a day of the week is the latest one. Raises ValueError.
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
    for form in (_now, _unix, _span, _clock, _day, _iso, _date):
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
    text = _ONE.sub("1 ", text)
    if not _SPAN.fullmatch(text):
        return None
    return now - sum(float(count) * _UNITS[_unit(unit)] for count, unit in _PART.findall(text))


def _unit(text: str) -> str:
    return "o" if text.startswith("mo") else text[0]


def _clock(text: str, now: float) -> Optional[float]:
    match = _CLOCK.fullmatch(text)
    if not match:
        return None
    today = datetime.fromtimestamp(now)
    moment = _at(today, match).timestamp()
    return moment if moment <= now else _at(today - timedelta(days=1), match).timestamp()


def _day(text: str, now: float) -> Optional[float]:
    word, _, clock = text.removeprefix("last ").partition(" ")
    match = _CLOCK.fullmatch(clock or "0:00")
    today = datetime.fromtimestamp(now)
    ago = _DAYS.get(word)
    if ago is None and len(word) >= 3:
        named = [number for number, name in enumerate(_WEEKDAYS) if name.startswith(word)]
        ago = (today.weekday() - named[0]) % 7 if named else None
    if ago is None or not match:
        return None
    moment = _at(today - timedelta(days=ago), match).timestamp()
    return moment if moment <= now or word in _DAYS else moment - 604800


def _date(text: str, now: float) -> Optional[float]:
    """'Nov 20 14:30:05', as a syslog writes it, or '20 Nov'."""
    match = _DATE.fullmatch(text)
    month = (match[1] or match[4]) if match else None
    clock = _CLOCK.fullmatch((match and match[5]) or "0:00")
    if match is None or month not in _MONTHS or not clock:
        return None
    today = datetime.fromtimestamp(now)
    day = today.replace(month=_MONTHS.index(month) + 1, day=int(match[2] or match[3]))
    moment = _at(day, clock).timestamp()
    return moment if moment <= now else _at(day.replace(year=day.year - 1), clock).timestamp()


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
    hour = {"noon": 12, "midnight": 0}[clock[6]] if clock[6] else int(clock[1])
    half = clock[4] or clock[5]
    if half and not 1 <= hour <= 12:
        raise ValueError("am and pm go with 1 to 12")
    if half:
        hour = hour % 12 + 12 * (half == "pm")
    return day.replace(hour=hour, minute=int(clock[2] or 0), second=int(clock[3] or 0), microsecond=0)


def stamp(moment: float) -> str:
    """A moment in local time, to the second."""
    return datetime.fromtimestamp(moment).strftime("%Y-%m-%d %H:%M:%S")
