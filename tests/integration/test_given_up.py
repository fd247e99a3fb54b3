"""What becomes of connections and statements whose client waits no longer."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
from harness.cluster import Cluster, cluster
from sqlalchemy import text

from registry.client_deadline import note_client_wait
from registry.errors import UnavailableError
from registry.store.database import Database


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    """A PostgreSQL that a test may freeze."""
    with cluster() as started:
        yield started


async def _in_session(database: Database, statement: str) -> None:
    async with database.session() as connection:
        await connection.execute(text(statement))


async def _in_transaction(database: Database, statement: str) -> None:
    async with database.transaction() as connection:
        await connection.execute(text(statement))


async def _on_driver(database: Database, statement: str) -> None:
    async with database.driver_transaction() as driver:
        await driver.connection.fetch(statement)


Ask = Callable[[Database, str], Awaitable[None]]
ways = pytest.mark.parametrize("ask", [_in_session, _in_transaction, _on_driver])


async def _seconds_until_refused(database: Database, ask: Ask, statement: str) -> float:
    """Ask on behalf of a client that waits for two seconds."""
    begun = time.monotonic()
    note_client_wait(b"wait=2")
    with pytest.raises(UnavailableError, match="has not answered within 1 s"):
        await ask(database, statement)
    seconds = time.monotonic() - begun
    note_client_wait(None)
    return seconds


@ways
async def test_a_client_hears_in_time_of_a_frozen_postgresql(own_cluster: Cluster, ask: Ask) -> None:
    """Nobody waits until a connection to a server that does not answer is closed in order."""
    database = Database(own_cluster.url, connections=2, timeout=5.0)
    await ask(database, "SELECT 1")
    with own_cluster.frozen():
        assert await _seconds_until_refused(database, ask, "SELECT 1") < 1.9
    await ask(database, "SELECT 1")
    await database.close()


@ways
async def test_a_statement_that_is_given_up_ends_in_postgresql_too(own_cluster: Cluster, ask: Ask) -> None:
    """It would hold its locks and a connection beyond those that the pool may have."""
    database = Database(own_cluster.url, connections=2, timeout=30.0)
    await _seconds_until_refused(database, ask, "SELECT pg_sleep(60)")
    sleeping = "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'"
    async with asyncio.timeout(10):
        while await asyncio.to_thread(own_cluster.execute, sleeping):
            await asyncio.sleep(0.05)
    await database.close()
