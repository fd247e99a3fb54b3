"""Gateways: which services of the catalog they serve, under which hosts and paths."""

import json
import re
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from meshconfig.catalog import catalog_of
from meshconfig.definition.authentication import Authentication, ExternalAuthorization
from meshconfig.definition.dependency import Dependency
from meshconfig.definition.gateway import Gateway, Select
from meshconfig.definition.listen import GatewayListen
from meshconfig.definition.policies import Defaults
from meshconfig.definition.rate_limit import RateLimit
from meshconfig.effective import Configuration
from meshconfig.field_types import RESERVED_CLUSTERS
from meshconfig.gateway import findings, selected, selection_of
from meshconfig.gateway_selection import used_of
from meshconfig.resource import Catalog, NodeResources
from meshconfig.snapshot import catalog_findings, compile_gateways, compile_mesh

CATALOG = Catalog(
    metadata={"user": {"protocol": ("grpc",)}, "shop": {"protocol": ("grpc",)}, "web": {"protocol": ("http1",)}},
    grpc_services={
        "user": ("user.v1.Users", "grpc.health.v1.Health"),
        "shop": ("shop.v1.Shop", "user.v1.Users", "grpc.reflection.v1.ServerReflection"),
        "web": ("web.v1.Web",),
    },
)


def gateway(**values: Any) -> Gateway:
    """Return a gateway to all gRPC services."""
    values = {
        "select": Select(metadata={"protocol": "grpc"}),
        "hosts": "{service}.grpc.example",
        "paths": True,
        **values,
    }
    return Gateway(gateway="staging", listen=GatewayListen(port=50051, protocol="http2"), **values)


def compiled(definition: Gateway, catalog: Catalog = CATALOG, **described: Dependency) -> NodeResources:
    """Return what the gateway compiles to."""
    configuration = Configuration(gateways={"staging": definition}, targets={"staging": described})
    return compile_mesh(configuration, catalog).nodes["staging"]


def hosts_of(node: NodeResources) -> dict[str, Any]:
    """Return the virtual hosts by name."""
    table = json.loads(node["routes"]["default"].body)
    return {host["name"]: host for host in table["virtual_hosts"]}


def paths_of(node: NodeResources) -> dict[str, str]:
    """Return the cluster of each path that is served whatever the host is."""
    routes = hosts_of(node)["*"]["routes"]
    assert all(route["match"]["grpc"] == {} for route in routes[:-1])
    return {route["match"]["prefix"]: route["route"]["cluster"] for route in routes[:-1]}


def test_services_are_selected_by_metadata_or_by_name() -> None:
    """All of the wanted metadata has to be there; a listed service is served even before it registers."""
    assert selected(gateway(), CATALOG) == ["shop", "user"]
    assert selected(gateway(select=Select(services=("later", "web"))), CATALOG) == ["later", "web"]
    both = Select(metadata={"protocol": "grpc", "team": "a"})
    assert selected(gateway(select=both), CATALOG) == []
    assert selected(gateway(select=Select()), CATALOG) == []


def test_each_service_has_its_host_and_grpc_services_their_path() -> None:
    """Reflection and health are everywhere, so that only the host tells whose they are."""
    node = compiled(gateway())
    assert hosts_of(node)["shop"]["domains"] == ["shop.grpc.example"]
    assert paths_of(node) == {"/shop.v1.Shop/": "shop", "/user.v1.Users/": "shop"}
    assert set(node["clusters"]) == {"shop", "user"}
    assert paths_of(compiled(gateway(paths=False))) == {}


def test_two_services_that_claim_one_grpc_service_are_a_finding() -> None:
    """By path the first by name wins, which whoever called the other has to hear."""
    (finding,) = findings(gateway(), CATALOG)
    assert str(finding).startswith("gateways/staging.yaml: warning: shop and user announce the gRPC service user.v1")
    assert findings(gateway(paths=False), CATALOG) == []
    configuration = Configuration(gateways={"staging": gateway()})
    assert catalog_findings(configuration, CATALOG) == [finding]


def test_a_gateway_that_selects_nothing_is_a_finding() -> None:
    """It answers every call with a sentence until something of the kind registers."""
    (finding,) = findings(gateway(), Catalog())
    assert "No service of the catalog has what the gateway selects by." in str(finding)


