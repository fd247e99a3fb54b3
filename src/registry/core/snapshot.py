"""The immutable endpoints of one service at one version."""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from registry.cooperative import at_once
from registry.core.ecs_services import EcsService
from registry.core.endpoint import ROUTABLE, Endpoint, Quarantined
from registry.core.endpoint_table import AddressPort, EndpointTable
from registry.core.presence import Presence, Tally, is_lost, named_ecs_services, presence_of, tally
from registry.core.shares import Group, ShareCensus, Shares, census_of, share_table
from registry.core.silence import SILENT, is_silent

_ROWS_A_TURN = 100
"""Rows that are taken over before other work of the process may have its turn: 0.2 to 0.3 ms."""
_MAX_MADE = 16
"""Versions whose time is remembered. An Envoy that is further behind is not measured."""


class Snapshot:
    """The listed endpoints of one service, with the answers that were encoded from them.

    Attributes:
        version: grows with each change that Envoy can see. It grows in the database, so that equal versions mean equal
            content in every process; 0 means that the service never had an endpoint, or was forgotten.
        change: grows in the same way with every change.
        since: when this process read the version (monotonic). Written by `SnapshotCache.apply`.
        made: the last versions, and when the first change that each brought was stored, by the database's clock.
        lost: the lost endpoints by their ids, also those that are too old to be shown (``registry.core.presence``).
        expected: how many endpoints an operator expects; None: no operator has set a number.
        expected_by: the operator.
        shares: the shares of traffic of its groups, which the weights of ``endpoints`` follow; None: there are none.
        census: the endpoints of the groups that have shares; None: it is made at the next change.
        encoded: the responses by API version. Written by `registry.xds.eds` at the first request for each; nothing else
            of a snapshot is ever changed.
        former: the last snapshot before that was encoded, from which bytes are copied; None once this one is encoded.
        streamed: its encodings for streams, by variant. Written by `registry.xds.grpc.assignment` in the same way.
        streamed_before: the last encodings of each variant that this snapshot has none of yet.
        unasked: by API version or variant, how many versions have passed since a client asked for this encoding. Set to
            0 by `registry.xds` when one does, and carried on with each version.
    """

    __slots__ = (
        "_counts",
        "_misplaced",
        "_overridden",
        "_silent",
        "_tally",
        "census",
        "change",
        "encoded",
        "endpoints",
        "expected",
        "expected_by",
        "former",
        "lost",
        "made",
        "quarantined",
        "service",
        "shares",
        "since",
        "streamed",
        "streamed_before",
        "unasked",
        "version",
    )

    def __init__(
        self,
        service: str,
        version: int = 0,
        change: int = 0,
        endpoints: EndpointTable | None = None,
        quarantined: Mapping[AddressPort, Quarantined] | None = None,
    ) -> None:
        self.service = service
        self.version = version
        self.since = 0.0
        self.made: tuple[tuple[int, float], ...] = ()
        self.change = change
        self.endpoints = _NO_ENDPOINTS if endpoints is None else endpoints
        self.quarantined: Mapping[AddressPort, Quarantined] = {} if quarantined is None else quarantined
        self.lost: Mapping[int, Endpoint] = {}
        self.expected: int | None = None
        self.expected_by = ""
        self.shares: Shares | None = None
        self.census: ShareCensus | None = None
        self.encoded: dict[str, Any] = {}
        self.former: Snapshot | None = None
        self.streamed: dict[str, Any] = {}
        self.streamed_before: dict[str, Any] = {}
        self.unasked: dict[str, int] = {}
        self._tally: Tally | None = None
        self._counts: Counter[str] | None = None
        self._silent: Sequence[Endpoint] | None = None
        self._misplaced: Sequence[AddressPort] | None = None
        self._overridden: Sequence[Endpoint] | None = None

    @property
    def counts(self) -> Counter[str]:
        """The number of endpoints of each published status; counted once, and carried on with each delta."""
        if self._counts is None:
            self._counts = Counter(endpoint.status.value for endpoint in self.endpoints.values())
        return self._counts

    @property
    def silent(self) -> Sequence[Endpoint]:
        """The endpoints that are served although their lease expired; searched for once."""
        if self._silent is None:
            self._silent = tuple(endpoint for endpoint in self.endpoints.values() if is_silent(endpoint))
        return self._silent

    @property
    def counts_for_people(self) -> Counter[str]:
        """The number of endpoints of each status as people see it: silent ones count as SILENT alone."""
        if not self.silent:
            return self.counts
        counts = self.counts - Counter(endpoint.status.value for endpoint in self.silent)
        counts[SILENT] = len(self.silent)
        return counts

    @property
    def routable(self) -> int:
        """The number of endpoints to which Envoy may send traffic, silent ones included."""
        return sum(self.counts[status.value] for status in ROUTABLE)

    def presence(self, now: float, desired: Mapping[EcsService, int]) -> Presence:
        """Return the expected number of endpoints beside those that are present.

        Args:
            now: the database's time.
            desired: the desired counts of ECS services, as far as they are known.
        """
        return presence_of(self._numbers(), self.lost.values(), self.expected, now, desired)

    def missed_ecs_services(self, now: float) -> Iterable[EcsService]:
        """Return the ECS services whose desired counts are to be known, because nobody has set an expected number."""
        numbers = self._numbers()
        if self.expected is not None or numbers.registered is not None:
            return ()
        return named_ecs_services(numbers, [endpoint for endpoint in self.lost.values() if is_lost(endpoint, now)])

    def _numbers(self) -> Tally:
        if self._tally is None:
            self._tally = tally(self.endpoints.values())
        return self._tally

    @property
    def groups(self) -> Sequence[Group]:
        """The groups that have shares of the traffic, with the rest as the last one; none without shares."""
        return () if self.shares is None else self.census_of_shares(self.shares).served

    def census_of_shares(self, shares: Shares) -> ShareCensus:
        """Return the census of its endpoints under its shares, as it carried it on or made anew."""
        return self.census or census_of(self.endpoints.values(), shares.groups)

    @property
    def overridden(self) -> Sequence[Endpoint]:
        """The endpoints under an operator's override, in their order; looked for once."""
        if self._overridden is None:
            overridden = (endpoint for endpoint in self.endpoints.values() if endpoint.override is not None)
            self._overridden = sorted(overridden, key=_identity)
        return self._overridden

    def misplaced(self, allows: Callable[[str], bool]) -> Sequence[AddressPort]:
        """Return the endpoints whose address is not allowed any more; computed once."""
        if self._misplaced is None:
            self._misplaced = tuple(address_port for address_port in self.endpoints if not allows(address_port[0]))
        return self._misplaced

    def ordered(self) -> list[Endpoint]:
        """Return the endpoints in the order that all processes agree on."""
        return sorted(self.endpoints.values(), key=_identity)

    def advance(self, delta: "SnapshotDelta") -> "Snapshot":
        """Return the snapshot after a delta.

        A delta that is not newer changes nothing: notifications overtake one another.
        """
        return at_once(self.advance_in_turns(delta))

    def advance_in_turns(self, delta: "SnapshotDelta") -> "Generator[None, None, Snapshot]":
        """Return the snapshot after a delta, and yield where other work may have its turn."""
        if delta.change <= self.change:
            return self
        begun = Snapshot(self.service) if delta.whole else self
        draft = _Draft(begun)
        draft.same_ids = not delta.whole
        for number, (address_port, endpoint_id) in enumerate(delta.removed, start=1):
            draft.remove(address_port, endpoint_id)
            if number % _ROWS_A_TURN == 0:
                yield
        for row in delta.quarantined:
            draft.quarantine(row)
        for number, endpoint in enumerate(delta.listed, start=1):
            draft.put(endpoint)
            if number % _ROWS_A_TURN == 0:
                yield
        census = None
        if delta.shares is not None or begun.shares is not None:
            census = yield from draft.share(delta.shares, begun)
        advanced = Snapshot(self.service, delta.version, delta.change, draft.endpoints, draft.quarantined)
        advanced.since, advanced.made = self.since, self._made_until(delta)
        advanced.lost = self._lost_after(delta)
        advanced.expected, advanced.expected_by = delta.expected, delta.expected_by
        advanced.shares, advanced.census = delta.shares, census
        advanced._counts = +draft.counts
        if delta.version == self.version and draft.same_ids:
            # Nothing that Envoy can see changed, so the encoded responses stand.
            advanced.encoded, advanced.former = self.encoded, self.former
            advanced.streamed, advanced.streamed_before = self.streamed, self.streamed_before
            advanced.unasked = self.unasked
        else:
            advanced.unasked = {encoding: number + 1 for encoding, number in self.unasked.items()}
            advanced.former = self if self.encoded else self.former
            advanced.streamed_before = self.streamed_before | self.streamed
        return advanced

    def _lost_after(self, delta: "SnapshotDelta") -> Mapping[int, Endpoint]:
        before = {} if delta.whole else self.lost
        lost = {endpoint.id: endpoint for endpoint in delta.lost}
        if not before:
            return lost or before
        named = {endpoint.id for endpoint in delta.listed}.union(endpoint_id for _, endpoint_id in delta.removed)
        return {number: endpoint for number, endpoint in before.items() if number not in named} | lost

    def made_after(self, version: int) -> float | None:
        """Return when the oldest change was stored that a holder of ``version`` lacks; None if it is not known."""
        return next((at for made, at in self.made if made > version), None)

    def _made_until(self, delta: "SnapshotDelta") -> tuple[tuple[int, float], ...]:
        if delta.version == self.version:
            return self.made
        if delta.made_at is None:
            return ()
        return (*self.made[-_MAX_MADE + 1 :], (delta.version, delta.made_at))


