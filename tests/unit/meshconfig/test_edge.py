"""Edges: sites with certificates, their routes, and what a request has to bring."""

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from msgspec.structs import replace

from meshconfig.definition.authentication import Authentication, ExternalAuthorization, Jwt
from meshconfig.definition.edge import Certificate, Edge, Site, SiteRoute
from meshconfig.definition.listen import GatewayListen
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.rate_limit import RateLimit
from meshconfig.definition.shadow import Shadow
from meshconfig.definition.tracing import Tracing
from meshconfig.effective import Configuration
from meshconfig.resource import Catalog, NodeResources
from meshconfig.snapshot import compile_mesh

WWW = Certificate(chain="/etc/tls/www.pem", key="/etc/tls/www.key")
JWT = Jwt(issuer="https://id.example", jwks_file="/etc/tls/jwks.json", claims={"sub": "x-user"})
ASKED = ExternalAuthorization(service="authz", headers=("x-role",))
JWT_FILTER = "envoy.filters.http.jwt_authn"
ASKING_FILTER = "envoy.filters.http.ext_authz.authz"


def site(host: str, *routes: SiteRoute, certificate: Certificate | None = WWW) -> Site:
    """Return a site of one host."""
    return Site(hosts=(host,), certificate=certificate, routes=routes or (SiteRoute(prefix="/", service="web"),))


def edge(*sites: Site, port: int = 443, redirect: int | None = None) -> Edge:
    """Return an edge."""
    return Edge(edge="www", listen=GatewayListen(port=port, redirect_from=redirect), sites=sites)


def compiled(definition: Edge, mesh: Mesh | None = None) -> NodeResources:
    """Return what the edge compiles to."""
    configuration = Configuration(mesh=mesh or Mesh(), edges={"www": definition})
    return compile_mesh(configuration, Catalog()).nodes["www"]


def table(node: NodeResources, name: str) -> list[dict[str, Any]]:
    """Return the virtual hosts of a site."""
    hosts: list[dict[str, Any]] = json.loads(node["routes"][name].body)["virtual_hosts"]
    return hosts


def chains(node: NodeResources) -> list[dict[str, Any]]:
    """Return the filter chains of the edge's listener."""
    found_chains: list[dict[str, Any]] = json.loads(node["listeners"]["www"].body)["filter_chains"]
    return found_chains


def filters(node: NodeResources) -> list[dict[str, Any]]:
    """Return the HTTP filters of the first site."""
    manager: dict[str, Any] = chains(node)[0]["filters"][0]["typed_config"]
    listed: list[dict[str, Any]] = manager["http_filters"]
    return listed


def test_each_site_has_a_chain_and_a_table_of_its_own() -> None:
    """With one table for all, who holds a connection for one host is served the others on it."""
    node = compiled(edge(site("www.example"), site("shop.example")))
    assert [chain["filter_chain_match"]["server_names"] for chain in chains(node)] == [
        ["www.example"],
        ["shop.example"],
    ]
    for name in ("www.example", "shop.example"):
        own, others = table(node, name)
        assert own["domains"] == [name]
        assert others["domains"] == ["*"]
        assert others["routes"][0]["direct_response"]["status"] == 421


def test_sites_without_a_certificate_are_served_to_connections_without_tls() -> None:
    """Also beside sites with one, on the same port."""
    node = compiled(edge(site("www.example"), site("plain.example", certificate=None)))
    assert chains(node)[1]["filter_chain_match"] == {"transport_protocol": "raw_buffer"}
    assert "transport_socket" not in chains(node)[1]
    alone = compiled(edge(site("plain.example", certificate=None)))
    assert "filter_chain_match" not in chains(alone)[0]
    assert "listener_filters" not in json.loads(alone["listeners"]["www"].body)


