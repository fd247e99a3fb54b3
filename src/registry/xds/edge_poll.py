"""The questions of edges as this process keeps them: the polls that each stands for, and the Envoys behind.

Nearly all questions are unchanged for hours, so everything about a question stays while another one may build on it:
what it watches, and what was decided. The next one costs what is new in it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from registry.auth.principal import Principal
from registry.auth.subject import Subject
from registry.cache.standing_watches import Changed
from registry.core.subscriber import Subscription
from registry.errors import InvalidError, NotRememberedError, TooLargeError
from registry.xds.discovery import ServedPath
from registry.xds.discovery_request import DiscoveryRequest
from registry.xds.edge_answer import ENDPOINTS_URL, Place
from registry.xds.resource_cache import StandingWatch
from wire.edge_assignments import MAX_EDGE_NAMES, MAX_EDGE_TAKEN, EdgeQuestion, TakenVersion, refusal_name
from wire.node import MAX_NODE_TEXT, Node, printable

_REMEMBERED_FOR = 60.0
"""Seconds for which a question is remembered that no other one follows; an edge asks again within ten."""
_MAX_UNCHECKED = 60.0
"""Seconds after which all names of a question are compared again, also those of which no change was heard."""


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
    """Everything that an edge has said in a question and in those before, on which it builds.

    Args:
        question: a whole one.
        principal: its sender.

    Attributes:
        node: the node whose resources are asked for.
        edge: the registrar, as operators see it.
    """

    __slots__ = (
        "_mesh",
        "announced",
        "asked",
        "asked_at",
        "changed",
        "checked_at",
        "decided_for",
        "edge",
        "end",
        "id",
        "is_remembered",
        "node",
        "nodes",
        "principal",
        "refused",
        "subscriptions",
        "taken",
        "unsure",
        "wake",
        "watches",
    )

    def __init__(self, question: EdgeQuestion, principal: Principal) -> None:
        self.node = make_node(question.node, question.cluster, question.zone)
        self.edge = printable(question.edge or question.node)[:MAX_NODE_TEXT]
        self.principal = principal
        self.id = ""
        """The id of the newest question. Written by update()."""
        self.asked: dict[Place, AskedName] = {}
        """The polls that it stands for. Written by update()."""
        self._mesh: list[Place] = []
        """Those of them that are no assignments. Written by update()."""
        self.taken: Iterable[TakenVersion] = ()
        """The taken versions of the newest question, which are to be noted. Written by update() and EdgeDiscovery."""
        self.refused: list[str] = []
        """The names that its sender may not discover, as an answer has them. Written by EdgeDiscovery."""
        self.decided_for: Subject | None = None
        """The subject for which all names were allowed, without a note; None: decide anew. Written by update() and
        EdgeDiscovery."""
        self.announced: list[str] = []
        """The refused names of the newest answer, which its edge knows. Written by EdgeDiscovery."""
        self.nodes: dict[tuple[str, str | None, str | None, str], Node] = {}
        """The nodes of the Envoys, by what is said of them. Written by node_of()."""
        self.subscriptions: dict[tuple[Place, str, str], Subscription] = {}
        """The subscribers behind the edge, by place, node and address. Written by EdgeDiscovery."""
        self.changed: set[Place] | None = None
        """The places that may be newer than what the edge holds; None: all, as long as nothing is watched. Written by
        update(), by the watches, and by EdgeDiscovery, which leaves those that it has answered: an edge may not get its
        answer."""
        self.unsure: set[Place] = set()
        """The places of which this process was not sure when they were last compared; they remain to be. Written by
        EdgeDiscovery."""
        self.checked_at = 0.0
        """Monotonic time at which all places were compared. Written by EdgeDiscovery."""
        self.watches: list[StandingWatch] = []
        """What notes changes of the places that are allowed; empty: they are not watched. Written by watch() and
        unwatch()."""
        self.wake: Callable[[], None] | None = None
        """Called once at the next change, while the question is held. Written by EdgeDiscovery."""
        self.is_remembered = False
        """Whether another question may build on it, or does so just now. Written by RememberedPolls and drop()."""
        self.end: Callable[[], None] | None = None
        """Answers the question that is held, because there is a newer one; None while none is held. Written by
        EdgeDiscovery."""
        self.asked_at = 0.0
        """Monotonic time of the newest question. Written by RememberedPolls."""

    def update(self, question: EdgeQuestion, principal: Principal, paths: Mapping[str, ServedPath]) -> None:
        """Take what a question says.

        Args:
            question: a whole one, or one that builds on what was said before.
            principal: its sender.
            paths: the REST paths of polls that it may stand for, by their type URL.

        Raises:
            InvalidError: it asks for a type that is not served.
            TooLargeError: it has too many names.
        """
        changes = dict(_polls_of(question, paths))
        names = len(self.asked) + sum(place not in self.asked for place in changes)
        if names > MAX_EDGE_NAMES or len(question.taken) > MAX_EDGE_TAKEN:
            raise TooLargeError(
                f"the question has {names} names and {len(question.taken)} versions that are taken; at most "
                f"{MAX_EDGE_NAMES} and {MAX_EDGE_TAKEN} are allowed: ask several"
            )
        self.id = question.id
        self.principal = principal
        self.taken = question.taken
        for place, (path, token) in changes.items():
            asked = self.asked.get(place)
            if asked is None:
                request = DiscoveryRequest((place[1],), token, self.node)
                asked = self.asked[place] = AskedName(path, request)
                self.decided_for = None
                if place[0] != ENDPOINTS_URL:
                    self._mesh.append(place)
                self.unwatch()
            if asked.request.version_info != token:
                asked.request.version_info = token
                if self.changed is not None:
                    self.changed.add(place)

    def unchecked(self, now: float) -> Collection[Place]:
        """Return the places that have to be compared for a new question."""
        if self.changed is None or now - self.checked_at > _MAX_UNCHECKED:
            return self.asked
        # Of the mesh configuration more than a change of its resources decides what a node gets.
        return self.changed.union(self._mesh)

    def watch(self) -> None:
        """Note changes of the places that are allowed from now on, unless that is done already."""
        if self.watches:
            return
        names: dict[str, list[str]] = {}
        paths: dict[str, ServedPath] = {}
        for (type_url, name), asked in self.asked.items():
            if not asked.refused:
                names.setdefault(type_url, []).append(name)
                paths[type_url] = asked.path
        self.watches = [
            path.cache.standing_watch(self.node, names[type_url], self._note(type_url))
            for type_url, path in paths.items()
        ]

    def unwatch(self) -> None:
        """Watch nothing any more. The watches refer to this poll, which would leave a cycle."""
        for watch in self.watches:
            watch.cancel()
        self.watches = []
        self.changed = None

    def drop(self) -> None:
        """Take note that no question may build on this one."""
        self.is_remembered = False
        self.let_go()

    def let_go(self) -> None:
        """Watch nothing any more if the question is neither held nor remembered."""
        if self.end is None and not self.is_remembered:
            self.unwatch()

    def _note(self, type_url: str) -> Changed:
        def changed(names: Iterable[str] | None) -> None:
            if names is None:
                self.changed = None
            elif self.changed is not None:
                self.changed.update((type_url, name) for name in names)
            wake, self.wake = self.wake, None
            if wake is not None:
                wake()

        return changed

    def node_of(self, taken: TakenVersion) -> Node:
        """Return the node of an Envoy; one object for all that it has taken."""
        key = (taken.node, taken.cluster, taken.zone, taken.envoy)
        node = self.nodes.get(key)
        if node is None:
            if len(self.nodes) >= MAX_EDGE_TAKEN:
                self.nodes.clear()
            cluster = self.node.cluster if taken.cluster is None else taken.cluster
            zone = self.node.zone if taken.zone is None else taken.zone
            node = self.nodes[key] = make_node(taken.node, cluster, zone, taken.envoy)
        return node

    def refused_names(self) -> list[str]:
        """Return the names that its sender may not discover, as an answer has them."""
        return [
            refusal_name("" if type_url == ENDPOINTS_URL else type_url, name)
            for (type_url, name), asked in self.asked.items()
            if asked.refused
        ]


class RememberedPolls:
    """The questions that others may build on, a bounded number of them.

    Args:
        max_names: names of all of them; beyond it the oldest are forgotten, and asked again as a whole.
    """

    def __init__(self, max_names: int) -> None:
        self._max_names = max_names
        self._polls: dict[str, EdgePoll] = {}
        """By the id of their newest question, the oldest first. Written by keep() and _remove()."""
        self._names = 0
        """Names of all of them. Written by keep() and _remove()."""

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._polls)

    def __iter__(self) -> Iterator[EdgePoll]:
        return iter(list(self._polls.values()))

    def take(self, question: EdgeQuestion, principal: Principal) -> EdgePoll:
        """Return what the question has said on which another one builds; no further one may build on it.

        Raises:
            NotRememberedError: this process does not know it.
        """
        poll = self._polls.get(question.after)
        if poll is None or poll.principal.subject.name != principal.subject.name:
            raise NotRememberedError(
                f"this process does not remember the question {question.after[:64]!r}; ask a whole one, without `after`"
            )
        self._remove(question.after)
        return poll

    def keep(self, poll: EdgePoll, now: float) -> None:
        """Remember a question that has an id."""
        poll.asked_at = now
        if not poll.id:
            poll.drop()
            return
        self._forget(poll.id)
        self._polls[poll.id] = poll
        poll.is_remembered = True
        self._names += len(poll.asked)
        while self._names > self._max_names:
            self._forget(next(iter(self._polls)))

    def forget_old(self, now: float) -> None:
        """Forget those that no question followed for too long."""
        while self._polls:
            oldest = next(iter(self._polls))
            if now - self._polls[oldest].asked_at <= _REMEMBERED_FOR:
                return
            self._forget(oldest)

    def _forget(self, question_id: str) -> None:
        poll = self._remove(question_id)
        if poll is not None:
            poll.drop()

    def _remove(self, question_id: str) -> EdgePoll | None:
        poll = self._polls.pop(question_id, None)
        if poll is not None:
            self._names -= len(poll.asked)
        return poll


def make_node(node_id: str, cluster: str, zone: str, version: str = "") -> Node:
    """Return a node of texts of any length."""
    return Node(*(printable(text[:MAX_NODE_TEXT]) for text in (node_id, cluster, zone, version)))


def _polls_of(
    question: EdgeQuestion, paths: Mapping[str, ServedPath]
) -> Iterator[tuple[Place, tuple[ServedPath, str]]]:
    """Yield the path and the token of each name of a question.

    Raises:
        InvalidError: it asks for a type that is not served.
    """
    for name, token in question.held.items():
        yield (ENDPOINTS_URL, name), (paths[ENDPOINTS_URL], token)
    for type_url, held in question.resources.items():
        path = paths.get(type_url)
        if path is None or type_url == ENDPOINTS_URL:
            allowed = ", ".join(url for url in paths if url != ENDPOINTS_URL)
            raise InvalidError(f"no resources of {type_url[:200]!r} are served; there are {allowed}", "$.resources")
        for name, token in held.items():
            yield (type_url, name), (path, token)
