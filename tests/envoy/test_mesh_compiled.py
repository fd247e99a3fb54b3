"""Everything that the compiler can make, looked at by a real Envoy: no error, and no warning either."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness.envoy import binary
from harness.mesh_everything import CATALOG, everything
from harness.mesh_validation import complaints

from meshconfig.definition.mesh import Mesh
from meshconfig.definition.tracing import Tracing
from meshconfig.proof import faults_of_mesh
from meshconfig.snapshot import compile_mesh
from meshconfig.stand_in_files import FILES
from wire.envoy_validation import envoy_validator

pytestmark = pytest.mark.envoy


@pytest.mark.parametrize("provider", ["zipkin", "xray", "datadog", "opentelemetry", "skywalking"])
def test_every_policy_is_accepted_without_a_warning(provider: Any, tmp_path: Path) -> None:
    """By the newest Envoy; `make matrix` asks the older ones."""
    mesh = Mesh(
        tracing=Tracing(provider=provider, address="127.0.0.1:9411"), internal_ranges=("127.0.0.1", "10.0.0.0/8")
    )
    assert complaints(binary(), everything(mesh), CATALOG, tmp_path) == []


def test_every_policy_is_proven() -> None:
    """Also by an Envoy that runs as nobody and has none of the files."""
    configuration = everything(Mesh())
    with envoy_validator(binary(), FILES) as validator:
        snapshot = compile_mesh(configuration, CATALOG)
        assert faults_of_mesh(configuration, snapshot, validator.validate, str(validator.directory)) == []


def test_neither_hash_seed_nor_locale_changes_a_byte() -> None:
    """Processes of a registry compile the same bytes, so that no Envoy is woken by a restart."""
    code = (
        "from harness.mesh_everything import CATALOG, everything\n"
        "from meshconfig.definition.mesh import Mesh\n"
        "from meshconfig.proof import digest\n"
        "from meshconfig.snapshot import compile_mesh\n"
        "print(digest(compile_mesh(everything(Mesh()), CATALOG)))\n"
    )
    environments = [
        {"PYTHONHASHSEED": "1", "LC_ALL": "C"},
        {"PYTHONHASHSEED": "2", "LC_ALL": "de_DE.UTF-8"},
    ]
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for environment in environments
    }
    assert len(digests) == 1
