"""The modules that the running registrar imports."""

import asyncio
import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness.fake_app import FakeApp
from harness.fake_registry import FakeRegistry
from integration.registrar.processes import environment

# Each of them would add a tenth to all of the registrar's memory, and some would double it.
HEAVY = (
    "alembic",
    "boto3",
    "botocore",
    "click",
    "fastapi",
    "httpx",
    "pydantic",
    "pygments",
    "rich",
    "sqlalchemy",
    "structlog",
    "typer",
    "uvicorn",
)
# Runs the console script, and writes the names of all modules at its end.
RUN = """
import atexit, json, os, sys
atexit.register(lambda: open(os.environ["MODULES"], "w").write(json.dumps(sorted(sys.modules))))
from registrar.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize("name", HEAVY)
def test_what_is_not_loaded_could_be(name: str) -> None:
    """All extras are installed where these tests run: the other tests would find a package that is imported."""
    assert importlib.util.find_spec(name) is not None


def test_no_module_of_the_registrar_imports_what_it_does_not_need() -> None:
    """Every module of the registrar is imported, and none of the heavy packages is."""
    code = (
        "import importlib, pkgutil, sys, registrar\n"
        "for found in pkgutil.walk_packages(registrar.__path__, 'registrar.'): importlib.import_module(found.name)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


async def test_a_running_registrar_never_loads_them(registry: FakeRegistry, app: FakeApp, tmp_path: Path) -> None:
    """Not for its checks, its heartbeats, its admin interface, its log or its stop."""
    modules = tmp_path / "modules.json"
    environ = environment(registry, app, REGISTRAR_ADMIN_LISTEN=f"unix:{tmp_path}/admin.sock", MODULES=str(modules))
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", RUN, "run", env=environ)
    try:
        await registry.until(lambda: len(registry.heartbeats) >= 3, 20)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    loaded = set(json.loads(modules.read_text()))
    assert {"registrar.lifecycle.sidecar", "registrar.checks.http", "h11"} <= loaded
    assert loaded.isdisjoint(HEAVY)
