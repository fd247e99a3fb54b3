"""PostgreSQL goes away: reads go on, writes say so, and everything mends itself."""

import time
from pathlib import Path
from urllib.parse import urlsplit

from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

_CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1"


class _Outage:
    """A database that refuses connections for the length of a block, as one that is away."""

    def __init__(self, server: Postgres, database_url: str) -> None:
        self._server = server
        self._name = urlsplit(database_url).path.removeprefix("/")

    def __enter__(self) -> None:
        self._server.execute(f"ALTER DATABASE {self._name} ALLOW_CONNECTIONS false")
        self._server.execute(_CUT, self._name)

    def __exit__(self, *_error: object) -> None:
        self._server.execute(f"ALTER DATABASE {self._name} ALLOW_CONNECTIONS true")


def _writable(found: Registry, service: str) -> bool:
    return found.register(service, "10.0.0.9:80").status_code == 200


def test_reads_go_on_and_writes_say_when_to_come_back(
    database: str, server: Postgres, workplace: Path, service: str
) -> None:
    """While PostgreSQL is away discovery answers from memory and writes get 503 with Retry-After."""
    with registry(database, workplace, database_timeout="1s") as found:
        found.register(service, "10.0.0.1:80")
        told = found.poll(service).content
        with _Outage(server, database):
            refused = found.register(service, "10.0.0.2:80")
            assert refused.status_code == 503
            assert refused.headers["content-type"] == "application/problem+json"
            assert int(refused.headers["retry-after"]) >= 1
            assert found.poll(service).content == told
            assert found.client.get(f"/v1/registration/{service}").json()["hosts"]
            assert found.client.get(f"/v1/services/{service}/endpoints").status_code == 200
            assert found.client.get("/readyz").status_code == 200
            assert found.client.get("/livez").status_code == 200
        eventually(lambda: _writable(found, service), within=10)
        assert found.statuses(service)["10.0.0.1:80"] == "HEALTHY"


def test_an_outage_expires_nobody(database: str, server: Postgres, workplace: Path, service: str) -> None:
    """Leases that could not be renewed because PostgreSQL was away get that time back."""
    with registry(database, workplace, database_timeout="1s", lease_ttl="3s", sweep_interval="200ms") as found:
        found.register(service, "10.0.0.1:80")
        eventually(lambda: "registry_sweep_leader 1.0" in found.client.get("/metrics").text, within=5)
        with _Outage(server, database):
            time.sleep(4)
        # Nobody has renewed for longer than the lease; the sweeper leads again and must not count the gap.
        eventually(lambda: "registry_sweep_leader 1.0" in found.client.get("/metrics").text, within=10)
        time.sleep(1)
        assert found.statuses(service) == {"10.0.0.1:80": "HEALTHY"}
        eventually(lambda: found.statuses(service) == {"10.0.0.1:80": "TIMEOUT"}, within=8)


def test_a_process_that_never_read_the_state_is_not_ready(workplace: Path) -> None:
    """Without PostgreSQL from the start, discovery answers 503 and never an empty list."""
    from harness.process import free_port, running, script

    port = free_port()
    env = {
        "REGISTRY_LISTEN": f"127.0.0.1:{port}",
        "REGISTRY_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
        "REGISTRY_MIGRATE": "false",
        "PATH": "/usr/bin:/bin",
    }
    log = workplace / "unready.log"
    with running([*script("registry"), "serve"], env=env, log=log) as process:
        found = Registry(f"http://127.0.0.1:{port}", process, log)
        eventually(lambda: _alive(found), within=15, said=log.read_text)
        for answer in (
            found.client.get("/readyz"),
            found.poll("shop"),
            found.poll("shop", api="v2"),
            found.client.get("/v1/registration/shop"),
            found.client.get("/v1/prometheus/targets"),
            found.register("shop", "10.0.0.1:80"),
        ):
            assert answer.status_code == 503
            assert "retry-after" in answer.headers
        found.client.close()


def _alive(found: Registry) -> bool:
    import httpx

    try:
        return found.client.get("/livez").status_code == 200
    except httpx.TransportError:
        return False


def test_a_cold_start_serves_the_snapshot_on_disk(
    database: str, server: Postgres, workplace: Path, tmp_path: Path, service: str
) -> None:
    """A process that starts while PostgreSQL is away serves what was known last, says that it is stale, and recovers."""
    options = {"data_dir": str(tmp_path), "database_timeout": "1s"}
    with registry(database, workplace, **options) as before:
        before.register(service, "10.0.0.1:80", ttl=600, metadata={"shard": 7})
        before.register(service, "[2001:db8::5]:80", ttl=600, weight=3)
        told = before.poll(service).content
    with _Outage(server, database):
        pass
    outage = _Outage(server, database)
    outage.__enter__()
    try:
        with registry(database, workplace, **options) as after:
            assert after.poll(service).content == told
            parts = {part["name"]: part for part in after.client.get("/readyz?verbose").json()["parts"]}
            assert "stale" in parts["snapshot"]["detail"]
            assert parts["postgresql"]["ok"] is False
            eventually(lambda: "registry_snapshot_stale 1.0" in after.client.get("/metrics").text, within=8)
            assert after.register(service, "10.0.0.2:80").status_code == 503
            assert after.poll("never-registered").json()["resources"] == []
            outage.__exit__()
            eventually(lambda: after.register(service, "10.0.0.2:80", ttl=600).status_code == 200, within=15)
            assert len(after.statuses(service)) == 3
            parts = {part["name"]: part for part in after.client.get("/readyz?verbose").json()["parts"]}
            assert parts["postgresql"]["ok"] is True
    finally:
        outage.__exit__()


def test_a_damaged_snapshot_on_disk_is_refused(workplace: Path, tmp_path: Path, database: str) -> None:
    """What cannot be read whole is not served at all: 503, and never a part of it."""
    (tmp_path / "snapshot.msgpack").write_bytes(b"\x00\x00\x00\x20half a snapshot")
    with registry(database, workplace, data_dir=str(tmp_path)) as found:
        assert found.poll("shop").status_code == 200
