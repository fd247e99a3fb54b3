"""The console's pages and forms as a browser would ask for them, without one: what is answered, and what is refused."""

import re
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from urllib.parse import urlsplit

import httpx
import pytest
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

from registry import console as registry_console

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}"
TEXTS = ("instance_id", "detail", "revision", "zone", "region", "repository")


def page(found: Registry, path: str) -> str:
    """Return a page that there is."""
    answer = found.client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8"), path
    return answer.text


def badge(found: Registry, path: str = "/ui/services") -> str:
    """Return the verdict in the header of a page."""
    element = re.search(r'<a id="notice-words".*?</a>', page(found, path))
    return element.group() if element else ""


def update(found: Registry, path: str, etag: str = "") -> httpx.Response:
    """Ask for a page as it asks for itself every two seconds."""
    return found.client.get(path, headers={"hx-request": "true", "if-none-match": etag})


def send(found: Registry, path: str, fields: dict[str, str], **headers: str) -> httpx.Response:
    """Send a form as the console's own page does."""
    told = {"sec-fetch-site": "same-origin"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return found.client.post(path, data=fields, headers=told)


def form_of(service: str, verb: str) -> str:
    """Return where a form of an endpoint is sent to."""
    return f"/ui/services/{service}/endpoints/10.0.0.1:80/{verb}"


def test_the_console_begins_with_the_overview(shared_registry: Registry, service: str) -> None:
    """/ui leads there, with a slash too, and the list of services has every service that registered."""
    shared_registry.register(service, "10.0.0.1:80")
    for path in ("/ui", "/ui/"):
        first = shared_registry.client.get(path)
        assert (first.status_code, first.headers["location"]) == (307, "/ui/overview"), path
    assert f"/ui/services/{service}" in page(shared_registry, f"/ui/services?q={service}")


def send_hostile_words(target: Registry, service: str) -> None:
    """Register, override and poll with texts that nobody well-meaning sends."""
    said = dict.fromkeys(TEXTS, HOSTILE) | {"metadata": {HOSTILE: HOSTILE}}
    target.register(service, "10.0.0.1:80", **said)
    override = {"weight": 3, "reason": HOSTILE}
    target.client.put(f"/v1/services/{service}/endpoints/10.0.0.1:80/override", json=override)
    node = {"id": HOSTILE, "cluster": HOSTILE, "locality": {"zone": HOSTILE}}
    target.client.post("/v3/discovery:endpoints", json={"node": node, "resource_names": [service]})


def check_hostile_words(target: Registry, path: str) -> None:
    """Check that a page shows them, as words."""
    text = page(target, path)
    assert "&lt;script&gt;alert(1)" in text, path
    assert "<script>alert" not in text, path
    assert "<img src=x" not in text, path
    assert "49" not in re.findall(r"onerror=alert\(1\)&gt;(\S+)", text), path


def test_hostile_words_are_words_on_the_first_page(database: str, workplace: Path) -> None:
    """It names the first few of each finding, so the registry has nothing else to name."""
    with registry(database, workplace) as own:
        send_hostile_words(own, "shop")
        eventually(lambda: "alert(1)" in page(own, "/ui/overview"), within=10)
        check_hostile_words(own, "/ui/overview")


def test_hostile_words_are_words(shared_registry: Registry, service: str) -> None:
    """What registrars, operators and Envoys send never becomes markup, on any page."""
    send_hostile_words(shared_registry, service)
    paths = (
        f"/ui/services/{service}",
        f"/ui/services/{service}/endpoints/10.0.0.1:80",
        f"/ui/subscribers?service={service}",
        f"/ui/events?service={service}",
    )
    for path in paths:
        check_hostile_words(shared_registry, path)
    for path in ("/ui/services", "/ui/events", "/ui/subscribers", "/ui/traffic"):
        assert "<script>alert" not in page(
            shared_registry, f"{path}?{httpx.QueryParams({'q': HOSTILE, 'actor': HOSTILE})}"
        )


def test_pages_may_run_nothing_but_our_own_files(shared_registry: Registry) -> None:
    """The policy allows nothing inline and no other origin, on pages, errors and files; and no page needs more."""
    for path in ("/ui/services", "/ui/registry", "/ui/nothing", "/ui/static/console/console.js"):
        answer = shared_registry.client.get(path)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';"), path
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    text = page(shared_registry, "/ui/registry")
    assert not re.search(r"<script(?![^>]*\bsrc=)|\sstyle=|\son\w+=|<style|\s(?:src|href|action)=\"?https?://", text)


def test_an_update_without_a_change_is_empty(shared_registry: Registry, service: str) -> None:
    """Times alone make no new page, the browser counts them; a change does; a whole page has no tag to be kept by."""
    shared_registry.register(service, "10.0.0.1:80", ttl=3600)
    path = f"/ui/services/{service}"
    eventually(lambda: "10.0.0.1:80" in page(shared_registry, path))

    first = second = update(shared_registry, path)

    def repeated() -> bool:
        nonlocal first, second
        first = update(shared_registry, path)
        time.sleep(1.1)
        second = update(shared_registry, path, etag=first.headers["etag"])
        return second.status_code == 304

    # The verdict in the header changes with what other tests do.
    eventually(repeated, within=15)
    assert (second.content, second.headers["etag"]) == (b"", first.headers["etag"])
    assert float(second.headers["headcount-time"]) > float(first.headers["headcount-time"])
    shared_registry.register(service, "10.0.0.1:80", ttl=3600, health="UNHEALTHY")
    third = update(shared_registry, path, etag=first.headers["etag"])
    assert (third.status_code, "UNHEALTHY" in third.text, "<html" in third.text) == (200, True, False)
    assert "etag" not in shared_registry.client.get(path).headers


def test_pages_are_compressed_unless_another_site_asks(shared_registry: Registry) -> None:
    """BREACH needs a site that has pages asked for with the person's cookie; and the sign-in is never compressed."""

    def encoding(path: str, **headers: str) -> str:
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        return str(shared_registry.client.get(path, headers=told).headers.get("content-encoding", "identity"))

    path = "/ui/registry"
    assert encoding(path, sec_fetch_site="same-origin", cookie="a=b") == "gzip"
    assert encoding(path, sec_fetch_site="none", cookie="a=b") == "gzip"
    assert encoding(path) == "gzip"
    assert encoding(path, cookie="a=b") == "identity"
    assert encoding(path, sec_fetch_site="cross-site") == "identity"
    assert encoding(path, sec_fetch_site="same-site") == "identity"
    assert encoding(path, accept_encoding="identity") == "identity"
    assert encoding("/ui/login?next=/ui/services", sec_fetch_site="same-origin") == "identity"
    assert encoding("/ui/static/console/console.js", sec_fetch_site="same-origin") == "identity"


def test_a_form_of_another_site_does_nothing(shared_registry: Registry, service: str) -> None:
    """It gets 403 and says why, as every other write of another site."""
    shared_registry.register(service, "10.0.0.1:80")
    answer = send(shared_registry, form_of(service, "drain"), {"reason": "x"}, sec_fetch_site="cross-site")
    assert answer.status_code == 403
    assert "another site" in answer.text
    assert shared_registry.statuses(service) == {"10.0.0.1:80": "HEALTHY"}


def test_a_browser_without_fetch_metadata_is_known_by_its_origin(shared_registry: Registry, service: str) -> None:
    """Over plain HTTP browsers send Origin alone."""
    shared_registry.register(service, "10.0.0.1:80")
    answer = shared_registry.client.post(form_of(service, "drain"), headers={"origin": shared_registry.url})
    assert answer.status_code == 303
    assert shared_registry.statuses(service) == {"10.0.0.1:80": "DRAINING"}


def test_a_drain_leaves_what_else_is_overridden(shared_registry: Registry, service: str) -> None:
    """Drain and undrain change the drain alone; the history has who and why."""
    shared_registry.register(service, "10.0.0.1:80")
    override = {"weight": "7", "canary": "yes", "reason": "slow disk", "expires_in": "3600", "who": "ann"}
    assert send(shared_registry, form_of(service, "override"), override).status_code == 303
    assert send(shared_registry, form_of(service, "drain"), {"reason": "worse", "who": "bert"}).status_code == 303
    (drained,) = shared_registry.endpoints(service)
    assert (drained["status"], drained["weight"], drained["canary"]) == ("DRAINING", 7, True)
    assert (drained["override"]["reason"], drained["override"]["actor"]) == ("worse", "bert from 127.0.0.1")
    assert drained["override"]["expires_at"] is None
    send(shared_registry, form_of(service, "undrain"), {})
    (back,) = shared_registry.endpoints(service)
    assert (back["status"], back["weight"], back["canary"]) == ("HEALTHY", 7, True)
    send(shared_registry, form_of(service, "clear"), {})
    (cleared,) = shared_registry.endpoints(service)
    assert (cleared["override"], cleared["weight"], cleared["canary"]) == (None, None, False)
    send(shared_registry, form_of(service, "drain"), {})
    send(shared_registry, form_of(service, "undrain"), {})
    assert shared_registry.endpoints(service)[0]["override"] is None


@pytest.mark.parametrize(
    ("verb", "fields", "status", "said"),
    [
        ("override", {}, 422, "sets no weight"),
        ("override", {"weight": "0"}, 422, "weight"),
        ("override", {"weight": "many"}, 422, "weight"),
        ("override", {"canary": "perhaps"}, 422, "canary"),
        ("override", {"weight": "5", "expires_in": "-1"}, 422, "expires_in"),
        ("drain", {"who": "<b>"}, 422, "who"),
        ("drain", {f"field{number}": "1" for number in range(30)}, 422, "cannot be read"),
        ("clear", {}, 404, "no override is set"),
        ("undrain", {}, 404, "nothing to take back"),
    ],
    ids=str,
)
def test_a_form_that_cannot_be_meant_is_refused_as_a_page(
    shared_registry: Registry, service: str, verb: str, fields: dict[str, str], status: int, said: str
) -> None:
    """With the API's statuses, and words that name the field."""
    shared_registry.register(service, "10.0.0.1:80")
    answer = send(shared_registry, form_of(service, verb), fields)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert said in answer.text
    assert shared_registry.endpoints(service)[0]["override"] is None


def test_a_form_leads_back_to_a_page_of_the_console(shared_registry: Registry, service: str) -> None:
    """To the one it was on, with its search, and never to another site."""
    shared_registry.register(service, "10.0.0.1:80")
    for back, there in {
        f"/ui/services/{service}?q=10&done=set": f"/ui/services/{service}?q=10&done=drained",
        "https://elsewhere.example/ui/": "/ui/services?done=drained",
        "//elsewhere.example": "/ui/services?done=drained",
    }.items():
        answer = send(shared_registry, form_of(service, "drain"), {"back": back})
        assert (answer.status_code, answer.headers["location"]) == (303, there)
    assert "Drained." in page(shared_registry, f"/ui/services/{service}?done=drained")
    assert "<script" not in page(shared_registry, "/ui/services?done=<script").partition("<body>")[2]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ui/nothing", 404),
        ("/ui/services/never-there", 404),
        ("/ui/services/shop/endpoints/10.0.0.77:80", 404),
        ("/ui/services/shop/endpoints/localhost:80", 422),
        ("/ui/services/" + "x" * 300, 422),
        ("/ui/services?sort=worst", 422),
        ("/ui/services?page=0", 422),
        ("/ui/events?actor=%00", 422),
        ("/ui/subscribers?service=%07", 422),
        ("/ui/traffic?sort=worst", 422),
    ],
)
def test_errors_are_pages(shared_registry: Registry, path: str, status: int) -> None:
    """With their status, what was wrong, and a way on."""
    answer = shared_registry.client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert 'href="/ui/services"' in answer.text