def test_a_service_named_like_a_cluster_of_the_bootstrap_is_not_served() -> None:
    """Whoever may register it would open Envoy's admin interface, or the registry with the gateway's token."""
    intruders = {name: {"protocol": ("grpc",)} for name in RESERVED_CLUSTERS}
    announced = dict.fromkeys(RESERVED_CLUSTERS, ("shop.v1.Shop", "z.v1.Z"))
    catalog = Catalog({**CATALOG.metadata, **intruders}, {**CATALOG.grpc_services, **announced})
    assert compiled(gateway(), catalog) == compiled(gateway())
    warned = " ".join(str(finding) for finding in findings(gateway(), catalog))
    for name in RESERVED_CLUSTERS:
        assert f"does not serve '{name}': its name is that of a cluster of the bootstrap" in warned


def test_one_name_cannot_keep_the_others_from_being_served() -> None:
    """Envoy refuses the whole table for two hosts that differ in case, and for a host or a path that is none."""
    names = ("Shop", "a:b@c", "x/y", "..", "USER")
    catalog = Catalog(
        {**CATALOG.metadata, **{name: {"protocol": ("grpc",)} for name in names}},
        {**CATALOG.grpc_services, **dict.fromkeys(names, ("a.v1.A",))},
    )
    assert compiled(gateway(), catalog) == compiled(gateway())
    warned = [str(finding) for finding in findings(gateway(), catalog)]
    assert any("does not serve 'Shop': 'shop' has the same host, letters' case aside" in each for each in warned)
    assert any("does not serve 'a:b@c': 'a:b@c.grpc.example' is no host" in each for each in warned)


def test_of_names_that_differ_in_case_the_listed_one_is_served_then_the_one_in_small_letters() -> None:
    """A capital comes first by name, so that otherwise a later registration could take the host of another."""
    catalog = Catalog({name: {"protocol": ("grpc",)} for name in ("Shop", "shop", "SHOP")})
    assert selected(gateway(), catalog) == ["shop"]
    assert selected(gateway(select=Select(metadata={"protocol": "grpc"}, services=("Shop",))), catalog) == ["Shop"]


@pytest.mark.parametrize("name", ["/weird?", "a/b", "a..b", ".a", "1a", "a-b", "shöp.v1.Shop", "a\n"])
def test_a_path_is_made_of_names_of_grpc_services_alone(name: str) -> None:
    """Metadata may be any text, and a path that is none would make Envoy refuse the whole table."""
    catalog = Catalog(CATALOG.metadata, {**CATALOG.grpc_services, "user": (*CATALOG.grpc_services["user"], name)})
    assert compiled(gateway(), catalog) == compiled(gateway())
    (first, *_) = findings(gateway(), catalog)
    assert "'user' announces" in first.message
    assert "no name of a gRPC service" in first.message


def test_services_without_hosts_of_their_own_are_told_apart_by_path() -> None:
    """Two virtual hosts of one host would make Envoy refuse the whole table."""
    node = compiled(gateway(hosts="grpc.example"))
    assert hosts_of(node).keys() == {"*"}
    assert paths_of(node) == {"/shop.v1.Shop/": "shop", "/user.v1.Users/": "shop"}


@given(st.dictionaries(st.text(), st.tuples(st.text()), max_size=6))
def test_whatever_is_announced_the_table_is_one_that_envoy_takes(announced: dict[str, tuple[str]]) -> None:
    """Every domain stands once, letters' case aside, and every path has the form of a gRPC call."""
    catalog = Catalog({name: {"protocol": ("grpc",)} for name in announced}, announced)
    node = compiled(gateway(), catalog)
    domains = [domain.lower() for host in hosts_of(node).values() for domain in host["domains"]]
    assert len(domains) == len(set(domains))
    assert all(re.fullmatch(r"/[A-Za-z0-9_.]+/", path) for path in paths_of(node))


def test_a_call_has_the_deadline_of_its_client() -> None:
    """The gateway adds none, and an idle stream stays."""
    (route, *_) = hosts_of(compiled(gateway()))["user"]["routes"]
    assert route["route"]["timeout"] == "0s"
    assert route["route"]["max_stream_duration"] == {"grpc_timeout_header_max": "0s"}
    assert route["route"]["idle_timeout"] == "0s"


