"""The notes of a release are the changelog's section of its version."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
RELEASE = ROOT / "deploy" / "packages" / "release.py"
CHANGELOG = """\
# Changelog

## [Unreleased]

{unreleased}
## [1.2.0] - {date}

### Added

- A thing.

## [1.1.0] - 2026-01-02

- Another.
"""


@pytest.fixture(scope="module")
def release() -> ModuleType:
    """The script of `make release`."""
    spec = importlib.util.spec_from_file_location("release", RELEASE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notes_of_a_release_are_its_section(release: ModuleType) -> None:
    """A dated section with nothing above it is a release without reservations."""
    notes, warnings = release.release_notes(CHANGELOG.format(unreleased="", date="2026-11-29"), "1.2.0")
    assert notes == "# Headcount 1.2.0\n\n### Added\n\n- A thing.\n"
    assert warnings == []


def test_a_candidate_is_named_as_one(release: ModuleType) -> None:
    """Lines that are unreleased and a section without a date are said, and the lines are in the notes."""
    notes, warnings = release.release_notes(CHANGELOG.format(unreleased="- New.\n", date="unreleased"), "1.2.0")
    assert notes.startswith("# Headcount 1.2.0\n\n- New.\n\n### Added\n")
    assert len(warnings) == 2


def test_a_version_without_a_section_is_no_release(release: ModuleType) -> None:
    """The version of pyproject.toml was moved and the changelog was not."""
    with pytest.raises(SystemExit, match=r"no section \[1\.3\.0\]"):
        release.release_notes(CHANGELOG.format(unreleased="", date="2026-11-29"), "1.3.0")


def test_this_version_has_a_section(release: ModuleType) -> None:
    """The changelog of this checkout fits its version."""
    changelog = (ROOT / "CHANGELOG.md").read_text()
    version = release.project_version()
    assert release.release_notes(changelog, version)[0].startswith(f"# Headcount {version}\n")
