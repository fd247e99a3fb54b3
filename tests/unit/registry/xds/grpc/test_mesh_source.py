"""Mesh configuration over streams: everything that the compiler makes can be encoded, and says what its JSON says."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest
from harness.envoy_documents import read_document
from harness.mesh_everything import CATALOG, everything
from harness.xds_messages import DiscoveryResponse
from structlog.testing import capture_logs

from meshconfig.ads import with_ads_sources
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.tracing import Tracing
from meshconfig.resource import Resource
from meshconfig.snapshot import compile_mesh
from registry.cache.mesh_cache import MeshCache
from registry.core.mesh import ServedNode, ServedResource, ServedSet, version_of
from registry.errors import UnavailableError
from registry.xds.grpc.envoy_api import encode_document
from registry.xds.grpc.mesh import MeshSource, _encode_body, encode_ahead
from registry.xds.resources import CLUSTERS, LISTENERS, ROUTES
from wire.node import Node

WEB = Node("envoy-1", "web")


def compiled() -> Iterator[Resource]:
    """Yield every resource of a mesh that uses every policy, with each tracing provider."""
    providers: tuple[Any, ...] = ("zipkin", "xray", "datadog", "opentelemetry", "skywalking")
    for provider in providers:
        tracing = Tracing(provider=provider, address="127.0.0.1:9411")
        snapshot = compile_mesh(everything(Mesh(tracing=tracing, internal_ranges=("127.0.0.1",))), CATALOG)
        for node in snapshot.nodes.values():
            for kind in node.values():
                yield from kind.values()


def test_everything_that_is_compiled_can_be_encoded() -> None:
    """Nothing is lost: what a client reads is what the JSON says, as far as it differs from a default."""
    resources = {each.sha256: each for each in compiled()}
    assert len(resources) > 50
    for resource in resources.values():
        document = with_ads_sources(msgspec.json.decode(resource.body))
        type_url = document.pop("@type")
        read = read_document(type_url, encode_document(type_url, document))
        assert difference(document, read) == [], resource.name


def difference(written: Any, read: Any, path: str = "") -> list[str]:
    """Return where a document lost something on its way through protobuf; defaults are left out there."""
    if isinstance(written, dict):
        left = read or {}
        return [text for key, value in written.items() for text in difference(value, left.get(key), f"{path}.{key}")]
    if isinstance(written, list):
        pairs = zip(written, read or [None] * len(written), strict=True)
        return [text for index, pair in enumerate(pairs) for text in difference(*pair, f"{path}[{index}]")]
    same = read == written or str(read) == str(written) or _is_default(written, read)
    return [] if same or _seconds(read) == _seconds(written) is not None else [f"{path}: {written!r} became {read!r}"]


def _is_default(written: Any, read: Any) -> bool:
    """Return whether a value is left out, because it is its field's default; that of an enum is a name."""
    return read is None and (not written or (isinstance(written, str) and written.isupper()))


def _seconds(value: Any) -> float | None:
    """Return a duration, which may be written with more or fewer zeros."""
    return float(value[:-1]) if isinstance(value, str) and re.fullmatch(r"[\d.]+s", value) else None


def test_assignments_come_over_the_same_stream() -> None:
    """A cluster that REST serves polls for them, which an Envoy with a stream cannot."""
    polled = {"api_config_source": {"api_type": "REST", "cluster_names": ["registry"], "refresh_delay": "0.2s"}}
    found = MeshSource(CLUSTERS, a_cache(a={"type": "EDS", "eds_cluster_config": {"eds_config": polled}})).find(
        WEB, "a"
    )
    assert found is not None
    (packed,) = DiscoveryResponse.FromString(found.entry).resources
    assert read_document(packed.type_url, packed.value)["eds_cluster_config"] == {"eds_config": {"ads": {}}}


def test_what_is_no_resource_of_its_type() -> None:
    """A field that is not known is an error, and never dropped."""
    with pytest.raises(ValueError, match="no_such_field"):
        encode_document(CLUSTERS.type_urls["v3"], {"name": "a", "no_such_field": 1})
    with pytest.raises(ValueError, match="no_such_type"):
        encode_document("type.googleapis.com/no_such_type", {"name": "a"})


def a_cache(**clusters: Mapping[str, Any]) -> MeshCache:
    """Return a cache in which the node.cluster web has these clusters, at revision 7."""
    resources = {
        name: ServedResource(name, version_of(7, 1), msgspec.json.encode({"name": name, **fields}))
        for name, fields in clusters.items()
    }
    return cache_of(resources)


def cache_of(resources: Mapping[str, ServedResource]) -> MeshCache:
    """Return a cache in which the node.cluster web has these clusters, as they are."""
    cache = MeshCache()
    cache.restore("db", 7, [ServedNode("web", {"clusters": ServedSet(version_of(7, 2), resources)})])
    cache.set_database("db")
    cache.mark_ready()
    return cache


