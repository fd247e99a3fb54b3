"""Lost endpoints stay listed for people, and services that have too few say so, against a real PostgreSQL."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.operator import registryctl
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

DEAD, LIVING, NEW = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"
OPTIONS: dict[str, Any] = {"sweep_interval": "100ms", "removal_delay": "300ms"}


@pytest.fixture(scope="module")
def found(server: Postgres, workplace: Path) -> Iterator[Registry]:
    """A registry in which one endpoint of each service may lapse at once: many others live."""
    with registry(server.migrated_database(), workplace, **OPTIONS) as process:
        for number in range(60):
            process.register("others", f"10.1.0.{number + 1}:80", ttl=600)
        yield process


def service_of(process: Registry, service: str) -> dict[str, Any]:
    """Return the document of a service."""
    document: dict[str, Any] = process.client.get(f"/v1/services/{service}").json()
    return document


def lose(process: Registry, service: str) -> dict[str, Any]:
    """Let one of two endpoints fall silent, and return the service once it is lost and left out."""
    process.register(service, LIVING, ttl=600)
    process.register(service, DEAD, ttl=1, zone="za")
    eventually(lambda: service_of(process, service)["lost"] and DEAD not in process.statuses(service), within=10)
    return service_of(process, service)


def last_reason(process: Registry, service: str, kind: str) -> str:
    """Return the reason of the newest event of a kind."""
    events = process.client.get("/v1/events", params={"service": service, "kind": kind}).json()["events"]
    return str(events[0]["reason"])


def test_a_lost_endpoint_stays_listed_for_people_alone(found: Registry, service: str) -> None:
    """In the service's document, in the command and on the page; Envoys are told of it no more."""
    document = lose(found, service)
    (lost,) = document["lost"]
    assert (lost["endpoint"], lost["health"], lost["zone"]) == (DEAD, "HEALTHY", "za")
    assert "went silent" in lost["reason"]
    numbers = [document[name] for name in ("present", "expected", "expected_source", "missing", "lost_count")]
    assert numbers == [1, 2, "observed", 1, 1]
    assert found.statuses(service) == {LIVING: "HEALTHY"}
    shown = registryctl(found.url, "service", service).out
    assert f"{DEAD}  lost: gone " in shown
    assert "1 of 2 present (1 lost)" in shown
    assert "1 of 2 present (1 lost)" in registryctl(found.url, "services", service).out
    explained = registryctl(found.url, "explain", service, DEAD).out
    assert "it is not listed, because it was lost: gone " in explained
    page = found.client.get(f"/ui/services/{service}").text
    assert "Lost endpoints (1)" in page
    assert "1 lost" in found.client.get("/ui/services", params={"q": service}).text
    eventually(lambda: "registry_services_below_strength 0.0" not in found.client.get("/metrics").text, within=8)


def test_its_return_ends_the_loss(found: Registry, service: str) -> None:
    """The same address and instance again, after it was left out."""
    lose(found, service)
    found.register(service, DEAD, ttl=600)
    document = service_of(found, service)
    assert (document["lost"], document["present"], document["expected"]) == ([], 2, 2)


def test_a_newer_endpoint_fills_its_place(found: Registry, service: str) -> None:
    """The history of the lost one says which; a second one is one more."""
    lose(found, service)
    found.register(service, NEW, ttl=600)
    document = service_of(found, service)
    assert (document["lost"], document["present"], document["expected"]) == ([], 2, 2)
    assert last_reason(found, service, "replaced") == f"{NEW} of instance i-{NEW} fills its place"
    found.register(service, "10.0.0.4:80", ttl=600)
    assert service_of(found, service)["expected"] == 3


def test_a_replacement_that_is_there_already_makes_no_loss(found: Registry, service: str) -> None:
    """It registered after the last heartbeat of the one that lapses later."""
    found.register(service, LIVING, ttl=600)
    found.register(service, DEAD, ttl=1)
    time.sleep(0.1)
    found.register(service, NEW, ttl=600)
    eventually(lambda: DEAD not in found.statuses(service), within=10)
    document = service_of(found, service)
    assert (document["lost"], document["present"], document["expected"]) == ([], 2, 2)
    assert f"{NEW} of instance i-{NEW} has filled its place" in last_reason(found, service, "lapsed")