def test_an_endpoint_that_left_has_its_page(shared_registry: Registry, service: str) -> None:
    """Which says that it is not listed any more, and what happened last."""
    shared_registry.register(service, "10.0.0.1:80")
    shared_registry.client.delete(f"/v1/services/{service}/endpoints/10.0.0.1:80")
    eventually(lambda: not shared_registry.endpoints(service), within=10)
    text = page(shared_registry, f"/ui/services/{service}/endpoints/10.0.0.1:80")
    assert "Not listed" in text
    assert "deregistered" in text
    assert "No endpoint is listed" in page(shared_registry, f"/ui/services/{service}")


@pytest.fixture(scope="module")
def own_database(server: Postgres) -> str:
    """A database that may be spoilt."""
    return server.migrated_database()


@pytest.fixture(scope="module")
def alone(own_database: str, workplace: Path) -> Iterator[Registry]:
    """A registry on it, which soon sees what is done to it."""
    with registry(own_database, workplace, resync_interval="100ms", database_timeout="1s") as found:
        yield found


def test_a_quarantined_row_is_shown_with_its_reason(
    alone: Registry, own_database: str, server: Postgres, service: str
) -> None:
    """On its service's page, on its own, and as a warning in the list."""
    alone.register(service, "10.0.0.1:80")
    server.execute("UPDATE endpoints SET weight = 0, change = change + 1", url=own_database)
    server.execute("UPDATE services SET change = change + 1", url=own_database)
    eventually(lambda: "1 quarantined" in alone.client.get("/ui/services").text, within=5)
    assert "weight 0 is not from 1" in page(alone, f"/ui/services/{service}")
    assert "it is quarantined" in page(alone, f"/ui/services/{service}/endpoints/10.0.0.1:80")


