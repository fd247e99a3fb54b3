"""What deploy/ has for the registrar agrees with the code, and with systemd where that is there."""

import grp
import json
import os
import pwd
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from harness.envoy import binary

from meshconfig.bootstrap import bootstrap as mesh_bootstrap
from meshconfig.repository import read
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


@pytest.mark.envoy
def test_envoy_starts_with_the_overlay_that_the_unit_writes(tmp_path: Path) -> None:
    """The command of the unit writes it, and the line of Envoy's unit gives it to Envoy; without it no Envoy starts."""
    overlay, bootstrap = tmp_path / "overlay.json", tmp_path / "bootstrap.json"
    configuration, _ = read({"services/web.yaml": "service: web\n"})
    assert configuration is not None
    bootstrap.write_bytes(msgspec.json.encode(mesh_bootstrap(configuration, "web")))
    start = _exec_start("headcount-envoy.conf").replace("$$", "$")
    for name, path in (("/run/headcount-envoy/overlay.json", overlay), ("/etc/envoy/bootstrap.json", bootstrap)):
        start = start.replace(name, str(path))
    envoy = shlex.split(start.replace("/usr/bin/envoy", f"{binary()} --mode validate"))
    assert subprocess.run(envoy, capture_output=True, check=False).returncode != 0
    write = _exec_start("headcount-envoy-overlay.service").replace("/run/headcount-envoy/overlay.json", str(overlay))
    program = shlex.split(write.replace("/usr/bin/registrar", str(Path(sys.executable).with_name("registrar"))))
    settings = {"REGISTRAR_REGISTRY_URL": "http://127.0.0.1:1", "REGISTRAR_SERVICE": "web"}
    settings |= {"REGISTRAR_ENDPOINT": "127.0.0.1:80", "REGISTRAR_INSTANCE_ID": "vm-1"}
    subprocess.run(program, env=settings, check=True)
    assert json.loads(overlay.read_text())["node"] == {"id": "vm-1"}
    done = subprocess.run(envoy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _exec_start(name: str) -> str:
    """Return the last command of a unit."""
    lines = (ROOT / "deploy" / "systemd" / name).read_text().splitlines()
    return [line.removeprefix("ExecStart=") for line in lines if line.startswith("ExecStart=")][-1]


def test_the_registrar_unit_watches_and_waits() -> None:
    """The unit's notifications, watchdog, reload and credential are what the program offers."""
    text = (ROOT / "deploy" / "systemd" / "headcount-registrar.service").read_text()
    for line in ("Type=notify", "WatchdogSec=30", "DynamicUser=yes", "ExecReload=/bin/kill -HUP $MAINPID"):
        assert f"{line}\n" in text
    assert "LoadCredential=token:" in text
    named = [line.partition("=")[2].split("=")[0] for line in text.splitlines() if line.startswith("Environment=")]
    assert set(named) <= VARIABLES.keys()
