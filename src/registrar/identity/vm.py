"""The machine as a source: the source address of its default route, and its machine id."""

import hashlib
import hmac
import socket
from pathlib import Path

from registrar.identity.ecs_task import EcsTask
from registrar.identity.source import Answer, Facts, Location
from registrar.identity.spec import EndpointSpec

_MACHINE_ID = Path("/etc/machine-id")
_SALT = b"headcount-registrar"
# Addresses of documentation (RFC 5737, RFC 3849): connecting a UDP socket sends nothing and selects the route.
_ROUTED_ADDRESSES = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_ASKED = "the route to 192.0.2.1, without sending anything"


class Vm:
    """Source of the address that packets to the default route carry.

    A machine with several networks has only one default route: settings name the interface or the network there.
    """

    name = "vm"
    costly = False

    def __init__(self, machine_id: Path = _MACHINE_ID, task: EcsTask | None = None) -> None:
        self._machine_id = machine_id
        self._task = task

    async def locate(self, spec: EndpointSpec, container: str) -> Answer:
        """Return the address that packets to the default route carry."""
        # In bridge mode that is the container's own address, which other machines cannot reach.
        if self._task is not None and (mode := await self._task.mode(container)) not in ("", "host"):
            return Answer("", f"not asked: in {mode} mode the task's routes do not show the host's address")
        for family, address in _ROUTED_ADDRESSES:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                try:
                    probe.connect((address, 9))
                except OSError:
                    continue
                location = Location(probe.getsockname()[0], spec.port)
                return Answer(_ASKED, "the source address of the default route", location)
        return Answer(_ASKED, "this machine has no default route", fix="connect it, or add a default route")

    async def facts(self) -> Facts:
        """Return an instance id that stays the same over restarts and boots; nothing in a task, which has its own."""
        if self._task is not None and self._task.there:
            return Facts()
        return Facts(instance_id=self._instance_id())

    def _instance_id(self) -> str:
        try:
            machine_id = self._machine_id.read_text("utf-8", "replace").strip()
        except OSError:
            machine_id = ""
        # Images carry an empty file, or this word, until their first boot.
        if machine_id in ("", "uninitialized"):
            return socket.gethostname()
        # machine-id(5) asks to be hashed before it goes over a network.
        return f"vm-{hmac.new(_SALT, machine_id.encode(), hashlib.sha256).hexdigest()[:16]}"
