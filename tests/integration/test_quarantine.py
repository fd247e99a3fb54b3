"""What was written past the API spoils no answer: it is kept out alone, counted, shown and replaced."""

import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

from registry.background.change_feed import ChangeFeed
from registry.cache.snapshot_cache import SnapshotCache
from registry.settings import load_settings
from registry.store.database import Database
from registryctl.bundle import _endpoint_members
from registryctl.client import ApiClient
from registryctl.errors import CtlError, UnreachableError
from registryctl.mesh.registered import registered_catalog
from registryctl.settings import Settings


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("weight = 0", "weight 0 is not from 1 to 10000"),
        ("weight = 4000000000 / 2", "weight 2000000000 is not from 1 to 10000"),
        ("address = '0.0.0.0'", "is not an address that traffic can be sent to"),
        ("metadata = '[1]'", "the metadata is no JSON object"),
        ("health = 'healthy'", "'healthy' is not a valid Report"),
    ],
)
def test_a_spoilt_row_is_kept_out_alone(
    database: str, server: Postgres, workplace: Path, service: str, spoil: str, reason: str
) -> None:
    """The other endpoints stay as they are, and the row is shown with its reason."""
    with registry(database, workplace) as found:
        found.register(service, "10.0.0.1:80")
        found.register(service, "10.0.0.2:80")
        change = "change = change + 100"
        server.execute(f"UPDATE endpoints SET {spoil}, {change} WHERE host(address) = '10.0.0.2'", url=database)
        server.execute(f"UPDATE services SET {change}, version = version + 100", url=database)
        server.execute("SELECT pg_notify('headcount_changes', $1)", service, url=database)

        def quarantined() -> bool:
            told = found.client.get(f"/v1/services/{service}").json()
            return any(reason in why for why in told["quarantined"].values())

        eventually(quarantined, within=6)
        assert found.statuses(service)["10.0.0.1:80"] == "HEALTHY"
        if "address" not in spoil:
            # The row is not in the answers, its owner's next registration mends it, and nothing failed meanwhile.
            told = found.client.get(f"/v1/services/{service}/endpoints/10.0.0.2:80/explain").json()
            assert "quarantined" in told["because"][0]
            assert found.register(service, "10.0.0.2:80").status_code == 200
            assert found.statuses(service) == {"10.0.0.1:80": "HEALTHY", "10.0.0.2:80": "HEALTHY"}
            assert found.client.get(f"/v1/services/{service}").json()["quarantined"] == {}


def _spoil(server: Postgres, database: str, *, told: bool) -> None:
    """Spoil 10.0.0.1 by hand; processes are told, or go on with what they have read."""
    change = ", change = change + 100" if told else ""
    server.execute(f"UPDATE endpoints SET weight = 0{change} WHERE host(address) = '10.0.0.1'", url=database)
    if told:
        server.execute("UPDATE services SET change = change + 100, version = version + 100", url=database)


_ERRAND = (
    "INSERT INTO events OVERRIDING SYSTEM VALUE SELECT made.* FROM events AS last, jsonb_populate_record(last,"
    """ '{"id": 9999, "kind": "errand_answered", "reason": "of before", "status": ""}') AS made"""
    " WHERE last.kind = 'removed'"
)
"""Adds the event of an errand whose answer came when its endpoint was gone."""


@pytest.mark.parametrize("told", [True, False], ids=["noticed", "unnoticed"])
def test_a_spoilt_row_that_falls_silent_is_removed(
    database: str, server: Postgres, workplace: Path, service: str, *, told: bool
) -> None:
    """Nobody can say whether it lapsed, so its lease's end is its own: it is in no answer, and the history says why."""
    with registry(database, workplace, sweep_interval="200ms") as found:
        found.register(service, "10.0.0.2:80", ttl=600)
        found.register(service, "10.0.0.1:80", ttl=1)
        _spoil(server, database, told=told)
        eventually(lambda: found.statuses(service) == {"10.0.0.2:80": "HEALTHY"}, within=6)
        eventually(lambda: found.client.get(f"/v1/services/{service}").json()["quarantined"] == {}, within=6)
        last = found.client.get(f"/v1/events?service={service}").json()["events"][0]
        assert (last["kind"], last["endpoint"], last["status"]) == ("removed", "10.0.0.1:80", "REMOVED")
        assert "quarantined: weight 0" in last["reason"]
        server.execute(_ERRAND, url=database)
        why = found.client.get(f"/v1/services/{service}/endpoints/10.0.0.1:80/explain").json()["because"]
        assert why[0].startswith("it is not listed; last: removed: ")
        assert len(_leases(server, database)) == 1


