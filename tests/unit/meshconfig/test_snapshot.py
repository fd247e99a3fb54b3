"""What a configuration compiles to: a function of it alone, in which every cluster that a route names is served."""

import json
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from msgspec.structs import replace

from meshconfig.definition.dependency import Dependency
from meshconfig.definition.fault_injection import Abort, FaultInjection
from meshconfig.definition.header_changes import HeaderChanges
from meshconfig.definition.health_check import HealthCheck
from meshconfig.definition.limit import Limit
from meshconfig.definition.outlier_detection import OutlierDetection
from meshconfig.definition.retry import Retry
from meshconfig.definition.route import HeaderMatch, Rewrite, Route
from meshconfig.definition.shadow import Shadow
from meshconfig.definition.sticky import Sticky
from meshconfig.definition.tls import Tls
from meshconfig.effective import Caller, Configuration
from meshconfig.field_types import GRPC_CONDITIONS, RETRY_CONDITIONS
from meshconfig.resource import Catalog, NodeResources
from meshconfig.snapshot import compile_mesh

SAMPLES = Path(__file__).parents[2] / "samples" / "mesh"


def compiled(*dependencies: Dependency, targets: tuple[Dependency, ...] = ()) -> NodeResources:
    """Return the resources of a caller with these dependencies."""
    configuration = Configuration(callers={"web": Caller("web", dependencies, targets)})
    return compile_mesh(configuration, Catalog()).nodes["web"]


def uses(service: str, *routes: Route, **values: Any) -> Dependency:
    """Return a dependency on a service."""
    return Dependency(name=service, service=service, routes=routes, **values)


def cluster_of(dependency: Dependency, name: str = "") -> dict[str, Any]:
    """Return the cluster of a dependency."""
    document: dict[str, Any] = json.loads(compiled(dependency)["clusters"][name or dependency.name or ""].body)
    return document


def routes_of(*dependencies: Dependency, targets: tuple[Dependency, ...] = ()) -> list[dict[str, Any]]:
    """Return the routes of the first dependency."""
    document = json.loads(compiled(*dependencies, targets=targets)["routes"]["default"].body)
    routes: list[dict[str, Any]] = document["virtual_hosts"][0]["routes"]
    return routes


def methods_of(route: dict[str, Any]) -> str:
    """Return the methods that a route takes, as its match says them."""
    for header in route["match"].get("headers", ()):
        if header["name"] == ":method":
            match = header["string_match"]
            return str(match["exact"] if "exact" in match else match["safe_regex"]["regex"])
    return "any"


USER = Dependency(
    name="user",
    service="user",
    host_header="user-service",
    headers=HeaderChanges(add={"x-caller": "web"}),
    routes=(Route(path="/ping", timeout=0.1, retry=None), Route(prefix="/")),
)
PAYMENTS = Dependency(
    name="payments",
    address="api.payments.example:443",
    tls=Tls(),
    routes=(Route(prefix="/", fault=FaultInjection(abort=Abort(status=503, percent=0.5))),),
)
TESTING = Dependency(
    name="ab-testing",
    service="ab-testing",
    protocol="grpc",
    outlier_detection=OutlierDetection(consecutive_5xx=3, consecutive_gateway_failure=None),
    health_check=HealthCheck(grpc="ab-testing"),
    routes=(Route(prefix="/", retry=Retry(idempotent=("POST",), when=("unavailable",))),),
)


@pytest.mark.parametrize("kind", ["clusters", "routes"])
def test_the_example_of_the_documentation_compiles_to_this(kind: Any) -> None:
    """A registered service, a gRPC service and an address that is not registered, each field of them."""
    node = compiled(TESTING, PAYMENTS, USER)
    documents = [json.loads(resource.body) for resource in node[kind].values()]
    assert documents == json.loads((SAMPLES / f"web.{kind}.json").read_text())


def test_an_unregistered_address_may_need_time_until_it_serves() -> None:
    """Nothing that Envoy sends tells of DNS and active checks; of endpoints from the registry their version does."""
    clusters = compiled(TESTING, PAYMENTS, USER)["clusters"]
    assert (clusters["user"].eds_service, clusters["user"].settle) == ("user", 0)
    assert (clusters["payments"].eds_service, clusters["payments"].settle) == ("", 5)
    assert (clusters["ab-testing"].eds_service, clusters["ab-testing"].settle) == ("ab-testing", 13)


