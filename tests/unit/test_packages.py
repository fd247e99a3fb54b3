"""The files of the packages agree with one another, with the units and with the settings."""

import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from registrar.config.settings import VARIABLES
from registry.settings import Settings

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / "deploy" / "packages"
NAMES = ("registrar", "registry")
SCRIPTS = [PACKAGES / name / script for name in NAMES for script in ("postinstall", "preremove", "postremove")]


@pytest.fixture(scope="module")
def build() -> Iterator[ModuleType]:
    """The script that builds them; it imports its neighbours by name."""
    before = set(sys.modules)
    sys.path.insert(0, str(PACKAGES))
    try:
        spec = importlib.util.spec_from_file_location("packages_build", PACKAGES / "build.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(PACKAGES))
        for name in {"commands", "manuals"} - before:
            sys.modules.pop(name, None)


def _definition(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((PACKAGES / f"{name}.yaml").read_text())
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_survive_an_upgrade(name: str) -> None:
    """The file that the unit reads is a configuration file of the package, and is for root alone."""
    unit = (ROOT / "deploy" / "systemd" / f"headcount-{name}.service").read_text()
    (file,) = [item for item in _definition(name)["contents"] if item["dst"] == f"/etc/{name}/environment"]
    assert f"EnvironmentFile=-{file['dst']}\n" in unit
    assert (file["type"], file["file_info"]) == ("config|noreplace", {"mode": 0o600})
    assert (PACKAGES / file["src"]).is_file()


@pytest.mark.parametrize("name", NAMES)
def test_every_script_is_in_the_package(name: str) -> None:
    """Both formats run the same three scripts."""
    assert {PACKAGES / path for path in _definition(name)["scripts"].values()} == {
        path for path in SCRIPTS if path.parent.name == name
    }


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_scripts_wait_no_longer_than_they_say(script: Path) -> None:
    """What a script asks of the running program is bounded, and systemd is asked where it runs alone."""
    text = script.read_text()
    assert text.startswith("#!/bin/sh\n")
    assert "set -e" in text
    assert all("timeout 60 " in line for line in text.splitlines() if "registrar drain" in line and "#" not in line)
    if "systemctl" in text:
        assert "[ -d /run/systemd/system ]" in text


def test_every_python_of_the_package_gets_bytecode(build: ModuleType) -> None:
    """The scripts name the same versions as the build, and so do the project's own classifiers and range."""
    for name in NAMES:
        text = (PACKAGES / name / "postinstall").read_text()
        assert sorted(re.findall(r"\b3\.\d+\b", text)) == sorted(build.PYTHONS)
    classifiers = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    assert sorted(classifiers) == sorted(build.PYTHONS)


def test_the_user_of_the_registry_is_one() -> None:
    """The unit, systemd-sysusers and the scripts name the same user."""
    unit = (ROOT / "deploy" / "systemd" / "headcount-registry.service").read_text()
    user = re.search(r"^User=(.+)$", unit, re.MULTILINE)
    assert user is not None
    assert f"\nu {user[1]} " in (PACKAGES / "registry" / "sysusers.conf").read_text()
    assert f"userdel {user[1]} " in (PACKAGES / "registry" / "postremove").read_text()
    assert f"getent passwd {user[1]} " in (PACKAGES / "registry" / "postinstall").read_text()


def test_examples_of_settings_are_settings() -> None:
    """Uncommented, each line is a variable with a value that the program takes."""
    lines = {
        name: re.findall(r"^#([A-Z_]+)=(.*)$", (PACKAGES / name / "environment").read_text(), re.MULTILINE)
        for name in NAMES
    }
    assert {name for name, _ in lines["registrar"]} <= VARIABLES.keys()
    values = {name.removeprefix("REGISTRY_").lower(): value for name, value in lines["registry"]}
    settings = Settings.model_validate(values)
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == values["database_url"]


def test_files_that_differ_between_pythons_are_refused(build: ModuleType, tmp_path: Path) -> None:
    """One environment serves several versions as long as what they share is the same for all."""
    for version, module, extension in (("3.11", "same", "a.cpython-311.so"), ("3.12", "same", "a.cpython-312.so")):
        unpacked = tmp_path / version
        unpacked.mkdir()
        (unpacked / "module.py").write_text(module)
        (unpacked / extension).write_text(version)
        build._merge(unpacked, tmp_path / "modules")
    names = {path.name for path in (tmp_path / "modules").iterdir()}
    assert names == {"module.py", "a.cpython-311.so", "a.cpython-312.so"}
    (tmp_path / "3.12" / "module.py").write_text("another")
    with pytest.raises(SystemExit, match=r"module\.py differs between two versions of Python"):
        build._merge(tmp_path / "3.12", tmp_path / "modules")


def test_the_page_names_what_there_is(build: ModuleType) -> None:
    """docs/vm.md has the files of this version, the paths of the packages, and the Pythons of the build."""
    page = (ROOT / "docs" / "vm.md").read_text()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {(name, text) for name, text in re.findall(r"headcount-(\w+)_([\d.]+)-1_amd64\.deb", page)} == {
        (name, version) for name in NAMES
    }
    assert "3.11, 3.12, 3.13 or 3.14" in page
    assert len(build.PYTHONS) == 4
    for name in NAMES:
        unit = (ROOT / "deploy" / "systemd" / f"headcount-{name}.service").read_text()
        assert f"/etc/{name}/environment" in page
        assert f"/usr/lib/headcount-{name}" in page
        assert f"systemctl enable --now headcount-{name}\n" in page
        assert f"ExecStart=/usr/bin/{name} " in unit
    socket = re.search(
        r"REGISTRAR_ADMIN_LISTEN=(\S+)", (ROOT / "deploy/systemd/headcount-registrar.service").read_text()
    )
    assert socket is not None
    assert f"--admin-listen {socket[1]}" in page
    assert f"--admin-listen {socket[1]}" in (PACKAGES / "registrar" / "preremove").read_text()
    assert set(re.findall(r"^\| `headcount-(\w+)`", page, re.MULTILINE)) == set(build.PROGRAMS) == set(NAMES)
