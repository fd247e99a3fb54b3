"""Quotas of a closed registry: what is new is refused beyond them, and what is there goes on."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from harness.access import bearer, first_token, new_token
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

ANY = {"verbs": ["register", "discover", "read"], "services": ["*"]}


class Limited:
    """A registry with small quotas, and the token of its administrator."""

    def __init__(self, served: Registry, admin: str) -> None:
        self.registry = served
        self.admin = admin

    def token(self, name: str) -> dict[str, str]:
        """Return the headers of a new token."""
        return bearer(new_token(self.registry, self.admin, name, ANY)["token"])

    def put(self, headers: dict[str, str], service: str, number: int, **fields: object) -> httpx.Response:
        """Register an endpoint of the one instance of a token."""
        body = {"instance_id": "i-1", "incarnation": 1} | fields
        return self.registry.client.put(
            f"/v1/services/{service}/endpoints/10.0.0.{number}:80", json=body, headers=headers
        )

    def state(self) -> dict[str, int]:
        """Return how often each limit has refused something."""
        state = self.registry.client.get("/v1/state", headers=bearer(self.admin)).json()
        return {each["limit"]: each["count"] for each in state["limits"]["reached"]}


@pytest.fixture(scope="module")
def limited(server: Postgres, workplace: Path) -> Iterator[Limited]:
    """A registry whose quotas are small."""
    database = server.migrated_database()
    small = {"max_instance_endpoints": 3, "max_identity_services": 2, "max_instance_changes": 2}
    with registry(database, workplace, auth="on", **small) as served:
        admin = first_token(database)
        eventually(lambda: served.client.get("/v1/tokens", headers=bearer(admin)).status_code == 200, within=10)
        found = Limited(served, admin)
        trial, numbers = found.token("trial"), itertools.count(200)

        def counted() -> bool:
            """Register another endpoint; none is refused for their number before the first count."""
            found.put(trial, "trial", next(numbers))
            return "instance_endpoints" in found.state()

        eventually(counted, within=15, every=0.6)
        yield found


def test_new_endpoints_are_refused_and_those_that_are_there_go_on(limited: Limited) -> None:
    """The fourth endpoint of an instance gets 429 with a reason; the first is renewed and can leave."""
    headers = limited.token("ci-1")
    assert [limited.put(headers, "shop", number).status_code for number in (1, 2, 3)] == [200] * 3
    time.sleep(0.6)
    refused = limited.put(headers, "shop", 4)
    assert (refused.status_code, "REGISTRY_MAX_INSTANCE_ENDPOINTS" in refused.json()["detail"]) == (429, True)
    assert "retry-after" in refused.headers
    assert [limited.put(headers, "shop", 1).status_code for _ in range(30)] == [200] * 30
    url = "/v1/services/shop/endpoints/10.0.0.{}:80?instance_id=i-1"
    client = limited.registry.client
    assert [client.delete(url.format(number), headers=headers).status_code for number in (1, 2, 3)] == [204] * 3
    # The next count knows that there is room again.
    eventually(lambda: limited.put(headers, "shop", 4).status_code == 200, within=15, every=1)
    assert limited.state()["instance_endpoints"] >= 1


def test_another_service_is_refused(limited: Limited) -> None:
    """A token with endpoints in two services creates no third; the audit has it as failed."""
    headers = limited.token("ci-2")
    assert [limited.put(headers, name, 20 + n).status_code for n, name in enumerate(("a-1", "a-2", "a-3"))] == [
        200,
        200,
        429,
    ]
    query = {"principal": "ci-2", "decision": "failed"}

    def failed() -> list[str]:
        answer = limited.registry.client.get("/v1/audit", params=query, headers=bearer(limited.admin))
        return [entry["service"] for entry in answer.json()["entries"]]

    eventually(lambda: failed() == ["a-3"], within=5)
    metrics = limited.registry.client.get("/metrics", headers=bearer(limited.admin)).text
    assert 'registry_registrations_not_admitted_total{limit="identity_services"}' in metrics


def test_an_instance_that_changes_too_fast_is_refused_for_a_moment(limited: Limited) -> None:
    """After three changes at once two a second are taken; renewals between them are not counted."""
    headers = limited.token("ci-3")
    statuses = [
        limited.put(headers, "shop", 30, health="HEALTHY" if n % 2 else "UNHEALTHY").status_code for n in range(8)
    ]
    assert (statuses[:3], 429 in statuses[3:]) == ([200] * 3, True)
    time.sleep(1.1)
    assert limited.put(headers, "shop", 30, health="DEGRADED").status_code == 200
    assert limited.put(headers, "shop", 30, health="DEGRADED").status_code == 200
