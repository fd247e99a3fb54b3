"""Permissions: every route asks the policy, and what it refuses is 403 and changes nothing, through every front."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness import refusing_registry
from harness.postgres import Postgres
from harness.registry import Registry, registry
from harness.routes import ENDPOINT, SERVICE, Route, every_route

from registry import process as process_module
from registry.app import build_app, describe
from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.core.snapshot import SnapshotDelta
from registry.errors import NotAllowedError
from registry.process import RegistryProcess
from registry.settings import load_settings

FREE = {
    "/",
    "/v1/whoami",
    "/v1/authorize",
    "/v1/login/aws",
    "/v1/login/renew",
    "/v1/logout",
    "/hc",
    "/healthcheck",
    "/livez",
    "/readyz",
    "/docs",
    "/ui",
    "/ui/",
    "/ui/login",
    "/ui/login/oidc",
    "/ui/login/oidc/callback",
    "/ui/logout",
}
"""Routes that anybody may ask: they tell nothing but that a process runs, or lead to a page."""
VERBS: dict[tuple[str, str], Verb] = {
    ("GET", "/metrics"): Verb.OBSERVE,
    ("GET", "/version"): Verb.OBSERVE,
    ("GET", "/v1/state"): Verb.OBSERVE,
    ("GET", "/v1/verdict"): Verb.OBSERVE,
    ("GET", "/ui/audit"): Verb.ADMIN,
    ("GET", "/ui/registry"): Verb.READ,
    ("GET", "/v1/registration/{service}"): Verb.DISCOVER,
    ("GET", "/v1/registration/repo/{repository}"): Verb.DISCOVER,
    ("POST", "/v2/discovery:endpoints"): Verb.DISCOVER,
    ("POST", "/v3/discovery:endpoints"): Verb.DISCOVER,
    ("POST", "/v3/discovery:clusters"): Verb.DISCOVER,
    ("POST", "/v3/discovery:listeners"): Verb.DISCOVER,
    ("POST", "/v3/discovery:routes"): Verb.DISCOVER,
    ("POST", "/v1/edge/assignments"): Verb.DISCOVER,
    ("POST", "/v1/mesh/revisions"): Verb.CONFIGURE,
    ("POST", "/v1/mesh/revisions/{number}/rollback"): Verb.CONFIGURE,
    ("PUT", "/v1/services/{service}/endpoints/{endpoint}"): Verb.REGISTER,
    ("GET", "/v1/audit"): Verb.ADMIN,
    ("GET", "/v1/tokens"): Verb.ADMIN,
    ("POST", "/v1/tokens"): Verb.ADMIN,
    ("POST", "/v1/tokens/{token_id}/rotate"): Verb.ADMIN,
    ("DELETE", "/v1/tokens/{token_id}"): Verb.ADMIN,
    ("POST", "/v1/login/code"): Verb.ADMIN,
    ("GET", "/v1/identities"): Verb.ADMIN,
    ("PUT", "/v1/identities/{name}"): Verb.ADMIN,
    ("DELETE", "/v1/identities/{name}"): Verb.ADMIN,
    ("POST", "/v1/heartbeats"): Verb.REGISTER,
    ("POST", "/v1/probes"): Verb.REGISTER,
    ("POST", "/v1/traffic"): Verb.REGISTER,
    ("POST", "/v1/services/{service}/endpoints/{endpoint}/drain"): Verb.OPERATE,
    ("DELETE", "/v1/services/{service}/endpoints/{endpoint}"): Verb.OPERATE,
    ("DELETE", "/v1/services/{service}"): Verb.OPERATE,
    ("PUT", "/v1/services/{service}/endpoints/{endpoint}/override"): Verb.OPERATE,
    ("PATCH", "/v1/services/{service}/endpoints/{endpoint}/override"): Verb.OPERATE,
    ("DELETE", "/v1/services/{service}/endpoints/{endpoint}/override"): Verb.OPERATE,
    ("PUT", "/v1/expiry/pause"): Verb.OPERATE,
    ("DELETE", "/v1/expiry/pause"): Verb.OPERATE,
    ("POST", "/v1/registration/{service}"): Verb.REGISTER,
    ("DELETE", "/v1/registration/{service}/{host}"): Verb.REGISTER,
    ("POST", "/v1/loadbalancing/{service}"): Verb.OPERATE,
    ("POST", "/v1/loadbalancing/{service}/{ip}"): Verb.OPERATE,
    ("POST", "/v1/errands"): Verb.DEBUG,
    ("GET", "/v1/errands/next"): Verb.REGISTER,
    ("GET", "/v1/errands/{errand}"): Verb.INSPECT,
    ("POST", "/v1/errands/{errand}/result"): Verb.REGISTER,
    ("POST", "/v1/services/{service}/bulk"): Verb.OPERATE,
    ("POST", "/ui/services/{service}/bulk"): Verb.OPERATE,
    ("PUT", "/v1/services/{service}/expected"): Verb.OPERATE,
    ("GET", "/v1/services/{service}/shares"): Verb.READ,
    ("PUT", "/v1/services/{service}/shares"): Verb.OPERATE,
    ("DELETE", "/v1/services/{service}/shares"): Verb.OPERATE,
    ("POST", "/ui/services/{service}/shares"): Verb.OPERATE,
    ("POST", "/v1/services/{service}/shift"): Verb.OPERATE,
    ("POST", "/ui/services/{service}/shift/start"): Verb.OPERATE,
    ("POST", "/v1/services/{service}/shift/pause"): Verb.OPERATE,
    ("POST", "/ui/services/{service}/shift/pause"): Verb.OPERATE,
    ("POST", "/v1/services/{service}/shift/resume"): Verb.OPERATE,
    ("POST", "/ui/services/{service}/shift/resume"): Verb.OPERATE,
    ("POST", "/v1/services/{service}/shift/abort"): Verb.OPERATE,
    ("POST", "/ui/services/{service}/shift/abort"): Verb.OPERATE,
    ("POST", "/v1/services/{service}/shift/promote"): Verb.OPERATE,
    ("POST", "/ui/services/{service}/shift/promote"): Verb.OPERATE,
    ("POST", "/v1/services/{service}/lost/acknowledge"): Verb.OPERATE,
    ("POST", "/v1/services/{service}/lost/{endpoint}/acknowledge"): Verb.OPERATE,
    ("POST", "/ui/services/{service}/expected"): Verb.OPERATE,
    ("POST", "/ui/services/{service}/lost/acknowledge"): Verb.OPERATE,
    ("POST", "/ui/services/{service}/lost/{endpoint}/acknowledge"): Verb.OPERATE,
    ("POST", "/ui/services/{service}/endpoints/{endpoint}/override"): Verb.OPERATE,
    ("POST", "/ui/services/{service}/endpoints/{endpoint}/drain"): Verb.OPERATE,
    ("POST", "/ui/services/{service}/endpoints/{endpoint}/undrain"): Verb.OPERATE,
    ("POST", "/ui/services/{service}/endpoints/{endpoint}/clear"): Verb.OPERATE,
    ("POST", "/v1/mesh/revisions/{number}/promote"): Verb.CONFIGURE,
    ("POST", "/v1/mesh/revisions/{number}/pause"): Verb.CONFIGURE,
    ("POST", "/v1/mesh/revisions/{number}/resume"): Verb.CONFIGURE,
    ("DELETE", "/v1/mesh/catalog/{service}"): Verb.OPERATE,
    ("POST", "/ui/mesh/revisions/{number}/rollback"): Verb.CONFIGURE,
    ("POST", "/ui/mesh/revisions/{number}/promote"): Verb.CONFIGURE,
    ("POST", "/ui/mesh/revisions/{number}/pause"): Verb.CONFIGURE,
    ("POST", "/ui/mesh/revisions/{number}/resume"): Verb.CONFIGURE,
    ("POST", "/ui/registry/pause"): Verb.OPERATE,
    ("POST", "/ui/registry/resume"): Verb.OPERATE,
}
"""The verb that each route asks for first; a GET that is not here reads."""
ASKING = [route for route in every_route() if route.path not in FREE]
BATCH = "/v1/heartbeats"


def verb_of(route: Route) -> Verb:
    """Return the verb that a route has to ask for."""
    method = "GET" if route.method == "HEAD" else route.method
    known = VERBS.get((method, route.path.removesuffix("/")))
    assert known is not None or method == "GET", f"VERBS lacks {route.method} {route.path}: which verb is it?"
    return known or Verb.READ


def test_every_route_that_asks_documents_its_refusal() -> None:
    """OpenAPI names 403 where the policy is asked, and not where anybody is answered."""
    operations = {
        (method.upper(), path): operation["responses"]
        for path, methods in describe(build_app())["paths"].items()
        for method, operation in methods.items()
    }
    documented = {route for route, responses in operations.items() if "Not allowed" in str(responses.get("403"))}
    # The status of /readyz is free, and what each part does is not. A role that logs in may have no identity,
    # and questions about other principals need a grant.
    assert documented == {
        route for route in operations if route[1] not in FREE - {"/readyz", "/v1/login/aws", "/v1/authorize"}
    }


class Asked(Policy):
    """Refuses everything, and keeps what it was asked for first."""

    questions: list[tuple[Verb, str, str]] = []  # noqa: RUF012  # of the one policy of a process

    def allow(
        self, principal: Principal, verb: Verb, service: str = "", endpoint: str = "", instance_id: str | None = None
    ) -> None:
        """Refuse."""
        del principal, instance_id
        self.questions.append((verb, service, endpoint))
        raise NotAllowedError("nothing is allowed here")


class OneService(Policy):
    """Allows what concerns one service, and refuses everything else."""

    def allow(
        self, principal: Principal, verb: Verb, service: str = "", endpoint: str = "", instance_id: str | None = None
    ) -> None:
        """Refuse other services, and what names none."""
        del principal, instance_id
        if service != SERVICE:
            raise NotAllowedError(f"only {SERVICE} is allowed here, not {verb} {service} {endpoint}")


@pytest.fixture(scope="module", params=[Asked])
def refusing_app(request: pytest.FixtureRequest) -> Any:
    """The application of a process that has read its state and has a policy that refuses; it has no database.

    Tests share it: nothing that is refused changes it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process_module, "Policy", request.param)
        process = RegistryProcess(load_settings(), "postgresql://nobody@127.0.0.1:1/nothing")
    process.cache.set_database("database")
    process.cache.apply([SnapshotDelta(SERVICE, 1, 1, listed=[])])
    process.cache.mark_ready(0.0)
    return build_app(process)


