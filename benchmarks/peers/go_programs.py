"""The Go programs of ``streams/``: go-control-plane as a server, and the client that subscribes to all servers.

They are built from the modules that ``streams/go.sum`` has, fetched by Go's own proxy, into the environment.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

CLIENT = "client"
SERVER = "server"
H2SPEC = "h2spec"

_SOURCES = Path(__file__).with_name("streams")
_HOME = Path(sys.prefix) / "peers" / "streams"
_PACKAGES = {CLIENT: "./client", SERVER: "./server", H2SPEC: "github.com/summerwind/h2spec/cmd/h2spec"}
_BUILD_TIMEOUT = 600
"""Seconds; the first build fetches 60 MB and compiles for a minute."""
_REQUIRED = re.compile(r"^\s*(\S+) v(\S+)$", re.MULTILINE)


def build() -> str | None:
    """Build the programs, if their sources changed; return why that cannot be done."""
    stamp, sources = _HOME / ".ready", _digest()
    if stamp.is_file() and stamp.read_text().split()[0] == sources:
        return None
    go = shutil.which("go")
    if go is None:
        return "Go is not installed; https://go.dev/dl has it, Debian and Ubuntu: apt install golang-go (1.23 or newer)"
    _HOME.mkdir(parents=True, exist_ok=True)
    for name, package in _PACKAGES.items():
        command = [go, "build", "-mod=readonly", "-o", str(_HOME / name), package]
        try:
            subprocess.run(
                command, cwd=_SOURCES, check=True, capture_output=True, text=True, timeout=_BUILD_TIMEOUT, env=_env()
            )
        except subprocess.TimeoutExpired:
            return f"`go build {package}` took longer than {_BUILD_TIMEOUT} s"
        except subprocess.CalledProcessError as error:
            return f"`go build {package}` failed: {error.stderr.strip().splitlines()[-1]}"
    compiler = subprocess.run([go, "env", "GOVERSION"], check=True, capture_output=True, text=True)
    stamp.write_text(f"{sources} {compiler.stdout.strip().removeprefix('go')}")
    return None


def program(name: str) -> str:
    """Return the path of a program that was built."""
    return str(_HOME / name)


def versions() -> dict[str, str]:
    """Return the versions of what is compared, as ``go.mod`` pins them, and of the compiler."""
    pinned = dict(_REQUIRED.findall((_SOURCES / "go.mod").read_text().replace("require ", "")))
    names = {"go-control-plane": "github.com/envoyproxy/go-control-plane", "grpc-go": "google.golang.org/grpc"}
    _, compiler = (_HOME / ".ready").read_text().split()
    return {"Go": compiler} | {name: pinned[path] for name, path in names.items()}


def _digest() -> str:
    sources = sorted(path for path in _SOURCES.rglob("*") if path.is_file())
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()


def _env() -> dict[str, str]:
    # The C library is not needed, and a build without it needs no C compiler.
    return os.environ | {"CGO_ENABLED": "0", "GOFLAGS": ""}
