"""PostgreSQL answers and refuses: no outage and no defect. Writes say when to come back, and one line says why."""

import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

from registry.store.migration import migrate_now


def restricted(server: Postgres, database: str) -> str:
    """Return the URL of a role that may read and write the tables, and owns nothing."""
    name = urlsplit(database).path.removeprefix("/")
    role = f"{name}_role"
    migrate_now(database, 10)
    for statement in (
        f"CREATE ROLE {role} LOGIN",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
        f"GRANT pg_read_all_stats TO {role}",
    ):
        server.execute(statement, url=database)
    parts = urlsplit(database)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:@{host}"))


def role_of(url: str) -> str:
    """Return the role of a URL."""
    return str(urlsplit(url).username)


def lines(found: Registry, event: str) -> list[dict[str, Any]]:
    """Return the lines of a registry's log that tell of an event."""
    read = (json.loads(line) for line in found.log.read_text().splitlines() if line.startswith("{"))
    return [line for line in read if line["event"] == event]


def batch(found: Registry, service: str, endpoint: str) -> httpx.Response:
    """Send a heartbeat as registrars do."""
    told = {"instance_id": f"i-{endpoint}", "incarnation": 1, "ttl": 600}
    beat = {"service": service, "endpoint": endpoint, "registration": told}
    return found.client.post("/v1/heartbeats", json={"heartbeats": [beat]})


@pytest.mark.parametrize("front", ["fast", "plain"])
def test_a_lost_right_is_no_defect(server: Postgres, database: str, workplace: Path, service: str, front: str) -> None:
    """Renewals, registrations and drains are 503 by every front; a reason is one line in ten seconds, and no trace."""
    url = restricted(server, database)
    with registry(url, workplace, migrate="false", door=front) as found:
        assert found.register(service, "10.0.0.1:80", ttl=600).status_code == 200
        server.execute(f"REVOKE UPDATE ON leases FROM {role_of(url)}", url=database)
        server.execute(f"REVOKE INSERT ON events FROM {role_of(url)}", url=database)
        begun = time.monotonic()
        drained = found.client.post(f"/v1/services/{service}/endpoints/10.0.0.1:80/drain")
        for answer in (
            found.register(service, "10.0.0.1:80", ttl=600),
            batch(found, service, "10.0.0.1:80"),
            found.register(service, "10.0.0.2:80"),
            batch(found, service, "10.0.0.3:80"),
            drained,
        ):
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["detail"].startswith("PostgreSQL refuses what the registry asks of it"), answer.text
            assert "insufficient privilege" in answer.json()["detail"]
        for _ in range(10):
            batch(found, service, "10.0.0.1:80")
        told = [line["reason"] for line in lines(found, "postgresql_refused")]
        most = 1 + int((time.monotonic() - begun) / 10)  # a reason is told again after ten seconds
        assert 1 <= sum("permission denied for table leases" in reason for reason in told) <= most
        assert 1 <= sum("permission denied for table events" in reason for reason in told) <= most
        assert "Traceback" not in found.log.read_text()
        assert found.statuses(service) == {"10.0.0.1:80": "HEALTHY"}
        server.execute(f"GRANT INSERT ON events TO {role_of(url)}", url=database)
        server.execute(f"GRANT UPDATE ON leases TO {role_of(url)}", url=database)
        assert batch(found, service, "10.0.0.1:80").status_code == 200
        assert found.register(service, "10.0.0.2:80").status_code == 200


def test_an_exhausted_sequence_is_no_defect(server: Postgres, database: str, workplace: Path, service: str) -> None:
    """What needs no number of it goes on; what does says when to come back."""
    with registry(database, workplace) as found:
        assert found.register(service, "10.0.0.1:80", ttl=600).status_code == 200
        server.execute("SELECT setval(pg_get_serial_sequence('endpoints', 'id'), 9223372036854775807)", url=database)
        refused = found.register(service, "10.0.0.2:80")
        assert refused.status_code == 503, refused.text
        assert "retry-after" in refused.headers
        assert found.register(service, "10.0.0.1:80", ttl=600, weight=3).status_code == 200
        assert "Traceback" not in found.log.read_text()