@pytest.mark.parametrize("route", ASKING, ids=lambda route: f"{route.method} {route.path}")
async def test_every_route_asks_the_policy_first(refusing_app: Any, route: Route) -> None:
    """A route that forgets to ask answers something else than 403, or asks PostgreSQL, which is not there."""
    Asked.questions.clear()
    transport = httpx.ASGITransport(refusing_app)
    async with httpx.AsyncClient(transport=transport, base_url="http://registry") as client:
        answer = await client.request(route.method, route.url, **route.content)
    if (route.method, route.path) == ("POST", BATCH):
        assert (answer.status_code, answer.json()["results"][0]["problem"]["status"]) == (200, 403)
    else:
        assert_refused(answer, route)
    verb, service, endpoint = Asked.questions[0]
    assert verb == verb_of(route)
    assert service in ("", SERVICE, "shop")
    assert endpoint in ("", ENDPOINT, "10.0.0.5:8080")


READS_OF_A_SERVICE = [
    "/v1/services/{}",
    "/v1/services/{}/endpoints",
    "/v1/events?service={}",
    "/v1/subscribers?service={}",
    "/v1/prometheus/targets?service={}",
    "/v1/traffic?caller={}",
    "/v1/traffic?callee={}",
    "/v1/traffic/routes?callee={}",
    "/ui/services/{}",
    "/ui/services/{}/counts",
    "/ui/subscribers?service={}",
    "/ui/mesh/services/{}",
]
"""Reads that concern one service, in their path or by a filter."""


