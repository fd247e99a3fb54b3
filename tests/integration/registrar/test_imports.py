"""The modules that the running registrar imports."""

import subprocess
import sys

HEAVY = ("alembic", "boto3", "botocore", "fastapi", "grpc", "pydantic", "sqlalchemy", "uvicorn")


def test_the_run_path_never_loads_what_it_does_not_need() -> None:
    """Every module of the registrar is imported, and none of the heavy packages is: each would double it."""
    code = (
        "import importlib, pkgutil, sys, registrar\n"
        "for found in pkgutil.walk_packages(registrar.__path__, 'registrar.'): importlib.import_module(found.name)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
