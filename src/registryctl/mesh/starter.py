"""A first mesh with comments, for somebody who has never written one."""

from pathlib import Path

from registryctl.errors import UsageError
from registryctl.mesh.directory import FOLDERS, MESH, SUFFIXES

FILES = {
    "mesh.yaml": """\
# What all services of this environment share. Every field has a default; this file may be empty.
environment: staging

registry:
  addresses: ["127.0.0.1:8080"]   # host:port of each registry, as Envoys reach it

# Policies for every dependency of every service, unless a service's file says otherwise.
# defaults:
#   timeout: 5s
#   retry: {attempts: 3, per_try_timeout: 1s}
""",
    "services/shop.yaml": """\
# One file a service. Its name is the file's name, and Envoy's node.cluster.
service: shop

# Facts about the service, and defaults for those who call it.
provides:
  protocol: http1
  defaults: {timeout: 3s}
""",
    "services/web.yaml": """\
service: web

# What its app may call. A name that is not here answers 404 with a sentence.
dependencies:
- service: shop            # registered in the registry; the app calls http://shop/ through its Envoy
  routes:
  - {path: /ping, timeout: 100ms, retry: null}   # null switches off
  - {prefix: /}
# - name: payments         # not registered: found by DNS, and TLS is verified
#   address: api.payments.example:443
#   tls: true
""",
}


def write_starter(directory: Path) -> list[Path]:
    """Write the first mesh into a directory, and return the files.

    Raises:
        UsageError: there are definitions already, or the directory cannot be written.
    """
    there = [path for path in (*(directory / name for name in FOLDERS), *_meshes(directory)) if path.exists()]
    if there:
        raise UsageError(
            f"{there[0]} is there already: init writes only where there are no definitions",
            f"look at what is there with `registryctl mesh validate {directory}`",
        )
    written = []
    try:
        for name, text in FILES.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            written.append(path)
    except OSError as error:
        raise UsageError(f"{error.filename}: {(error.strerror or str(error)).lower()}") from None
    return written


def _meshes(directory: Path) -> list[Path]:
    return [directory / f"{MESH}{suffix}" for suffix in SUFFIXES]
