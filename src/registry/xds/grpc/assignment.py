"""EDS over streams: a snapshot as a ClusterLoadAssignment in protobuf, and the source of these assignments.

The bytes are made once for a snapshot and a variant, of one fragment an endpoint; the fragments of endpoints that did
not change are copied out of the last encoding. Localities and weights are those of the JSON (`registry.xds.eds`).
"""

from array import array
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Literal, cast

import structlog
from msgspec import Struct

from registry.cache.snapshot_cache import SnapshotCache
from registry.cache.standing_watches import Changed
from registry.cooperative import at_once
from registry.core.endpoint import Endpoint
from registry.core.snapshot import Snapshot
from registry.core.versions import MAX_VERSIONS_AHEAD
from registry.errors import UnavailableError
from registry.xds.eds import ENDPOINTS_A_TURN, TYPE_URL, AssignmentCache, grouped, locality_weight, subset_metadata
from registry.xds.grpc import messages_pb2 as messages
from registry.xds.grpc.source import EncodedResource, Source, encode_resource, make_entry
from registry.xds.grpc.unencodable import Unencodable
from registry.xds.grpc.wire_format import field, key, number, text
from registry.xds.resource_cache import ResourceNames, StandingWatch
from registry.xds.resources import ENDPOINTS, ResourceType
from registry.xds.version_info import format_version, parse_version_info
from wire.model import Health
from wire.node import Node

log = structlog.get_logger()

Variant = Literal["envoy", "grpc"]
"""An encoding of assignments. That for gRPC libraries has only what they use: healthy endpoints, without metadata."""

_CLUSTER_NAME, _LOCALITIES = 1, 2
"""Fields of `ClusterLoadAssignment`."""
_LOCALITY, _LB_ENDPOINTS, _WEIGHT = 1, 2, 3
"""Fields of `LocalityLbEndpoints`."""
_REGION, _ZONE = 1, 2
"""Fields of `Locality`."""
_VALUE = 1
"""The field of `UInt32Value`."""
_HEALTH = {health: cast("messages.HealthStatus", messages.HealthStatus.Value(health.value)) for health in Health}


class _Encoding(Struct, frozen=True, gc=False):
    """The assignment of a snapshot in one variant.

    Attributes:
        database_id: the database whose version it has.
        resource: the assignment.
        endpoints: its endpoints, in the order of their ids.
        cuts: where each of them begins and ends, counted from ``begins_at``.
        begins_at: where the assignment begins in ``resource.entry``.
        variant: the encoding.
    """

    database_id: str
    resource: EncodedResource
    endpoints: Sequence[Endpoint]
    cuts: "array[int]"
    begins_at: int
    variant: Variant

    def encode_next(self, snapshot: Snapshot, database_id: str) -> Generator[None, None, None]:
        """Encode a later snapshot in the same variant, in turns with other work."""
        try:
            yield from _encode_in_turns(self.variant, snapshot, database_id)
        except ValueError:
            # The stream that asks for it is told, and the log then.
            return


class AssignmentSource(Source):
    """The assignments of all services in one variant; they are the same for every client of a kind.

    Args:
        cache: where the endpoints are.
        variant: the encoding.
    """

    def __init__(self, cache: SnapshotCache, variant: Variant) -> None:
        self._cache = cache
        self._assignments = AssignmentCache(cache)
        self._variant: Variant = variant
        self._unencodable = Unencodable("assignment_not_encoded")

    @property
    def type(self) -> ResourceType:
        """Endpoints."""
        return ENDPOINTS

    @property
    def database_id(self) -> str:
        """The database whose versions these are."""
        return self._cache.database_id

    @property
    def unknown(self) -> str:
        """The words for a service that never had an endpoint."""
        return "no service of this name is registered"

    def find(self, _node: Node, name: str) -> EncodedResource | None:
        """Return the assignment of a service; None if it never had an endpoint, or was forgotten.

        Raises:
            UnavailableError: this process has not read the database yet, or cannot read or encode this one.
        """
        cache = self._cache
        if not cache.ready:
            raise UnavailableError("this process has not read the registry's state yet")
        snapshot = cache.get(name)
        if not snapshot.version:
            cache.check_sure(name)
            return None
        snapshot.unasked[self._variant] = 0
        kept: _Encoding | None = snapshot.streamed.get(self._variant)
        if kept is None or kept.database_id != cache.database_id:
            kept = self._encoded(snapshot, cache.database_id)
        return kept.resource

    def _encoded(self, snapshot: Snapshot, database_id: str) -> _Encoding:
        """Return a snapshot encoded.

        Raises:
            UnavailableError: it cannot be. A row that was written past the API must not end the streams of its service.
        """
        name, version = snapshot.service, (database_id, snapshot.version)
        self._unencodable.check(name, version)
        try:
            return _encode(self._variant, snapshot, database_id)
        except ValueError as error:
            words = f"the assignment of {name} cannot be encoded; the log says why"
            raise self._unencodable.refuse(name, version, words, error, service=name, variant=self._variant) from error

    def names(self, _node: Node) -> ResourceNames:
        """Return nothing: there is no wildcard."""
        return ResourceNames()

    def standing_watch(self, node: Node, names: Iterable[str] | None, changed: Changed) -> StandingWatch:
        """Call ``changed`` at each change of one of the services, and when this process gets ready."""
        return self._assignments.standing_watch(node, names, changed)

    def is_behind(self, node: Node, name: str, version: str) -> bool:
        """Return whether a client holds a newer version of a service; the change feed looks into it then."""
        held = parse_version_info(self._cache.database_id, (name,), version, ENDPOINTS)
        ours = self._cache.get(name).version
        if held is None or not ours or not ours < held[0] <= ours + MAX_VERSIONS_AHEAD:
            return False
        self._assignments.claim_ahead(node, name, held[0])
        return True

    def absent(self, name: str) -> EncodedResource:
        """Return an assignment without endpoints: silence would hold the start of an Envoy for 15 seconds."""
        entry = make_entry(TYPE_URL["v3"], text(_CLUSTER_NAME, name))
        return encode_resource(name, format_version(self._cache.database_id, 0), entry)