@pytest.mark.parametrize("how", ["drain", "override"])
def test_what_was_drained_before_is_not_lost(found: Registry, service: str, how: str) -> None:
    """By its instance or by an operator; a deregistration does not lapse at all."""
    found.register(service, LIVING, ttl=600)
    found.register(service, DEAD, ttl=1)
    url = f"/v1/services/{service}/endpoints/{DEAD}/{how}"
    answer = found.client.post(url) if how == "drain" else found.client.put(url, json={"drain": True})
    assert answer.status_code == 200, answer.text
    eventually(lambda: set(found.statuses(service)) == {LIVING}, within=10)
    document = service_of(found, service)
    assert (document["lost"], document["expected"]) == ([], 1)


def test_a_loss_is_acknowledged_and_expected_no_more(found: Registry, service: str) -> None:
    """By the command with a reason; what is not lost is 404, and so is an unknown service."""
    lose(found, service)
    acknowledged = registryctl(found.url, "acknowledge", service, DEAD, "--reason", "scaled in by hand")
    assert acknowledged.out == f"{service}: acknowledged the loss of {DEAD}\n"
    document = service_of(found, service)
    assert (document["lost"], document["expected"]) == ([], 1)
    assert last_reason(found, service, "lost_acknowledged") == "the loss was acknowledged: scaled in by hand"
    post = found.client.post
    assert post(f"/v1/services/{service}/lost/{DEAD}/acknowledge").status_code == 404
    assert post(f"/v1/services/{service}/lost/acknowledge").status_code == 404
    assert post(f"/v1/services/{service}-none/lost/acknowledge").status_code == 404
    assert post(f"/v1/services/{service}/lost/nonsense/acknowledge").status_code == 422


def test_the_number_of_an_operator_wins_over_that_of_registrations(found: Registry, service: str) -> None:
    """Until it is taken back; the history has both, and other processes read it too."""
    found.register(service, LIVING, ttl=600, expected=3)
    document = service_of(found, service)
    assert (document["expected"], document["expected_source"]) == (3, "registration")
    said = registryctl(found.url, "expect", service, "5", "--reason", "for the sale").out
    assert said == f"{service}: 1 of 5 present; the number is an operator's\n"
    document = service_of(found, service)
    assert (document["expected"], document["expected_by"], document["missing"]) == (5, "ann from 127.0.0.1", 4)
    assert last_reason(found, service, "expected_set") == "5 endpoints are expected: for the sale"
    assert registryctl(found.url, "expect", service, "--clear").status == 0
    assert service_of(found, service)["expected_source"] == "registration"
    assert registryctl(found.url, "expect", service).status == 2
    put = found.client.put
    assert put(f"/v1/services/{service}-none/expected", json={"expected": 1}).status_code == 404
    assert put(f"/v1/services/{service}/expected", json={"expected": -1}).status_code == 422
    assert put(f"/v1/services/{service}/expected", json={}).status_code == 422


def test_a_service_that_is_deregistered_misses_nobody(found: Registry, service: str) -> None:
    """Also those that it had lost before."""
    lose(found, service)
    found.client.delete(f"/v1/services/{service}", params={"reason": "gone", "force": True}).raise_for_status()
    document = service_of(found, service)
    assert (document["lost"], document["expected"]) == ([], 0)


def test_losses_outlive_tombstones_and_restarts(database: str, workplace: Path, service: str, server: Postgres) -> None:
    """Another process reads them from the rows, long after tombstones are pruned; a day later they are gone."""
    options = OPTIONS | {"tombstone_retention": "1s"}
    with registry(database, workplace, **options) as first:
        for number in range(20):
            first.register("others", f"10.1.0.{number + 1}:80", ttl=600)
        lose(first, service)
        first.client.put(f"/v1/services/{service}/expected", json={"expected": 4}).raise_for_status()
    prune = "DELETE FROM endpoints WHERE removed_at < now() AND lost_at IS NULL"
    server.execute(prune, url=database)
    with registry(database, workplace, **options) as second:
        document = service_of(second, service)
        assert [lost["endpoint"] for lost in document["lost"]] == [DEAD]
        assert document["expected"] == 4
        server.execute("UPDATE services SET change = change + 1", url=database)
        change = "(SELECT change FROM services WHERE name = service)"
        aged = f"UPDATE endpoints SET lost_at = lost_at - interval '1 day', change = {change} WHERE lost_at < now()"
        server.execute(aged, url=database)
        eventually(lambda: service_of(second, service)["lost"] == [], within=10)
