"""Every supported version of Envoy accepts everything that the compiler can make, without a warning.

``make matrix`` fetches the versions, by the hashes in ``tests/envoy/versions``. `ENVOYS` names the directory that has
them; one that is missing there is skipped, and the reason is printed.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from harness.envoy import binary
from harness.mesh_everything import CATALOG, everything
from harness.mesh_validation import complaints

from meshconfig.definition.mesh import Mesh
from meshconfig.definition.tracing import Tracing
from meshconfig.importers.appmesh import import_appmesh
from meshconfig.repository import read
from meshconfig.resource import Catalog
from wire.envoy_validation import envoy_validator

pytestmark = [pytest.mark.envoy, pytest.mark.matrix]

ENVOYS = "HEADCOUNT_ENVOYS"
"""The environment variable with the directory of Envoys, each in a directory named by its version."""
_VERSIONS = sorted(path.stem for path in (Path(__file__).parent / "versions").glob("*.lock"))
_SAMPLES = Path(__file__).parents[1] / "samples" / "import"
_NEWEST = "newest"
"""The one that the environment has, as all other tests use it."""


@pytest.fixture(params=[*_VERSIONS, _NEWEST])
def executable(request: pytest.FixtureRequest) -> str:
    """The binary of a version."""
    if request.param == _NEWEST:
        return binary()
    directory = Path(os.environ.get(ENVOYS, ".")) / request.param
    path = next(directory.glob("**/_bin/envoy"), None)
    if path is None:
        pytest.skip(f"{ENVOYS} has no Envoy {request.param} in {directory}: make matrix fetches it")
    with envoy_validator(str(path), {}) as validator:
        assert validator.version == request.param
    return str(path)


@pytest.mark.parametrize("provider", ["zipkin", "xray", "datadog", "opentelemetry", "skywalking"])
def test_every_policy_is_accepted(executable: str, provider: Any, tmp_path: Path) -> None:
    """With each tracing, which is in the bootstrap too."""
    tracing = Tracing(provider=provider, address="127.0.0.1:9411")
    mesh = Mesh(tracing=tracing, internal_ranges=("127.0.0.1", "10.0.0.0/8"))
    assert complaints(executable, everything(mesh), CATALOG, tmp_path) == []


def test_an_imported_mesh_is_accepted(executable: str, tmp_path: Path) -> None:
    """Of App Mesh's documents."""
    documents = {path.name: json.loads(path.read_text()) for path in sorted(_SAMPLES.glob("*appmesh*.json"))}
    configuration, faults = read(import_appmesh(documents).files)
    assert configuration is not None, faults
    assert complaints(executable, configuration, Catalog(), tmp_path) == []
