"""Standing watches: entered once, called back at every change of what they watch, and never for anything else."""

import asyncio
from collections import Counter
from collections.abc import Set as AbstractSet

from hypothesis import given
from hypothesis import strategies as st
from unit.registry.making import endpoint
from unit.registry.mesh import served

from registry.cache.mesh_cache import MeshCache
from registry.cache.snapshot_cache import SnapshotCache
from registry.cache.standing_watches import StandingWatch, StandingWatches
from registry.core.snapshot import SnapshotDelta

NAMES = ["a", "b", "c", "d"]


class Watcher:
    """Reads a world of numbers as a stream does: what it begins to watch at once, and then what it is called for."""

    def __init__(self, world: Counter[str], watches: StandingWatches, names: AbstractSet[str] | None) -> None:
        self.world = world
        self.names: set[str] | None = None if names is None else set(names)
        self.seen: dict[str, int] = {}
        self.watch = watches.add(names, self.on_change)
        self.read(self.watched)

    @property
    def watched(self) -> AbstractSet[str]:
        """All names that it watches."""
        return set(NAMES) if self.names is None else self.names

    def read(self, names: AbstractSet[str]) -> None:
        """Read the newest numbers."""
        self.seen |= {name: self.world[name] for name in names}

    def on_change(self, names: AbstractSet[str] | None) -> None:
        """Read what has changed; nothing that it does not watch may be among it."""
        assert self.watch.names is None or self.watch.names == self.watched
        assert names is None or names
        assert names is None or names <= self.watched
        self.read(self.watched if names is None else names)

    def add(self, names: AbstractSet[str]) -> None:
        """Watch more names."""
        self.watch.add(names)
        if self.names is not None:
            self.read(names - self.names)
            self.names |= names

    def remove(self, names: AbstractSet[str]) -> None:
        """Watch fewer names."""
        self.watch.remove(names)
        if self.names is not None:
            self.names -= names


Step = tuple[str, int, AbstractSet[str]]
actions = ["enter", "enter_all", "add", "remove", "cancel", "change", "change", "change_all", "turn", "turn"]
steps = st.lists(
    st.tuples(st.sampled_from(actions), st.integers(0, 5), st.frozensets(st.sampled_from(NAMES))), max_size=40
)


class Play:
    """Plays a script with watchers of one world."""

    def __init__(self) -> None:
        self.world: Counter[str] = Counter()
        self.watches = StandingWatches()
        self.watchers: list[Watcher] = []

    def step(self, action: str, number: int, names: AbstractSet[str]) -> None:
        """Do one step that takes no turn of the loop."""
        if action == "enter":
            self.watchers.append(Watcher(self.world, self.watches, names))
        elif action == "enter_all":
            self.watchers.append(Watcher(self.world, self.watches, None))
        elif action == "change":
            self.world.update(names)
            for name in names:
                self.watches.note(name)
        elif action == "change_all":
            self.world.update(NAMES)
            self.watches.note_all()
        elif self.watchers:
            self.step_of_one(action, self.watchers[number % len(self.watchers)], names)

    def step_of_one(self, action: str, watcher: Watcher, names: AbstractSet[str]) -> None:
        """Do one step of a watcher."""
        if action == "add":
            watcher.add(names)
        elif action == "remove":
            watcher.remove(names)
        else:
            self.watchers.remove(watcher)
            watcher.watch.cancel()
            watcher.names = set()

    def check(self) -> None:
        """Everybody knows the newest of what he watches, and nothing is left of others."""
        for watcher in self.watchers:
            assert {name: watcher.seen[name] for name in watcher.watched} == {
                name: self.world[name] for name in watcher.watched
            }
        assert len(self.watches) == len(self.watchers)
        assert self.watches.name_count == len(set().union(*(watcher.names or () for watcher in self.watchers)))


async def play(script: list[Step]) -> None:
    """Play a script to its end, and check what everybody knows then."""
    playing = Play()
    for action, number, names in script:
        if action == "turn":
            await asyncio.sleep(0)
        else:
            playing.step(action, number, names)
    for _ in range(20):
        await asyncio.sleep(0)
    playing.check()
    for watcher in playing.watchers:
        watcher.watch.cancel()
    assert (len(playing.watches), playing.watches.name_count) == (0, 0)