def test_methods_decide_over_retries() -> None:
    """Safe and idempotent methods are repeated whatever failed, the others only if no app can have begun them."""
    full, careful = routes_of(uses("user"))
    assert (methods_of(full), methods_of(careful)) == ("GET|HEAD|OPTIONS", "any")
    assert full["route"]["retry_policy"]["num_retries"] == 2
    assert careful["route"]["retry_policy"]["retry_on"] == "connect-failure,refused-stream,reset-before-request"
    assert "per_try_timeout" not in careful["route"]["retry_policy"]
    (only,) = routes_of(uses("user", Route(prefix="/", methods=("POST",))))[:1]
    assert methods_of(only) == "POST"
    assert only["route"]["retry_policy"]["retry_on"] == "connect-failure,refused-stream,reset-before-request"
    both = routes_of(uses("user", Route(prefix="/", methods=("PUT", "GET", "POST"), retry=Retry(idempotent=("PUT",)))))
    assert [methods_of(route) for route in both][:2] == ["GET|PUT", "POST"]


RESETS = {
    "overflow": frozenset[str](),
    "connection failure": frozenset({"connect-failure", "reset-before-request", "reset", "5xx", "gateway-error"}),
    "before the request": frozenset({"reset-before-request", "reset", "5xx", "gateway-error"}),
    "refused stream": frozenset({"refused-stream", "reset", "5xx", "gateway-error"}),
    "after the request": frozenset({"reset", "5xx", "gateway-error"}),
}
"""The conditions that make Envoy retry after each kind of reset: wouldRetryFromReset() of its retry_state_impl.cc."""


def repeats(conditions: set[str], statuses: set[int]) -> set[object]:
    """Return the resets and statuses after which Envoy tries again: wouldRetryFromHeaders() has the statuses."""
    resets = {reset for reset, met in RESETS.items() if met & conditions}
    wanted = {
        "5xx": set(range(500, 600)),
        "gateway-error": {502, 503, 504},
        "retriable-4xx": {409},
        "retriable-status-codes": statuses,
    }
    return resets.union(*(codes for condition, codes in wanted.items() if condition in conditions))


@given(
    when=st.lists(st.sampled_from(RETRY_CONDITIONS), min_size=1, unique=True),
    statuses=st.sampled_from([(502, 503, 504), (504, 503, 502), (503,), (409, 502, 503, 504)]),
)
def test_conditions_are_as_short_as_their_effect_allows(when: list[str], statuses: tuple[int, ...]) -> None:
    """Envoy retries after the same resets and statuses, and other conditions stay as they are."""
    retry = Retry(when=tuple(when), statuses=statuses, attempts=3)
    policy = routes_of(uses("user", Route(prefix="/", retry=retry)))[0]["route"]["retry_policy"]
    written = policy["retry_on"].split(",")
    assert len(written) <= len(when)
    assert repeats(set(written), set(policy.get("retriable_status_codes", ()))) == repeats(set(when), set(statuses))
    assert ("retriable_status_codes" in policy) == ("retriable-status-codes" in written)
    others = {"envoy-ratelimited", *GRPC_CONDITIONS}
    assert [condition for condition in written if condition in others] == [each for each in when if each in others]


def test_the_default_conditions_are_one_word() -> None:
    """It stands in each of the twenty dependencies of an Envoy."""
    policy = routes_of(uses("user"))[0]["route"]["retry_policy"]
    assert policy["retry_on"] == "gateway-error"
    assert "retriable_status_codes" not in policy


@pytest.mark.parametrize("retry", [None, Retry(attempts=1)])
def test_without_retries_one_route_is_enough(retry: Retry | None) -> None:
    """There is nothing that methods could decide."""
    (route,) = routes_of(uses("user", Route(prefix="/", retry=retry)))
    assert "retry_policy" not in route["route"]


