"""A wait with a deadline that never swallows a cancellation.

Does: what asyncio.wait_for does, but for its flaw before Python 3.12: a task that was cancelled in the very
moment in which the awaited work ended was never cancelled at all.
Owns: the task that does the work, which has ended when the wait has.
Never: returns a result to a task that was cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def within(limit: float, work: Coroutine[Any, Any, T]) -> T:
    """The result of the work. Raises asyncio.TimeoutError after so many seconds, and cancels the work."""
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=limit)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    if not done:
        raise asyncio.TimeoutError
    return task.result()
