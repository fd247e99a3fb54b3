"""The hosts of a service as the clients of cookpad/sds and lyft/discovery know them: by address, without owners."""

import asyncio
import time
from collections.abc import Awaitable, Iterable

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.endpoint import Key
from registry.core.override_change import OverrideChange
from registry.core.subscriber import Subscribers
from registry.errors import NotFoundError
from registry.usecases.registration import Derive, Registrations
from registry.xds.sds_v1 import HostsV1
from wire.address import format_endpoint
from wire.model import Registration


class DropInHosts:
    """Lists, registers, deregisters and weighs hosts.

    Args:
        policy: decides who may ask and who may write.
        cache: what this process knows of the hosts.
        hosts: encodes them as v1 has them.
        subscribers: where each request for the hosts of a service is noted.
        registrations: stores what is written.
    """

    def __init__(
        self,
        policy: Policy,
        cache: SnapshotCache,
        hosts: HostsV1,
        subscribers: Subscribers,
        registrations: Registrations,
    ) -> None:
        self._policy = policy
        self._cache = cache
        self._hosts = hosts
        self._subscribers = subscribers
        self._registrations = registrations

    def of_service(self, principal: Principal, service: str, subscriber: str) -> bytes:
        """Return the hosts of a service that may receive traffic, as JSON; none for an unknown service.

        Args:
            principal: the sender of the request.
            service: any name.
            subscriber: the address by which the subscriber is listed.

        Raises:
            UnavailableError: this process cannot read the service.
        """
        self._policy.allow(principal, Verb.DISCOVER, service)
        self._subscribers.record_v1(subscriber, service, time.monotonic())
        return self._hosts.of_service(service)

    def known_of_service(self, principal: Principal, service: str, subscriber: str) -> bytes | None:
        """Return what ``of_service`` returns; None while this process knows nothing, and for what is not allowed."""
        if not self._cache.ready or service in self._cache.unsure:
            return None
        if self._policy.refusal(principal, Verb.DISCOVER, service) is not None:
            return None
        self._subscribers.record_v1(subscriber, service, time.monotonic())
        return self._hosts.of_service(service)

    def known_of_repository(self, principal: Principal, repository: str) -> bytes | None:
        """Return what ``of_repository`` returns; None also where the principal may not discover every service."""
        if not self._cache.ready or self._cache.unsure or self._policy.refusal(principal, Verb.DISCOVER) is not None:
            return None
        if not self._policy.reach(principal, Verb.DISCOVER).everything:
            return None
        return self._hosts.of_any_repository(repository)

    def of_repository(self, principal: Principal, repository: str) -> bytes:
        """Return the hosts whose registration names a source repository, as JSON.

        They may be of any service, so those of services that the principal may not discover are left out.

        Raises:
            UnavailableError: this process cannot read one of these services.
        """
        self._policy.allow(principal, Verb.DISCOVER)
        return self._hosts.of_repository(repository, self._policy.reach(principal, Verb.DISCOVER).covers)

    async def register(self, principal: Principal, key: Key, registration: Registration) -> None:
        """Register a host, over what was known of it.

        Raises:
            RegistryError: as ``Registrations.register``.
        """
        await self._registrations.register(principal, key, registration, fenced=False)

    async def merge(self, principal: Principal, key: Key, derive: Derive) -> None:
        """Register a host by a state that is derived from what is known of it.

        Raises:
            RegistryError: as ``Registrations.merge``.
        """
        await self._registrations.merge(principal, key, derive, fenced=False)

    def is_registered(self, key: Key) -> bool:
        """Tell whether an address may be read as this endpoint's; a write that asks for the policy follows."""
        return self._cache.find(key) is not None

    async def deregister(self, principal: Principal, key: Key) -> None:
        """Deregister one port of an address.

        Raises:
            NotFoundError: it is not registered, lapsed, or has left.
            RegistryError: as ``Registrations.deregister``.
        """
        await self._registrations.deregister(principal, key, None, None, lapsed_too=False)

    async def deregister_address(self, principal: Principal, service: str, address: str | None) -> int:
        """Deregister all ports of an address; return how many there were. None is no address of anybody.

        Raises:
            NotAllowedError: the principal may not deregister one of them; then none is deregistered.
            NotOwnerError: one of them belongs to another identity; then none is deregistered.
            RegistryError: as ``Registrations.deregister``.
        """
        # By the address that is asked for: a refusal must not depend on whether anything is listed there.
        self._policy.allow(principal, Verb.REGISTER, service, "" if address is None else format_endpoint(address, 0))
        keys = [] if address is None else self._keys(service, address)
        self._allow_all(principal, Verb.REGISTER, keys)
        self._registrations.check_owners(principal, keys)
        return await _succeeded(self.deregister(principal, key) for key in keys)

    async def set_weight(self, principal: Principal, service: str, address: str | None, weight: int) -> int:
        """Set the weight of the hosts of an address or, for None, of all; return how many there were.

        Raises:
            NotAllowedError: the principal may not override one of them; then none is changed.
            RegistryError: as ``Registrations.override``.
        """
        self._policy.allow(principal, Verb.OPERATE, service)
        change = OverrideChange(weight=weight, reason="set by /v1/loadbalancing").by(principal.name)
        keys = self._keys(service, address)
        self._allow_all(principal, Verb.OPERATE, keys)
        return await _succeeded(self._registrations.override(principal, key, change) for key in keys)

    def _allow_all(self, principal: Principal, verb: Verb, keys: Iterable[Key]) -> None:
        """Ask for every endpoint before the first write, because writes that run at once are not undone."""
        for service, address, port in keys:
            self._policy.allow(principal, verb, service, format_endpoint(address, port))

    def _keys(self, service: str, address: str | None) -> list[Key]:
        """Return the endpoints of a service that have not left: of one address, or of all for None.

        Raises:
            UnavailableError: this process cannot read the service.
        """
        self._cache.check_sure(service)
        return [
            endpoint.key
            for endpoint in self._cache.get(service).ordered()
            if endpoint.leaving_at is None and address in (None, endpoint.address)
        ]


async def _succeeded(writes: Iterable[Awaitable[object]]) -> int:
    """Do all these writes at once; return how many found their endpoint."""

    async def succeeds(write: Awaitable[object]) -> bool:
        try:
            await write
        except NotFoundError:
            return False
        return True

    return sum(await asyncio.gather(*map(succeeds, writes)))
