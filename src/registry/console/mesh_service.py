"""The page of a caller in the mesh: its effective configuration with origins, and what its Envoys show of it."""

from collections.abc import Sequence

import msgspec
from fastapi import APIRouter, Response
from msgspec import Struct

from meshconfig.effective_caller import EffectiveCaller
from meshconfig.resource import Kind
from registry.auth.principal import Principal
from registry.console.mesh import newest_version
from registry.console.page import Framed, Missing, ask, ask_compiler
from registry.core.mesh import KINDS, ServedNode, show_version
from registry.core.mesh_envoy import MeshEnvoy
from registry.core.mesh_gateways import GatewayRefusal
from registry.core.rollout import RolloutView, view_of
from registry.errors import NotFoundError, UnknownServiceError
from registry.http.dependencies import READY, CatalogPart, MeshRevisionsPart, MeshRolloutPart, MeshStatusPart, Reader
from registry.http.parameters import ServiceName
from registry.usecases.catalog import Catalog
from registry.usecases.mesh_revisions import MeshRevisions
from registry.usecases.mesh_rollout import RolloutOverview

router = APIRouter(dependencies=[READY])

_MAX_ENVOYS = 100
"""Envoys that the page shows, those first that do not follow."""


class ServedKind(Struct, frozen=True):
    """The resources of one kind that the Envoys outside of a share are served."""

    kind: Kind
    count: int
    version: str


class Share(Struct, frozen=True):
    """The version that the node ids of a share are served."""

    percent: float
    version: str


class Envoys(Struct, frozen=True):
    """The Envoys that are shown, of all."""

    items: Sequence[MeshEnvoy]
    total: int


@router.get("/mesh/services/{service}")
async def show_caller(
    service: ServiceName,
    mesh: MeshRevisionsPart,
    status: MeshStatusPart,
    rollouts: MeshRolloutPart,
    catalog: CatalogPart,
    reader: Reader,
    frame: Framed,
) -> Response:
    """Show what one service, gateway or edge calls and how, and what its Envoys hold of it."""
    node = status.node(reader, service)
    effective = await ask_compiler(_effective(mesh, reader, service))
    if node is None and effective is None:
        raise NotFoundError(f"nothing of the mesh configuration was ever defined for {service}")
    everyone = await ask(status.envoys(reader, service))
    overview = await ask(rollouts.overview(reader, service))
    under_way = overview if isinstance(overview, Missing) else [view_of(each) for each in overview.rollouts]
    envoys = everyone if isinstance(everyone, Missing) else Envoys(everyone[:_MAX_ENVOYS], len(everyone))
    return frame.page(
        "mesh_service.html",
        name=service,
        headline=_headline(service, envoys, under_way),
        registered=_is_registered(catalog, reader, service),
        served=[] if node is None else _served(node),
        share=None if node is None or not node.share else Share(node.share, newest_version(node.share_sets)),
        rollouts=under_way,
        envoys=envoys,
        kinds=KINDS,
        effective=effective,
        reach=status.reach(reader),
        refusals=() if isinstance(overview, Missing) else _refusals(overview, service, effective),
        revision=0 if isinstance(overview, Missing) else overview.revision,
    )


def _refusals(
    overview: RolloutOverview, name: str, effective: EffectiveCaller | Missing | None
) -> list[GatewayRefusal]:
    """Return why a gateway, or a service of it, does not follow the services that are registered."""
    is_gateway = isinstance(effective, EffectiveCaller) and effective.kind == "gateway"
    return [each for each in overview.gateways.refusals if each.gateway == name or (is_gateway and not each.gateway)]


async def _effective(mesh: MeshRevisions, reader: Principal, service: str) -> EffectiveCaller | None:
    """Return the effective values; None: the revision in force does not define the service."""
    try:
        document = await mesh.effective(reader, service)
    except NotFoundError:
        return None
    return msgspec.json.decode(document, type=EffectiveCaller)


def _is_registered(catalog: Catalog, reader: Principal, service: str) -> bool:
    try:
        catalog.service(reader, service)
    except UnknownServiceError:
        return False
    return True


def _served(node: ServedNode) -> list[ServedKind]:
    return [
        ServedKind(kind, len(node.sets[kind].resources), show_version(node.sets[kind].version))
        for kind in KINDS
        if kind in node.sets
    ]


def _headline(service: str, envoys: Envoys | Missing, rollouts: Sequence[RolloutView] | Missing) -> str:
    if isinstance(envoys, Missing) or isinstance(rollouts, Missing):
        return f"{service} is served from memory"
    states = {rollout.state for rollout in rollouts}
    for state, words in (("refused", "stands still: an Envoy refuses it"), ("paused", "is paused")):
        if state in states:
            return f"The roll-out to {service} {words}"
    if rollouts:
        return f"{service} is being rolled out"
    if not envoys.total:
        return f"No Envoy of {service} polls for its configuration"
    behind = sum(not each.current for each in envoys.items)
    if behind:
        return f"{behind} of {envoys.total} {'Envoy' if envoys.total == 1 else 'Envoys'} of {service} did not follow"
    return f"{service}: {'its Envoy has' if envoys.total == 1 else f'all {envoys.total} Envoys have'} what is served"
