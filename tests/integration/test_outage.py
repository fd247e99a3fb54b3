"""PostgreSQL goes away: reads go on, writes say so, and everything mends itself."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
from harness.postgres import Postgres
from harness.process import eventually, free_port
from harness.registry import Registry, forked_registry, registry

from registry.cache.disk_file import documents_in

_SAID = {"instance_id": "i-10.0.0.1:80", "incarnation": 1}
_LOCK = "SELECT 1 FROM services WHERE name = $1 FOR UPDATE"
_SLOW = "PostgreSQL is too slow, or another session holds a lock for too long"
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


def _look_at_explanations(found: Registry, service: str) -> None:
    """Check that endpoints are explained from memory, and that each explanation says what it lacks."""
    explain = "/v1/services/{}/endpoints/10.0.0.{}:80/explain"
    known = found.client.get(explain.format(service, 1))
    assert known.status_code == 200
    document = known.json()
    assert (document["served"], document["from_memory"], document["events"]) == (True, True, [])
    assert document["away"] == "PostgreSQL is away"
    assert document["missing"][0].startswith("heartbeats and pauses since ")
    assert document["missing"][1] == "the history"
    # Its lease was read last before it was registered, or with it.
    assert "not known" in document["because"][1]
    unlisted = found.client.get(explain.format(service, 77)).json()
    assert (unlisted["listed"], unlisted["from_memory"]) == (False, True)
    assert "which PostgreSQL has" in unlisted["because"][0]
    assert found.client.get(explain.format("nobody", 1)).status_code == 404


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
            assert refused.json()["detail"] == "PostgreSQL is away"
            beats = [{"service": service, "endpoint": "10.0.0.1:80", "registration": _SAID}]
            beaten = found.client.post("/v1/heartbeats", json={"heartbeats": beats})
            assert (beaten.status_code, beaten.json()["detail"]) == (503, "PostgreSQL is away")
            for path in ("/v1/events", "/v1/expiry", f"/v1/services/{service}/history?at=1"):
                answer = found.client.get(path)
                assert (answer.status_code, answer.json()["detail"]) == (503, "PostgreSQL is away")
            _look_at_explanations(found, service)
            assert found.poll(service).content == told
            assert found.client.get(f"/v1/registration/{service}").json()["hosts"]
            assert found.client.get(f"/v1/services/{service}/endpoints").status_code == 200
            assert found.client.get("/readyz").status_code == 200
            assert found.client.get("/livez").status_code == 200
        eventually(lambda: _writable(found, service), within=10)
        assert found.statuses(service)["10.0.0.1:80"] == "HEALTHY"


def test_a_held_poll_ends_once_another_database_is_read(
    database: str, server: Postgres, workplace: Path, service: str
) -> None:
    """It is answered with the versions of the database that came, and does not wait for a change or for its time."""
    with registry(database, workplace, database_timeout="1s") as found, ThreadPoolExecutor(1) as thread:
        found.register(service, "10.0.0.1:80")
        version = found.poll(service).json()["version_info"]
        held = thread.submit(found.poll, service, version=version, hold=20)
        eventually(lambda: "registry_polls_held 1.0" in found.client.get("/metrics").text, within=5)
        server.execute("UPDATE registry_state SET database_id = 'another'", url=database)
        server.execute(_CUT, urlsplit(database).path.removeprefix("/"))
        began = time.monotonic()
        news = held.result(timeout=25)
        assert time.monotonic() - began < 8
    assert (news.status_code, news.json()["version_info"].partition(":")[0]) == (200, "another")
    assert [one["cluster_name"] for one in news.json()["resources"]] == [service]


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
    port = free_port()
    env = {
        "REGISTRY_LISTEN": f"127.0.0.1:{port}",
        "REGISTRY_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
        "REGISTRY_MIGRATE": "false",
        "REGISTRY_DATA_DIR": str(workplace / "nothing"),
        "PATH": "/usr/bin:/bin",
    }
    log = workplace / "unready.log"
    with forked_registry(env, log) as process:
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
    """A process that starts while PostgreSQL is away serves what was known last, says so, and recovers.

    One service that cannot be read is unavailable, alone, and never told to be gone.
    """
    options = {"data_dir": str(tmp_path), "database_timeout": "1s"}
    damaged = f"{service}-damaged"
    with registry(database, workplace, **options) as before:
        before.register(service, "10.0.0.1:80", ttl=600, metadata={"shard": 7})
        before.register(service, "[2001:db8::5]:80", ttl=600, weight=3)
        before.register(damaged, "10.0.0.3:80", ttl=600)
        told = before.poll(service).content
    _damage(tmp_path / "snapshot.msgpack", damaged)
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
            _look_at_damaged(after, service, damaged)
            outage.__exit__()
            eventually(lambda: after.register(service, "10.0.0.2:80", ttl=600).status_code == 200, within=15)
            eventually(lambda: len(after.statuses(service)) == 3)
            eventually(lambda: after.statuses(damaged) == {"10.0.0.3:80": "HEALTHY"}, within=10)
            eventually(lambda: "registry_services_unavailable 0.0" in after.client.get("/metrics").text, within=8)
            # Writes are accepted from the first connection on, and the snapshot is compared a moment later.
            eventually(
                lambda: all(part["ok"] for part in after.client.get("/readyz?verbose").json()["parts"]), within=10
            )
    finally:
        outage.__exit__()


def _damage(path: Path, service: str) -> None:
    """Make one service of a snapshot on disk one that cannot be read."""
    header, *services = (msgspec.msgpack.decode(document) for document in documents_in(path.read_bytes()))
    for each in services:
        if each["service"] == service:
            each["endpoints"] = "garbled"
    documents = map(msgspec.msgpack.encode, (header, *services))
    path.write_bytes(b"".join(len(document).to_bytes(4, "big") + document for document in documents))


def _look_at_damaged(found: Registry, service: str, damaged: str) -> None:
    """Check that nothing says that the damaged service is gone, and that all say so of no other."""
    for api in ("v2", "v3"):
        answer = found.poll(damaged, api=api)
        assert (answer.status_code, damaged in answer.text, "retry-after" in answer.headers) == (503, True, True)
    held = found.poll(damaged, version="x:7", hold=1.0)
    assert held.status_code in {304, 503}
    endpoint = f"/v1/services/{damaged}/endpoints/10.0.0.3:80"
    for path in (
        f"/v1/services/{damaged}",
        f"/v1/services/{damaged}/endpoints",
        endpoint,
        f"{endpoint}/explain",
        f"/v1/registration/{damaged}",
        "/v1/registration/repo/any",
        f"/v1/prometheus/targets?service={damaged}",
        "/v1/prometheus/targets",
    ):
        assert (path, found.client.get(path).status_code) == (path, 503)
    assert found.client.get(f"/v1/prometheus/targets?service={service}").status_code == 200
    listed = found.client.get("/v1/services").json()
    assert ([each["name"] for each in listed["services"]], listed["unavailable"]) == ([service], [damaged])
    question = {"node": "i-1", "held": {service: "", damaged: "x:7"}}
    answered = found.client.post("/v1/edge/assignments", json=question)
    assert (answered.status_code, list(answered.json()["assignments"])) == (200, [service])
    findings = {each["id"]: each for each in found.client.get("/v1/verdict").json()["findings"]}
    assert findings["services-readable"]["headline"] == "1 service cannot be read"
    assert found.client.get("/v1/state").json()["snapshot"]["unavailable"] == 1
    eventually(lambda: "registry_services_unavailable 1.0" in found.client.get("/metrics").text, within=8)


def test_a_damaged_snapshot_on_disk_is_refused(workplace: Path, tmp_path: Path, database: str) -> None:
    """What cannot be read whole is not served at all: 503, and never a part of it."""
    (tmp_path / "snapshot.msgpack").write_bytes(b"\x00\x00\x00\x20half a snapshot")
    with registry(database, workplace, data_dir=str(tmp_path)) as found:
        assert found.poll("shop").status_code == 200


def test_our_own_outage_empties_no_service(database: str, workplace: Path, service: str) -> None:
    """I3: a service that had lost contact before the registry was away keeps what was left of its hold after it."""
    options = {"sweep_interval": "200ms", "removal_delay": "300ms", "last_endpoint_hold": "4s"}
    with registry(database, workplace, **options) as before:
        before.register(service, "10.0.0.1:80", ttl=1)
        eventually(lambda: before.statuses(service) == {"10.0.0.1:80": "TIMEOUT"}, within=6)
    time.sleep(6)
    with registry(database, workplace, **options) as after:
        eventually(lambda: "registry_credited_seconds_total 0.0" not in after.client.get("/metrics").text, within=10)
        for _ in range(10):
            assert after.statuses(service) == {"10.0.0.1:80": "TIMEOUT"}
            time.sleep(0.1)
        eventually(lambda: after.statuses(service) == {}, within=15)


@pytest.mark.proof
def test_a_service_that_is_locked_holds_up_no_other(
    database: str, server: Postgres, workplace: Path, service: str
) -> None:
    """Fault 13: somebody who forgot a transaction on one service in psql stops its changes, and those alone.

    They answer 503 within the database's time-out. Heartbeats that change nothing go on, also those of the service.
    """
    other = f"{service}-other"
    with registry(database, workplace, database_timeout="4s") as found:
        for name, address in ((service, "10.0.0.1"), (other, "10.0.1.1")):
            found.register(name, f"{address}:80", ttl=600)
        with server.holding(_LOCK, service, url=database), ThreadPoolExecutor() as pool:
            started = time.monotonic()
            # More of them than batches are stored at a time.
            locked = [
                pool.submit(found.register, service, f"10.0.0.{number}:80", weight=number) for number in range(1, 9)
            ]
            time.sleep(0.2)
            for number in range(10):
                asked = time.monotonic()
                changed = found.register(other, "10.0.1.1:80", ttl=600, weight=number + 1)
                assert (changed.status_code, time.monotonic() - asked < 2) == (200, True)
            assert found.register(f"{service}-new", "10.0.2.1:80").status_code == 200
            assert time.monotonic() - started < 4, "the locked ones still wait"
            assert not any(one.done() for one in locked)
            assert found.register(service, "10.0.0.1:80", ttl=600).status_code == 200, "it only renews"
            answers = [one.result(timeout=20) for one in locked]
            assert {(one.status_code, one.json()["detail"]) for one in answers} == {(503, _SLOW)}
            assert all("retry-after" in one.headers for one in answers)
        assert found.register(service, "10.0.0.2:80").status_code == 200
        assert len(found.statuses(service)) == 2


def test_another_database_in_its_place_is_read_before_it_is_served(
    database: str, server: Postgres, workplace: Path, service: str
) -> None:
    """Its numbers mean something else: nothing of the one before is served, and nothing empty before it was read."""
    with registry(database, workplace, database_timeout="1s", resync_interval="500ms") as found:
        found.register(service, "10.0.0.1:80", ttl=600)
        version = found.poll(service).json()["version_info"]
        server.execute("UPDATE registry_state SET database_id = 'another1'", url=database)
        name = urlsplit(database).path.removeprefix("/")
        with server.holding("LOCK TABLE services IN ACCESS EXCLUSIVE MODE", url=database):
            server.execute(f"{_CUT} AND application_name = 'headcount-registry feed'", name)
            eventually(lambda: found.client.get("/readyz").status_code == 503, within=15)
            for answer in (
                found.poll(service),
                found.poll(service, version=version),
                found.register(service, "[::2]:1"),
            ):
                assert answer.status_code == 503
                assert "retry-after" in answer.headers
        eventually(lambda: found.client.get("/readyz").status_code == 200, within=15)
        assert found.poll(service, version=version).json()["version_info"] == version.replace(
            version.partition(":")[0], "another1"
        )
        assert found.statuses(service) == {"10.0.0.1:80": "HEALTHY"}
