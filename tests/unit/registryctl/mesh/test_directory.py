"""Definitions on disk: what is read, what is refused, and what would have no effect."""

import os
from pathlib import Path

import pytest

from meshconfig.position import Severity
from meshconfig.source import MAX_BYTES
from registryctl.errors import UsageError
from registryctl.mesh.directory import read_directory

WEB = "service: web\n"


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    """A directory with a mesh.yaml and one service."""
    root = tmp_path / "mesh"
    (root / "services").mkdir(parents=True)
    (root / "mesh.yaml").write_text("environment: test\n")
    (root / "services/web.yaml").write_text(WEB)
    return root


def faults(root: Path) -> list[str]:
    """Return the faults of a directory as lines."""
    return [str(fault) for fault in read_directory(root).faults]


def test_definitions_are_read_by_their_paths(mesh: Path) -> None:
    """Other files of a repository are none of ours: its README, its tests, its hidden files."""
    (mesh / "README.md").write_text("# Mesh")
    (mesh / ".git").mkdir()
    (mesh / "tests").mkdir()
    (mesh / "services/.web.yaml.swp").write_text("")
    (mesh / "groups").mkdir()
    (mesh / "groups/core.yml").write_text("\ufeffgroup: core\n", "utf-8")
    directory = read_directory(mesh)
    assert directory.files == {
        "groups/core.yml": "group: core\n",
        "mesh.yaml": "environment: test\n",
        "services/web.yaml": WEB,
    }
    assert directory.faults == ()


def test_a_directory_without_definitions_is_refused(tmp_path: Path) -> None:
    """The error says how to begin; so does that for a directory that is not there."""
    with pytest.raises(UsageError, match="no definitions here") as refused:
        read_directory(tmp_path)
    assert "mesh init" in refused.value.fix
    with pytest.raises(UsageError, match="no such file or directory"):
        read_directory(tmp_path / "none")


def test_links_stay_inside(mesh: Path, tmp_path: Path) -> None:
    """A link within the directory is followed; those that lead out, to nothing or to themselves are refused."""
    outside = tmp_path / "secret.yaml"
    outside.write_text("service: secret\n")
    (mesh / "services/shop.yaml").symlink_to("web.yaml")
    (mesh / "services/out.yaml").symlink_to(outside)
    (mesh / "services/gone.yaml").symlink_to("nothing.yaml")
    (mesh / "services/loop.yaml").symlink_to("loop.yaml")
    (mesh / "groups").symlink_to(tmp_path)
    directory = read_directory(mesh)
    assert set(directory.files) == {"mesh.yaml", "services/shop.yaml", "services/web.yaml"}
    assert [(fault.position.file, fault.message.split(",")[0]) for fault in directory.faults] == [
        ("groups", "The link leads out of the directory"),
        ("services/gone.yaml", "The file cannot be read: no such file or directory."),
        ("services/loop.yaml", "The file cannot be read: its links lead to each other."),
        ("services/out.yaml", "The link leads out of the directory"),
    ]


def test_files_that_cannot_be_read_are_named(mesh: Path) -> None:
    """A folder, a pipe without a writer, a huge file and one that is not UTF-8 are faults, and no file is skipped."""
    (mesh / "services/folder.yaml").mkdir()
    os.mkfifo(mesh / "services/pipe.yaml")
    (mesh / "services/huge.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    (mesh / "services/latin.yaml").write_bytes(b"service: web\n# caf\xe9\n")
    assert faults(mesh) == [
        "services/folder.yaml: This is a folder, and a file is expected.",
        (
            "services/huge.yaml: The file has 1,048,577 bytes, and at most 1,048,576 are allowed."
            " Split it, or move what many share into a group."
        ),
        "services/latin.yaml:2:1: The file is not UTF-8 in this line. Save it as UTF-8.",
        "services/pipe.yaml: This is no regular file, and a file is expected.",
    ]


def test_two_files_of_a_name_are_refused(mesh: Path) -> None:
    """Neither case nor suffix tells two services apart."""
    (mesh / "services/web.yml").write_text(WEB)
    (mesh / "services/Web.yaml").write_text("service: Web\n")
    messages = {fault.position.file: fault.message for fault in read_directory(mesh).faults}
    assert messages["services/web.yaml"].startswith("services/Web.yaml is of the same name, and some file systems")
    assert set(messages) == {"services/web.yaml", "services/web.yml"}


def test_files_without_an_effect_are_warnings(mesh: Path) -> None:
    """Nobody else would say that such a file is not read."""
    (mesh / "web.yaml").write_text(WEB)
    (mesh / "service").mkdir()
    (mesh / "service/cart.yaml").write_text("service: cart\n")
    (mesh / "services/cart.YAML").write_text("{}")
    (mesh / "services/team").mkdir()
    (mesh / "services/team/pay.yaml").write_text("service: pay\n")
    assert [(fault.position.file, fault.severity) for fault in read_directory(mesh).faults] == [
        ("service", Severity.WARNING),
        ("services/cart.YAML", Severity.WARNING),
        ("services/team", Severity.ERROR),
        ("web.yaml", Severity.WARNING),
    ]
    assert "Did you mean services?" in faults(mesh)[0]
