"""Reading of the mesh configuration: its revisions, and what services are served and have in effect."""

from collections import OrderedDict

import msgspec
from msgspec import Struct

from meshconfig.resource import TYPE_URLS, Catalog, Kind
from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.cache.mesh_cache import MeshCache
from registry.compiler.compiler import Compiler
from registry.compiler.job import Inflate, Shown, ShowService
from registry.core.mesh import Revision, ServedSet
from registry.core.mesh_gateways import UNPROVEN_GATEWAYS
from registry.errors import NotFoundError
from registry.rollout.registered_services import RegisteredServices
from registry.store import mesh as store
from registry.store import mesh_gateways as gateways
from registry.store.database import Database, Session
from registry.usecases.mesh_rollout import readable_gateways

_MAX_SHOWN = 64
"""Documents of services that are kept, because each takes the compiler a second."""


class RevisionDetail(Struct, frozen=True):
    """A revision with its files as a JSON object; None where the reader may not see all of them."""

    revision: Revision
    files: msgspec.Raw | None


class MeshRevisions:
    """Shows revisions of the mesh configuration, and what each service has of the one in force.

    Args:
        policy: decides who may read.
        database: where revisions are.
        cache: what this process serves of them.
        services: the registered services, which gateways select from.
        compiler: makes documents of definitions.
    """

    def __init__(
        self, policy: Policy, database: Database, cache: MeshCache, services: RegisteredServices, compiler: Compiler
    ) -> None:
        self._policy = policy
        self._database = database
        self._cache = cache
        self._services = services
        self._compiler = compiler
        self._shown: OrderedDict[tuple[str, int, str, bool, frozenset[str]], bytes] = OrderedDict()
        """Documents by database, revision, service, whether it is the bootstrap, and what a gateway serves.

        Written by _show().
        """

    async def revisions(self, principal: Principal, *, before: int | None, limit: int) -> list[Revision]:
        """Return revisions, the newest first."""
        self._policy.allow(principal, Verb.READ)
        async with self._database.reading() as connection:
            revisions = await store.find_revisions(connection, before=before, limit=limit)
            newest = await store.newest(connection)
            return [await self._with_gateways(connection, principal, each, newest) for each in revisions]

    async def _with_gateways(
        self, connection: Session, principal: Principal, revision: Revision, newest: int
    ) -> Revision:
        """Return a revision; the newest one with the gateways that were compiled again and that are unproven."""
        if revision.number != newest:
            return revision
        reach = self._policy.reach(principal, Verb.READ)
        unproven = readable_gateways(await gateways.read(connection, revision.number), reach).unproven
        return msgspec.structs.replace(revision, proof={**revision.proof, UNPROVEN_GATEWAYS: unproven})

    async def revision(self, principal: Principal, number: int | None) -> RevisionDetail:
        """Return a revision with its files; None stands for the one in force.

        Raises:
            NotFoundError: there is no such revision.
        """
        self._policy.allow(principal, Verb.READ)
        async with self._database.reading() as connection:
            newest = await store.newest(connection)
            revision = await store.find_revision(connection, newest if number is None else number)
            if revision is None:
                raise NotFoundError(
                    "no revision was ever applied" if number is None else f"there is no revision {number}"
                )
            revision = await self._with_gateways(connection, principal, revision, newest)
            files = await store.files_of(connection, revision.content) or b""
        if not self._policy.reach(principal, Verb.READ).everything:
            return RevisionDetail(revision, None)
        if not files:
            return RevisionDetail(revision, msgspec.Raw(b"{}"))
        shown = await self._compiler.reads.run_shared(
            (self._cache.database_id, revision.content), principal.limited_as, Inflate(files)
        )
        return RevisionDetail(revision, msgspec.Raw(shown.document) if isinstance(shown, Shown) else None)

    async def effective(self, principal: Principal, service: str) -> bytes:
        """Return the effective values of a service, a gateway or an edge, with their origins, as JSON.

        Raises:
            NotFoundError: the revision in force does not define it.
        """
        return await self._show(principal, service, bootstrap=False)

    async def bootstrap(self, principal: Principal, service: str) -> bytes:
        """Return the bootstrap of a service's, a gateway's or an edge's Envoys, as JSON.

        Raises:
            NotFoundError: the revision in force does not define it.
        """
        return await self._show(principal, service, bootstrap=True)

    def served(self, principal: Principal, service: str, kind: Kind) -> tuple[str, ServedSet]:
        """Return the type URL and the resources that the Envoys of a service are served, outside of any share.

        Raises:
            NotFoundError: none of this kind was ever defined for it.
        """
        self._policy.allow(principal, Verb.READ, service)
        node = self._cache.get(service)
        served = None if node is None else node.sets.get(kind)
        if served is None:
            raise NotFoundError(f"no {kind} were ever defined for {service}")
        return TYPE_URLS[kind], served

    async def _show(self, principal: Principal, service: str, *, bootstrap: bool) -> bytes:
        self._policy.allow(principal, Verb.READ, service)
        async with self._database.reading() as connection:
            revision = await store.find_revision(connection, await store.newest(connection))
            if revision is None:
                raise NotFoundError("no revision of the mesh configuration was ever applied")
            served = frozenset() if bootstrap else self._served_to_front(service)
            key = (self._cache.database_id, revision.content, service, bootstrap, served)
            document = self._shown.get(key)
            files = b"" if document is not None else await store.files_of(connection, revision.content) or b""
        if document is None:
            catalog = await self._services.catalog() if served else Catalog()
            job = ShowService(files, service, bootstrap, catalog, served)
            shown = await self._compiler.reads.run_shared(key, principal.limited_as, job)
            document = shown.document if isinstance(shown, Shown) else b""
            self._shown[key] = document
            if len(self._shown) > _MAX_SHOWN:
                self._shown.popitem(last=False)
        if not document:
            raise NotFoundError(f"revision {revision.number} defines no {service}")
        return document

    def _served_to_front(self, name: str) -> frozenset[str]:
        """Return the clusters that the Envoys of a gateway or an edge are served; none for a service."""
        node = self._cache.get(name)
        listeners = None if node is None else node.sets.get("listeners")
        if node is None or listeners is None or not listeners.resources or "clusters" not in node.sets:
            return frozenset()
        return frozenset(node.sets["clusters"].resources)
