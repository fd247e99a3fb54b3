"""Registry processes tell one another what they cannot do, and whoever asks one of them hears of all."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

from registry.background.process_reports import ProcessReports
from registry.core.abilities import Abilities
from registry.store.database import Database
from registry.store.processes import read_reports

LEASE = 20.0


@pytest.fixture
async def store(database: str) -> AsyncIterator[Database]:
    """A database with its schema."""
    found = Database(database, connections=4, timeout=5)
    yield found
    await found.close()


def names(reports: ProcessReports) -> list[tuple[str, ...]]:
    """Return what each living process says that it cannot do."""
    return [tuple(failure.ability for failure in one.failures) for one in reports.all()]


async def test_processes_hear_of_one_another(store: Database) -> None:
    """A failure is told with the next exchange, its end as well, and who leaves is not counted any more."""
    one, two = Abilities(LEASE), Abilities(LEASE)
    first, second = ProcessReports(store, one, LEASE), ProcessReports(store, two, LEASE)
    await first.exchange()
    await second.exchange()
    assert names(second) == [(), ()]
    assert second.credit_reason() is None
    one.accept.failed("no descriptors", time.monotonic())
    await first.exchange()
    await second.exchange()
    assert names(second) == [(), ("accept",)]
    assert "cannot accept: no descriptors" in (second.credit_reason() or "")
    one.accept.failed("no descriptors", time.monotonic() - LEASE)
    one.accept.worked(time.monotonic())
    await first.exchange()
    await second.exchange()
    assert names(second) == [(), ()]
    assert second.credit_reason() is None
    await first.leave()
    await second.exchange()
    assert names(second) == [()]


async def test_a_process_that_cannot_store_its_report_counts_for_itself(
    server: Postgres, database: str, store: Database
) -> None:
    """Its own sweeper knows it from memory; reports that cannot be read leave what was known."""
    abilities = Abilities(LEASE)
    reports = ProcessReports(store, abilities, LEASE)
    await reports.exchange()
    await asyncio.to_thread(server.execute, "ALTER TABLE processes RENAME TO elsewhere", url=database)
    abilities.renew.failed("permission denied", time.monotonic())
    await reports.exchange()
    assert names(reports) == [("renew",)]
    assert "permission denied" in (reports.credit_reason() or "")
    await asyncio.to_thread(server.execute, "ALTER TABLE elsewhere RENAME TO processes", url=database)
    await reports.exchange()
    (stored,) = await read_reports(store)
    assert stored.report.failures[0].reason == "permission denied"


async def test_a_failure_that_only_a_newer_version_knows_hides_no_other(
    server: Postgres, database: str, store: Database
) -> None:
    """During an upgrade a process of either version goes on hearing of all that live."""
    abilities = Abilities(LEASE)
    own, other = ProcessReports(store, Abilities(LEASE), LEASE), ProcessReports(store, abilities, LEASE)
    abilities.accept.failed("no descriptors", time.monotonic())
    await other.exchange()
    await asyncio.to_thread(
        server.execute,
        "INSERT INTO processes (id, name, started_at, seen_at, failures) VALUES ('newer', 'newer:1', 0, now(), "
        """'[{"ability": "teleport", "seconds": 1.0, "total": true, "reason": "new"},"""
        """ {"ability": "renew", "seconds": 1.0, "total": true, "reason": "known"}]')""",
        url=database,
    )
    await own.exchange()
    assert sorted(names(own)) == [(), ("accept",), ("renew",)]


def failing(found: Registry, name: str) -> dict[str, str]:
    """Return what one process says of each that fails."""
    state = found.client.get("/v1/state").json()
    return {
        failure["ability"]: failure["reason"]
        for one in state["processes"]
        if one["name"].endswith(name)
        for failure in one["failures"]
    }


def test_what_one_process_cannot_store_another_one_tells(
    server: Postgres, database: str, workplace: Path, service: str
) -> None:
    """A lost right shows in readiness, metrics and /v1/state, of all processes, and is over when it is given back."""
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(registry(database, workplace))
        other = stack.enter_context(registry(database, workplace))
        one.register(service, "10.0.0.1:80", ttl=600)
        eventually(lambda: len(other.client.get("/v1/state").json()["processes"]) == 2, within=5)
        # The tests' role is a superuser, whom no lost right stops; a trigger refuses whoever asks.
        server.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE insufficient_privilege USING MESSAGE = 'permission denied for table leases'; END $$",
            url=database,
        )
        server.execute(
            "CREATE TRIGGER refuse BEFORE UPDATE ON leases FOR EACH STATEMENT EXECUTE FUNCTION refuse()", url=database
        )
        one.register(service, "10.0.0.1:80", ttl=600)
        eventually(lambda: "renew" in failing(other, str(one.process.pid)), within=5)
        assert "permission denied for table leases" in failing(other, str(one.process.pid))["renew"]
        parts = {part["name"]: part for part in one.client.get("/readyz?verbose").json()["parts"]}
        assert parts["heartbeats"]["ok"] is False
        assert "permission denied" in parts["heartbeats"]["detail"]
        assert 'registry_failing_seconds{ability="renew"} 0.0' not in one.client.get("/metrics").text
        server.execute("DROP TRIGGER refuse ON leases", url=database)
        # Nobody sends a heartbeat: the process finds it out itself.
        eventually(lambda: failing(other, str(one.process.pid)) == {}, within=8)
        eventually(lambda: 'registry_failing_seconds{ability="renew"} 0.0' in one.client.get("/metrics").text, within=4)
