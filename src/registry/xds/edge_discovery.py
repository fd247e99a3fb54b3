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
from registry.errors import InvalidError, NotAllowedError, UnauthenticatedError, UnavailableError
from registry.metrics import EDGE_QUESTIONS, PROPAGATION
from registry.xds.discovery import Discovery, ServedPath
from registry.xds.discovery_response import DiscoveryResponse
from registry.xds.edge_answer import ENDPOINTS_URL, EdgeAnswers, Place
from registry.xds.edge_poll import AskedName, EdgePoll, RememberedPolls
from registry.xds.held_polls import answered, nothing
from registry.xds.resource_cache import StandingWatch
from registry.xds.resources import ENDPOINTS, MESH_TYPES
from registry.xds.version_info import parse_version_info
from wire.edge_assignments import MAX_EDGE_HOLD, EdgeQuestion, TakenVersion
from wire.node import Node

_NAMES_PER_POLL = 20
"""Names for which a held question counts as one held poll: it has one connection, and a watch for each name."""
_DISCOVER = Verb.DISCOVER
_UNCHANGED = DiscoveryResponse(304)
_OBSERVE = PROPAGATION.labels("edge").observe
_TYPES = (ENDPOINTS, *MESH_TYPES)


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
        # It refers to the poll that refers to this watch.
        self._wake = nothing
        for watch in self._watches:
            watch.cancel()

    def _note(self, type_url: str) -> Changed:
        def changed(names: "Iterable[str] | None") -> None:
            self._poll.changed = None if names is None else {(type_url, name) for name in names}
            wake = self._wake
            self.cancel()
            wake()

        return changed


class EdgeDiscovery:
    """Answers the questions of edges.

    Args:
        discovery: answers the polls that a question stands for, and holds questions beside them.
        policy: decides who may ask for what.
        max_names: names of the questions that are remembered, so that others build on them.
    """

    def __init__(self, discovery: Discovery, policy: Policy, max_names: int) -> None:
        self._discovery = discovery
        self._policy = policy
        self.held_polls = discovery.held_polls
        """Where questions are held, beside the polls of Envoys."""
        self._paths: Mapping[str, ServedPath] = {
            path.type_url: path for path in discovery.paths.values() if path.api == "v3" and path.type in _TYPES
        }
        """The paths of polls that a question may stand for, by the type URLs of their resources."""
        self._answers = EdgeAnswers(list(self._paths))
        self._remembered = RememberedPolls(max_names)

    def read(self, principal: Principal, question: EdgeQuestion) -> EdgePoll:
        """Return a question with the polls that it stands for; the held one that it builds on ends.

        Raises:
            InvalidError: it asks for a type that is not served, or says neither its node nor what it builds on.
            NotRememberedError: it builds on a question that this process does not know.
            TooLargeError: it has too many names.
        """
        if question.after:
            poll = self._remembered.take(question, principal)
            if poll.end is not None:
                poll.end()
        elif question.node:
            poll = EdgePoll(question, principal)
        else:
            raise InvalidError("a question has a `node`, or builds on another one (`after`)", "$.node")
        poll.update(question, principal, self._paths)
        return poll

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
        self._remembered.keep(poll, now)
        if parts:
            return self._answer(poll, parts, now)
        if reasons and len(reasons) == len(poll.asked):
            EDGE_QUESTIONS.labels("403").inc()
            raise reasons[0]
        if poll.id and poll.refused != poll.announced:
            # The edge may hold something for such a name, and has to know that nothing keeps it up to date.
            return self._answer(poll, (), now)
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
        polls = max(1, len(poll.asked) // _NAMES_PER_POLL)
        if not held_polls.has_room(poll.principal, polls, time.monotonic()):
            EDGE_QUESTIONS.labels("304").inc()
            answer(_UNCHANGED)
            return nothing

        def over(response: DiscoveryResponse | None) -> None:
            poll.end = None
            _hold_subscribers(poll, -1)
            if response is None or response.status == 304:
                EDGE_QUESTIONS.labels("304").inc()
            answer(response or _UNCHANGED)

        def leave() -> None:
            if give_up():
                poll.end = None
                _hold_subscribers(poll, -1)

        def end() -> None:
            if give_up():
                over(None)

        _hold_subscribers(poll, 1)
        look = partial(self._look, poll)
        give_up = held_polls.hold(poll.principal, polls, MAX_EDGE_HOLD, partial(EdgeWatch, poll), look, over)
        poll.end = end
        return leave

    def forget_old(self) -> None:
        """Forget the questions that no other one followed for too long."""
        self._remembered.forget_old(time.monotonic())

    @property
    def edge_count(self) -> int:
        """The number of edges whose question is remembered."""
        return len(self._remembered)

    @property
    def subscriber_count(self) -> int:
        """The number of pairs of an Envoy and a name that these edges answer."""
        return sum(len(poll.subscriptions) for poll in self._remembered)

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
            asked.refused = False
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
        poll.announced = poll.refused
        return self._answers.answer(parts, poll.announced)

    def _note_subscribers(self, poll: EdgePoll, peer: str, now: float) -> None:
        """Record what the Envoys behind the edge have taken, for the names that are asked for."""
        for taken in poll.taken:
            place = (taken.type or ENDPOINTS_URL, taken.service)
            asked = poll.asked.get(place)
            if asked is not None:
                address = taken.address or peer
                subscription = self._relay(asked, poll.node_of(taken), taken, poll.edge, address, now)
                poll.subscriptions[place, taken.node, address] = subscription
        poll.taken = ()

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
    for subscription in poll.subscriptions.values():
        subscription.held += count
        if subscription.edge:
            subscription.answered_at = now


def _observe(asked: AskedName, now: float) -> None:
    """Observe the age of the oldest change that an answer brings, as for a poll."""
    path, request = asked.path, asked.request
    held = parse_version_info(path.cache.database_id, request.names, request.version_info, path.type)
    age = path.cache.change_age(request.names[0], held[0], now) if held else None
    if age is not None:
        _OBSERVE(max(0.0, age))
