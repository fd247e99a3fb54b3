"""The work of the compiler's process: from a job to its result."""

import traceback
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from meshconfig.bootstrap import bootstrap
from meshconfig.difference import differences
from meshconfig.effective import Configuration
from meshconfig.effective_values import effective_values
from meshconfig.gateway import selection_of
from meshconfig.gateway_isolation import GatewayRefusedError, isolate
from meshconfig.plan import Plan
from meshconfig.planning import make_plan
from meshconfig.position import Fault, Severity
from meshconfig.proof import RefusedPart, UnprovenError, digest, refused_parts
from meshconfig.repository import read
from meshconfig.resource import Kind, Resource, Snapshot
from meshconfig.snapshot import catalog_findings, compile_gateways, compile_mesh
from meshconfig.stand_in_files import FILES
from meshconfig.static_bootstrap import StaticBootstrap, static_bootstraps
from registry.compiler.job import (
    MAX_FILES,
    ApplyRequest,
    CompareFiles,
    CompareMesh,
    Compile,
    Compiled,
    CompiledGateway,
    CompileGateway,
    CompileGateways,
    Failed,
    Inflate,
    Job,
    Malformed,
    Result,
    Shown,
    ShowService,
)
from registry.compiler.nodes import decode_node, encode_node
from wire.envoy_validation import EnvoyUnavailableError, EnvoyValidator, envoy_validator
from wire.validation_error import described

_WARNING = Severity.WARNING
MAX_INFLATED = 64 * 1024 * 1024
"""Bytes of the files of a revision."""

_Resources = Mapping[str, Mapping[Kind, Mapping[str, Resource]]]

_request = msgspec.json.Decoder(ApplyRequest)
_files = msgspec.json.Decoder(dict[str, str])


def work(job: Job) -> Result:
    """Return the result of a job; a defect is a result too."""
    try:
        match job:
            case Compile():
                return _compile(job)
            case CompileGateways():
                return _compile_gateways(job)
            case CompileGateway():
                return _compile_gateway(job)
            case ShowService() | Inflate():
                return _show(job)
            case CompareFiles() | CompareMesh():
                return _compare(job)
    except Exception:  # noqa: BLE001  # the other process logs it
        return Failed(traceback.format_exc())


def _compile(job: Compile) -> Compiled | Malformed:
    request = _read_request(job.document)
    if isinstance(request, Malformed):
        return request
    files, request = request.files, replace(request, files={})
    configuration, faults = read(files, registered=job.catalog.metadata, strict=request.strict)
    if configuration is None:
        return Compiled(request, faults)
    findings = catalog_findings(configuration, job.catalog)
    if request.strict:
        findings = [each if each.inherent else replace(each, severity=Severity.ERROR) for each in findings]
    faults = [*faults, *findings]
    if any(fault.severity is Severity.ERROR for fault in faults):
        return Compiled(request, faults)
    snapshot = compile_mesh(configuration, job.catalog)
    proof = _prove(configuration, snapshot, job.envoy) if job.envoy and not request.unproven else _Proof()
    if kept_out := _kept_out(proof.refused, job.refused):
        snapshot = compile_mesh(configuration, job.catalog, left_out=job.refused)
        proof = _prove(configuration, snapshot, job.envoy)
        faults += kept_out
    compiled = Compiled(
        request,
        [*faults, *dict.fromkeys(part.fault for part in proof.refused)],
        _without_bodies(snapshot.nodes, job.stored),
        digest(snapshot),
        _deflated(files),
        changes_mesh=_changes_mesh(_files_of(job.base_files), files),
        envoy=proof.envoy,
        unproven=proof.failure,
    )
    if job.plan:
        versions = request.proof.envoy if request.proof is not None else ()
        proven = (*versions, compiled.envoy) if compiled.envoy else versions
        compiled = replace(compiled, plan=_plan(job, (configuration, snapshot), proven, faults))
    return compiled


