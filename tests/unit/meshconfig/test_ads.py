"""ADS: a bootstrap for polls becomes one for a stream, and keeps everything that has nothing to do with that."""

from typing import Any

import msgspec
import pytest

from meshconfig.ads import over_ads, with_ads_sources
from meshconfig.bootstrap import LOCAL_CLUSTER, bootstrap
from meshconfig.cluster import REGISTRY_CLUSTER
from meshconfig.definition.dependency import Dependency
from meshconfig.definition.gateway import Gateway, Select
from meshconfig.definition.listen import GatewayListen
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.registry_client import RegistryClient
from meshconfig.definition.tls import Tls
from meshconfig.effective import Caller, Configuration
from meshconfig.proto_json import Document
from meshconfig.recommended_bootstrap import ListenedService, Node, recommended_bootstrap, recommended_text, registries

OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
STREAMS = ("registry-1:18000", "registry-2:18000")


def bootstrap_of(name: str, client: RegistryClient = RegistryClient()) -> Document:  # noqa: B008  # it is frozen
    """Return the bootstrap of the service ``web``, which prefers its zone, or of the gateway ``front``."""
    web = Caller("web", (Dependency(name="shop", service="shop", zones=True),))
    front = Gateway(gateway="front", listen=GatewayListen(port=80), select=Select())
    return bootstrap(Configuration(Mesh(registry=client), {"web": web}, {"front": front}), name)


def registry_cluster_of(document: Document) -> dict[str, Any]:
    """Return the cluster of registries."""
    clusters = document["static_resources"]["clusters"]
    (found,) = [cluster for cluster in clusters if cluster["name"] == REGISTRY_CLUSTER]
    return dict(found)


@pytest.mark.parametrize("name", ["web", "front"])
def test_nothing_is_left_that_polls(name: str) -> None:
    """Clusters, listeners, routes and the endpoints of the own service come over the one stream."""
    before, after = bootstrap_of(name), over_ads(bootstrap_of(name), STREAMS)
    text = msgspec.json.encode(after).decode()
    assert "api_config_source" not in text
    polled = msgspec.json.encode(before).decode().count('"api_config_source"')
    assert text.count('"ads":{}') == polled >= 2
    assert after["dynamic_resources"]["ads_config"] == {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [{"envoy_grpc": {"cluster_name": REGISTRY_CLUSTER}}],
    }
    source = after["dynamic_resources"]["cds_config"]
    assert source == {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}


def test_the_rest_of_a_bootstrap_stays() -> None:
    """It differs in sources and in the cluster of registries, and the bootstrap that it was made of is as it was."""
    before = bootstrap_of("web")
    copy = msgspec.json.decode(msgspec.json.encode(before))
    after = over_ads(before, STREAMS)
    assert before == copy
    for key in ("node", "admin", "overload_manager", "stats_config", "cluster_manager"):
        assert after[key] == before[key]
    names = [cluster["name"] for cluster in after["static_resources"]["clusters"]]
    assert names == [REGISTRY_CLUSTER, LOCAL_CLUSTER]


def test_registries_are_asked_over_http2_with_keepalive_and_as_equals() -> None:
    """A dead registry is noticed by PINGs; no HTTP health check goes to a port that has none."""
    cluster = registry_cluster_of(over_ads(bootstrap_of("web"), STREAMS))
    options = cluster["typed_extension_protocol_options"][OPTIONS]
    keepalive = {"connection_keepalive": {"interval": "20s", "timeout": "10s"}}
    assert options["explicit_http_config"] == {"http2_protocol_options": keepalive}
    assert "health_checks" not in cluster
    (members,) = cluster["load_assignment"]["endpoints"]
    hosts = [member["endpoint"]["address"]["socket_address"]["address"] for member in members["lb_endpoints"]]
    assert hosts == ["registry-1", "registry-2"]
    assert (cluster["type"], "priority" in members) == ("STRICT_DNS", False)
    assert cluster["upstream_connection_options"]["tcp_keepalive"]["keepalive_time"] == 30
    addressed = registry_cluster_of(over_ads(bootstrap_of("web"), ["10.0.0.1:18000"]))
    assert (addressed["type"], "dns_lookup_family" in addressed) == ("STATIC", False)


def test_tls_credentials_and_the_age_of_connections_stay() -> None:
    """What authenticates Envoy and registry to each other holds for streams as for polls."""
    client = registries("registry.internal:8443", tls=Tls(ca_file="/ca.pem"), max_connection_duration=3600.0)
    before, after = bootstrap_of("web", client), over_ads(bootstrap_of("web", client), ["registry.internal:18000"])
    polled, streamed = registry_cluster_of(before), registry_cluster_of(after)
    assert streamed["transport_socket"] == polled["transport_socket"]
    for key in ("http_filters", "common_http_protocol_options"):
        polled_options = polled["typed_extension_protocol_options"][OPTIONS]
        assert streamed["typed_extension_protocol_options"][OPTIONS][key] == polled_options[key]


def test_sources_of_others_stay() -> None:
    """Files and other control planes are read as before; a resource that came from polls comes over ADS."""
    file = {"resource_api_version": "V3", "path_config_source": {"path": "/etc/x"}}
    other = {"api_config_source": {"api_type": "GRPC", "cluster_names": ["elsewhere"]}}
    assert with_ads_sources([file, other]) == [file, other]
    polled = {"api_config_source": {"api_type": "REST", "cluster_names": ["registry"]}, "resource_api_version": "V3"}
    resource = {"name": "shop", "eds_cluster_config": {"eds_config": polled}}
    assert with_ads_sources(resource) == {
        "name": "shop",
        "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}},
    }


@pytest.mark.parametrize("addresses", [(), ("registry",), ("registry:0",), ("registry:http",)])
def test_an_invalid_address_is_refused(addresses: tuple[str, ...]) -> None:
    """A bootstrap that Envoy would refuse is not made."""
    with pytest.raises(ValueError, match=r"\S"):
        over_ads(bootstrap_of("web"), addresses)


def test_the_recommended_bootstrap_says_what_a_stream_needs() -> None:
    """It has the same services over ADS, and comments where the reasons are not obvious."""
    arguments = Node("n", "c", "r"), "127.0.0.1:1", registries("127.0.0.1:2"), [ListenedService("shop", "127.0.0.1:3")]
    document, text = recommended_bootstrap(*arguments, STREAMS), recommended_text(*arguments, STREAMS)
    cluster = document["static_resources"]["clusters"][1]
    assert cluster["eds_cluster_config"]["eds_config"] == {
        "ads": {},
        "resource_api_version": "V3",
        "initial_fetch_timeout": "5s",
    }
    assert "# Else each acknowledgement has the list of Envoy's extensions: 61 kB." in text
    assert "poll" not in text.casefold()