class _Draft:
    """A copy of a snapshot's endpoints, to which a delta is applied."""

    __slots__ = ("come", "counts", "endpoints", "gone", "quarantined", "same_ids")

    def __init__(self, begun: Snapshot) -> None:
        self.endpoints = begun.endpoints.copy()
        self.quarantined = dict(begun.quarantined)
        self.counts = begun.counts.copy()
        """The number of endpoints of each status."""
        self.same_ids = True
        """Whether the endpoints are the same ones as before, in whatever state."""
        self.gone: list[Endpoint] = []
        """The endpoints that were removed or replaced."""
        self.come: list[Endpoint] = []
        """The endpoints that were put."""

    def remove(self, address_port: AddressPort, endpoint_id: int) -> None:
        """Remove an endpoint, unless the address belongs to its next owner already."""
        for rows in (self.endpoints, self.quarantined):
            if address_port in rows and rows[address_port].id == endpoint_id:
                self._clear(address_port)

    def quarantine(self, row: Quarantined) -> None:
        """Keep a row that cannot be read out of the list."""
        address_port = (row.address, row.port)
        self._clear(address_port)
        self.quarantined[address_port] = row

    def put(self, endpoint: Endpoint) -> None:
        """List an endpoint at its address."""
        address_port = (endpoint.address, endpoint.port)
        before = self.endpoints.get(address_port)
        if before is None or before.id != endpoint.id:
            self._clear(address_port)
            self.same_ids = False
        else:
            self.gone.append(before)
            self._count(before, -1)
        self.endpoints.put(endpoint)
        self.come.append(endpoint)
        self._count(endpoint, 1)

    def share(self, shares: Shares | None, begun: Snapshot) -> Generator[None, None, ShareCensus | None]:
        """Give the endpoints their weights under shares, and return the census."""
        groups = () if shares is None else shares.groups
        census_before = begun.census
        if census_before is not None and not census_before.has_selectors_of(groups):
            census_before = None
        return (yield from share_table(self.endpoints, groups, self._count, census_before, self.gone, self.come))

    def _clear(self, address_port: AddressPort) -> None:
        self.quarantined.pop(address_port, None)
        before = self.endpoints.remove(address_port)
        if before is not None:
            self.gone.append(before)
            self._count(before, -1)
            self.same_ids = False

    def _count(self, endpoint: Endpoint, number: int) -> None:
        self.counts[endpoint.status.value] += number


