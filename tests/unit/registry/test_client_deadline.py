"""How long a request waits for PostgreSQL: as its client says."""

import asyncio
from contextlib import suppress

import pytest

from registry.client_deadline import in_time_for_client, note_client_wait
from registry.errors import UnavailableError


async def told(prefer: bytes | None, otherwise: float | None = None) -> str:
    """Return what a client hears that sends this header, of work that does not end within 0.6 s."""
    note_client_wait(prefer)
    try:
        async with in_time_for_client(otherwise):
            await asyncio.sleep(0.6)
    except UnavailableError as error:
        return str(error).partition(":")[0]
    return "done"


async def test_a_request_ends_in_time_for_its_client() -> None:
    """Half a second before a client of one second gives up; without a number as long as it takes, or as it may."""
    late = "PostgreSQL has not answered within 0.5 s"
    headers = (b"wait=1", b'respond-async; x=2, WAIT = "1"', b"wait=0", b"", b"await=1", b"wait=x", None)
    said = await asyncio.gather(*(asyncio.create_task(told(header)) for header in headers))
    assert said == [late, late, late, "done", "done", "done", "done"]
    assert await told(None, 0.1) == "PostgreSQL has not answered within 0.1 s"
    assert await told(b"wait=999999999", 0.1) == "done"


async def test_the_next_request_of_a_task_and_the_work_of_others_have_their_own_time() -> None:
    """A task that a request began has its context too, and serves others; a time that is over is over at once."""
    assert await told(b"wait=1") != "done"
    with pytest.raises(UnavailableError, match="may be stored all the same"):
        await store_too_late()
    assert await asyncio.create_task(told_without_a_word()) == "done"
    assert await told(None) == "done"


async def store_too_late() -> None:
    """Begin to store something when the time of the request is over."""
    async with in_time_for_client(stores=True):
        await asyncio.sleep(10)


async def told_without_a_word() -> str:
    """Do the same in a task of its own, which has noted nothing."""
    async with in_time_for_client():
        await asyncio.sleep(0.01)
    return "done"


async def test_a_timeout_of_the_work_itself_is_not_the_clients() -> None:
    """What is raised inside passes, and so does an end from outside."""
    note_client_wait(b"wait=5")
    with pytest.raises(TimeoutError):
        async with in_time_for_client():
            raise TimeoutError
    with suppress(TimeoutError):
        async with asyncio.timeout(0.01), in_time_for_client():
            await asyncio.sleep(10)
    note_client_wait(None)
