"""Quotas: how much one instance and one identity may register, so that a stolen credential cannot fill the registry.

An instance is the session of a workload, as AWS names it, or else what the holder of a credential calls an instance.
Only what is new is limited: renewals, drains and deregistrations never are, and neither is what is registered already.
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from contextlib import contextmanager

from msgspec import Struct

from registry.auth.credential import Limits
from registry.auth.grants import components
from registry.auth.principal import Principal
from registry.core.endpoint import Endpoint, Key
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


class Holding(Struct, frozen=True):
    """An endpoint as it is held against the quotas."""

    owner: str
    service: str
    instance_id: str


class Holdings:
    """How many endpoints each instance has, and each identity in each service."""

    def __init__(self) -> None:
        self._endpoints: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """Endpoints by owner and by each name that their instance may be known by."""
        self._services: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """Endpoints by owner and service."""

    def add(self, holding: Holding) -> None:
        """Count an endpoint."""
        self._endpoints[holding.owner].update(_names(holding))
        self._services[holding.owner][holding.service] += 1

    def remove(self, holding: Holding) -> None:
        """Count an endpoint no longer."""
        _subtract(self._endpoints, holding.owner, _names(holding))
        _subtract(self._services, holding.owner, {holding.service})

    def endpoints(self, owner: str, instance: str) -> int:
        """Return how many endpoints an instance of an owner has."""
        return self._endpoints[owner][instance] if owner in self._endpoints else 0

    def services(self, owner: str) -> set[str]:
        """Return the services in which an owner has endpoints."""
        return set(self._services.get(owner, ()))


class _Reservation:
    """An endpoint that was let in since the last count, and whether it is stored and seen by now."""

    __slots__ = ("holding", "stored")

    def __init__(self, holding: Holding) -> None:
        self.holding = holding
        self.stored = False


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
        self._reserved: dict[Key, _Reservation] = {}
        """The endpoints that this process has let in, and that no count has found yet."""
        self._recent = Holdings()
        """The same endpoints, counted."""
        self._buckets: dict[tuple[str, str], TokenBucket] = {}
        """The changes that each instance may make now, by owner and instance."""

    async def count(self, endpoints: AsyncIterable[Endpoint]) -> None:
        """Count all endpoints anew; called every few seconds."""
        # This count finds all that is stored by now. It may find what is let in meanwhile, which is held by itself.
        settled = {key: reservation for key, reservation in self._reserved.items() if reservation.stored}
        counted = Holdings()
        async for endpoint in endpoints:
            held_by_itself = endpoint.key in self._reserved and endpoint.key not in settled
            if endpoint.owner and endpoint.leaving_at is None and not held_by_itself:
                counted.add(Holding(endpoint.owner, endpoint.service, endpoint.registration.instance_id))
        self._counted = counted
        for key, reservation in settled.items():
            self._release(key, reservation)

    @contextmanager
    def reserve(
        self, principal: Principal, key: Key, instance_id: str, current: Endpoint | None, now: float
    ) -> Iterator[None]:
        """Check a registration that says something new, and count it unless the block that stores it fails.

        Args:
            principal: the sender.
            key: the endpoint that it registers.
            instance_id: the instance that it registers.
            current: the endpoint as it is listed; None: it is not.
            now: monotonic time.

        Raises:
            LimitError: it is beyond a quota; nothing was counted.
        """
        reservation = None
        if self._check(principal, key[0], instance_id, current, now):
            reservation = self._reserve(key, Holding(principal.subject.owner, key[0], instance_id))
        try:
            yield
        except BaseException:
            if reservation is not None:
                self._release(key, reservation)
            raise
        if reservation is not None:
            reservation.stored = True

    def _reserve(self, key: Key, holding: Holding) -> _Reservation | None:
        before = self._reserved.get(key)
        if before is not None:
            if before.holding == holding:
                # Its maker ends it.
                return None
            self._release(key, before)
        reservation = self._reserved[key] = _Reservation(holding)
        self._recent.add(holding)
        return reservation

    def _release(self, key: Key, reservation: _Reservation) -> None:
        if self._reserved.get(key) is reservation:
            del self._reserved[key]
            self._recent.remove(reservation.holding)

    def _check(
        self, principal: Principal, service: str, instance_id: str, current: Endpoint | None, now: float
    ) -> bool:
        """Check a registration; return whether the endpoint is new to its owner."""
        owner = principal.subject.owner
        if not owner:
            return False
        limits = self._limits_of(owner)
        instance = _instance(principal, instance_id)
        endpoints = self._settings.endpoints if limits.endpoints is None else limits.endpoints
        known = current is not None and current.registration.instance_id == instance_id
        if known and current is not None and not current.owner:
            # It was registered before there were owners, and is only given one.
            return False
        new = not known or (current is not None and current.owner != owner)
        if new:
            self._check_new(owner, service, instance, endpoints, limits)
        self._check_rate(owner, instance, endpoints, limits, now)
        return new

    def _check_new(self, owner: str, service: str, instance: str, allowed: int, limits: Limits) -> None:
        if self._counted is None:
            return
        held = self._counted.endpoints(owner, instance) + self._recent.endpoints(owner, instance)
        if held >= allowed:
            raise LimitError(
                f"the instance {instance} of {owner} has {held} endpoints, and {allowed} are allowed. Deregister some; "
                "or raise `limits.endpoints` of the identity, or REGISTRY_MAX_INSTANCE_ENDPOINTS",
                "instance_endpoints",
            )
        names = self._counted.services(owner) | self._recent.services(owner)
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


def _subtract(counts: defaultdict[str, Counter[str]], owner: str, names: Iterable[str]) -> None:
    """Count each name of an owner once less, and keep none of which there is nothing."""
    of_owner = counts[owner]
    for name in names:
        of_owner[name] -= 1
        if of_owner[name] <= 0:
            del of_owner[name]
    if not of_owner:
        del counts[owner]


def _names(holding: Holding) -> set[str]:
    """Return every name that the instance of an endpoint may be known by."""
    return {holding.instance_id, *components(holding.instance_id)}


def _instance(principal: Principal, instance_id: str) -> str:
    """Return by what the instance of a registration is counted: its session, which it cannot choose, if it has one."""
    session = principal.subject.session_name
    return session if session and session in components(instance_id) else instance_id