async def get(app: Any, url: str, **headers: str) -> httpx.Response:
    """Ask an application, without a server."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://registry") as client:
        return await client.get(url, headers=headers)


@pytest.mark.parametrize("refusing_app", [OneService], indirect=True)
@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
@pytest.mark.parametrize("url", READS_OF_A_SERVICE)
async def test_a_read_of_a_service_names_it_to_the_policy(refusing_app: Any, url: str, accept: str) -> None:
    """A principal that may read one service alone reads what there is of it, and nothing of another one."""
    # 503 comes of the database, which is not there, and so behind the policy.
    assert (await get(refusing_app, url.format(SERVICE), accept=accept)).status_code in (200, 503)
    assert (await get(refusing_app, url.format("other"), accept=accept)).status_code == 403


@pytest.mark.parametrize("refusing_app", [OneService], indirect=True)
@pytest.mark.parametrize(
    "url",
    [
        "/v1/events",
        "/v1/subscribers",
        "/v1/prometheus/targets",
        "/v1/traffic",
        f"/v1/prometheus/targets?service={SERVICE}&service=other",
        "/v1/expiry",
    ],
)
async def test_a_read_of_more_than_one_service_is_refused(refusing_app: Any, url: str) -> None:
    """Without a filter, and with a filter that names a service that is refused beside one that is not."""
    assert (await get(refusing_app, url)).status_code == 403


async def test_the_policy_is_asked_before_a_cursor_is_read(refusing_app: Any) -> None:
    """A principal that may not read a service does not learn what is wrong with its request."""
    assert (await get(refusing_app, f"/v1/services/{SERVICE}/endpoints?cursor=no")).status_code == 403


def assert_refused(answer: httpx.Response, route: Route) -> None:
    """Check that an answer refuses a request in the words of its front."""
    assert answer.status_code == 403, answer.text
    if "drop-in" in route.tags:
        assert answer.content == b""
    elif "console" in route.tags and not route.path.endswith("/counts"):
        assert "Not allowed" in answer.text
        assert answer.headers["content-type"].startswith("text/html")
    elif "console" not in route.tags and route.method != "HEAD":
        assert answer.json()["title"] == "Not allowed"


class Refusing:
    """A registry whose policy refuses what a test says.

    Args:
        registry: the process and its client.
        refusals: the file that its policy reads.
    """

    def __init__(self, registry: Registry, refusals: Path) -> None:
        self.registry = registry
        self._refusals = refusals

    def refuse(self, verb: Verb | None, endpoint: str = "") -> None:
        """Refuse a verb from now on, for all endpoints or for one; None: nothing."""
        self._refusals.write_text(f"{verb or ''} {endpoint}".strip())

    def send(self, route: Route) -> httpx.Response:
        """Send the request of a route."""
        return self.registry.client.request(route.method, route.url, **route.content)

    def known(self) -> list[Any]:
        """Return all that a write could change: endpoints, services, pauses and the newest event."""
        client = self.registry.client
        services = client.get("/v1/services").json()["services"]
        endpoints = [self.registry.endpoints(service["name"]) for service in services]
        newest = client.get("/v1/events?limit=1").json()["events"]
        return [services, endpoints, client.get("/v1/expiry").json(), newest]


@pytest.fixture(scope="module", params=["fast", "plain", "route"])
def refusing(request: pytest.FixtureRequest, server: Postgres, workplace: Path) -> Iterator[Refusing]:
    """A registry that answers by one of the fronts, with one endpoint that is drained by an operator."""
    refusals = workplace / f"refusals-{request.param}"
    refusals.write_text("")
    file = Path(refusing_registry.__file__)
    env = {refusing_registry.REFUSALS: str(refusals)}
    with registry(server.migrated_database(), workplace, file=file, env=env, door=request.param) as started:
        started.register(SERVICE, ENDPOINT, ttl=3_600)
        override = {"drain": True, "reason": "a test"}
        url = f"/v1/services/{SERVICE}/endpoints/{ENDPOINT}/override"
        assert started.client.put(url, json=override).status_code == 200
        yield Refusing(started, refusals)


@pytest.fixture(autouse=True)
def nothing_refused(request: pytest.FixtureRequest) -> Iterator[None]:
    """Allow everything again after each test."""
    yield
    if "refusing" in request.fixturenames:
        request.getfixturevalue("refusing").refuse(None)


@pytest.mark.parametrize("verb", [Verb.READ, Verb.DISCOVER, Verb.REGISTER, Verb.OPERATE, Verb.OBSERVE])
def test_what_is_refused_is_403_and_changes_nothing(refusing: Refusing, verb: Verb) -> None:
    """Each route that asks for the verb is refused in the words of its front; what is known stays as it was."""
    before = refusing.known()
    asking = [route for route in ASKING if verb_of(route) is verb and route.path != BATCH]
    assert asking
    refusing.refuse(verb)
    for route in asking:
        assert_refused(refusing.send(route), route)
    assert_free(refusing.registry)
    refusing.refuse(None)
    assert refusing.known() == before


def assert_free(started: Registry) -> None:
    """Check that whoever is refused everything still learns that the process runs and is ready."""
    for path in ("/livez", "/readyz", "/hc", "/healthcheck", "/", "/docs", "/ui/static/console/console.css"):
        assert started.client.get(path).status_code == 200, path


def test_readiness_tells_of_parts_to_those_who_may_observe(refusing: Refusing) -> None:
    """The status code is free, and what each part does is not."""
    refusing.refuse(Verb.OBSERVE)
    assert refusing.registry.client.get("/readyz").status_code == 200
    assert refusing.registry.client.get("/readyz?verbose").status_code == 403


@pytest.mark.parametrize("verb", [None, Verb.OPERATE])
def test_an_instance_drains_and_deregisters_its_own_endpoint_without_being_an_operator(
    refusing: Refusing, verb: Verb | None, service: str
) -> None:
    """A drain and a deregistration that name the instance or its incarnation are a registrar's."""
    refusing.registry.register(service, "10.0.0.9:80", instance_id="i-9")
    refusing.refuse(verb)
    client, url = refusing.registry.client, f"/v1/services/{service}/endpoints/10.0.0.9:80"
    assert client.post(f"{url}/drain?instance_id=i-9").status_code == 200
    assert client.post(f"{url}/drain?incarnation=1").status_code == 200
    assert client.delete(f"{url}?instance_id=i-9").status_code == 204


