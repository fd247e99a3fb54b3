"""EDS: a snapshot as a ClusterLoadAssignment in JSON, v2 and v3, and the cache of these assignments.

One address or one locality twice, a priority gap, a weight of 0 or a host name would make Envoy reject the whole
answer, or a gRPC client that is stricter than Envoy; what is emitted here has none of them.
"""

from array import array
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from typing import Any, cast

import msgspec
from msgspec import Struct

from registry.cache.snapshot_cache import SnapshotCache
from registry.cache.standing_watches import Changed, StandingWatch
from registry.cache.watches import Watch
from registry.cooperative import at_once
from registry.core.endpoint import Endpoint
from registry.core.snapshot import Snapshot
from registry.errors import UnavailableError
from registry.xds.discovery_response import DiscoveryResponse, closing, opening
from registry.xds.resource_cache import ResourceCache
from registry.xds.resources import ENDPOINTS, Api, RestPath
from registry.xds.version_info import format_version
from wire.node import Node
from wire.reserved_metadata import without_reserved_keys

TYPE_URL = ENDPOINTS.type_urls

_encode = msgspec.json.encode

ENDPOINTS_A_TURN = 100
"""Endpoints that are encoded before other work of the process may have its turn: 0.1 to 0.4 ms."""
_MAX_UNASKED = 20
"""Versions of a large service that are encoded ahead although nobody asks: changes may outrun clients that do."""
_MIN_PREPARED = 2_000
"""Endpoints of a service from which its answers are encoded before they are asked for, in turns."""


class EncodedAssignment(DiscoveryResponse, frozen=True, kw_only=True, gc=False):
    """The whole answer to a request for one service, and the database whose version it carries.

    ``cuts`` has where each endpoint begins and ends in the body, in the order of ids: so an endpoint's bytes are kept
    once, and those of one that did not change are copied into the next answer.
    """

    database_id: str
    cuts: "array[int]"


class Assignment(Struct, frozen=True, gc=False):
    """The ClusterLoadAssignment of a service at one version."""

    version: int
    snapshot: Snapshot
    database_id: str

    @property
    def version_info(self) -> str:
        """The version_info of the response to a request for this service alone."""
        return format_version(self.database_id, self.version)

    def json(self, api: Api) -> bytes:
        """Return the assignment, for an answer of several."""
        return resource(api, self.snapshot)

    def response(self, path: RestPath) -> DiscoveryResponse:
        """Return the whole response to a request for this service alone; made once for each snapshot."""
        self.snapshot.unasked[path.api] = 0
        kept: EncodedAssignment | None = self.snapshot.encoded.get(path.api)
        if kept is None or kept.database_id != self.database_id:
            kept = encode(path.api, self.snapshot, self.database_id)
        return kept


class AssignmentCache(ResourceCache):
    """The assignments of all services; they are the same for every node.

    Args:
        cache: where the endpoints are.
    """

    def __init__(self, cache: SnapshotCache) -> None:
        self._cache = cache

    @property
    def database_id(self) -> str:
        """The database whose versions these are."""
        return self._cache.database_id

    def find(self, _node: Node, name: str) -> Assignment | None:
        """Return the assignment of a service; None if it never had an endpoint, or was forgotten.

        Raises:
            UnavailableError: this process has not read the database yet, or cannot read this service; an Envoy keeps
                what it has.
        """
        cache = self._cache
        if not cache.ready:
            raise UnavailableError("this process has not read the registry's state yet")
        snapshot = cache.get(name)
        if not snapshot.version:
            cache.check_sure(name)
            return None
        return Assignment(snapshot.version, snapshot, cache.database_id)

    def watch(self, _node: Node, names: Collection[str] | None, wake: Callable[[], None]) -> Watch:
        """Call ``wake`` once when one of the services changes or this process gets ready; there is no wildcard."""
        return self._cache.watch(names or (), wake)

    def standing_watch(self, _node: Node, names: Iterable[str] | None, changed: Changed) -> StandingWatch:
        """Call ``changed`` at each change of one of the services, and when this process gets ready."""
        return self._cache.standing_watch(names, changed)

    def absent(self, api: Api, name: str) -> bytes | None:
        """Return an empty assignment in v2, whose contract lists a service that was never registered as empty."""
        return resource(api, Snapshot(name)) if api == "v2" else None

    def claim_ahead(self, _node: Node, name: str, version: int) -> None:
        """Have the change feed look into a version that this process has not read yet."""
        self._cache.claim_ahead(name, version)

    def change_age(self, name: str, version: int, now: float) -> float | None:
        """Return the seconds since the database was told the oldest change that a holder of this version lacks."""
        made_at = self._cache.get(name).made_after(version)
        return None if made_at is None else self._cache.clock.at(now) - made_at


def resource(api: Api, snapshot: Snapshot) -> bytes:
    """Return the service's assignment, for an answer of several."""
    body = bytearray()
    at_once(_add_assignment(body, api, snapshot))
    return bytes(body)


def encode(api: Api, snapshot: Snapshot, database_id: str) -> EncodedAssignment:
    """Encode the response to a request for this service alone, and keep it at the snapshot."""
    return at_once(_encode_in_turns(api, snapshot, database_id))