def test_retries_that_several_routes_have_stand_once() -> None:
    """In their virtual host. A route with others keeps those, and one without any has an empty policy instead."""
    dependency = uses("user", Route(path="/once", retry=None), Route(prefix="/a"), Route(prefix="/", timeout=9))
    (host, _) = json.loads(compiled(dependency)["routes"]["default"].body)["virtual_hosts"]
    shared = host["retry_policy"]
    once, *others = (route["route"].get("retry_policy") for route in host["routes"])
    assert once == {}
    assert others.count(None) == 2
    alone = [json.loads(compiled(uses("user", route))["routes"]["default"].body) for route in dependency.routes[1:]]
    actions = [route.get("route", {}) for each in alone for route in each["virtual_hosts"][0]["routes"]]
    policies = [action["retry_policy"] for action in actions if action]
    assert [shared if policy is None else policy for policy in others] == policies


@pytest.mark.parametrize(
    ("rules", "written"),
    [
        # Envoy ejects for 5xx by itself, and for failures of gateways where it is said to.
        (OutlierDetection(), {"enforcing_consecutive_5xx": 0, "consecutive_gateway_failure": 10}),
        (OutlierDetection(consecutive_5xx=5, consecutive_gateway_failure=5), {}),
        (OutlierDetection(consecutive_5xx=6, consecutive_gateway_failure=5), {"consecutive_5xx": 6}),
        (OutlierDetection(consecutive_5xx=5, consecutive_gateway_failure=5, base=31), {"base_ejection_time": "31s"}),
        (OutlierDetection(consecutive_gateway_failure=None), {"enforcing_consecutive_5xx": 0}),
    ],
)
def test_values_that_envoy_has_anyway_are_not_written(rules: OutlierDetection, written: dict[str, Any]) -> None:
    """They are in every cluster of every Envoy."""
    document = cluster_of(uses("user", outlier_detection=rules))["outlier_detection"]
    always = {"enforcing_success_rate", "interval", "max_ejection_time", "max_ejection_percent"}
    optional = {name: value for name, value in document.items() if name not in always}
    enforced = optional.pop("enforcing_consecutive_gateway_failure", None)
    assert enforced == (None if rules.consecutive_gateway_failure is None else 100)
    assert optional == written
    assert "budget_percent" not in cluster_of(uses("user"))["circuit_breakers"]["thresholds"][0]["retry_budget"]


@pytest.mark.parametrize(("connections", "retries"), [(30, 30), (5, 10), (200, 200), (None, 30)])
def test_all_that_an_endpoint_has_under_way_may_be_retried_at_once(connections: int | None, retries: int) -> None:
    """When it is killed that is needed in one moment, and it is more than a fifth of a small service's requests."""
    document = cluster_of(uses("user", limit=Limit(connections_per_endpoint=connections)))
    assert document["circuit_breakers"]["thresholds"][0]["retry_budget"] == {"min_retry_concurrency": retries}


def test_a_time_of_one_try_that_the_whole_does_not_have_is_left_out() -> None:
    """A route that narrows the timeout below the inherited time of a try has none; Envoy would ignore it."""
    policy = routes_of(uses("user", Route(prefix="/", timeout=0.5)))[0]["route"]["retry_policy"]
    assert "per_try_timeout" not in policy
    policy = routes_of(uses("user", Route(prefix="/", timeout=0)))[0]["route"]["retry_policy"]
    assert policy["per_try_timeout"] == "1s"


def test_a_long_timeout_is_not_cut_by_the_idle_timeout_of_the_listener() -> None:
    """Five minutes without a byte end a stream, so routes that may wait longer say so."""
    assert "idle_timeout" not in routes_of(uses("user", Route(prefix="/", timeout=299)))[0]["route"]
    assert routes_of(uses("user", Route(prefix="/", timeout=300)))[0]["route"]["idle_timeout"] == "305s"
    assert routes_of(uses("user", Route(prefix="/", timeout=0)))[0]["route"]["idle_timeout"] == "0s"


LIVE: dict[str, Any] = {"upgrade": ("websocket",)}


