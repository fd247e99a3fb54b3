"""Polls without an answer yet: each is answered as soon as what is held, or the time, allows it."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from msgspec import Struct

from registrar.edge.askers import Askers
from registrar.edge.decision import Poll, Situation, Verdict, decide
from registrar.edge.entry import Entry, Key
from registrar.edge.subscription import Subscription
from registrar.edge.token import NOTHING, Relation, compare, joined


class Answer(Struct, frozen=True):
    """The answer to a poll: 200 with a token and resources, 304, or 503."""

    status: int
    token: str = ""
    resources: Sequence[bytes] = ()


UNAVAILABLE = Answer(503)
NO_RESOURCES = Answer(200, NOTHING)
_UNCHANGED = Answer(304)

Respond = Callable[[Answer], None]
"""Sends an answer."""


class _HeldPoll:
    """A poll without an answer yet."""

    __slots__ = ("entries", "poll", "respond", "subscription", "timer")

    def __init__(
        self, poll: Poll, entries: Sequence[Entry], subscription: Subscription | None, respond: Respond
    ) -> None:
        self.poll = poll
        self.entries = entries
        self.subscription = subscription
        self.respond = respond
        # When to decide again although nothing changed.
        self.timer: asyncio.TimerHandle | None = None


class HeldPolls:
    """Answers polls.

    Args:
        askers: ask for the names of polls.
        has_fallback: whether there is a fallback to ask.

    Attributes:
        answered: polls that were answered, by status.
    """

    def __init__(self, askers: Askers, *, has_fallback: bool) -> None:
        self.answered = {200: 0, 304: 0, 503: 0}
        self._askers = askers
        self._has_fallback = has_fallback
        self._loop = asyncio.get_running_loop()
        # By each of their names.
        self._held: dict[Key, dict[_HeldPoll, None]] = {}

    def __len__(self) -> int:
        """Return the number of polls that are held."""
        return len({held for polls in self._held.values() for held in polls})

    def holds(self, key: Key) -> bool:
        """Return whether a poll for a name is held."""
        return key in self._held

    def add(
        self, poll: Poll, entries: Sequence[Entry], subscription: Subscription | None, respond: Respond
    ) -> Callable[[], None]:
        """Answer a poll for names that are asked for, perhaps before this returns.

        Returns:
            A function to call when the Envoy has disconnected; harmless after the answer.
        """
        held = _HeldPoll(poll, entries, subscription, respond)
        for entry in entries:
            self._held.setdefault(entry.key, {})[held] = None
        self._decide(held)
        return partial(self._drop, held)

    def decide(self, entry: Entry) -> None:
        """Decide anew about the polls for a name, whose content or whose registry's state may have changed."""
        for held in list(self._held.get(entry.key, ())):
            self._decide(held)

    def release(self) -> None:
        """Answer every poll: this process stops, or Envoys have to ask the registry themselves."""
        for polls in list(self._held.values()):
            for held in list(polls):
                self._end(held, _UNCHANGED if held.poll.brought else UNAVAILABLE)

    def answer(self, answer: Answer, subscription: Subscription | None, respond: Respond) -> None:
        """Answer a poll that is not held."""
        self.answered[answer.status] += 1
        if subscription is not None:
            subscription.answer(answer.token, self._loop.time())
        respond(answer)

    def _decide(self, held: _HeldPoll) -> None:
        now = self._loop.time()
        away = any(self._askers.of(entry).away is not None for entry in held.entries)
        situation = Situation(away, self._askers.refused, self._has_fallback)
        verdict, again = decide(held.poll, held.entries, situation, now)
        answer = self._answer_of(verdict, held, now)
        if answer is None and verdict is Verdict.CONTENT:
            # It has refused this content: it waits for another one.
            again = held.poll.ends
            answer = _UNCHANGED if now >= again else None
        if answer is not None:
            self._end(held, answer)
            return
        self._ask_anew(held)
        if held.timer is not None:
            held.timer.cancel()
        held.timer = self._loop.call_at(again, self._decide, held)

    def _answer_of(self, verdict: Verdict, held: _HeldPoll, now: float) -> Answer | None:
        if verdict is Verdict.CONTENT:
            token = joined(held.poll.names, [entry.token for entry in held.entries])
            if held.poll.stepped and held.subscription and held.subscription.has_refused(token, now):
                return None
            return Answer(200, token, [entry.resources for entry in held.entries if entry.resources])
        answers = {Verdict.NOTHING: NO_RESOURCES, Verdict.UNCHANGED: _UNCHANGED, Verdict.UNAVAILABLE: UNAVAILABLE}
        return answers.get(verdict)

    def _ask_anew(self, held: _HeldPoll) -> None:
        """Have the registry say what is newest, where a poll brings another database's token."""
        poll = held.poll
        if not all(entry.token for entry in held.entries):
            return
        ours = joined(poll.names, [entry.token for entry in held.entries])
        if ours and compare(poll.brought, ours, stepped=poll.stepped) is not Relation.FOREIGN:
            return
        for entry, before in zip(held.entries, poll.confirmations, strict=True):
            if entry.confirmations == before and not entry.ask_anew:
                entry.ask_anew = True
                self._askers.of(entry).wake()

    def _end(self, held: _HeldPoll, answer: Answer) -> None:
        self._drop(held)
        self.answer(answer, held.subscription, held.respond)

    def _drop(self, held: _HeldPoll) -> None:
        if held.timer is not None:
            held.timer.cancel()
        for entry in held.entries:
            polls = self._held.get(entry.key)
            if polls is not None:
                polls.pop(held, None)
                if not polls:
                    del self._held[entry.key]
