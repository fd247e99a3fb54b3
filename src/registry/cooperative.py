"""Cooperative iteration: a process keeps answering polls while it goes through thousands of items."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from time import monotonic
from typing import TypeVar

Item = TypeVar("Item")

_TURN = 0.0002
"""Seconds of work between two yields to the event loop. A poll waits for as long, or for one item that takes longer."""


async def cooperatively(items: Iterable[Item]) -> AsyncIterator[Item]:
    """Yield the items, and yield to the event loop whenever a turn's time is over."""
    end = monotonic() + _TURN
    for item in items:
        yield item
        if monotonic() >= end:
            await asyncio.sleep(0)
            end = monotonic() + _TURN
