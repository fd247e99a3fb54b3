"""Registry processes, started as users start them."""

import contextlib
import os
import shutil
import ssl
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from harness.preloaded import fork_registry, is_elsewhere
from harness.process import Child, end, eventually, free_port, running, script


class Registry:
    """A running `registry serve`, and a client of it."""

    def __init__(
        self, url: str, process: Child, log: Path, tls: ssl.SSLContext | None = None, database_url: str = ""
    ) -> None:
        self.url = url
        self.database_url = database_url
        self.port = int(url.rpartition(":")[2])
        self.process = process
        self.log = log
        self.client = httpx.Client(base_url=url, timeout=30, trust_env=False, verify=tls or False)

    def ready(self) -> bool:
        """Tell whether it answers and is ready."""
        try:
            return self.client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def register(self, service: str, endpoint: str, **fields: Any) -> httpx.Response:
        """Register an endpoint through the native API."""
        body = {"instance_id": f"i-{endpoint}", "incarnation": 1} | fields
        return self.client.put(f"/v1/services/{service}/endpoints/{endpoint}", json=body)

    def poll(
        self, *names: str, version: str | None = None, api: str = "v3", hold: float | None = None
    ) -> httpx.Response:
        """Ask as an Envoy does."""
        body: dict[str, Any] = {} if version is None else {"version_info": version}
        body |= {"node": {"id": "test", "cluster": "tests"}, "resource_names": list(names)}
        headers = {} if hold is None else {"x-envoy-expected-rq-timeout-ms": str(int(hold * 1000))}
        return self.client.post(f"/{api}/discovery:endpoints", json=body, headers=headers)

    def endpoints(self, service: str) -> list[dict[str, Any]]:
        """Return what the native API tells of each endpoint, but for the times of its lease."""
        listed = self.client.get(f"/v1/services/{service}/endpoints").json()["endpoints"]
        return [
            {name: value for name, value in endpoint.items() if not name.startswith("lease_")} for endpoint in listed
        ]

    def statuses(self, service: str) -> dict[str, str]:
        """Return what Envoys are told: the published status of each endpoint."""
        answer = self.poll(service).json()
        return {
            "{address}:{port_value}".format(**member["endpoint"]["address"]["socket_address"]): member["health_status"]
            for resource in answer["resources"]
            for locality in resource["endpoints"]
            for member in locality["lb_endpoints"]
        }


@contextlib.contextmanager
def registry(database_url: str, directory: Path, **settings: Any) -> Iterator[Registry]:
    """Run `registry serve` on a free port until the end of the block; settings without their prefix.

    Five are none of them: ``env`` is what stands in the environment besides, ``program`` the command to run instead,
    ``file`` a Python file to run instead, ``tls`` the context of the client for a registry that serves TLS, and
    ``fresh`` asks for a process that imports everything itself, as those with one of the former two (but for a file),
    with workers, or in a network of the test do.
    """
    tls: ssl.SSLContext | None = settings.pop("tls", None)
    env: Mapping[str, str] = settings.pop("env", None) or {}
    program: Sequence[str] | None = settings.pop("program", None)
    file: Path | None = settings.pop("file", None)
    fresh = settings.pop("fresh", False) or (env and file is None) or program or "workers" in settings or is_elsewhere()
    chosen = "listen" not in settings
    listen = str(settings.pop("listen", f"127.0.0.1:{free_port()}"))
    log = directory / f"registry-{listen.rpartition(':')[2]}.log"
    if chosen:
        # An earlier registry may have had the same port: its lines and its snapshot are none of this one's.
        log.unlink(missing_ok=True)
        shutil.rmtree(directory / f"data-{listen.rpartition(':')[2]}", ignore_errors=True)
    variables = {f"REGISTRY_{name.upper()}": str(value) for name, value in settings.items()}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
    # Of its own: the snapshot that one test leaves on disk is none of the next one's.
    variables.setdefault("REGISTRY_DATA_DIR", str(directory / f"data-{listen.rpartition(':')[2]}"))
    # A registry of a test connects to no address that the test makes up, unless it is asked to.
    variables.setdefault("REGISTRY_PROBES", "off")
    variables |= {"REGISTRY_DATABASE_URL": database_url, "REGISTRY_LISTEN": listen}
    command, everything = [*(program or script("registry")), "serve"], {**inherited, **variables, **env}
    with running(command, env=everything, log=log) if fresh else forked_registry(everything, log, file=file) as process:
        started = Registry(f"http{'' if tls is None else 's'}://{listen}", process, log, tls, database_url)
        with contextlib.closing(started.client):
            eventually(
                lambda: process.poll() is not None or started.ready(), within=60, said=lambda: log.read_text()[-2000:]
            )
            assert process.poll() is None, log.read_text()[-2000:]
            yield started


@contextlib.contextmanager
def forked_registry(
    env: Mapping[str, str], log: Path, verb: str = "serve", *, file: Path | None = None
) -> Iterator[Child]:
    """Run a verb of `registry` as a fork that has imported everything already, until the end of the block."""
    child = fork_registry(env, log, verb, file)
    try:
        yield child
    finally:
        end(child)