@given(steps)
def test_every_watcher_knows_the_newest_of_what_it_watches(script: list[Step]) -> None:
    """In whatever order names change, and watches come, go, and change their names between turns of the loop."""
    asyncio.run(play(script))


async def test_changes_that_follow_each_other_are_one_call() -> None:
    """A watch of many names is called once for all of them, and with its own alone."""
    watches, calls = StandingWatches(), list[AbstractSet[str] | None]()
    watches.add({"a", "b"}, calls.append)
    for name in ("a", "b", "c", "a"):
        watches.note(name)
    assert calls == []
    await asyncio.sleep(0)
    assert calls == [{"a", "b"}]


async def test_no_turn_of_the_loop_calls_back_more_than_fifty() -> None:
    """Polls are answered in between; everybody has been called in the end, and once."""
    watches, calls = StandingWatches(), Counter[int]()
    for number in range(180):
        watches.add({"a", "b"}, lambda _names, number=number: calls.update([number]))  # type: ignore[misc]  # bound
    watches.note("a")
    watches.note("b")
    called = []
    for _ in range(6):
        await asyncio.sleep(0)
        called.append(calls.total())
    assert called[:3] == [50, 100, 150]
    assert set(calls.values()) == {1}
    assert len(calls) == 180


async def test_a_cancelled_watch_is_not_called_back() -> None:
    """Not even for a change before, or by another one that is called back in the same turn."""
    watches, calls = StandingWatches(), list[str]()
    doomed: list[StandingWatch] = []

    def first(_names: AbstractSet[str] | None) -> None:
        calls.append("first")
        doomed[0].cancel()

    watches.add({"a"}, first)
    doomed.append(watches.add({"a"}, lambda _names: calls.append("second")))
    watches.note("a")
    await asyncio.sleep(0)
    assert calls == ["first"]
    doomed[0].add({"a"})
    watches.note("a")
    await asyncio.sleep(0)
    assert calls == ["first", "first"]


async def test_a_watch_that_fails_costs_itself_alone() -> None:
    """The others are called, and so is it at the next change."""
    watches, calls = StandingWatches(), list[str]()

    def fail(_names: AbstractSet[str] | None) -> None:
        calls.append("fail")
        raise RuntimeError

    watches.add({"a"}, fail)
    watches.add({"a"}, lambda _names: calls.append("other"))
    for _ in range(2):
        watches.note("a")
        await asyncio.sleep(0)
    assert calls == ["fail", "other", "fail", "other"]


async def test_services_reach_their_standing_watches() -> None:
    """A change, a service that is dropped, another database, and the end of the process."""
    cache, calls = SnapshotCache(), list[AbstractSet[str] | None]()
    cache.set_database("db")
    watch = cache.standing_watch({"shop", "cart"}, calls.append)
    for change in (1, 2):
        cache.apply([SnapshotDelta("shop", change, change, listed=[endpoint(change)])])
        await asyncio.sleep(0)
    cache.apply([SnapshotDelta("pay", 1, 1, listed=[endpoint(1, "pay")])])
    cache.drop("shop")
    await asyncio.sleep(0)
    assert calls == [{"shop"}, {"shop"}, {"shop"}]
    calls.clear()
    for happens in (lambda: cache.mark_ready(0), lambda: cache.set_database("db2"), cache.release):
        happens()
        await asyncio.sleep(0)
    assert calls == [None, None, None]
    watch.cancel()
    cache.mark_ready(0)
    await asyncio.sleep(0)
    assert len(calls) == 3


async def test_a_kind_of_a_cluster_reaches_its_standing_watches() -> None:
    """Other kinds and other clusters do not."""
    cache, calls = MeshCache(), list[AbstractSet[str] | None]()
    cache.set_database("db")
    cache.mark_ready()
    cache.standing_watch("clusters", "web", calls.append)
    for revision in (1, 2):
        cache.apply([served("web", revision, clusters={"user": f"{revision}"}), served("api", revision, routes={})])
        await asyncio.sleep(0)
    assert calls == [{"web"}, {"web"}]
    cache.apply([served("web", 3, clusters={"user": "2"}, routes={"default": "x"})])
    cache.set_database("db2")
    await asyncio.sleep(0)
    assert calls[-1] is None
