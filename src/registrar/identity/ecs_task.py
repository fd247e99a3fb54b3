"""The ECS task as a source: its own address in awsvpc mode, and host ports in the other modes."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from registrar.errors import AddressError, ConfigurationError, IdentityError, MetadataUnavailable
from registrar.event_log import EventLogger
from registrar.identity.metadata import VARIABLE, Container, Metadata, Network, Task
from registrar.identity.portmap import host_port
from registrar.identity.source import Answer, Facts, Location
from registrar.identity.spec import EndpointSpec
from registrar.jitter import around

log = EventLogger(__name__)

NO_TASK = f"not asked: {VARIABLE} is not set, so this is no ECS task"
AWSVPC = "not asked: in awsvpc mode the host's address is not the task's"
PATIENCE = 120.0
"""Seconds to wait for a container that has not started; as long as the default startup_grace of checks."""
# Docker calls the same network "default" where a task definition names none.
_BRIDGE = frozenset({"bridge", "default"})
_POLL_INTERVAL = 1.0

T = TypeVar("T")


class EcsTask:
    """Source of the task's own address; the other sources ask it for the ports of containers on the host.

    Args:
        metadata: the task's metadata, or None outside of ECS.
        patience: seconds to wait for a container that has not started yet, and for an agent that is not well.
        identifies: whether the instance is the task, because the settings name none.
    """

    name = "ecs-metadata"
    costly = False

    def __init__(self, metadata: Metadata | None, patience: float = PATIENCE, *, identifies: bool = True) -> None:
        self._metadata = metadata
        self._patience = patience
        self._identifies = identifies
        # The task as it was fetched last; None makes the next use fetch it again.
        self._task: Task | None = None

    @property
    def there(self) -> bool:
        """Whether this process runs in an ECS task."""
        return self._metadata is not None

    async def locate(self, spec: EndpointSpec, container: str) -> Answer:
        """Return the address of the task's own network interface, if it has one."""
        if self._metadata is None:
            return Answer("", NO_TASK)
        # Each search fetches it again: a container that was restarted in place may have another host port.
        self._task = None
        asked = f"{self._metadata.base}/task"
        network = await self._network(container)
        if network.network_mode == "awsvpc":
            location = Location(_own_address(network), spec.port)
            return Answer(asked, "awsvpc mode: the task has a network interface of its own", location)
        port = await self.host_port(spec, container)
        return Answer(asked, f"{network.network_mode} mode: port {port} of a host whose address the next sources know")

    async def on_host(self, address: str, spec: EndpointSpec, container: str) -> Location | None:
        """Return the endpoint at the host's address, with the port that the app has there.

        Raises:
            AddressError: the port is not mapped, or the agent does not answer.
        """
        port = await self.host_port(spec, container, ipv6=":" in address)
        return None if port is None else Location(address, port)

    async def host_port(self, spec: EndpointSpec, container: str, *, ipv6: bool = False) -> int | None:
        """Return the endpoint's port on this machine, or None in awsvpc mode, where the machine has none for it.

        ``ipv6`` selects the machine's IPv6 address, where Docker may have mapped another port.

        Raises:
            AddressError: the port is not mapped, or the agent does not answer.
        """
        if self._metadata is None:
            return spec.port
        mode = (await self._network(container)).network_mode
        if mode == "awsvpc":
            return None
        if mode == "host":
            return spec.port
        if mode in _BRIDGE:
            port = await self._until(lambda task: host_port(task, container, spec.port, ipv6=ipv6))
            if port is not None:
                return port
            raise _not_started(container or f"that maps port {spec.port}")
        raise AddressError(
            f"the task's network mode {mode!r} has no address that others can reach",
            "use awsvpc, bridge or host in the task definition",
        )

    async def moved(self, spec: EndpointSpec, container: str, location: Location) -> bool:
        """Return whether the endpoint has another host port now; False while the agent does not answer."""
        try:
            port = host_port(await self._fetch(), container, spec.port, ipv6=":" in location.address)
        except (AddressError, MetadataUnavailable):
            return False
        return port is not None and port != location.port

    async def mode(self, container: str) -> str:
        """Return the network mode of the task; empty outside of ECS."""
        return (await self._network(container)).network_mode if self.there else ""

    async def task(self) -> Task:
        """Return the task as it was fetched last.

        Raises:
            MetadataUnavailable: the agent does not answer.
        """
        return self._task or await self._fetch()

    async def facts(self) -> Facts:
        """Return the facts in the task's metadata.

        Without a configured instance id the metadata is waited for: with the machine's id, which all tasks there
        share, they would fence each other.

        Raises:
            IdentityError: the id is not configured, and the agent did not answer within ``patience``.
        """
        if not self.there:
            return Facts()
        if self._identifies:
            task = await self._until(lambda task: task if task.id else None, _no_identity)
            if task is None:
                raise _no_identity(MetadataUnavailable("it has no TaskARN"))
            return _facts(task)
        try:
            return _facts(await self.task())
        except MetadataUnavailable as error:
            log.warning("task_metadata_unavailable", reason=str(error))
            return Facts()

    async def _network(self, container: str) -> Network:
        network = await self._until(lambda task: _network_of(task, container))
        if network is None:
            raise _not_started(container)
        return network

    async def _until(
        self,
        find: Callable[[Task], T | None],
        refusal: Callable[[MetadataUnavailable], ConfigurationError] | None = None,
    ) -> T | None:
        """Return the first result of ``find`` that is not None; None after ``patience`` seconds.

        Raises:
            ConfigurationError: the agent does not know this task, or did not answer in time; ``refusal`` makes the
                error.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._patience
        logged = False
        while True:
            late = loop.time() >= give_up
            reason = "what is needed of it has not started yet"
            try:
                result = find(await self.task())
            except MetadataUnavailable as error:
                # An agent that is throttled or restarts is waited for: to give up would end an essential container.
                if late or not error.passing:
                    raise (refusal or _no_metadata)(error) from error
                result, reason = None, str(error)
            if result is not None or late:
                return result
            if not logged:
                log.warning("waiting_for_the_task", reason=reason, at_most=self._patience, meanwhile="nothing is sent")
            logged = True
            await asyncio.sleep(around(_POLL_INTERVAL, 0.2))
            self._task = None

    async def _fetch(self) -> Task:
        if self._metadata is None:
            raise MetadataUnavailable(NO_TASK)
        self._task = await self._metadata.task()
        return self._task


def _facts(task: Task) -> Facts:
    return Facts(
        instance_id=task.id,
        region=task.region,
        zone=task.availability_zone,
        cluster=task.cluster,
        cluster_arn=task.cluster_arn,
        task=task.id,
        revision=f"{task.family}:{task.revision}" if task.revision else task.family,
        service=task.service_name,
    )


def _network_of(task: Task, container: str) -> Network | None:
    """Return the first network of the app's container, or of another one while it is missing: all share one mode."""
    named = task.container(container)
    candidates: tuple[Container, ...] = (named, *task.containers) if named else task.containers
    return next(
        (network for candidate in candidates for network in candidate.networks or () if network.network_mode), None
    )


def _own_address(network: Network) -> str:
    """Return the interface's first address: IPv4, or IPv6 in a subnet without."""
    return next(filter(None, (*(network.ipv4_addresses or ()), *(network.ipv6_addresses or ()))), "")


def _no_metadata(error: MetadataUnavailable) -> AddressError:
    return AddressError(
        f"the task's metadata cannot be had: {error}",
        "see whether the ECS agent is well, or name the address, like REGISTRAR_ENDPOINT=10.0.0.5:8080",
    )


def _no_identity(error: MetadataUnavailable) -> IdentityError:
    return IdentityError(
        f"which task this is cannot be had: {error}",
        "see whether the ECS agent is well, or name the instance, unlike any other task's, with REGISTRAR_INSTANCE_ID",
    )


def _not_started(container: str) -> AddressError:
    return AddressError(
        f"no container {container} has started".replace("  ", " "),
        "let the registrar's container depend on the app's with condition START, and let REGISTRAR_CONTAINER "
        "be the app's name in the task definition",
    )