def _read_request(document: bytes) -> ApplyRequest | Malformed:
    try:
        request = _request.decode(document)
    except msgspec.ValidationError as error:
        return Malformed(*described(error, ApplyRequest))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Malformed(f"the body is no JSON: {error}", readable=False)
    if len(request.files) > MAX_FILES:
        return Malformed(f"there are {len(request.files)} files, and at most {MAX_FILES} are allowed", "$.files")
    for path in request.files:
        if not path.isprintable():
            return Malformed(f"the path {path!r} has a character that cannot be printed", "$.files")
    return request


def _compare(job: CompareFiles | CompareMesh) -> Shown:
    if isinstance(job, CompareMesh):
        return Shown(msgspec.json.encode(_changes_mesh(_files_of(job.before), _files_of(job.after))))
    return Shown(msgspec.json.encode(differences(_configuration(job.before), _configuration(job.after))))


def _compile_gateways(job: CompileGateways) -> Compiled:
    request = ApplyRequest({})
    configuration, faults = read(_files.decode(_inflated(job.files)))
    if configuration is None:
        return Compiled(request, faults)
    snapshot = compile_gateways(configuration, job.catalog)
    selections = [selection_of(gateway) for _, gateway in sorted(configuration.gateways.items())]
    compiled = Compiled(
        request, faults, _without_bodies(snapshot.nodes, job.stored), digest(snapshot), selections=selections
    )
    if not job.envoy or not snapshot.nodes:
        return compiled
    gateways = Configuration(mesh=configuration.mesh, gateways=configuration.gateways, targets=configuration.targets)
    proof = _prove(gateways, snapshot, job.envoy)
    refused = [*faults, *dict.fromkeys(part.fault for part in proof.refused)]
    return replace(compiled, faults=refused, envoy=proof.envoy, unproven=proof.failure)


def _compile_gateway(job: CompileGateway) -> CompiledGateway:
    versions: set[str] = set()

    def prove_alone(configuration: Configuration, snapshot: Snapshot) -> list[RefusedPart]:
        if not job.envoy:
            return []
        with _proving(job.envoy, configuration, snapshot) as (validator, bootstraps):
            versions.add(validator.version)
            return refused_parts(bootstraps, validator.validate, configuration)

    files = _files.decode(_inflated(job.files))
    try:
        isolated = isolate(files, job.name, job.catalog, job.accepted, job.served, prove_alone)
    except GatewayRefusedError as error:
        whose = f"{error.service}: " if error.service else ""
        return CompiledGateway(refused={"": f"{whose}{error}"})
    except (EnvoyUnavailableError, UnprovenError) as error:
        return CompiledGateway(refused={"": str(error)})
    if isolated is None:
        return CompiledGateway()
    return CompiledGateway(
        _without_bodies(isolated.snapshot.nodes, frozenset()),
        next(iter(versions), ""),
        isolated.catalog,
        selection_of(isolated.configuration.gateways[job.name]),
        isolated.refused,
    )


def _show(job: ShowService | Inflate) -> Shown:
    if isinstance(job, Inflate):
        return Shown(_inflated(job.files))
    configuration, _ = read(_files.decode(_inflated(job.files)))
    if configuration is None:
        return Shown(b"")
    if job.bootstrap:
        try:
            return Shown(msgspec.json.encode(bootstrap(configuration, job.name)))
        except KeyError:
            return Shown(b"")
    values = effective_values(configuration, job.name, job.catalog)
    if values is None:
        return Shown(b"")
    if values.kind == "gateway":
        # A service that is refused, or came just now, is selected and not served.
        served = tuple(each for each in values.dependencies if each.name in job.served)
        values = replace(values, dependencies=served)
    return Shown(msgspec.json.encode(values))


def _plan(job: Compile, after: tuple[Configuration, Snapshot], proven: tuple[str, ...], warnings: list[Fault]) -> Plan:
    """Return the plan from the revision in force to what was compiled."""
    before = read(_files.decode(_inflated(job.base_files)))[0] if job.base_files else None
    return make_plan(
        (before or Configuration(), Snapshot({node: decode_node(each) for node, each in job.base_resources.items()})),
        after,
        base=job.base,
        fleet=job.fleet,
        proven=proven,
        warnings=warnings,
    )


