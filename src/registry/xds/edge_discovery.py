"""Answers the edges of registrars, whose questions are about everything that the Envoys beside them hold.

Each name is answered as a poll of an Envoy for it alone would be, by the same rules (`registry.xds.discovery`), and the
Envoys behind an edge are subscribers as if they polled themselves.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.errors import InvalidError, NotAllowedError, RegistryError, UnauthenticatedError, UnavailableError
from registry.metrics import EDGE_QUESTIONS, PROPAGATION
from registry.xds.discovery import Discovery, ServedPath
from registry.xds.discovery_response import DiscoveryResponse
from registry.xds.edge_answer import ENDPOINTS_URL, EdgeAnswers, Part, Place
from registry.xds.edge_poll import AskedName, EdgePoll, RememberedPolls
from registry.xds.held_polls import answered, nothing
from registry.xds.resources import ENDPOINTS, MESH_TYPES
from registry.xds.version_info import parse_version_info
from wire.edge_assignments import MAX_EDGE_HOLD, EdgeQuestion, TakenVersion

_NAMES_PER_POLL = 20
"""Names for which a held question counts as one held poll: it has one connection, and a watch for each name."""
_MAX_READ = 1_024
"""Tokens that are remembered as read."""
_DISCOVER = Verb.DISCOVER
_UNCHANGED = DiscoveryResponse(304)
_OBSERVE = PROPAGATION.labels("edge").observe
_TYPES = (ENDPOINTS, *MESH_TYPES)


_COUNT: dict[int, Callable[[], None]] = {
    status: EDGE_QUESTIONS.labels(str(status)).inc for status in (200, 304, 401, 403, 503)
}
"""Bound once: to find a counter by its labels takes as long as to compare a name."""


class EdgeWake:
    """Has a held question woken by the next change of anything that it asks for.

    Args:
        poll: the question, which notes what has changed.
        wake: called once.
    """

    __slots__ = ("_poll",)

    def __init__(self, poll: EdgePoll, wake: Callable[[], None]) -> None:
        self._poll = poll
        poll.watch()
        poll.wake = wake

    def cancel(self) -> None:
        """Wake the question no more; it goes on noting what changes."""
        self._poll.wake = None


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
        try:
            poll.update(question, principal, self._paths)
        except RegistryError:
            poll.drop()
            raise
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
        try:
            reasons = self._decide(poll)
            parts = self._compare_for_question(poll, now)
        except UnauthenticatedError:
            poll.drop()
            _COUNT[401]()
            raise
        except UnavailableError:
            poll.drop()
            _COUNT[503]()
            raise
        self._note_subscribers(poll, peer, now)
        self._remembered.keep(poll, now)
        if parts:
            return self._answer(poll, parts, now)
        if reasons and len(reasons) == len(poll.asked):
            _COUNT[403]()
            raise reasons[0]
        if poll.id and poll.refused != poll.announced:
            # The edge may hold something for such a name, and has to know that nothing keeps it up to date.
            return self._answer(poll, (), now)
        if poll.is_remembered:
            poll.watch()
            poll.changed = set(poll.unsure)
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
        # It is held already where a newer question builds on it, which came between now() and this.
        if poll.end is not None or not held_polls.has_room(poll.principal, polls, time.monotonic()):
            _COUNT[304]()
            answer(_UNCHANGED)
            return nothing

        def release() -> None:
            poll.end = None
            poll.let_go()
            _hold_subscribers(poll, -1)

        def over(response: DiscoveryResponse | None) -> None:
            release()
            if response is None or response.status == 304:
                _COUNT[304]()
            answer(response or _UNCHANGED)

        def leave() -> None:
            if give_up():
                release()

        def end() -> None:
            if give_up():
                over(None)

        # Something may have changed since now(), in a front that has to wait before it comes here.
        response = None if poll.changed == set() else self._look(poll)
        _hold_subscribers(poll, 1)
        if response is not None:
            over(response)
            return nothing
        look = partial(self._look, poll)
        give_up = held_polls.hold(poll.principal, polls, MAX_EDGE_HOLD, partial(EdgeWake, poll), look, over)
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

        What was decided for the same names and the same subject stands: a credential that ends, or allows something
        else, makes another subject.

        Raises:
            UnauthenticatedError: it has no valid credential, and needs one.
            UnavailableError: this process cannot know yet.
        """
        principal = poll.principal
        if not poll.asked:
            self._policy.allow(principal, _DISCOVER)
        if poll.decided_for is principal.subject:
            return []
        reasons = []
        for (_, name), asked in poll.asked.items():
            concerned = poll.node.cluster if asked.path.keyed_by_cluster else name
            refused = False
            try:
                self._policy.allow(principal, _DISCOVER, concerned)
            except NotAllowedError as error:
                refused = True
                reasons.append(error)
            if refused != asked.refused:
                asked.refused = refused
                # Refused names are not watched.
                poll.unwatch()
        poll.refused = poll.refused_names()
        # Each refusal is noted each time, also where it is not enforced.
        is_quiet = not reasons and _DISCOVER not in self._policy.noted_verbs
        poll.decided_for = principal.subject if is_quiet else None
        return reasons

    def _compare_for_question(self, poll: EdgePoll, now: float) -> list[Part]:
        """Return the responses for a new question: of what it says, and of what has changed since the one before.

        Raises:
            UnavailableError: this process is not sure.
        """
        places = poll.unchecked(now)
        parts = self._compare(poll, places)
        if places is poll.asked:
            poll.checked_at = now
        elif not places:
            # Nothing is looked up, so this is what tells whether the process is sure.
            self._paths[ENDPOINTS_URL].cache.find(poll.node, "")
        return parts

    def _compare(self, poll: EdgePoll, places: Iterable[Place]) -> list[Part]:
        """Return the responses to the polls for some places that have any; these remain to be compared.

        So do places of which this process is not sure, which are left out: a mesh configuration that cannot be read
        keeps no endpoint from the edge.

        Raises:
            UnavailableError: this process is sure of nothing that is asked for.
        """
        parts, unsure = [], set()
        for place in places:
            try:
                response = self._response(poll.asked[place])
            except UnavailableError:
                unsure.add(place)
                if len(unsure) == len(poll.asked):
                    raise
                continue
            if response is not None:
                parts.append((place, response))
        poll.unsure = unsure
        poll.changed = unsure.union(place for place, _ in parts) if poll.watches else None
        return parts

    def _response(self, asked: AskedName) -> DiscoveryResponse | None:
        """Return the response to the poll for one name; None if the edge holds it, or may not have it.

        Raises:
            UnavailableError: this process is not sure.
        """
        if not asked.refused:
            return self._discovery.changes(asked.path, asked.request)
        if asked.request.version_info:
            return None
        return self._discovery.without_resources(asked.path, asked.request)

    def _look(self, poll: EdgePoll) -> DiscoveryResponse | None:
        """Return what a held question has not seen yet; None if that is nothing, or this process is unsure."""
        if poll.principal.subject.ended:
            # Its credential ended, or allows something else now: only a new question may bring anything.
            return _UNCHANGED
        try:
            parts = self._compare(poll, poll.asked if poll.changed is None else poll.changed)
        except UnavailableError:
            return None
        return self._answer(poll, parts, time.monotonic()) if parts else None

    def _answer(self, poll: EdgePoll, parts: Sequence[Part], now: float) -> DiscoveryResponse:
        for place, _ in parts:
            _observe(poll.asked[place], now)
        _COUNT[200]()
        poll.announced = poll.refused
        return self._answers.answer(parts, poll.announced)

    def _note_subscribers(self, poll: EdgePoll, peer: str, now: float) -> None:
        """Record what the Envoys behind the edge have taken, for the names that are asked for."""
        for taken in poll.taken:
            place = (taken.type or ENDPOINTS_URL, taken.service)
            asked = poll.asked.get(place)
            if asked is not None:
                _note_subscriber(poll, place, asked, taken, peer, now)
        poll.taken = ()


