"""Long work that lets others have their turn."""

import asyncio
import time
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from registry.cooperative import cooperatively, in_order

ITEMS = 50


def slow_items() -> Iterator[int]:
    """Yield items that take a millisecond each."""
    for item in range(ITEMS):
        time.sleep(0.001)
        yield item


async def test_others_have_their_turn_in_between() -> None:
    """All items come, in order, and what else waits for the loop runs again and again meanwhile."""
    turns = 0
    over = False

    async def other() -> None:
        nonlocal turns
        while not over:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    assert [item async for item in cooperatively(slow_items())] == list(range(ITEMS))
    over = True
    await beside
    # One after each item, the first and the last turn besides.
    assert turns >= ITEMS


async def test_nothing_is_yielded_to_the_loop_for_what_takes_no_time() -> None:
    """A few quick items are one piece, as they were read: nobody else runs before the last of them."""
    ran: list[str] = []
    asyncio.get_running_loop().call_soon(ran.append, "other")
    seen = [list(ran) async for _ in cooperatively(range(2))]
    assert seen[0] == []


@given(st.lists(st.integers(0, 50), max_size=900))
async def test_items_are_sorted_as_at_once(numbers: list[int]) -> None:
    """By their keys, and those with equal keys in the order in which they came."""
    items = list(enumerate(numbers))
    assert await in_order(items, lambda item: item[1]) == sorted(items, key=lambda item: item[1])