class _Proof(Struct, frozen=True):
    """The verdict of an Envoy.

    Attributes:
        refused: what it refuses.
        envoy: its version, if it accepts everything.
        failure: why there is no verdict; empty: there is, or none was asked for.
    """

    refused: Sequence[RefusedPart] = ()
    envoy: str = ""
    failure: str = ""


def _prove(configuration: Configuration, snapshot: Snapshot, binary: str) -> _Proof:
    """Return what an Envoy says of a compiled configuration."""
    try:
        with _proving(binary, configuration, snapshot) as (validator, bootstraps):
            refused = refused_parts(bootstraps, validator.validate, configuration)
            return _Proof(refused, "" if refused else validator.version)
    except (EnvoyUnavailableError, UnprovenError) as error:
        return _Proof(failure=str(error))


def _kept_out(refused: Sequence[RefusedPart], known: Mapping[str, frozenset[str]]) -> list[Fault]:
    """Return warnings of services that stay left out of gateways; none where something else is refused, too.

    Only what an Envoy has refused before may be left out: anything else is the definitions' fault.
    """
    if not all(part.nodes and all(part.service in known.get(node, ()) for node in part.nodes) for part in refused):
        return []
    fix = "Change what it registers; until then the gateway serves the others without it."
    return [
        replace(part.fault, message=f"{part.service} stays left out. {part.fault.message}", fix=fix, severity=_WARNING)
        for part in refused
    ]


@contextmanager
def _proving(
    binary: str, configuration: Configuration, snapshot: Snapshot
) -> Iterator[tuple[EnvoyValidator, list[StaticBootstrap]]]:
    """Yield an Envoy, and bootstraps with everything that a configuration compiles to."""
    with envoy_validator(binary, FILES) as validator:
        names = [*configuration.callers, *configuration.gateways, *configuration.edges]
        served = {name: bootstrap(configuration, name) for name in names}
        yield validator, static_bootstraps(snapshot, served, directory=str(validator.directory))


def _without_bodies(nodes: _Resources, stored: frozenset[str]) -> Mapping[str, msgspec.Raw]:
    """Return resources with each body once, and without those that are stored."""
    known = set(stored)

    def once(resource: Resource) -> Resource:
        if resource.sha256 in known:
            return replace(resource, body=b"")
        known.add(resource.sha256)
        return resource

    return {
        node: encode_node(
            {kind: {name: once(each) for name, each in resources.items()} for kind, resources in kinds.items()}
        )
        for node, kinds in nodes.items()
    }


def _deflated(files: Mapping[str, str]) -> bytes:
    return zlib.compress(msgspec.json.encode(files, order="sorted"))


def _inflated(files: bytes) -> bytes:
    """Return the JSON object of deflated files; a row that a person has written must not take all memory."""
    inflater = zlib.decompressobj()
    document = inflater.decompress(files, MAX_INFLATED)
    if not inflater.eof:
        raise ValueError(f"the files of the revision are damaged, or have more than {MAX_INFLATED} bytes")
    return document


def _files_of(deflated: bytes) -> Mapping[str, str] | None:
    """Return the files of a revision; none for no revision, and None where they are damaged."""
    try:
        return _files.decode(_inflated(deflated)) if deflated else {}
    except (ValueError, zlib.error, msgspec.DecodeError):
        return None


def _changes_mesh(before: Mapping[str, str] | None, after: Mapping[str, str] | None) -> bool:
    """Return whether mesh.yaml differs in meaning; it does where that cannot be found out."""
    if before is None or after is None:
        return True
    if _mesh_files(before) == _mesh_files(after):
        return False
    former, latter = read(before)[0], read(after)[0]
    return former is None or latter is None or former.mesh != latter.mesh


def _mesh_files(files: Mapping[str, str]) -> Mapping[str, str]:
    """Return the files that may be mesh.yaml, whatever their suffix."""
    return {path: text for path, text in files.items() if path.startswith("mesh.")}


def _configuration(deflated: bytes) -> Configuration:
    """Return the configuration of a revision; an empty one for none, and for what this version cannot read."""
    configuration = read(_files.decode(_inflated(deflated)))[0] if deflated else None
    return Configuration() if configuration is None else configuration
