"""State of the world: a request names all that the client wants, an answer brings what is new.

Clusters and listeners come as full sets: what an answer leaves out does not exist. An answer with assignments or routes
has what is new, and leaves the others as they are.
"""

import zlib
from collections.abc import Collection, Mapping, Sequence

from registry.errors import UnavailableError
from registry.http2.call import Status
from registry.xds.grpc import messages_pb2 as messages
from registry.xds.grpc.record import TypeRecord
from registry.xds.grpc.response import Parts, encode_errors, encode_nonce
from registry.xds.grpc.source import EncodedResource, encode_version
from registry.xds.grpc.stream import WILDCARD, Stream, distinct_names
from registry.xds.resources import CLUSTERS


class SotwStream(Stream):
    """A stream of the state of the world."""

    delta = False

    def _read(self, message: bytes, now: float) -> None:
        """Read a `DiscoveryRequest`."""
        request, record = self._parse(messages.DiscoveryRequest, message)
        if record is None:
            return
        repeats = self._settle(record, request, now)
        names = list(request.resource_names)
        if record.watch is None or record.type.wildcard or names != list(record.names):
            record.forget_form()
            repeats = self._subscribe(record, names, request.version_info) and repeats
        elif not request.HasField("error_detail"):
            version, nonce = encode_version(request.version_info), encode_nonce(request.response_nonce, delta=False)
            record.note_form(message, version, nonce)
        if repeats:
            self._repeat(record)

    def _subscribe(self, record: TypeRecord, requested: Sequence[str], brought: str) -> bool:
        """Replace what the client asks for; return whether it is what it asked for before.

        The names of the newest request count, whatever its nonce is: requests are ordered (envoy#3355, envoy#10363).
        """
        wildcard, names = _wanted(record, distinct_names(requested))
        first = record.watch is None
        added = [name for name in names if name not in record.names]
        removed = [name for name in record.names if name not in names]
        same = not (added or removed or first) and wildcard == record.wildcard
        record.names = names
        if same:
            return True
        if first:
            record.brought = brought
        begins = wildcard and not record.wildcard
        if wildcard != record.wildcard:
            self._unwatch(record)
            record.wildcard = wildcard
        for name in removed:
            record.forget(name, keep=wildcard)
        self._check_access(record, (*added, *((WILDCARD,) if begins else ())))
        record.dirty.update(dict.fromkeys(added))
        if not brought:
            record.holds_nothing.update(added)
        record.answer_due |= first or (_is_full(record) and bool(added or begins))
        self._watch(record, added, removed)
        return False

    def _repeat(self, record: TypeRecord) -> None:
        """Send everything again: an Envoy whose clusters have changed asks once more, to begin with them anew."""
        if _is_full(record):
            record.answer_due = True
            return
        for name in record.names:
            record.sent.pop(name, None)
        record.dirty.update(record.names)

    def _is_divisible(self, record: TypeRecord) -> bool:
        return not _is_full(record)

    def _answer(self, record: TypeRecord, now: float) -> Parts | None:
        return self._full_answer(record, now) if record.type.full_sets else self._partial_answer(record, now)

    def _partial_answer(self, record: TypeRecord, now: float) -> Parts | None:
        """Return the resources that are new, as many as one answer holds."""
        if record.dirty_all:
            record.dirty_all = False
            record.dirty.update(record.names)
        resources, missing = self._collect(record)
        if record.unsure and not resources and not missing:
            return None
        missing = [name for name in missing if name not in record.missing]
        errors = self._errors(record, missing) if missing else b""
        # An Envoy that holds nothing waits for its first answer; an empty one is no harm to another client.
        owed = record.answer_due and not record.brought
        record.answer_due = False
        if not resources and not owed and not (errors and self._client.is_grpc):
            return None
        nonce = self._note_sent(record, resources, now)
        record.note_missing(missing)
        version = _joint_version(record.source.database_id, resources)
        return self._response(record, version, resources, errors, nonce)

    def _absent(self, record: TypeRecord, name: str) -> EncodedResource | None:
        """Return what stands for an unknown or a refused name, to a client that cannot lose anything by it."""
        return record.source.absent(name) if name in record.holds_nothing else None

    def _full_answer(self, record: TypeRecord, now: float) -> Parts | None:
        """Return all resources, if anything of them is new or they were asked for."""
        try:
            collection = record.source.names(self._client.node) if record.wildcard else None
            resources = self._all(record, () if collection is None or WILDCARD in record.refused else collection.names)
        except UnavailableError as error:
            self._note_unsure(record, error)
            return None
        due, record.answer_due = record.answer_due, False
        record.dirty.clear()
        record.dirty_all = False
        missing = [name for name in record.names if name not in resources]
        removed = [name for name in record.kept if name not in resources and (record.wildcard or name in record.names)]
        record.removals_due = bool(removed) and record.type is CLUSTERS and not self._is_settled()
        if record.removals_due:
            resources |= {name: record.kept[name] for name in removed}
        versions = {name: resource.version for name, resource in resources.items()}
        if (versions == record.sent and not due) or (record.rejected and versions == record.rejected):
            return None
        defined = 1 if collection is None else collection.version
        if not resources and record.wildcard and self._may_lose(record, defined=bool(defined)):
            return None
        version = None if collection is None or record.removals_due else collection.version_info
        version = version or _joint_version(record.source.database_id, list(resources.values()))
        missing = [name for name in missing if name not in record.missing]
        errors = self._errors(record, missing) if missing else b""
        record.missing.update(missing)
        nonce = self._note_full(record, resources, now)
        return self._response(record, version, list(resources.values()), errors, nonce)

    def _all(self, record: TypeRecord, names: Collection[str]) -> dict[str, EncodedResource]:
        """Return the resources of a full set by name.

        A listener or cluster of a gRPC library stays once it was sent: to leave it out would cut its RPCs.

        Raises:
            UnavailableError: this process is not sure.
        """
        resources = {}
        for name in [*names, *(each for each in record.names if each not in names)]:
            resource = None if name in record.refused else record.source.find(self._client.node, name)
            if resource is None and self._client.is_grpc:
                resource = record.kept.get(name)
            if resource is not None:
                resources[name] = resource
        return resources

    def _may_lose(self, record: TypeRecord, *, defined: bool) -> bool:
        """Return whether an empty set could take from a client what another control plane gave it."""
        if not record.brought or record.answers:
            return False
        return not (defined and record.brought.startswith(f"{record.source.database_id}:"))

    def _note_full(self, record: TypeRecord, resources: Mapping[str, EncodedResource], now: float) -> int:
        """Take note of a full set that is sent, and return its nonce."""
        changed = [each for each in resources.values() if record.sent.get(each.name) != each.version]
        gone = {name: version for name, version in record.sent.items() if name not in resources}
        nonce = self._note_sent(record, changed, now)
        for name in gone:
            del record.sent[name]
        record.in_flight = (record.in_flight or {}) | gone
        record.kept = dict(resources)
        return nonce

    def _errors(self, record: TypeRecord, missing: Sequence[str]) -> bytes:
        """Return why these names have no resource."""
        return encode_errors({name: self._error(record, name) for name in missing})

    def _error(self, record: TypeRecord, name: str) -> tuple[int, str]:
        if name in record.refused:
            return Status.PERMISSION_DENIED, record.refused[name]
        return Status.NOT_FOUND, record.source.unknown

    def _response(
        self, record: TypeRecord, version: str, resources: Sequence[EncodedResource], errors: bytes, nonce: int
    ) -> Parts:
        tail = self._shared.tails.tail(record.type.type_urls["v3"], nonce, delta=False)
        if len(resources) == 1 and not errors and resources[0].version == version:
            return (resources[0].sotw_head, resources[0].entry, tail)
        return (encode_version(version), *(resource.entry for resource in resources), errors + tail)


def _wanted(record: TypeRecord, requested: dict[str, None]) -> tuple[bool, dict[str, None]]:
    """Return whether a request asks for all resources, and the names that it asks for.

    A first request without names asks for all of a type that has a wildcard; once a client has named anything, also
    ``*``, a request without names asks for nothing (xDS protocol, "How the client specifies what resources to return").
    """
    if not record.type.wildcard:
        return False, requested
    if requested:
        record.has_named = True
        names = {name: None for name in requested if name != WILDCARD}
        return len(names) < len(requested), names
    return not record.has_named, requested


def _is_full(record: TypeRecord) -> bool:
    """Return whether answers have all resources of a type, so that what they leave out does not exist."""
    return record.type.full_sets


def _joint_version(database_id: str, resources: Sequence[EncodedResource]) -> str:
    """Return a version of an answer; it decides nothing."""
    if len(resources) == 1:
        return resources[0].version
    checksum = zlib.crc32("\n".join(f"{each.name} {each.version}" for each in resources).encode())
    return f"{database_id}:{len(resources)}@{checksum:08x}"
