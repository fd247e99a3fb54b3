"""How many endpoints of a service had which status over time, made of its history."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct

from registry.core.history import EventFilter, RecordedEvent
from registry.process import RegistryProcess
from registry.store.history import find_events, latest_events_at
from wire.model import Health

_MOST_EVENTS = 2000


class Counts(Struct, frozen=True):
    """Steps: from ``at[i]`` on there were ``statuses[s][i]`` endpoints of status ``s``; times in seconds since 1970."""

    at: list[float]
    statuses: dict[str, list[int]]


async def counts_of(process: RegistryProcess, service: str, since: float, until: float) -> Counts:
    """Return the counts of a service over a time, or over the last part of it when more happened than is read.

    Raises:
        UnavailableError: PostgreSQL, which has the history, is away.
    """
    wanted = EventFilter(service=service, since=since, limit=_MOST_EVENTS)
    async with process.history_turns:
        events = await find_events(process.database, wanted)
        if len(events) == _MOST_EVENTS:
            since = events[-1].at
        standing = await latest_events_at(process.database, service, since)
    return await asyncio.to_thread(
        stepped, standing, [event for event in reversed(events) if event.at > since], since, until
    )


def stepped(standing: Iterable[RecordedEvent], events: Sequence[RecordedEvent], since: float, until: float) -> Counts:
    """Return the counts between two times.

    Args:
        standing: for each endpoint that was listed at ``since`` the event that made it what it was.
        events: what happened after that, the oldest first.
        since: where the steps begin.
        until: where they end.
    """
    status = {(one.address, one.port): one.status for one in standing if one.address is not None}
    counts = Counter(status.values())
    steps = [(since, dict(counts))]
    for event in events:
        if event.address is None:
            continue
        place = (event.address, event.port)
        before = status.pop(place, None)
        if before is not None:
            counts[before] -= 1
        if event.status != "REMOVED":
            status[place] = event.status
            counts[event.status] += 1
        if event.at == steps[-1][0]:
            steps.pop()
        steps.append((event.at, dict(counts)))
    steps.append((max(until, steps[-1][0]), dict(counts)))
    statuses = {health.value: [step.get(health.value, 0) for _, step in steps] for health in Health}
    return Counts([at for at, _ in steps], statuses)
