"""The incremental variant: a request changes what the client asks for, an answer brings what changed.

A client names the versions that it holds from an earlier stream, perhaps from another process. An equal one is not
sent again, and a process that is behind says nothing about it.
"""

from collections.abc import Iterable, Mapping, Sequence

from registry.errors import UnavailableError
from registry.http2.call import Status
from registry.xds.grpc import messages_pb2 as messages
from registry.xds.grpc.record import TypeRecord
from registry.xds.grpc.response import Parts, encode_errors, encode_nonce, encode_removed
from registry.xds.grpc.source import EncodedResource
from registry.xds.grpc.stream import WILDCARD, Stream, check_count, distinct_names
from registry.xds.resources import CLUSTERS, ENDPOINTS


class DeltaStream(Stream):
    """A stream of the incremental variant."""

    delta = True

    def _read(self, message: bytes, now: float) -> None:
        """Read a `DeltaDiscoveryRequest`."""
        request, record = self._parse(messages.DeltaDiscoveryRequest, message)
        if record is None:
            return
        self._settle(record, request, now)
        first = record.watch is None
        if first or request.resource_names_subscribe or request.resource_names_unsubscribe:
            subscribed = distinct_names(request.resource_names_subscribe)
            self._subscribe(record, subscribed, distinct_names(request.resource_names_unsubscribe))
        elif not request.HasField("error_detail") and not request.initial_resource_versions:
            record.note_form(message, b"", encode_nonce(request.response_nonce, delta=True))
        if first:
            self._note_held(record, request.initial_resource_versions)
            record.answer_due = not request.initial_resource_versions

    def _subscribe(self, record: TypeRecord, subscribed: Mapping[str, None], unsubscribed: Mapping[str, None]) -> None:
        """Change what the client asks for; a name that it asks for again is sent again, although nothing changed."""
        wildcard = _is_wildcard(record, subscribed, unsubscribed)
        begins = wildcard and (not record.wildcard or WILDCARD in subscribed)
        if wildcard != record.wildcard:
            self._unwatch(record)
            record.wildcard = wildcard
        removed = [name for name in unsubscribed if name != WILDCARD]
        for name in removed:
            self._unsubscribe(record, name)
        if begins or (WILDCARD in unsubscribed and not wildcard):
            for name in [name for name in record.sent if name not in record.names]:
                record.forget(name)
        added = [name for name in subscribed if name != WILDCARD]
        for name in added:
            record.names[name] = None
            record.forget(name)
        check_count(len(record.names))
        record.dirty.update(dict.fromkeys(added))
        record.dirty_all |= begins
        self._check_access(record, (*added, WILDCARD) if begins else added)
        self._watch(record, added, removed)

    def _unsubscribe(self, record: TypeRecord, name: str) -> None:
        """Stop sending a name; under a wildcard its client is told whether it still has it."""
        if record.wildcard:
            record.names.pop(name, None)
            record.forget(name)
            record.dirty[name] = None
        elif name in record.names:
            del record.names[name]
            record.forget(name)

    def _note_held(self, record: TypeRecord, held: Mapping[str, str]) -> None:
        """Remember the versions that the client holds from an earlier stream.

        A cluster that was sent on this stream waits for its assignment, also if the client holds the same version.
        """
        check_count(len(held))
        awaited = self._awaited if record.type is ENDPOINTS else ()
        for name, version in held.items():
            if version and name not in awaited and (record.wildcard or name in record.names):
                record.sent[name] = version
                record.brought_versions[name] = version

    def _is_divisible(self, record: TypeRecord) -> bool:  # noqa: ARG002  # as of all types
        return True

    def _answer(self, record: TypeRecord, now: float) -> Parts | None:
        """Return the resources that changed, as many as one answer holds, and the names of those that are gone."""
        if record.dirty_all:
            try:
                self._mark_all(record)
            except UnavailableError as error:
                self._note_unsure(record, error)
                return None
        resources, missing = self._collect(record)
        if record.unsure and not resources and not missing:
            return None
        removed = [name for name in missing if self._is_to_remove(record, name)]
        owed, record.answer_due = record.answer_due, False
        if not resources and not removed and not owed:
            return None
        nonce = self._note_sent(record, resources, now)
        for name in removed:
            self._note_removed(record, name)
        tail = self._shared.tails.tail(record.type.type_urls["v3"], nonce, delta=True)
        parts = [part for resource in resources for part in (resource.delta_head, resource.entry)]
        return (*parts, encode_removed(removed) + _refusals(record, removed) + tail if removed else tail)

    def _mark_all(self, record: TypeRecord) -> None:
        """Mark everything as dirty that the client asks for or holds.

        Raises:
            UnavailableError: this process is not sure.
        """
        names: Iterable[str] = record.names
        if record.wildcard:
            collection = () if WILDCARD in record.refused else record.source.names(self._client.node).names
            names = (*record.names, *collection, *record.sent)
        record.dirty_all = False
        record.dirty.update(dict.fromkeys(names))

    def _is_news(self, record: TypeRecord, resource: EncodedResource) -> bool:
        name = resource.name
        if not super()._is_news(record, resource):
            return False
        brought = record.brought_versions.get(name)
        return brought is None or not record.source.is_behind(self._client.node, name, brought)

    def _is_to_remove(self, record: TypeRecord, name: str) -> bool:
        """Return whether the client is to be told that a name does not exist."""
        if name in record.missing:
            return False
        if record.type is CLUSTERS and name in record.sent and not self._is_settled():
            # Routes that were sent may still use it.
            record.removals_due = True
            return False
        return not self._may_be_of_another(record, name)

    def _may_be_of_another(self, record: TypeRecord, name: str) -> bool:
        """Return whether a client may have a name from a process that knows more, or from another control plane."""
        brought = record.brought_versions.get(name)
        if brought is None or not record.type.keyed_by_cluster:
            # An Envoy keeps the hosts of an assignment that is removed.
            return False
        source = record.source
        return not brought.startswith(f"{source.database_id}:") or source.is_behind(self._client.node, name, brought)

    def _note_removed(self, record: TypeRecord, name: str) -> None:
        """Take note that the client is told that a name does not exist."""
        if name in record.names:
            record.missing.add(name)
        previous = record.sent.pop(name, "")
        record.brought_versions.pop(name, None)
        if record.in_flight is not None:
            record.in_flight[name] = previous


def _is_wildcard(record: TypeRecord, subscribed: Mapping[str, None], unsubscribed: Mapping[str, None]) -> bool:
    """Return whether the client asks for all resources now.

    The first request does without names, of a type that has a wildcard; later ones name it.
    """
    if not record.type.wildcard:
        return False
    if WILDCARD in subscribed:
        return True
    if WILDCARD in unsubscribed:
        return False
    return record.wildcard if record.watch is not None else not subscribed


def _refusals(record: TypeRecord, names: Sequence[str]) -> bytes:
    """Return the words about names that the client may not discover."""
    refused = {name: (Status.PERMISSION_DENIED.value, record.refused[name]) for name in names if name in record.refused}
    return encode_errors(refused, delta=True)