class SnapshotDelta:
    """The difference between two changes of a service.

    ``whole`` says that ``listed`` is everything, because the rows in between are gone. ``made_at`` is when the first of
    these changes was stored, by the database's clock; None where that is not known. ``lost`` has the rows among those
    of ``listed`` and ``removed`` that are lost. ``expected`` is an operator's number, with its setter. ``shares`` are
    those in force after the change.
    """

    __slots__ = (
        "change",
        "expected",
        "expected_by",
        "listed",
        "lost",
        "made_at",
        "quarantined",
        "removed",
        "service",
        "shares",
        "version",
        "whole",
    )

    def __init__(  # noqa: PLR0913  # one argument a field
        self,
        service: str,
        version: int,
        change: int,
        *,
        listed: Iterable[Endpoint] = (),
        removed: Iterable[tuple[AddressPort, int]] = (),
        quarantined: Iterable[Quarantined] = (),
        lost: Iterable[Endpoint] = (),
        whole: bool = False,
        made_at: float | None = None,
        expected: int | None = None,
        expected_by: str = "",
        shares: Shares | None = None,
    ) -> None:
        self.service = service
        self.version = version
        self.change = change
        self.listed = list(listed)
        self.removed = list(removed)
        self.quarantined = list(quarantined)
        self.lost = list(lost)
        self.whole = whole
        self.made_at = made_at
        self.expected = expected
        self.expected_by = expected_by
        self.shares = shares


_NO_ENDPOINTS = EndpointTable()
_identity = attrgetter("id")
