"""GET /v1/verdict: what is wrong with a real registry, also without PostgreSQL, and only as far as one may read."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from harness.access import bearer, first_token, new_token
from harness.calls import Call, report
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

_CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1"
MAX_SECONDS = 2.0
"""Seconds in which a verdict is answered, and half a second for a busy machine."""


@pytest.fixture(scope="module")
def own_database(server: Postgres) -> str:
    """A database that the tests take away from its registry."""
    return server.migrated_database()


@pytest.fixture(scope="module")
def own_registry(own_database: str, workplace: Path) -> Iterator[Registry]:
    """A registry on it."""
    with registry(own_database, workplace, sweep_interval="200ms") as process:
        yield process


def verdict(process: Registry, token: str = "", **params: int) -> dict[str, Any]:
    """Return the document, which came in time."""
    begun = time.monotonic()
    answer = process.client.get("/v1/verdict", params=params, headers=bearer(token) if token else {})
    assert time.monotonic() - begun < MAX_SECONDS + 0.5
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def findings(process: Registry, token: str = "", **params: int) -> dict[str, dict[str, Any]]:
    """Return the findings by rule."""
    return {finding["id"]: finding for finding in verdict(process, token, **params)["findings"]}


def text(finding: dict[str, Any]) -> str:
    """Return the lines of a finding."""
    return "\n".join(line["text"] for line in finding["lines"])


def test_a_change_in_memory_is_seen_at_once(own_registry: Registry, service: str) -> None:
    """A service that loses its last routable endpoint is a failure in the next answer, and none when it has one."""
    own_registry.register(service, "10.0.0.1:80")
    eventually(lambda: verdict(own_registry)["ok"], within=10, said=lambda: str(verdict(own_registry)))
    own_registry.register(service, "10.0.0.1:80", health="UNHEALTHY")
    eventually(
        lambda: (
            text(findings(own_registry)["services-routable"])
            == f"{service}: no endpoint may have traffic (1 UNHEALTHY)"
        ),
        within=2,
    )
    (ailing,) = findings(own_registry)["endpoints-healthy"]["lines"]
    assert ailing["text"].startswith(f"{service} 10.0.0.1:80: UNHEALTHY for ")
    (line,) = findings(own_registry)["services-routable"]["lines"]
    assert (line["service"], line["link"]) == (service, f"/ui/services/{service}")
    own_registry.register(service, "10.0.0.1:80")
    eventually(lambda: findings(own_registry)["services-routable"]["status"] == "ok", within=2)


def test_an_override_is_named_with_its_operator(own_registry: Registry, service: str) -> None:
    """The one who is paged sees who drained what, when and why, without knowing the service."""
    own_registry.register(service, "10.0.0.2:80")
    path = f"/v1/services/{service}/endpoints/10.0.0.2:80/override"
    drained = own_registry.client.put(path, json={"drain": True, "reason": "deploy"}, headers={"x-actor": "ann"})
    assert drained.status_code == 200
    eventually(lambda: findings(own_registry)["overrides-absent"]["status"] == "warning", within=2)
    finding = findings(own_registry)["overrides-absent"]
    assert finding["headline"] == "1 override is in force"
    (line,) = finding["lines"]
    assert line["text"].startswith(f"{service} 10.0.0.2:80: drain, set ")
    assert "ann" in line["text"]
    assert line["text"].endswith("without an end: deploy")
    assert own_registry.client.get(line["link"]).status_code == 200
    own_registry.client.delete(path)
    eventually(lambda: findings(own_registry)["overrides-absent"]["status"] == "ok", within=2)


def test_a_number_of_suspects_may_be_allowed(own_registry: Registry) -> None:
    """It is a number; anything else is refused with what is allowed."""
    assert findings(own_registry, suspects=3)["endpoints-not-silent"]["status"] == "ok"
    assert own_registry.client.get("/v1/verdict", params={"suspects": -1}).status_code == 422


def test_postgresql_away_is_a_failure_and_the_rest_is_evaluated(
    own_registry: Registry, server: Postgres, own_database: str, service: str
) -> None:
    """It is answered in time while PostgreSQL refuses, and while it keeps the registry waiting."""
    own_registry.register(service, "10.0.0.3:80", health="UNHEALTHY")
    eventually(lambda: findings(own_registry)["services-routable"]["status"] == "failure", within=5)
    with server.holding("LOCK TABLE registry_state IN ACCESS EXCLUSIVE MODE", url=own_database):
        eventually(lambda: findings(own_registry)["postgresql-answers"]["status"] == "failure", within=5)
        slow = findings(own_registry)
        assert text(slow["postgresql-answers"]).startswith("PostgreSQL did not answer within 1.5 s")
        assert slow["services-routable"]["status"] == "failure"
    name = urlsplit(own_database).path.removeprefix("/")
    server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    try:
        server.execute(_CUT, name)
        eventually(lambda: findings(own_registry)["postgresql-answers"]["status"] == "failure", within=5)
        away = findings(own_registry)
        assert text(away["postgresql-answers"]) == "PostgreSQL is away; reads go on from memory, writes are refused"
        assert away["services-routable"]["status"] == "failure"
        assert away["sweeps-happen"]["status"] == "skipped"
    finally:
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    own_registry.register(service, "10.0.0.3:80")


def test_one_that_may_read_a_part_learns_of_no_other(server: Postgres, workplace: Path) -> None:
    """Services that it may not read are neither named nor counted; without the verb observe nothing is answered."""
    database = server.migrated_database()
    with registry(database, workplace, auth="on") as process:
        admin = first_token(database)
        eventually(lambda: process.client.get("/v1/tokens", headers=bearer(admin)).status_code == 200, within=10)
        writer = new_token(process, admin, "writer", {"verbs": ["register", "operate"]})["token"]
        part = new_token(process, admin, "part", {"verbs": ["read", "observe"], "services": ["cart-*"]})["token"]
        blind = new_token(process, admin, "blind", {"verbs": ["read"]})["token"]
        for name, health in (("cart-a", "HEALTHY"), ("secret", "UNHEALTHY")):
            body = {"instance_id": "i-1", "incarnation": 1, "health": health}
            path = f"/v1/services/{name}/endpoints/10.0.0.1:80"
            assert process.client.put(path, json=body, headers=bearer(writer)).status_code in (200, 201)
            drain = {"weight": 5, "reason": "canary"}
            assert process.client.put(f"{path}/override", json=drain, headers=bearer(writer)).status_code == 200
        eventually(lambda: findings(process, admin)["services-routable"]["status"] == "failure", within=5)
        assert len(findings(process, admin)["overrides-absent"]["lines"]) == 2
        for call in (Call("secret", "hidden", 100, 50), Call("cart-a", "stock", 100, 50)):
            report(process, [call], **bearer(writer))
        eventually(lambda: len(findings(process, admin)["requests-succeed"]["lines"]) == 2, within=10)
        document = process.client.get("/v1/verdict", headers=bearer(part))
        assert "secret" not in document.text
        seen = {finding["id"]: finding for finding in document.json()["findings"]}
        assert seen["services-routable"]["lines"][0]["text"] == "services: 1"
        assert len(seen["overrides-absent"]["lines"]) == 1
        assert text(seen["requests-succeed"]).startswith("cart-a to stock: 50.0 % of 100 requests failed")
        assert text(seen["check-allowed"]).startswith("this principal may read cart-*")
        for token in ("", blind):
            refused = process.client.get("/v1/verdict", headers=bearer(token) if token else {})
            assert refused.status_code in (401, 403)
