"""Group commit, with a store that takes its time."""

import asyncio
from collections.abc import Sequence

import pytest

from registry.errors import InvalidError, RefusedError, RegistryError, UnavailableError
from registry.usecases.group_commit import GroupCommit, Lanes, rolled_back


class Shelf:
    """A store that takes a moment for each batch and can be told to fail."""

    def __init__(self, *, max_batch: int = 100, max_waiting: int = 1000) -> None:
        self.batches: list[list[int]] = []
        self.broken: set[int] = set()
        # Fails once the batch is stored.
        self.broken_after: set[int] = set()
        self.away = False
        self.open = asyncio.Event()
        self.open.set()
        self.group: GroupCommit[int, str] = GroupCommit(self.store, max_batch=max_batch, max_waiting=max_waiting)

    async def store(self, items: Sequence[int]) -> Sequence[str | RegistryError]:
        """Keep a batch."""
        await self.open.wait()
        await asyncio.sleep(0.002)
        with rolled_back():
            if self.away:
                raise UnavailableError("the shelf is away", retry_after=3.0)
            if self.broken & set(items):
                raise RuntimeError("the shelf broke")
        self.batches.append(list(items))
        if self.broken_after & set(items):
            raise RuntimeError("nobody can count them")
        return [InvalidError(f"{item} is negative") if item < 0 else f"kept {item}" for item in items]

    @property
    def kept(self) -> list[int]:
        """Everything that was stored, in order."""
        return [item for batch in self.batches for item in batch]

    async def submit(self, items: Sequence[int]) -> list[str | BaseException]:
        """Submit items at once; return each one's result or error."""
        return await asyncio.gather(*(self.group.submit(item) for item in items), return_exceptions=True)


async def test_a_lone_item_is_stored_at_once() -> None:
    """It waits for nobody."""
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


async def test_who_is_answered_and_asks_again_joins_those_who_wait() -> None:
    """The next batch is not taken before the loop has told what became of the last one and read its sockets."""
    shelf = Shelf()

    async def insist() -> None:
        await shelf.group.submit(1)
        await asyncio.sleep(0)
        await shelf.group.submit(3)

    asking = asyncio.create_task(insist())
    await turns()
    waiting = asyncio.create_task(shelf.group.submit(2))
    await asyncio.gather(asking, waiting)
    assert shelf.batches == [[1], [2, 3]]


async def test_small_batches_are_kept_apart() -> None:
    """The first item after a pause is stored at once; those that follow soon after it gather."""
    shelf = Shelf()
    group: GroupCommit[int, str] = GroupCommit(
        shelf.store, max_batch=100, max_waiting=100, min_interval=0.5, enough=100
    )
    begun = asyncio.get_running_loop().time()
    await group.submit(1)
    assert asyncio.get_running_loop().time() - begun < 0.5
    second = asyncio.create_task(group.submit(2))
    await asyncio.sleep(0.05)
    await asyncio.gather(second, group.submit(3))
    assert asyncio.get_running_loop().time() - begun >= 0.5
    assert shelf.batches == [[1], [2, 3]]


async def test_enough_items_do_not_wait() -> None:
    """Whether they come together or one after the other."""
    shelf = Shelf()
    group: GroupCommit[int, str] = GroupCommit(shelf.store, max_batch=100, max_waiting=100, min_interval=3600, enough=3)
    async with asyncio.timeout(20):
        await group.submit(1)
        await asyncio.gather(*(group.submit(item) for item in (2, 3, 4)))
        gathering = [asyncio.create_task(group.submit(item)) for item in (5, 6)]
        await asyncio.sleep(0.05)
        assert shelf.batches == [[1], [2, 3, 4]]
        await asyncio.gather(*gathering, group.submit(7))
    assert shelf.batches == [[1], [2, 3, 4], [5, 6, 7]]


async def test_batches_are_bounded() -> None:
    """What is more than the largest batch goes with the next."""
    shelf = Shelf(max_batch=10)
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
    """Poison never spreads: the batch is stored in ever smaller halves, and the worker lives on."""
    shelf = Shelf()
    shelf.broken = {2}
    results = await shelf.submit([0, 1, 2, 3])
    assert [results[0], results[1], results[3]] == ["kept 0", "kept 1", "kept 3"]
    assert isinstance(results[2], RuntimeError)
    assert shelf.kept == [0, 1, 3]
    assert await shelf.group.submit(4) == "kept 4"


