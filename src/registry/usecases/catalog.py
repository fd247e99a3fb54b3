"""The catalogue of services and endpoints, from memory."""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Mapping
from itertools import islice, takewhile
from operator import attrgetter

from msgspec import Struct

from registry.auth.grants import Reach
from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.ecs_services import EcsService
from registry.core.endpoint import Endpoint, Key, has_metadata
from registry.core.expiry_guard import Pause
from registry.core.lease import Lease, heartbeat_overdue
from registry.core.silence import Silence, status_for_people
from registry.core.snapshot import Snapshot
from registry.errors import UnknownEndpointError, UnknownServiceError
from registry.usecases.silence import Silences
from wire.address import format_endpoint, parse_port


class ListedEndpoint(Struct, frozen=True):
    """An endpoint with its lease, as of the last reading of the leases, and its silence; None: it has none.

    ``overdue`` says that by then half of the lease's time had passed without a heartbeat.
    """

    endpoint: Endpoint
    lease: Lease | None
    overdue: bool = False
    silence: Silence | None = None


class EndpointFilter(Struct, frozen=True):
    """The endpoints of a service that are asked for; None, and no status at all, stand for any.

    Statuses are those that people see, as in the counts of a service.
    """

    statuses: Collection[str] = ()
    region: str | None = None
    zone: str | None = None
    revision: str | None = None
    instance_id: str | None = None
    canary: bool | None = None
    metadata: str | None = None
    """A key, or ``key=value``."""

    def fits(self, endpoint: Endpoint) -> bool:
        """Tell whether an endpoint is one of them."""
        registration = endpoint.registration
        return (
            (not self.statuses or status_for_people(endpoint) in self.statuses)
            and self.canary in (None, endpoint.canary)
            and self.region in (None, registration.region)
            and self.zone in (None, registration.zone)
            and self.revision in (None, registration.revision)
            and self.instance_id in (None, registration.instance_id)
            and (self.metadata is None or has_metadata(registration.metadata, self.metadata))
        )


_EVERY = EndpointFilter()
_identity = attrgetter("id")


class ServicePage(Struct, frozen=True):
    """A part of the services by name.

    Attributes:
        services: those that can be read.
        unavailable: the names of those that this process cannot read.
        following: the name behind which the next page begins; None: no more follow.
    """

    services: list[Snapshot]
    unavailable: list[str]
    following: str | None


class Moment(Struct, frozen=True):
    """The state of the catalogue at one moment, by which documents are checked for being current.

    Attributes:
        database_id: the database whose changes these are.
        advances: the number of changes of any service so far.
        lease_reading: the number of readings of the leases so far.
        pauses: the pauses of expiry, by scope.
        desired_counts: the desired counts of ECS services.
        desired_changes: the number of changes of these so far.
        now: the database's time.
    """

    database_id: str
    advances: int
    lease_reading: int
    pauses: Mapping[str, Pause]
    desired_counts: Mapping[EcsService, int]
    desired_changes: int
    now: float

    def stamp_of(self, snapshot: Snapshot) -> tuple[object, ...]:
        """Return what the numbers of a service depend on, apart from the time; numbers, since each row compares it."""
        return (self.database_id, snapshot.change, self.desired_changes)