def test_a_table_that_is_altered_costs_no_write(server: Postgres, database: str, workplace: Path, service: str) -> None:
    """Plans that PostgreSQL does not take any more are made again, and the write is stored by it."""
    with registry(database, workplace) as found:
        for number in range(1, 21):
            assert found.register(service, f"10.0.0.{number}:80", ttl=600).status_code == 200
        for column, kind in (("detail", "varchar(9000)"), ("revision", "varchar(900)")):
            server.execute(f"ALTER TABLE endpoints ALTER COLUMN {column} TYPE {kind}", url=database)
            answers = [found.register(service, f"10.0.0.{number}:80", ttl=600, weight=9) for number in range(1, 21)]
            answers += [batch(found, service, f"10.0.0.{number}:80") for number in range(1, 21)]
            assert {one.status_code for one in answers} == {200}
        server.execute("ALTER TABLE leases ALTER COLUMN ttl TYPE numeric", url=database)
        assert {batch(found, service, "10.0.0.1:80").status_code for _ in range(5)} == {200}
        assert "Traceback" not in found.log.read_text()


def test_a_service_that_is_refused_does_not_take_others_with_it(
    server: Postgres, database: str, workplace: Path, service: str
) -> None:
    """A CHECK against one service refuses that one alone, and the process does not call itself cut off."""
    with registry(database, workplace) as found:
        server.execute(f"ALTER TABLE events ADD CHECK (service <> '{service}')", url=database)
        refused = found.register(service, "10.0.0.1:80")
        assert refused.status_code == 503, refused.text
        assert found.register(f"{service}-2", "10.0.0.2:80").status_code == 200
        parts = {part["name"]: part for part in found.client.get("/readyz?verbose").json()["parts"]}
        assert parts["heartbeats"]["ok"] is True
        assert "Traceback" not in found.log.read_text()


def test_refused_writes_are_told_as_such(server: Postgres, database: str, workplace: Path, service: str) -> None:
    """A demoted primary answers reads: readiness, the state and the 503 say that it refuses writes."""
    name = urlsplit(database).path.removeprefix("/")
    with registry(database, workplace, lease_ttl="2s") as found:
        assert found.register(service, "10.0.0.1:80", ttl=600).status_code == 200
        server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        eventually(lambda: "refuses writes" in found.register(service, "10.0.0.2:80").text, within=10)
        eventually(lambda: batch(found, service, "10.0.0.1:80").status_code == 503, within=10)

        def part(name: str) -> dict[str, Any]:
            told = found.client.get("/readyz?verbose").json()["parts"]
            return next(one for one in told if one["name"] == name)

        eventually(lambda: "refuses writes" in part("postgresql")["detail"], within=10)
        assert part("postgresql")["ok"] is False
        eventually(lambda: "nobody has swept" in part("sweeper")["detail"], within=10)
        assert part("sweeper")["ok"] is False
        assert found.client.get("/v1/state").json()["sweeper"]["overdue"] is True
        assert 'tile bad" id="tile-sweeper"' in found.client.get("/ui/registry").text
        assert "PostgreSQL is read-only: nothing can be changed" in found.client.get(f"/ui/services/{service}").text
        assert "Traceback" not in found.log.read_text()
        server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = off")
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        eventually(lambda: found.register(service, "10.0.0.2:80").status_code == 200, within=10)
        eventually(lambda: part("postgresql")["ok"] and part("sweeper")["ok"], within=10)
        # A change that a sweep could not make is tried again within 30 seconds.
        eventually(lambda: 'tile fine" id="tile-sweeper"' in found.client.get("/ui/registry").text, within=40)


def test_processes_of_two_roles_tell_of_one_another(
    server: Postgres, database: str, workplace: Path, service: str
) -> None:
    """PostgreSQL hides from a role since when another one's connections are there; the state is told all the same."""
    url = restricted(server, database)
    server.execute(f"REVOKE pg_read_all_stats FROM {role_of(url)}")
    with registry(database, workplace), registry(url, workplace, migrate="false") as found:
        assert found.register(service, "10.0.0.1:80").status_code == 200

        def hidden() -> bool:
            answer = found.client.get("/v1/state")
            assert answer.status_code == 200, answer.text
            return None in {one["since"] for one in answer.json()["replicas"]}

        eventually(hidden, within=5)
