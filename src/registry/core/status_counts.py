"""How many endpoints of a service had which status over time, made of its history."""

from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct

from registry.core.history import RecordedEvent
from registry.core.silence import STATUSES_FOR_PEOPLE


class StatusCounts(Struct, frozen=True):
    """Steps: from ``at[i]`` on there were ``statuses[s][i]`` endpoints of status ``s``; times in seconds since 1970."""

    at: list[float]
    statuses: dict[str, list[int]]


def status_counts(
    standing: Iterable[RecordedEvent], events: Sequence[RecordedEvent], since: float, until: float
) -> StatusCounts:
    """Return the counts between two times.

    Args:
        standing: for each endpoint that was listed at ``since`` the event that made it what it was.
        events: what happened after that, the oldest first.
        since: where the steps begin.
        until: where they end.
    """
    status = {(event.address, event.port): event.status for event in standing if event.address is not None}
    counts = Counter(status.values())
    steps = [(since, dict(counts))]
    for event in events:
        # An errand is asked of an endpoint's registrar, and says nothing of the endpoint.
        if event.address is None or not event.status:
            continue
        address_port = (event.address, event.port)
        before = status.pop(address_port, None)
        if before is not None:
            counts[before] -= 1
        if event.status != "REMOVED":
            status[address_port] = event.status
            counts[event.status] += 1
        if event.at == steps[-1][0]:
            steps.pop()
        steps.append((event.at, dict(counts)))
    steps.append((max(until, steps[-1][0]), dict(counts)))
    statuses: dict[str, list[int]] = {name: [step.get(name, 0) for _, step in steps] for name in STATUSES_FOR_PEOPLE}
    return StatusCounts([at for at, _ in steps], statuses)
