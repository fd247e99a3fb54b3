"""The reports about the mesh configuration on gRPC streams: what an Envoy has acknowledged is proof that it has it.

A set of clusters or listeners is shown when each of its resources is acknowledged and nothing else is held: a version
alone says nothing while a large set comes in several answers, or removals are still on their way.
"""

from collections.abc import Iterator, Mapping

from registry.core.clock import Clock
from registry.core.mesh import KINDS
from registry.core.mesh_subscriber import MeshReport
from registry.core.stream_subscriber import MAX_ERROR
from registry.core.subscriber import MAX_NAME
from registry.errors import UnavailableError
from registry.xds.grpc.observer import ObservedStream, Record
from registry.xds.grpc.streams import StreamEntry, client_of
from registry.xds.resource_cache import ResourceCache
from registry.xds.resources import MESH_TYPES, ResourceType
from registry.xds.version_info import parse_version_info
from wire.node import printable

_TYPES: Mapping[str, ResourceType] = {each.name: each for each in MESH_TYPES}


class StreamReports:
    """Makes reports about the streams of this process.

    Args:
        process: the random id of the process.
        clock: the database's time.
        caches: the resources of each type as they are served, by its name.
    """

    def __init__(self, process: str, clock: Clock, caches: Mapping[str, ResourceCache]) -> None:
        self._process = process
        self._clock = clock
        self._caches = caches

    def reports(self, entry: StreamEntry, now: float) -> Iterator[MeshReport]:
        """Yield a report about each set and each route configuration that a stream asks for.

        Args:
            entry: the stream.
            now: monotonic.
        """
        stream = entry.stream
        if stream is None:
            return
        for kind in KINDS:
            record = next((each for each in stream.records if each.type is _TYPES[kind]), None)
            if record is None:
                continue
            if record.wildcard:
                version = self._version_of_all(kind, stream, record)
                yield self._report(entry, record, now, "", version, self._refused_of_all(kind, stream, record))
            elif not record.type.wildcard:
                for name in record.names:
                    if len(name) > MAX_NAME:
                        continue
                    version = self._number(record, name, record.accepted(name))
                    rejection = record.rejection(name)
                    words = "" if rejection is None else rejection.versions.get(name, "")
                    yield self._report(entry, record, now, name, version, self._number(record, name, words))

    def _report(
        self, entry: StreamEntry, record: Record, now: float, name: str, version: int | None, refused: int | None
    ) -> MeshReport:
        at, node = self._clock.at, entry.node
        rejections = (record.rejection(each) for each in ([name] if name else list(record.troubled)))
        rejection = max((each for each in rejections if each is not None), key=lambda each: each.at, default=None)
        return MeshReport(
            process=self._process,
            kind=record.type.name,
            name=printable(name),
            node_id=node.id,
            address=printable(entry.address),
            cluster=node.cluster,
            envoy=client_of(entry).removeprefix("envoy "),
            version=version,
            refused=refused,
            refused_at=None if rejection is None else at(rejection.at),
            denied=bool(record.refusal(name or "*")),
            started_at=at(entry.opened_at),
            first_seen=at(entry.opened_at),
            polled_at=at(now),
            seen_at=at(now),
            held=entry.stream is not None,
            pause=None,
            error="" if rejection is None else rejection.message[:MAX_ERROR],
        )

    def _version_of_all(self, kind: str, stream: ObservedStream, record: Record) -> int | None:
        """Return the version of the whole set that is served, if the client has acknowledged all of it.

        Of a set that it has in part it shows the newest version that is older than that of the whole.
        """
        cache, node = self._caches[kind], stream.node
        try:
            served = cache.names(node)
            resources = {name: cache.find(node, name) for name in served.names}
        except UnavailableError:
            return None
        held = {name: record.accepted(name) for name in record.held}
        wanted = {name: resource.version_info for name, resource in resources.items() if resource is not None}
        if held == wanted and record.answers and not record.unanswered:
            return served.version
        numbers = (self._number(record, name, version) for name, version in held.items())
        return max((each for each in numbers if each is not None and each < served.version), default=None)

    def _refused_of_all(self, kind: str, stream: ObservedStream, record: Record) -> int | None:
        """Return the version of the set that is served, if the client has rejected something of it."""
        if not any(record.rejection(name) for name in record.troubled):
            return None
        try:
            return self._caches[kind].names(stream.node).version
        except UnavailableError:
            return None

    def _number(self, record: Record, name: str, version: str) -> int | None:
        if not version:
            return None
        database_id = self._caches[record.type.name].database_id
        versions = parse_version_info(database_id, (name,), version, record.type)
        return None if versions is None else versions[0]


def substance_of(entry: StreamEntry, caches: Mapping[str, ResourceCache]) -> object:
    """Return what changes with the reports about a stream, and costs next to nothing to look at."""
    stream = entry.stream
    if stream is None:
        return None
    facts = []
    for record in stream.records:
        if record.type is not _TYPES.get(record.type.name):
            continue
        try:
            version = caches[record.type.name].names(stream.node).version
        except UnavailableError:
            version = -1
        names = hash(frozenset(record.names))
        facts.append(
            (
                record.type.name,
                version,
                record.answers,
                bool(record.unanswered),
                len(record.troubled),
                names,
                record.wildcard,
            )
        )
    return tuple(facts)
