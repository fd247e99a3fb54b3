"""Proof of definitions on this machine, by one Envoy or several versions of it."""

from collections.abc import Callable, Sequence

from msgspec import Struct, structs

from meshconfig.effective import Configuration
from meshconfig.position import Fault
from meshconfig.proof import Proof, UnprovenError, digest, faults_of_mesh
from meshconfig.resource import Snapshot
from meshconfig.stand_in_files import FILES
from registryctl.errors import UnreachableError, UsageError
from wire.envoy_validation import EnvoyUnavailableError, EnvoyValidator, envoy_validator


class ProofResult(Struct, frozen=True):
    """The result of a proof.

    Attributes:
        proof: what was proven; None where an Envoy refused something.
        faults: what the Envoys refused, each once; a fault that not all of them have names the versions that do.
    """

    proof: Proof | None
    faults: tuple[Fault, ...] = ()


def prove_with(
    binaries: Sequence[str],
    configuration: Configuration,
    snapshot: Snapshot,
    report: Callable[[str], None] = lambda _: None,
) -> ProofResult:
    """Let each of these Envoys validate all that a configuration compiles to.

    Args:
        binaries: paths of Envoy's binaries, or names on the PATH.
        configuration: the definitions.
        snapshot: what they compile to.
        report: takes a line of progress at a time.

    Raises:
        UsageError: a binary is missing, or does not run here.
        UnreachableError: an Envoy came to no verdict, which says nothing of the definitions.
    """
    by_version: dict[str, list[Fault]] = {}
    for binary in binaries:
        try:
            with envoy_validator(binary, FILES) as validator:
                report(f"Envoy {validator.version} validates {len(snapshot.nodes)} services, gateways and edges")
                by_version[validator.version] = _faults(validator, configuration, snapshot)
        except EnvoyUnavailableError as error:
            raise UsageError(str(error)) from error
    faults = _merged(by_version)
    return ProofResult(None if faults else Proof(digest(snapshot), tuple(by_version)), faults)


def _faults(validator: EnvoyValidator, configuration: Configuration, snapshot: Snapshot) -> list[Fault]:
    try:
        return faults_of_mesh(configuration, snapshot, validator.validate, str(validator.directory))
    except UnprovenError as error:
        raise UnreachableError(f"Envoy {validator.version} came to no verdict: {error}") from error


def _merged(by_version: dict[str, list[Fault]]) -> tuple[Fault, ...]:
    """Return each fault once, with the versions that have it unless all do."""
    versions: dict[Fault, list[str]] = {}
    for version, faults in by_version.items():
        for fault in faults:
            versions.setdefault(fault, []).append(version)
    return tuple(
        fault
        if len(having) == len(by_version)
        else structs.replace(fault, message=f"{fault.message} (Envoy {', '.join(having)} alone)")
        for fault, having in sorted(versions.items())
    )
