"""Access while PostgreSQL is away: those who were known go on, nobody else comes in, and revocations arrive."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest
from harness.access import bearer, first_token, new_token
from harness.cluster import Cluster
from harness.faketime import clock_for_all, faked
from harness.process import eventually, free_port, running, script
from harness.proxy import proxy
from harness.registry import Registry, registry

from registry.auth.credential import Credential
from registry.auth.tokens import SESSION
from registry.auth.tokens import new_token as random_token
from registry.store import credentials as store
from registry.store.database import Database

ROLE = "111122223333:shop"
SHOP = {"verbs": ["register", "discover"], "services": ["shop"]}
MADE_UP = "hct_aaaaaaaaaaaaaaaa_" + "A" * 43


@dataclass
class Tokens:
    """The credentials of the clients of a registry."""

    admin: str
    registrar: str
    registrar_id: str
    envoy: str


def settings(directory: Path) -> dict[str, Any]:
    """Return the settings of a registry that finds its files again."""
    return {"auth": "on", "data_dir": str(directory), "database_timeout": "1s"}


def poll(served: Registry, token: str, service: str = "shop") -> int:
    """Poll as an Envoy that has hosts; return the status."""
    body = {"node": {"id": "test"}, "resource_names": [service], "version_info": "other:1"}
    headers = bearer(token) if token else {}
    return served.client.post("/v3/discovery:endpoints", json=body, headers=headers).status_code


def put(served: Registry, token: str, endpoint: str = "10.0.0.1:80", **fields: object) -> httpx.Response:
    """Register an endpoint."""
    body = {"instance_id": f"i-{endpoint}", "incarnation": 1, "ttl": 600} | fields
    return served.client.put(f"/v1/services/shop/endpoints/{endpoint}", json=body, headers=bearer(token))


def clients(served: Registry, database: str, session_ttl: float = 3600) -> Tokens:
    """Make an administrator, a registrar with an endpoint, and the session of an Envoy that ends soon."""
    admin = first_token(database)
    made = new_token(served, admin, "registrar", SHOP)
    identity = {"source": "aws", "match": ROLE, "grants": [SHOP]}
    assert served.client.put("/v1/identities/shop", json=identity, headers=bearer(admin)).status_code == 200
    envoy = random_token(SESSION)
    ends = time.time() + session_ttl
    session = Credential(
        envoy.id, envoy.digest, f"aws:{ROLE}/task", "envoy", ends, identity="shop", discovers=True, login_at=ends
    )

    async def add() -> None:
        found = Database(database, connections=1, timeout=5)
        async with found.transaction() as connection:
            await store.add_sessions(connection, [session])
        await found.close()

    asyncio.run(add())
    assert put(served, made["token"]).status_code == 200
    eventually(lambda: poll(served, envoy.text) == 200, within=5)
    return Tokens(admin, made["token"], made["id"], envoy.text)


def kept(directory: Path, tokens: Tokens) -> None:
    """Wait until the credentials are on disk."""
    path = directory / "access.msgpack"
    envoy = tokens.envoy.split("_")[1].encode()
    eventually(lambda: path.exists() and envoy in path.read_bytes(), within=15)
    assert path.stat().st_mode & 0o777 == 0o600
    for token in (tokens.admin, tokens.registrar, tokens.envoy):
        assert token.split("_", 2)[2].encode() not in path.read_bytes()


@contextmanager
def serving(database: str, workplace: Path, **options: Any) -> Iterator[Registry]:
    """Run a registry that may not become ready."""
    port = free_port()
    env = {f"REGISTRY_{name.upper()}": value for name, value in options.items()}
    env |= {"REGISTRY_LISTEN": f"127.0.0.1:{port}", "REGISTRY_DATABASE_URL": database, "PATH": "/usr/bin:/bin"}
    log = workplace / f"access-{port}.log"
    with running([*script("registry"), "serve"], env=env, log=log) as process:
        served = Registry(f"http://127.0.0.1:{port}", process, log)
        eventually(lambda: _alive(served), within=15, said=log.read_text)
        yield served
        served.client.close()


def _alive(served: Registry) -> bool:
    try:
        return served.client.get("/livez").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    "step", [300, pytest.param(-300, marks=pytest.mark.proof), pytest.param(0, marks=pytest.mark.proof)]
)
def test_known_clients_go_on_across_a_cold_start_without_postgresql(
    killable: Cluster, workplace: Path, tmp_path: Path, step: int
) -> None:
    """Whatever the wall clock of the process says, by five minutes; others are told to come back, and no 401 or 200.

    The session of an Envoy ends meanwhile, which no registrar could help: it goes on, and only discovers.
    """
    database = killable.create_database()
    with clock_for_all() as clock:
        clock.jump(step)
        env = faked(clock) if step else {}
        with registry(database, workplace, **settings(tmp_path)) as before:
            tokens = clients(before, database, session_ttl=8)
            kept(tmp_path, tokens)
            ends = time.time() + 8
        killable.kill()
        with registry(database, workplace, **settings(tmp_path), env=env) as after:
            time.sleep(max(0.0, ends - time.time()))
            assert [poll(after, token) for token in (tokens.admin, tokens.registrar, tokens.envoy)] == [200] * 3
            assert poll(after, tokens.registrar, "web") == 403
            assert put(after, tokens.envoy).status_code == 403
            assert put(after, tokens.registrar, "10.0.0.2:80").status_code == 503
            assert poll(after, MADE_UP) == 503
            assert poll(after, "") == 401
            assert after.client.get("/v1/services", headers=bearer(tokens.admin)).status_code == 200
            killable.start()
            eventually(lambda: put(after, tokens.registrar, "10.0.0.2:80").status_code == 200, within=15)
            # For a second after a search that failed none is tried.
            eventually(lambda: poll(after, MADE_UP) == 401, within=5)
            revoked = after.client.delete(f"/v1/tokens/{tokens.registrar_id}", headers=bearer(tokens.admin))
            assert (revoked.status_code, poll(after, tokens.registrar)) == (204, 401)


def test_a_registry_that_knows_nobody_answers_nobody(workplace: Path, tmp_path: Path) -> None:
    """Without PostgreSQL and without a file nothing can be decided: 503 to all, and never 401 or an open door."""
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    with serving(nowhere, workplace, **settings(tmp_path)) as served:
        for _ in range(2):
            for token in ("", MADE_UP, MADE_UP.replace("hct", "hcs")):
                headers = bearer(token) if token else {}
                assert poll(served, token) == 503
                assert put(served, token or MADE_UP).status_code == 503
                for path in ("/v1/services", "/v1/tokens", "/metrics", "/v1/state", "/v1/registration/shop"):
                    answer = served.client.get(path, headers=headers)
                    assert (answer.status_code, "retry-after" in answer.headers) == (503, True), path
            # Beyond the moment in which the file on disk would be read.
            time.sleep(2.5)
        assert (tmp_path / "access.msgpack").exists() is False


def test_a_revocation_reaches_a_process_as_soon_as_it_reads_again(
    killable: Cluster, workplace: Path, tmp_path: Path
) -> None:
    """Two registries, of which one has lost PostgreSQL: there the token is good until then, and the other goes on."""
    database = killable.create_database()
    parts = urlsplit(database)
    with proxy(killable.port) as middle, registry(database, workplace, **settings(tmp_path / "near")) as near:
        through = urlunsplit(parts._replace(netloc=parts.netloc.replace(str(killable.port), str(middle.port))))
        with registry(through, workplace, **settings(tmp_path / "far")) as far:
            tokens = clients(near, database)
            assert poll(far, tokens.registrar) == 200
            middle.target = free_port()
            middle.drop()
            revoked = near.client.delete(f"/v1/tokens/{tokens.registrar_id}", headers=bearer(tokens.admin))
            assert (revoked.status_code, poll(near, tokens.registrar)) == (204, 401)
            fresh = new_token(near, tokens.admin, "fresh", SHOP)["token"]
            assert (poll(near, fresh), poll(far, fresh)) == (200, 503)
            assert poll(far, tokens.registrar) == 200
            # Between two looks nobody knows that PostgreSQL is away; then the feed has said so.
            eventually(lambda: "access_feed_lost" in far.log.read_text(), within=15)
            middle.target = killable.port
            began = time.monotonic()
            eventually(lambda: poll(far, tokens.registrar) == 401, within=10)
            assert time.monotonic() - began < 5
            assert poll(far, fresh) == 200
