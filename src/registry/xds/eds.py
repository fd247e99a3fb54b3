"""A snapshot as a ClusterLoadAssignment in JSON, v2 and v3.

One address or one locality twice, a priority gap, a weight of 0 or a host name would make Envoy reject the whole
answer, or a gRPC client that is stricter than Envoy; what is emitted here has none of them.
"""

from collections.abc import Iterable
from typing import Any, Literal

import msgspec
from msgspec.structs import force_setattr

from registry.endpoint import Endpoint
from registry.snapshot import Encoded, Snapshot

Api = Literal["v2", "v3"]

TYPE_URL: dict[Api, str] = {
    "v2": "type.googleapis.com/envoy.api.v2.ClusterLoadAssignment",
    "v3": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
}

_encode = msgspec.json.encode


def response(api: Api, version_info: str, resources: Iterable[bytes]) -> bytes:
    """Return a DiscoveryResponse of encoded resources."""
    return b'{"version_info":%b,"resources":[%b],"type_url":%b}' % (
        _encode(version_info),
        b",".join(resources),
        _encode(TYPE_URL[api]),
    )


def resource(api: Api, snapshot: Snapshot) -> bytes:
    """Return the service's assignment, joined from fragments that are encoded once per endpoint."""
    return b'{"@type":%b,"cluster_name":%b,"endpoints":[%b]}' % (
        _encode(TYPE_URL[api]),
        _encode(snapshot.service),
        b",".join(_localities(snapshot)),
    )


def encoded(api: Api, snapshot: Snapshot, database_id: str) -> Encoded:
    """Return the answer to whoever asks for this service alone; joined once per snapshot, and nothing else is kept."""
    known = snapshot.encoded.get(api)
    if known is None or known.database_id != database_id:
        version_info = f"{database_id}:{snapshot.version}"
        body = response(api, version_info, [resource(api, snapshot)])
        known = snapshot.encoded[api] = Encoded(database_id, version_info, body)
    return known


def _localities(snapshot: Snapshot) -> list[bytes]:
    grouped: dict[tuple[str, str], list[Endpoint]] = {}
    for endpoint in snapshot.ordered():
        told = endpoint.registration
        grouped.setdefault((told.region, told.zone), []).append(endpoint)
    return [_locality(*place, grouped[place]) for place in sorted(grouped)]


def _locality(region: str, zone: str, members: list[Endpoint]) -> bytes:
    # Without a weight, a locality gets nothing as soon as another one has a weight.
    weight = sum(member.weight or 1 for member in members)
    return b'{"locality":%b,"load_balancing_weight":%d,"lb_endpoints":[%b]}' % (
        _encode({name: value for name, value in (("region", region), ("zone", zone)) if value}),
        weight,
        b",".join(map(fragment, members)),
    )


def fragment(endpoint: Endpoint) -> bytes:
    """Return the endpoint as an LbEndpoint; encoded once, since an endpoint never changes."""
    if not endpoint.fragment:
        force_setattr(endpoint, "fragment", _encode(_lb_endpoint(endpoint)))
    return endpoint.fragment


def _lb_endpoint(endpoint: Endpoint) -> dict[str, Any]:
    address = {"address": endpoint.address, "port_value": endpoint.port}
    encoded: dict[str, Any] = {
        "endpoint": {"address": {"socket_address": address}},
        "health_status": endpoint.status.value,
        "metadata": {"filter_metadata": {"envoy.lb": _subset_metadata(endpoint)}},
    }
    if endpoint.weight is not None:
        encoded["load_balancing_weight"] = endpoint.weight
    return encoded


def _subset_metadata(endpoint: Endpoint) -> dict[str, Any]:
    """Return what Envoy's subset load balancer can match: scalars, and our own three keys over all."""
    told = endpoint.registration
    own = {"canary": endpoint.canary, "revision": told.revision, "instance_id": told.instance_id}
    free = {key: value for key, value in told.metadata.items() if isinstance(value, str | bool | int | float)}
    return {**free, **own}
