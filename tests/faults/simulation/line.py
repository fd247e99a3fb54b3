"""A registrar's way to the registries: stands for the HTTP client below the registrar's real one."""

import asyncio
from typing import TYPE_CHECKING

import msgspec
from faults.simulation.dns import FOREIGN
from faults.simulation.replica import response

from registrar.registry_client.http_client import ConnectError, Origin
from wire.http1 import Request, Response
from wire.model import Heartbeat, HeartbeatBatch

if TYPE_CHECKING:
    from faults.simulation.registrar import Registrar
    from faults.simulation.replica import Replica

_decode_batch = msgspec.json.Decoder(HeartbeatBatch).decode


class Line:
    """Delivers each request at once, never, or when the registrar waits for it no longer.

    ``answered`` is the address of the registry that answered last; ``named`` are the addresses that DNS told last.
    """

    def __init__(self, registrar: "Registrar") -> None:
        self.answered = ""
        self.named: list[str] = []
        self._registrar = registrar
        self._world = registrar.world

    async def look_up(self, host: str) -> list[str]:
        """Return the addresses of the registries' name, as ``registrar.registry_client.dns.resolve`` does."""
        try:
            self.named = await self._world.dns.look_up(host)
        finally:
            self._note_stranded()
        return self.named

    async def request(self, origin: Origin, request: Request) -> Response:
        """Send one request; its error says whether it may have arrived."""
        if self._registrar.client._transport._registries._refreshing:
            # So that a lookup in the background is done by the time of the answer.
            await asyncio.sleep(0)
        address = origin.address
        replica = self._world.replica_at(address)
        try:
            if address == FOREIGN and not self._registrar.cut:
                self._note_failure(None)
                return response(404, b"not found", "text/html")
            answer = await self._deliver(request, replica)
        except OSError:
            self._note_failure(replica)
            raise
        if answer.status >= 500:
            self._note_failure(replica)
        else:
            self.answered = address
            self._registrar.mark(stranded=False)
        return answer

    async def _deliver(self, request: Request, replica: "Replica | None") -> Response:
        me, world = self._registrar, self._world
        if me.cut or replica is None:
            raise ConnectError("no route")
        if not request.body:
            # A start that published nothing may drain what an earlier one had published.
            world.witness.owners[me.key, me.instance_id, me.endpoint.lease.incarnation] = me
            return await replica.request(request.method, request.target, None)
        beats: list[Heartbeat] = _decode_batch(request.body).heartbeats
        for beat in beats:
            world.witness.owners[me.key, me.instance_id, beat.registration.incarnation] = me
        if world.random.random() < world.late:
            me.unheard()
            world.soon(world.random.uniform(0.1, 20.0), lambda: world.deliver(replica, me, beats))
            raise TimeoutError
        answer = await replica.request(request.method, request.target, beats)
        if answer.status < 300:
            me.heard_at = world.clock.now
        return answer

    def _note_failure(self, replica: "Replica | None") -> None:
        """Tell whose fault it is that this registrar is not heard."""
        me, world = self._registrar, self._world
        if replica is not None and replica.excuses(me.key):
            me.well_since = world.clock.now
        self._note_stranded()

    def _note_stranded(self) -> None:
        """Tell whether no registry that this registrar can know of answers, by no fault of all registries together."""
        world = self._world
        known = [world.replica_at(address) for address in (*self.named, self.answered)]
        answering = [one for one in world.replicas if one.answers]
        lied_to = world.dns.addresses != world.addresses
        if (answering or lied_to) and not any(one in answering for one in known):
            self._registrar.mark(stranded=True)
