"""Turns of the event loop: some work at a time."""

from collections import deque
from collections.abc import Callable

from registry.http2.turns import MAX_ITEMS_PER_TURN, MAX_TURN, Turns


class Item:
    """Work that takes a time, and may add more."""

    def __init__(self, done: list[int], number: int, clock: "Clock", seconds: float = 0.0) -> None:
        self.done = done
        self.number = number
        self.clock = clock
        self.seconds = seconds

    def run(self, now: float) -> None:
        """Be done."""
        assert now == self.clock.now
        self.clock.now += self.seconds
        self.done.append(self.number)


class Clock:
    """A clock that work moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_fifty_items_a_turn_in_order() -> None:
    """However much waits, a turn does 50 items, and the next turn goes on behind them."""
    scheduled: deque[Callable[[], None]] = deque()
    clock, done = Clock(), list[int]()
    turns = Turns(scheduled.append, clock)
    for number in range(120):
        turns.add(Item(done, number, clock))
    lengths = []
    while scheduled:
        scheduled.popleft()()
        lengths.append(len(done))
        assert len(scheduled) <= 1
    assert lengths == [MAX_ITEMS_PER_TURN, 2 * MAX_ITEMS_PER_TURN, 120]
    assert done == sorted(done)


def test_a_turn_ends_when_it_has_taken_long() -> None:
    """Items that take long are fewer in a turn."""
    scheduled: deque[Callable[[], None]] = deque()
    clock, done = Clock(), list[int]()
    turns = Turns(scheduled.append, clock)
    for number in range(6):
        turns.add(Item(done, number, clock, MAX_TURN / 2))
    scheduled.popleft()()
    assert done == [0, 1]
    while scheduled:
        scheduled.popleft()()
    assert done == [0, 1, 2, 3, 4, 5]