def test_expiry_is_paused_and_goes_on(shared_registry: Registry, service: str) -> None:
    """By forms of the registry's page, which lists pauses and refuses one without a reason."""
    shared_registry.register(service, "10.0.0.1:80")
    pause = {"service": service, "reason": f"network work on {service}", "expires_in": "900", "who": "ann"}
    assert send(shared_registry, "/ui/registry/pause", pause).headers["location"] == "/ui/services?done=paused"
    assert f"network work on {service}" in page(shared_registry, "/ui/registry")
    assert f"Expiry of {service} is paused for another" in page(shared_registry, f"/ui/services/{service}")
    shared_registry.register(f"{service}-b", "10.0.0.2:80")
    assert f"network work on {service}" not in page(shared_registry, f"/ui/services/{service}-b")
    assert send(shared_registry, "/ui/registry/resume", {"service": service}).status_code == 303
    assert f"network work on {service}" not in page(shared_registry, "/ui/registry")
    assert send(shared_registry, "/ui/registry/resume", {"service": service}).status_code == 404
    assert send(shared_registry, "/ui/registry/pause", pause | {"reason": ""}).status_code == 422


def test_a_long_list_has_pages(shared_registry: Registry, service: str) -> None:
    """A hundred rows each; links lead on with the search, and a search looks at all of them."""
    beats = [
        {
            "service": service,
            "endpoint": f"10.0.1.{number}:80",
            "registration": {"instance_id": f"i-{number}", "incarnation": 1, "zone": "a" if number < 60 else "b"},
        }
        for number in range(1, 152)
    ]
    shared_registry.client.post("/v1/heartbeats", json={"heartbeats": beats})
    path = f"/ui/services/{service}"
    first, second = page(shared_registry, path), page(shared_registry, f"{path}?page=2")
    assert (len(re.findall('id="endpoint-', first)), len(re.findall('id="endpoint-', second))) == (100, 51)
    assert "Page 1 of 2" in first
    assert re.search(r'href="[^"]*page=2" rel="next"', first)
    # Of the whole service, on whatever page its endpoints are.
    assert "92 of 92 routable" in second
    assert len(re.findall('id="endpoint-', page(shared_registry, f"{path}?q=i-15&page=2"))) == 3