def test_a_spoilt_row_stays_while_expiry_is_paused(
    database: str, server: Postgres, workplace: Path, service: str
) -> None:
    """Its lease's end means no more than that of others."""
    with registry(database, workplace, sweep_interval="200ms") as found:
        found.register(service, "10.0.0.1:80", ttl=1)
        found.client.put("/v1/expiry/pause", json={"service": service, "reason": "x", "expires_in": 600})
        _spoil(server, database, told=True)
        shown = f"/v1/services/{service}"
        eventually(lambda: found.client.get(shown).json()["quarantined"] != {}, within=6)
        time.sleep(1.5)
        assert found.client.get(shown).json()["quarantined"] != {}
        found.client.delete(f"/v1/expiry/pause?service={service}")
        eventually(lambda: found.client.get(shown).json()["quarantined"] == {}, within=6)


@pytest.mark.parametrize("mended", [True, False], ids=["registered-again", "silent"])
def test_a_spoilt_row_takes_no_share_of_the_guard(
    database: str, server: Postgres, workplace: Path, service: str, *, mended: bool
) -> None:
    """What nobody can judge does not lapse, and must not stand in for the one endpoint of a service that may."""
    with registry(database, workplace, sweep_interval="200ms", removal_delay="60s") as found:
        for number in range(20):
            found.register(f"{service}-others", f"10.1.0.{number + 1}:80", ttl=600)
        found.register(service, "10.0.0.2:80", ttl=600)
        found.register(service, "10.0.0.1:80", ttl=1)
        _spoil(server, database, told=True)
        if mended:
            found.register(service, "10.0.0.1:80", ttl=600)
        eventually(lambda: len(_leases(server, database)) == (22 if mended else 21), within=6)
        found.register(service, "10.0.0.3:80", ttl=1)
        eventually(lambda: found.statuses(service)["10.0.0.3:80"] == "TIMEOUT", within=4)


def _leases(server: Postgres, database: str) -> list[object]:
    return [row["endpoint_id"] for row in server.execute("SELECT endpoint_id FROM leases", url=database)]


_LEASE_OF = "(SELECT id FROM endpoints WHERE host(address) = '10.0.0.{}')"
_IMPOSSIBLE = (
    "UPDATE endpoints SET registered_at = '20000-01-01', lost_at = '-infinity' WHERE host(address) = '10.0.0.1'",
    "UPDATE endpoints SET changed_at = '0044-01-01 BC', change = change + 100 WHERE host(address) = '10.0.0.1'",
    f"UPDATE leases SET expires_at = 'infinity', renewed_at = '-infinity' WHERE endpoint_id = {_LEASE_OF.format(1)}",
    f"UPDATE leases SET expires_at = '0044-01-01 BC' WHERE endpoint_id = {_LEASE_OF.format(2)}",
    "UPDATE overrides SET set_at = '-infinity', expires_at = 'infinity'",
    "UPDATE pauses SET until = 'infinity'",
    "UPDATE registry_state SET last_sweep_at = 'infinity', restored_at = '-infinity'",
    "UPDATE services SET change = change + 100, version = version + 100",
)
"""Times that PostgreSQL takes and Python cannot hold, in every table that a process reads at intervals."""


