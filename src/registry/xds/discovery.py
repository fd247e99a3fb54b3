"""Answering discovery polls from memory: what to send, when to hold a poll, and when nothing is new.

Nothing here knows what a resource is. Types and their caches come as data (`registry.xds.resources`), versions are
compared in `registry.xds.version_info`. A process that is behind a subscriber never answers with older resources.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import get_args

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.cooperative import cooperatively
from registry.core.subscriber import MAX_NAMES, Subscribers, Subscription
from registry.errors import NotAllowedError, UnauthenticatedError, UnavailableError
from registry.metrics import POLLS, PROPAGATION
from registry.xds.discovery_request import DiscoveryRequest, read_request
from registry.xds.discovery_response import DiscoveryResponse, encode_response
from registry.xds.held_polls import NO_HOLD, HeldPolls, answered, hold_time, nothing
from registry.xds.peer_polls import PeerPolls
from registry.xds.resource_cache import ResourceCache, ServedType
from registry.xds.resources import Api, RestPath, rest_paths
from registry.xds.version_info import Comparison, compare, format_version_info, parse_version_info
from wire.discovery_poll import WILDCARD
from wire.node import read_node

_MAX_HELD_NAMES = 100
"""Names of one poll that is held. Envoy asks for one; a poll for more costs a watch for each name."""
REFUSED = (UnauthenticatedError, NotAllowedError)
"""The errors of a refused poll, whose response every front holds for a moment."""
_DISCOVER = Verb.DISCOVER
"""Bound once: to look up a member of an enum takes as long as to look up a snapshot."""
_NO_NAMES = ("",)
"""The name that the policy is asked about for a poll that names nothing, of a type without a wildcard."""
_UNCHANGED = DiscoveryResponse(304)
_COUNT: dict[tuple[Api, int], Callable[[], None]] = {
    (api, status): POLLS.labels(api, str(status)).inc for api in get_args(Api) for status in (200, 304)
}
"""Bound once: to find a counter by its labels takes as long as to read a poll."""

_OBSERVE = PROPAGATION.labels("poll").observe


class ServedPath(RestPath):
    """A REST path with the cache that answers it, and the subscribers that poll it."""

    __slots__ = ("cache", "keyed_by_cluster", "offered_once", "subscribers")

    def __init__(self, path: RestPath, cache: ResourceCache, subscribers: Subscribers) -> None:
        super().__init__(path.type, path.api)
        self.cache = cache
        self.subscribers = subscribers
        self.keyed_by_cluster = path.type.keyed_by_cluster
        self.offered_once = path.type.offered_once


class Discovery:
    """Answers the polls of all resource types, for every HTTP front.

    Args:
        served: the resource types that this process serves.
        policy: decides who may poll for what.
        max_held: names of held polls at a time; beyond it an unchanged poll is answered 304 at once.
        max_sightings: pairs of a node and a name that are remembered for each type.
        peer_polls: the names of the held polls of each peer; None while access is not closed.
    """

    def __init__(
        self,
        served: Iterable[ServedType],
        policy: Policy,
        max_held: int,
        max_sightings: int,
        peer_polls: PeerPolls | None = None,
    ) -> None:
        in_order = sorted(served, key=lambda each: each.type.order)
        self.subscribers: Mapping[str, Subscribers] = {each.type.name: Subscribers(max_sightings) for each in in_order}
        """Where polls and their answers are noted, by the name of their type: a name of a resource means something else
        in each."""
        self.paths: Mapping[str, ServedPath] = {
            path.url: ServedPath(path, each.cache, self.subscribers[each.type.name])
            for each in in_order
            for path in rest_paths(each.type)
        }
        """The REST paths by their URL, in the order in which Envoy wants their types."""
        self._policy = policy
        self.held_polls = HeldPolls(max_held, peer_polls)
        """The polls that are held now, of Envoys and of edges."""

    def read(self, path: ServedPath, principal: Principal, *parts: bytes) -> DiscoveryRequest:
        """Read a poll.

        The request, and not its body, is what is kept while a poll is held: the body is four hundred times as large.

        Args:
            path: the path that it was posted to.
            principal: who asks.
            parts: the body, in the pieces that it came in.

        Raises:
            UnreadableError: the body is no DiscoveryRequest.
            InvalidError: it asks for something else.
        """
        request = read_request(path, *parts)
        request.node = read_node(*parts)
        request.principal = principal
        return request

    def now(self, path: ServedPath, request: DiscoveryRequest, peer: str) -> DiscoveryResponse | None:
        """Return what can be answered at once; None while the subscriber is up to date.

        Args:
            path: the path that the request was posted to.
            request: the poll.
            peer: the address of the subscriber.

        Raises:
            UnavailableError: this process is not sure of what is asked for, or of the principal's credential; an Envoy
                keeps what it has.
            UnauthenticatedError: the principal has no valid credential, and a poll needs one.
            NotAllowedError: the principal may not poll for one of the names, and has polled before. A first poll is
                answered without resources: it must not keep an Envoy from starting.
        """
        now = time.monotonic()
        try:
            for name in (request.node.cluster,) if path.keyed_by_cluster else request.names or _NO_NAMES:
                self._policy.allow(request.principal, _DISCOVER, name)
            response = self.changes(path, request)
        except UnavailableError:
            POLLS.labels(path.api, "503").inc()
            raise
        except UnauthenticatedError:
            # Anybody can send the node id of an Envoy, so nothing new is remembered.
            self._note_refusal(
                path, path.subscribers.get(request.node, peer, request.names, path.api), request, 401, now
            )
            raise
        except NotAllowedError:
            subscription = path.subscribers.find(request.node, peer, request.names, path.api, now)
            self._note_refusal(path, subscription, request, 403, now)
            if request.version_info:
                raise
            return self.without_resources(path, request)
        subscription = path.subscribers.find(request.node, peer, request.names, path.api, now)
        request.subscription = subscription
        version_info = request.version_info
        if len(request.names) > MAX_NAMES:
            version_info = _remembered(path, request.names, version_info)
        subscription.poll(version_info, now)
        if path.offered_once:
            subscription.note_refused_offer(now)
            response = _unless_refused(subscription, response, now)
        return None if response is None else _account(path, request.names, subscription, response, now)

    async def later(
        self, path: ServedPath, request: DiscoveryRequest, peer: str, timeout_header: str | None
    ) -> DiscoveryResponse:
        """Hold a poll whose version is current for as long as the subscriber's own time-out allows.

        Args:
            path: the path that the request was posted to.
            request: the poll.
            peer: the address of the subscriber.
            timeout_header: ``x-envoy-expected-rq-timeout-ms``; without it nothing is held.
        """
        return await answered(partial(self.hold, path, request, peer, timeout_header))

    def hold(
        self,
        path: ServedPath,
        request: DiscoveryRequest,
        peer: str,
        timeout_header: str | None,
        answer: Callable[[DiscoveryResponse], None],
    ) -> Callable[[], None]:
        """Hold a poll as ``later`` does, without a task: ``answer`` is called, perhaps before this returns.

        Returns:
            A function to call when the subscriber has disconnected; harmless after the answer.
        """
        now = time.monotonic()
        names = request.names
        subscription = request.subscription or path.subscribers.find(request.node, peer, names, path.api, now)

        seconds = hold_time(timeout_header)
        held_polls, principal = self.held_polls, request.principal
        if seconds <= NO_HOLD or len(names) > _MAX_HELD_NAMES or not held_polls.has_room(principal, len(names), now):
            answer(_account(path, names, subscription, self._unchanged(path, request), now))
            return nothing

        def over(response: DiscoveryResponse | None) -> None:
            subscription.held -= 1
            answer(_account(path, names, subscription, response or self._unchanged(path, request), time.monotonic()))

        def leave() -> None:
            if give_up():
                subscription.held -= 1

        watched = None if path.wildcard and names == WILDCARD else names
        watch = partial(path.cache.watch, request.node, watched)
        look = partial(self._changes_if_sure, path, request)
        give_up = held_polls.hold(principal, len(names), seconds, watch, look, over)
        subscription.held += 1
        return leave

    async def forget_silent_subscribers(self) -> None:
        """Drop the subscribers of every type that have been silent for too long."""
        now = time.monotonic()
        for subscribers in self.subscribers.values():
            async for subscription in cooperatively(subscribers):
                subscribers.forget(subscription, now)

    def _changes_if_sure(self, path: ServedPath, request: DiscoveryRequest) -> DiscoveryResponse | None:
        """Return what a held poll has not seen yet; None if that is nothing, or this process is unsure."""
        if request.principal.subject.ended:
            # Its credential ended, or allows something else now: only a new poll may bring anything.
            return _UNCHANGED
        try:
            response = self.changes(path, request)
        except UnavailableError:
            return None
        if path.offered_once and request.subscription is not None:
            return _unless_refused(request.subscription, response, time.monotonic())
        return response

    def _unchanged(self, path: ServedPath, request: DiscoveryRequest) -> DiscoveryResponse:
        """Return the response to a poll that was held in vain.

        An Envoy that has accepted nothing yet gets again what it has refused, because a 304 would keep it from starting
        if it was restarted meanwhile.
        """
        if path.offered_once and not request.version_info:
            try:
                return self.changes(path, request) or _UNCHANGED
            except UnavailableError:
                return _UNCHANGED
        return _UNCHANGED

    def changes(self, path: ServedPath, request: DiscoveryRequest) -> DiscoveryResponse | None:
        """Return what a subscriber has not seen yet; None if there is nothing."""
        names = request.names
        if path.wildcard and names == WILDCARD:
            return self._changes_of_all(path, request)
        if len(names) == 1:
            # As nearly every Envoy asks. The response is kept in bytes.
            resource = path.cache.find(request.node, names[0])
            if resource is not None:
                if request.version_info and (
                    request.version_info == resource.version_info
                    or self._is_current(path, request, (resource.version,))
                ):
                    return None
                return resource.response(path)
        if not names:
            # Nothing is looked up, so this is what tells whether the process is sure.
            path.cache.find(request.node, "")
        resources = [path.cache.find(request.node, name) for name in names]
        versions = [0 if resource is None else resource.version for resource in resources]
        if self._is_current(path, request, versions):
            return None
        encoded = [
            self._absent(path, request, name) if resource is None else resource.json(path.api)
            for name, resource in zip(names, resources, strict=True)
        ]
        return self._respond(path, names, versions, filter(None, encoded))

    def _note_refusal(
        self,
        path: ServedPath,
        subscription: Subscription | None,
        request: DiscoveryRequest,
        status: int,
        now: float,
    ) -> None:
        """Count a refused poll, and show its subscriber as refused."""
        POLLS.labels(path.api, str(status)).inc()
        # The subscriber whose poll is held now is not the one that is refused: somebody sends its node id.
        if subscription is not None and not subscription.held:
            subscription.poll(request.version_info, now)
            subscription.answer(status, "", now)

    def without_resources(self, path: ServedPath, request: DiscoveryRequest) -> DiscoveryResponse:
        """Return the response to a refused first poll, with the version of what was never registered.

        An Envoy takes it as a success and keeps the hosts that it has. Its next poll brings this version, which is
        current for nothing that has resources: after a grant it gets them.

        Raises:
            UnavailableError: this process does not know yet which versions it serves.
        """
        wildcard = path.wildcard and request.names == WILDCARD
        if wildcard:
            path.cache.names(request.node)
        else:
            path.cache.find(request.node, "")
        return self._respond(path, request.names, [0] * (1 if wildcard else len(request.names)), ())

    def _changes_of_all(self, path: ServedPath, request: DiscoveryRequest) -> DiscoveryResponse | None:
        """Return all resources of a node if any is new; the first time also when there is none."""
        collection = path.cache.names(request.node)
        if request.version_info:
            if request.version_info == collection.version_info or self._is_current(
                path, request, (collection.version,)
            ):
                return None
            if not collection.names and not self._is_older(path, request, collection.version):
                # It has resources of another control plane or database. None here is no reason to remove them.
                return None
        encoded = path.cache.json_of_all(request.node, collection.names, path.api)
        if not collection.version_info:
            return self._respond(path, WILDCARD, (collection.version,), encoded)
        body = encode_response(path.type_url, collection.version_info, encoded)
        return DiscoveryResponse(200, body, collection.version_info)

    def _respond(
        self, path: ServedPath, names: Sequence[str], versions: Sequence[int], encoded: Iterable[bytes]
    ) -> DiscoveryResponse:
        version_info = format_version_info(path.cache.database_id, names, versions, path.type)
        return DiscoveryResponse(200, encode_response(path.type_url, version_info, encoded), version_info)

    def _absent(self, path: ServedPath, request: DiscoveryRequest, name: str) -> bytes | None:
        # A subscriber that brings the version of another registry or database has resources; it must not lose them.
        return None if request.version_info else path.cache.absent(path.api, name)

    def _is_current(self, path: ServedPath, request: DiscoveryRequest, versions: Sequence[int]) -> bool:
        """Return whether a subscriber has all that this process has; what it is ahead by is looked into."""
        cache, names = path.cache, request.names
        held = parse_version_info(cache.database_id, names, request.version_info, path.type)
        comparison = compare(held, versions, stepped=path.type.stepped)
        if comparison is Comparison.NEWER:
            for name, theirs, ours in zip(names, held or (), versions, strict=True):
                if theirs > ours:
                    cache.claim_ahead(request.node, name, theirs)
        return comparison in (Comparison.EQUAL, Comparison.NEWER)

    def _is_older(self, path: ServedPath, request: DiscoveryRequest, version: int) -> bool:
        """Return whether a subscriber to a wildcard holds a version of this database that is older than this one."""
        held = parse_version_info(path.cache.database_id, request.names, request.version_info, path.type)
        return held is not None and held[0] < version


def _unless_refused(
    subscription: Subscription, response: DiscoveryResponse | None, now: float
) -> DiscoveryResponse | None:
    """Return a response unless the subscriber has refused it just now."""
    if response is not None and subscription.has_refused(response.version_info, now):
        return None
    return response


def _account(
    path: ServedPath, names: Sequence[str], subscription: Subscription, response: DiscoveryResponse, now: float
) -> DiscoveryResponse:
    """Count and record an answered poll, and return the response; the polls of all fronts end here."""
    _COUNT[path.api, response.status]()
    # A poll that is not remembered may refuse its response again and again, and would be observed each time.
    if response.status == 200 and subscription.brought and subscription.remembered and not subscription.refusals:
        _observe(path, subscription, now)
    version_info = response.version_info
    if len(names) > MAX_NAMES:
        version_info = _remembered(path, names, version_info)
    subscription.answer(response.status, version_info, now)
    return response


def _remembered(path: ServedPath, names: Sequence[str], version_info: str) -> str:
    """Return the version_info of the first names, which alone are remembered."""
    database_id = path.cache.database_id
    held = parse_version_info(database_id, names, version_info, path.type)
    if held is None:
        return version_info
    return format_version_info(database_id, names[:MAX_NAMES], held[:MAX_NAMES], path.type)


def _observe(path: ServedPath, subscription: Subscription, now: float) -> None:
    """Observe the age of the oldest change that this response brings.

    A subscriber without a version starts, and one that refuses would be observed again and again: neither is measured.
    """
    names, brought = subscription.names, subscription.brought
    held = parse_version_info(path.cache.database_id, names, brought, path.type) or ()
    for name, version in zip(names, held, strict=False):
        age = path.cache.change_age(name, version, now)
        if age is not None:
            _OBSERVE(max(0.0, age))
