"""Group commit, with a store that takes its time."""

import asyncio
from collections.abc import Sequence

import pytest

from registry.commit import GroupCommit
from registry.errors import InvalidError, RegistryError, UnavailableError


class Shelf:
    """A store that takes a moment for each batch and can be told to fail."""

    def __init__(self, *, largest: int = 100, most_waiting: int = 1000) -> None:
        self.batches: list[list[int]] = []
        self.broken: set[int] = set()
        self.away = False
        self.open = asyncio.Event()
        self.open.set()
        self.group: GroupCommit[int, str] = GroupCommit(self.store, largest=largest, most_waiting=most_waiting)

    async def store(self, items: Sequence[int]) -> Sequence[str | RegistryError]:
        """Keep a batch."""
        await self.open.wait()
        await asyncio.sleep(0.002)
        if self.away:
            raise UnavailableError("the shelf is away", retry_after=3.0)
        if self.broken & set(items):
            raise RuntimeError("the shelf broke")
        self.batches.append(list(items))
        return [InvalidError(f"{item} is negative") if item < 0 else f"kept {item}" for item in items]

    @property
    def kept(self) -> list[int]:
        """Everything that was stored, in order."""
        return [item for batch in self.batches for item in batch]

    async def submit(self, items: Sequence[int]) -> list[str | BaseException]:
        """Submit items at once; return each one's result or error."""
        return await asyncio.gather(*(self.group.submit(item) for item in items), return_exceptions=True)


async def test_a_lone_item_is_stored_at_once() -> None:
    """No timer: it waits for nobody."""
    shelf = Shelf()
    assert await shelf.group.submit(1) == "kept 1"
    assert shelf.batches == [[1]]


async def test_batches_grow_while_one_is_stored() -> None:
    """A flood costs few commits, everything keeps its order, and each gets its own result."""
    shelf = Shelf()
    tasks = []
    for number in range(60):
        tasks.append(asyncio.create_task(shelf.group.submit(number)))
        await asyncio.sleep(0.0002)
    assert await asyncio.gather(*tasks) == [f"kept {number}" for number in range(60)]
    assert shelf.kept == list(range(60))
    assert max(map(len, shelf.batches)) > 1
    assert len(shelf.batches) < 60


async def test_batches_are_bounded() -> None:
    """What is more than the largest batch goes with the next."""
    shelf = Shelf(largest=10)
    await shelf.submit(range(25))
    assert [len(batch) for batch in shelf.batches] == [10, 10, 5]
    assert shelf.kept == list(range(25))


async def test_a_refused_item_is_refused_alone() -> None:
    """The store says which item deserves which error."""
    shelf = Shelf()
    results = await shelf.submit([1, -2, 3])
    assert (results[0], results[2]) == ("kept 1", "kept 3")
    assert isinstance(results[1], InvalidError)


async def test_one_item_that_breaks_the_store_takes_no_other_with_it() -> None:
    """Poison never spreads: the batch is stored item by item, and the worker lives on."""
    shelf = Shelf()
    shelf.broken = {2}
    results = await shelf.submit([0, 1, 2, 3])
    assert [results[0], results[1], results[3]] == ["kept 0", "kept 1", "kept 3"]
    assert isinstance(results[2], RuntimeError)
    assert shelf.kept == [0, 1, 3]
    assert await shelf.group.submit(4) == "kept 4"


async def test_an_outage_reaches_everyone_and_passes() -> None:
    """All of the batch may try again; it is not stored item by item against a store that is away."""
    shelf = Shelf()
    shelf.away = True
    results = await shelf.submit(range(5))
    assert all(isinstance(one, UnavailableError) and one.retry_after == 3.0 for one in results)
    shelf.away = False
    assert await shelf.submit(range(3)) == ["kept 0", "kept 1", "kept 2"]


async def test_who_hung_up_before_its_turn_is_not_stored() -> None:
    """A cancelled request costs nothing; one that is being stored stays stored, and harms nobody."""
    shelf = Shelf()
    shelf.open.clear()
    first = asyncio.create_task(shelf.group.submit(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second, third = (asyncio.create_task(shelf.group.submit(number)) for number in (2, 3))
    await asyncio.sleep(0)
    first.cancel()
    second.cancel()
    shelf.open.set()
    assert await third == "kept 3"
    assert shelf.kept == [1, 3]


async def test_waiting_is_bounded() -> None:
    """Beyond the bound an item is refused at once, so that memory is too; the others are stored."""
    shelf = Shelf(largest=1, most_waiting=3)
    shelf.open.clear()
    tasks = [asyncio.create_task(shelf.group.submit(0))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(shelf.group.submit(number)) for number in (1, 2, 3)]
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError, match="too many writes"):
        await shelf.group.submit(4)
    shelf.open.set()
    assert await asyncio.gather(*tasks) == ["kept 0", "kept 1", "kept 2", "kept 3"]


async def test_only_one_batch_is_stored_at_a_time() -> None:
    """A slow store gets larger batches, never more of them at once."""
    running, most = 0, 0

    async def store(items: Sequence[int]) -> Sequence[int]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return items

    group: GroupCommit[int, int] = GroupCommit(store, largest=5, most_waiting=1000)
    assert await asyncio.gather(*(group.submit(number) for number in range(40))) == list(range(40))
    assert most == 1
