"""GET /v1/state: how the registry stands, told for real while its parts are well and while they are not."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

_CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1"
_READ_ONLY = "answers, and refuses writes: it is a standby, or set to read only"


@pytest.fixture(scope="module")
def own_database(server: Postgres) -> str:
    """A database that the tests take away from its registry."""
    return server.migrated_database()


@pytest.fixture(scope="module")
def found(own_database: str, workplace: Path) -> Iterator[Registry]:
    """A registry on it."""
    with registry(own_database, workplace) as one:
        yield one


def state(found: Registry) -> dict[str, Any]:
    """Return the document."""
    answer = found.client.get("/v1/state")
    assert answer.status_code == 200
    document: dict[str, Any] = answer.json()
    return document


def test_a_healthy_registry_tells_of_each_part(found: Registry, service: str) -> None:
    """Its snapshot is fresh and on disk, PostgreSQL has the schema, and it sweeps."""
    found.register(service, "10.0.0.1:80")
    eventually(lambda: state(found)["snapshot"]["archive_current"], within=15, every=0.2)
    eventually(lambda: state(found)["sweeper"]["swept_ago"] is not None, within=5)
    told = state(found)
    assert abs(told["at"] - time.time()) < 5
    assert told["process"]["pid"] == found.process.pid
    snapshot, database = told["snapshot"], told["database"]
    assert (snapshot["ready"], snapshot["stale"], snapshot["services"], snapshot["endpoints"]) == (True, False, 1, 1)
    assert snapshot["read_ago"] < 10
    assert (database["answers"], database["writable"]) == (True, True)
    assert database["schema"] == database["schema_expected"] == found.client.get("/version").json()["schema"]
    assert abs(database["clock_ahead"]) < 1
    assert told["sweeper"]["leads"]
    assert told["sweeper"]["swept_ago"] < 10
    assert told["sweeper"]["overdue"] is False
    assert told["sweeper"]["leader"] is not None
    assert len(told["replicas"]) == 1
    assert told["leases"] == {"held": 1, "late": 0, "expired": 0, "missing": 0, "services": []}


def test_replicas_are_counted_and_one_leads(found: Registry, own_database: str, workplace: Path) -> None:
    """Every process tells of all of them and of the same database; one of them sweeps."""
    with registry(own_database, workplace) as other:
        eventually(lambda: state(found)["sweeper"]["leads"] != state(other)["sweeper"]["leads"], within=5)
        told = [state(found), state(other)]
        assert [len(each["replicas"]) for each in told] == [2, 2]
        assert len({each["database_id"] for each in told}) == 1


def test_late_leases_are_counted_by_service(found: Registry, server: Postgres, own_database: str, service: str) -> None:
    """A lease of which more than half is over is late; the services with such leases are named, the worst first."""
    before = state(found)["leases"]
    for number, name in enumerate(("b", "b", "a", "c"), start=1):
        found.register(f"{service}-{name}", f"10.0.1.{number}:80", ttl=600)
    late = [f"{service}-a", f"{service}-b"]
    server.execute(
        "UPDATE leases SET renewed_at = renewed_at - interval '400 s' FROM endpoints"
        " WHERE id = endpoint_id AND service = ANY($1)",
        late,
        url=own_database,
    )
    leases = state(found)["leases"]
    # An endpoint of another test may become late meanwhile.
    others = sum(tally["late"] for tally in leases["services"] if not tally["service"].startswith(service))
    assert (leases["held"], leases["late"]) == (before["held"] + 4, others + 3)
    named = [(one["service"], one["late"]) for one in leases["services"] if one["service"] in late]
    assert named == [(f"{service}-b", 2), (f"{service}-a", 1)]


def test_the_state_is_told_while_postgresql_is_away(
    found: Registry, server: Postgres, own_database: str, service: str
) -> None:
    """It says so within seconds, keeps telling of the snapshot, and knows better when PostgreSQL is back."""
    name = urlsplit(own_database).path.removeprefix("/")
    found.register(service, "10.0.2.1:80")
    server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    try:
        server.execute(_CUT, name)
        eventually(lambda: not state(found)["database"]["answers"], within=5)
        told = state(found)
        assert told["database"]["detail"] == "PostgreSQL is away"
        assert (told["leases"], told["replicas"]) == (None, None)
        assert (told["sweeper"]["leader"], told["sweeper"]["overdue"]) == (None, None)
        assert told["snapshot"]["ready"]
        assert told["snapshot"]["endpoints"] >= 1
    finally:
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    eventually(lambda: state(found)["database"]["answers"], within=10)


def test_a_lock_is_not_waited_for_long(found: Registry, server: Postgres, own_database: str) -> None:
    """When PostgreSQL keeps it waiting, it answers after two seconds and says that."""
    with server.holding("LOCK TABLE registry_state IN ACCESS EXCLUSIVE MODE", url=own_database):
        begun = time.monotonic()
        told = state(found)
        assert time.monotonic() - begun < 4
        assert told["database"]["detail"] == "PostgreSQL did not answer within 2 s"


def test_a_database_that_only_reads_is_told(found: Registry, server: Postgres, own_database: str) -> None:
    """A standby, or a database that was set to read only, answers and is not writable."""
    name = urlsplit(own_database).path.removeprefix("/")
    server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        server.execute(_CUT, name)
        # Connections from before are found dead one by one.
        eventually(lambda: _told(found) == (True, False, _READ_ONLY), within=10)
    finally:
        server.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        server.execute(_CUT, name)


def _told(found: Registry) -> tuple[bool, bool, str]:
    database = state(found)["database"]
    return database["answers"], database["writable"], database["detail"]