def test_a_prefix_ends_at_a_segment() -> None:
    """/api takes /api and /api/x, and not /apix, as people expect who come from NGINX's locations with a slash."""
    node = compiled(
        edge(site("www.example", SiteRoute(prefix="/api", service="api"), SiteRoute(prefix="/a/", service="a")))
    )
    matches = [route["match"] for route in table(node, "www.example")[0]["routes"]]
    assert matches[0]["path_separated_prefix"] == "/api"
    assert matches[2]["prefix"] == "/a/"
    assert table(node, "www.example")[0]["routes"][-1]["direct_response"]["status"] == 404


@pytest.mark.parametrize(("port", "target"), [(443, {}), (8443, {"port_redirect": 8443})])
def test_clients_without_tls_are_redirected(port: int, target: dict[str, int]) -> None:
    """Only for hosts that are served: else everybody's links could be made to look like ours."""
    node = compiled(edge(site("www.example"), port=port, redirect=80))
    listener = json.loads(node["listeners"]["www-redirect"].body)
    assert listener["address"]["socket_address"]["port_value"] == 80
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    redirecting, others = manager["route_config"]["virtual_hosts"]
    assert redirecting["domains"] == ["www.example"]
    assert redirecting["routes"][0]["redirect"] == {"https_redirect": True, **target}
    assert others["routes"][0]["direct_response"]["status"] == 421


def test_a_route_without_authentication_switches_the_filters_off() -> None:
    """A filter refuses unless a route says otherwise: listeners and routes do not arrive at one moment."""
    both = Authentication(jwt=JWT, external=ASKED)
    guarded = SiteRoute(prefix="/api", service="api", auth=both, retry=None)
    node = compiled(edge(site("www.example", guarded, SiteRoute(prefix="/", service="web", retry=None))))
    names = [item["name"] for item in filters(node)]
    assert names.index("envoy.filters.http.header_mutation") < names.index(JWT_FILTER) < names.index(ASKING_FILTER)
    assert names.index(ASKING_FILTER) < names.index("envoy.filters.http.local_ratelimit")
    own, others = table(node, "www.example")
    asked, free = [route["typed_per_filter_config"] for route in own["routes"]]
    assert set(asked) == {JWT_FILTER}
    assert asked[JWT_FILTER]["requirement_name"] == "https://id.example"
    assert free[JWT_FILTER]["disabled"] is free[ASKING_FILTER]["disabled"] is True
    assert others["routes"][0]["typed_per_filter_config"] == free


def test_identity_headers_of_clients_are_removed_first() -> None:
    """Also when the asked service is away and requests may pass."""
    guarded = SiteRoute(prefix="/", service="api", auth=Authentication(jwt=JWT, external=ASKED))
    (removal,) = [item for item in filters(compiled(edge(site("www.example", guarded)))) if "mutation" in item["name"]]
    removed = removal["typed_config"]["mutations"]["request_mutations"]
    assert removed == [{"remove": "x-role"}, {"remove": "x-user"}]


def test_names_of_filters_stay_when_settings_change() -> None:
    """A new name in a route would let requests pass an Envoy whose listener does not know it yet."""

    def names(timeout: float, audience: str) -> list[str]:
        wanted = Authentication(jwt=replace(JWT, audiences=(audience,)), external=replace(ASKED, timeout=timeout))
        node = compiled(edge(site("www.example", SiteRoute(prefix="/", service="api", auth=wanted))))
        (jwt,) = [item["typed_config"] for item in filters(node) if item["name"] == JWT_FILTER]
        return [*(item["name"] for item in filters(node)), *jwt["requirement_map"]]

    assert names(0.5, "a") == names(1.0, "b")


def test_a_long_request_is_allowed_where_a_route_allows_it() -> None:
    """Envoy's limit for whole requests holds for a listener, so the most patient route decides."""

    def limit(*timeouts: float) -> str:
        routes = [SiteRoute(prefix=f"/{number}", service="web", timeout=time) for number, time in enumerate(timeouts)]
        manager = chains(compiled(edge(site("www.example", *routes))))[0]["filters"][0]["typed_config"]
        return str(manager["request_timeout"])

    assert (limit(5), limit(5, 600), limit(5, 0)) == ("300s", "600s", "0s")


