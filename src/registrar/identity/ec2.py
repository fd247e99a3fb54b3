"""The EC2 instance as a source: IMDSv2 returns its address and facts."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from registrar.errors import MetadataUnavailable
from registrar.event_log import EventLogger
from registrar.identity.ecs_task import AWSVPC, EcsTask
from registrar.identity.imds import DISABLED, ENDPOINT, Document, Imds, TokenLost, endpoint
from registrar.identity.source import Answer, Facts
from registrar.identity.spec import EndpointSpec

log = EventLogger(__name__)

_SYS = Path("/sys")
# Files in which Linux shows the maker of a machine, and EC2's text in them: DMI on Nitro, the UUID on Xen.
_SIGNS = (
    ("class/dmi/id/sys_vendor", "amazon ec2"),
    ("class/dmi/id/bios_vendor", "amazon ec2"),
    ("hypervisor/uuid", "ec2"),
)
_HOP_LIMIT = (
    "the token's reply may not travel from the host into a container: allow two hops with "
    "`aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2` (HttpPutResponseHopLimit=2)"
)
_TURN_ON = (
    "turn it on with `aws ec2 modify-instance-metadata-options --http-endpoint enabled`, and for a container "
    "allow two hops with `--http-put-response-hop-limit 2` (HttpPutResponseHopLimit=2)"
)
_FAILURE_TTL = 10.0
"""Seconds that a failure is remembered: one start asks several times, and waits for a silent IMDS once."""


class Ec2:
    """Source that asks IMDS, and only on machines that have one.

    Elsewhere nothing answers at its link-local address, and each start on a laptop would wait for the timeout. So the
    machine has to look like EC2, or the task has to run there, or the environment has to name an endpoint. In a task
    IMDS describes the host, which is not the source of the task's facts, nor of its address in awsvpc mode.

    Args:
        environ: the variables that every AWS SDK reads.
        task: the task, for its network mode and ports.
        sys: the directory in which the kernel describes the machine.
    """

    name = "ec2-imds"
    costly = False

    def __init__(self, environ: Mapping[str, str], task: EcsTask, sys: Path = _SYS) -> None:
        self._imds = Imds(endpoint(environ))
        self._named = bool(environ.get(ENDPOINT))
        self._task = task
        self._sys = sys
        # The last failure, and the loop time at which it happened.
        self._failure: MetadataUnavailable | None = None
        self._failed_at = 0.0

    async def locate(self, spec: EndpointSpec, container: str) -> Answer:
        """Return the instance's address, with the port that the app has there."""
        if await self._task.host_port(spec, container) is None:
            return Answer("", AWSVPC)
        reason = await self._not_here()
        if reason:
            return Answer("", f"not asked: {reason}")
        asked = f"{self._imds.base}/latest/meta-data"
        if self._failure is None or asyncio.get_running_loop().time() > self._failed_at + _FAILURE_TTL:
            try:
                address = await self._imds.address()
            except MetadataUnavailable as error:
                self._remember(error)
                return Answer(asked, str(error), fix=self._fix(error))
            return Answer(asked, "the instance's address", await self._task.on_host(address, spec, container))
        return Answer(asked, str(self._failure), fix=self._fix(self._failure))

    async def facts(self) -> Facts:
        """Return the instance's id, region and zone."""
        if self._task.there or await self._not_here():
            return Facts()
        document = await self._document()
        return Facts(instance_id=document.instance_id, region=document.region, zone=document.zone)

    async def _document(self) -> Document:
        try:
            return await self._imds.document()
        except MetadataUnavailable as error:
            self._remember(error)
            log.warning("instance_metadata_unavailable", reason=str(error), fix=self._fix(error))
            return Document()

    def _remember(self, error: MetadataUnavailable) -> None:
        self._failure, self._failed_at = error, asyncio.get_running_loop().time()

    async def _not_here(self) -> str:
        """Return why IMDS is not asked; empty where it is."""
        if not self._imds.base:
            return f"{DISABLED} is set"
        if self._named or self._looks_like_ec2():
            return ""
        if self._task.there and (await self._task.task()).launch_type in ("EC2", "MANAGED_INSTANCES"):
            return ""
        return "this machine does not look like EC2"

    def _looks_like_ec2(self) -> bool:
        return any(_read(self._sys / path).startswith(sign) for path, sign in _SIGNS)

    def _fix(self, error: MetadataUnavailable) -> str:
        if isinstance(error, TokenLost) and self._task.there:
            return _HOP_LIMIT
        return _TURN_ON


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip().lower()
    except (OSError, UnicodeDecodeError):
        return ""
