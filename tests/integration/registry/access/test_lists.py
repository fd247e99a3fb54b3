"""Lists of a closed registry: they show what their reader may read, and full pages of it."""

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness.access import bearer, first_token, new_token
from harness.calls import Call, report
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

MINE, OURS, THEIRS = "shop", "web-1", "secret-vault"
ENDPOINTS = {MINE: "10.0.0.1:80", OURS: "10.0.0.2:80", THEIRS: "10.0.0.3:80"}


class Closed:
    """A registry with access on, its administrator, and a reader of some services."""

    def __init__(self, served: Registry, admin: str) -> None:
        self.registry = served
        self.admin = bearer(admin)
        self.admin_token = admin
        verbs = ["read", "observe"]
        self.reader_token = self.token("reader", {"verbs": verbs, "services": [MINE, "web-*"]})
        self.reader = bearer(self.reader_token["token"])

    def token(self, name: str, grant: dict[str, Any]) -> dict[str, Any]:
        """Return a new token."""
        return new_token(self.registry, self.admin_token, name, grant)

    def get(self, url: str, headers: dict[str, str] | None = None) -> Any:
        """Return the document that the reader gets, or another principal."""
        answer = self.registry.client.get(url, headers=headers or self.reader)
        assert answer.status_code == 200, (url, answer.text)
        return answer.json()

    def set_health(self, service: str, health: str) -> None:
        """Let an endpoint change its health, which is an event."""
        url = f"/v1/services/{service}/endpoints/{ENDPOINTS[service]}"
        body = {"instance_id": f"i-{service}", "incarnation": 1, "health": health}
        answer = self.registry.client.put(url, json=body, headers=self.admin)
        assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def database(server: Postgres) -> str:
    """The database of the registry."""
    return server.migrated_database()


@pytest.fixture(scope="module")
def closed(database: str, workplace: Path) -> Iterator[Closed]:
    """A registry with three services, of which the reader may read two."""
    with registry(database, workplace, auth="on") as served:
        admin = first_token(database)
        eventually(lambda: served.client.get("/v1/tokens", headers=bearer(admin)).status_code == 200, within=10)
        found = Closed(served, admin)
        for number in range(4):
            for service in ENDPOINTS:
                found.set_health(service, "HEALTHY" if number % 2 else "UNHEALTHY")
        for _ in range(20):
            for health in ("UNHEALTHY", "HEALTHY"):
                found.set_health(THEIRS, health)
        for service, endpoint in ENDPOINTS.items():
            body = {"node": {"id": f"envoy-{service}"}, "resource_names": [service]}
            assert served.client.post("/v3/discovery:endpoints", json=body, headers=found.admin).status_code == 200
            pause = {"service": service, "reason": f"work on {service}", "expires_in": 600}
            assert served.client.put("/v1/expiry/pause", json=pause, headers=found.admin).status_code == 200
            path = f"/v1/services/{service}/endpoints/{endpoint}/override"
            weight = {"weight": 5, "reason": f"weight for {service}"}
            assert served.client.put(path, json=weight, headers=found.admin).status_code == 200
        everywhere = {"reason": "everything", "expires_in": 600}
        assert served.client.put("/v1/expiry/pause", json=everywhere, headers=found.admin).status_code == 200
        yield found


def test_lists_have_what_may_be_read_and_nothing_else(closed: Closed) -> None:
    """Services, subscribers, pauses, targets and events; an administrator sees all three services in each."""
    names = {service["name"] for service in closed.get("/v1/services")["services"]}
    assert names == {MINE, OURS}
    subscribers = closed.get("/v1/subscribers")
    assert {each["service"] for each in subscribers["subscribers"]} == {MINE, OURS}
    assert sum(subscribers["states"].values()) == 2
    assert {pause["service"] for pause in closed.get("/v1/expiry")["pauses"]} == {MINE, OURS, None}
    assert {override["service"] for override in closed.get("/v1/overrides")["overrides"]} == {MINE, OURS}
    targets = {group["labels"]["__meta_headcount_service"] for group in closed.get("/v1/prometheus/targets")}
    assert targets == {MINE, OURS}
    for url in (
        "/v1/services",
        "/v1/subscribers",
        "/v1/expiry",
        "/v1/overrides",
        "/v1/prometheus/targets",
        "/v1/events?limit=1000",
        "/v1/state",
    ):
        mine = closed.registry.client.get(url, headers=closed.reader).text
        assert THEIRS not in mine, url
        if url != "/v1/state":
            assert THEIRS in closed.registry.client.get(url, headers=closed.admin).text, url


