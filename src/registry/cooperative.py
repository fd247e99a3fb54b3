"""Cooperative iteration: a process keeps answering polls while it goes through thousands of items."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from heapq import merge
from time import monotonic
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_TURN = 0.0002
"""Seconds of work between two yields to the event loop. A poll waits for as long, or for one item that takes longer."""
_SORTED = 200
"""Items that are sorted at once."""


async def cooperatively(items: Iterable[Item]) -> AsyncIterator[Item]:
    """Yield the items, and yield to the event loop whenever a turn's time is over."""
    end = monotonic() + _TURN
    for item in items:
        yield item
        if monotonic() >= end:
            await asyncio.sleep(0)
            end = monotonic() + _TURN


async def in_order(items: Iterable[Item], key: Callable[[Item], Any]) -> list[Item]:
    """Return items sorted by their keys; those with equal keys stay in their order."""
    keyed = [(key(item), number, item) async for number, item in cooperatively(enumerate(items))]
    sorted_parts = [
        sorted(keyed[start : start + _SORTED], key=_place)
        async for start in cooperatively(range(0, len(keyed), _SORTED))
    ]
    return [item async for _, _, item in cooperatively(merge(*sorted_parts, key=_place))]


def _place(keyed: tuple[Any, int, Any]) -> tuple[Any, int]:
    return keyed[:2]


async def in_turns(work: Generator[None, None, Result], between: Callable[[], Awaitable[None]] | None = None) -> Result:
    """Run work that says where it may be interrupted, yield to the event loop as often, and return its result.

    Args:
        work: the work.
        between: done between two turns, after the event loop had its own.
    """
    end = monotonic() + _TURN
    while True:
        try:
            next(work)
        except StopIteration as done:
            result: Result = done.value
            return result
        if monotonic() >= end:
            await asyncio.sleep(0)
            if between is not None:
                await between()
            end = monotonic() + _TURN


def at_once(work: Generator[None, None, Result]) -> Result:
    """Run the same work without interruptions, and return its result."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            result: Result = done.value
            return result
