"""Leases that could not be renewed by a registry process's fault, and what becomes of them."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

REFUSE = (
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " IF current_setting('application_name') <> 'headcount-registry lead' AND"
    " NOT EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND mode = 'ExclusiveLock' AND relation ="
    " 'leases'::regclass) THEN"
    " RAISE EXCEPTION USING ERRCODE = TG_ARGV[0], MESSAGE = 'permission denied for table leases'; END IF;"
    " RETURN NEW; END $$"
)
"""Refuses renewals to everybody, and lets the sweeper credit, which locks the table."""


@contextlib.contextmanager
def renewals_refused(
    server: Postgres, database: str, each: str = "STATEMENT", sqlstate: str = "42501"
) -> Iterator[None]:
    """Refuse to renew leases for the length of the block, as a lost right does, or each row as a constraint does."""
    server.execute(REFUSE, url=database)
    server.execute(
        f"CREATE TRIGGER refuse BEFORE UPDATE ON leases FOR EACH {each} EXECUTE FUNCTION refuse('{sqlstate}')",
        url=database,
    )
    try:
        yield
    finally:
        server.execute("DROP TRIGGER refuse ON leases", url=database)


def beat(found: Registry, service: str) -> int:
    """Send a heartbeat that changes nothing; return its status."""
    return found.register(service, "10.0.0.1:80", ttl=4).status_code


@pytest.mark.parametrize(("each", "sqlstate"), [("STATEMENT", "42501"), ("ROW", "23514")])
def test_renewals_that_every_process_is_refused_expire_nobody(
    each: str, sqlstate: str, server: Postgres, database: str, workplace: Path, service: str
) -> None:
    """Three lease times, longer than one process's failure is credited; after it a silent endpoint still expires."""
    with registry(database, workplace, lease_ttl="4s", sweep_interval="200ms") as found:
        assert beat(found, service) == 200
        eventually(lambda: "registry_sweep_leader 1.0" in found.client.get("/metrics").text, within=8)
        with renewals_refused(server, database, each, sqlstate):
            ended = time.monotonic() + 12
            statuses = set()
            answers = set()
            while time.monotonic() < ended:
                answers.add(beat(found, service))
                statuses.add(found.statuses(service)["10.0.0.1:80"])
                time.sleep(0.5)
            assert answers == {503}
            assert statuses == {"HEALTHY"}
            (told,) = found.client.get("/v1/state").json()["processes"]
            assert [failure["overdue"] for failure in told["failures"]] == [True]
            assert "registry_processes_cut_off 1.0" in found.client.get("/metrics").text
            # A verdict is kept for as long as it is cheap enough to make anew, and heartbeats go on meanwhile: once
            # nobody sends any, no lease lacks a renewal.
            eventually(
                lambda: beat(found, service) == 503 and "cannot renew leases" in found.client.get("/ui/overview").text,
                within=20,
                every=0.5,
            )
            eventually(
                lambda: (
                    beat(found, service) == 503
                    and "cannot renew leases"
                    in found.client.get("/ui/registry").text.partition('id="tile-replicas"')[2]
                ),
                within=20,
                every=0.5,
            )
        took = eventually(lambda: found.statuses(service)["10.0.0.1:80"] == "TIMEOUT", within=15)
        assert took <= 4 + 3
        assert "leases_credited_for_failures" in found.log.read_text()
