"""The immutable endpoints of one service at one version."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from registry.core.endpoint import Endpoint, Quarantined

_MOST_MADE = 16
"""Versions of which it is remembered when they were made: an Envoy that is further behind has other troubles."""

AddressPort = tuple[str, int]
"""Address and port: an endpoint's key within its service."""


class Snapshot:
    """The listed endpoints of one service, with the answers that were encoded from them.

    ``version`` grows with each change that Envoy can see, ``change`` with each change at all; both grow in the
    database, so that equal numbers mean equal content in every process. Version 0 means that the service never
    had an endpoint, or was forgotten. ``since`` is when this process learnt of the version, in its monotonic time;
    ``made`` has the last versions, and when the database was told what made each.

    ``encoded`` is filled by the encoders, at the first request for each API; a snapshot is never changed otherwise.
    ``former`` is the last one before that was encoded, until this one is: what did not change is copied from there.
    """

    __slots__ = (
        "_counts",
        "_misplaced",
        "_suspects",
        "change",
        "encoded",
        "endpoints",
        "former",
        "made",
        "quarantined",
        "service",
        "since",
        "version",
    )

    def __init__(
        self,
        service: str,
        version: int = 0,
        change: int = 0,
        endpoints: Mapping[AddressPort, Endpoint] | None = None,
        quarantined: Mapping[AddressPort, Quarantined] | None = None,
    ) -> None:
        self.service = service
        self.version = version
        self.since = 0.0
        self.made: tuple[tuple[int, float], ...] = ()
        self.change = change
        self.endpoints: Mapping[AddressPort, Endpoint] = {} if endpoints is None else endpoints
        self.quarantined: Mapping[AddressPort, Quarantined] = {} if quarantined is None else quarantined
        self.encoded: dict[str, Any] = {}
        self.former: Snapshot | None = None
        self._counts: Counter[str] | None = None
        self._suspects: int | None = None
        self._misplaced: Sequence[AddressPort] | None = None

    @property
    def counts(self) -> Counter[str]:
        """How many endpoints have each status; counted once, and carried on from there."""
        if self._counts is None:
            self._counts = Counter(endpoint.status.value for endpoint in self.endpoints.values())
        return self._counts

    @property
    def suspects(self) -> int:
        """How many endpoints are served although their lease expired; counted once."""
        if self._suspects is None:
            self._suspects = sum(endpoint.suspect_since is not None for endpoint in self.endpoints.values())
        return self._suspects

    def misplaced(self, allows: Callable[[str], bool]) -> Sequence[AddressPort]:
        """Return the endpoints whose address is not allowed any more; looked for once."""
        if self._misplaced is None:
            self._misplaced = tuple(place for place in self.endpoints if not allows(place[0]))
        return self._misplaced

    def ordered(self) -> list[Endpoint]:
        """Return the endpoints in the order that all processes agree on."""
        return sorted(self.endpoints.values(), key=_identity)

    def advance(self, step: "SnapshotDelta") -> "Snapshot":
        """Return the snapshot after ``step``.

        A step that is not newer changes nothing: notifications overtake one another.
        """
        if step.change <= self.change:
            return self
        draft = _Draft(Snapshot(self.service) if step.whole else self)
        draft.same_ids = not step.whole
        for place, endpoint_id in step.removed:
            draft.drop(place, endpoint_id)
        for spoilt in step.quarantined:
            draft.spoil(spoilt)
        for endpoint in step.listed:
            draft.put(endpoint)
        advanced = Snapshot(self.service, step.version, step.change, draft.endpoints, draft.quarantined)
        advanced.since, advanced.made = self.since, self._made_until(step)
        advanced._counts = +draft.counts
        if step.version == self.version and draft.same_ids:
            # Nothing that Envoy can see changed, so the answers to Envoys stand.
            advanced.encoded, advanced.former = self.encoded, self.former
        else:
            advanced.former = self if self.encoded else self.former
        return advanced

    def made_after(self, version: int) -> float | None:
        """Return when the oldest change was made that who holds ``version`` lacks; None if that is not known."""
        return next((at for made, at in self.made if made > version), None)

    def _made_until(self, step: "SnapshotDelta") -> tuple[tuple[int, float], ...]:
        if step.version == self.version:
            return self.made
        if step.made_at is None:
            return ()
        return (*self.made[-_MOST_MADE + 1 :], (step.version, step.made_at))


class _Draft:
    """A copy of a snapshot's endpoints that a step is being worked into."""

    __slots__ = ("counts", "endpoints", "quarantined", "same_ids")

    def __init__(self, begun: Snapshot) -> None:
        self.endpoints = dict(begun.endpoints)
        self.quarantined = dict(begun.quarantined)
        self.counts = begun.counts.copy()
        self.same_ids = True
        """Whether the endpoints are the ones that were there, in whatever state."""

    def drop(self, place: AddressPort, endpoint_id: int) -> None:
        """Take an endpoint out, unless the address belongs to its next owner already."""
        for known in (self.endpoints, self.quarantined):
            if place in known and known[place].id == endpoint_id:
                self._clear(place)

    def spoil(self, spoilt: Quarantined) -> None:
        """Keep a row out."""
        place = (spoilt.address, spoilt.port)
        self._clear(place)
        self.quarantined[place] = spoilt

    def put(self, endpoint: Endpoint) -> None:
        """List an endpoint at its address."""
        place = (endpoint.address, endpoint.port)
        before = self.endpoints.get(place)
        if before is None or before.id != endpoint.id:
            self._clear(place)
            self.same_ids = False
        else:
            self.counts[before.status.value] -= 1
        self.endpoints[place] = endpoint
        self.counts[endpoint.status.value] += 1

    def _clear(self, place: AddressPort) -> None:
        self.quarantined.pop(place, None)
        before = self.endpoints.pop(place, None)
        if before is not None:
            self.counts[before.status.value] -= 1
            self.same_ids = False


class SnapshotDelta:
    """What became of a service between two changes.

    ``whole`` says that ``listed`` is everything, because the rows in between are gone. ``made_at`` is when the first of
    what changed did, by the database's clock; None where that cannot be told.
    """

    __slots__ = ("change", "listed", "made_at", "quarantined", "removed", "service", "version", "whole")

    def __init__(  # noqa: PLR0913  # one argument a field
        self,
        service: str,
        version: int,
        change: int,
        *,
        listed: Iterable[Endpoint] = (),
        removed: Iterable[tuple[AddressPort, int]] = (),
        quarantined: Iterable[Quarantined] = (),
        whole: bool = False,
        made_at: float | None = None,
    ) -> None:
        self.service = service
        self.version = version
        self.change = change
        self.listed = list(listed)
        self.removed = list(removed)
        self.quarantined = list(quarantined)
        self.whole = whole
        self.made_at = made_at


_identity = attrgetter("id")
