"""The questions of an edge to the registry: one for all names of a node, which the registry holds."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec
from msgspec import Struct

from registrar import jitter
from registrar.edge.entry import Entry, Key, Source
from registrar.edge.polled_types import ENDPOINTS
from registrar.edge.subscription import Subscription
from registrar.errors import RegistryAnswerTooLong, RegistryRefused, RegistryRequestError, RegistryUnavailable
from registrar.event_log import EventLogger
from registrar.registry_client.client import RegistryClient
from wire.edge_assignments import MAX_EDGE_HOLD, MAX_EDGE_NAMES, MAX_EDGE_TAKEN, EdgeAnswer, EdgeQuestion
from wire.node import Node

EDGE_TIMEOUT = MAX_EDGE_HOLD + 2.0
"""Seconds for one question, which the registry holds: a registry that hangs is noticed after them."""
_GATHER_TIME = 0.02
"""Seconds in which further names are waited for: an Envoy that starts polls for all its clusters at once."""
_MAX_BACKOFF = 1.0
"""Seconds of the longest pause after a failure: an Envoy may be waiting. One connection is tried each time."""
_REFUSED_PAUSE = 5.0
"""Seconds of the pause after a refusal; Envoys poll the registry themselves meanwhile."""
_TOO_LONG_PAUSE = 60.0
"""Seconds of the pause after an answer that is too long: each one is up to 64 MB that nobody takes."""
_REPORT_DELAY = 0.4
"""Seconds after which the registry is told what Envoys have taken; they take a change within half of it."""
_END_TIMEOUT = 1.0
"""Seconds in which a held question ends when another one builds on it."""
_UNAUTHENTICATED_TIMEOUT = 10.0
"""Seconds for which a refused token is expected to be replaced, before Envoys are sent to the registry."""
_NOT_REMEMBERED = 412
"""The status of a question that builds on one that the registry does not know."""
_SHORT = 1.0
"""Seconds within which an answer without content was not held, so that the next question has to wait."""
_AWAY = "away"
"""The trouble of an asker that no registry answers; that of one that is refused is the reason."""
_SUBSCRIPTION_TIMEOUT = 120.0
"""Seconds without a poll after which an Envoy is no longer reported; polls are held for 55 at most."""

_TOO_LONG_FIX = (
    "have fewer clusters or endpoints in one Envoy, let a proxy in between pass gzip, or let this Envoy poll the "
    "registry without an edge (edge: null in mesh.yaml)"
)
_UPGRADE = "upgrade the registry: it has no POST /v1/edge/assignments"
_INVALID = "correct what the reason names: the id, cluster or zone of Envoy's node, or a name that it polls for"
_FIXES = {
    400: _INVALID,
    401: "give this registrar a valid token: REGISTRAR_TOKEN_FILE or REGISTRAR_TOKEN; registrar doctor tries it",
    403: "grant discover to this registrar's principal",
    404: _UPGRADE,
    405: _UPGRADE,
    412: "have the load balancer keep a connection at one registry, or upgrade the registry",
    422: _INVALID,
}
"""What mends a refusal of the registry, by its status."""

log = EventLogger(__name__)


class Troubles:
    """The reasons for which askers have no answers, so that the log says once what all of them meet."""

    def __init__(self) -> None:
        # The newest trouble of each asker that has one.
        self._of: dict[Asker, str] = {}

    def begin(self, asker: "Asker", trouble: str) -> bool:
        """Note what an asker meets, and return whether none had met it."""
        is_new = trouble not in self._of.values()
        self._of[asker] = trouble
        return is_new

    def end(self, asker: "Asker") -> bool:
        """Note that an asker has no trouble, and return whether it was the last one with its own."""
        trouble = self._of.pop(asker, None)
        return trouble is not None and trouble not in self._of.values()


class Progress(Struct):
    """The outcomes of the questions of all askers of an edge. Times are those of the loop.

    Attributes:
        questions: questions sent.
        failed: questions that no registry answered.
        refused: questions that a registry refused, or whose answer was too long.
        answered_at: when the newest answer came; None before the first.
        troubles: what keeps askers from answers now.
    """

    questions: int = 0
    failed: int = 0
    refused: int = 0
    answered_at: float | None = None
    troubles: Troubles = msgspec.field(default_factory=Troubles)


class _Said(Struct, frozen=True):
    """The state that the registry knows after a question, on which the next one builds.

    Attributes:
        id: the question's.
        tokens: the token of each name.
        taken: the state of each subscription, by name and node.
    """

    id: str
    tokens: Mapping[Key, str]
    taken: Mapping[tuple[Key, tuple[str, str, str]], object]

    def is_within(self, tokens: Mapping[Key, str], taken: Mapping[tuple[Key, tuple[str, str, str]], object]) -> bool:
        """Return whether every name and subscription of it is still among these."""
        return self.tokens.keys() <= tokens.keys() and self.taken.keys() <= taken.keys()


class _Question(Struct, frozen=True):
    """A question that is under way, and what the registry knows if it takes it."""

    task: "asyncio.Task[EdgeAnswer | None]"
    said: _Said
    whole: bool
    sent_at: float


class Asker:
    """Asks for up to a thousand names, on behalf of one node.

    A question builds on the one before, and has only what is new. One that is held ends when another one builds on it.

    Args:
        node: the node that the questions are for.
        edge: the name of this edge.
        client: of the edge's own; heartbeats must not wait behind held questions.
        progress: shared with the other askers of the edge.
        settle: called with each entry that the registry answered for, or after a failure with every entry.
    """

    def __init__(
        self, node: Node, edge: str, client: RegistryClient, progress: Progress, settle: Callable[[Entry], None]
    ) -> None:
        self.node = node
        self.entries: dict[Key, Entry] = {}
        """The names that it asks for. Written by add() and remove()."""
        self.away: str | None = None
        """Why the newest question failed or was refused; None after an answer."""
        self.refused = False
        """Whether the newest question was refused. Written here, and by Askers for a new one."""
        self.too_long = False
        """Whether the newest answer was too long to be taken. Written here."""
        # Loaded names that the registry does not refuse, and those that it does. Written by count().
        self._served: set[Key] = set()
        self._refused_names: set[Key] = set()
        # When the first question failed that no answer followed; None after an answer.
        self._silent_since: float | None = None
        self._edge = edge
        self._client = client
        self._progress = progress
        self._settle = settle
        self._loop = asyncio.get_running_loop()
        # Set when there is something to say that the question under way does not say.
        self._wake = asyncio.Event()
        # Sets it for what Envoys have taken; None while that is said.
        self._report_timer: asyncio.TimerHandle | None = None
        # What the newest question has said; None where the next one has to be whole.
        self._said: _Said | None = None
        self._backoff = jitter.Backoff(most=_MAX_BACKOFF)

    @property
    def full(self) -> bool:
        """Whether no further name fits into its question."""
        return len(self.entries) >= MAX_EDGE_NAMES

    @property
    def is_served(self) -> bool:
        """Whether the registry refuses neither this asker nor all of its loaded names."""
        return not self.refused and bool(self._served)

    @property
    def is_refused(self) -> bool:
        """Whether the registry refuses this asker or a name of it."""
        return self.refused or bool(self._refused_names)

    def add(self, entry: Entry) -> None:
        """Ask for a name, once it is loaded."""
        self.entries[entry.key] = entry
        self.count(entry)

    def remove(self, entry: Entry) -> None:
        """Ask for a name no longer."""
        self.entries.pop(entry.key, None)
        self._served.discard(entry.key)
        self._refused_names.discard(entry.key)

    def count(self, entry: Entry) -> None:
        """Count a name among those that are served or refused, after that or ``loaded`` has changed."""
        self._served.discard(entry.key)
        self._refused_names.discard(entry.key)
        if entry.loaded:
            (self._refused_names if entry.refused else self._served).add(entry.key)

    def wake(self) -> None:
        """Ask at once, with what is new."""
        self._wake.set()

    def note_news(self) -> None:
        """Tell the registry soon what an Envoy has taken."""
        if self._report_timer is None:
            self._report_timer = self._loop.call_later(_REPORT_DELAY, self._wake.set)

    async def run(self) -> None:
        """Ask again and again, as long as there is something to ask."""
        question: _Question | None = None
        try:
            while True:
                if question is None:
                    await self._until_there_is_something()
                    question = self._send()
                elif await self._is_answered(question):
                    await self._pause(self._finish(question))
                    question = None
                else:
                    await asyncio.sleep(_GATHER_TIME)
                    former, question = question, self._send()
                    await self._end(former)
        finally:
            if question is not None:
                question.task.cancel()

    async def _until_there_is_something(self) -> None:
        while not any(entry.loaded for entry in self.entries.values()):
            await self._wake.wait()
            self._wake.clear()
        if self._wake.is_set():
            await asyncio.sleep(_GATHER_TIME)

    async def _is_answered(self, question: _Question) -> bool:
        """Wait for the answer to a question, and return False if there is something new to say before it comes."""
        waking = asyncio.create_task(self._wake.wait(), name="edge wake")
        try:
            await asyncio.wait({question.task, waking}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waking.cancel()
        return question.task.done()

    def _send(self) -> _Question:
        """Send everything that the registry does not know yet."""
        self._wake.clear()
        if self._report_timer is not None:
            self._report_timer.cancel()
            self._report_timer = None
        before, tokens = self._said, self._tokens()
        subscriptions = list(self._subscriptions())
        states = {key: each.state for key, _, each in subscriptions}
        if before is not None and not before.is_within(tokens, states):
            # Only a whole question says what is no longer asked for.
            before = None
        known = {} if before is None else before.taken
        news = [each for each in subscriptions if known.get(each[0]) != states[each[0]]]
        if len(news) > MAX_EDGE_TAKEN:
            # A question with more is refused; the next one has the rest.
            del news[MAX_EDGE_TAKEN:]
            self._wake.set()
        said = _Said(secrets.token_hex(8), tokens, {**known, **{key: states[key] for key, _, _ in news}})
        question = self._changes(before, said, [(entry, each) for _, entry, each in news])
        self._said = said
        self._progress.questions += 1
        task = asyncio.create_task(self._client.ask_edge(question), name="edge question")
        return _Question(task, said, before is None, self._loop.time())

    def _changes(self, before: _Said | None, said: _Said, news: Iterable[tuple[Entry, Subscription]]) -> EdgeQuestion:
        """Return a question with what ``said`` has and ``before`` has not: tokens, and ``news`` of what was taken."""
        held: dict[str, str] = {}
        resources: dict[str, dict[str, str]] = {}
        for key, token in said.tokens.items():
            if before is None or before.tokens.get(key) != token:
                entry = self.entries[key]
                names = held if entry.polled is ENDPOINTS else resources.setdefault(entry.polled.type_url, {})
                names[entry.name] = token
        node, now = self.node, self._loop.time()
        taken = [
            each.report(entry.name, "" if entry.polled is ENDPOINTS else entry.polled.type_url, node, now)
            for entry, each in news
        ]
        if before is not None:
            return EdgeQuestion(held=held, resources=resources, taken=taken, id=said.id, after=before.id)
        return EdgeQuestion(node.id, node.cluster, node.zone, self._edge, held, resources, taken, said.id)

    def _tokens(self) -> dict[Key, str]:
        return {key: entry.held for key, entry in self.entries.items() if entry.loaded}

    def _subscriptions(self) -> Iterator[tuple[tuple[Key, tuple[str, str, str]], Entry, Subscription]]:
        """Yield what Envoys poll for; those that have stopped are forgotten."""
        now = self._loop.time()
        for entry in self.entries.values():
            if entry.loaded:
                for node, subscription in list(entry.subscriptions.items()):
                    if now - subscription.polled_at > _SUBSCRIPTION_TIMEOUT:
                        del entry.subscriptions[node]
                    else:
                        yield (entry.key, node), entry, subscription

    def _finish(self, question: _Question) -> float:
        """Take the answer to a question; return the seconds to wait before the next one."""
        try:
            answer = question.task.result()
        except RegistryUnavailable as error:
            if error.unauthenticated and self._silent_for() > _UNAUTHENTICATED_TIMEOUT:
                # The token that is expected does not come, and Envoy has one of its own.
                return self._note_refusal(str(error), fix_of(401))
            return self._note_failure(str(error), error.retry_after)
        except RegistryRefused as error:
            if error.problem.status == _NOT_REMEMBERED and not question.whole:
                # Another process of the registry, or one that was started since.
                self._said = None
                return 0.0
            fix = fix_of(error.problem.status, from_registry=error.from_registry)
            return self._note_refusal(str(error), fix)
        except RegistryAnswerTooLong as error:
            return self._note_too_long(str(error))
        now = self._loop.time()
        self._note_answer(now)
        self._note_refusals(answer, question)
        has_news = self._apply(answer or EdgeAnswer(), question.said.tokens, now)
        return jitter.around(_SHORT, 0.5) if not has_news and now - question.sent_at < _SHORT else 0.0

    async def _end(self, question: _Question) -> None:
        """Take the answer to a question on which another one builds, which ends it."""
        await asyncio.wait({question.task}, timeout=_END_TIMEOUT)
        if not question.task.done():
            # The other one has reached another process. What this one would bring is not lost: tokens bring it.
            question.task.cancel()
            return
        with contextlib.suppress(RegistryRequestError):
            answer = question.task.result()
            self._note_refusals(answer, question)
            if answer is not None:
                self._apply(answer, {}, self._loop.time())

    async def _pause(self, seconds: float) -> None:
        """Wait for so long; where a registry answers, only until there is something new to say."""
        if self.away is not None:
            await asyncio.sleep(seconds)
        elif seconds:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()

    def _note_refusals(self, answer: EdgeAnswer | None, question: _Question) -> None:
        """Note which names are refused; an answer names them all, and a 304 says that they are those of before."""
        if answer is None and not question.whole:
            return
        refused = set() if answer is None else set(answer.refused)
        for key in question.said.tokens:
            entry = self.entries.get(key)
            if entry is not None:
                entry.refused = entry.refusal_name in refused
                self.count(entry)

    def _apply(self, answer: EdgeAnswer, sent: Mapping[Key, str], now: float) -> bool:
        """Take what the registry said, and confirm the names of ``sent`` that it left out; return if any is new."""
        wall = time.time()
        has_news = False
        for key, entry in list(self.entries.items()):
            content = _content(entry, answer)
            if entry.refused:
                # Its answer without resources lets an Envoy start, and says nothing of what there is. It is held where
                # nothing else is: a name without a token would be answered so again and again, and never held.
                if content is not None and not entry.token:
                    entry.take(*content, Source.REGISTRY)
                self._settle(entry)
                continue
            if content is not None:
                has_news = True
                entry.take(*content, Source.REGISTRY)
            elif not sent.get(key) or entry.held != sent[key]:
                # The registry is in doubt, or an Envoy has brought another database's since the question.
                continue
            entry.confirm(now, wall)
            self._settle(entry)
        return has_news

    def _silent_for(self) -> float:
        since = self._silent_since
        return 0.0 if since is None else self._loop.time() - since

    def _note_answer(self, now: float) -> None:
        self._backoff.reset()
        if self._progress.troubles.end(self):
            away = round(self._silent_for(), 1)
            log.info("edge_registry_back", registry=self._client.registry, away_seconds=away)
        self.away, self.refused, self.too_long, self._silent_since = None, False, False, None
        self._progress.answered_at = now

    def _note_failure(self, reason: str, retry_after: float | None) -> float:
        self._progress.failed += 1
        if self._progress.troubles.begin(self, _AWAY):
            log.warning(
                "edge_registry_away",
                registry=self._client.registry,
                reason=reason,
                meanwhile="Envoys are served what is held here, however long it takes",
            )
        self._fail(reason)
        return self._backoff.failed(4 * _MAX_BACKOFF, None if retry_after is None else min(retry_after, _MAX_BACKOFF))

    def _note_refusal(self, reason: str, fix: str) -> float:
        meanwhile = "names of this node are not kept up to date; where all nodes are refused, /livez answers 503"
        self._warn_refused(reason, meanwhile, fix)
        self._fail(reason, refused=True)
        return jitter.around(_REFUSED_PAUSE, 0.5)

    def _note_too_long(self, reason: str) -> float:
        self._warn_refused(reason, "/livez answers 503, so that Envoys ask the registry themselves", _TOO_LONG_FIX)
        self._fail(reason, too_long=True)
        return jitter.around(_TOO_LONG_PAUSE, 0.2)

    def _warn_refused(self, reason: str, meanwhile: str, fix: str) -> None:
        self._progress.refused += 1
        if self._progress.troubles.begin(self, reason):
            log.warning(
                "edge_refused",
                registry=self._client.registry,
                node=self.node.id,
                reason=reason,
                meanwhile=meanwhile,
                fix=fix,
            )

    def _fail(self, reason: str, *, refused: bool = False, too_long: bool = False) -> None:
        self._said = None
        self.away, self.refused, self.too_long = reason, refused, too_long
        if self._silent_since is None:
            self._silent_since = self._loop.time()
        for entry in list(self.entries.values()):
            self._settle(entry)


def fix_of(status: int, *, from_registry: bool = True) -> str:
    """Return what mends a refusal of everything, by its status and by whether a registry or a proxy sent it."""
    if status == 413:
        return "raise the body limit (REGISTRY_MAX_BODY, or that of a proxy), or have fewer clusters in one Envoy"
    if not from_registry:
        return "let the proxy in front of the registry pass POST /v1/edge/assignments"
    return _FIXES.get(status, "mend what the reason says, or look at the registry's log")


def _content(entry: Entry, answer: EdgeAnswer) -> tuple[str, bytes] | None:
    """Return the token and the resources that an answer has for an entry; None if it has none."""
    if entry.polled is ENDPOINTS:
        assignment = answer.assignments.get(entry.name)
        return None if assignment is None else (assignment.version_info, bytes(assignment.assignment))
    resources = answer.resources.get(entry.polled.type_url, {}).get(entry.name)
    return None if resources is None else (resources.version_info, b",".join(map(bytes, resources.resources)))
