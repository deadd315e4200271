"""JSON in one line, as packets and indexes have it.

Does: writes values as text, by an encoder that is made once. Those of the standard library make themselves anew for
each value, which is most of their work for a small one, and a good part of what a new worker has to copy.
Owns: nothing.
Never: looks for a list that holds itself; what it gets was built for it.
"""

from __future__ import annotations

import json
import json.encoder
from typing import Any, Callable, Optional

SEPARATORS = (",", ":")
PROBE = {"a": [1, 2.5, None, True, "\u00e9\n"], "b": {}}


def writer(ascii_only: bool) -> Callable[[Any], str]:
    """What turns a value into text."""
    plain = json.JSONEncoder(separators=SEPARATORS, ensure_ascii=ascii_only, check_circular=False)
    fast = _lasting(plain, ascii_only)
    try:
        return fast if fast is not None and fast(PROBE) == plain.encode(PROBE) else plain.encode
    except TypeError:
        return plain.encode  # another Python, whose own encoder wants something else


def _lasting(plain: json.JSONEncoder, ascii_only: bool) -> Optional[Callable[[Any], str]]:
    """The part of the standard library's encoder that is written in C, if it is there and is made as it ever was."""
    make = getattr(json.encoder, "c_make_encoder", None)
    word = getattr(json.encoder, "encode_basestring_ascii" if ascii_only else "encode_basestring", None)
    if make is None or word is None:
        return None
    item, key = SEPARATORS
    try:
        chunks = make(None, plain.default, word, None, key, item, False, False, True)
    except TypeError:
        return None
    return lambda value: "".join(chunks(value, 0))


text = writer(ascii_only=False)
ascii_text = writer(ascii_only=True)