class Catalog:
    """Reads the catalogue: all services, one service, and its endpoints.

    Args:
        policy: decides who may read.
        cache: where the snapshots are.
        silences: tells which endpoints are silent.
    """

    def __init__(self, policy: Policy, cache: SnapshotCache, silences: Silences) -> None:
        self._silences = silences
        self._policy = policy
        self._cache = cache

    def services(self, principal: Principal) -> Collection[Snapshot]:
        """Return the snapshots of all services that the principal may read, without those that cannot be read now."""
        covers = self.reach(principal).covers
        return [
            self._cache.get(name) for name in self._cache.names() if name not in self._cache.unsure and covers(name)
        ]

    def unavailable(self, principal: Principal) -> list[str]:
        """Return the names of the services that exist and cannot be read now, of those that the principal may read."""
        return sorted(filter(self.reach(principal).covers, self._cache.unsure))

    def names(self, principal: Principal) -> list[str]:
        """Return the names of all services that the principal may read, in order, those that cannot be read now too."""
        return list(filter(self.reach(principal).covers, self._cache.names()))

    @property
    def ready(self) -> bool:
        """Whether this process knows the registry's state."""
        return self._cache.ready

    def moment(self) -> Moment:
        """Return the state of the catalogue now."""
        cache = self._cache
        return Moment(
            cache.database_id,
            cache.advances,
            cache.lease_reading,
            cache.pauses,
            cache.desired_counts,
            cache.desired_changes,
            cache.clock.now(),
        )

    def is_refused(self, principal: Principal, services: Collection[str]) -> bool:
        """Return whether reading one of some services would be refused or noted; empty names stand for a list."""
        return any(self._policy.refusal(principal, Verb.READ, service) is not None for service in services)

    def reach(self, principal: Principal, services: Collection[str] = ("",)) -> Reach:
        """Return the services that a principal may read, who asks for a list of all services or of some.

        Raises:
            NotAllowedError: it may not read one of those that it names, or none at all.
        """
        for service in services:
            self._policy.allow(principal, Verb.READ, service)
        return self._policy.reach(principal, Verb.READ)

    def page_of_services(self, reach: Reach, prefix: str, after: str, limit: int) -> ServicePage:
        """Return up to ``limit`` services by name, of those that begin with ``prefix`` and come after a name.

        Args:
            reach: the services that the caller may read.
            prefix: the beginning of the names.
            after: the name behind which the page begins; empty: the first page.
            limit: how many at most.
        """
        names = self._cache.names()
        first = max(bisect_left(names, prefix), bisect_right(names, after) if after else 0)
        beginning = takewhile(lambda name: name.startswith(prefix), islice(names, first, None))
        page = list(islice(filter(reach.covers, beginning), limit + 1))
        more, page = len(page) > limit, page[:limit]
        unsure = self._cache.unsure
        return ServicePage(
            [self._cache.get(name) for name in page if name not in unsure],
            [name for name in page if name in unsure],
            page[-1] if more else None,
        )

    def service(self, principal: Principal, service: str) -> Snapshot:
        """Return the snapshot of a service.

        Raises:
            UnknownServiceError: it is not known.
            UnavailableError: this process cannot read it.
        """
        self._policy.allow(principal, Verb.READ, service)
        return self._find(service)

    def endpoint(self, principal: Principal, key: Key) -> ListedEndpoint:
        """Return an endpoint.

        Raises:
            UnknownEndpointError: it is not registered.
            UnavailableError: this process cannot read its service.
        """
        name = format_endpoint(*key[1:])
        self._policy.allow(principal, Verb.READ, key[0], name)
        endpoint = self._cache.find(key)
        if endpoint is None:
            self._cache.check_sure(key[0])
            raise UnknownEndpointError(key[0], name)
        return self._listed(endpoint)

    def page_of_endpoints(
        self, snapshot: Snapshot, wanted: EndpointFilter, *, after: int, limit: int
    ) -> tuple[list[Endpoint], bool]:
        """Return a part of the endpoints of a service that the caller has read, and whether more follow.

        They are in the order of their registration, those on their way out included.

        Args:
            snapshot: the service.
            wanted: which of its endpoints.
            after: the id of the endpoint behind which the page begins.
            limit: how many at most.
        """
        ordered = snapshot.ordered()
        rest = ordered[bisect_right(ordered, after, key=_identity) :] if after else ordered
        page = rest[: limit + 1] if wanted == _EVERY else list(islice(filter(wanted.fits, rest), limit + 1))
        return page[:limit], len(page) > limit

    def with_leases(self, endpoints: Collection[Endpoint]) -> list[ListedEndpoint]:
        """Return endpoints that the caller has read already with their leases and silences."""
        return [self._listed(endpoint) for endpoint in endpoints]

    def named(self, reach: Reach, services: Collection[str] | None) -> list[Snapshot]:
        """Return services by name.

        Args:
            reach: the services that the caller may read.
            services: of these services; None stands for all.

        Raises:
            UnavailableError: this process cannot read one of them; without it a reader would take it for gone.
        """
        names = self._cache.names() if services is None else sorted(set(services))
        return [self._cache.get(name) for name in names if reach.covers(name) and self._cache.knows(name)]

    def _find(self, service: str) -> Snapshot:
        if not self._cache.knows(service):
            raise UnknownServiceError(service)
        return self._cache.get(service)

    def _listed(self, endpoint: Endpoint) -> ListedEndpoint:
        lease = self._cache.leases.get(endpoint.id)
        overdue = lease is not None and heartbeat_overdue(lease, self._cache.leases_read_at)
        return ListedEndpoint(endpoint, lease, overdue, self._silences.with_lease(endpoint, lease))


def scrape_targets(snapshot: Snapshot, port: str | None) -> Iterator[tuple[Endpoint, str]]:
    """Yield the endpoints of a service, unhealthy ones too, each with the ``address:port`` to scrape.

    Args:
        snapshot: the service.
        port: the name of the metadata that says at which port an endpoint is scraped; an endpoint without it is left
            out. None: where it serves.
    """
    for endpoint in snapshot.ordered():
        target = _target(endpoint, port)
        if target is not None:
            yield endpoint, target


def _target(endpoint: Endpoint, port: str | None) -> str | None:
    """Return where an endpoint is scraped; None where it does not say, or says what is no port."""
    if port is None:
        return endpoint.name
    try:
        return format_endpoint(endpoint.address, parse_port(str(endpoint.registration.metadata.get(port))))
    except ValueError:
        return None