def test_a_write_to_several_hosts_of_which_one_is_refused_changes_none(refusing: Refusing, service: str) -> None:
    """The drop-in contracts write to all ports of an address, or to all hosts of a service, at once."""
    names = [f"10.0.3.1:{port}" for port in (80, 81, 82)]
    for name in names:
        assert refusing.registry.register(service, name).status_code == 200
    before = refusing.registry.endpoints(service)
    client, weight = refusing.registry.client, {"load_balancing_weight": "5"}
    refusing.refuse(Verb.OPERATE, names[1])
    weighed = [
        client.post(f"/v1/loadbalancing/{service}", data=weight),
        client.post(f"/v1/loadbalancing/{service}/10.0.3.1", data=weight),
    ]
    refusing.refuse(Verb.REGISTER, names[1])
    deregistered = client.delete(f"/v1/registration/{service}/10.0.3.1")
    assert [(answer.status_code, answer.content) for answer in (*weighed, deregistered)] == [(403, b"")] * 3
    # Behind every write that began: changes of one service are stored in their order.
    assert refusing.registry.register(service, "10.0.3.2:80").status_code == 200
    assert refusing.registry.endpoints(service)[:3] == before
    refusing.refuse(None)
    assert client.post(f"/v1/loadbalancing/{service}", data=weight).status_code == 204
    assert client.delete(f"/v1/registration/{service}/10.0.3.1").status_code == 200


