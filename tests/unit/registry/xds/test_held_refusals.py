"""Refused polls that wait for their response, without a server."""

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from registry.xds import held_refusals
from registry.xds.held_refusals import MAX_REFUSAL_HOLD, MIN_REFUSAL_HOLD, HeldRefusals

PEER = "10.0.0.9"


@pytest.fixture
def answered() -> Counter[int]:
    """How often each refusal was answered."""
    return Counter()


def hold(held: HeldRefusals, answered: Counter[int], number: int, seconds: float = 30.0) -> Callable[[], None]:
    """Hold a refusal of PEER, which is counted when it is answered."""
    return held.hold(PEER, seconds, partial(answered.update, [number]))


async def test_each_is_held_for_one_to_two_seconds_and_not_all_for_the_same(answered: Counter[int]) -> None:
    """Many that were refused at one moment are answered at many; a client that waits for less hears before that."""
    held, now = HeldRefusals(), asyncio.get_running_loop().time()
    for number in range(100):
        hold(held, answered, number)
    seconds = [refusal.timer.when() - now for refusal in held._held if refusal.timer is not None]
    assert min(seconds) >= MIN_REFUSAL_HOLD
    assert max(seconds) <= MAX_REFUSAL_HOLD + 0.5
    assert max(seconds) - min(seconds) > 0.5
    hold(held, answered, 100, seconds=0.01)
    await asyncio.sleep(0.1)
    assert answered == {100: 1}
    assert len(held) == 100


async def test_each_is_answered_once_or_given_up(answered: Counter[int]) -> None:
    """Whichever of timer, disconnect and end comes first, the others do nothing, and nothing is left."""
    held = HeldRefusals()
    give_ups = [hold(held, answered, number, seconds=0.01) for number in range(3)]
    give_ups[0]()
    assert held.end_oldest(1) == 1
    await asyncio.sleep(0.1)
    for give_up in give_ups:
        give_up()
    assert held.end_oldest(10) == 0
    assert answered == {1: 1, 2: 1}
    assert (len(held), held._of_peer) == (0, {})


async def test_one_peer_and_all_together_have_a_limit(monkeypatch: pytest.MonkeyPatch, answered: Counter[int]) -> None:
    """A peer that has as many as it may is full while others are not; given up ones make room again."""
    monkeypatch.setattr(held_refusals, "MAX_HELD_REFUSALS_OF_PEER", 2)
    monkeypatch.setattr(held_refusals, "MAX_HELD_REFUSALS", 3)
    held = HeldRefusals()
    give_up = hold(held, answered, 1)
    hold(held, answered, 2)
    assert (held.is_full(PEER), held.is_full("10.0.0.8")) == (True, False)
    held.hold("10.0.0.8", 30.0, partial(answered.update, [3]))
    assert held.is_full("10.0.0.7")
    give_up()
    assert not held.is_full(PEER)
    # To ask about a peer leaves nothing behind.
    assert set(held._of_peer) == {PEER, "10.0.0.8"}
