"""What was written past the API spoils no answer: it is kept out alone, counted, shown and replaced."""

import time
from pathlib import Path

import pytest
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry


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
    with registry(database, workplace) as found:
        assert found.statuses(service)["10.0.0.1:80"] == "HEALTHY"


_SHOWN = "CREATE OR REPLACE FUNCTION shown(text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN {} RETURN true; END $$"
_SPOILT = "IF $1 = '{}' THEN RAISE data_corrupted USING MESSAGE = 'missing chunk number 0 for toast value 7'; END IF;"


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
    with registry(database, workplace, resync_interval="1s") as found:
        assert len(found.statuses(other)) == 2
        assert found.poll(service).status_code == 503
        assert found.poll(service, api="v2").status_code == 503
        assert _unreadable(found) == [f"{service}: this process answers 503 for it; the registry's log says why"]
        server.execute(_SHOWN.format(""), url=database)
        eventually(lambda: found.poll(service).status_code == 200, within=10)
        assert found.statuses(service) == {"10.0.0.1:80": "HEALTHY"}
        eventually(lambda: _unreadable(found) == [])


def _unreadable(found: Registry) -> list[str]:
    findings = {each["id"]: each for each in found.client.get("/v1/verdict").json()["findings"]}
    return [line["text"] for line in findings["services-readable"]["lines"]]