def _encode(variant: Variant, snapshot: Snapshot, database_id: str) -> _Encoding:
    """Encode an assignment, and keep it at the snapshot."""
    return at_once(_encode_in_turns(variant, snapshot, database_id))


def _encode_in_turns(variant: Variant, snapshot: Snapshot, database_id: str) -> Generator[None, None, _Encoding]:
    members = snapshot.ordered()
    if variant == "grpc":
        # gRPC sends to nothing else, so the rest would be bytes only (gRFC A27).
        members = [member for member in members if member.status is Health.HEALTHY]
    former: _Encoding | None = snapshot.streamed.get(variant) or snapshot.streamed_before.get(variant)
    fragments: list[bytes | memoryview] = []
    for each in _fragments(variant, members, former):
        fragments.append(each)
        if len(fragments) % ENDPOINTS_A_TURN == 0:
            yield
    value: list[bytes | memoryview] = [text(_CLUSTER_NAME, snapshot.service)]
    cuts = array("I", bytes(8 * len(members)))
    end = len(value[0])
    for (region, zone), indices in grouped(members):
        head = _locality_head(region, zone, [members[index] for index in indices])
        head = key(_LOCALITIES, len(head) + sum(len(fragments[index]) for index in indices)) + head
        value.append(head)
        end += len(head)
        for index in indices:
            value.append(fragments[index])
            cuts[2 * index] = end
            end += len(fragments[index])
            cuts[2 * index + 1] = end
        yield
    entry = make_entry(TYPE_URL["v3"], *value)
    resource = encode_resource(snapshot.service, format_version(database_id, snapshot.version), entry)
    encoding = _Encoding(database_id, resource, members, cuts, len(entry) - end, variant)
    snapshot.streamed[variant] = encoding
    snapshot.streamed_before.pop(variant, None)
    return encoding


def _locality_head(region: str, zone: str, members: Iterable[Endpoint]) -> bytes:
    """Return a `LocalityLbEndpoints` without its endpoints, whose keys may come in any order."""
    return field(_LOCALITY, text(_REGION, region) + text(_ZONE, zone)) + field(
        _WEIGHT, number(_VALUE, locality_weight(members))
    )


def _fragments(variant: Variant, members: Iterable[Endpoint], former: _Encoding | None) -> Iterator[bytes | memoryview]:
    """Return each endpoint encoded, with its key; what is the same as before is cut out of the last encoding."""
    kept = _kept(former)
    before, cut = next(kept, _NONE)
    for endpoint in members:
        while before is not None and before.id < endpoint.id:
            before, cut = next(kept, _NONE)
        yield cut if before is endpoint else field(_LB_ENDPOINTS, encode_endpoint(variant, endpoint))


_NONE: tuple[None, bytes] = (None, b"")


def _kept(former: _Encoding | None) -> Iterator[tuple[Endpoint | None, bytes | memoryview]]:
    if former is None:
        return
    body, ends = memoryview(former.resource.entry)[former.begins_at :], iter(former.cuts)
    for endpoint, begin, end in zip(former.endpoints, ends, ends, strict=True):
        yield endpoint, body[begin:end]


def encode_endpoint(variant: Variant, endpoint: Endpoint) -> bytes:
    """Return the endpoint as an `LbEndpoint`."""
    message = messages.LbEndpoint(health_status=_HEALTH[endpoint.status])
    address = message.endpoint.address.socket_address
    address.address, address.port_value = endpoint.address, endpoint.port
    if endpoint.weight is not None:
        message.load_balancing_weight.value = endpoint.weight
    if variant == "envoy":
        subset = message.metadata.filter_metadata.add(key="envoy.lb").value.fields
        for name, value in subset_metadata(endpoint).items():
            _set(subset.add(key=name).value, value)
    return message.SerializeToString()


def _set(message: messages.Value, value: str | float) -> None:  # bool is an int
    """Set a `google.protobuf.Value` to a scalar."""
    if isinstance(value, str):
        message.string_value = value
    elif isinstance(value, bool):
        message.bool_value = value
    else:
        message.number_value = value
