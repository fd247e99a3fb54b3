"""Sovereign, the control plane in Python that answers Envoy's REST polls, in an environment of its own.

It is given what its documentation recommends for speed: a Python template instead of Jinja, and orjson. The template
returns resources that were built once. Its cache of answers needs a Redis and is not used.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.process import eventually, free_port, running

from benchmarks.peers.side import Side, end_of, listens

NAME = "sovereign"
_HOME = Path(sys.prefix) / "peers" / NAME
_LOCK = Path(__file__).with_name("sovereign.lock")
_INSTALL_TIMEOUT = 300

_TEMPLATE = """\
import json

RESOURCES = json.load(open({path!r}))


def call(discovery_request, **_context):
    return [RESOURCES[name] for name in discovery_request.resource_names if name in RESOURCES]
"""


def install() -> str | None:
    """Install it, if it is not there yet; return why that cannot be done."""
    program = _HOME / "bin" / "python"
    stamp = _HOME / ".ready"
    if stamp.is_file() and stamp.read_text() == _LOCK.read_text():
        return None
    steps = [
        [sys.executable, "-m", "venv", "--clear", str(_HOME)],
        [str(program), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(_LOCK)],
    ]
    for step in steps:
        try:
            subprocess.run(step, check=True, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT)
        except subprocess.TimeoutExpired:
            return f"its installation took longer than {_INSTALL_TIMEOUT} s"
        except subprocess.CalledProcessError as error:
            return f"it cannot be installed: {error.stderr.strip().splitlines()[-1]}"
    stamp.write_text(_LOCK.read_text())
    return None


def version() -> str:
    """Return its version."""
    command = [
        str(_HOME / "bin" / "python"),
        "-c",
        "from importlib.metadata import version; print(version('sovereign'))",
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@contextlib.contextmanager
def sovereign(directory: Path, answers: Mapping[str, bytes], workers: int) -> Iterator[Side]:
    """Run it with the same endpoints as are in ``answers``."""
    home = directory / f"sovereign-{workers}"
    home.mkdir()
    resources = {service: json.loads(answer)["resources"][0] for service, answer in answers.items()}
    (home / "resources.json").write_text(json.dumps(resources))
    (home / "endpoints.py").write_text(_TEMPLATE.format(path=str(home / "resources.json")))
    template = {"type": "endpoints", "spec": {"protocol": "python", "path": str(home / "endpoints.py")}}
    quiet = {"access_logs": {"enabled": False}, "application_logs": {"enabled": False}}
    (home / "sovereign.json").write_text(json.dumps({"templates": {"default": [template]}, "logging": quiet}))
    port = free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("SOVEREIGN_")} | {
        "SOVEREIGN_CONFIG": f"file+json://{home / 'sovereign.json'}",
        "SOVEREIGN_HOST": "127.0.0.1",
        "SOVEREIGN_PORT": str(port),
        "SOVEREIGN_WORKERS": str(workers),
        "SOVEREIGN_KEEPALIVE": "75",
    }
    log = home / "log"
    with running([str(_HOME / "bin" / NAME)], env=env, log=log) as process:
        eventually(lambda: process.poll() is not None or listens(port), within=30, said=lambda: end_of(log))
        if process.poll() is not None:
            raise RuntimeError(f"sovereign does not start: {end_of(log)}")
        yield Side(NAME, port, [process.pid])
