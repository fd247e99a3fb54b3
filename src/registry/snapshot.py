"""The immutable endpoints of one service at one version."""

from collections import Counter
from collections.abc import Iterable, Mapping

from registry.endpoint import Endpoint, Quarantined

Place = tuple[str, int]
"""Address and port: an endpoint's key within its service."""


class Snapshot:
    """The listed endpoints of one service, with the answers that were encoded from them.

    ``version`` grows with each change that Envoy can see, ``change`` with each change at all; both grow in the
    database, so that equal numbers mean equal content in every process. Version 0 means that the service never
    had an endpoint. ``since`` is when this process learnt of the version, in its monotonic time.
    """

    __slots__ = ("_counts", "change", "encoded", "endpoints", "quarantined", "service", "since", "version")

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
        self.change = change
        self.endpoints: Mapping[Place, Endpoint] = {} if endpoints is None else endpoints
        self.quarantined: Mapping[Place, Quarantined] = {} if quarantined is None else quarantined
        # Filled by the encoders at the first request for each form; a snapshot is never changed otherwise.
        self.encoded: dict[str, bytes] = {}
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
        advanced.since = self.since
        if step.version == self.version and not step.whole:
            # Nothing that Envoy can see changed, so the answers to Envoys stand.
            advanced.encoded = {form: body for form, body in self.encoded.items() if form.startswith("eds")}
        return advanced


class Step:
    """What became of a service between two changes.

    ``whole`` says that ``listed`` is everything, because the rows in between are gone.
    """

    __slots__ = ("change", "listed", "quarantined", "removed", "service", "version", "whole")

    def __init__(
        self,
        service: str,
        version: int,
        change: int,
        *,
        listed: Iterable[Endpoint] = (),
        removed: Iterable[tuple[Place, int]] = (),
        quarantined: Iterable[Quarantined] = (),
        whole: bool = False,
    ) -> None:
        self.service = service
        self.version = version
        self.change = change
        self.listed = list(listed)
        self.removed = list(removed)
        self.quarantined = list(quarantined)
        self.whole = whole


def _identity(endpoint: Endpoint) -> int:
    return endpoint.id
