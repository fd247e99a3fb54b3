"""The immutable endpoints of one service at one version."""

from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec import Struct

from registry.endpoint import Endpoint, Quarantined

_MOST_MADE = 16
"""Versions of which it is remembered when they were made: an Envoy that is further behind has other troubles."""

Place = tuple[str, int]
"""Address and port: an endpoint's key within its service."""


class Encoded(Struct, frozen=True, gc=False):
    """A whole answer in bytes, with the version that it carries and the database whose version that is."""

    database_id: str
    version_info: str
    body: bytes


class Snapshot:
    """The listed endpoints of one service, with the answers that were encoded from them.

    ``version`` grows with each change that Envoy can see, ``change`` with each change at all; both grow in the
    database, so that equal numbers mean equal content in every process. Version 0 means that the service never
    had an endpoint. ``since`` is when this process learnt of the version, in its monotonic time; ``made`` has the
    last versions, and when the database was told what made each.
    """

    __slots__ = ("_counts", "change", "encoded", "endpoints", "made", "quarantined", "service", "since", "version")

    def __init__(
        self,
        service: str,
        version: int = 0,
        change: int = 0,
        endpoints: Mapping[Place, Endpoint] | None = None,
        quarantined: Mapping[Place, Quarantined] | None = None,
    ) -> None:
        self.service = service
        self.version = version
        self.since = 0.0
        self.made: tuple[tuple[int, float], ...] = ()
        self.change = change
        self.endpoints: Mapping[Place, Endpoint] = {} if endpoints is None else endpoints
        self.quarantined: Mapping[Place, Quarantined] = {} if quarantined is None else quarantined
        # Filled by the encoders at the first request for each form; a snapshot is never changed otherwise.
        self.encoded: dict[str, Encoded] = {}
        self._counts: Counter[str] | None = None

    @property
    def counts(self) -> Counter[str]:
        """How many endpoints have each status; counted once."""
        if self._counts is None:
            self._counts = Counter(endpoint.status.value for endpoint in self.endpoints.values())
        return self._counts

    def ordered(self) -> list[Endpoint]:
        """Return the endpoints in the order that all processes agree on."""
        return sorted(self.endpoints.values(), key=_identity)

    def advance(self, step: "Step") -> "Snapshot":
        """Return the snapshot after ``step``.

        A step that is not newer changes nothing: notifications overtake one another.
        """
        if step.change <= self.change:
            return self
        endpoints = {} if step.whole else dict(self.endpoints)
        quarantined = {} if step.whole else dict(self.quarantined)
        for place, endpoint_id in step.removed:
            # The address may already belong to its next owner.
            for known in (endpoints, quarantined):
                if place in known and known[place].id == endpoint_id:
                    del known[place]
        for spoilt in step.quarantined:
            place = (spoilt.address, spoilt.port)
            endpoints.pop(place, None)
            quarantined[place] = spoilt
        for endpoint in step.listed:
            place = (endpoint.address, endpoint.port)
            quarantined.pop(place, None)
            endpoints[place] = endpoint
        advanced = Snapshot(self.service, step.version, step.change, endpoints, quarantined)
        advanced.since, advanced.made = self.since, self._made_until(step)
        if step.version == self.version and not step.whole:
            # Nothing that Envoy can see changed, so the answers to Envoys stand.
            advanced.encoded = self.encoded
        return advanced

    def made_after(self, version: int) -> float | None:
        """Return when the oldest change was made that who holds ``version`` lacks; None if that is not known."""
        return next((at for made, at in self.made if made > version), None)

    def _made_until(self, step: "Step") -> tuple[tuple[int, float], ...]:
        if step.version == self.version:
            return self.made
        if step.made_at is None:
            return ()
        return (*self.made[-_MOST_MADE + 1 :], (step.version, step.made_at))


class Step:
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
        removed: Iterable[tuple[Place, int]] = (),
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


def _identity(endpoint: Endpoint) -> int:
    return endpoint.id
