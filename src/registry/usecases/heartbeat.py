"""Heartbeats: each renews a lease or registers an endpoint, alone or in a batch."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from registry.auth.decision import Refusal
from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.cache.heartbeat_cache import HeartbeatCache
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.endpoint import Endpoint, Key, endpoint_key
from registry.core.lease import interval
from registry.core.probe_requests import ProbeRequests
from registry.errors import NotAllowedError, NotOwnerError, RegistryError, UnavailableError
from registry.settings import Settings
from registry.usecases.registration import Registrations
from wire.address import parse_port, split_endpoint
from wire.model import Grant, Heartbeat, Registration
from wire.probe_request import ProbeRequest

_REGISTER = Verb.REGISTER
"""Bound once, as in `registry.xds.discovery`: most heartbeats are renewals."""


class Heartbeats:
    """Takes heartbeats, and grants leases.

    Most heartbeats say nothing new. A front looks for the endpoint of such a heartbeat by ``recognize``, or by
    ``unchanged`` when its words were not read before, and renews the leases of one request together. Everything else
    it registers. A digest is that of a sender's ``fingerprint`` and of the heartbeat's words, so that the decision
    about the sender is remembered with the words. Where refusals are only noted, what is refused is remembered apart:
    it is decided each time, so that each time is noted.

    Args:
        policy: decides who may send heartbeats for an endpoint.
        registrations: stores what is new, and renews leases.
        cache: what this process knows of the endpoints.
        heartbeat_cache: the heartbeats that were found to say nothing new, and that the policy allows.
        refused_cache: those that say nothing new, and whose refusal is only noted.
        settings: how long a lease is, and how long a drain takes.
        probe_requests: the probes that registrars are asked to make.
    """

    def __init__(
        self,
        policy: Policy,
        registrations: Registrations,
        cache: SnapshotCache,
        heartbeat_cache: HeartbeatCache,
        refused_cache: HeartbeatCache,
        settings: Settings,
        probe_requests: ProbeRequests,
    ) -> None:
        self._policy = policy
        self._probe_requests = probe_requests
        # Nearly always empty. Looked at for each heartbeat, so that nothing else is.
        self._pending_probes = probe_requests.pending
        self._registrations = registrations
        self._cache = cache
        self._heartbeat_cache = heartbeat_cache
        self._refused_cache = refused_cache
        self._lease_ttl = settings.lease_ttl
        self._drain_wait = settings.drain_wait
        self.recognize = heartbeat_cache.endpoint
        """Returns the endpoint whose lease a heartbeat renews and may renew, by its digest; None: it has to be looked
        at further. ``unchanged`` keeps no other one."""
        self.recognize_refused = refused_cache.endpoint
        """Returns the endpoint of a heartbeat whose refusal is to be noted, by its digest; None: it has to be read."""

    @property
    def ready(self) -> bool:
        """Whether this process has read the registry's state, and can tell what is new."""
        return self._cache.ready

    def fingerprint(self, principal: Principal) -> bytes:
        """Return what stands for a sender in digests."""
        return self._policy.fingerprint(principal, _REGISTER)

    def unchanged(self, principal: Principal, heartbeat: Heartbeat, digest: bytes) -> Endpoint | None:
        """Return the endpoint whose lease a heartbeat renews; None when the heartbeat says something new of it.

        Args:
            principal: the sender of the heartbeat.
            heartbeat: what was read.
            digest: that by which it is recognized from now on, unless the sender may not renew the lease.
        """
        # Not read as an address, only looked up: what is listed is canonical, and anything else is not found.
        try:
            address, port = split_endpoint(heartbeat.endpoint)
            key = (heartbeat.service, address, parse_port(port))
        except ValueError:
            return None
        endpoint = self._registrations.unchanged(key, self._with_ttl(heartbeat.registration))
        # A grant has the canonical name. A registrar that writes the name otherwise is read each time.
        if endpoint is None or endpoint.name != heartbeat.endpoint:
            return None
        if self._refusal(principal, endpoint) is None:
            self._heartbeat_cache.keep(digest, endpoint)
        elif not self._policy.enforces(_REGISTER):
            self._refused_cache.keep(digest, endpoint)
        return endpoint

    def renew(
        self, principal: Principal, endpoints: Sequence[Endpoint], *, decided: bool = False
    ) -> asyncio.Future[list[bool]]:
        """Renew the leases of endpoints of which one request says nothing new.

        A refusal here is not noted, because each endpoint is registered then, and that is refused and noted.
        The future tells for each endpoint whether its lease was renewed; one that was not has to be registered.

        Args:
            principal: the sender of the request.
            endpoints: what it is about.
            decided: whether all of them were recognized as allowed, so that nothing is left to decide.

        Raises:
            NotOwnerError: one of them has not the owner that it is to have; then none is renewed.
            NotAllowedError: the principal may not renew one of them; then none is renewed.
            UnavailableError: too many wait already.
        """
        owner = principal.subject.owner
        noted = [] if decided else self._noted_refusals(principal, endpoints)
        for endpoint in endpoints:
            if endpoint.owner != owner and not self._registrations.has_owner(principal, endpoint):
                raise NotOwnerError(f"{endpoint.name} has to be registered anew for {principal.name}")
        for refusal in noted:
            self._policy.refuse(principal, refusal)
        return self._registrations.renew(endpoints)

    def _noted_refusals(self, principal: Principal, endpoints: Iterable[Endpoint]) -> list[Refusal]:
        """Return the refusals that are only to be noted, of renewals by one principal.

        Raises:
            NotAllowedError: one of them is enforced.
        """
        refusals = [refusal for endpoint in endpoints if (refusal := self._refusal(principal, endpoint)) is not None]
        if refusals and self._policy.enforces(_REGISTER):
            raise NotAllowedError(refusals[0].reason)
        return refusals

    def _refusal(self, principal: Principal, endpoint: Endpoint) -> Refusal | None:
        instance_id = endpoint.registration.instance_id
        return self._policy.refusal(principal, _REGISTER, endpoint.service, endpoint.name, instance_id)

    def grant(self, endpoint: Endpoint) -> Grant:
        """Return the grant of an endpoint whose lease was renewed."""
        version = self._cache.get(endpoint.service).version
        return self._grant(endpoint, version, endpoint.registration.ttl or self._lease_ttl)

    async def register(self, principal: Principal, key: Key, registration: Registration) -> Grant:
        """Register or renew one endpoint, and return its grant.

        Raises:
            RegistryError: as ``Registrations.register``.
        """
        registration = self._with_ttl(registration)
        stored = await self._registrations.register(principal, key, registration)
        return self._grant(stored.endpoint, stored.version, registration.ttl or self._lease_ttl)

    async def register_batch(
        self, principal: Principal, heartbeats: Iterable[Heartbeat]
    ) -> list[Grant | RegistryError]:
        """Register or renew the endpoints of a batch together; return the grant of each, or why it was refused.

        Heartbeats of one endpoint are taken in their order, each after what became of the one before.

        Raises:
            UnavailableError: the whole request is to be sent again; by its status a proxy or a client library can tell.
        """
        waves: defaultdict[int, list[tuple[int, Heartbeat]]] = defaultdict(list)
        earlier: Counter[str] = Counter()
        for number, heartbeat in enumerate(heartbeats):
            waves[earlier[heartbeat.endpoint]].append((number, heartbeat))
            earlier[heartbeat.endpoint] += 1
        results: dict[int, Grant | RegistryError] = {}
        for wave in waves.values():
            registered = await asyncio.gather(*(self.register_one(principal, heartbeat) for _, heartbeat in wave))
            results.update(zip((number for number, _ in wave), registered, strict=True))
        return [results[number] for number in sorted(results)]

    async def register_one(self, principal: Principal, heartbeat: Heartbeat) -> Grant | RegistryError:
        """Register or renew one endpoint of a batch; return its grant, or why it was refused.

        Raises:
            UnavailableError: it could not be stored, and neither could the others.
        """
        try:
            key = endpoint_key(heartbeat.service, heartbeat.endpoint)
            return await self.register(principal, key, heartbeat.registration)
        except UnavailableError:
            raise
        except RegistryError as error:
            return error

    def _with_ttl(self, registration: Registration) -> Registration:
        return registration if registration.ttl else replace(registration, ttl=self._lease_ttl)

    def _grant(self, endpoint: Endpoint, version: int, ttl: float) -> Grant:
        return Grant(
            service=endpoint.service,
            endpoint=endpoint.name,
            status=endpoint.status,
            version=version,
            ttl=ttl,
            interval=interval(ttl),
            drain_wait=self._drain_wait,
            probes=self._probes(endpoint) if self._pending_probes else None,
        )

    def _probes(self, endpoint: Endpoint) -> ProbeRequest | None:
        key = endpoint.key
        return self._probe_requests.take(key, time.monotonic()) if key in self._pending_probes else None
