"""What `registrar doctor` says of the edge."""

from pathlib import Path

import pytest

from registrar.config.listen import ListenAddress
from registrar.config.settings import Settings
from registrar.diagnostic import Severity
from registrar.doctor.edge import examine_edge

EDGE = Settings(edge_listen=ListenAddress("127.0.0.1", 9903))


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with a limit of 8, and a process that has six instances."""
    (tmp_path / "sys/fs/inotify").mkdir(parents=True)
    (tmp_path / "sys/fs/inotify/max_user_instances").write_text("8\n")
    descriptors = tmp_path / "17" / "fd"
    descriptors.mkdir(parents=True)
    for number in range(6):
        (descriptors / str(number)).symlink_to("anon_inode:inotify")
    (descriptors / "9").symlink_to("/dev/null")
    return tmp_path


def test_an_edge_with_a_disk(tmp_path: Path, proc: Path) -> None:
    """Its directory is tried, and nothing is left there."""
    section = examine_edge(EDGE, {"STATE_DIRECTORY": f"{tmp_path}/state:/other"}, proc)
    assert [each.severity for each in section.diagnostics] == [Severity.OK, Severity.OK]
    assert list((tmp_path / "state" / "edge").iterdir()) == []


def test_what_is_missing_is_said(tmp_path: Path, proc: Path) -> None:
    """No edge, no directory, and one that cannot be written."""
    (off,) = examine_edge(Settings(), {}, proc).diagnostics
    assert (off.severity, "REGISTRAR_EDGE_LISTEN" in off.fix) == (Severity.NOTE, True)
    _, forgetful = examine_edge(EDGE, {}, proc).diagnostics
    assert (forgetful.severity, "REGISTRAR_STATE_DIRECTORY" in forgetful.fix) == (Severity.WARN, True)
    (tmp_path / "state").write_text("in the way")
    _, broken = examine_edge(EDGE, {"STATE_DIRECTORY": f"{tmp_path}/state"}, proc).diagnostics
    assert broken.severity is Severity.FAIL


def test_inotify_instances_that_run_out(proc: Path) -> None:
    """Files of endpoints take one each; the warning comes before the last one."""
    (proc / "17/fd/6").symlink_to("anon_inode:inotify")
    warning = examine_edge(Settings(), {}, proc).diagnostics[-1]
    assert (warning.severity, "7 of 8" in warning.text) == (Severity.WARN, True)
    assert len(examine_edge(Settings(), {}, proc / "nowhere").diagnostics) == 1
