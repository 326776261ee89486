"""Waiting for a condition: the one place where tests let time pass."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
#: Longer than anything takes that happens at all; waiting ends as soon as it has happened.
PATIENCE_S = 30.0


async def until(condition: Callable[[], Any], *, patience_s: float = PATIENCE_S) -> Any:
    """Ask again and again until the answer is truthy; gives it. An answer may be awaitable.

    Raises TimeoutError.
    """
    give_up_at = time.monotonic() + patience_s
    while True:
        answer = condition()
        found = await answer if inspect.isawaitable(answer) else answer
        if found:
            return found
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"it did not happen within {patience_s:.0f} s; the last answer was {found!r}")
        await asyncio.sleep(0.02)


def until_now(condition: Callable[[], T], *, patience_s: float = PATIENCE_S) -> T:
    """As ``until``, blocking."""
    give_up_at = time.monotonic() + patience_s
    while not (found := condition()):
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"it did not happen within {patience_s:.0f} s; the last answer was {found!r}")
        time.sleep(0.02)
    return found
