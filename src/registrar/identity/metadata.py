"""The ECS task metadata endpoint, version 4.

Field names are those of the agent's structs; unknown ones appear over time and are ignored.
"""

import asyncio
from collections.abc import Mapping
from typing import Self, TypeVar

import msgspec
from msgspec import Struct, field

from registrar.errors import MetadataUnavailable
from registrar.identity import lenient
from registrar.identity.exchange import exchange
from registrar.jitter import phase
from wire.http1 import Response

VARIABLE = "ECS_CONTAINER_METADATA_URI_V4"
ATTEMPTS = 5
_ATTEMPT_TIMEOUT = 1.0
_MIN_PAUSE = 0.1
"""Seconds; pauses are random, because the agent limits the rate of all tasks of a machine together."""

T = TypeVar("T", bound=Struct)


class Port(Struct, frozen=True, rename="pascal"):
    """A mapped port; in bridge mode there is one for each address that the host binds."""

    container_port: int = 0
    host_port: int = 0
    host_ip: str = ""
    protocol: str = "tcp"


class Network(Struct, frozen=True, rename="pascal"):
    """A network of a container; on the host's network its one address is empty."""

    network_mode: str = ""
    ipv4_addresses: tuple[str, ...] | None = field(default=None, name="IPv4Addresses")
    ipv6_addresses: tuple[str, ...] | None = field(default=None, name="IPv6Addresses")


class Health(Struct, frozen=True):
    """The result of the container's own health check; the status is empty until the first result."""

    status: str = ""
    output: str = ""


class Container(Struct, frozen=True, rename="pascal"):
    """One container of the task; those of the type NORMAL are in the task definition."""

    name: str = ""
    type: str = ""
    docker_id: str = ""
    known_status: str = ""
    started_at: str = ""
    restart_count: int | None = None
    exit_code: int | None = None
    health: Health | None = None
    networks: tuple[Network, ...] | None = None
    ports: tuple[Port, ...] | None = None

    @property
    def life(self) -> tuple[str, str, int]:
        """A value that differs after each start, also where the container was restarted in place."""
        return self.docker_id, self.started_at, self.restart_count or 0


class Task(Struct, frozen=True, rename="pascal"):
    """The task with the containers that the agent knows; one that is missing does not run."""

    task_arn: str = field(default="", name="TaskARN")
    cluster_field: str = field(default="", name="Cluster")
    family: str = ""
    revision: str = ""
    service_name: str = ""
    launch_type: str = ""
    availability_zone: str = ""
    known_status: str = ""
    every_container: tuple[Container, ...] | None = field(default=None, name="Containers")

    @property
    def id(self) -> str:
        """The last part of its ARN."""
        return self.task_arn.rpartition("/")[2]

    @property
    def region(self) -> str:
        """The region in its ARN."""
        return (self.task_arn.split(":") + [""] * 4)[3]

    @property
    def cluster(self) -> str:
        """The cluster's short name; the field of that name is an ARN on Fargate."""
        parts = self.task_arn.split("/")
        return parts[1] if len(parts) == 3 else self.cluster_field.rpartition("/")[2]

    @property
    def cluster_arn(self) -> str:
        """The cluster's ARN; empty when no cluster is known, or no region."""
        parts = self.task_arn.split(":")
        if not self.cluster or len(parts) < 6 or not all(parts[:5]):
            return ""
        return ":".join([*parts[:5], f"cluster/{self.cluster}"])

    @property
    def containers(self) -> tuple[Container, ...]:
        """The containers of the task definition, without the agent's own, like the pause container."""
        return tuple(each for each in self.every_container or () if each.type in ("NORMAL", ""))

    @property
    def whole(self) -> bool:
        """Whether every container has a name, so that one that is not in the list is not in the task."""
        return self.every_container is not None and all(each.name for each in self.every_container)

    def container(self, name: str) -> Container | None:
        """Return the container of that name, or None while the agent does not list it."""
        return next((each for each in self.containers if each.name == name), None)


class Metadata:
    """Requests to the endpoint of this container, repeated for a moment where that may help.

    Args:
        base: the URL that the agent put into the environment.
        attempts: how often to ask before giving up.
        patience: seconds for one attempt.
    """

    def __init__(self, base: str, attempts: int = ATTEMPTS, patience: float = _ATTEMPT_TIMEOUT) -> None:
        self.base = base.rstrip("/")
        self._attempts = attempts
        self._patience = patience

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self | None:
        """Return the endpoint that the environment names, or None outside of ECS."""
        base = environ.get(VARIABLE, "")
        return cls(base) if base else None

    async def task(self) -> Task:
        """Return the whole task.

        Raises:
            MetadataUnavailable: no answer, or none that can be used.
        """
        return _read(await self._ask("/task"), Task)

    async def container(self) -> Container:
        """Return the container that this process runs in.

        Raises:
            MetadataUnavailable: no answer, or none that can be used.
        """
        return _read(await self._ask(""), Container)

    async def _ask(self, path: str) -> bytes:
        reason = ""
        for attempt in range(self._attempts):
            if attempt:
                await asyncio.sleep(phase(_MIN_PAUSE * 2**attempt))
            try:
                response = await exchange("GET", self.base + path, {}, self._patience)
            except (OSError, ValueError) as error:
                reason = str(error) or f"no answer within {self._patience:g}s"
                continue
            if response.status == 200:
                return response.body
            reason = _reason(response)
            # 404: the agent does not know this container, and will not know it in a moment either.
            if response.status != 429 and response.status < 500:
                raise MetadataUnavailable(f"{self.base}{path}: {reason}")
        raise MetadataUnavailable(f"{self.base}{path}: {reason}", passing=True)


def _read(body: bytes, kind: type[T]) -> T:
    try:
        return lenient.read(body, kind)
    except msgspec.DecodeError as error:
        raise MetadataUnavailable(f"answer not understood: {error}") from error


def _reason(response: Response) -> str:
    """Return status and words of a refusal; the agent writes those as a JSON string."""
    try:
        words = msgspec.json.decode(response.body, type=str)
    except msgspec.DecodeError:
        words = response.body[:200].decode(errors="replace")
    return f"{response.status} {words}".strip()