def test_times_that_python_cannot_hold_stop_nothing(
    database: str, server: Postgres, workplace: Path, service: str
) -> None:
    """One of them in one row stopped the change feed for all services, and with it each next start."""
    other = f"{service}-other"
    with registry(database, workplace, sweep_interval="200ms", resync_interval="1s") as found:
        for number in (1, 2, 3):
            found.register(service, f"10.0.0.{number}:80", ttl=600)
        found.client.put(
            f"/v1/services/{service}/endpoints/10.0.0.3:80/override",
            json={"weight": 7, "reason": "x", "expires_in": 60},
        )
        found.client.put("/v1/expiry/pause", json={"service": other, "reason": "x", "expires_in": 60})
        for statement in _IMPOSSIBLE:
            server.execute(statement, url=database)
        server.execute("SELECT pg_notify('headcount_changes', $1)", service, url=database)
        eventually(lambda: found.client.get(f"/v1/services/{service}").json()["version"] > 100, within=10)
        assert found.statuses(service)["10.0.0.1:80"] == "HEALTHY"
        found.register(other, "10.0.1.1:80")
        eventually(lambda: found.statuses(other) == {"10.0.1.1:80": "HEALTHY"}, within=6)
        for path in (
            f"/v1/registration/{service}",
            f"/v1/services/{service}/endpoints/10.0.0.1:80/explain",
            f"/v1/services/{service}/endpoints/10.0.0.3:80/explain",
            f"/v1/services/{service}/endpoints",
            "/v1/expiry",
            "/v1/verdict",
            f"/ui/services/{service}",
            "/ui/registry",
        ):
            assert (path, found.client.get(path).status_code) == (path, 200)
        log = found.log.read_text()
        for event in ("change_feed_failed", "sweep_refused", "rule_failed", '"defect"'):
            assert event not in log
    server.execute("UPDATE registry_state SET last_sweep_at = 'infinity'", url=database)
    with registry(database, workplace, sweep_interval="200ms") as found:
        assert found.statuses(service)["10.0.0.1:80"] == "HEALTHY"
        swept = "SELECT last_sweep_at < now() + interval '1 minute' AS now FROM registry_state"
        eventually(lambda: server.execute(swept, url=database)[0]["now"], within=10)


_SHOWN = "CREATE OR REPLACE FUNCTION shown(text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN {} RETURN true; END $$"
_COPY = {
    table: (
        f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT made.* FROM {table} AS first, unnest($2::int[]) AS number,"
        " jsonb_populate_record(first, jsonb_build_object('id', 1000 + number,"
        f" '{name}', first.{name} || '-' || lpad(number::text, 3, '0'))) AS made WHERE first.{name} = $1"
    )
    for table, name in (("services", "name"), ("stored", "service"))
}
"""Statements that copy a service, and its endpoints, under names that end with a number."""
_SPOILT = (
    "IF $1 IN ('{}') THEN RAISE data_corrupted USING MESSAGE = 'missing chunk number 0 for toast value 7'; END IF;"
)


def test_a_row_that_postgresql_cannot_read_stops_its_service_alone(
    database: str, server: Postgres, workplace: Path, service: str
) -> None:
    """A service with a damaged block is served as it was, or is unavailable where it was never read; others go on."""
    for statement in (
        _SHOWN.format(""),
        "ALTER TABLE endpoints RENAME TO stored",
        "CREATE VIEW endpoints AS SELECT * FROM stored WHERE shown(service)",
    ):
        server.execute(statement, url=database)
    other = f"{service}-other"
    with registry(database, workplace, resync_interval="1s") as found:
        found.register(service, "10.0.0.1:80", ttl=600)
        found.register(other, "10.0.1.1:80", ttl=600)
        server.execute(_SHOWN.format(_SPOILT.format(service)), url=database)
        for table in ("stored", "services"):
            server.execute(f"UPDATE {table} SET change = change + 100", url=database)
        eventually(lambda: "service_not_followed" in found.log.read_text(), within=10)
        assert found.register(other, "10.0.1.2:80", ttl=600).status_code == 200
        eventually(lambda: len(found.statuses(other)) == 2, within=6)
        assert found.statuses(service) == {"10.0.0.1:80": "HEALTHY"}
        eventually(lambda: _unreadable(found) == [f"{service}: it is served as it was; the registry's log says why"])
    for table in ("services", "stored"):
        server.execute(_COPY[table], service, list(range(140)), url=database)
    many = [f"{service}-{number:03}" for number in range(140)]
    spoilt = [many[10], many[60], many[110]]
    server.execute(_SHOWN.format(_SPOILT.format("', '".join([service, *spoilt]))), url=database)
    with registry(database, workplace, resync_interval="1s") as found:
        assert len(found.statuses(other)) == 2
        # Three batches had such a service each, and those that were read one by one left room for the next batch.
        assert [name for name in many if found.poll(name).status_code == 503] == spoilt
        assert found.poll(service).status_code == 503
        assert found.poll(service, api="v2").status_code == 503
        assert _unreadable(found) == [
            f"{name}: this process answers 503 for it; the registry's log says why" for name in (service, *spoilt)
        ]
        _check_nothing_is_concluded(found, service)
        server.execute(_SHOWN.format(""), url=database)
        eventually(lambda: found.poll(service).status_code == 200, within=10)
        assert found.statuses(service) == {"10.0.0.1:80": "HEALTHY"}
        eventually(lambda: _unreadable(found) == [])
    for table, name in (("stored", "service"), ("services", "name")):
        server.execute(f"DELETE FROM {table} WHERE {name} = ANY($1)", many, url=database)
    server.execute(_SHOWN.format("RAISE data_corrupted;"), url=database)
    asyncio.run(_check_refuses_to_be_ready(database, partial(server.execute, _SHOWN.format(""), url=database)))


