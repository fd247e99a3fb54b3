"""`mesh prove` with several Envoys: what all accept is proven by all, and what one refuses names it."""

from pathlib import Path

import pytest
from harness.envoy import binary

from meshconfig.repository import read
from meshconfig.resource import Catalog
from meshconfig.snapshot import compile_mesh
from registryctl.errors import UnreachableError, UsageError
from registryctl.mesh.prover import prove_with

pytestmark = pytest.mark.envoy

FILES = {"services/web.yaml": "service: web\ndependencies: [{service: shop}]\n"}


def envoy_of(directory: Path, name: str, script: str) -> str:
    """Return an Envoy that is a shell script."""
    path = directory / name
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "version: 0123/{name}/x" && exit\n{script}\n')
    path.chmod(0o755)
    return str(path)


def test_a_proof_names_all_envoys_and_a_fault_those_that_have_it(tmp_path: Path) -> None:
    """The real Envoy accepts it, an old one does not; one that crashes, or is not there, proves nothing."""
    configuration, _ = read(FILES)
    assert configuration is not None
    snapshot = compile_mesh(configuration, Catalog())
    lines: list[str] = []
    result = prove_with([binary(), binary()], configuration, snapshot, lines.append)
    assert result.faults == ()
    assert result.proof is not None
    assert result.proof.covers(snapshot)
    assert not result.proof.covers(compile_mesh(read({**FILES, "services/b.yaml": "service: b\n"})[0], Catalog()))  # type: ignore[arg-type]
    assert lines[0] == f"Envoy {result.proof.envoy[0]} validates 1 services, gateways and edges"
    refusal = "error initializing configuration 'x': static_resources.clusters[1]: too new"
    refusing = f'grep -q EDS "$4" || exit 0; echo "{refusal}"; exit 1'
    result = prove_with([binary(), envoy_of(tmp_path, "1.30.0", refusing)], configuration, snapshot)
    assert result.proof is None
    (fault,) = result.faults
    assert str(fault).startswith("services/web.yaml:2:")
    assert str(fault).endswith("too new. (Envoy 1.30.0 alone)")
    with pytest.raises(UnreachableError, match=r"Envoy 1\.31\.0 came to no verdict: Envoy was ended by signal 6"):
        prove_with([envoy_of(tmp_path, "1.31.0", "kill -ABRT $$")], configuration, snapshot)
    with pytest.raises(UsageError, match="no-such-envoy"):
        prove_with(["no-such-envoy"], configuration, snapshot)
