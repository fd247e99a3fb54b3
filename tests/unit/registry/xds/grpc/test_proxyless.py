"""Listeners and clusters for gRPC libraries; real ones dial them in tests/contract."""

from collections.abc import Mapping
from typing import Any

import pytest
from harness.envoy_documents import read_document
from harness.xds_messages import DiscoveryResponse
from unit.registry.making import endpoint, snapshot

from registry.cache.snapshot_cache import SnapshotCache
from registry.errors import UnavailableError
from registry.xds.grpc.proxyless import (
    SERVICE_CLUSTERS,
    SERVICE_LISTENERS,
    ServiceSource,
    service_cluster,
    service_listener,
)
from registry.xds.resources import ResourceType
from wire.node import ANONYMOUS


@pytest.mark.parametrize(
    ("resource_type", "document"),
    [(SERVICE_LISTENERS, service_listener("shop")), (SERVICE_CLUSTERS, service_cluster("shop"))],
)
def test_a_service_that_was_ever_known_has_both(resource_type: ResourceType, document: Mapping[str, Any]) -> None:
    """Also without endpoints: to leave them out would cut RPCs, an empty assignment does not."""
    cache = SnapshotCache()
    source = ServiceSource(resource_type, cache)
    with pytest.raises(UnavailableError):
        source.find(ANONYMOUS, "shop")
    cache.restore("db", {"shop": snapshot(version=3), "full": snapshot(endpoint(1, service="full"), service="full")})
    found = source.find(ANONYMOUS, "shop")
    assert found is not None
    assert found.version == "db:1"
    assert source.find(ANONYMOUS, "full") is not None
    assert source.find(ANONYMOUS, "other") is None
    cache.doubt("unread")
    assert source.find(ANONYMOUS, "unread") is not None, "it exists, and its name is all that this is made of"
    (packed,) = DiscoveryResponse.FromString(found.entry).resources
    assert packed.type_url == resource_type.type_urls["v3"]
    # ROUND_ROBIN is the default of Envoy's API, and so is not written.
    assert read_document(packed.type_url, packed.value) | {"lb_policy": "ROUND_ROBIN"} == {
        **document,
        "lb_policy": "ROUND_ROBIN",
    }
