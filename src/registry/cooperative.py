"""Long work in short turns: while one process counts thousands, it goes on answering polls."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

Item = TypeVar("Item")

_A_TURN = 100
"""Items between two turns of the loop; at 10 to 20 microseconds each, a poll waits for about a millisecond."""


async def cooperatively(items: Iterable[Item]) -> AsyncIterator[Item]:
    """Yield the items, and let everything else that waits for the loop have its turn in between."""
    for number, item in enumerate(items, start=1):
        yield item
        if number % _A_TURN == 0:
            await asyncio.sleep(0)
