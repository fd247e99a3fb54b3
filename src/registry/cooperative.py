"""Cooperative iteration: a process keeps answering polls while it goes through thousands of items."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

Item = TypeVar("Item")

_ITEMS_PER_YIELD = 100
"""Items between two yields to the event loop; at 10 to 20 microseconds each, a poll waits about a millisecond."""


async def cooperatively(items: Iterable[Item], items_per_yield: int = _ITEMS_PER_YIELD) -> AsyncIterator[Item]:
    """Yield the items, and yield to the event loop after every so many of them: fewer where each takes longer."""
    for number, item in enumerate(items, start=1):
        yield item
        if number % items_per_yield == 0:
            await asyncio.sleep(0)
