"""The requests to Envoy's admin interface that errands make, and no others.

No function here takes a path. What can stop an Envoy or change its traffic cannot be asked for: ``/quitquitquit``,
``/drain_listeners``, ``/healthcheck/fail``, ``/reset_counters``, ``/runtime_modify``, the profilers.
"""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import msgspec
from msgspec import Raw

from registrar.envoy_admin.client import EnvoyAdminClient
from wire.errand import Level, Section

MAX_CLUSTERS_BYTES = 8 * 1024 * 1024
"""Bytes of the endpoints of all clusters."""
MAX_CONFIG_BYTES = 4 * 1024 * 1024
"""Bytes of one kind of resource in the configuration; the name of one makes it shorter."""
MAX_TAP_BYTES = 8 * 1024 * 1024
"""Bytes of a tap: 50 requests with headers of 60 kB, and their responses."""
_MAX_SMALL_BYTES = 64 * 1024
"""Bytes of the list of loggers."""
_MAX_INFO_BYTES = 1024 * 1024
"""Bytes of the state of the server, which names each of its extensions: 80 kB, and the node's metadata."""
_TAP_MARGIN = 5.0
"""Seconds that a tap may take beside those that it looks."""

_RESOURCES: Final[Mapping[Section, tuple[str, ...]]] = {
    "bootstrap": (),
    "listeners": ("static_listeners", "dynamic_listeners"),
    "clusters": ("static_clusters", "dynamic_active_clusters"),
    "routes": ("static_route_configs", "dynamic_route_configs"),
    "endpoints": ("static_endpoint_configs", "dynamic_endpoint_configs"),
}
"""The fields of Envoy's dump that each section reads; those of secrets are none of them."""
_LEVEL = re.compile(r"^\s+([a-z][a-z0-9_]*): (\w+)\s*$", re.MULTILINE)


class _Dump(msgspec.Struct):
    configs: list[Raw] = []


class _ServerInfo(msgspec.Struct):
    uptime_current_epoch: str = ""


_decode_dump = msgspec.json.Decoder(_Dump).decode
_decode_info = msgspec.json.Decoder(_ServerInfo).decode


class ErrandAdmin:
    """The requests of errands to one Envoy.

    Args:
        client: sends them.
    """

    def __init__(self, client: EnvoyAdminClient) -> None:
        self._client = client

    async def clusters(self) -> bytes:
        """Return the clusters and their endpoints, as Envoy writes them in JSON.

        Raises:
            EnvoyAdminError: Envoy did not answer, or with too much.
        """
        return await self._client.read("/clusters?format=json", max_bytes=MAX_CLUSTERS_BYTES)

    async def config(self, section: Section, name: str = "") -> list[Raw]:
        """Return the resources of a section, all or those of a name.

        Raises:
            EnvoyAdminError: Envoy did not answer, or with too much.
            msgspec.DecodeError: the answer is no dump.
        """
        if section == "bootstrap":
            return await self._dump("mask=bootstrap")
        # Quoted for RE2, and then for the URL.
        chosen = f"&name_regex={quote('^' + re.escape(name) + '$', safe='')}" if name else ""
        endpoints = "&include_eds" if section == "endpoints" else ""
        resources = []
        for field in _RESOURCES[section]:
            resources += await self._dump(f"resource={field}{chosen}{endpoints}")
        return resources

    async def _dump(self, query: str) -> list[Raw]:
        content = await self._client.read(f"/config_dump?{query}", max_bytes=MAX_CONFIG_BYTES)
        return _decode_dump(content).configs

    async def loggers(self) -> dict[str, str]:
        """Return the level of each logger.

        Raises:
            EnvoyAdminError: Envoy did not answer.
        """
        content = await self._client.read("/logging", max_bytes=_MAX_SMALL_BYTES, method="POST")
        return dict(_LEVEL.findall(content.decode(errors="replace")))

    async def set_loggers(self, levels: Mapping[str, Level]) -> None:
        """Set the levels of loggers that `loggers` has named.

        Raises:
            EnvoyAdminError: Envoy did not answer, or refused.
        """
        paths = ",".join(f"{logger}:{level}" for logger, level in levels.items())
        await self._client.read(f"/logging?paths={paths}", max_bytes=_MAX_SMALL_BYTES, method="POST")

    async def uptime(self) -> float:
        """Return the seconds since this process of Envoy started; a hot restart begins another one.

        Raises:
            EnvoyAdminError: Envoy did not answer.
            ValueError: it did not say so.
        """
        content = await self._client.read("/server_info", max_bytes=_MAX_INFO_BYTES)
        return float(_decode_info(content).uptime_current_epoch.removesuffix("s"))

    async def tap(self, request: bytes, seconds: float) -> bytes:
        """Return what a tap saw.

        Raises:
            EnvoyAdminError: Envoy did not answer, refused, or saw more than `MAX_TAP_BYTES`.
        """
        limit = seconds + _TAP_MARGIN
        return await self._client.read("/tap", max_bytes=MAX_TAP_BYTES, method="POST", body=request, seconds=limit)
