"""Answers the edges of registrars, whose questions are about everything that the Envoys beside them hold.

Each name is answered as a poll of an Envoy for it alone would be, by the same rules (`registry.xds.discovery`), and the
Envoys behind an edge are subscribers as if they polled themselves.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.cache.standing_watches import Changed
from registry.core.subscriber import Subscription
from registry.errors import InvalidError, NotAllowedError, TooLargeError, UnauthenticatedError, UnavailableError
from registry.metrics import EDGE_QUESTIONS, PROPAGATION
from registry.xds.discovery import Discovery, ServedPath
from registry.xds.discovery_request import DiscoveryRequest
from registry.xds.discovery_response import DiscoveryResponse
from registry.xds.edge_answer import ENDPOINTS_URL, EdgeAnswers, Place
from registry.xds.held_polls import answered, nothing
from registry.xds.resource_cache import StandingWatch
from registry.xds.resources import ENDPOINTS, MESH_TYPES
from registry.xds.version_info import parse_version_info
from wire.edge_assignments import MAX_EDGE_HOLD, MAX_EDGE_NAMES, EdgeQuestion, TakenVersion
from wire.node import MAX_NODE_TEXT, Node, printable

_DISCOVER = Verb.DISCOVER
_UNCHANGED = DiscoveryResponse(304)
_OBSERVE = PROPAGATION.labels("edge").observe
_TYPES = (ENDPOINTS, *MESH_TYPES)


class AskedName:
    """One name of a question, as the poll that it stands for.

    Attributes:
        path: the REST path of such polls.
        request: the poll.
        refused: whether the sender may not discover it.
    """

    __slots__ = ("path", "refused", "request")

    def __init__(self, path: ServedPath, request: DiscoveryRequest) -> None:
        self.path = path
        self.request = request
        self.refused = False


class EdgePoll:
    """A question that was read.

    Attributes:
        principal: its sender.
        node: the node whose resources are asked for.
        asked: its names, by their places.
        changed: those that may have changed since it was last looked at; None: all. Written by the watch.
    """

    __slots__ = ("asked", "changed", "edge", "node", "principal", "subscriptions", "taken")

    def __init__(self, question: EdgeQuestion, principal: Principal, asked: Mapping[Place, AskedName]) -> None:
        self.principal = principal
        self.asked = asked
        self.node = _node(question.node, question.cluster, question.zone, "")
        self.edge = printable(question.edge or question.node)[:MAX_NODE_TEXT]
        self.taken = question.taken
        self.subscriptions: list[Subscription] = []
        """The subscribers behind the edge. Written by EdgeDiscovery.now()."""
        self.changed: set[Place] | None = None


class EdgeWatch:
    """Watches everything that a question asks for, and calls back once.

    Args:
        poll: the question, which is told the changed names.
        wake: called at the next change.
    """

    __slots__ = ("_poll", "_wake", "_watches")

    def __init__(self, poll: EdgePoll, wake: Callable[[], None]) -> None:
        self._poll = poll
        self._wake = wake
        names: dict[str, list[str]] = {}
        paths: dict[str, ServedPath] = {}
        for (type_url, name), asked in poll.asked.items():
            if not asked.refused:
                names.setdefault(type_url, []).append(name)
                paths[type_url] = asked.path
        self._watches: list[StandingWatch] = [
            path.cache.standing_watch(poll.node, names[type_url], self._note(type_url))
            for type_url, path in paths.items()
        ]

    def cancel(self) -> None:
        """Stop watching."""
        for watch in self._watches:
            watch.cancel()

    def _note(self, type_url: str) -> Changed:
        def changed(names: "Iterable[str] | None") -> None:
            self._poll.changed = None if names is None else {(type_url, name) for name in names}
            self.cancel()
            self._wake()

        return changed


class EdgeDiscovery:
    """Answers the questions of edges.

    Args:
        discovery: answers the polls that a question stands for, and holds questions beside them.
        policy: decides who may ask for what.
    """

    def __init__(self, discovery: Discovery, policy: Policy) -> None:
        self._discovery = discovery
        self._policy = policy
        self.held_polls = discovery.held_polls
        """Where questions are held, beside the polls of Envoys."""
        self._paths: Mapping[str, ServedPath] = {
            path.type_url: path for path in discovery.paths.values() if path.api == "v3" and path.type in _TYPES
        }
        """The paths of polls that a question may stand for, by the type URLs of their resources."""
        self._answers = EdgeAnswers(list(self._paths))

    def read(self, principal: Principal, question: EdgeQuestion) -> EdgePoll:
        """Return a question with the polls that it stands for.

        Raises:
            InvalidError: it asks for a type that is not served.
            TooLargeError: it has too many names.
        """
        by_type = {ENDPOINTS_URL: question.held, **question.resources} if question.held else question.resources
        names = sum(map(len, by_type.values()))
        if names > MAX_EDGE_NAMES or len(question.taken) > 2 * MAX_EDGE_NAMES:
            raise TooLargeError(
                f"the question has {names} names and {len(question.taken)} versions that are taken; at most "
                f"{MAX_EDGE_NAMES} and {2 * MAX_EDGE_NAMES} are allowed: ask several"
            )
        node = _node(question.node, question.cluster, question.zone, "")
        asked: dict[Place, AskedName] = {}
        for type_url, held in by_type.items():
            path = self._paths.get(type_url)
            if path is None or (type_url == ENDPOINTS_URL and held is not question.held):
                allowed = ", ".join(url for url in self._paths if url != ENDPOINTS_URL)
                raise InvalidError(f"no resources of {type_url[:200]!r} are served; there are {allowed}", "$.resources")
            for name, token in held.items():
                request = DiscoveryRequest((name,), token, node, principal=principal)
                asked[type_url, name] = AskedName(path, request)
        return EdgePoll(question, principal, asked)

    def now(self, poll: EdgePoll, peer: str) -> DiscoveryResponse | None:
        """Return what can be answered at once; None while the edge is up to date.

        Args:
            poll: the question.
            peer: the address of the sender.

        Raises:
            UnavailableError: this process is not sure of what is asked for, or of the principal's credential.
            UnauthenticatedError: the principal has no valid credential, and a poll needs one.
            NotAllowedError: the principal may not discover any of the names, and was answered that before.
        """
        now = time.monotonic()
        reasons = self._decide(poll)
        try:
            parts = list(self._new(poll.asked.items()))
        except UnavailableError:
            EDGE_QUESTIONS.labels("503").inc()
            raise
        self._note_subscribers(poll, peer, now)
        if parts:
            return self._answer(poll, parts, now)
        if reasons and len(reasons) == len(poll.asked):
            EDGE_QUESTIONS.labels("403").inc()
            raise reasons[0]
        return None

    async def later(self, poll: EdgePoll) -> DiscoveryResponse:
        """Hold a question that is up to date, and return the response."""
        return await answered(partial(self.hold, poll))

    def hold(self, poll: EdgePoll, answer: Callable[[DiscoveryResponse], None]) -> Callable[[], None]:
        """Hold a question as ``later`` does, without a task: ``answer`` is called, perhaps before this returns.

        Returns:
            A function to call when the edge has disconnected; harmless after the answer.
        """
        held_polls = self.held_polls
        names = max(1, len(poll.asked))
        if not held_polls.has_room(poll.principal, names, time.monotonic()):
            EDGE_QUESTIONS.labels("304").inc()
            answer(_UNCHANGED)
            return nothing

        def over(response: DiscoveryResponse | None) -> None:
            _hold_subscribers(poll, -1)
            if response is None or response.status == 304:
                EDGE_QUESTIONS.labels("304").inc()
            answer(response or _UNCHANGED)

        def leave() -> None:
            if give_up():
                _hold_subscribers(poll, -1)

        _hold_subscribers(poll, 1)
        look = partial(self._look, poll)
        give_up = held_polls.hold(poll.principal, names, MAX_EDGE_HOLD, partial(EdgeWatch, poll), look, over)
        return leave

    def _decide(self, poll: EdgePoll) -> list[NotAllowedError]:
        """Mark the names that the sender may not discover, and return the reasons.

        Raises:
            UnauthenticatedError: it has no valid credential, and needs one.
            UnavailableError: this process cannot know yet.
        """
        if not poll.asked:
            self._policy.allow(poll.principal, _DISCOVER)
        reasons = []
        for (_, name), asked in poll.asked.items():
            concerned = poll.node.cluster if asked.path.keyed_by_cluster else name
            try:
                self._policy.allow(poll.principal, _DISCOVER, concerned)
            except UnauthenticatedError:
                EDGE_QUESTIONS.labels("401").inc()
                raise
            except NotAllowedError as error:
                asked.refused = True
                reasons.append(error)
        return reasons

    def _new(self, names: Iterable[tuple[Place, AskedName]]) -> Iterable[tuple[Place, DiscoveryResponse]]:
        """Yield the responses to the polls that have any.

        Raises:
            UnavailableError: this process is not sure.
        """
        for place, asked in names:
            request = asked.request
            if not asked.refused:
                response = self._discovery.changes(asked.path, request)
            elif request.version_info:
                continue
            else:
                response = self._discovery.without_resources(asked.path, request)
            if response is not None:
                yield place, response

    def _look(self, poll: EdgePoll) -> DiscoveryResponse | None:
        """Return what a held question has not seen yet; None if that is nothing, or this process is unsure."""
        if poll.principal.subject.ended:
            # Its credential ended, or allows something else now: only a new question may bring anything.
            return _UNCHANGED
        changed, poll.changed = poll.changed, None
        try:
            parts = list(self._new((place, poll.asked[place]) for place in changed or ()))
            if not parts:
                # Nothing watches the other names while this is called, and they are watched anew after it.
                parts = list(self._new(poll.asked.items()))
        except UnavailableError:
            return None
        return self._answer(poll, parts, time.monotonic()) if parts else None

    def _answer(
        self, poll: EdgePoll, parts: Sequence[tuple[Place, DiscoveryResponse]], now: float
    ) -> DiscoveryResponse:
        for place, _ in parts:
            _observe(poll.asked[place], now)
        EDGE_QUESTIONS.labels("200").inc()
        return self._answers.answer(parts, [name for (_, name), asked in poll.asked.items() if asked.refused])

    def _note_subscribers(self, poll: EdgePoll, peer: str, now: float) -> None:
        """Record the Envoys behind the edge, for the names that are asked for."""
        nodes: dict[tuple[str, str | None, str | None, str], Node] = {}
        subscriptions = []
        for taken in poll.taken:
            asked = poll.asked.get((taken.type or ENDPOINTS_URL, taken.service))
            if asked is None:
                continue
            key = (taken.node, taken.cluster, taken.zone, taken.envoy)
            node = nodes.get(key)
            if node is None:
                node = nodes[key] = _node(
                    taken.node,
                    poll.node.cluster if taken.cluster is None else taken.cluster,
                    poll.node.zone if taken.zone is None else taken.zone,
                    taken.envoy,
                )
            subscriptions.append(self._relay(asked, node, taken, poll.edge, taken.address or peer, now))
        poll.subscriptions = subscriptions
        poll.taken = []

    def _relay(
        self, asked: AskedName, node: Node, taken: TakenVersion, edge: str, address: str, now: float
    ) -> Subscription:
        path = asked.path
        subscription = path.subscribers.find(node, address, asked.request.names, path.api, now)
        subscription.relay(edge, taken, 403 if asked.refused else 200 if taken.offered else 304, now)
        if path.offered_once:
            subscription.note_refused_offer(now)
        return subscription


def _hold_subscribers(poll: EdgePoll, count: int) -> None:
    """Count a poll of each subscriber behind an edge as held, or no longer; its edge holds it meanwhile."""
    now = time.monotonic()
    for subscription in poll.subscriptions:
        subscription.held += count
        if subscription.edge:
            subscription.answered_at = now


def _node(node_id: str, cluster: str, zone: str, version: str) -> Node:
    return Node(*(printable(text[:MAX_NODE_TEXT]) for text in (node_id, cluster, zone, version)))


def _observe(asked: AskedName, now: float) -> None:
    """Observe the age of the oldest change that an answer brings, as for a poll."""
    path, request = asked.path, asked.request
    held = parse_version_info(path.cache.database_id, request.names, request.version_info, path.type)
    age = path.cache.change_age(request.names[0], held[0], now) if held else None
    if age is not None:
        _OBSERVE(max(0.0, age))
