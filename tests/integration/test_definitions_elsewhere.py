"""Definitions read in another process: hash seed and locale change neither the configuration nor the faults."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
PROGRAM = """
from hashlib import sha256
from harness.definitions import FILES
from meshconfig.repository import read

configuration, _ = read(FILES, registered=["shop", "use"])
origins = sorted(configuration.callers["web"].origins.items()), sorted(configuration.origins.items())
broken = {file: text.replace("s", "S") for file, text in FILES.items()}
faults = read(broken, registered=["shop", "use"])[1]
assert len(faults) > 10, faults
shared = configuration.gateways, configuration.edges, configuration.targets, configuration.mesh
callers = [(caller.dependencies, caller.targets) for caller in configuration.callers.values()]
for result in (shared, callers, origins, faults):
    print(sha256(repr(result).encode()).hexdigest())
"""


def digests(environment: dict[str, str]) -> str:
    """Return what a process with these variables makes of the definitions."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": str(TESTS), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout


def test_hash_seed_and_locale_do_not_matter() -> None:
    """Every process reads the same of the same files."""
    here = digests({"PYTHONHASHSEED": "1", "LC_ALL": "C"})
    assert len(here.split()) == 4
    assert digests({"PYTHONHASHSEED": "2", "LC_ALL": "de_DE.UTF-8"}) == here
