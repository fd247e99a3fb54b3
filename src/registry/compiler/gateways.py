"""The gateways of a revision, compiled for a catalog: together, or else each in a process of its own."""

from collections.abc import Mapping, Sequence

from msgspec import Raw, Struct

from meshconfig.gateway_selection import GatewaySelection
from meshconfig.resource import Catalog
from registry.compiler.job import Compiled, CompiledGateway, CompileGateway, CompileGateways, refusal
from registry.compiler.job_queue import JobQueue
from registry.core.mesh_gateways import RefusedGateway
from registry.errors import UnavailableError


class FormerGateway(Struct, frozen=True):
    """A gateway as it was before.

    Attributes:
        served: the clusters that its Envoys use.
        accepted: the services as they were when it was accepted last, as far as that is remembered.
    """

    served: frozenset[str]
    accepted: Catalog = Catalog()


class AcceptedGateways(Struct, frozen=True):
    """Gateways that may be served.

    Attributes:
        resources: a document for each (`registry.compiler.nodes`).
        envoy: the version of the Envoy that accepted them; empty: none was asked.
    """

    resources: Mapping[str, Raw]
    envoy: str = ""


class GatewayCompilation(Struct, frozen=True):
    """The gateways of a revision, as far as they could be compiled.

    Attributes:
        accepted: those that may be served.
        refused: those that may not, and services that are served as they were, or not yet.
        catalogs: the services as each accepted gateway uses them.
        selections: what all gateways select from the catalog; None: some of them could not be read.
    """

    accepted: Sequence[AcceptedGateways]
    refused: Sequence[RefusedGateway] = ()
    catalogs: Mapping[str, Catalog] = {}
    selections: Sequence[GatewaySelection] | None = None


async def compile_together(queue: JobQueue, files: bytes, catalog: Catalog, envoy: str) -> GatewayCompilation | str:
    """Return the gateways of a revision, or why they cannot be served together."""
    try:
        result = await queue.run(CompileGateways(files, catalog, frozenset(), envoy))
    except UnavailableError as error:
        return str(error)
    if not isinstance(result, Compiled):
        return "the compiler answered something else"
    if reason := refusal(result):
        return reason
    accepted = [AcceptedGateways(result.resources, result.envoy)] if result.resources else []
    return GatewayCompilation(accepted, (), dict.fromkeys(result.resources, catalog), result.selections)


async def compile_apart(
    queue: JobQueue, files: bytes, catalog: Catalog, envoy: str, former: Mapping[str, FormerGateway]
) -> GatewayCompilation:
    """Return the gateways of a revision, each compiled and proven alone, without services that would be refused.

    Args:
        queue: runs the jobs.
        files: the deflated files of the revision.
        catalog: the registered services.
        envoy: the Envoy that proves them; empty: none.
        former: the gateways as they were; names of edges among them do not matter.
    """
    accepted: list[AcceptedGateways] = []
    refused: list[RefusedGateway] = []
    catalogs: dict[str, Catalog] = {}
    selections: list[GatewaySelection] | None = []
    for name, gateway in sorted(former.items()):
        result = await _compile_alone(
            queue, CompileGateway(files, name, catalog, gateway.accepted, gateway.served, envoy)
        )
        refused += [RefusedGateway(reason, name, service) for service, reason in sorted(result.refused.items())]
        if result.selection is None:
            selections = None if result.refused else selections
            continue
        accepted.append(AcceptedGateways(result.resources, result.envoy))
        catalogs[name] = result.catalog
        if selections is not None:
            selections.append(result.selection)
    return GatewayCompilation(accepted, _summed_up(refused, accepted), catalogs, selections)


async def _compile_alone(queue: JobQueue, job: CompileGateway) -> CompiledGateway:
    try:
        result = await queue.run(job)
    except UnavailableError as error:
        return CompiledGateway(refused={"": str(error)})
    return result if isinstance(result, CompiledGateway) else CompiledGateway(refused={"": "the compiler failed"})


def _summed_up(refused: Sequence[RefusedGateway], accepted: Sequence[AcceptedGateways]) -> Sequence[RefusedGateway]:
    """Return what is refused; once for all gateways where nothing is accepted for one and the same reason."""
    reasons = {each.reason for each in refused}
    if accepted or len(refused) == 1 or len(reasons) != 1:
        return refused
    return [RefusedGateway(*reasons)]
