"""Long work that lets others have their turn."""

import asyncio

from registry.cooperative import cooperatively


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
    assert [item async for item in cooperatively(range(1000))] == list(range(1000))
    over = True
    await beside
    assert turns >= 10