def test_handshakes_have_a_route_before_that_of_requests() -> None:
    """With the careful retries, without copies, and with an idle timeout that suits what lasts."""
    copied = Shadow(service="next", percent=5)
    route = Route(prefix="/live", headers=(HeaderMatch(name="a", exact="b"),), shadow=copied, **LIVE)
    live, *others = routes_of(uses("chat", route), targets=(uses("next"),))
    assert live["match"]["headers"][-1]["name"] == "upgrade"
    assert live["match"]["headers"][:-1] == others[1]["match"]["headers"]
    assert live["route"]["upgrade_configs"] == [{"upgrade_type": "websocket"}]
    assert (live["route"]["timeout"], live["route"]["idle_timeout"]) == ("5s", "3600s")
    assert "request_mirror_policies" not in live["route"]
    assert [other["stat_prefix"] for other in others[:2]] == ["live", "live"]
    assert live["stat_prefix"] == "live_websocket"
    assert "upgrade_configs" not in json.dumps(others)


@pytest.mark.parametrize(("retry", "idle", "written"), [(None, 0.0, "0s"), (Retry(attempts=1), 60.0, "60s")])
def test_handshakes_follow_what_their_route_writes(retry: Retry | None, idle: float, written: str) -> None:
    """Without retries they have none, and an idle timeout holds for websockets too."""
    live, *_ = routes_of(uses("chat", Route(prefix="/", retry=retry, idle_timeout=idle, **LIVE)))
    assert live["route"]["idle_timeout"] == written
    assert "retry_policy" not in live["route"]


def test_websockets_have_the_limits_that_are_written_and_no_others() -> None:
    """Envoy would take 1,024 of them behind one cluster."""
    by_route = cluster_of(uses("chat", Route(prefix="/", **LIVE)))["circuit_breakers"]["thresholds"][0]
    assert by_route["max_connections"] == by_route["max_requests"] == 4_294_967_295
    limited = cluster_of(uses("chat", limit=Limit(connections=9), **LIVE))["circuit_breakers"]["thresholds"][0]
    assert (limited["max_connections"], limited["max_requests"]) == (9, 4_294_967_295)
    assert "max_connections" not in cluster_of(uses("chat"))["circuit_breakers"]["thresholds"][0]


@pytest.mark.parametrize("protocol", ["http2", "grpc"])
def test_nothing_is_upgraded_over_http2(protocol: Any) -> None:
    """A default of a mesh or a gateway may say it of services whose endpoints turn out to speak HTTP/2."""
    chat = uses("chat", protocol=protocol, **LIVE)
    assert "upgrade" not in json.dumps(routes_of(chat))
    assert "max_connections" not in cluster_of(chat)["circuit_breakers"]["thresholds"][0]


def test_routes_that_leave_something_out_answer_it_with_a_sentence() -> None:
    """A dependency with routes for some paths says which dependency has none for the others."""
    routes = routes_of(uses("user", Route(path="/ping")))
    assert "user has routes, but none" in routes[-1]["direct_response"]["body"]["inline_string"]
    assert all("direct_response" not in route for route in routes_of(uses("user", Route(prefix="/"))))


def test_a_split_weighs_whole_services() -> None:
    """Percentages become the smallest whole weights, of the clusters of the services."""
    split = Route(prefix="/", split={"shop": 99.5, "shop-next": 0.5}, retry=None)
    shop = Dependency(name="shop", service="shop", cluster="shop_cluster", routes=(split,))
    (route,) = routes_of(shop, targets=(uses("shop-next"),))
    weights = [(cluster["name"], cluster["weight"]) for cluster in route["route"]["weighted_clusters"]["clusters"]]
    assert weights == [("shop_cluster", 199), ("shop-next", 1)]


def test_a_version_has_a_cluster_of_its_own() -> None:
    """Only there a version without healthy endpoints gets nothing, so that the whole service is taken instead."""
    canary = Route(prefix="/", headers=(HeaderMatch(name="x-canary", present=True),), version={"canary": True})
    shop = uses("shop", canary, Route(prefix="/"))
    node = compiled(shop)
    assert set(node["clusters"]) == {"shop", "shop/version"}
    assert node["clusters"]["shop/version"].eds_service == "shop"
    assert set(node["routes"]["default"].uses) == {"shop", "shop/version"}
    versions = cluster_of(shop, "shop/version")
    assert versions["lb_subset_config"]["subset_selectors"] == [{"keys": ["canary"]}]
    assert versions["common_lb_config"]["healthy_panic_threshold"] == {"value": 0}
    assert "lb_subset_config" not in cluster_of(shop)


