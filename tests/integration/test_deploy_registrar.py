"""What deploy/ has for the registrar agrees with the code, and with systemd where that is there."""

import grp
import json
import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from registrar.config.settings import VARIABLES
from wire.envoy_token import SDS_FILE, TOKEN_DIRECTORY, token_sds

ROOT = Path(__file__).parents[2]
TMPFILES = ROOT / "deploy" / "systemd" / "headcount-envoy-token.conf"
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))


def test_systemd_makes_the_token_directory(tmp_path: Path) -> None:
    """systemd-tmpfiles takes the lines, but for the owner, and writes the SDS document that the bootstrap names."""
    tmpfiles = shutil.which("systemd-tmpfiles")
    if tmpfiles is None:
        pytest.skip("no systemd-tmpfiles here: apt-get install systemd")
    owner, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    lines = tmp_path / TMPFILES.name
    lines.write_text(TMPFILES.read_text().replace(" root envoy ", f" {owner} {group} "))
    root = tmp_path / "root"
    root.mkdir()
    done = subprocess.run([tmpfiles, "--create", f"--root={root}", lines], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    directory = Path(f"{root}{TOKEN_DIRECTORY}")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o2770
    assert json.loads((directory / SDS_FILE).read_text()) == json.loads(token_sds())


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_are_valid(unit: Path, tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say about the unit."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here: apt-get install systemd")
    copy = tmp_path / unit.name
    # The program is not installed in /usr/bin of the machine that runs the tests.
    copy.write_text(
        unit.read_text().replace("/usr/bin/registrar", "/bin/true").replace("/usr/bin/registry", "/bin/true")
    )
    done = subprocess.run([analyze, "verify", str(copy)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_are_hardened(unit: Path) -> None:
    """By the rating of systemd itself the sandbox is «OK», at 1.5 of 10 or better."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here: apt-get install systemd")
    command = [analyze, "security", "--offline=yes", "--threshold=15", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze is older than 250 and rates no files")
    assert done.returncode == 0, done.stdout


def test_the_registrar_unit_watches_and_waits() -> None:
    """The unit's notifications, watchdog, reload and credential are what the program offers."""
    text = (ROOT / "deploy" / "systemd" / "headcount-registrar.service").read_text()
    for line in ("Type=notify", "WatchdogSec=30", "DynamicUser=yes", "ExecReload=/bin/kill -HUP $MAINPID"):
        assert f"{line}\n" in text
    assert "LoadCredential=token:" in text
    named = [line.partition("=")[2].split("=")[0] for line in text.splitlines() if line.startswith("Environment=")]
    assert set(named) <= VARIABLES.keys()