def test_a_refused_heartbeat_of_a_batch_is_a_problem_in_its_place(refusing: Refusing, service: str) -> None:
    """The others are registered, and later renewed, whether the refused one is known or not."""
    names = [f"10.0.1.{number}:80" for number in range(4)]

    def beat() -> list[int]:
        registration = {"instance_id": "i-1", "incarnation": 1}
        batch = [{"service": service, "endpoint": name, "registration": registration} for name in names]
        answer = refusing.registry.client.post(BATCH, json={"heartbeats": batch})
        assert answer.status_code == 200
        results = answer.json()["results"]
        assert [result["endpoint"] for result in results] == names
        return [result["problem"]["status"] if "problem" in result else 200 for result in results]

    refusing.refuse(Verb.REGISTER, names[1])
    assert [beat(), beat()] == [[200, 403, 200, 200]] * 2
    assert [one["endpoint"] for one in refusing.registry.endpoints(service)] == [names[0], *names[2:]]
    refusing.refuse(None)
    # The last of them is recognized by its words alone.
    assert [beat(), beat(), beat()] == [[200] * 4] * 3
    refusing.refuse(Verb.REGISTER, names[2])
    assert [beat(), beat()] == [[200, 200, 403, 200]] * 2


def test_a_refused_renewal_is_403(refusing: Refusing, service: str) -> None:
    """Also one that is recognized by its words. Its lease is not renewed, and each front counts it."""
    counters = (
        'registry_heartbeats_total{outcome="refused"}',
        'registry_requests_refused_total{code="403"}',
        'registry_http_requests_total{code="403",method="PUT",route="/v1/services/{service}/endpoints/{endpoint}"}',
    )

    def counts() -> list[float]:
        lines = refusing.registry.client.get("/metrics").text.splitlines()
        values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return [float(values.get(counter, 0)) for counter in counters]

    before = counts()
    for _ in range(3):
        assert refusing.registry.register(service, "10.0.2.1:80").status_code == 200
    refusing.refuse(Verb.REGISTER, "10.0.2.1:80")
    answer = refusing.registry.register(service, "10.0.2.1:80")
    assert (answer.status_code, answer.json()["title"]) == (403, "Not allowed")
    assert "may not register 10.0.2.1:80" in answer.json()["detail"]
    assert counts() == [count + 1 for count in before]


def test_a_poll_without_names_asks_too(refusing: Refusing) -> None:
    """For some resource types it asks for all resources."""
    assert refusing.registry.poll().status_code == 200
    refusing.refuse(Verb.DISCOVER)
    answer = refusing.registry.poll(version="5f0c1a9e:7")
    assert (answer.status_code, answer.json()["title"]) == (403, "Not allowed")


def test_a_read_has_no_actor(refusing: Refusing) -> None:
    """X-Actor is not verified and is for the history of writes: a poll is judged by its address, as every read is."""
    client, actor = refusing.registry.client, {"x-actor": "eve"}
    refusing.refuse(Verb.DISCOVER)
    body = {"version_info": "5f0c1a9e:7", "resource_names": [SERVICE]}
    polled = client.post("/v3/discovery:endpoints", json=body, headers=actor)
    refusing.refuse(Verb.READ)
    read = client.get(f"/v1/services/{SERVICE}", headers=actor)
    assert polled.json()["detail"].startswith("127.0.0.1 may not discover")
    assert read.json()["detail"].startswith("127.0.0.1 may not read")
