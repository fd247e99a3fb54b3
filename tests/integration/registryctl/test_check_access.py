"""`registryctl check` about access, at real registries: what is open, who would be refused, and which tokens end."""

import re
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
def audited_database(server: Postgres) -> str:
    """The database of the registry in audit."""
    return server.migrated_database()


@pytest.fixture(scope="module")
def audited(audited_database: str, workplace: Path) -> Iterator[tuple[Registry, str]]:
    """A registry with access in audit that other machines may reach, and its administrator's token."""
    database = audited_database
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

    def entries() -> list[Any]:
        noted = process.client.get("/v1/audit", params={"decision": "would_refuse"}, headers=bearer(admin))
        return list(noted.json()["entries"])

    # The check counts them once in a while, so it is asked when they are there.
    eventually(lambda: len(entries()) == 2, within=10)
    findings = check(process, REGISTRYCTL_TOKEN=operator)
    said = sorted(findings["access-refuses-nobody"]["said"])
    assert said[0].startswith("anonymous from 127.0.0.1: register once, last ")
    assert said[1].startswith("token:reader from 127.0.0.1: operate once, last ")
    assert findings["access-closed"]["result"] == "ok"
    assert f"0.0.0.0:{process.port} takes tokens over plain HTTP" in findings["tokens-encrypted"]["said"][0]


def test_the_audit_is_shown_the_newest_last(audited: tuple[Registry, str]) -> None:
    """Refusals with their reason and number, and what was changed; filters are those of the API."""
    process, admin = audited
    token = new_token(process, admin, "curious", {"verbs": ["register"], "services": ["shop"]})["token"]
    for _ in range(3):
        assert process.client.get("/v1/services", headers=bearer(token)).status_code == 200

    def lines(*words: str) -> list[str]:
        done = registryctl(process.url, "audit", *words, REGISTRYCTL_TOKEN=admin)
        assert done.status == 0, done
        return done.out.splitlines()

    about = ("--principal", "token:curious")
    eventually(lambda: "(3 times)" in "".join(lines(*about)), within=15, every=0.3, said=lambda: str(lines()))
    (line,) = lines(*about, "--decision", "would_refuse", "--verb", "read", "--since", "1h")
    assert re.fullmatch(
        r"\S+Z  would_refuse  token:curious  read \(3 times\)  no grant of .* read  from 127.0.0.1", line
    )
    assert lines(*about, "--decision", "allowed") == []
    every = lines("-n", "1000")
    created = next(number for number, row in enumerate(every) if "token_created" in row and "token:curious" in row)
    assert created < next(number for number, row in enumerate(every) if "read (3 times)" in row)
    document = registryctl(process.url, "audit", *about, "-o", "json", REGISTRYCTL_TOKEN=admin).json
    assert [entry["count"] for entry in document["entries"]] == [3]
    for words in (("--verb", "rad"), ("--decision", "denied"), ("--since", "soon")):
        assert registryctl(process.url, "audit", *words).status == 2


def test_tokens_that_end_or_are_wide_are_named(
    audited: tuple[Registry, str], server: Postgres, audited_database: str
) -> None:
    """One that ends within a week without a successor, and one for administrators of more than a month."""
    process, admin = audited
    for name in ("leaving", "rotated"):
        new_token(process, admin, name, {"verbs": ["read"]})
    server.execute(
        "UPDATE credentials SET created_at = created_at - interval '87 days', expires_at = now() + interval '3 days'"
        " WHERE name IN ('leaving', 'rotated')",
        url=audited_database,
    )
    assert registryctl(process.url, "token", "rotate", "rotated", REGISTRYCTL_TOKEN=admin).status == 0
    new_token(process, admin, "for-ever", {"verbs": ["admin"]}, ttl=400 * 86_400)
    findings = check(process, REGISTRYCTL_TOKEN=admin)
    (ends,) = findings["tokens-lasting"]["said"]
    assert re.fullmatch(r"leaving \(.*\) ends in [23]d, never used: registryctl token rotate .*", ends)
    (wide,) = findings["admin-narrow"]["said"]
    assert wide.startswith("token for-ever (")


def test_open_access_off_loopback_is_warned_of(server: Postgres, workplace: Path) -> None:
    """Once at the start, in the log, and by the check."""
    database = server.migrated_database()
    port = free_port()
    with registry(database, workplace, listen=f"0.0.0.0:{port}") as process:
        process.url = f"http://127.0.0.1:{port}"
        assert process.log.read_text().count('"event": "access_off"') == 1
        finding = check(process)["access-closed"]
        assert finding["result"] == "warning"
        assert finding["said"] == [f"0.0.0.0:{port} is open: everybody who reaches it may do everything"]


def test_access_off_on_loopback_is_no_finding(shared_registry: Registry) -> None:
    """A registry for one machine says at its start that it is open, and is left alone."""
    (line,) = [line for line in shared_registry.log.read_text().splitlines() if '"access_off"' in line]
    assert '"level": "info"' in line
    findings = check(shared_registry)
    assert findings["access-closed"]["result"] == "ok"
    assert findings["access-refuses-nobody"]["result"] == "skipped"


def test_a_check_without_grants_says_what_it_lacks(server: Postgres, workplace: Path) -> None:
    """It fails, says what to do, and claims nothing of what it was not shown."""
    database = server.migrated_database()
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
        some = new_token(process, admin, "some", {"verbs": ["read", "observe"], "services": ["shop-*"]})["token"]
        said = registryctl(process.url, "check", "-o", "json", REGISTRYCTL_TOKEN=some)
        assert (said.status, checked(said)["check-allowed"]["result"]) == (0, "warning")
        assert "shop-*" in checked(said)["check-allowed"]["said"][0]