def prepare(snapshot: Snapshot, database_id: str) -> Generator[None, None, None]:
    """Encode a large snapshot for the clients that ask for its service, in turns with other work.

    A small one is encoded when it is first asked for, and a large one too if nobody has asked for the versions before:
    one person who looks at a poll of v2 must not cost each later change its encoding.
    """
    if len(snapshot.endpoints) < _MIN_PREPARED:
        return
    asked = {encoding for encoding, number in snapshot.unasked.items() if number <= _MAX_UNASKED}
    if snapshot.former is not None:
        for api in asked.intersection(snapshot.former.encoded):
            yield from _encode_in_turns(cast("Api", api), snapshot, database_id)
    for variant, encoding in list(snapshot.streamed_before.items()):
        if variant in asked:
            yield from encoding.encode_next(snapshot, database_id)


def _encode_in_turns(api: Api, snapshot: Snapshot, database_id: str) -> Generator[None, None, EncodedAssignment]:
    version_info = format_version(database_id, snapshot.version)
    body = bytearray(opening(version_info))
    cuts = yield from _add_assignment(body, api, snapshot)
    body += closing(TYPE_URL[api])
    response = EncodedAssignment(200, bytes(body), version_info, database_id=database_id, cuts=cuts)
    snapshot.encoded[api] = response
    snapshot.former = None
    return response


def _add_assignment(body: bytearray, api: Api, snapshot: Snapshot) -> Generator[None, None, "array[int]"]:
    """Append the assignment; return where in ``body`` each endpoint begins and ends, in the order of ids."""
    members = snapshot.ordered()
    fragments: list[bytes | memoryview] = []
    for each in _fragments(members, snapshot if snapshot.encoded else snapshot.former):
        fragments.append(each)
        if len(fragments) % ENDPOINTS_A_TURN == 0:
            yield
    cuts = array("I", bytes(8 * len(members)))
    body += b'{"@type":%b,"cluster_name":%b,"endpoints":[' % (_encode(TYPE_URL[api]), _encode(snapshot.service))
    for number, (locality, indices) in enumerate(grouped(members)):
        body += b"," if number else b""
        body += _locality(*locality, [members[index] for index in indices])
        yield
        for index in indices:
            cuts[2 * index] = len(body)
            body += fragments[index]
            cuts[2 * index + 1] = len(body)
            body += b","
        body[-1:] = b"]}"
        yield
    body += b"]}"
    return cuts


def grouped(members: Sequence[Endpoint]) -> list[tuple[tuple[str, str], list[int]]]:
    """Return the localities as pairs of region and zone, in their order, with the indices of their endpoints."""
    localities: dict[tuple[str, str], list[int]] = {}
    for index, endpoint in enumerate(members):
        registration = endpoint.registration
        localities.setdefault((registration.region, registration.zone), []).append(index)
    return sorted(localities.items())


def locality_weight(members: Iterable[Endpoint]) -> int:
    """Return the weight of a locality; without one it gets nothing as soon as another locality has a weight."""
    return sum(member.weight or 1 for member in members)


def _locality(region: str, zone: str, members: Iterable[Endpoint]) -> bytes:
    return b'{"locality":%b,"load_balancing_weight":%d,"lb_endpoints":[' % (
        _encode({name: value for name, value in (("region", region), ("zone", zone)) if value}),
        locality_weight(members),
    )


def _fragments(members: Iterable[Endpoint], former: Snapshot | None) -> Iterator[bytes | memoryview]:
    """Return each endpoint encoded; what is the same as before is cut out of the former answer."""
    kept = _kept(former)
    before, cut = next(kept, _NONE)
    for endpoint in members:
        while before is not None and before.id < endpoint.id:
            before, cut = next(kept, _NONE)
        yield cut if before is endpoint else _again(before, cut, endpoint) or fragment(endpoint)


def _again(before: Endpoint | None, cut: bytes | memoryview, endpoint: Endpoint) -> bytes | None:
    """Return the bytes of an endpoint of which only the share's weight has changed, which stands last; else None."""
    if before is None or not is_same_row(before, endpoint):
        return None
    return b"%b%d}" % (bytes(cut[: -len(str(before.share_weight)) - 1]), endpoint.share_weight or 1)


def is_same_row(before: Endpoint, after: Endpoint) -> bool:
    """Return whether two endpoints differ in the weight of their share alone, and have one."""
    return (
        bool(before.share_weight and after.share_weight)
        and before.id == after.id
        and before.change == after.change
        and before.registration is after.registration
        and before.override is after.override
    )


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
        _encode(subset_metadata(endpoint)),
        b"" if weight is None else b',"load_balancing_weight":%d' % weight,
    )


def subset_metadata(endpoint: Endpoint) -> dict[str, Any]:
    """Return what Envoy's subset load balancer can match: scalars, and our own three keys over all."""
    registration = endpoint.registration
    own = {
        "canary": endpoint.canary,
        "revision": registration.revision,
        "instance_id": registration.instance_id,
    }
    if not registration.metadata:
        return own
    free = {
        key: value
        for key, value in without_reserved_keys(registration.metadata).items()
        if isinstance(value, str | bool | int | float)
    }
    return {**free, **own}
