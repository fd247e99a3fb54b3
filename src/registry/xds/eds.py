"""A snapshot as a ClusterLoadAssignment in JSON, v2 and v3.

One address or one locality twice, a priority gap, a weight of 0 or a host name would make Envoy reject the whole
answer, or a gRPC client that is stricter than Envoy; what is emitted here has none of them.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import msgspec

from registry.core.endpoint import Endpoint
from registry.core.snapshot import EncodedResponse, Snapshot

Api = Literal["v2", "v3"]

TYPE_URL: dict[Api, str] = {
    "v2": "type.googleapis.com/envoy.api.v2.ClusterLoadAssignment",
    "v3": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
}

_encode = msgspec.json.encode


def response(api: Api, version_info: str, resources: Iterable[bytes]) -> bytes:
    """Return a DiscoveryResponse of encoded resources."""
    return b"".join((_opening(version_info), b",".join(resources), _closing(api)))


def resource(api: Api, snapshot: Snapshot) -> bytes:
    """Return the service's assignment, for an answer of several."""
    body = bytearray()
    _add_assignment(body, api, snapshot)
    return bytes(body)


def encoded(api: Api, snapshot: Snapshot, database_id: str) -> EncodedResponse:
    """Return the answer to whoever asks for this service alone; made once per snapshot, and nothing else is kept."""
    known = snapshot.encoded.get(api)
    if known is None or known.database_id != database_id:
        version_info = f"{database_id}:{snapshot.version}"
        body = bytearray(_opening(version_info))
        cuts = _add_assignment(body, api, snapshot)
        body += _closing(api)
        known = snapshot.encoded[api] = EncodedResponse(database_id, version_info, bytes(body), cuts)
        snapshot.former = None
    return known


def _opening(version_info: str) -> bytes:
    return b'{"version_info":%b,"resources":[' % _encode(version_info)


def _closing(api: Api) -> bytes:
    return b'],"type_url":%b}' % _encode(TYPE_URL[api])


def _add_assignment(body: bytearray, api: Api, snapshot: Snapshot) -> "array[int]":
    """Append the assignment; return where in ``body`` each endpoint begins and ends, in the order of ids."""
    members = snapshot.ordered()
    fragments = list(_fragments(members, snapshot if snapshot.encoded else snapshot.former))
    cuts = array("I", bytes(8 * len(members)))
    body += b'{"@type":%b,"cluster_name":%b,"endpoints":[' % (_encode(TYPE_URL[api]), _encode(snapshot.service))
    for number, (place, indices) in enumerate(_grouped(members)):
        body += b"," if number else b""
        body += _locality(*place, [members[index] for index in indices])
        for index in indices:
            cuts[2 * index] = len(body)
            body += fragments[index]
            cuts[2 * index + 1] = len(body)
            body += b","
        body[-1:] = b"]}"
    body += b"]}"
    return cuts


def _grouped(members: Sequence[Endpoint]) -> list[tuple[tuple[str, str], list[int]]]:
    grouped: dict[tuple[str, str], list[int]] = {}
    for index, endpoint in enumerate(members):
        told = endpoint.registration
        grouped.setdefault((told.region, told.zone), []).append(index)
    return sorted(grouped.items())


def _locality(region: str, zone: str, members: Iterable[Endpoint]) -> bytes:
    # Without a weight, a locality gets nothing as soon as another one has a weight.
    weight = sum(member.weight or 1 for member in members)
    return b'{"locality":%b,"load_balancing_weight":%d,"lb_endpoints":[' % (
        _encode({name: value for name, value in (("region", region), ("zone", zone)) if value}),
        weight,
    )


def _fragments(members: Iterable[Endpoint], former: Snapshot | None) -> Iterator[bytes | memoryview]:
    """Return each endpoint encoded; what is the same as before is cut out of the former answer."""
    kept = _kept(former)
    known, cut = next(kept, _NONE)
    for endpoint in members:
        while known is not None and known.id < endpoint.id:
            known, cut = next(kept, _NONE)
        yield cut if known is endpoint else fragment(endpoint)


_NONE: tuple[None, bytes] = (None, b"")


def _kept(former: Snapshot | None) -> Iterator[tuple[Endpoint | None, bytes | memoryview]]:
    # Of either API: they differ in the type alone.
    answer = None if former is None else next(iter(former.encoded.values()), None)
    if former is None or answer is None:
        return
    body, ends = memoryview(answer.body), iter(answer.cuts)
    for endpoint, begin, end in zip(former.ordered(), ends, ends, strict=True):
        yield endpoint, body[begin:end]


def fragment(endpoint: Endpoint) -> bytes:
    """Return the endpoint as an LbEndpoint."""
    weight = endpoint.weight
    return (
        b'{"endpoint":{"address":{"socket_address":{"address":%b,"port_value":%d}}},"health_status":"%b",'
        b'"metadata":{"filter_metadata":{"envoy.lb":%b}}%b}'
    ) % (
        _encode(endpoint.address),
        endpoint.port,
        endpoint.status.encode(),
        _encode(_subset_metadata(endpoint)),
        b"" if weight is None else b',"load_balancing_weight":%d' % weight,
    )


def _subset_metadata(endpoint: Endpoint) -> dict[str, Any]:
    """Return what Envoy's subset load balancer can match: scalars, and our own three keys over all."""
    told = endpoint.registration
    own = {"canary": endpoint.canary, "revision": told.revision, "instance_id": told.instance_id}
    if not told.metadata:
        return own
    free = {key: value for key, value in told.metadata.items() if isinstance(value, str | bool | int | float)}
    return {**free, **own}
