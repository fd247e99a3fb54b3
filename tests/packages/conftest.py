"""Fixtures of the packages: those of this checkout, and the same as an older revision to upgrade from."""

from pathlib import Path

import pytest
from harness.packages import Packages, build_packages, build_wheel


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def revisions(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Packages]:
    """The packages of this checkout, as revision 0 and as revision 1 of its version."""
    return build_packages(wheel, tmp_path_factory.mktemp("packages"), ["0", "1"])


@pytest.fixture(scope="session")
def packages(revisions: dict[str, Packages]) -> Packages:
    """The packages of this checkout."""
    return revisions["1"]


@pytest.fixture(scope="session")
def former_packages(revisions: dict[str, Packages]) -> Packages:
    """The packages to upgrade from."""
    return revisions["0"]