def test_a_cluster_says_which_assignments_it_waits_for() -> None:
    """By the name of its service where it has one."""
    eds = {"eds_config": {"ads": {}, "resource_api_version": "V3"}}
    source = MeshSource(
        CLUSTERS,
        a_cache(
            plain={"type": "EDS", "eds_cluster_config": eds},
            named={"type": "EDS", "eds_cluster_config": {**eds, "service_name": "shop"}},
            dns={"type": "STRICT_DNS"},
        ),
    )
    assert source.names(WEB).names == ("plain", "named", "dns")
    assert source.names(WEB).version_info == "db:7.2@*"
    found = {name: source.find(WEB, name) for name in ("plain", "named", "dns", "other")}
    assert found["other"] is None
    assert {name: each.endpoints for name, each in found.items() if each} == {
        "plain": ("plain",),
        "named": ("shop",),
        "dns": (),
    }
    plain = found["plain"]
    assert plain is not None
    assert plain.version == "db:7.1"
    (packed,) = DiscoveryResponse.FromString(plain.entry).resources
    assert packed.type_url == CLUSTERS.type_urls["v3"]
    assert read_document(packed.type_url, packed.value)["name"] == "plain"


def test_a_resource_that_cannot_be_encoded_is_not_left_out() -> None:
    """It would be taken for removed; this process is unsure of it."""
    source = MeshSource(CLUSTERS, a_cache(good={}, bad={"no_such_field": 1}))
    assert source.find(WEB, "good") is not None
    with capture_logs() as logged:
        for _ in range(3):
            with pytest.raises(UnavailableError, match="bad cannot be sent"):
                source.find(WEB, "bad")
    assert [each["event"] for each in logged] == ["resource_not_encoded"]


def test_what_was_read_is_encoded_before_a_stream_asks_for_it() -> None:
    """Its first stream finds it encoded; what cannot be encoded, or is none of the types, is left to that stream."""
    resource = next(iter(compiled()))
    _encode_body.cache_clear()
    for body in (resource.body, b'{"@type":"type.googleapis.com/no.such.Type"}', b"{}", b"\xff"):
        encode_ahead(body)
    assert _encode_body.cache_info().currsize == 1
    type_url = msgspec.json.decode(resource.body)["@type"]
    _encode_body(type_url, resource.body)
    assert _encode_body.cache_info().hits == 1


CLUSTER_HEAD = b'{"@type":"type.googleapis.com/envoy.config.cluster.v3.Cluster","type":"EDS",'


@pytest.mark.parametrize(
    "body",
    [
        CLUSTER_HEAD + b'"connect_timeout":"1s"}',
        CLUSTER_HEAD + b'"name":"a","eds_cluster_config":null}',
        CLUSTER_HEAD + b'"name":"a","eds_cluster_config":[]}',
        CLUSTER_HEAD + b'"name":"a","typed_extension_protocol_options":{"x":{"@type":5}}}',
        CLUSTER_HEAD + b'"name":"a","metadata":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    ],
    ids=["no name", "null", "list", "type", "deep"],
)
def test_a_body_past_the_compiler_costs_itself_alone(body: bytes) -> None:
    """It does not keep other bodies from being read, and its streams are told that it cannot be sent."""
    encode_ahead(body)
    cache = cache_of({"bad": ServedResource("bad", version_of(7, 1), body)})
    with capture_logs(), pytest.raises(UnavailableError, match="bad cannot be sent"):
        MeshSource(CLUSTERS, cache).find(WEB, "bad")


def test_what_was_not_read_is_unsure() -> None:
    """No listener and no route is a decision; before a reading there is none."""
    for each in (LISTENERS, ROUTES):
        with pytest.raises(UnavailableError):
            MeshSource(each, MeshCache()).names(WEB)
        with pytest.raises(UnavailableError):
            MeshSource(each, MeshCache()).find(WEB, "r")


@pytest.mark.parametrize(
    ("name", "held", "behind"),
    [
        ("a", "db:7.1", False),
        ("a", "db:7.2", True),
        ("a", "db:8.0", True),
        ("a", "other:8.0", False),
        ("a", "db:5000.0", False),
        ("a", "db:7", False),
        ("gone", "db:7.1", False),
        ("gone", "db:8.1", True),
    ],
)
def test_a_newer_revision_is_claimed(name: str, held: str, *, behind: bool) -> None:
    """The feed looks for it; a revision that is too far ahead is something else's."""
    cache = a_cache(a={})
    assert MeshSource(CLUSTERS, cache).is_behind(WEB, name, held) is behind
    assert bool(cache.revision_ahead) is behind
