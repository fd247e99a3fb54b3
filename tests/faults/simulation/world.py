"""One history: everything that exists in it, and what happens next."""

import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from random import Random

import asyncpg
from faults.simulation.bounds import Bounds
from faults.simulation.clock import Clock
from faults.simulation.dns import Dns
from faults.simulation.envoy import Envoy
from faults.simulation.network import Network
from faults.simulation.postgres import Postgres
from faults.simulation.registrar import Registrar
from faults.simulation.replica import Replica
from faults.simulation.rules import TTL
from faults.simulation.stage import Stage
from faults.simulation.store import Store
from faults.simulation.troubles import Troubles
from faults.simulation.violation import Violation
from faults.simulation.witness import Witness

from registry.core.endpoint import Endpoint, Key
from registry.core.evidence import PlatformWord
from registry.errors import UnavailableError
from wire.address import parse_endpoint
from wire.model import Heartbeat, HeartbeatResult

Act = Callable[[], Awaitable[None]]

SERVICES = ("cart", "shop")
_NETWORK = "10.9.0."
_LAST_LINES = 60


class World:
    """A history of one seed: the same seed is the same history.

    ``kinds`` names the troubles that may come; without them the history draws its own. ``steps`` counts what happened.
    ``network`` is what the registries probe, None where they do not; ``fleet`` the number of instances of each service,
    with two registries. ``late`` is the share of heartbeats that arrive after their registrar gave up. ``stopped`` says
    that a process is stopped in the middle of a sweep: one at a time, for they lie in one another.
    """

    def __init__(
        self,
        stage: Stage,
        seed: int,
        kinds: Sequence[str] = (),
        *,
        network: Network | None = None,
        fleet: Mapping[str, int] | None = None,
    ) -> None:
        self.seed = seed
        self.network = network
        self._stage = stage
        stage.broken = None
        self.random = stage.random = Random(seed)
        self.clock = stage.clock = Clock()
        self.steps = 0
        self.late = 0.0
        self.stopped = False
        self.lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._agenda: list[tuple[float, int, Act]] = []
        self._scheduled = 0
        self.witness = Witness(self.clock)
        self.witness.shares.with_evidence = network is not None
        self.postgres = Postgres(self.clock)
        self.store = stage.store = Store(self.postgres, self.witness, self._notify)
        self.replicas: list[Replica] = []
        self.registrars: list[Registrar] = []
        for number in range(self.random.choice([1, 2, 2, 3]) if fleet is None else 2):
            self.replicas.append(Replica(self, f"replica-{number}"))
        self.dns = Dns(self.addresses)
        for name in SERVICES:
            self.subscribe(name)
        for number, service in enumerate(self._services(fleet)):
            self.start((f"10.0.0.{number + 1}", 80), f"i-{number}", service)
        self.bounds = Bounds(self)
        self.troubles = Troubles(self, kinds)

    def _services(self, fleet: Mapping[str, int] | None) -> Iterator[str]:
        """Yield the service of each instance at the beginning: those of a fleet, or as the dice fall."""
        if fleet is not None:
            yield from (service for service, count in fleet.items() for _ in range(count))
            return
        for _ in range(self.random.choice([2, 4, 7, 12])):
            yield self.random.choice(SERVICES)

    @property
    def addresses(self) -> list[str]:
        """The addresses of the registries."""
        return [f"{_NETWORK}{number}" for number in range(len(self.replicas))]

    def platform(self, endpoint: Endpoint) -> PlatformWord | None:
        """Return the word of the platform about an endpoint: that some instances are gone."""
        registration = endpoint.registration
        if registration.instance_id not in self.witness.shares.gone:
            return None
        return PlatformWord(endpoint.id, registration.incarnation, "the platform says that it is gone")

    def replica_at(self, address: str) -> Replica | None:
        """Return the registry that listens at an address."""
        return self.replicas[int(address.removeprefix(_NETWORK))] if address in self.addresses else None

    def subscribe(self, service: str) -> None:
        """Start two Envoys that poll a service."""
        for number in range(2):
            Envoy(self, f"envoy-{service}-{number}", service)

    def start(self, place: tuple[str, int], instance_id: str, service: str) -> Registrar:
        """Start a registrar; its incarnation is the wall clock's milliseconds, different for each."""
        key: Key = (service, *place)
        registrar = Registrar(self, key, instance_id, 1_000_000 + int(self.clock.now * 1000) + len(self.registrars))
        self.registrars.append(registrar)
        self.say(f"{registrar.name} starts")
        return registrar

    def soon(self, seconds: float, act: Act) -> None:
        """Let something happen in so many seconds."""
        self._scheduled += 1
        heapq.heappush(self._agenda, (self.clock.now + seconds, self._scheduled, act))

    def say(self, line: str) -> None:
        """Write down what happens, for who has to understand a failure."""
        self.lines.append(f"{self.clock.now:8.2f}  {line}")

    async def run(self, seconds: float) -> None:
        """Let that much time pass; what happens may do the same."""
        until = self.clock.now + seconds
        while self._agenda and self._agenda[0][0] <= until:
            moment, _, act = heapq.heappop(self._agenda)
            self.clock.now = max(self.clock.now, moment)
            self.steps += 1
            await act()
            if self._stage.broken is not None:
                raise self._stage.broken
        self.clock.now = max(self.clock.now, until)

    async def play(self) -> None:
        """Let the registrars arrive, trouble come, and all of it end; raise a Violation with the seed and the steps."""
        try:
            await self.run(self.random.uniform(2, 15))
            self.troubles.begin()
            await self.run(self.random.uniform(60, 150))
            await self.troubles.end()
            await self.run(30.0 if self.random.random() < 0.8 else 4 * TTL + 100.0)
            await self._agree()
        except AssertionError as error:
            history = "\n".join(self.lines)
            raise Violation(
                f"{error}\n\nhistory {self.seed}, second {self.clock.now:.2f}, its last steps:\n{history}"
            ) from error

    async def stop(self, replica: Replica, seconds: float) -> None:
        """Stop a process between two statements, while all else goes on."""
        self.say(f"{replica.name} stops for {seconds:.1f} s in the middle of a sweep")
        self.bounds.interrupt(seconds)
        replica.freeze(seconds)
        self.stopped = True
        await self.run(seconds)
        self.stopped = False

    async def deliver(self, replica: Replica, registrar: Registrar, beats: Sequence[Heartbeat]) -> None:
        """Let a heartbeat arrive whose sender waits for it no longer."""
        if not replica.up or replica.frozen:
            return
        try:
            answers = await replica.heartbeats(beats)
        except (UnavailableError, asyncpg.PostgresError):
            return
        if any(answer.grant is not None for answer in answers):
            # What it says may have been overtaken by later ones, and stands until the next.
            registrar.heard_at = registrar.overtaken_at = self.clock.now

    def answered(self, beat: Heartbeat, answer: HeartbeatResult) -> None:
        """Let the witness compare an answer with what is stored."""
        key: Key = (beat.service, *parse_endpoint(beat.endpoint))
        if answer.grant is not None:
            self.witness.acknowledged(self.postgres.tables, key, beat.registration, self.postgres.now)
        else:
            self.witness.refused(self.postgres.tables, key, beat.registration)

    def _notify(self, told: str) -> None:
        for replica in self.replicas:
            replica.notified(told)

    async def _agree(self) -> None:
        """At the end every process knows what is stored, within a comparison of all versions."""
        for _ in range(8):
            await self.run(0.5)
            if not (differing := list(self._differing())):
                return
        raise Violation(f"I4: {differing[0]}")

    def _differing(self) -> Iterator[str]:
        for replica in self.replicas:
            for service, numbers in self.postgres.tables.services.items():
                known = replica.cache.get(service)
                if (known.version, known.change) != (numbers.version, numbers.change):
                    yield f"{replica.name} has version {known.version} of {service}, and stored is {numbers}"
                stored = {row.key: self.postgres.tables.joined(row) for row in self.postgres.tables.listed(service)}
                held = {one.key: one for one in known.endpoints.values()}
                if held != stored:
                    yield f"{replica.name} has {held} of {service}, and stored is {stored}"
