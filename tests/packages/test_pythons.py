"""The wheel on each Python that it is for: the registrar alone, and the registry from the lock of its package."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from harness.app import app
from harness.process import eventually, free_port, running
from harness.registry import registry

pytestmark = pytest.mark.packages
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["3.11", "3.12", "3.13", "3.14"], scope="module")
def python(request: pytest.FixtureRequest) -> str:
    """The path of an interpreter of this version."""
    if shutil.which("uv") is None:
        pytest.skip("no uv here, which makes the environments: pip install uv")
    command = ["uv", "python", "find", "--no-python-downloads", request.param]
    done = subprocess.run(command, cwd="/", check=False, capture_output=True, text=True, timeout=60)
    if done.returncode:
        pytest.skip(f"no Python {request.param} here")
    return done.stdout.strip()


def _environment(home: Path, python: str, *requirements: str) -> Path:
    for command in (
        ["uv", "venv", "--quiet", "--python", python, str(home)],
        *(["uv", "pip", "install", "--quiet", "--python", str(home), *words.split()] for words in requirements),
    ):
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    return home / "bin"


def test_an_app_is_registered(python: str, wheel: Path, empty_database: str, tmp_path: Path) -> None:
    """`pip install headcount` is a registrar, its other commands name their extra, and the registry runs beside it."""
    bare = _environment(tmp_path / "bare", python, str(wheel))
    for command, extra in (("registry", "server"), ("registryctl", "ctl")):
        done = subprocess.run([bare / command, "--help"], check=False, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert f"pip install 'headcount[{extra}]'" in done.stderr
    lock = ROOT / "deploy" / "images" / "registry.lock"
    whole = _environment(
        tmp_path / "whole", python, f"--require-hashes --no-deps --requirement {lock}", f"--no-deps {wheel}"
    )
    program = [str(whole / "registry")]
    with app(tmp_path) as shop, registry(empty_database, tmp_path, program=program) as server:
        admin, log = free_port(), tmp_path / "registrar.log"
        env = {
            "PATH": os.environ["PATH"],
            "REGISTRAR_REGISTRY_URL": server.url,
            "REGISTRAR_SERVICE": "shop",
            "REGISTRAR_ENDPOINT": shop.endpoint,
            "REGISTRAR_CHECK_HTTP_PATH": "/healthz",
            "REGISTRAR_ADMIN_LISTEN": f"127.0.0.1:{admin}",
        }
        with running([str(bare / "registrar"), "run"], env=env, log=log):
            eventually(lambda: server.statuses("shop") == {shop.endpoint: "HEALTHY"}, within=20, said=log.read_text)
            services = [str(whole / "registryctl"), "--url", server.url, "services"]
            shown = subprocess.run(services, check=True, capture_output=True, text=True, timeout=60).stdout
        assert "shop" in shown