async def test_what_is_committed_is_never_stored_again() -> None:
    """Whatever fails after the commit: a drain that is done again finds nobody to drain, and is answered 404."""
    shelf = Shelf()
    shelf.broken_after = {2}
    results = await shelf.submit([0, 1, 2, 3])
    assert [type(result) for result in results] == [RuntimeError] * 4
    assert shelf.kept == [0, 1, 2, 3]
    assert await shelf.group.submit(4) == "kept 4"


async def test_one_refused_item_among_many_costs_few_batches() -> None:
    """PostgreSQL refuses one row of 256: its batch is halved, and not stored one by one."""
    shelf = Shelf(max_batch=256)
    asked = 0

    async def store(items: Sequence[int]) -> Sequence[str | RegistryError]:
        nonlocal asked
        asked += 1
        with rolled_back():
            if 77 in items:
                raise RefusedError("refused", cause="a constraint", row_specific=True)
        return await shelf.store(items)

    shelf.group = GroupCommit(store, max_batch=256, max_waiting=1000)
    results = await shelf.submit(range(256))
    assert isinstance(results[77], RefusedError)
    assert shelf.kept == [number for number in range(256) if number != 77]
    assert asked <= 2 * 8 + 1


async def test_what_is_refused_to_all_is_asked_once() -> None:
    """A lost right is true of each item."""
    shelf = Shelf()
    asked = 0

    async def store(_items: Sequence[int]) -> Sequence[str | RegistryError]:
        nonlocal asked
        asked += 1
        with rolled_back():
            raise RefusedError("refused", cause="permission denied")

    shelf.group = GroupCommit(store, max_batch=256, max_waiting=1000)
    assert {type(result) for result in await shelf.submit(range(256))} == {RefusedError}
    assert asked == 1


async def test_an_outage_reaches_everyone_and_passes() -> None:
    """All of the batch may try again; it is not stored item by item against a store that is away."""
    shelf = Shelf()
    shelf.away = True
    results = await shelf.submit(range(5))
    assert all(isinstance(result, UnavailableError) and result.retry_after == 3.0 for result in results)
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
    shelf = Shelf(max_batch=1, max_waiting=3)
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

    group: GroupCommit[int, int] = GroupCommit(store, max_batch=5, max_waiting=1000)
    assert await asyncio.gather(*(group.submit(number) for number in range(40))) == list(range(40))
    assert most == 1


class Street:
    """A store behind lanes, of which each can be blocked; items are a lane and a number."""

    def __init__(self, *, max_batch: int = 100, max_waiting: int = 1000, max_batches: int = 4) -> None:
        self.batches: list[list[tuple[str, int]]] = []
        self.blocked: dict[str, asyncio.Event] = {}
        self.running: list[str] = []
        self.most_running = 0
        self.lanes: Lanes[tuple[str, int], int] = Lanes(
            self.store, max_batch=max_batch, max_waiting=max_waiting, max_batches=max_batches
        )

    async def store(self, items: Sequence[tuple[str, int]]) -> Sequence[int | RegistryError]:
        """Keep a batch, once its lane is not blocked any more."""
        lane = items[0][0]
        self.running.append(lane)
        self.most_running = max(self.most_running, len(self.running))
        try:
            await self.blocked.get(lane, OPEN).wait()
            await asyncio.sleep(0.001)
        finally:
            self.running.remove(lane)
        self.batches.append(list(items))
        return [InvalidError("negative") if number < 0 else number for _, number in items]

    def block(self, *lanes: str) -> None:
        """Let nothing through on these lanes."""
        self.blocked |= {lane: asyncio.Event() for lane in lanes}

    def clear(self) -> None:
        """Let everything through."""
        for event in self.blocked.values():
            event.set()

    def submit(self, lane: str, number: int) -> asyncio.Task[int]:
        """Submit an item."""
        return asyncio.create_task(self.lanes.submit(lane, (lane, number)))

    @property
    def idle(self) -> bool:
        """Whether nothing is remembered of any lane."""
        return not self.lanes._lanes and not self.lanes._waiting

    async def until_idle(self) -> None:
        """Wait until nothing is remembered of any lane."""
        async with asyncio.timeout(5):
            while not self.idle:
                await turns()


OPEN = asyncio.Event()
OPEN.set()


