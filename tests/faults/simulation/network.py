"""The network between probers and hosts: what a connection attempt of a prober shows, in truth or by a middlebox."""

from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

from registry.background.prober import Prober
from registry.core.admission import Limits
from registry.core.probing import Target
from wire.tcp_probe import PROBE_TIMEOUT, Outcome

if TYPE_CHECKING:
    from faults.simulation.replica import Replica
    from faults.simulation.world import World

Middlebox = Callable[[str, str], Outcome | None]
"""Returns what an attempt from one address to another shows; None: it lets the attempt through."""

_APPS: dict[str, Outcome] = {"up": "connected", "down": "refused", "host_gone": "timed_out"}


class Network:
    """The network of a world whose registries probe.

    Attributes:
        middleboxes: what stands between probers and hosts; the first that does not let an attempt through decides.
        tried: the number of attempts.
    """

    def __init__(self) -> None:
        self.middleboxes: list[Middlebox] = []
        self.tried = 0

    def outcome(self, world: "World", source: str, target: Target) -> Outcome:
        """Return what an attempt shows."""
        self.tried += 1
        for middlebox in self.middleboxes:
            shown = middlebox(source, target.address)
            if shown is not None:
                return shown
        place = (target.address, target.port)
        apps = [registrar.app for registrar in world.registrars if registrar.key[1:] == place]
        return _APPS[apps[-1]] if apps else "timed_out"


class _Pause:
    """A pause of virtual seconds, for the coroutine that is driven by ``SimulatedProber``."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __await__(self) -> Generator[float, None, None]:
        yield self._seconds


class SimulatedProber(Prober):
    """The real prober, whose connections are those of a world's network and take virtual time."""

    def __init__(self, replica: "Replica", database: Any, network: Network) -> None:
        reports, cache = replica.reports, replica.cache
        self._world, self._network = replica.world, network
        self._address = replica.address
        networks = Limits.of(replica.settings).networks
        super().__init__(reports.process_id, database, cache, networks, source=lambda _: self._address)

    async def _probe(self, target: Target, purpose: str) -> Outcome:
        outcome = self._network.outcome(self._world, self._address, target)
        await _Pause(PROBE_TIMEOUT if outcome == "timed_out" else 0.01)
        return outcome

    def _begin(self, work: Coroutine[Any, None, None]) -> None:
        async def go_on() -> None:
            try:
                seconds = work.send(None)
            except StopIteration:
                return
            self._world.soon(seconds, go_on)

        self._world.soon(0.0, go_on)
