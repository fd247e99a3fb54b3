"""The catalogue of services and endpoints, from memory."""

from collections.abc import Collection, Iterable, Iterator

from msgspec import Struct

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.endpoint import Endpoint, Key, has_metadata
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


class ServicePage(Struct, frozen=True):
    """A part of the services by name, and whether more follow."""

    services: list[Snapshot]
    more: bool


class ServiceReading(Struct, frozen=True):
    """A service, and what identifies its state with its leases; a page of the same reading is the same."""

    snapshot: Snapshot
    id: str


class EndpointPage(Struct, frozen=True):
    """A part of the endpoints of a service in the order of their registration, and whether more follow."""

    endpoints: list[ListedEndpoint]
    more: bool


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
        """Return the snapshots of all services that the principal may read."""
        self._policy.allow(principal, Verb.READ)
        return [self._cache.get(name) for name in self._readable(principal)]

    def page_of_services(self, principal: Principal, prefix: str, after: str, limit: int) -> ServicePage:
        """Return up to ``limit`` services by name, of those that begin with ``prefix`` and come after a name."""
        self._policy.allow(principal, Verb.READ)
        readable = self._readable(principal)
        names = sorted(name for name in readable if name.startswith(prefix) and name > after)
        return ServicePage([self._cache.get(name) for name in names[:limit]], len(names) > limit)

    def service(self, principal: Principal, service: str) -> Snapshot:
        """Return the snapshot of a service.

        Raises:
            UnknownServiceError: it is not known.
        """
        self._policy.allow(principal, Verb.READ, service)
        return self._find(service)

    def endpoint(self, principal: Principal, key: Key) -> ListedEndpoint:
        """Return an endpoint.

        Raises:
            UnknownEndpointError: it is not registered.
        """
        name = format_endpoint(*key[1:])
        self._policy.allow(principal, Verb.READ, key[0], name)
        endpoint = self._cache.find(key)
        if endpoint is None:
            raise UnknownEndpointError(key[0], name)
        return self._listed(endpoint)

    def reading(self, principal: Principal, service: str) -> ServiceReading:
        """Return a service as it is now, from which pages of its endpoints are made.

        Raises:
            UnknownServiceError: the service is not known.
        """
        self._policy.allow(principal, Verb.READ, service)
        snapshot = self._find(service)
        # Lease times come with each reading of the leases, everything else with a change.
        return ServiceReading(snapshot, f"{self._cache.database_id}-{snapshot.change}-{self._cache.lease_reading}")

    def page_of_endpoints(
        self, reading: ServiceReading, wanted: EndpointFilter, *, after: int, limit: int
    ) -> EndpointPage:
        """Return a part of the endpoints of a service that the caller has read, those on their way out included.

        Args:
            reading: the service.
            wanted: which of its endpoints.
            after: the id of the endpoint behind which the page begins.
            limit: how many at most.
        """
        ordered = reading.snapshot.ordered()
        fitting = [endpoint for endpoint in ordered if endpoint.id > after and wanted.fits(endpoint)]
        return EndpointPage(self.with_leases(fitting[:limit]), len(fitting) > limit)

    def with_leases(self, endpoints: Collection[Endpoint]) -> list[ListedEndpoint]:
        """Return endpoints that the caller has read already with their leases and silences."""
        return [self._listed(endpoint) for endpoint in endpoints]

    def scrape_targets(
        self, principal: Principal, services: Collection[str] | None, port: str | None
    ) -> Iterator[tuple[Endpoint, str]]:
        """Yield the endpoints by service, unhealthy ones too, each with the ``address:port`` to scrape.

        Args:
            principal: the sender of the request.
            services: of these services; None stands for all.
            port: the name of the metadata that says at which port an endpoint is scraped; an endpoint without it is
                left out. None: where it serves.
        """
        for service in services or ("",):
            self._policy.allow(principal, Verb.READ, service)
        readable = set(self._readable(principal))
        return (
            (endpoint, target)
            for name, snapshot in sorted(self._cache.services().items())
            if (services is None or name in services) and name in readable
            for endpoint in snapshot.ordered()
            if (target := _target(endpoint, port)) is not None
        )

    def _readable(self, principal: Principal) -> Iterable[str]:
        """Return the names of the services that the principal may read."""
        return self._policy.readable(principal, self._cache.services())

    def _find(self, service: str) -> Snapshot:
        if not self._cache.knows(service):
            raise UnknownServiceError(service)
        return self._cache.get(service)

    def _listed(self, endpoint: Endpoint) -> ListedEndpoint:
        lease = self._cache.leases.get(endpoint.id)
        overdue = lease is not None and heartbeat_overdue(lease, self._cache.leases_read_at)
        return ListedEndpoint(endpoint, lease, overdue, self._silences.of(endpoint))


def _target(endpoint: Endpoint, port: str | None) -> str | None:
    """Return where an endpoint is scraped; None where it does not say, or says what is no port."""
    if port is None:
        return endpoint.name
    try:
        return format_endpoint(endpoint.address, parse_port(str(endpoint.registration.metadata.get(port))))
    except ValueError:
        return None