_REPORT = {
    "endpoint": "10.0.0.1:80",
    "instance_id": "i-10.0.0.1:80",
    "results": [{"endpoint": "10.0.0.2:80", "incarnation": 1, "outcome": "refused", "attempts": 3, "ago": 1}],
}


def _check_nothing_is_concluded(found: Registry, service: str) -> None:
    """Look at what would be told of a service without endpoints, of one that cannot be read."""
    path = f"/v1/services/{service}"
    for asked in (
        found.client.get(f"{path}/endpoints/10.0.0.1:80/explain"),
        found.client.post(f"{path}/shift", json={"to": "revision=b", "steps": [5], "reason": "x"}),
        found.client.post(
            "/v1/errands", json={"service": service, "endpoint": "10.0.0.1:80", "arguments": {"verb": "clusters"}}
        ),
        found.client.delete(f"/v1/mesh/catalog/{service}"),
        found.client.put(f"{path}/expected", json={"expected": 2, "reason": "x"}),
        found.client.put(f"{path}/shares", json={"shares": [{"selector": "revision=b", "percent": 5}], "reason": "x"}),
        found.client.delete(f"{path}/shares"),
        found.client.post("/v1/probes", json=_REPORT | {"service": service}),
    ):
        assert (asked.url.path, asked.status_code) == (asked.url.path, 503), asked.text
        assert "cannot read the service" in asked.json()["detail"]
    listed = found.client.get("/v1/mesh/catalog").json()
    assert service in listed["unavailable"]
    assert service not in {each["service"] for each in listed["services"]}
    with closing(ApiClient(Settings((found.url,), 30.0, "ann"))) as client:
        with pytest.raises(UnreachableError, match=f"cannot read 4 services, which gateways may select: .*{service}"):
            registered_catalog(client)
        members = {member.name: member for member in _endpoint_members(client)}
        with pytest.raises(CtlError, match="cannot read the service"):
            members[f"endpoints/{service}.json"].get()
    for page in ("services", "overview"):
        assert "4 services cannot be read" in found.client.get(f"/ui/{page}").text
    for page in ("registry", "events"):
        assert f'<option value="{service}">' in found.client.get(f"/ui/{page}").text


async def _check_refuses_to_be_ready(database: str, mend: Callable[[], object]) -> None:
    """Follow a database of which no service can be read, and mend it when that was found out."""
    store, cache = Database(database, connections=10, timeout=2), SnapshotCache()
    feed = ChangeFeed(store, cache, load_settings())
    following = asyncio.create_task(feed.run())
    async with asyncio.timeout(60):
        while "none of the 2 services can be read" not in feed.loss:
            assert not cache.ready
            await asyncio.sleep(0.01)
        await asyncio.to_thread(mend)
        while not cache.ready:
            await asyncio.sleep(0.01)
    assert len(cache.services()) == 2
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await store.close()


async def test_what_was_never_read_and_a_fail_over_lost_is_not_gone(database: str, server: Postgres) -> None:
    """Its heartbeats may bring it back; a service that nobody has registered by then is gone."""
    ((identity,),) = await asyncio.to_thread(server.execute, "SELECT database_id FROM registry_state", url=database)
    store, cache = Database(database, connections=10, timeout=2), SnapshotCache()
    cache.restore(identity, {}, ["shop"])
    settings = load_settings().model_copy(update={"resync_interval": 0.3, "last_endpoint_hold": 1.0})
    following = asyncio.create_task(ChangeFeed(store, cache, settings).run())
    async with asyncio.timeout(60):
        while cache.stale:
            await asyncio.sleep(0.01)
        assert cache.unsure == {"shop"}
        while cache.unsure:
            await asyncio.sleep(0.01)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await store.close()


def _unreadable(found: Registry) -> list[str]:
    findings = {each["id"]: each for each in found.client.get("/v1/verdict").json()["findings"]}
    return [line["text"] for line in findings["services-readable"]["lines"]]
