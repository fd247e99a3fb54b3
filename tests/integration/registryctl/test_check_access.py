"""`registryctl check` about access, at real registries: what is open, who would be refused, and which tokens end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.access import bearer, first_token, new_token
from harness.operator import Said, registryctl
from harness.postgres import Postgres
from harness.process import eventually, free_port
from harness.registry import Registry, registry


def checked(said: Said) -> dict[str, dict[str, Any]]:
    """Return the findings by their checks."""
    return {check["id"]: check for category in said.json["categories"] for check in category["checks"]}


def check(process: Registry, **env: str) -> dict[str, dict[str, Any]]:
    """Return the findings of a registry."""
    return checked(registryctl(process.url, "check", "-o", "json", **env))


@pytest.fixture(scope="module")
def audited(server: Postgres, workplace: Path) -> Iterator[tuple[Registry, str]]:
    """A registry with access in audit that other machines may reach, and its administrator's token."""
    database = server.create_database()
    port = free_port()
    with registry(database, workplace, auth="audit", listen=f"0.0.0.0:{port}") as process:
        process.url = f"http://127.0.0.1:{port}"
        admin = first_token(database)
        eventually(lambda: process.client.get("/v1/tokens", headers=bearer(admin)).status_code == 200, within=10)
        yield process, admin


def test_audit_names_who_would_be_refused(audited: tuple[Registry, str]) -> None:
    """By principal and verb, with the address that it came from; a token that may is not named."""
    process, admin = audited
    process.register("shop", "10.0.0.1:80")
    operator = new_token(process, admin, "reader", {"verbs": ["read", "observe"]})["token"]
    process.client.patch(
        "/v1/services/shop/endpoints/10.0.0.1:80/override", json={"weight": 5, "reason": "x"}, headers=bearer(operator)
    )

    def lines() -> list[str]:
        said: list[str] = check(process, REGISTRYCTL_TOKEN=operator)["access-refuses-nobody"]["said"]
        return said

    eventually(lambda: len(lines()) == 2, within=25, every=1, said=lambda: str(lines()))
    said = sorted(lines())
    assert said[0].startswith("anonymous from 127.0.0.1: register once, last ")
    assert said[1].startswith("token:reader from 127.0.0.1: operate once, last ")
    findings = check(process, REGISTRYCTL_TOKEN=operator)
    assert findings["access-closed"]["result"] == "ok"
    assert f"0.0.0.0:{process.port} takes tokens over plain HTTP" in findings["tokens-encrypted"]["said"][0]


def test_tokens_that_end_or_are_wide_are_named(audited: tuple[Registry, str]) -> None:
    """One in the last quarter of its time without a successor, and one for administrators of more than a month."""
    process, admin = audited
    new_token(process, admin, "leaving", {"verbs": ["read"]}, ttl=40)
    rotated = new_token(process, admin, "rotated", {"verbs": ["read"]}, ttl=40)
    answer = process.client.post(f"/v1/tokens/{rotated['id']}/rotate", json={"ttl": 9999}, headers=bearer(admin))
    assert answer.status_code == 201
    new_token(process, admin, "for-ever", {"verbs": ["admin"]}, ttl=400 * 86_400)
    findings = eventually_finding(process, "tokens-lasting")
    (ends,) = findings["tokens-lasting"]["said"]
    assert ends.startswith("leaving (")
    (wide,) = findings["admin-narrow"]["said"]
    assert wide.startswith("token for-ever (")


def eventually_finding(process: Registry, name: str) -> dict[str, dict[str, Any]]:
    """Return the findings as soon as one is a warning."""
    eventually(lambda: check(process)[name]["result"] == "warning", within=40, every=1)
    return check(process)


def test_open_access_off_loopback_is_warned_of(server: Postgres, workplace: Path) -> None:
    """Once at the start, in the log, and by the check."""
    database = server.create_database()
    port = free_port()
    with registry(database, workplace, listen=f"0.0.0.0:{port}") as process:
        process.url = f"http://127.0.0.1:{port}"
        assert process.log.read_text().count('"event": "access_off"') == 1
        finding = check(process)["access-closed"]
        assert finding["result"] == "warning"
        assert finding["said"] == [
            f"0.0.0.0:{port} can be reached from other machines, and everybody may do everything"
        ]


def test_access_off_on_loopback_is_no_finding(shared_registry: Registry) -> None:
    """A registry for one machine says at its start that it is open, and is left alone."""
    (line,) = [line for line in shared_registry.log.read_text().splitlines() if '"access_off"' in line]
    assert '"level": "info"' in line
    findings = check(shared_registry)
    assert findings["access-closed"]["result"] == "ok"
    assert findings["access-refuses-nobody"]["result"] == "skipped"


def test_a_check_without_grants_says_what_it_lacks(server: Postgres, workplace: Path) -> None:
    """It fails, says what to do, and claims nothing of what it was not shown."""
    database = server.create_database()
    with registry(database, workplace, auth="on") as process:
        admin = first_token(database)
        eventually(lambda: process.client.get("/v1/tokens", headers=bearer(admin)).status_code == 200, within=10)
        envoy = new_token(process, admin, "envoy", {"verbs": ["discover"]})["token"]
        for env, advice in (({}, "registryctl login"), ({"REGISTRYCTL_TOKEN": envoy}, "registryctl whoami")):
            said = registryctl(process.url, "check", "-o", "json", **env)
            assert said.status == 1
            findings = checked(said)
            lacking = findings["check-allowed"]
            assert lacking["result"] == "failure"
            assert any("observe" in line for line in lacking["said"])
            assert any("read" in line for line in lacking["said"])
            assert advice in lacking["said"][-1]
            passed = {name for name, finding in findings.items() if finding["result"] == "ok"}
            assert passed == {"registry-reachable", "registry-ready"}
        assert registryctl(process.url, "check", REGISTRYCTL_TOKEN=admin).status == 0
