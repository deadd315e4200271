"""A post of JSON to a URL.

Does: tries up to TRIES times when the server cannot be reached or is in trouble, as far as the time allows.
Owns: nothing.
Never: imports what it needs before it is called: most daemons post nothing.
"""

from __future__ import annotations

import time
from typing import Optional

from vspcd import __version__

TRIES = 3
PAUSE = 1.0
LATER = frozenset({429, 500, 502, 503, 504})


def prepare() -> None:
    """Import what it takes, so that processes that are forked from here have it."""
    import urllib.request  # noqa: F401


def post(url: str, body: bytes, seconds: float) -> Optional[str]:
    """None when the server has taken it, else why not."""
    end = time.monotonic() + seconds
    problem: Optional[str] = None
    for attempt in range(TRIES):
        pause = PAUSE * 4 ** (attempt - 1) if attempt else 0.0
        if time.monotonic() + pause >= end:
            break
        time.sleep(pause)
        problem, again = _once(url, body, end - time.monotonic())
        if problem is None or not again:
            break
    return problem


def _once(url: str, body: bytes, seconds: float) -> tuple[Optional[str], bool]:
    """What was wrong, and whether it may be better later."""
    import http.client
    import urllib.error
    import urllib.request

    headers = {"Content-Type": "application/json", "User-Agent": f"vspcd/{__version__}"}
    request = urllib.request.Request(url, body, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=max(seconds, 0.1)):
            return None, False
    except urllib.error.HTTPError as error:
        return f"the server answers {error.code} {error.reason}", error.code in LATER
    except urllib.error.URLError as error:
        return f"no connection: {error.reason}", True
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {error or type(error).__name__}", True