def test_the_protocol_is_that_of_the_endpoints_then_of_the_file_then_of_the_defaults() -> None:
    """Requests go to a service in its own protocol, however they came."""
    everything = gateway(select=Select(services=("user", "web", "later")), defaults=Defaults(protocol="http2"))
    described = Dependency(name="web", service="web", protocol="grpc")
    node = compiled(everything, web=described)
    options = {
        name: next(iter(json.loads(resource.body)["typed_extension_protocol_options"].values()))
        for name, resource in node["clusters"].items()
    }
    spoken = {name: next(iter(option["explicit_http_config"])) for name, option in options.items()}
    assert spoken == {
        "user": "http2_protocol_options",
        "web": "http_protocol_options",
        "later": "http2_protocol_options",
    }


def test_unknown_hosts_and_paths_get_a_sentence() -> None:
    """Envoy gives it to gRPC clients as the message of UNIMPLEMENTED."""
    last = hosts_of(compiled(gateway()))["*"]["routes"][-1]
    assert last["direct_response"] == {
        "status": 404,
        "body": {"inline_string": "staging serves no service by this host or path\n"},
    }


def test_the_service_that_is_asked_has_a_cluster_too() -> None:
    """The listener sends requests to it, so it has to be served before the listener."""
    authentication = Authentication(external=ExternalAuthorization(service="authz"))
    node = compiled(gateway(defaults=Defaults(auth=authentication, rate_limit=RateLimit(per_second=1))))
    assert node["listeners"]["staging"].uses == ("authz",)
    assert set(node["clusters"]) == {"authz", "shop", "user"}


@given(st.permutations(sorted(CATALOG.metadata)), st.permutations(sorted(CATALOG.grpc_services)))
def test_the_order_of_the_catalog_does_not_matter(metadata: list[str], grpc_services: list[str]) -> None:
    """Catalogs come from a database in any order; an Envoy is woken only by a change."""
    shuffled = Catalog(
        {service: CATALOG.metadata[service] for service in metadata},
        {service: CATALOG.grpc_services[service] for service in grpc_services},
    )
    assert compiled(gateway(), shuffled) == compiled(gateway())


def test_gateways_alone_are_what_they_are_among_all() -> None:
    """A change of the catalog compiles them again, and nothing else."""
    configuration = Configuration(gateways={"staging": gateway()})
    assert compile_gateways(configuration, CATALOG) == compile_mesh(configuration, CATALOG)


def used(catalog: Catalog, *gateways: Gateway) -> Catalog:
    """Return the part of a catalog that gateways use."""
    selections = [selection_of(each) for each in gateways]
    parts = {
        service: part
        for service, metadata in catalog.metadata.items()
        if (part := used_of(service, metadata, catalog.grpc_services.get(service, ()), selections)) is not None
    }
    return Catalog(
        {service: metadata for service, (metadata, _) in parts.items()},
        {service: names for service, (_, names) in parts.items()},
    )


VALUES = st.lists(st.sampled_from(["grpc", "http1", "x", "a.A", "b.B, a.A"]), unique=True, max_size=3).map(sorted)
CATALOGS = st.dictionaries(
    st.sampled_from(["shop", "Shop", "user", "web"]),
    st.dictionaries(st.sampled_from(["protocol", "tier", "grpc_services", "build"]), VALUES.map(tuple)),
)
SELECTS = st.builds(
    Select,
    metadata=st.dictionaries(st.sampled_from(["protocol", "tier"]), st.sampled_from(["grpc", "x"])),
    services=st.sets(st.sampled_from(["web", "later"])).map(lambda names: tuple(sorted(names))),
)


@given(CATALOGS.map(catalog_of), SELECTS, SELECTS, st.booleans())
def test_gateways_compile_to_the_same_with_what_they_use(
    catalog: Catalog, first: Select, second: Select, paths: bool
) -> None:
    """So that a change of the rest of the catalog is no reason to compile them again."""
    gateways = (gateway(select=first, paths=paths), gateway(select=second))
    part = used(catalog, *gateways)
    assert all(compiled(each, part) == compiled(each, catalog) for each in gateways)


def test_metadata_that_no_gateway_selects_by_is_not_used() -> None:
    """The build of a deploy, or a service of another protocol, changes nothing."""
    metadata = {**CATALOG.metadata["shop"], "build": ("7",)}
    changed = Catalog({**CATALOG.metadata, "shop": metadata, "job": {"build": ("1",)}}, CATALOG.grpc_services)
    assert used(changed, gateway()) == used(CATALOG, gateway())
    assert used(changed, gateway()).metadata == {"user": {"protocol": ("grpc",)}, "shop": {"protocol": ("grpc",)}}