@pytest.mark.parametrize("page", ["services", "overrides", "subscribers", "events", "registry"])
def test_pages_have_what_may_be_read_and_nothing_else(closed: Closed, page: str) -> None:
    """A page of the console names no service that its reader may not read."""
    answer = closed.registry.client.get(f"/ui/{page}", headers=closed.reader)
    assert answer.status_code == 200, answer.text
    assert (MINE in answer.text, THEIRS in answer.text) == (True, False)


def test_the_state_names_credentials_to_those_who_observe_everything(closed: Closed) -> None:
    """Who observes some services learns of no other's token, and that something was left out."""
    kept = {"name": "kept", "grants": [{"verbs": ["admin"], "services": ["*"]}], "ttl": 60 * 86_400}
    assert closed.registry.client.post("/v1/tokens", json=kept, headers=closed.admin).status_code == 201
    whole = bearer(closed.token("observer", {"verbs": ["observe"], "services": ["*"]})["token"])
    for headers in (closed.admin, whole):
        access = closed.get("/v1/state", headers)["access"]
        assert (access["named"], [token["name"] for token in access["long_lived"]]) == (True, ["kept"])
    access = closed.get("/v1/state")["access"]
    lists = [access[name] for name in ("would_refuse", "ending", "long_lived", "open_to_networks")]
    assert (access["named"], lists, access["would_refuse_count"]) == (False, [[]] * 4, 0)


def test_the_state_names_rows_that_cannot_be_read(closed: Closed, server: Postgres, database: str) -> None:
    """To those who may observe everything, with the reason; the others learn how many there are."""
    row = "insert into identities select 'bad', 'dns', 'x', '', 'robot', '[]', '{}', 'psql', now()"
    server.execute(row, url=database)
    server.execute("update registry_state set access_generation = access_generation + 1", url=database)
    eventually(lambda: closed.get("/v1/state", closed.admin)["access"]["unreadable_count"] == 1, within=5)
    (said,) = closed.get("/v1/state", closed.admin)["access"]["unreadable"]
    assert said.startswith("identity bad: the kind 'robot' is none of")
    assert closed.get("/v1/state")["access"]["unreadable"] == []


def test_pages_without_a_reader_say_nothing_of_the_registry(closed: Closed) -> None:
    """Neither the verdict nor what stands behind it: /v1/verdict needs `observe` for these."""
    client = closed.registry.client
    reads = bearer(closed.token("reads", {"verbs": ["read"], "services": [MINE]})["token"])
    live = {"hx-request": "true"}
    for url, headers in (("/ui/login", {}), ("/ui/services", live), ("/ui/audit", reads), ("/ui/services", reads)):
        text = client.get(url, headers=headers).text
        assert [words in text for words in ("notice", "notice-words")] == [True, False], url
    assert "notice-words" in client.get("/ui/services", headers=closed.reader).text
    overview = client.get("/ui/overview", headers=reads).text
    assert "What is wrong with the registry is shown to those with the verb <code>observe</code>" in overview
    assert [words in overview for words in ("What was checked", "This process")] == [False, False]


def test_traffic_of_others_is_neither_shown_nor_counted(closed: Closed) -> None:
    """Neither on the map nor in the table, the numbers above them or the headline."""
    report(closed.registry, [Call(MINE, "stock"), Call("stock", THEIRS, 100, 100)], **closed.admin)
    client = closed.registry.client
    pages = [client.get("/ui/traffic", headers=headers).text for headers in (closed.admin, closed.reader)]
    assert [THEIRS in page for page in pages] == [True, False]
    assert ["1 of 2 pairs are unhealthy" in page for page in pages] == [True, False]
    assert "The pair with traffic is healthy" in pages[1]


def test_pages_of_events_are_full(closed: Closed) -> None:
    """The newest forty events are of the other service: a page of five has the newest five of the reader's own."""
    page = closed.get("/v1/events?limit=5")
    assert len(page["events"]) == 5
    everything = closed.get("/v1/events?limit=1000", closed.admin)["events"]
    own = [event for event in everything if event["service"] in (MINE, OURS, "*")]
    assert page["events"] == own[:5]
    assert closed.get(f"/v1/events?limit=1000&cursor={page['next']}")["events"] == own[5:]


