"""What deploy/ has for the registrar agrees with the code, and with systemd where that is there."""

import contextlib
import grp
import json
import os
import pwd
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from harness.app import app
from harness.envoy import Envoy, binary
from harness.process import eventually, free_port, running
from harness.registry import Registry

from registrar.config.configuration import load_settings
from registrar.config.settings import VARIABLES
from wire.duration import parse_duration
from wire.envoy_token import SDS_FILE, TOKEN_DIRECTORY, TOKEN_FILE, token_sds

ROOT = Path(__file__).parents[2]
TASK = ROOT / "deploy" / "ecs" / "task-definition.json"
TMPFILES = ROOT / "deploy" / "systemd" / "headcount-envoy-token.conf"
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))


@pytest.fixture
def task() -> dict[str, dict[str, Any]]:
    """The containers of the example task definition, by name."""
    document = json.loads(TASK.read_text())
    return {container["name"]: container for container in document["containerDefinitions"]}


def test_aws_would_take_the_task_definition() -> None:
    """Every key and type is of botocore's model, and moto registers it."""
    from moto import mock_aws

    document = json.loads(TASK.read_text())
    with mock_aws():
        client = boto3.client("ecs", "eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
        told = client.register_task_definition(**document)
    assert told["taskDefinition"]["family"] == "shop"
    assert len(TASK.read_bytes()) < 65_536


def test_the_task_definition_configures_a_registrar(task: dict[str, dict[str, Any]]) -> None:
    """Its variables are settings, and with the agent's own they are all that is needed."""
    environ = {one["name"]: one["value"] for one in task["registrar"]["environment"]}
    assert environ.keys() <= VARIABLES.keys()
    agent = {"ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4/x"}
    settings = load_settings({}, environ | agent)
    assert settings.on_sigterm == "drain"
    assert settings.services[0].container in task
    before = {one["name"]: one["value"] for one in task["envoy-token"]["environment"]}
    login = load_settings({}, before | agent)
    assert before.items() <= environ.items()
    assert (login.login, login.envoy_token_file) == ("aws", f"{TOKEN_DIRECTORY}/{TOKEN_FILE}")
    assert task["envoy-token"]["command"][0].endswith(" && registrar login")


def test_the_task_stops_in_the_right_order_and_time(task: dict[str, dict[str, Any]]) -> None:
    """The registrar stops first, before the app, before Envoy, and its own deadline is the agent's."""
    depends = {
        name: [(one["containerName"], one["condition"]) for one in task[name]["dependsOn"]]
        for name in ("registrar", "app")
    }
    assert depends == {"registrar": [("app", "START")], "app": [("envoy", "HEALTHY")]}
    assert task["envoy"]["dependsOn"] == [{"containerName": "envoy-token", "condition": "COMPLETE"}]
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


def as_the_agent_runs(command: list[str]) -> list[str]:
    """Return a health check's command as the container's runtime executes it: CMD-SHELL is the image's /bin/sh."""
    return ["/bin/sh", "-c", command[1]] if command[0] == "CMD-SHELL" else command[1:]


@pytest.mark.envoy
def test_the_tasks_envoy_starts_by_its_command_and_passes_its_check(
    shared_registry: Registry, workplace: Path, tmp_path: Path, task: dict[str, dict[str, Any]]
) -> None:
    """A real Envoy, with the commands and the health check of the task as they stand, but for addresses and paths."""
    admin, listener = free_port(), free_port()
    places = {"9901": str(admin), "10000": str(listener), "8080": str(shared_registry.port)}

    def here(text: str) -> str:
        ports = re.sub(r"(?<=port_value\":)\d+|(?<=127\.0\.0\.1/)\d+", lambda port: places[port[0]], text)
        return ports.replace("registry.internal", "127.0.0.1").replace(TOKEN_DIRECTORY, str(tmp_path))

    # To give the directory away needs to be root.
    prepare = here(task["envoy-token"]["command"][0].partition(" && ")[0])
    subprocess.run([*task["envoy-token"]["entryPoint"], prepare], check=True)
    command = [here(word) for word in task["envoy"]["command"]]
    check = [here(word) for word in as_the_agent_runs(task["envoy"]["healthCheck"]["command"])]
    # As Debian and Ubuntu have it: bash's /dev/tcp is not there.
    assert Path("/bin/sh").resolve().name == "dash" or check[0] != "/bin/sh"

    def healthy() -> bool:
        return subprocess.run(check, check=False, capture_output=True, timeout=5).returncode == 0

    assert not healthy()
    log = workplace / "task-envoy.log"
    with (
        app(workplace) as served,
        running([binary(), *command, "--use-dynamic-base-id"], log=log),
        contextlib.closing(Envoy(admin, listener, log)) as envoy,
    ):
        shared_registry.register("payments", served.endpoint)
        eventually(healthy, within=20, every=0.2, said=log.read_text)
        eventually(lambda: envoy.get() == "" and envoy.hosts("payments") == {served.endpoint: "HEALTHY"}, within=10)
        answer = httpx.get(f"http://127.0.0.1:{listener}/work", trust_env=False)
        assert answer.status_code == 200
        httpx.post(f"http://127.0.0.1:{admin}/healthcheck/fail", trust_env=False)
        assert not healthy()
    assert not healthy()


def test_the_containers_of_the_task_share_the_token_directory(task: dict[str, dict[str, Any]]) -> None:
    """The registrar writes where Envoy reads; the app sees none of it."""
    mounts = {name: container.get("mountPoints", []) for name, container in task.items()}
    place = {"sourceVolume": "envoy-token", "containerPath": TOKEN_DIRECTORY}
    assert mounts == {"envoy-token": [place], "envoy": [place | {"readOnly": True}], "app": [], "registrar": [place]}


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
