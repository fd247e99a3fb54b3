"""Routes of the mesh configuration: apply, roll back, revisions, and what services are served."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response

from meshconfig.effective_caller import EffectiveCaller
from meshconfig.plan import Plan
from meshconfig.resource import Kind
from registry.core.mesh import show_version
from registry.http.dependencies import READY, Actor, MeshPart, MeshRevisionsPart, Reader
from registry.http.openapi import answers, body, problems, show_examples
from registry.http.parameters import PageSize, ServiceName, decode
from registry.http.responses import json
from registry.http.views.mesh import (
    AppliedView,
    ApplyBody,
    RevisionDetailView,
    RevisionList,
    RevisionView,
    RollbackRequest,
    applied_view,
    detail_view,
    revision_view,
)
from registry.xds.discovery_response import encode_response

router = APIRouter(tags=["mesh"], dependencies=[READY])

_rollback = msgspec.json.Decoder(RollbackRequest)

RevisionNumber = Annotated[
    str, Path(pattern="^(current|[0-9]{1,18})$", description="Its number, or `current` for the one in force.")
]
DryRun = Annotated[bool, Query(description="Return the plan, and store nothing.")]
Before = Annotated[int | None, Query(ge=1, description="`next` of the page before.")]

_FILES = {
    "mesh.yaml": "environment: production\n",
    "services/web.yaml": "service: web\ndependencies:\n- service: user\n",
    "services/user.yaml": "service: user\n",
}
_REVISION = {
    "number": 8,
    "at": 1764400000.0,
    "kind": "apply",
    "content": 8,
    "author": "token:ci-deploy as ann",
    "reason": "web calls user",
    "commit": "5f0c1a9e",
    "base": 7,
    "share": 100.0,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "compiler": "0.1.0",
    "proof": {"by": "registry", "envoy": ["1.40.0"]},
}
_APPLIED = _REVISION | {"nodes": ["web"], "kept": [], "in_doubt": [], "warnings": []}
_RAW: dict[str, Any] = {"application/json": {"schema": {"type": "object"}, "example": {"resources": []}}}
_BOOTSTRAP: dict[int | str, Any] = {200: {"description": "The bootstrap, as Envoy reads it.", "content": _RAW}}
_SERVED: dict[int | str, Any] = {200: {"description": "A DiscoveryResponse.", "content": _RAW}}


show_examples(RevisionList([msgspec.convert(_REVISION, RevisionView)], None))


@router.post(
    "/v1/mesh/revisions",
    operation_id="apply_mesh",
    status_code=201,
    openapi_extra=body(ApplyBody, {"files": _FILES, "reason": "web calls user", "base": 7}),
    responses=answers(
        AppliedView,
        "Stored, and served from now on.",
        _REVISION | {"nodes": ["web"], "kept": [], "in_doubt": [], "warnings": []},
        201,
    )
    | answers(Plan, "With `dry_run`: what it would change.", {"base": 7, "changes": [], "nodes": []})
    | problems(400, 409, 413, 422, 429, 503),
)
async def apply_mesh(request: Request, mesh: MeshPart, actor: Actor, dry_run: DryRun = False) -> Response:
    """Apply a whole repository of definitions as the next revision.

    The registry compiles it and has an Envoy prove it. 422 names all faults at once, with file, line and fix, and
    nothing is stored; 409: another revision is in force than `base`. Bodies may have 16 MiB here.
    """
    async with mesh.place(actor, dry_run=dry_run):
        document = await request.body()
        if dry_run:
            return json(await mesh.plan(actor, document))
        return json(applied_view(await mesh.apply(actor, document)), 201)


@router.get(
    "/v1/mesh/revisions",
    operation_id="list_mesh_revisions",
    responses=answers(RevisionList, "A page of revisions.", None) | problems(413, 422, 503),
)
async def list_mesh_revisions(
    mesh: MeshRevisionsPart, reader: Reader, before: Before = None, limit: PageSize = 50
) -> Response:
    """List the revisions, the newest first: who applied what, when and why."""
    revisions = await mesh.revisions(reader, before=before, limit=limit)
    following = revisions[-1].number if len(revisions) == limit and revisions[-1].number > 1 else None
    return json(RevisionList([revision_view(each) for each in revisions], following))


@router.get(
    "/v1/mesh/revisions/{number}",
    operation_id="get_mesh_revision",
    responses=answers(RevisionDetailView, "The revision with its files.", _REVISION | {"files": _FILES})
    | problems(404, 413, 422, 429, 503),
)
async def get_mesh_revision(number: RevisionNumber, mesh: MeshRevisionsPart, reader: Reader) -> Response:
    """Return a revision with its files, which only a reader of all services gets."""
    return json(detail_view(await mesh.revision(reader, None if number == "current" else int(number))))


@router.post(
    "/v1/mesh/revisions/{number}/rollback",
    operation_id="roll_back_mesh",
    status_code=201,
    openapi_extra=body(RollbackRequest, {"reason": "web times out since revision 8"}),
    responses=answers(
        AppliedView,
        "Stored, and served from now on.",
        _REVISION | {"kind": "rollback", "nodes": ["web"], "kept": [], "in_doubt": [], "warnings": []},
        201,
    )
    | problems(400, 404, 409, 413, 422, 429, 503),
)
async def roll_back_mesh(number: RevisionNumber, request: Request, mesh: MeshPart, actor: Actor) -> Response:
    """Put the resources of an earlier revision in force again, byte for byte, as a new revision.

    Its gateways are compiled for the services that are registered now. A definition that the earlier revision lacks is
    kept while Envoys poll for it, or may do so, and the answer says so.
    """
    mesh.check_may_apply(actor)
    wanted = decode(_rollback, await request.body() or b"{}")
    former = None if number == "current" else int(number)
    return json(applied_view(await mesh.roll_back(actor, former, wanted.reason, wanted.allow_removal)), 201)


@router.get(
    "/v1/mesh/services/{service}",
    operation_id="get_mesh_service",
    responses=answers(EffectiveCaller, "The effective values.", {"name": "web", "dependencies": []})
    | problems(404, 413, 422, 429, 503),
)
async def get_mesh_service(service: ServiceName, mesh: MeshRevisionsPart, reader: Reader) -> Response:
    """Return the effective values of a service, a gateway or an edge, each with the place that it is from."""
    return _raw(await mesh.effective(reader, service))


@router.get(
    "/v1/mesh/services/{service}/bootstrap",
    operation_id="get_mesh_bootstrap",
    responses=_BOOTSTRAP | problems(404, 413, 422, 429, 503),
)
async def get_mesh_bootstrap(service: ServiceName, mesh: MeshRevisionsPart, reader: Reader) -> Response:
    """Return the bootstrap of a service's, a gateway's or an edge's Envoys, the same for all of its tasks."""
    return _raw(await mesh.bootstrap(reader, service))


@router.get(
    "/v1/mesh/services/{service}/resources/{kind}",
    operation_id="get_mesh_resources",
    responses=_SERVED | problems(404, 413, 422, 503),
)
async def get_mesh_resources(service: ServiceName, kind: Kind, mesh: MeshRevisionsPart, reader: Reader) -> Response:
    """Return the bytes that the Envoys of a service are served now, by this process, outside of any share."""
    type_url, served = mesh.served(reader, service, kind)
    resources = (each.body for each in served.resources.values())
    return _raw(encode_response(type_url, show_version(served.version), resources))


def _raw(document: bytes) -> Response:
    return Response(document, media_type="application/json")