def test_header_values_are_taken_literally() -> None:
    """A percent sign would begin a substitution."""
    node = compiled(uses("user", headers=HeaderChanges(set={"x-share": "50%"})))
    (host, _) = json.loads(node["routes"]["default"].body)["virtual_hosts"]
    assert host["request_headers_to_add"][0]["header"]["value"] == "50%%"


def test_unverified_tls_has_to_be_written() -> None:
    """By default a certificate of a known authority, for the name of the address, is wanted."""
    context = cluster_of(PAYMENTS)["transport_socket"]["typed_config"]
    validation = context["common_tls_context"]["validation_context"]
    assert validation["match_typed_subject_alt_names"] == [
        {"san_type": "DNS", "matcher": {"exact": "api.payments.example"}}
    ]
    assert context["sni"] == "api.payments.example"
    unverified = cluster_of(replace(PAYMENTS, tls=Tls(verify=False)))["transport_socket"]["typed_config"]
    assert "validation_context" not in unverified["common_tls_context"]


def test_one_dependency_with_zones_makes_the_others_say_that_they_have_none() -> None:
    """Envoy prefers the own zone from six endpoints on, once it knows its local cluster."""
    node = compiled(uses("user", zones=True), uses("shop"))
    zones = {
        name: json.loads(resource.body)["common_lb_config"]["zone_aware_lb_config"]
        for name, resource in node["clusters"].items()
    }
    assert zones == {"user": {"min_cluster_size": 1}, "shop": {"routing_enabled": {"value": 0}}}
    assert "zone_aware_lb_config" not in cluster_of(uses("shop"))["common_lb_config"]


def test_changes_of_health_are_logged_where_a_file_is_named() -> None:
    """Never by default: Envoy refuses a cluster whose file it cannot open, as /dev/stdout of another user's pipe."""
    assert "event_logger" not in cluster_of(TESTING)["health_checks"][0]
    logged = uses("user", health_check=HealthCheck(tcp=True, event_log="/var/log/health.log"))
    (sink,) = cluster_of(logged)["health_checks"][0]["event_logger"]
    assert sink["typed_config"]["event_log_path"] == "/var/log/health.log"


def test_the_number_of_retries_replaces_the_budget() -> None:
    """Envoy ignores the number where there is a budget."""
    (threshold,) = cluster_of(uses("user", limit=Limit(retries=0)))["circuit_breakers"]["thresholds"]
    assert threshold == {"max_pending_requests": 100, "max_retries": 0}


NAMES = st.sampled_from(["shop", "user", "cart", "ab-testing"])
MATCHES = st.one_of(
    st.builds(Route, prefix=st.sampled_from(["/", "/api", "/api/"])), st.builds(Route, path=st.just("/ping"))
)


@st.composite
def routes(draw: st.DrawFn) -> Route:
    """Draw a route with targets of any kind."""
    route = draw(MATCHES)
    kind = draw(st.sampled_from(["plain", "split", "version"]))
    if kind == "split":
        services = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
        route = replace(route, split=dict.fromkeys(services, 100 / len(services)))
    if kind == "version":
        route = replace(route, version={draw(st.sampled_from(["revision", "canary"])): "x"})
    shadow = draw(st.none() | st.builds(Shadow, service=NAMES))
    return replace(route, shadow=shadow, retry=draw(st.sampled_from([None, Retry(), Retry(idempotent=("POST",))])))


@st.composite
def callers(draw: st.DrawFn) -> Caller:
    """Draw a caller; what its routes lead to besides its dependencies is among its targets."""
    called = draw(st.lists(NAMES, max_size=4, unique=True))
    sticky = st.none() | st.builds(Sticky, by=st.just("source_ip"))
    dependencies = tuple(
        Dependency(
            name=name,
            service=name,
            cluster=draw(st.sampled_from([None, f"{name}_cluster"])),
            sticky=draw(sticky),
            routes=tuple(draw(st.lists(routes(), max_size=3))),
        )
        for name in called
    )
    rest = sorted({"shop", "user", "cart", "ab-testing"} - set(called))
    return Caller("web", dependencies, tuple(uses(name) for name in rest))


