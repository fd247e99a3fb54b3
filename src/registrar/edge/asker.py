"""The questions of an edge to the registry: one for all names of a node, which the registry holds."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping

from msgspec import Struct

from registrar import jitter
from registrar.edge.entry import Entry, Key, Source
from registrar.edge.polled_types import ENDPOINTS
from registrar.errors import RegistryRefused, RegistryUnavailable
from registrar.event_log import EventLogger
from registrar.registry_client.client import RegistryClient
from wire.edge_assignments import MAX_EDGE_HOLD, MAX_EDGE_NAMES, EdgeAnswer, EdgeQuestion, TakenVersion
from wire.node import Node

EDGE_TIMEOUT = MAX_EDGE_HOLD + 2.0
"""Seconds for one question, which the registry holds: a registry that hangs is noticed after them."""
_GATHER_TIME = 0.02
"""Seconds in which further names are waited for: an Envoy that starts polls for all its clusters at once."""
_MAX_BACKOFF = 1.0
"""Seconds of the longest pause after a failure: an Envoy may be waiting. One connection is tried each time."""
_REFUSED_PAUSE = 5.0
"""Seconds of the pause after a refusal; Envoys poll the registry themselves meanwhile."""
_SHORT = 1.0
"""Seconds within which an answer without changes was not held, so that the next question has to wait."""
_SUBSCRIPTION_TIMEOUT = 120.0
"""Seconds without a poll after which an Envoy is no longer reported; polls are held for 55 at most."""

log = EventLogger(__name__)


class Progress(Struct):
    """The outcomes of the questions of an edge. Times are those of the loop.

    Attributes:
        questions: questions sent.
        failed: questions that no registry answered.
        refused: questions that a registry refused.
        away: why the newest question failed or was refused; None after an answer.
        is_refused: whether the newest question was refused.
        answered_at: when the newest answer came; None before the first.
        silent_since: when the first question failed that no answer followed; None after an answer.
    """

    questions: int = 0
    failed: int = 0
    refused: int = 0
    away: str | None = None
    is_refused: bool = False
    answered_at: float | None = None
    silent_since: float | None = None


class Asker:
    """Asks for up to a thousand names, on behalf of one node.

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
        """The names that it asks for. Written by the edge."""
        self._edge = edge
        self._client = client
        self._progress = progress
        self._settle = settle
        self._loop = asyncio.get_running_loop()
        # Set when there is something to ask that the question under way does not ask.
        self._wake = asyncio.Event()
        self._backoff = jitter.Backoff(most=_MAX_BACKOFF)

    @property
    def full(self) -> bool:
        """Whether no further name fits into its question."""
        return len(self.entries) >= MAX_EDGE_NAMES

    def wake(self) -> None:
        """Ask at once, with what is new."""
        self._wake.set()

    async def run(self) -> None:
        """Ask again and again, as long as there is something to ask."""
        while True:
            if not any(entry.loaded for entry in self.entries.values()):
                await self._wake.wait()
            if self._wake.is_set():
                await asyncio.sleep(_GATHER_TIME)
                self._wake.clear()
            sent = {key: entry.held for key, entry in self.entries.items() if entry.loaded}
            if sent:
                await self._pause(await self._ask(sent))

    async def _ask(self, sent: Mapping[Key, str]) -> float:
        """Ask once; return the seconds to wait before the next question."""
        started = self._loop.time()
        question = self._question(sent)
        self._progress.questions += 1
        asking = asyncio.create_task(self._client.ask_edge(question), name="edge question")
        waking = asyncio.create_task(self._wake.wait(), name="edge wake")
        try:
            await asyncio.wait({asking, waking}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                # An answer under way is not lost: the next question brings the same tokens, and gets it again.
                return 0.0
            answer = asking.result()
        except RegistryUnavailable as error:
            return self._note_failure(str(error), error.retry_after)
        except RegistryRefused as error:
            return self._note_refusal(str(error))
        finally:
            asking.cancel()
            waking.cancel()
            await asyncio.wait({asking, waking})
        now = self._loop.time()
        self._note_answer(now)
        self._apply(answer or EdgeAnswer(), sent, now)
        return jitter.around(_SHORT, 0.5) if answer is None and now - started < _SHORT else 0.0

    async def _pause(self, seconds: float) -> None:
        """Wait for so long; where a registry answers, only until there is something new to ask."""
        if self._progress.away is not None:
            await asyncio.sleep(seconds)
        elif seconds:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()

    def _question(self, sent: Mapping[Key, str]) -> EdgeQuestion:
        node = self.node
        held: dict[str, str] = {}
        resources: dict[str, dict[str, str]] = {}
        for key, token in sent.items():
            entry = self.entries[key]
            names = held if entry.polled is ENDPOINTS else resources.setdefault(entry.polled.type_url, {})
            names[entry.name] = token
        return EdgeQuestion(node.id, node.cluster, node.zone, self._edge, held, resources, self._taken())

    def _taken(self) -> list[TakenVersion]:
        """Return what Envoys have taken; those that poll no more are forgotten."""
        now = self._loop.time()
        taken = []
        for entry in self.entries.values():
            type_url = "" if entry.polled is ENDPOINTS else entry.polled.type_url
            for key, subscription in list(entry.subscriptions.items()):
                if now - subscription.polled_at > _SUBSCRIPTION_TIMEOUT:
                    del entry.subscriptions[key]
                else:
                    taken.append(subscription.report(entry.name, type_url, self.node, now))
        return taken

    def _apply(self, answer: EdgeAnswer, sent: Mapping[Key, str], now: float) -> None:
        """Take what the registry said, and confirm what it left out."""
        wall = time.time()
        for key, token in sent.items():
            entry = self.entries.get(key)
            if entry is None:
                continue
            entry.refused = entry.name in answer.refused
            content = _content(entry, answer)
            if content is not None:
                entry.take(*content, Source.REGISTRY)
            elif not token or entry.held != token:
                # The registry is in doubt, or an Envoy has brought another database's since the question.
                continue
            entry.confirm(now, wall)
            self._settle(entry)

    def _note_answer(self, now: float) -> None:
        progress = self._progress
        self._backoff.reset()
        if progress.away is not None:
            away = 0.0 if progress.silent_since is None else round(now - progress.silent_since, 1)
            log.info("edge_registry_back", registry=self._client.registry, away_seconds=away)
        progress.away, progress.is_refused, progress.silent_since = None, False, None
        progress.answered_at = now

    def _note_failure(self, reason: str, retry_after: float | None) -> float:
        progress = self._progress
        progress.failed += 1
        if progress.away is None or progress.is_refused:
            log.warning(
                "edge_registry_away",
                registry=self._client.registry,
                reason=reason,
                meanwhile="Envoys are served what is held here, however long it takes",
            )
        self._fail(reason, is_refused=False)
        return self._backoff.failed(4 * _MAX_BACKOFF, None if retry_after is None else min(retry_after, _MAX_BACKOFF))

    def _note_refusal(self, reason: str) -> float:
        progress = self._progress
        progress.refused += 1
        if not progress.is_refused:
            log.warning(
                "edge_refused",
                registry=self._client.registry,
                reason=reason,
                meanwhile="/livez answers 503, so that Envoys go to the registry themselves",
                fix="grant discover to this registrar's principal, or upgrade the registry",
            )
        self._fail(reason, is_refused=True)
        return jitter.around(_REFUSED_PAUSE, 0.5)

    def _fail(self, reason: str, *, is_refused: bool) -> None:
        progress = self._progress
        progress.away, progress.is_refused = reason, is_refused
        if progress.silent_since is None:
            progress.silent_since = self._loop.time()
        for entry in list(self.entries.values()):
            self._settle(entry)


def _content(entry: Entry, answer: EdgeAnswer) -> tuple[str, bytes] | None:
    """Return the token and the resources that an answer has for an entry; None if it has none."""
    if entry.polled is ENDPOINTS:
        assignment = answer.assignments.get(entry.name)
        return None if assignment is None else (assignment.version_info, bytes(assignment.assignment))
    resources = answer.resources.get(entry.polled.type_url, {}).get(entry.name)
    return None if resources is None else (resources.version_info, b",".join(map(bytes, resources.resources)))
