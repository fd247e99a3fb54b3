"""The packages in a booted systemd: installed, started, upgraded, removed and purged, on Debian 12, 13 and unstable."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.machine import SUITES, Machine, booted, need_tools
from harness.packages import Packages
from harness.process import eventually

pytestmark = pytest.mark.packages
ROOT = Path(__file__).parents[2]
_PYTHONS = {"debian-12": "python3.11", "debian-13": "python3.13", "debian-sid": "python3.14"}
"""The newest Python in each root."""
_URL = "REGISTRAR_REGISTRY_URL=http://127.0.0.1:8080"
_ADMIN = "--admin-listen unix:/run/headcount-registrar/admin.sock"
_BOTH = ("registrar", "registry")
_OUT_OF_ROTATION = {"drained", "deregistered", "expelled", "lapsed", "suspected"}
"""The kinds of events that an upgrade must not cause."""
_SERVICES = """\
services:
- service: shop
  endpoint: "127.0.0.1:8000"
  checks: [{type: http, path: /}]
"""


@pytest.fixture(params=SUITES)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    """A booted machine with an app, without libnss-systemd."""
    with booted(request.param, tmp_path) as started:
        assert started.try_run("dpkg --status libnss-systemd")[0] == 1
        started.run("systemd-run --quiet --unit=app python3 -m http.server 8000 --bind 127.0.0.1")
        yield started


def test_a_package_lives_from_installation_to_purge(
    machine: Machine, packages: Packages, former_packages: Packages
) -> None:
    """It starts nothing by itself, keeps the endpoint and the settings at an upgrade, and drains at its removal."""
    text = machine.run(f"dpkg --install {' '.join(machine.put(former_packages.deb(name)) for name in _BOTH)}")
    assert "systemctl enable --now headcount-registrar" in text
    assert "systemctl enable --now headcount-registry" in text
    for unit in ("headcount-registrar", "headcount-registry"):
        assert machine.try_run(f"systemctl is-active {unit}")[1].strip() == "inactive"
    _start_registry(machine)
    _start_registrar(machine)

    before = {name: machine.main_pid(f"headcount-{name}") for name in _BOTH}
    machine.run(f"dpkg --install {' '.join(machine.put(packages.deb(name)) for name in _BOTH)}")
    after = {name: machine.main_pid(f"headcount-{name}") for name in _BOTH}
    assert all(after.values())
    for pid in after.values():
        assert machine.run(f"readlink /proc/{pid}/exe").strip() == f"/usr/bin/{_PYTHONS[machine.name]}"
    assert set(before.values()).isdisjoint(after.values())
    _wait_for_heartbeats(machine)
    assert _URL in machine.run("cat /etc/registrar/environment")
    assert _OUT_OF_ROTATION.isdisjoint(_kinds(machine))

    machine.run("dpkg --remove headcount-registrar")
    assert _statuses(machine) == []
    assert {"drained", "deregistered"} <= _kinds(machine)
    assert machine.try_run("systemctl is-active headcount-registrar")[1].strip() == "inactive"
    assert machine.run("ls /etc/registrar/services.d").split() == ["shop.yaml"]
    machine.run("dpkg --purge headcount-registrar headcount-registry")
    left = machine.run("ls -d /etc/regist* /var/lib/headcount* /var/lib/private/headcount* /usr/lib/headcount* || true")
    assert [line for line in left.splitlines() if "cannot access" not in line] == []
    assert machine.try_run("getent passwd headcount-registry")[0] == 2
    assert machine.run("systemctl --no-legend --failed").strip() == ""


def test_an_rpm_runs_the_same_scripts(machine: Machine, packages: Packages, former_packages: Packages) -> None:
    """Here rpm runs beside dpkg, whose Python it does not know: --nodeps. Removal drains; there is no purge."""
    install = "rpm --nodeps --dbpath=/root/rpmdb"
    machine.run(f"{install} --install {' '.join(machine.put(former_packages.rpm(name)) for name in _BOTH)}")
    _start_registry(machine)
    _start_registrar(machine)
    before = machine.main_pid("headcount-registrar")
    machine.run(f"{install} --upgrade {' '.join(machine.put(packages.rpm(name)) for name in _BOTH)}")
    assert machine.main_pid("headcount-registrar") not in {0, before}
    _wait_for_heartbeats(machine)
    assert _OUT_OF_ROTATION.isdisjoint(_kinds(machine))
    assert _URL in machine.run("cat /etc/registrar/environment")
    machine.run(f"{install} --erase headcount-registrar")
    assert "deregistered" in _kinds(machine)
    machine.run(f"{install} --erase headcount-registry")
    assert machine.try_run("systemctl is-active headcount-registry")[1].strip() == "inactive"
    # What was changed by hand is kept.
    assert "REGISTRY_DATABASE_URL=" in machine.run("cat /etc/registry/environment.rpmsave")


def _start_registry(machine: Machine) -> None:
    """Follow the file of settings that the package brings: its two commands and its URL."""
    assert machine.try_run("systemctl start headcount-registry")[0] == 1
    assert "REGISTRY_DATABASE_URL is not set" in machine.journal("headcount-registry")
    machine.run("systemctl stop headcount-registry")
    text = machine.run("cat /etc/registry/environment")
    commands = re.findall(r"^#   sudo -u postgres (.+)$", text, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        machine.run(f"cd /tmp && setpriv --reuid=postgres --regid=postgres --init-groups {command}")
    machine.run("sed -i 's/^#\\(REGISTRY_DATABASE_URL=\\)/\\1/' /etc/registry/environment")
    machine.run("systemctl enable --now headcount-registry")
    eventually(
        lambda: machine.try_run("curl --silent --fail --max-time 5 http://127.0.0.1:8080/readyz")[0] == 0,
        within=30,
        every=0.5,
        said=lambda: machine.journal("headcount-registry"),
    )
    pid = machine.main_pid("headcount-registry")
    assert machine.run(f"stat --format=%U /proc/{pid}").strip() == "headcount-registry"


def _start_registrar(machine: Machine) -> None:
    (machine.root / "etc" / "registrar" / "services.d" / "shop.yaml").write_text(_SERVICES)
    machine.run(f"sed -i 's,^#REGISTRAR_REGISTRY_URL=.*,{_URL},' /etc/registrar/environment")
    machine.run("systemctl enable --now headcount-registrar")
    eventually(
        lambda: _statuses(machine) == ["HEALTHY"],
        within=30,
        every=0.5,
        said=lambda: machine.journal("headcount-registrar"),
    )


def _wait_for_heartbeats(machine: Machine) -> None:
    """Wait until the process that runs now had a heartbeat acknowledged."""
    eventually(
        lambda: "acknowledged" in machine.try_run(f"registrar status {_ADMIN}")[1],
        within=30,
        every=0.5,
        said=lambda: machine.journal("headcount-registrar"),
    )
    assert _statuses(machine) == ["HEALTHY"]


def _statuses(machine: Machine) -> list[str]:
    status, text = machine.try_run("registryctl --output json endpoints shop")
    return [endpoint["status"] for endpoint in json.loads(text)["endpoints"]] if status == 0 else []


def _kinds(machine: Machine) -> set[str]:
    return {event["kind"] for event in json.loads(machine.run("registryctl --output json events shop"))["events"]}


def test_rpm_installs_into_an_empty_root(packages: Packages, tmp_path: Path) -> None:
    """Without scripts, as there is no shell; the scripts are read, and are those of the files beside the package."""
    need_tools("rpm")
    for name in _BOTH:
        root = tmp_path / name
        command = ["rpm", f"--root={root}", "--nodeps", "--noscripts", "--ignorearch", "--install"]
        subprocess.run([*command, str(packages.rpm(name))], check=True, timeout=120)
        assert (root / "usr" / "lib" / "systemd" / "system" / f"headcount-{name}.service").is_file()
        scripts = subprocess.run(
            ["rpm", "--query", "--scripts", "--package", str(packages.rpm(name))],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout
        for script in ("postinstall", "preremove", "postremove"):
            assert (ROOT / "deploy" / "packages" / name / script).read_text().strip() in scripts
