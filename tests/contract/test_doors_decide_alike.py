"""One decision through every door: the HTTP fronts and ASGI, one heartbeat and a batch, native routes and old ones."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness.access import bearer, first_token, new_token
from harness.dropin import TAGS
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

from wire.edge_assignments import EDGE_PATH

FRONTS = ["fast", "plain", "route"]
GRANTS: dict[str, list[dict[str, Any]]] = {
    "nothing": [],
    "registers shop": [{"verbs": ["register"], "services": ["shop"]}],
    "registers elsewhere": [{"verbs": ["register"], "services": ["shop"], "addresses": ["10.9.0.0/16"]}],
    "registers a prefix": [{"verbs": ["register"], "services": ["sh*"]}],
    "discovers shop": [{"verbs": ["discover"], "services": ["shop"]}],
    "discovers all": [{"verbs": ["discover"]}],
    "reads shop": [{"verbs": ["read"], "services": ["shop"]}],
    "operates": [{"verbs": ["operate"]}],
    "everything": [{"verbs": ["register", "discover", "operate", "read"]}],
}
NOBODY = {"no credential": "", "made up": "hct_aaaaaaaaaaaaaaaa_" + "A" * 43, "cut": "hct_a"}


class Doors:
    """Registries on one database, one with each front, and tokens."""

    def __init__(self, fronts: list[Registry], tokens: dict[str, str]) -> None:
        self.fronts = fronts
        self.tokens = tokens


@pytest.fixture(scope="module")
def doors(server: Postgres, workplace: Path) -> Iterator[Doors]:
    """The fronts with access on."""
    database = server.migrated_database()
    with ExitStack() as stack:
        fronts = [stack.enter_context(registry(database, workplace, auth="on", door=front)) for front in FRONTS]
        fast = fronts[0]
        admin = first_token(database)
        eventually(lambda: fast.client.get("/v1/tokens", headers=bearer(admin)).status_code == 200, within=10)
        tokens = {
            name: new_token(fast, admin, name.replace(" ", "-"), *(grants or [{"verbs": ["inspect"]}]))["token"]
            for name, grants in GRANTS.items()
        }
        yield Doors(fronts, tokens | NOBODY)


def registrations(served: Registry, headers: dict[str, str], service: str, endpoint: str) -> list[int]:
    """Register by each way there is, and return the statuses; the old routes answer 202 for 200."""
    client = served.client
    # The same state each time, so that all but the first of an allowed one renew.
    registration = {"instance_id": "i-1", "incarnation": 1, "ttl": 600, "revision": "r"}
    url = f"/v1/services/{service}/endpoints/{endpoint}"
    batch = {"heartbeats": [{"service": service, "endpoint": endpoint, "registration": registration}]}
    results = client.post("/v1/heartbeats", json=batch, headers=headers)
    ip, _, port = endpoint.partition(":")
    old = {"ip": ip, "port": int(port) + 1, "revision": "r", "tags": TAGS | {"canary": False}}
    return [
        client.put(url, json=registration, headers=headers).status_code,
        # A request with an id of its own is answered by the application.
        client.put(url, json=registration, headers={**headers, "x-request-id": "one"}).status_code,
        result_of(results),
        200
        if (posted := client.post(f"/v1/registration/{service}", content=json.dumps(old), headers=headers)).is_success
        else posted.status_code,
    ]


def result_of(answer: httpx.Response) -> int:
    """Return the status of the one heartbeat of a batch, which is the answer's where no credential is accepted."""
    if answer.status_code != 200:
        return answer.status_code
    (result,) = answer.json()["results"]
    status: int = result.get("problem", {}).get("status", 200)
    return status


def polls(served: Registry, headers: dict[str, str], service: str) -> list[int]:
    """Ask for a service by each way there is, as one that has hosts; return the statuses."""
    body = {"node": {"id": "test"}, "resource_names": [service], "version_info": "other:1"}
    asked = [
        served.client.post(f"/{api}/discovery:endpoints", json=body, headers=headers | more).status_code
        for api, more in product(("v2", "v3"), ({}, {"x-request-id": "one", "accept-language": "en"}))
    ]
    question = {"node": "test", "held": {service: ""}}
    edge = served.client.post(EDGE_PATH, json=question, headers=headers)
    # A name that may not be discovered is named in the answer, so that the others have theirs.
    of_edge = 403 if edge.is_success and edge.json().get("refused") else edge.status_code
    return [*asked, served.client.get(f"/v1/registration/{service}", headers=headers).status_code, of_edge]


def reads(served: Registry, headers: dict[str, str], service: str) -> list[int]:
    """Ask for lists of a service by each way there is; 404 counts as 200, since not every service is registered."""
    urls = (f"/v1/services/{service}", f"/v1/services/{service}/endpoints", f"/v1/prometheus/targets?service={service}")
    asked = [
        served.client.get(url, headers=headers | more).status_code
        for url, more in product(urls, ({}, {"accept-language": "en"}))
    ]
    return [200 if status == 404 else status for status in asked]


def lists(served: Registry, headers: dict[str, str]) -> tuple[int, set[str]]:
    """Ask for all services by each way there is; return the status and the names, which have to be the same."""
    answers = [served.client.get("/v1/services", headers=headers | more) for more in ({}, {"accept-language": "en"})]
    (status,) = {answer.status_code for answer in answers}
    (names,) = {tuple(each["name"] for each in answer.json().get("services", ())) for answer in answers}
    return status, set(names)


def decision(served: Registry, headers: dict[str, str], verb: str, service: str, endpoint: str = "") -> int:
    """Return the status that follows from what `/v1/authorize` says."""
    asked = {"verb": verb, "service": service, "endpoint": endpoint, "instance_id": "i-1"}
    answer = served.client.post("/v1/authorize", json=asked, headers=headers).json()
    if answer["allowed"]:
        return 200
    return 401 if served.client.get("/v1/whoami", headers=headers).json()["kind"] == "anonymous" else 403


@pytest.mark.parametrize("who", [*GRANTS, *NOBODY])
@pytest.mark.parametrize("service", ["shop", "shopping"])
def test_every_door_decides_alike(doors: Doors, who: str, service: str) -> None:
    """Each way to register and to poll gets the status of the one decision, at all fronts."""
    headers = bearer(doors.tokens[who]) if doors.tokens[who] else {}
    number = [*GRANTS, *NOBODY].index(who)
    endpoint = f"10.{number + 1}.0.{len(service)}:80"
    for served in doors.fronts:
        expected = decision(served, headers, "register", service, endpoint)
        assert registrations(served, headers, service, endpoint) == [expected] * 4
        expected = decision(served, headers, "discover", service)
        assert polls(served, headers, service) == [expected] * 6
        expected = decision(served, headers, "read", service)
        assert reads(served, headers, service) == [expected] * 6
        expected = decision(served, headers, "read", "")
        status, names = lists(served, headers)
        assert status == expected
        assert all(decision(served, headers, "read", name) == 200 for name in names)