async def turns(count: int = 10) -> None:
    """Let every task go as far as it can."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_blocked_lane_holds_up_no_other() -> None:
    """What cannot be stored of one service waits, and what is said of all others is stored meanwhile."""
    street = Street()
    street.block("shop")
    held = [street.submit("shop", number) for number in range(3)]
    await turns()
    for number in range(20):
        assert await street.submit(f"s-{number}", number) == number
    assert not any(task.done() for task in held)
    street.clear()
    assert await asyncio.gather(*held) == [0, 1, 2]
    assert street.idle


async def test_a_lane_is_a_group_commit() -> None:
    """One batch of a lane at a time, in order; what gathers meanwhile goes together, and never with another lane."""
    street = Street()
    street.block("shop")
    tasks = [street.submit(lane, number) for number in range(30) for lane in ("shop", "cart")]
    await turns()
    assert street.running.count("shop") == 1
    street.clear()
    await asyncio.gather(*tasks)
    assert all(len({lane for lane, _ in batch}) == 1 for batch in street.batches)
    for lane in ("shop", "cart"):
        kept = [number for batch in street.batches for where, number in batch if where == lane]
        assert kept == list(range(30))
        assert len([batch for batch in street.batches if batch[0][0] == lane]) < 30


async def test_a_refusal_is_its_items_alone() -> None:
    """As in a single group commit; and the lane is forgotten after it all the same."""
    street = Street()
    results = await asyncio.gather(*(street.submit("shop", n) for n in (1, -1, 2)), return_exceptions=True)
    assert (results[0], results[2]) == (1, 2)
    assert isinstance(results[1], InvalidError)
    assert street.idle


async def test_no_more_batches_are_stored_at_once_than_allowed() -> None:
    """Each takes a connection, and others need some too."""
    street = Street(max_batches=3)
    tasks = [street.submit(f"s-{number}", number) for number in range(20)]
    assert sorted(await asyncio.gather(*tasks)) == list(range(20))
    assert street.most_running == 3


async def test_waiting_is_bounded_over_all_lanes() -> None:
    """Memory is bounded however many services there are; who is refused leaves nothing behind."""
    street = Street(max_waiting=4, max_batches=2)
    street.block("a", "b", "c")
    held = [street.submit(lane, 1) for lane in ("a", "b", "c", "a")]
    await turns()
    for lane in ("a", "d"):
        with pytest.raises(UnavailableError, match="too many writes"):
            await street.submit(lane, 2)
    assert "d" not in street.lanes._lanes
    street.clear()
    assert await asyncio.gather(*held) == [1, 1, 1, 1]
    assert await street.submit("d", 3) == 3
    assert street.idle


async def test_a_lane_is_forgotten_when_nothing_is_under_way_in_it() -> None:
    """Names come from anybody: memory must follow what is under way, also after refusals and hang-ups."""
    street = Street()
    for number in range(50):
        await street.submit(f"s-{number}", number)
    assert street.idle
    street.block("shop")
    hung_up = [street.submit("shop", number) for number in range(3)]
    await turns()
    for task in hung_up:
        task.cancel()
    await asyncio.gather(*hung_up, return_exceptions=True)
    assert list(street.lanes._lanes) == ["shop"]
    street.clear()
    await street.until_idle()
    assert await street.submit("shop", 7) == 7


async def test_a_caller_after_all_others_of_a_lane_hung_up_gets_its_own_answer() -> None:
    """It waits for the batch that is being stored, and each answer stays with its question."""
    street = Street()
    street.block("shop")
    first = street.submit("shop", 1)
    await turns()
    first.cancel()
    await turns()
    second = street.submit("shop", 2)
    await turns()
    street.clear()
    assert await second == 2
    assert street.idle


async def test_an_outage_in_one_lane_is_told_to_that_lane() -> None:
    """The others were stored, and are told so."""

    async def store(items: Sequence[str]) -> Sequence[str]:
        if "away" in items:
            raise UnavailableError("PostgreSQL is away")
        return items

    lanes: Lanes[str, str] = Lanes(store, max_batch=10, max_waiting=10, max_batches=1)
    outcomes = await asyncio.gather(lanes.submit("a", "away"), lanes.submit("b", "kept"), return_exceptions=True)
    assert isinstance(outcomes[0], UnavailableError)
    assert outcomes[1] == "kept"


async def test_a_lane_whose_callers_left_has_one_batch_at_a_time() -> None:
    """A second one beside it would take a turn that others need, and be stored in any order."""
    stuck = asyncio.Event()
    stored: list[Sequence[str]] = []

    async def store(items: Sequence[str]) -> Sequence[str]:
        stored.append(items)
        if "others" not in items:
            await stuck.wait()
        return items

    lanes: Lanes[str, str] = Lanes(store, max_batch=10, max_waiting=10, max_batches=2)
    for number in range(4):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await lanes.submit("stuck", str(number))
    async with asyncio.timeout(5):
        assert await lanes.submit("other", "others") == "others"
    assert stored == [["0"], ["others"]]
    stuck.set()
    async with asyncio.timeout(5):
        assert await lanes.submit("stuck", "last") == "last"
    assert stored[2:] == [["last"]]
