"""Proof of a directory's definitions by Envoys of this machine, and what they say."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Raw

from meshconfig.resource import Catalog, Snapshot
from meshconfig.snapshot import compile_mesh
from registryctl.errors import NEGATIVE, RejectedError
from registryctl.faults import counted
from registryctl.mesh.definitions import Definitions, fault_document, load_directory
from registryctl.mesh.fault_lines import show_faults
from registryctl.mesh.prover import ProofResult, prove_with
from registryctl.mesh.registered import registered_catalog
from registryctl.mesh.words import plural
from registryctl.progress import progress
from registryctl.session import Session


def prove_directory(session: Session, directory: Path, envoys: Sequence[str]) -> int:
    """Print what Envoys say of a directory's definitions, and return the exit status."""
    definitions = load_directory(directory)
    result = prove(session, definitions, envoys, compile_mesh(definitions.configuration, Catalog()))
    screen = session.screen
    if session.json:
        document = {"proof": result.proof, "faults": [fault_document(fault) for fault in result.faults]}
        screen.document(Raw(msgspec.json.encode(document)))
    elif result.proof is not None:
        accepted = plural(len(definitions.configuration.callers), "service")
        screen.say(f"Envoy {' and '.join(result.proof.envoy)} accepts all that {directory} compiles to: {accepted}")
    else:
        show_faults(screen, result.faults)
        screen.say((f"refused: {counted(result.faults)}", "red"))
    return NEGATIVE if result.proof is None else 0


def proof_document(session: Session, definitions: Definitions, envoys: Sequence[str]) -> dict[str, object] | None:
    """Return the proof of definitions as the API takes it; None where no Envoy was named.

    Gateways are compiled with the services that are registered now, as the registry does.

    Raises:
        RejectedError: an Envoy refuses them.
    """
    if not envoys:
        return None
    catalog = Catalog()
    if definitions.configuration.gateways:
        with progress(session.screen.err, "reading the registered services, which gateways select from"):
            catalog = registered_catalog(session.client)
    result = prove(session, definitions, envoys, compile_mesh(definitions.configuration, catalog))
    if result.proof is None:
        raise RejectedError(
            f"Envoy refuses what these definitions compile to: {counted(result.faults)}",
            details=map(str, result.faults),
        )
    return dict(msgspec.to_builtins(result.proof))


def prove(session: Session, definitions: Definitions, envoys: Sequence[str], snapshot: Snapshot) -> ProofResult:
    """Return what Envoys of this machine say of what definitions compile to."""
    with progress(
        session.screen.err, f"proving {plural(len(snapshot.nodes), 'node.cluster')} with {', '.join(envoys)}"
    ):
        return prove_with(envoys, definitions.configuration, snapshot)
