"""A subscriber of the world: it polls any registry with the version that it holds."""

from typing import TYPE_CHECKING

from faults.simulation.violation import Violation

from registry.errors import UnavailableError

if TYPE_CHECKING:
    from faults.simulation.world import World


class Envoy:
    """Holds one version of one service, and never takes an older one."""

    def __init__(self, world: "World", name: str, service: str) -> None:
        self.name = name
        self.service = service
        self.version = 0
        self._world = world
        world.soon(world.random.uniform(0, 1), self._poll)

    async def _poll(self) -> None:
        world = self._world
        world.soon(world.random.uniform(0.5, 1.5), self._poll)
        replica = world.random.choice(world.replicas)
        held = f'"version_info":"world:{self.version}",' if self.version else ""
        body = f'{{{held}"node":{{"id":"e"}},"resource_names":["{self.service}"]}}'.encode()
        try:
            answer = await replica.poll(body)
        except (OSError, UnavailableError):
            return
        if answer.status != 200:
            return
        version = world.witness.editions.answered(self.service, answer.body)
        if version is None:
            if self.version:
                raise Violation(f"I3: {replica.name} knows nothing of {self.service}, {self.name} has {self.version}")
            return
        if version < self.version:
            raise Violation(f"I4: {replica.name} gave {self.name} version {version} after {self.version}")
        self.version = version
