"""Polls that wait, without a server."""

import asyncio

from unit.registry.making import endpoint

from registry.directory import Directory
from registry.metrics import POLLS_HELD
from registry.snapshot import Step
from registry.subscribers import Node, Subscribers
from registry.xds.discovery import Discovery
from registry.xds.poll import Poll


async def test_a_subscriber_that_leaves_as_its_answer_comes_is_let_go_once() -> None:
    """Whichever of the two is first in a turn of the loop: none is held, and none is counted as held, afterwards."""
    directory, subscribers = Directory(), Subscribers()
    directory.ready = True
    directory.apply([Step("shop", 1, 1, listed=[endpoint(1)])])
    discovery = Discovery(directory, subscribers, most_held=10)
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, told: failures.append(told))
    before = POLLS_HELD._value.get()
    poll = Poll(("shop",), ":1", Node("i-1"))
    waits = asyncio.create_task(discovery.later("v3", poll, "10.0.0.9", "30000"))
    await asyncio.sleep(0)
    directory.apply([Step("shop", 2, 2, listed=[endpoint(2)])])
    waits.cancel()
    await asyncio.wait((waits,))
    await asyncio.sleep(0)
    (subscription,) = subscribers
    assert (subscription.held, POLLS_HELD._value.get() - before, failures) == (0, 0, [])
    assert waits.cancelled()