def _note_subscriber(
    poll: EdgePoll, place: Place, asked: AskedName, taken: TakenVersion, peer: str, now: float
) -> None:
    path, node, address = asked.path, poll.node_of(taken), taken.address or peer
    key = (place, taken.node, address)
    subscription = poll.subscriptions.get(key)
    if subscription is None or not subscription.remembered:
        subscription = path.subscribers.find(node, address, asked.request.names, path.api, now)
        if subscription.remembered:
            # Others are listed nowhere, and a node id costs an edge nothing.
            poll.subscriptions[key] = subscription
    else:
        # As find() does.
        subscription.node = node
    subscription.relay(poll.edge, taken, 403 if asked.refused else 200 if taken.offered else 304, now)
    if path.offered_once:
        subscription.note_refused_offer(now)


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
    held = _held_version(path.cache.database_id, request.version_info) if path.type is ENDPOINTS else None
    age = None if held is None else path.cache.change_age(request.names[0], held, now)
    if age is not None:
        _OBSERVE(max(0.0, age))


@lru_cache(maxsize=_MAX_READ)
def _held_version(database_id: str, version_info: str) -> int | None:
    """Return the version of a service in a token of ours; None if it is none.

    Many edges hold the same tokens.
    """
    held = parse_version_info(database_id, (ENDPOINTS.name,), version_info, ENDPOINTS)
    return held[0] if held else None