def test_no_secret_is_shown(alone: Registry, own_database: str) -> None:
    """The page of the registry says of the database's URL only that it is set."""
    text = page(alone, "/ui/registry")
    assert "set, not shown" in text
    assert own_database not in text
    parts = urlsplit(own_database)
    assert not parts.password or parts.password not in text


def test_counts_over_time_are_there_for_the_chart(shared_registry: Registry, service: str) -> None:
    """They end with what is listed now."""
    for number in (1, 2, 3):
        shared_registry.register(service, f"10.0.0.{number}:80", health="UNHEALTHY" if number == 3 else "HEALTHY")
    counts = shared_registry.client.get(f"/ui/services/{service}/counts?hours=6").json()
    assert {name: steps[-1] for name, steps in counts["statuses"].items() if steps[-1]} == {
        "HEALTHY": 2,
        "UNHEALTHY": 1,
    }
    assert {len(steps) for steps in counts["statuses"].values()} == {len(counts["at"])}
    assert counts["at"] == sorted(counts["at"])
    assert shared_registry.client.get("/ui/services/never-there/counts").status_code == 404


def test_the_first_page_says_what_check_says(server: Postgres, workplace: Path) -> None:
    """The headline is the gravest finding, the badge has the numbers, and when all is well both say so."""
    with registry(server.migrated_database(), workplace) as one:
        one.register("shop", "10.0.0.1:80")
        eventually(lambda: "<span>All well</span>" in badge(one), within=15, said=lambda: badge(one))
        well = page(one, "/ui/overview")
        assert "All is well</h1>" in well
        assert "<b>1</b> of <b>1</b> endpoints routable" in well
        assert "This process" in well
        assert '<td data-label="Detail">answered ' in well
        one.register("shop", "10.0.0.1:80", health="UNHEALTHY")
        path = "/v1/services/shop/endpoints/10.0.0.1:80/override"
        one.client.put(path, json={"weight": 5, "reason": "canary"}, headers={"x-actor": "ann"})
        eventually(lambda: "1 failure, 2 warnings" in badge(one), within=10, said=lambda: badge(one))
        assert all("1 failure, 2 warnings" in badge(one, f"/ui/{name}") for name in ("events", "registry", "overview"))
        title = "1 service has no routable endpoint; 1 endpoint fails its check; 1 over"
        assert f'class="failure" href="/ui/overview" title="{title}' in badge(one)
        counts = one.client.get("/v1/verdict").json()["counts"]
        assert (counts["failure"], counts["warning"]) == (1, 2)
        overview = page(one, "/ui/overview")
        assert "1 service has no routable endpoint</h1>" in overview
        assert '<a href="/ui/services/shop"><bdi>shop</bdi></a><bdi>: no endpoint may have traffic' in overview
        assert '<a href="/ui/services/shop/endpoints/10.0.0.1%3A80"><bdi>shop 10.0.0.1:80</bdi></a>' in overview
        assert "by ann" in overview


