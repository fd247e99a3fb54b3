"""Quotas: how much one instance and one identity may register, so that a stolen credential cannot fill the registry.

An instance is the session of a workload, as AWS names it, or else what the holder of a credential calls an instance.
Only what is new is limited: renewals, drains and deregistrations never are, and neither is what is registered already.
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterable, Callable

from msgspec import Struct

from registry.auth.credential import Limits
from registry.auth.grants import components
from registry.auth.principal import Principal
from registry.core.endpoint import Endpoint
from registry.core.token_bucket import TokenBucket
from registry.errors import LimitError

MAX_INSTANCES = 20_000
"""Instances whose changes are remembered. Beyond it all are forgotten, and each begins with a whole burst."""


class QuotaSettings(Struct, frozen=True):
    """The quotas of identities that have none of their own.

    Attributes:
        endpoints: endpoints of one instance.
        changes: changes a second of one instance; it may have as many at once as it may have endpoints.
        services: names of services of one identity.
    """

    endpoints: int
    changes: float
    services: int


class Holdings:
    """The endpoints of each instance, and the services of each identity, as they were counted at one moment."""

    def __init__(self) -> None:
        self._endpoints: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """Endpoints by owner and by each name that their instance may be known by."""
        self._services: defaultdict[str, set[str]] = defaultdict(set)
        """Services by owner."""

    def add(self, owner: str, service: str, instance_id: str) -> None:
        """Count an endpoint of an owner."""
        self._endpoints[owner].update({instance_id, *components(instance_id)})
        self._services[owner].add(service)

    def endpoints(self, owner: str, instance: str) -> int:
        """Return how many endpoints an instance of an owner has."""
        return self._endpoints[owner][instance] if owner in self._endpoints else 0

    def services(self, owner: str) -> set[str]:
        """Return the services in which an owner has endpoints."""
        return self._services.get(owner, set())


class Quotas:
    """Checks registrations against the quotas.

    Args:
        settings: the quotas that hold unless an identity has others.
        limits_of: returns those of an owner.
    """

    def __init__(self, settings: QuotaSettings, limits_of: Callable[[str], Limits]) -> None:
        self._settings = settings
        self._limits_of = limits_of
        self._counted: Holdings | None = None
        """The endpoints at the last count, a few seconds ago; None: not counted yet, and so nothing is limited."""
        self._since = Holdings()
        """What was registered with this process since that count began."""
        self._buckets: dict[tuple[str, str], TokenBucket] = {}
        """The changes that each instance may make now, by owner and instance."""

    async def count(self, endpoints: AsyncIterable[Endpoint]) -> None:
        """Count all endpoints anew; called every few seconds."""
        before, self._since = self._since, Holdings()
        counted = Holdings()
        try:
            async for endpoint in endpoints:
                if endpoint.owner and endpoint.leaving_at is None:
                    counted.add(endpoint.owner, endpoint.service, endpoint.registration.instance_id)
        except BaseException:
            self._since = before
            raise
        self._counted = counted

    def check(self, principal: Principal, service: str, instance_id: str, current: Endpoint | None, now: float) -> None:
        """Check a registration that says something new, and count it.

        Args:
            principal: the sender.
            service: the service that it registers for.
            instance_id: the instance that it registers.
            current: the endpoint as it is listed; None: it is not.
            now: monotonic time.

        Raises:
            LimitError: it is beyond a quota; nothing was counted.
        """
        owner = principal.subject.owner
        if not owner:
            return
        limits = self._limits_of(owner)
        instance = _instance(principal, instance_id)
        endpoints = self._settings.endpoints if limits.endpoints is None else limits.endpoints
        known = current is not None and current.registration.instance_id == instance_id
        if known and current is not None and not current.owner:
            # It was registered before there were owners, and is only given one.
            return
        if not known or (current is not None and current.owner != owner):
            self._check_new(owner, service, instance, endpoints, limits)
        self._check_rate(owner, instance, endpoints, limits, now)
        if current is None:
            self._since.add(owner, service, instance_id)

    def _check_new(self, owner: str, service: str, instance: str, allowed: int, limits: Limits) -> None:
        if self._counted is None:
            return
        held = self._counted.endpoints(owner, instance) + self._since.endpoints(owner, instance)
        if held >= allowed:
            raise LimitError(
                f"the instance {instance} of {owner} has {held} endpoints, and {allowed} are allowed. Deregister some; "
                "or raise `limits.endpoints` of the identity, or REGISTRY_MAX_INSTANCE_ENDPOINTS",
                "instance_endpoints",
            )
        names = self._counted.services(owner) | self._since.services(owner)
        most = self._settings.services if limits.services is None else limits.services
        if service not in names and len(names) >= most:
            raise LimitError(
                f"{owner} has endpoints in {len(names)} services, and {most} are allowed; {service} would be another "
                "one. Raise `limits.services` of the identity, or REGISTRY_MAX_IDENTITY_SERVICES",
                "identity_services",
            )

    def _check_rate(self, owner: str, instance: str, burst: int, limits: Limits, now: float) -> None:
        rate = self._settings.changes if limits.changes is None else limits.changes
        bucket = self._buckets.get((owner, instance))
        if bucket is None:
            if len(self._buckets) >= MAX_INSTANCES:
                self._buckets.clear()
            bucket = self._buckets[owner, instance] = TokenBucket(rate, max(1, burst), now)
        if not bucket.take(now):
            raise LimitError(
                f"the instance {instance} of {owner} changes what it registers more than {rate:g} times a second. "
                "Renewals are not counted. Look for a check that flaps; or raise `limits.changes` of the identity, or "
                "REGISTRY_MAX_INSTANCE_CHANGES",
                "instance_changes",
                retry_after=1.0,
            )


def _instance(principal: Principal, instance_id: str) -> str:
    """Return by what the instance of a registration is counted: its session, which it cannot choose, if it has one."""
    session = principal.subject.session_name
    return session if session and session in components(instance_id) else instance_id
