"""A world of names and versions in memory behind the protocol of streams, and clients that talk to it."""

from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from itertools import count
from typing import Any

from msgspec import Struct

from harness.xds_messages import (
    ClusterLoadAssignment,
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from registry.cache.standing_watches import Changed
from registry.errors import UnavailableError
from registry.xds.grpc.client import Client
from registry.xds.grpc.observer import Guard, NoGuard, ObservedStream, Observer, Rejection
from registry.xds.grpc.response import ResponseTails
from registry.xds.grpc.sotw import SotwStream
from registry.xds.grpc.source import EncodedResource, Source, encode_resource, make_entry
from registry.xds.grpc.stream import Discoverable, Stream
from registry.xds.resource_cache import ResourceNames
from registry.xds.resources import CLUSTERS, ENDPOINTS, LISTENERS, ROUTES, ResourceType
from wire.node import Node

EDS = ENDPOINTS.type_urls["v3"]
CDS = CLUSTERS.type_urls["v3"]
LDS = LISTENERS.type_urls["v3"]
RDS = ROUTES.type_urls["v3"]


class _Watch:
    """Calls back at once."""

    def __init__(self, watches: dict["_Watch", None], names: Iterable[str] | None, changed: Changed) -> None:
        self._watches = watches
        self.names = None if names is None else set(names)
        self.changed = changed
        watches[self] = None

    def add(self, names: Iterable[str]) -> None:
        """Watch further names."""
        assert self.names is not None
        self.names.update(names)

    def remove(self, names: Iterable[str]) -> None:
        """Stop watching names."""
        assert self.names is not None
        self.names.difference_update(names)

    def cancel(self) -> None:
        """Stop watching."""
        del self._watches[self]


class MemorySource(Source):
    """The resources of one type, whose versions are numbers of one database.

    Attributes:
        versions: the version of each name.
        sure: whether it answers.
        doubtful: names of which it is unsure all the same.
        waits_for: the assignments that a cluster waits for.
        size: how large each resource is.
    """

    def __init__(self, resource_type: ResourceType) -> None:
        self._type = resource_type
        self.versions: dict[str, int] = {}
        self.sure = True
        self.doubtful: AbstractSet[str] = frozenset()
        self.waits_for: dict[str, tuple[str, ...]] = {}
        self.size: dict[str, int] = {}
        self.watches: dict[_Watch, None] = {}
        self.claims: dict[str, int] = {}
        self._set_version = 0
        self._made: dict[tuple[str, int], EncodedResource] = {}

    @property
    def type(self) -> ResourceType:
        """The type."""
        return self._type

    @property
    def database_id(self) -> str:
        """The database of all worlds."""
        return "db"

    def find(self, node: Node, name: str) -> EncodedResource | None:
        """Return a resource whose bytes are its name and version."""
        self._check(name)
        version = self.versions.get(name)
        return None if version is None else self._encoded(name, version)

    def names(self, node: Node) -> ResourceNames:
        """Return all names."""
        self._check()
        return ResourceNames(self._set_version, tuple(self.versions), f"db:{self._set_version}@*")

    def standing_watch(self, node: Node, names: Iterable[str] | None, changed: Changed) -> _Watch:
        """Watch names, or all."""
        return _Watch(self.watches, names, changed)

    def is_behind(self, node: Node, name: str, version: str) -> bool:
        """Compare numbers of this database."""
        database, _, number = version.partition(":")
        ours = self.versions.get(name, self._set_version if self._type.keyed_by_cluster else 0)
        if database != "db" or not number.isdigit() or int(number) <= ours:
            return False
        self.claims[name] = int(number)
        return True

    def absent(self, name: str) -> EncodedResource | None:
        """Return an assignment without endpoints; other types have nothing of the kind."""
        return self._encoded(name, 0) if self._type is ENDPOINTS else None

    def put(self, *names: str) -> None:
        """Raise the version of these names, and call back."""
        self._set_version += 1
        for name in names:
            self.versions[name] = self._set_version
        self._tell(set(names))

    def provide(self, resource: EncodedResource, version: int) -> None:
        """Publish a resource as it is, and call back."""
        self._set_version = max(self._set_version, version)
        self.versions[resource.name] = version
        self._made[resource.name, version] = resource
        self._tell({resource.name})

    def drop(self, *names: str) -> None:
        """Forget these names, and call back."""
        self._set_version += 1
        for name in names:
            del self.versions[name]
        self._tell(set(names))

    def make_sure(self, *, sure: bool = True) -> None:
        """Answer from now on, or not."""
        self.sure = sure
        self._tell(None)

    def _tell(self, names: AbstractSet[str] | None) -> None:
        for watch in list(self.watches):
            mine = names if names is None or watch.names is None else names & watch.names
            if mine is None or mine:
                watch.changed(mine)

    def _check(self, name: str = "") -> None:
        if not self.sure or name in self.doubtful:
            raise UnavailableError("this process has not read the registry's state yet")

    def _encoded(self, name: str, version: int) -> EncodedResource:
        made = self._made.get((name, version))
        if made is None:
            padding = "x" * self.size.get(name, 0)
            value = ClusterLoadAssignment(cluster_name=f"{name} {version}{padding}").SerializeToString()
            entry = make_entry(self._type.type_urls["v3"], value)
            made = encode_resource(name, f"db:{version}", entry, self.waits_for.get(name, ()))
            self._made[name, version] = made
        return made


class World:
    """Sources of all types, and the streams that were opened to them."""

    def __init__(self) -> None:
        self.eds = MemorySource(ENDPOINTS)
        self.cds = MemorySource(CLUSTERS)
        self.lds = MemorySource(LISTENERS)
        self.rds = MemorySource(ROUTES)
        self.sources: Mapping[str, Source] = {CDS: self.cds, EDS: self.eds, LDS: self.lds, RDS: self.rds}
        self.shared = Discoverable(self._sources_of, ResponseTails("registry-1"))

    def _sources_of(self, _client: Client) -> Mapping[str, Source]:
        return self.sources


class Heard(Observer):
    """Writes down what a stream says of itself."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def opened(self, stream: ObservedStream) -> None:
        """Write down who opened it."""
        self.events.append(("opened", stream.node.id))

    def closed(self, now: float) -> None:
        """Write down that it ended."""
        self.events.append(("closed",))

    def answered(self, resource_type: ResourceType, *, delta: bool, resources: int) -> None:
        """Write down an answer."""
        self.events.append(("answered", resource_type.name, resources))

    def acknowledged(self, resource_type: ResourceType, previous: Mapping[str, str], now: float) -> None:
        """Write down an ACK."""
        self.events.append(("acknowledged", resource_type.name, dict(previous)))

    def rejected(self, resource_type: ResourceType, rejection: Rejection) -> None:
        """Write down a NACK."""
        self.events.append(("rejected", resource_type.name, rejection.message, dict(rejection.versions)))

    def unacknowledged(self, resource_type: ResourceType) -> None:
        """Write down an answer without an ACK."""
        self.events.append(("unacknowledged", resource_type.name))

    def coalesced(self, resource_type: ResourceType) -> None:
        """Write down a change that was overtaken."""
        self.events.append(("coalesced", resource_type.name))

    def oversized(self, resource_type: ResourceType, name: str, size: int) -> None:
        """Write down a resource that is too large."""
        self.events.append(("oversized", resource_type.name, name))

    def count(self, kind: str) -> int:
        """Return how many events of a kind there were."""
        return sum(event[0] == kind for event in self.events)


class Answer(Struct, frozen=True):
    """An answer as a client reads it.

    Attributes:
        type_url: its type.
        nonce: its nonce.
        resources: the version of each resource by name.
        removed: the names that it says do not exist; of delta alone.
        errors: the words about names without a resource.
        version: its version, and that of each resource of a delta by name.
    """

    type_url: str
    nonce: str
    resources: Mapping[str, int]
    removed: Collection[str] = ()
    errors: Mapping[str, str] = {}
    version: str = ""
    versions: Mapping[str, str] = {}


class Talk:
    """One stream, as its client has it: what it sends and what comes.

    Args:
        world: what the server has.
        stream: the kind of stream.
        only: the only type of the method; None: ADS.
        user_agent: names the client.
        guard: decides what it may ask for.
        observer: takes note of it, in place of ``heard``.
        suffix: is sent behind each request, as fields that the registry does not know.
    """

    def __init__(
        self,
        world: World,
        stream: type[Stream] = SotwStream,
        only: str | None = None,
        *,
        user_agent: str = "envoy",
        guard: Guard | None = None,
        observer: Observer | None = None,
        suffix: bytes = b"",
    ) -> None:
        self.woken = 0
        self._suffix = suffix
        self.heard = Heard()
        self.now = 0.0
        self.stream = stream(world.shared, guard or NoGuard(), observer or self.heard, self._wake, only)
        self._node = {"id": "envoy-1", "cluster": "web", "user_agent_name": user_agent}
        self._requests = count(1)

    def _wake(self) -> None:
        self.woken += 1

    def ask(self, type_url: str = EDS, names: Iterable[str] = (), nonce: str = "", **fields: Any) -> None:
        """Send a request of the state of the world; the node comes with the first alone."""
        node = {"node": self._node} if next(self._requests) == 1 else {}
        request = DiscoveryRequest(type_url=type_url, resource_names=names, response_nonce=nonce, **(node | fields))
        self.stream.receive(request.SerializeToString() + self._suffix, self.now)

    def change(
        self, type_url: str = EDS, names: Iterable[str] = (), drop: Iterable[str] = (), nonce: str = "", **fields: Any
    ) -> None:
        """Send a request of the incremental variant."""
        held = fields.pop("initial_resource_versions", {})
        node = {"node": self._node} if next(self._requests) == 1 else {}
        request = DeltaDiscoveryRequest(
            type_url=type_url,
            resource_names_subscribe=names,
            resource_names_unsubscribe=drop,
            response_nonce=nonce,
            initial_resource_versions=[{"key": name, "value": version} for name, version in held.items()],
            **(node | fields),
        )
        self.stream.receive(request.SerializeToString() + self._suffix, self.now)

    def hear(self) -> Answer | None:
        """Return the next answer; None: there is none."""
        parts = self.stream.next(self.now)
        if parts is None:
            deadline = self.stream.deadline()
            assert deadline is None or deadline > self.now, "the stream is asked again at once, and for ever"
            return None
        message = b"".join(parts)
        return _read_delta(message) if self.stream.delta else _read(message)

    def hear_all(self) -> list[Answer]:
        """Return all answers that come without an ACK."""
        return list(iter(self.hear, None))


def _read(message: bytes) -> Answer:
    response = DiscoveryResponse.FromString(message)
    assert response.control_plane.identifier == "registry-1"
    assert all(each.type_url == response.type_url for each in response.resources)
    read = [_resource(each.value) for each in response.resources]
    resources = dict(read)
    assert len(resources) == len(read), "a name comes twice"
    errors = {error.resource_name.name: error.error_detail.message for error in response.resource_errors}
    return Answer(response.type_url, response.nonce, resources, (), errors, response.version_info)


def _read_delta(message: bytes) -> Answer:
    response = DeltaDiscoveryResponse.FromString(message)
    assert response.control_plane.identifier == "registry-1"
    read = [_resource(each.resource.value) for each in response.resources]
    resources = dict(read)
    assert [each.name for each in response.resources] == list(resources), "a name comes twice, or is another"
    errors = {error.resource_name.name: error.error_detail.message for error in response.resource_errors}
    versions = {each.name: each.version for each in response.resources}
    removed = tuple(response.removed_resources)
    return Answer(response.type_url, response.nonce, resources, removed, errors, versions=versions)


def _resource(value: bytes) -> tuple[str, int]:
    name, _, version = ClusterLoadAssignment.FromString(value).cluster_name.partition(" ")
    return name, int(version.rstrip("x"))
