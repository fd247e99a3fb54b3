"""The JSON documents of the mesh configuration."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import asdict

from registry.compiler.job import ClientProof
from registry.core.mesh import Revision
from registry.core.mesh_gateways import UNPROVEN_GATEWAYS
from registry.http.problems import fault_view
from registry.http.views.epoch import Epoch
from registry.usecases.mesh import Applied
from registry.usecases.mesh_revisions import RevisionDetail
from wire.problem import ProblemFault


class ProofView(Struct, frozen=True):
    """How the resources of a revision were proven."""

    by: Annotated[str, Meta(description="`registry`, `sender`, or `nobody`: it was applied unproven.")] = "nobody"
    envoy: Annotated[list[str], Meta(description="The versions of Envoy that have accepted all of them.")] = []
    unproven_gateways: Annotated[
        list[str],
        Meta(
            description="Of the revision in force: gateways that were compiled again since, for other services, and "
            "that no Envoy has accepted as they are served now."
        ),
    ] = []


class RevisionView(Struct, frozen=True, kw_only=True):
    """A revision of the mesh configuration."""

    number: int
    at: Epoch
    kind: Annotated[str, Meta(description="`apply` or `rollback`.")]
    content: Annotated[int, Meta(description="The revision whose files it has: its own number, unless it rolls back.")]
    author: str
    reason: str
    commit: str
    base: Annotated[int, Meta(description="The revision before it.")]
    share: Annotated[float, Meta(description="The percentage of node ids that it began with.")]
    sha256: Annotated[str, Meta(description="Of all its resources.")]
    compiler: Annotated[str, Meta(description="The version of the registry that compiled it.")]
    proof: ProofView


class AppliedView(RevisionView, frozen=True, kw_only=True):
    """A revision that was just stored."""

    nodes: Annotated[list[str], Meta(description="Services, gateways and edges whose resources it changes.")]
    kept: Annotated[
        list[str],
        Meta(
            description="Those that a rollback has kept: the earlier revision lacks them, and Envoys poll for them or "
            "may do so."
        ),
    ]
    in_doubt: Annotated[
        list[str],
        Meta(description="Those of `kept` of which it is not certain whether any Envoy polls: a registry is new."),
    ]
    warnings: list[ProblemFault]


class RevisionDetailView(RevisionView, frozen=True, kw_only=True):
    """A revision with its files."""

    files: Annotated[
        msgspec.Raw,
        Meta(
            description="The text of each file by its path; null where you may not read all.",
            extra_json_schema={
                "anyOf": [{"type": "object", "additionalProperties": {"type": "string"}}, {"type": "null"}]
            },
        ),
    ]
    """Encoded, as the database has them."""


class RevisionList(Struct, frozen=True):
    """A page of revisions, the newest first; `next` is the `before` of the next page."""

    revisions: list[RevisionView]
    next: int | None


class RollbackRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """Why an earlier revision is to be in force again."""

    reason: Annotated[str, Meta(max_length=1_000)] = ""
    allow_removal: Annotated[
        tuple[str, ...],
        Meta(description="Definitions that the earlier revision lacks, to remove although Envoys poll for them."),
    ] = ()


class ApplyBody(Struct, frozen=True):
    """A repository of definitions to apply; the compiler reads it, so that this stands for OpenAPI alone."""

    files: Annotated[
        dict[str, str], Meta(description="The text of each file by its path; Jsonnet is evaluated before.")
    ]
    reason: Annotated[str, Meta(max_length=1_000, description="Why, for the history.")] = ""
    commit: Annotated[str, Meta(max_length=255, description="The commit of the repository.")] = ""
    base: Annotated[int, Meta(ge=0, description="409 unless this revision is in force; 0: none.")] | None = None
    share: Annotated[float, Meta(gt=0, le=100, description="Percentage of node ids that get it at first.")] | None = (
        None
    )
    allow_removal: Annotated[
        list[str], Meta(description="Definitions that may be removed although Envoys poll for them.")
    ] = []
    unproven: Annotated[bool, Meta(description="Apply it although no Envoy has accepted it; that stays visible.")] = (
        False
    )
    proof: ClientProof | None = None
    strict: Annotated[bool, Meta(description="Take warnings for errors.")] = False


def revision_view(revision: Revision) -> RevisionView:
    """Return the document of a revision."""
    return RevisionView(**_fields(revision))


def applied_view(applied: Applied) -> AppliedView:
    """Return the document of a revision that was just stored."""
    warnings = [fault_view(fault) for fault in applied.warnings]
    return AppliedView(
        **_fields(applied.revision),
        nodes=list(applied.nodes),
        kept=list(applied.kept),
        in_doubt=list(applied.in_doubt),
        warnings=warnings,
    )


def detail_view(detail: RevisionDetail) -> RevisionDetailView:
    """Return the document of a revision with its files."""
    return RevisionDetailView(**_fields(detail.revision), files=detail.files or msgspec.Raw(b"null"))


def _fields(revision: Revision) -> dict[str, Any]:
    proof = revision.proof
    envoy = proof.get("envoy")
    versions = [str(version) for version in envoy] if isinstance(envoy, list) else []
    gateways = list(proof.get(UNPROVEN_GATEWAYS, ()))
    return asdict(revision) | {"proof": ProofView(str(proof.get("by", "nobody")), versions, gateways)}