def test_pages_go_on_without_postgresql(alone: Registry, own_database: str, server: Postgres, service: str) -> None:
    """From memory, and each says what is missing; a form is refused as a page, with Retry-After."""
    name = urlsplit(own_database).path.removeprefix("/")
    alone.register(service, "10.0.0.1:80", detail="GET /healthz: 200")
    alone.poll(service)
    server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
    eventually(lambda: "old: from memory" in alone.client.get("/ui/registry").text, within=20, every=0.5)
    eventually(lambda: "PostgreSQL does not answer the registry" in badge(alone), within=10, said=lambda: badge(alone))
    assert 'class="failure"' in badge(alone)
    overview = page(alone, "/ui/overview")
    assert "PostgreSQL does not answer the registry" in overview
    assert "PostgreSQL is away; reads go on from memory, writes are refused" in overview
    listed = page(alone, f"/ui/services/{service}")
    assert "10.0.0.1:80" in listed
    assert "Pauses of expiry are not known" in listed
    away = "PostgreSQL is away: nothing can be changed until it is back"
    eventually(lambda: 'id="unwritable"' in page(alone, f"/ui/services/{service}"), within=15)
    listed = page(alone, f"/ui/services/{service}")
    assert f'data-refused="{away}"' in listed
    assert f'aria-disabled="true" title="{away}"' in listed
    told = page(alone, f"/ui/services/{service}/endpoints/10.0.0.1:80")
    assert "its registrar reports HEALTHY (GET /healthz: 200)" in told
    assert "Shown from memory, without heartbeats and pauses since " in told
    assert "The history is unavailable" in page(alone, "/ui/events")
    assert "only the Envoys of this registry process" in page(alone, "/ui/subscribers")
    shift = page(alone, f"/ui/services/{service}/shift")
    assert f"Whether {service} has a shift is not known" in shift
    assert "had no shift" not in shift
    state = page(alone, "/ui/registry")
    assert "discovery goes on from memory" in overview
    assert "old: from memory" in state
    # Of pages that nobody thought of here too, none is a defect.
    for path in _console_paths(service):
        status = alone.client.get(path).status_code
        assert status < 500 or status == 503, path
    refused = send(alone, form_of(service, "drain"), {})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert "PostgreSQL is away" in refused.text
    server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    eventually(lambda: 'class="failure"' not in badge(alone), within=15, said=lambda: badge(alone))
    assert away not in page(alone, f"/ui/services/{service}")