def names_of(value: Any) -> set[str]:
    """Return the clusters that a document of routes names, wherever it does."""
    if isinstance(value, list):
        return set().union(*map(names_of, value))
    if not isinstance(value, dict):
        return set()
    own = {value["cluster"]} if "cluster" in value else set()
    own |= {cluster["name"] for cluster in value.get("clusters", ())}
    return own.union(*map(names_of, value.values()))


@given(callers())
def test_every_cluster_that_a_route_names_is_served_beside_it(caller: Caller) -> None:
    """Envoy takes a route to a cluster that it does not have, and answers its requests with 503."""
    node = compile_mesh(Configuration(callers={"web": caller}), Catalog()).nodes["web"]
    table = node["routes"]["default"]
    named = names_of(json.loads(table.body)["virtual_hosts"])
    assert set(table.uses) == named
    assert named <= set(node["clusters"])
    assert all(json.loads(resource.body)["name"] == name for name, resource in node["clusters"].items())


@given(st.lists(callers(), min_size=1, max_size=4), st.randoms())
def test_neither_neighbours_nor_order_change_what_a_caller_gets(drawn: list[Caller], random: Any) -> None:
    """What a caller compiles to depends on its own definition alone, although equal parts are made once."""
    named = {f"web-{number}": replace(caller, service=f"web-{number}") for number, caller in enumerate(drawn)}
    mixed = list(named.items())
    random.shuffle(mixed)
    together = compile_mesh(Configuration(callers=dict(mixed)), Catalog())
    assert list(together.nodes) == sorted(named)
    for name, caller in named.items():
        alone = compile_mesh(Configuration(callers={name: caller}), Catalog())
        assert alone.nodes[name] == together.nodes[name]


def test_matches_and_rewrites_are_in_the_form_of_today() -> None:
    """None of the fields that Envoy has deprecated, and none that its oldest supported version ignores."""
    conditions = (
        HeaderMatch(name="a", exact="1"),
        HeaderMatch(name="b", regex="x.*", invert=True),
        HeaderMatch(name="c", range=(1, 9)),
        HeaderMatch(name="d", present=False),
    )
    route = Route(
        regex="/users/[0-9]+",
        query={"v": "2"},
        cookie={"canary": "1"},
        headers=conditions,
        rewrite=Rewrite(path=r"/a\b"),
        retry=None,
    )
    document = routes_of(uses("user", route))[0]
    assert document["match"] == {
        "safe_regex": {"regex": "/users/[0-9]+"},
        "headers": [
            {"name": "a", "string_match": {"exact": "1"}},
            {"name": "b", "string_match": {"safe_regex": {"regex": "x.*"}}, "invert_match": True},
            {"name": "c", "range_match": {"start": 1, "end": 9}},
            {"name": "d", "present_match": False},
            {"name": "cookie", "string_match": {"safe_regex": {"regex": r"(^|.*;\s*)canary=1(;.*|$)"}}},
        ],
        "query_parameters": [{"name": "v", "string_match": {"exact": "2"}}],
    }
    assert document["route"]["regex_rewrite"] == {"pattern": {"regex": "^[^?]*"}, "substitution": r"/a\\b"}
    assert document["stat_prefix"] == "users_0_9"


def test_a_prefix_that_is_rewritten_to_a_slash_leaves_no_second_one() -> None:
    """/api/x becomes /x, as it does for /api/."""
    action = routes_of(uses("user", Route(prefix="/api", rewrite=Rewrite(prefix="/"))))[0]["route"]
    assert action["regex_rewrite"] == {"pattern": {"regex": "^/api/?"}, "substitution": "/"}
    action = routes_of(uses("user", Route(prefix="/api/", rewrite=Rewrite(prefix="/"))))[0]["route"]
    assert action["prefix_rewrite"] == "/"


def test_a_dependency_is_small_and_made_once() -> None:
    """Five hundred callers keep few bytes: equal dependencies of theirs are one object."""
    callers = {name: Caller(name, (uses("user"),)) for name in ("web", "admin")}
    nodes = compile_mesh(Configuration(callers=callers), Catalog()).nodes
    first, second = (node["clusters"]["user"] for node in nodes.values())
    assert first is second
    assert len(first.body) <= 1250
    assert len(nodes["web"]["routes"]["default"].body) <= 1350
