"""The file that the ECS agent writes into a container, as a source of the host's address."""

import asyncio
from pathlib import Path

import msgspec
from msgspec import Struct, field

from registrar.identity import lenient
from registrar.identity.ecs_task import AWSVPC, NO_TASK, EcsTask
from registrar.identity.source import Answer, Facts
from registrar.identity.spec import EndpointSpec

VARIABLE = "ECS_CONTAINER_METADATA_FILE"
_READY_TIMEOUT = 5.0
"""Seconds to wait for the agent to write the file a second time, with the address."""
_POLL_INTERVAL = 0.1
_FIX = "set ECS_ENABLE_CONTAINER_METADATA=true in the ECS agent's configuration"


class Content(Struct, frozen=True):
    """The fields that are read; the agent writes the file twice, and READY only the second time."""

    status: str = field(default="", name="MetadataFileStatus")
    host_ipv4: str = field(default="", name="HostPrivateIPv4Address")
    host_ipv6: str = field(default="", name="HostIPv6Address")

    @property
    def host_address(self) -> str:
        """The host's address: IPv6 only where it has no other."""
        return self.host_ipv4 or self.host_ipv6


class MetadataFile:
    """Source of the private address of the container instance, without any request.

    Args:
        task: the task, for its network mode and ports.
        path: the file that the environment names; empty when it names none.
        patience: seconds to wait for the agent to finish it.
    """

    name = "ecs-metadata-file"
    costly = False

    def __init__(self, task: EcsTask, path: str, patience: float = _READY_TIMEOUT) -> None:
        self._task = task
        self._path = path
        self._patience = patience

    async def locate(self, spec: EndpointSpec, container: str) -> Answer:
        """Return the host's address and the port that the app has there."""
        if not self._task.there:
            return Answer("", NO_TASK)
        if await self._task.host_port(spec, container) is None:
            return Answer("", AWSVPC)
        if not self._path:
            return Answer("", f"not asked: {VARIABLE} is not set", fix=_FIX)
        content = await self._ready()
        if content.status != "READY":
            return Answer(self._path, f"not READY within {self._patience:g}s", fix="see the ECS agent's log")
        if not content.host_address:
            return Answer(
                self._path, "neither HostPrivateIPv4Address nor HostIPv6Address in it", fix="update the ECS agent"
            )
        location = await self._task.on_host(content.host_address, spec, container)
        return Answer(self._path, "the host's address", location)

    async def facts(self) -> Facts:
        """Return no facts: the task's metadata has them all."""
        return Facts()

    async def _ready(self) -> Content:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._patience
        while (content := self._read()).status != "READY" and loop.time() < give_up:  # noqa: ASYNC110 - a file has no event to wait for
            await asyncio.sleep(_POLL_INTERVAL)
        return content

    def _read(self) -> Content:
        try:
            return lenient.read(Path(self._path).read_bytes(), Content)
        except (OSError, msgspec.DecodeError):
            # Not there yet, or half written.
            return Content()
