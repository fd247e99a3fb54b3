"""A job of the compiler and its result, as they go to its process and come back."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from msgspec import Meta, Raw, Struct

from meshconfig.gateway_selection import GatewaySelection
from meshconfig.plan import Fleet, Plan
from meshconfig.position import Fault, Severity
from meshconfig.resource import Catalog

MAX_FILES = 10_000
"""Files of a repository."""
MAX_PATH = 255
"""Characters of a file's path."""

Path = Annotated[str, Meta(min_length=1, max_length=MAX_PATH)]
Sentence = Annotated[str, Meta(max_length=1_000, description="For the history.")]


class ClientProof(Struct, frozen=True, forbid_unknown_fields=True):
    """A proof by the sender's own Envoy. It counts if its digest is that of what the registry has compiled.

    Attributes:
        sha256: the digest of all compiled resources.
        envoy: the versions of Envoy that accepted them.
    """

    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    envoy: Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(min_length=1, max_length=20)]


class ApplyRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A repository of definitions to apply, and how.

    Attributes:
        files: the text of each file by its path; Jsonnet is evaluated before.
        reason: why.
        commit: the commit of the repository.
        base: the revision that the sender knows; with another one in force nothing is applied.
        share: the percentage of node ids that are served it at first.
        allow_removal: services, gateways and edges whose definition may be removed although Envoys poll for it.
        unproven: apply it although no Envoy has accepted it; that stays visible.
        proof: the proof of the sender's own Envoy.
        strict: take warnings for errors.
    """

    files: dict[Path, str]
    reason: Sentence = ""
    commit: Annotated[str, Meta(max_length=255)] = ""
    base: Annotated[int, Meta(ge=0)] | None = None
    share: Annotated[float, Meta(gt=0, le=100)] | None = None
    allow_removal: tuple[str, ...] = ()
    unproven: bool = False
    proof: ClientProof | None = None
    strict: bool = False


class Compile(Struct, frozen=True, tag=True):
    """Read, compile and prove what somebody wants to apply.

    Attributes:
        document: the JSON document of an `ApplyRequest`.
        catalog: the registered services.
        stored: the digests of the bodies that are stored, which need not come back.
        envoy: the Envoy that proves it; empty: none.
        refused: services that an Envoy has refused before and that are not served, by the gateway: they stay left out.
        base_files: the deflated files of the revision in force.
        plan: whether a plan is wanted, by the following.
        base: the number of the revision in force.
        base_resources: its resources without bodies: a document for each node.cluster (`registry.compiler.nodes`).
        fleet: the Envoys that poll.
    """

    document: bytes
    catalog: Catalog
    stored: frozenset[str] = frozenset()
    envoy: str = ""
    refused: Mapping[str, frozenset[str]] = {}
    base_files: bytes = b""
    plan: bool = False
    base: int = 0
    base_resources: Mapping[str, Raw] = {}
    fleet: Fleet | None = None


class CompileGateways(Struct, frozen=True, tag=True):
    """Compile the gateways of a revision for the services that are registered now."""

    files: bytes
    catalog: Catalog
    stored: frozenset[str] = frozenset()
    envoy: str = ""


class CompileGateway(Struct, frozen=True, tag=True):
    """Compile one gateway of a revision, without services that would be refused.

    Attributes:
        files: the deflated files of the revision.
        name: the gateway.
        catalog: the services that are registered now.
        accepted: the services as they were when it was accepted last, as far as that is remembered.
        served: the clusters that its Envoys use now.
        envoy: the Envoy that proves it; empty: none.
    """

    files: bytes
    name: str
    catalog: Catalog
    accepted: Catalog
    served: frozenset[str]
    envoy: str = ""


class ShowService(Struct, frozen=True, tag=True):
    """Return the effective values of a service, a gateway or an edge, or its bootstrap.

    Attributes:
        files: the deflated files of the revision.
        name: the service, the gateway or the edge.
        bootstrap: whether its bootstrap is wanted.
        catalog: the registered services that a gateway selects from.
        served: of a gateway, the clusters that its Envoys are served; services of others are not shown.
    """

    files: bytes
    name: str
    bootstrap: bool = False
    catalog: Catalog = Catalog()
    served: frozenset[str] = frozenset()


class Inflate(Struct, frozen=True, tag=True):
    """Return the files of a revision as a JSON object."""

    files: bytes


class CompareFiles(Struct, frozen=True, tag=True):
    """Return the differences in meaning between the files of two revisions; no files stand for no revision."""

    before: bytes
    after: bytes


class CompareMesh(Struct, frozen=True, tag=True):
    """Return whether mesh.yaml differs in meaning between the files of two revisions: a JSON boolean."""

    before: bytes
    after: bytes


Job = Compile | CompileGateways | CompileGateway | ShowService | Inflate | CompareFiles | CompareMesh


class Compiled(Struct, frozen=True, tag=True):
    """The result of compiling.

    Attributes:
        request: the request, without its files.
        faults: everything that is wrong; with an error among them there is nothing else.
        resources: a document for each node.cluster (`registry.compiler.nodes`); bodies that are stored are left out.
        sha256: the digest of all resources.
        files: the deflated files.
        envoy: the version of the Envoy that accepted all of it; empty: none was asked.
        unproven: why no Envoy came to a verdict; empty: none failed.
        plan: the plan, if one was wanted.
        selections: of gateways that were compiled alone, what each selects from the catalog.
        changes_mesh: whether mesh.yaml differs in meaning from that of the revision in force. All services share it,
            and some of it is in their bootstraps alone.
    """

    request: ApplyRequest
    faults: Sequence[Fault] = ()
    resources: Mapping[str, Raw] = {}
    sha256: str = ""
    files: bytes = b""
    envoy: str = ""
    unproven: str = ""
    plan: Plan | None = None
    changes_mesh: bool = False
    selections: Sequence[GatewaySelection] = ()


class CompiledGateway(Struct, frozen=True, tag=True):
    """The result of compiling one gateway.

    Attributes:
        resources: its resources as in `Compiled`; empty where nothing new may be served, or no gateway has the name.
        envoy: the version of the Envoy that accepted it; empty: none was asked.
        catalog: the services as it uses them.
        selection: what it selects from the catalog; None: nothing new may be served, or no gateway has the name.
        refused: why services are served as they were, or not yet; under the empty name, why the gateway is.
    """

    resources: Mapping[str, Raw] = {}
    envoy: str = ""
    catalog: Catalog = Catalog()
    selection: GatewaySelection | None = None
    refused: Mapping[str, str] = {}


class Shown(Struct, frozen=True, tag=True):
    """A JSON document; empty where there is nothing of the name that was asked for."""

    document: bytes


class Malformed(Struct, frozen=True, tag=True):
    """The document of a request is none: where, and why."""

    message: str
    pointer: str = ""
    readable: bool = True


class Failed(Struct, frozen=True, tag=True):
    """The job failed by a defect, of which the registry's log has the traceback."""

    traceback: str


Result = Compiled | CompiledGateway | Shown | Malformed | Failed


def refusal(result: Compiled) -> str:
    """Return why compiled gateways may not be served; empty: they may."""
    errors = [str(fault) for fault in result.faults if fault.severity is Severity.ERROR]
    return errors[0] if errors else result.unproven
