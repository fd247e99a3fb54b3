"""Fencing: which incarnations of an instance may still register, drain and deregister an endpoint.

The incarnation is a fencing token (Kleppmann, Designing Data-Intensive Applications, chapter 8): each start of a
registrar has a greater one, so that a request of an old process, however late, changes nothing.
"""

from registry.core.endpoint import Endpoint, Key
from registry.core.event import calendar_time
from registry.errors import FencedError, InadmissibleError
from wire.address import format_endpoint
from wire.model import Registration

_MAX_AHEAD = 86_400.0
"""Seconds by which a new incarnation, taken as milliseconds since 1970, may be ahead of PostgreSQL's clock."""


class Fences:
    """The incarnations that a transaction refuses.

    Args:
        now: the database's time.
    """

    def __init__(self, now: float) -> None:
        self._now = now
        self._tombstones: dict[tuple[Key, str], int] = {}
        """By key and instance: the greatest incarnation that may not register there again. Written by add()."""

    def add(self, row: Endpoint) -> None:
        """Fence the incarnation of an endpoint that is not listed any more."""
        key = (row.key, row.registration.instance_id)
        # An instance that merely lapsed may come back, but none of its older incarnations.
        fenced_incarnation = row.registration.incarnation if has_left(row) else row.registration.incarnation - 1
        self._tombstones[key] = max(self._tombstones.get(key, 0), fenced_incarnation)

    def check_registration(self, key: Key, registration: Registration, listed: Endpoint | None) -> None:
        """Refuse a registration by an incarnation that has left, or that a newer one has replaced.

        Args:
            key: service, address and port.
            registration: the registration.
            listed: the endpoint that is listed there; None: none is.

        Raises:
            FencedError: a newer incarnation is known, this one has left, or another instance took over.
            InadmissibleError: the incarnation is too far in the future.
        """
        newest = self._tombstones.get((key, registration.instance_id), 0)
        owner = registration.instance_id
        if listed is not None:
            current = listed.registration
            owner = current.instance_id
            if owner == registration.instance_id:
                left = listed.leaving_at is not None
                newest = max(newest, current.incarnation if left else current.incarnation - 1)
        if registration.incarnation > newest:
            self._refuse_future(registration.incarnation, newest + 1, "$.incarnation")
            return
        name = format_endpoint(*key[1:])
        owned_incarnation = listed.registration.incarnation if listed is not None else newest
        if owner != registration.instance_id:
            message = f"{name} of {key[0]} was taken over by instance {owner}"
        elif newest < owned_incarnation:
            message = f"incarnation {owned_incarnation} of {registration.instance_id} owns {name} of {key[0]}"
        else:
            message = f"incarnation {newest} of {registration.instance_id} has left {name} of {key[0]} for good"
        raise FencedError(message, owner, max(newest, owned_incarnation))

    def check_departure(self, listed: Endpoint, instance_id: str | None, incarnation: int | None) -> None:
        """Refuse a drain or a deregistration by an instance or incarnation that does not own the endpoint.

        Args:
            listed: the endpoint.
            instance_id: the instance that asks; None: whichever owns it.
            incarnation: its incarnation; None: whichever it is.

        Raises:
            FencedError: another instance owns it, or a newer incarnation.
            InadmissibleError: the incarnation is too far in the future.
        """
        owner = listed.registration
        other_instance = instance_id is not None and instance_id != owner.instance_id
        if other_instance or (incarnation is not None and incarnation < owner.incarnation):
            message = f"incarnation {owner.incarnation} of {owner.instance_id} owns {listed.name}"
            raise FencedError(message, owner.instance_id, owner.incarnation)
        if incarnation is not None:
            self._refuse_future(incarnation, owner.incarnation, "query:incarnation")

    def _refuse_future(self, incarnation: int, stored: int, pointer: str) -> None:
        """Refuse an incarnation in the far future, which would fence all later starts of the instance for years.

        It is compared with PostgreSQL's clock, which is the same for all processes. The stored incarnation is never
        refused, nor is the next one, so that an instance can follow one that was stored before this rule existed.
        """
        latest = int((self._now + _MAX_AHEAD) * 1000)
        if incarnation > max(latest, stored + 1):
            raise InadmissibleError(
                f"incarnation {incarnation} is {calendar_time(incarnation / 1000)} in milliseconds since 1970, and "
                f"PostgreSQL's clock says {calendar_time(self._now)}; at most a day ahead of it is allowed. Send the "
                "time of the start, as the registrar does, or any number that grows from 1; if a clock is wrong, set "
                "it",
                pointer,
                "incarnation",
            )


def has_left(row: Endpoint) -> bool:
    """Return whether the incarnation of an endpoint has left on purpose, and did not merely lapse."""
    return row.leaving_at is not None or row.registration.draining
