"""Several registry processes on one PostgreSQL behave as one registry."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

from registry.store import pruning
from registry.store.database import Database

_TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = 'headcount-registry feed'"
)


@pytest.fixture(scope="module")
def shared_database(server: Postgres) -> str:
    """A database for the pair."""
    return server.migrated_database()


@pytest.fixture(scope="module")
def pair(shared_database: str, workplace: Path) -> Iterator[tuple[Registry, Registry]]:
    """Two processes on one database."""
    with registry(shared_database, workplace) as first, registry(shared_database, workplace) as second:
        yield first, second


def test_a_write_shows_in_the_other_process(pair: tuple[Registry, Registry], service: str) -> None:
    """A write through one process is in the other's answer within a few polls, which take 3 ms each on a quiet machine.

    Where the machine is busy polls take longer too, so that they are the better clock.
    """
    first, second = pair
    polls = []
    for number in range(1, 21):
        first.register(service, f"10.0.0.{number}:80")
        polls.append(_polls_until_listed(second, service, number))
    assert sorted(polls)[len(polls) // 2] <= 10
    assert max(polls) <= 60


def _polls_until_listed(found: Registry, service: str, endpoints: int) -> int:
    polls = 0

    def listed() -> bool:
        nonlocal polls
        polls += 1
        return _lists(found, service, endpoints)

    eventually(listed, every=0.001)
    return polls


def _lists(found: Registry, service: str, endpoints: int) -> bool:
    return len(found.statuses(service)) == endpoints


def test_equal_versions_are_equal_content(pair: tuple[Registry, Registry], service: str) -> None:
    """Both processes give the same bytes, version included, whichever took the writes."""
    first, second = pair
    for number in range(6):
        pair[number % 2].register(service, f"10.0.1.{number + 1}:80", zone=f"z{number % 3}", weight=number + 1)
    second.client.post(f"/v1/services/{service}/endpoints/10.0.1.2:80/drain")
    eventually(lambda: first.poll(service).content == second.poll(service).content, within=2)
    assert first.poll(service).json()["version_info"].endswith(":7")


def test_what_was_just_written_is_read_through_the_same_process(pair: tuple[Registry, Registry], service: str) -> None:
    """The answer to a write comes after the process can serve it."""
    for number in range(20):
        endpoint = f"10.0.2.{number + 1}:80"
        pair[0].register(service, endpoint)
        assert endpoint in pair[0].statuses(service)


def test_a_lost_listener_costs_seconds_and_loses_nothing(
    pair: tuple[Registry, Registry], shared_database: str, server: Postgres, service: str
) -> None:
    """With its listening backend terminated, a process has every change within 10 s."""
    first, second = pair
    first.register(service, "10.0.3.1:80")
    terminated = server.execute(_TERMINATE, url=shared_database)
    for number in range(2, 8):
        first.register(service, f"10.0.3.{number}:80")
    eventually(lambda: len(second.statuses(service)) == 7, within=10)
    assert first.poll(service).content == second.poll(service).content
    assert len(terminated) == 2


@pytest.mark.parametrize("known", [True, False], ids=["known", "never registered"])
def test_held_polls_are_woken_by_the_other_process(pair: tuple[Registry, Registry], service: str, known: bool) -> None:
    """A poll that is held in one process is answered when another one takes a write, also for a new service."""
    first, second = pair
    if known:
        first.register(service, "10.0.4.1:80")
        eventually(partial(_lists, second, service, 1), within=2)
    version = second.poll(service).json()["version_info"]
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(second.poll, service, version=version, hold=10)
        time.sleep(0.5)
        assert not waiting.done()
        first.register(service, "10.0.4.2:80")
        answer = waiting.result(timeout=1)
    assert answer.status_code == 200
    assert "10.0.4.2" in answer.text


def test_without_notifications_the_comparison_finds_every_change(database: str, workplace: Path, service: str) -> None:
    """REGISTRY_LISTEN_NOTIFY=false works, a resync interval late, as it must behind PgBouncer."""
    options = {"listen_notify": "false", "resync_interval": "300ms"}
    with registry(database, workplace, **options) as first, registry(database, workplace, **options) as second:
        first.register(service, "10.0.0.1:80")
        assert first.statuses(service) == {"10.0.0.1:80": "HEALTHY"}
        eventually(lambda: second.statuses(service) == {"10.0.0.1:80": "HEALTHY"}, within=3)


def test_versions_go_on_after_a_restart(database: str, workplace: Path, service: str) -> None:
    """A process that starts again serves the same version, and no subscriber sees a change."""
    with registry(database, workplace) as before:
        before.register(service, "10.0.0.1:80")
        told = before.poll(service).content
        version = before.poll(service).json()["version_info"]
    with registry(database, workplace) as after:
        assert after.poll(service).content == told
        assert after.poll(service, version=version).status_code == 304


def test_a_version_that_nobody_stored_is_outbid(database: str, server: Postgres, workplace: Path, service: str) -> None:
    """After a fail-over that lost commits, no version comes back with other content."""
    with registry(database, workplace, resync_interval="300ms") as found:
        for number in range(5):
            found.register(service, f"10.0.0.{number + 1}:80")
        served = found.poll(service).json()["version_info"]
        # What a standby without the last commits would hold.
        server.execute("DELETE FROM leases", url=database)
        server.execute("DELETE FROM endpoints WHERE change > 3", url=database)
        server.execute("UPDATE services SET version = 3, change = 3", url=database)
        eventually(lambda: len(found.statuses(service)) == 3, within=5)
        raised = found.poll(service).json()["version_info"]
        assert int(raised.partition(":")[2]) > int(served.partition(":")[2])


@pytest.fixture(scope="module")
def database_of_two(server: Postgres) -> str:
    """A database for the two of ``behind``."""
    return server.migrated_database()


@pytest.fixture(scope="module")
def behind(database_of_two: str, workplace: Path) -> Iterator[tuple[Registry, Registry]]:
    """Two processes on one database, of which the second hears of nothing but of its own writes."""
    deaf = {"listen_notify": "false", "resync_interval": "300s"}
    with registry(database_of_two, workplace) as first, registry(database_of_two, workplace, **deaf) as second:
        yield first, second


def _stored(server: Postgres, url: str, service: str) -> list[tuple[Any, ...]]:
    rows = server.execute(
        "SELECT host(address) || ':' || port, health, draining FROM endpoints WHERE service = $1"
        " AND removed_at IS NULL ORDER BY 1",
        service,
        url=url,
    )
    return [tuple(row) for row in rows]


def test_a_service_that_was_lost_with_its_founding_is_never_emptied(
    database: str, server: Postgres, workplace: Path, service: str
) -> None:
    """A fail-over forgot it: it is answered from memory until heartbeats found it again, or the hold is over."""
    options = {"resync_interval": "200ms", "last_endpoint_hold": "3s", "lease_ttl": "600s"}
    lost = ("leases", "overrides", "events", "endpoints", "services")
    with registry(database, workplace, **options) as found:
        found.register(service, "10.0.0.1:80")
        first = found.poll(service).json()["version_info"]
        for table in lost:
            server.execute(f"DELETE FROM {table}", url=database)
        for _ in range(10):
            assert found.statuses(service) == {"10.0.0.1:80": "HEALTHY"}
            time.sleep(0.1)
        assert found.register(service, "10.0.0.1:80").status_code == 200
        assert server.execute("SELECT count(*) FROM endpoints WHERE removed_at IS NULL", url=database)[0][0] == 1
        assert found.statuses(service) == {"10.0.0.1:80": "HEALTHY"}
        for table in lost:
            server.execute(f"DELETE FROM {table}", url=database)
        eventually(lambda: found.statuses(service) == {}, within=10)
        emptied = found.poll(service).json()
        assert emptied["resources"][0]["endpoints"] == []
        assert int(emptied["version_info"].partition(":")[2]) > int(first.partition(":")[2])


@pytest.mark.parametrize("said", ["HEALTHY", "DEGRADED"])
def test_a_process_that_is_behind_stores_what_it_is_told(
    behind: tuple[Registry, Registry], database_of_two: str, server: Postgres, service: str, said: str
) -> None:
    """A heartbeat that equals what the process last knew, and not what is stored, is a change, and not a renewal."""
    first, second = behind
    endpoint = "10.0.0.1:80"
    second.register(service, endpoint, health=said)
    first.register(service, endpoint, health="UNHEALTHY")
    assert second.statuses(service) == {endpoint: said}, "the second must not know"
    answer = second.register(service, endpoint, health=said)
    assert (answer.status_code, answer.json()["status"]) == (200, said)
    assert _stored(server, database_of_two, service) == [(endpoint, said, False)]
    eventually(lambda: first.statuses(service) == {endpoint: said}, within=5)
    assert first.poll(service).content == second.poll(service).content


def test_a_process_that_is_behind_goes_there_and_back(
    behind: tuple[Registry, Registry], database_of_two: str, server: Postgres, service: str
) -> None:
    """Also when the endpoint is again what the process knows: its number is another one, and the lease is renewed."""
    first, second = behind
    endpoint = "10.0.0.1:80"
    second.register(service, endpoint)
    for health in ("UNHEALTHY", "HEALTHY"):
        first.register(service, endpoint, health=health)
    before = _renewed(server, database_of_two, service)
    assert second.register(service, endpoint).json()["status"] == "HEALTHY"
    assert _renewed(server, database_of_two, service) > before
    assert _stored(server, database_of_two, service) == [(endpoint, "HEALTHY", False)]
    assert second.poll(service).content == first.poll(service).content


def _renewed(server: Postgres, url: str, service: str) -> Any:
    leases_of_service = "SELECT renewed_at FROM leases JOIN endpoints ON endpoints.id = endpoint_id WHERE service = $1"
    ((found,),) = server.execute(leases_of_service, service, url=url)
    return found


def test_a_batch_through_a_process_that_is_behind_is_stored(
    behind: tuple[Registry, Registry], database_of_two: str, server: Postgres, service: str
) -> None:
    """Each of its beats is answered for what is stored, whether it renewed or changed."""
    first, second = behind
    names = [f"10.0.0.{number}:80" for number in range(1, 6)]

    def beat() -> list[dict[str, Any]]:
        beats = [
            {"service": service, "endpoint": name, "registration": {"instance_id": f"i-{name}", "incarnation": 1}}
            for name in names
        ]
        answers: list[dict[str, Any]] = second.client.post("/v1/heartbeats", json={"heartbeats": beats}).json()[
            "results"
        ]
        return answers

    assert [one["grant"]["status"] for one in beat()] == ["HEALTHY"] * 5
    first.register(service, names[1], health="UNHEALTHY")
    first.client.post(f"/v1/services/{service}/endpoints/{names[2]}/drain")
    first.client.delete(f"/v1/services/{service}/endpoints/{names[3]}")
    told = [one["grant"]["status"] if one.get("grant") else one["problem"]["status"] for one in beat()]
    assert told == ["HEALTHY", "HEALTHY", "DRAINING", 409, "HEALTHY"]
    stored = [(name, "HEALTHY", name == names[2]) for name in names]
    assert _stored(server, database_of_two, service) == stored
    wanted = {name: "DRAINING" if name in names[2:4] else "HEALTHY" for name in names}
    eventually(lambda: first.statuses(service) == wanted, within=5)
    eventually(lambda: second.statuses(service) == wanted, within=5)


def _forget(database: str) -> None:
    """Forget what can be, as if the retentions were over."""

    async def forget() -> None:
        store = Database(database, connections=2, timeout=10)
        try:
            await pruning.prune(store, tombstones=0, history=0, most_events=10**7)
        finally:
            await store.close()

    asyncio.run(forget())


def _number(answer: httpx.Response) -> int:
    return int(answer.json()["version_info"].partition(":")[2])


def test_a_forgotten_service_comes_back_above_what_it_was(
    database: str, server: Postgres, workplace: Path, service: str
) -> None:
    """Two processes forget it, and no Envoy is emptied or kept from news; who was away for all of it goes on."""
    options: dict[str, Any] = {"resync_interval": "200ms", "removal_delay": "0s"}
    other = f"{service}-other"
    with registry(database, workplace, **options) as first, registry(database, workplace, **options) as second:
        pair = (first, second)
        first.register(service, "10.0.0.1:80")
        first.register(other, "10.0.0.9:80")
        eventually(lambda: all(_lists(one, service, 1) and _lists(one, other, 1) for one in pair), within=5)
        full = second.poll(service).json()["version_info"]
        both = second.poll(service, other).json()["version_info"]
        first.client.delete(f"/v1/services/{service}/endpoints/10.0.0.1:80")
        eventually(lambda: all(one.statuses(service) == {} for one in pair), within=10)
        served = _number(second.poll(service))

        def forgotten() -> bool:
            _forget(database)
            return all(one.client.get(f"/v1/services/{service}/endpoints").status_code == 404 for one in pair)

        eventually(forgotten, within=10)
        assert server.execute("SELECT name FROM services", url=database)[0][0] == other
        for one in pair:
            # An Envoy that holds the endpoint still, and one that was emptied.
            assert one.poll(service, version=full).status_code == 304
            assert one.poll(service, version=f"{full.partition(':')[0]}:{served}").status_code == 304
            assert one.poll(service).json()["resources"] == []
        first.register(other, "10.0.0.10:80")
        eventually(lambda: all(_lists(one, other, 2) for one in pair), within=5)
        for one in pair:
            news = one.poll(service, other, version=both).json()["resources"]
            assert [resource["cluster_name"] for resource in news] == [other]
        second.register(service, "10.0.0.2:80")
        eventually(lambda: all(_lists(one, service, 1) for one in pair), within=5)
        assert first.poll(service).content == second.poll(service).content
        assert _number(first.poll(service)) > served
        for one in pair:
            assert "10.0.0.2" in one.poll(service, version=full).text
