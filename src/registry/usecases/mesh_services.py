"""The services that gateways select from: what is known of each, and how an operator removes one of them."""

from msgspec import Struct

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.background.mesh_feed import MeshFeed
from registry.cache.snapshot_cache import SnapshotCache
from registry.errors import InvalidError, NotFoundError
from registry.rollout.registered_services import RegisteredService, RegisteredServices
from registry.store import mesh, mesh_catalog, rollouts
from registry.store.database import Database
from registry.store.rollouts import RolloutEvent
from registry.usecases.audit import Audit

_FORGOTTEN = "mesh_forgotten"
"""The name in the audit and in the history of the service."""


class RegisteredPage(Struct, frozen=True):
    """A part of the services by name.

    Attributes:
        services: those of the page that this process knows.
        unavailable: the names of the others of the page, which exist and which it cannot read.
        following: the name behind which the next page begins; None: this is the last one.
    """

    services: list[RegisteredService]
    unavailable: list[str]
    following: str | None


class MeshServices:
    """Shows the services that gateways select from, and removes one from them.

    Args:
        policy: decides who may read and operate.
        database: where the last known metadata is.
        cache: the services and their endpoints.
        registered: reads what is known of services.
        feed: reads at once what was stored.
        audit: notes who removed what and why.
    """

    def __init__(
        self,
        policy: Policy,
        database: Database,
        cache: SnapshotCache,
        registered: RegisteredServices,
        feed: MeshFeed,
        audit: Audit,
    ) -> None:
        self._policy = policy
        self._database = database
        self._cache = cache
        self._registered = registered
        self._feed = feed
        self._audit = audit

    async def page(self, principal: Principal, after: str, limit: int) -> RegisteredPage:
        """Return up to ``limit`` services by name, after a name, with the metadata that gateways select them by.

        Raises:
            UnavailableError: what is known of those without endpoints cannot be read.
        """
        self._policy.allow(principal, Verb.READ)
        readable = self._policy.readable(principal, self._cache.names())
        names = [name for name in readable if name > after]
        page, unsure = names[:limit], self._cache.unsure
        return RegisteredPage(
            await self._registered.read([name for name in page if name not in unsure]),
            [name for name in page if name in unsure],
            page[-1] if len(names) > limit else None,
        )

    async def forget(self, principal: Principal, service: str, reason: str) -> None:
        """Remove a service without endpoints from the gateways that select it by its last known metadata.

        Raises:
            InvalidError: it has endpoints, whose metadata gateways select by.
            NotFoundError: nothing is known of it that gateways could select by.
            UnavailableError: it could not be stored, or this process cannot say whether it has endpoints.
        """
        self._policy.allow(principal, Verb.OPERATE, service)
        with self._audit.noting(principal, _FORGOTTEN, Verb.OPERATE, service, reason=reason):
            self._cache.check_sure(service)
            endpoints = len(self._cache.get(service).endpoints)
            if endpoints:
                raise InvalidError(
                    f"{service} has {endpoints} endpoints, whose metadata gateways select it by: "
                    "deregister them first, or take out of their metadata what the gateway selects"
                )
            async with self._database.transaction() as connection:
                state = await mesh.lock(connection)
                if not await mesh_catalog.remove(connection, service):
                    raise NotFoundError(f"no metadata of {service} is kept, so that no gateway selects by it")
                words = f"gateways no longer select it: {reason}" if reason else "gateways no longer select it"
                event = RolloutEvent(service, _FORGOTTEN, words, principal.name, state.revision)
                await rollouts.add_events(connection, [event])
                await mesh.save(connection, state)
        await self._feed.refresh()
