"""What deploy/ has for the registrar agrees with the code, and with systemd where that is there."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from registrar.configuration import load_settings
from registrar.settings import VARIABLES
from wire.duration import parse_duration

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))


@pytest.fixture
def task() -> dict[str, dict[str, Any]]:
    """The containers of the example task definition, by name."""
    document = json.loads((ROOT / "deploy" / "ecs" / "task-definition.json").read_text())
    return {container["name"]: container for container in document["containerDefinitions"]}


def test_the_task_definition_configures_a_registrar(task: dict[str, dict[str, Any]]) -> None:
    """Its variables are settings, and with the agent's own they are all that is needed."""
    environ = {one["name"]: one["value"] for one in task["registrar"]["environment"]}
    assert environ.keys() <= VARIABLES.keys()
    settings = load_settings({}, environ | {"ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4/x"})
    assert settings.on_sigterm == "drain"
    assert settings.services[0].container in task


def test_the_task_stops_in_the_right_order_and_time(task: dict[str, dict[str, Any]]) -> None:
    """The registrar stops first, before the app, before Envoy, and its own deadline is the agent's."""
    depends = {
        name: [(one["containerName"], one["condition"]) for one in task[name]["dependsOn"]]
        for name in ("registrar", "app")
    }
    assert depends == {"registrar": [("app", "START")], "app": [("envoy", "HEALTHY")]}
    environ = {one["name"]: one["value"] for one in task["registrar"]["environment"]}
    assert parse_duration(environ["REGISTRAR_STOP_TIMEOUT"]) == task["registrar"]["stopTimeout"]
    # 12 s is what the registry grants by default; three are the registrar's reserve.
    assert 12 + 3 < task["registrar"]["stopTimeout"] <= 120
    assert sum(container["stopTimeout"] for container in task.values()) <= 120


def test_the_task_is_healthy_by_the_registrars_own_word(task: dict[str, dict[str, Any]]) -> None:
    """The latched health check, with a start period that covers its 120 s."""
    check = task["registrar"]["healthCheck"]
    assert check["command"] == ["CMD", "registrar", "healthcheck"]
    assert check["startPeriod"] >= 120


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