def test_every_client_can_have_a_rate_of_its_own() -> None:
    """A bucket is filled at most twenty times a second, which is the least that Envoy takes."""
    limited = SiteRoute(prefix="/", service="web", rate_limit=RateLimit(per_second=50, by="source_ip"))
    (route, *_) = table(compiled(edge(site("www.example", limited))), "www.example")[0]["routes"]
    settings = route["typed_per_filter_config"]["envoy.filters.http.local_ratelimit"]
    assert settings["token_bucket"] == {"max_tokens": 50, "tokens_per_fill": 3, "fill_interval": "0.06s"}
    assert settings["descriptors"][0]["entries"] == [{"key": "remote_address"}]


def test_sites_without_tls_share_one_table() -> None:
    """Nothing but the Host tells them apart, and any connection may carry requests for all of them."""
    node = compiled(edge(site("a.example", certificate=None), site("b.example", certificate=None), port=80))
    assert list(node["routes"]) == ["a.example"]
    assert [host["domains"] for host in table(node, "a.example")] == [["a.example"], ["b.example"], ["*"]]
    (chain,) = chains(node)
    assert "filter_chain_match" not in chain


def test_a_site_of_all_hosts_leaves_none_to_be_misdirected() -> None:
    """Envoy refuses a second virtual host for every domain."""
    node = compiled(edge(site("*", certificate=None), port=80))
    assert [host["domains"] for host in table(node, "*")] == [["*"]]


def test_no_address_is_internal_at_an_edge() -> None:
    """An internal client may set timeouts and retries by headers; an empty list would mean all private addresses."""
    manager = chains(compiled(edge(site("www.example")), Mesh(internal_ranges=("10.0.0.0/8",))))[0]["filters"][0]
    assert "internal_address_config" not in manager["typed_config"]


SERVICES = st.sampled_from(["web", "api", "shop"])
AUTHENTICATIONS = st.none() | st.builds(
    Authentication,
    jwt=st.none() | st.builds(replace, st.just(JWT), issuer=st.sampled_from(["a", "b"])),
    external=st.none() | st.builds(ExternalAuthorization, service=st.sampled_from(["authz", "web"])),
)
ROUTES = st.builds(
    SiteRoute,
    prefix=st.sampled_from(["/", "/api"]),
    service=SERVICES,
    auth=AUTHENTICATIONS,
    shadow=st.none() | st.builds(Shadow, service=st.just("shadow")),
    version=st.none() | st.just({"revision": "a"}),
    rate_limit=st.none()
    | st.builds(RateLimit, per_second=st.floats(0.01, 1e5), by=st.sampled_from(["none", "source_ip"])),
) | st.builds(SiteRoute, prefix=st.just("/"), split=st.dictionaries(SERVICES, st.just(50), min_size=1))


def clusters_in(value: Any) -> set[str]:
    """Return the clusters that a document names, wherever it does."""
    if isinstance(value, list):
        return set().union(*map(clusters_in, value))
    if not isinstance(value, dict):
        return set()
    own = {value[key] for key in ("cluster", "cluster_name") if isinstance(value.get(key), str)}
    own |= {cluster["name"] for cluster in value.get("clusters", ())}
    return own.union(*map(clusters_in, value.values()))


@given(st.lists(st.lists(ROUTES, min_size=1, max_size=4), min_size=1, max_size=3))
def test_every_cluster_that_an_edge_names_is_served_to_it(drawn: list[list[SiteRoute]]) -> None:
    """In routes and in filters; the receiver of spans stands in the bootstrap."""
    sites = [site(f"{number}.example", *routes) for number, routes in enumerate(drawn)]
    node = compiled(edge(*sites), Mesh(tracing=Tracing(provider="zipkin", address="127.0.0.1:9411")))
    for resource in (*node["routes"].values(), *node["listeners"].values()):
        # The access log names a field so.
        named = clusters_in(json.loads(resource.body)) - {"%UPSTREAM_CLUSTER%"}
        assert set(resource.uses) == named
        assert named <= set(node["clusters"])