@pytest.mark.parametrize(
    "url",
    [
        "/v1/services/{}",
        "/v1/services/{}/endpoints",
        "/v1/services/{}/endpoints/10.0.0.3:80",
        "/v1/services/{}/endpoints/10.0.0.3:80/explain",
        "/v1/services/{}/history?at=1",
        "/v1/events?service={}",
        "/v1/subscribers?service={}",
        "/v1/prometheus/targets?service={}",
        "/ui/services/{}",
    ],
)
def test_nothing_says_whether_a_service_exists(closed: Closed, url: str) -> None:
    """A service that exists and one that does not are refused in the same words, but for their name."""
    answers = [closed.registry.client.get(url.format(name), headers=closed.reader) for name in (THEIRS, "no-such")]
    assert [answer.status_code for answer in answers] == [403, 403]
    there, absent = (
        re.sub(r'data-now="[0-9.]+"', "", answer.text.replace(name, "NAME").replace(answer.headers["x-request-id"], ""))
        for answer, name in zip(answers, (THEIRS, "no-such"), strict=True)
    )
    assert there == absent


def test_an_address_that_was_taken_does_not_name_the_other_service(closed: Closed) -> None:
    """The history of an endpoint says that its address was registered for another service, and not for which."""
    client, url = closed.registry.client, "/v1/services/{}/endpoints/10.0.7.7:80"
    for service, instance in ((MINE, "i-7"), (THEIRS, "i-8")):
        body = {"instance_id": instance, "incarnation": 1}
        assert client.put(url.format(service), json=body, headers=closed.admin).status_code == 200
    explained = closed.get(f"{url.format(MINE)}/explain")
    assert "another service" in json.dumps(explained)
    assert THEIRS not in json.dumps(explained)
    assert THEIRS in json.dumps(closed.get(f"{url.format(MINE)}/explain", closed.admin))


class Follower:
    """A reader of the stream of events, in a thread."""

    def __init__(self, closed: Closed, headers: dict[str, str]) -> None:
        self.services: list[str] = []
        self.ended_at: float | None = None
        self.began = threading.Event()
        self._url = f"{closed.registry.url}/v1/events"
        self._headers = headers | {"accept": "text/event-stream"}
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        assert self.began.wait(10)

    def _follow(self) -> None:
        with httpx.stream("GET", self._url, headers=self._headers, timeout=30, trust_env=False) as answer:
            for line in answer.iter_lines():
                self.began.set()
                if line.startswith("data: "):
                    self.services.append(json.loads(line.removeprefix("data: "))["service"])
        self.ended_at = time.monotonic()


def test_a_stream_has_what_may_be_read_and_ends_with_its_credential(closed: Closed) -> None:
    """Events of other services are passed over; another token changes nothing; a revocation ends it within 5 s."""
    made = closed.token("follower", {"verbs": ["read"], "services": [MINE]})
    follower = Follower(closed, bearer(made["token"]))
    everyone = Follower(closed, closed.admin)
    for service in (THEIRS, OURS, MINE):
        closed.set_health(service, "DEGRADED")
    eventually(lambda: len(everyone.services) == 3, within=5)
    eventually(lambda: bool(follower.services), within=5)
    # Every subject is made anew when any credential changes; the stream goes on with the new one.
    closed.token("somebody-else", {"verbs": ["read"], "services": [MINE]})
    time.sleep(1.5)
    for service in (THEIRS, MINE):
        closed.set_health(service, "HEALTHY")
    eventually(lambda: len(follower.services) == 2, within=5)
    assert follower.services == [MINE, MINE]
    revoked_at = time.monotonic()
    assert closed.registry.client.delete(f"/v1/tokens/{made['id']}", headers=closed.admin).status_code == 204
    eventually(lambda: follower.ended_at is not None, within=5)
    assert (follower.ended_at or 0) - revoked_at < 5
    assert everyone.ended_at is None


def test_a_stream_ends_when_its_token_expires(closed: Closed) -> None:
    """A token that is good for three seconds follows for no longer than a second more."""
    made = new_token(closed.registry, closed.admin_token, "short", {"verbs": ["read"], "services": [MINE]}, ttl=3)
    begun = time.monotonic()
    follower = Follower(closed, bearer(made["token"]))
    eventually(lambda: follower.ended_at is not None, within=8)
    assert 2 < (follower.ended_at or 0) - begun < 5.5
