"""The gateways of an earlier revision, which a rollback serves for the services that are registered now."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from registry.compiler.gateways import FormerGateway, GatewayCompilation, compile_apart, compile_together
from registry.compiler.job_queue import JobQueue
from registry.compiler.nodes import CompiledNodes, read_nodes
from registry.core.mesh_gateways import RefusedGateway
from registry.errors import UnavailableError
from registry.rollout.registered_services import RegisteredServices
from registry.rollout.switching import used_clusters
from registry.store import mesh as store
from registry.store.database import Database
from registry.store.mesh import Contents


class RecompiledGateways(Struct, frozen=True):
    """The gateways of an earlier revision for the services that are registered now.

    Attributes:
        nodes: the resources of those that could be compiled.
        envoy: of each, the versions of Envoy that have accepted it; none: it is unproven.
        refused: those that are served as they were then, and services of the others that are, or that are left out.
    """

    nodes: CompiledNodes = CompiledNodes({}, [])
    envoy: Mapping[str, Sequence[str]] = {}
    refused: Sequence[RefusedGateway] = ()


class FormerGateways:
    """Compiles the gateways of earlier revisions anew.

    Args:
        database: where the revisions are.
        services: the registered services.
        queue: compiles them.
        envoy_binary: the Envoy that proves them; empty: nothing does.
    """

    def __init__(self, database: Database, services: RegisteredServices, queue: JobQueue, envoy_binary: str) -> None:
        self._database = database
        self._services = services
        self._queue = queue
        self._envoy_binary = envoy_binary

    async def of(self, number: int) -> RecompiledGateways:
        """Return the gateways of an earlier revision, compiled for the services that are registered now.

        Where that fails, the rollback goes on with those of then: whoever needs it cannot wait for a mended compiler.
        """
        async with self._database.session() as connection:
            revision = await store.find_revision(connection, number)
            contents = await store.read_contents(connection, number)
            files = None if revision is None else await store.files_of(connection, revision.content)
        # Gateways and edges alone have listeners of their own.
        if not any(kinds.get("listeners") for kinds in contents.values()):
            return RecompiledGateways()
        if files is None:
            return RecompiledGateways(refused=[RefusedGateway("the files of that revision are missing in PostgreSQL")])
        try:
            compilation = await self._compile(files, contents)
        except UnavailableError as error:
            return RecompiledGateways(refused=[RefusedGateway(str(error))])
        nodes = CompiledNodes({}, [])
        envoy: dict[str, Sequence[str]] = {}
        for accepted in compilation.accepted:
            own = await read_nodes(accepted.resources)
            nodes = CompiledNodes({**nodes.contents, **own.contents}, [*nodes.bodies, *own.bodies])
            envoy |= dict.fromkeys(own.contents, [accepted.envoy] if accepted.envoy else [])
        return RecompiledGateways(nodes, envoy, compilation.refused)

    async def _compile(self, files: bytes, contents: Contents) -> GatewayCompilation:
        """Compile the gateways of an earlier revision together; where an Envoy refuses them so, each alone.

        Raises:
            UnavailableError: the registered services cannot be read.
        """
        queue, catalog, envoy = self._queue, await self._services.catalog(), self._envoy_binary
        result = await compile_together(queue, files, catalog, envoy)
        if isinstance(result, GatewayCompilation):
            return result
        async with self._database.session() as connection:
            served = await used_clusters(connection, contents)
        former = {name: FormerGateway(used) for name, used in served.items()}
        return await compile_apart(queue, files, catalog, envoy, former)
