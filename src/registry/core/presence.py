"""How many endpoints a service should have, how many it has, and the lost ones, which stay listed for people.

An endpoint is lost when its lease lapses although nothing had taken it out on purpose: no drain, no deregistration.
Envoys drop it within seconds, and the list of a service would look whole again without it. So its row says that it is
lost (``Endpoint.lost_at``), until its place is filled, an operator acknowledges the loss, or a day has passed. The
transaction that lets it lapse writes that, and nothing is derived from the history, which may be cut.

A place is filled by an endpoint that the service gains: at the same address, of the same instance, or else any, and the
oldest loss first. A replacement often registers while the guard still keeps its predecessor. Such an endpoint is spare
(``Endpoint.spare_since``), and fills the place in the moment of the loss.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import inf
from typing import Literal

from msgspec import Struct

from registry.core.ecs_services import EcsService, endpoints_per_task
from registry.core.endpoint import Endpoint
from wire.duration import format_duration

MAX_LOST_AGE = 86_400.0
"""Seconds for which a lost endpoint stays listed for people."""
MAX_LOST = 10_000
"""Lost endpoints of one service that are kept; endpoints that are lost beyond it are in the history alone."""
MAX_SHOWN = 100
"""Lost endpoints of one service that people are shown, the newest; the others are counted."""

Source = Literal["operator", "registration", "ecs", "observed"]
"""Where an expected number comes from; ``ecs``: from the desired counts of its ECS services; ``observed``: from what is
listed and what was lost."""


class Tally(Struct, frozen=True, gc=False):
    """The listed endpoints of a service in numbers.

    Attributes:
        present: those whose lease is good and that nothing takes out of rotation; healthy or not.
        staying: the same with the silent ones, which the guard or a pause keeps.
        registered: the expected number that the newest registration among these names; None: none names one.
        per_task: how many endpoints a task has, by ECS service; None: some endpoint is of no ECS service.
    """

    present: int
    staying: int
    registered: int | None
    per_task: Mapping[EcsService, int] | None


class Presence(Struct, frozen=True):
    """The expected number of endpoints of a service beside those that are present.

    Attributes:
        present: the endpoints whose lease is good and that nothing takes out of rotation.
        expected: how many there should be.
        source: where that number comes from.
        lost: the lost endpoints, the newest loss first.
    """

    present: int
    expected: int
    source: Source
    lost: Sequence[Endpoint]

    @property
    def missing(self) -> int:
        """How many endpoints are missing."""
        return max(0, self.expected - self.present)


def is_staying(endpoint: Endpoint) -> bool:
    """Return whether a listed endpoint counts for the strength: it has not lapsed and is not on its way out."""
    return endpoint.lapsed_at is None and not endpoint.draining


def tally(endpoints: Iterable[Endpoint]) -> Tally:
    """Return the listed endpoints of a service in numbers."""
    staying = [endpoint for endpoint in endpoints if is_staying(endpoint)]
    present = sum(endpoint.suspect_since is None for endpoint in staying)
    return Tally(present, len(staying), _registered(staying), endpoints_per_task(staying))


def presence_of(
    listed: Tally, lost: Collection[Endpoint], operator: int | None, now: float, desired: Mapping[EcsService, int]
) -> Presence:
    """Return the expected number of endpoints of a service beside those that are present.

    Args:
        listed: the listed endpoints in numbers.
        lost: rows of lost endpoints; those that are too old are left out.
        operator: the number that an operator has set; None: none.
        now: the database's time.
        desired: the desired counts of ECS services, as far as they are known.
    """
    recent = sorted(
        (endpoint for endpoint in lost if is_lost(endpoint, now)),
        key=lambda endpoint: (endpoint.lost_at or 0.0, endpoint.id),
        reverse=True,
    )
    if operator is not None:
        return Presence(listed.present, operator, "operator", recent)
    # When everything was lost, the number is known by what the lost endpoints had registered.
    registered = listed.registered if listed.staying else _registered(recent)
    if registered is not None:
        return Presence(listed.present, registered, "registration", recent)
    ordered = _ordered_of_ecs(named_ecs_services(listed, recent), desired)
    if ordered is not None:
        return Presence(listed.present, ordered, "ecs", recent)
    return Presence(listed.present, listed.staying + len(recent), "observed", recent)


def named_ecs_services(listed: Tally, lost: Collection[Endpoint]) -> Mapping[EcsService, int]:
    """Return the ECS services that all endpoints of a service are of, with the endpoints of a task of each.

    Empty: there are none, or an endpoint, listed or lost, is of no ECS service, so that ECS does not know the whole.

    Args:
        listed: the listed endpoints in numbers.
        lost: the lost endpoints, also of an ECS service that has no other ones, which is missed as a whole.
    """
    of_lost = endpoints_per_task(lost)
    return {} if listed.per_task is None or of_lost is None else {**of_lost, **listed.per_task}


def _ordered_of_ecs(per_task: Mapping[EcsService, int], desired: Mapping[EcsService, int]) -> int | None:
    if not per_task or not all(service in desired for service in per_task):
        return None
    return sum(desired[service] * endpoints for service, endpoints in per_task.items())


def is_lost(endpoint: Endpoint, now: float) -> bool:
    """Return whether a row is of a lost endpoint that is still to be listed."""
    return endpoint.lost_at is not None and now < endpoint.lost_at + MAX_LOST_AGE


def unchanged_between(lost: Iterable[Endpoint], now: float) -> tuple[float, float]:
    """Return from when and until when the lost endpoints of some rows are the same as now.

    The database's clock may be set back: before the first of these times a row is listed that is not now.
    """
    ends = [endpoint.lost_at + MAX_LOST_AGE for endpoint in lost if endpoint.lost_at is not None]
    return max((end for end in ends if end <= now), default=-inf), min((end for end in ends if end > now), default=inf)


def loss_in_words(endpoint: Endpoint, now: float) -> str:
    """Return the loss of an endpoint as one line for people; empty: it is not lost."""
    if endpoint.lost_at is None:
        return ""
    gone = format_duration(max(0, round(now - endpoint.lost_at)))
    return f"gone {gone} ago, was {endpoint.registration.health.value}, {endpoint.lost_reason}"


def pair(
    entered: Sequence[Endpoint], lost: Collection[Endpoint], now: float
) -> tuple[list[tuple[int, Endpoint]], list[int]]:
    """Return which lost endpoints' places are filled by endpoints that a service has gained.

    Args:
        entered: the new endpoints, in the order in which they came.
        lost: the lost endpoints of the service.
        now: the database's time.

    Returns:
        pairs of a position in ``entered`` and the lost endpoint whose place it fills, and the positions that fill none.
    """
    left = {endpoint.id: endpoint for endpoint in lost if is_lost(endpoint, now)}
    waiting = dict(enumerate(entered))
    filled: list[tuple[int, Endpoint]] = []
    # Its own return explains a loss better than that of anything else, so all of those are looked for first.
    for returns in (_same_address, _same_instance, _any):
        for position, new in list(waiting.items()):
            choice = _oldest(returns, new, left.values())
            if choice is not None:
                filled.append((position, left.pop(choice.id)))
                del waiting[position]
    return filled, list(waiting)


def spare_for(lapsing: Endpoint, last_heard: float, listed: Iterable[Endpoint]) -> Endpoint | None:
    """Return the endpoint that has filled the place of one that lapses now; None: it is lost.

    Args:
        lapsing: the endpoint whose lease lapses.
        last_heard: when its last heartbeat came; a replacement is newer than that.
        listed: the endpoints of its service.
    """
    spare = [
        endpoint
        for endpoint in listed
        if endpoint.spare_since is not None
        and endpoint.spare_since > last_heard
        and endpoint.id != lapsing.id
        and endpoint.suspect_since is None
        and is_staying(endpoint)
    ]
    return min(spare, key=lambda endpoint: (endpoint.spare_since or 0.0, endpoint.id), default=None)


def _registered(endpoints: Iterable[Endpoint]) -> int | None:
    said = [endpoint for endpoint in endpoints if endpoint.registration.expected is not None]
    newest = max(said, key=lambda endpoint: (endpoint.registered_at, endpoint.id), default=None)
    return None if newest is None else newest.registration.expected


def _oldest(returns: Callable[[Endpoint, Endpoint], bool], new: Endpoint, lost: Iterable[Endpoint]) -> Endpoint | None:
    fitting = (endpoint for endpoint in lost if returns(new, endpoint))
    return min(fitting, key=lambda endpoint: (endpoint.lost_at or 0.0, endpoint.id), default=None)


def _same_address(new: Endpoint, lost: Endpoint) -> bool:
    return new.key == lost.key


def _same_instance(new: Endpoint, lost: Endpoint) -> bool:
    return new.registration.instance_id == lost.registration.instance_id


def _any(_new: Endpoint, _lost: Endpoint) -> bool:
    return True
