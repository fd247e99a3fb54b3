"""What a real Envoy says of everything that a configuration compiles to, with its warnings."""

import subprocess
from pathlib import Path

from meshconfig.bootstrap import bootstrap
from meshconfig.effective import Configuration
from meshconfig.resource import Catalog
from meshconfig.snapshot import compile_mesh
from meshconfig.stand_in_files import FILES
from meshconfig.static_bootstrap import static_bootstraps


def complaints(executable: str, configuration: Configuration, catalog: Catalog, directory: Path) -> list[str]:
    """Return what an Envoy says of each bootstrap that embeds the compiled resources; nothing is as it should be.

    Envoy warns of deprecated fields; one that it does not know is an error where resources are static.
    """
    snapshot = compile_mesh(configuration, catalog)
    documents = {name: bootstrap(configuration, name) for name in snapshot.nodes}
    for name, content in FILES.items():
        (directory / name).write_bytes(content)
    path = directory / "bootstrap.json"
    said = []
    for part in static_bootstraps(snapshot, documents, directory=str(directory)):
        path.write_bytes(part.encode())
        command = [executable, "--mode", "validate", "-c", str(path), "--log-level", "warning", "--log-format", "%v"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if run.returncode or run.stderr.strip():
            said.append(f"status {run.returncode}: {run.stderr.strip()}")
    return said