def _console_paths(service: str) -> list[str]:
    """Return the path of each page of the console, with names in the place of parameters."""
    modules = [import_module(f"registry.console.{module.name}") for module in iter_modules(registry_console.__path__)]
    routes = [route for module in modules if hasattr(module, "router") for route in module.router.routes]
    assert len(routes) > 15
    names = {"service": service, "endpoint": "10.0.0.1:80", "number": "1"}
    return ["/ui" + re.sub(r":\w+}", "}", route.path).format_map(names) for route in routes if "GET" in route.methods]


def test_a_list_is_filtered_by_what_registrars_say_of_their_endpoints(shared_registry: Registry, service: str) -> None:
    """Zone, revision, instance and metadata, in the API as on the page; and each choice is offered."""
    for number, zone, meta in ((1, "a", {"shard": 3}), (2, "b", {"shard": "3", "k=v": "x"}), (3, "a", {})):
        about = {"zone": zone, "revision": f"r{number % 2}", "metadata": meta, "instance_id": f"i-{number}"}
        shared_registry.register(service, f"10.0.0.{number}:80", **about)
    filters = {
        "zone=a": {1, 3},
        "zone=a&revision=r1": {1, 3},
        "revision=r0": {2},
        "metadata=shard": {1, 2},
        "metadata=shard%3D3": {1, 2},
        "metadata=k%3Dv": {2},
        "metadata=k%3Dv%3Dx": {2},
        "metadata=shard%3D4": set(),
        "zone=nowhere": set(),
    }
    for query, numbers in filters.items():
        text = page(shared_registry, f"/ui/services/{service}?{query}")
        shown = {int(number) for number in re.findall(r'<tr id="endpoint-10\.0\.0\.(\d):80"', text)}
        listed = shared_registry.client.get(f"/v1/services/{service}/endpoints?{query}").json()["endpoints"]
        assert shown == numbers == {int(each["endpoint"][7]) for each in listed}, query
    assert re.findall(r"<option>(r\d|a|b)</option>", text) == ["a", "b", "r0", "r1"]
    assert '<option value="shard=3">' in text
    instance = page(shared_registry, f"/ui/services/{service}?instance=i-2&show=metadata")
    assert re.findall(r"<bdi>([^<]*=[^<]*)</bdi>", instance) == ["k=v=x", "shard=3"]
