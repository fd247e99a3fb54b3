"""One registry process of the world: the real parts of one, over the PostgreSQL in memory."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from faults.simulation.link import Database, Session
from faults.simulation.rules import settings

from registrar.errors import RegistryUnavailable
from registry.abilities import Abilities
from registry.api.heartbeats import answer_beat
from registry.changes import Changes
from registry.directory import Directory
from registry.errors import UnavailableError
from registry.expulsion import Expulsion
from registry.registrations import Registrations
from registry.snapshot import Snapshot
from registry.subscribers import Subscribers
from registry.sweeper import Sweeper
from registry.xds.discovery import Answer, Discovery
from wire.model import Beat, BeatAnswer

if TYPE_CHECKING:
    from faults.simulation.world import World

_PATIENCE = 2.0
_KEEP_EVERY = 5.0
_PRUNE_EVERY = 30.0


class Replica:
    """A process that can be killed, frozen, cut off from PostgreSQL, and started again from its disk.

    ``life`` counts its starts: what an earlier one had scheduled does not happen. ``thaws_at`` is when a stop ends.
    ``lag`` is by how much its notifications are late, None if they are lost. ``stall_for`` is how long the process is
    to be stopped between two statements of its next sweep.
    """

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.settings = settings()
        self.up = False
        self.thaws_at = 0.0
        self.life = 0
        self.cut = False
        self.lag: float | None = 0.05
        self.stall_for = 0.0
        self._kept: dict[str, Snapshot] = {}
        self.start()

    def start(self) -> None:
        """Build every part anew and begin their loops."""
        self.up, self.thaws_at = True, 0.0
        self.life += 1
        self.database = Database(self.world.postgres, self._stall)
        self.database.cut = self.cut
        # The real parts ask for the real types; what they call of them is there.
        database = cast("Any", self.database)
        self.directory = _Directory(self)
        self.changes = Changes(database, self.directory, self.settings)
        self.registrations = Registrations(database, self.directory, self.changes, Abilities(20))
        self.expulsion = Expulsion(database, self.directory, self.changes)
        self.sweeper = Sweeper(database, self.directory, self.changes, self.settings)
        self.discovery = Discovery(self.directory, Subscribers(), 0)
        self._session: Session | None = None
        self._resync_due = 0.0
        for every, act in ((1.0, self.sweeper.sweep), (_KEEP_EVERY, self._keep), (_PRUNE_EVERY, self.sweeper.prune)):
            self._repeat(self.world.random.uniform(0, every), every, act)
        self._repeat(0.0, 1.0, self.follow)
        self._soon(_PATIENCE, self._fall_back)

    def kill(self) -> None:
        """Lose everything that is not on disk."""
        self.up = False
        self.life += 1
        self.database.closed = True
        if self._leads:
            self.world.postgres.lead = None

    @property
    def frozen(self) -> bool:
        """Whether it is stopped."""
        return self.world.clock.now < self.thaws_at

    def freeze(self, seconds: float) -> None:
        """Stop it for so long."""
        self.thaws_at = max(self.thaws_at, self.world.clock.now + seconds)

    @property
    def working(self) -> bool:
        """Whether it can store what it is told."""
        return self.up and not self.frozen and not self.cut

    def cut_off(self, cut: bool) -> None:
        """Take or give it its way to PostgreSQL."""
        self.cut = self.database.cut = cut
        if cut and self._leads:
            self.world.postgres.lead = None
        if cut:
            self._session = None

    @property
    def _leads(self) -> bool:
        lead = self.world.postgres.lead
        return isinstance(lead, Session) and lead.database is self.database

    def notified(self, told: str) -> None:
        """PostgreSQL says that a service changed, and to which change; the news may be late, or lost."""
        if self.up and self.lag is not None and self._session is not None:
            life = self.life

            async def hear() -> None:
                if self.life == life:
                    self.changes._on_notification(told)
                    await self.follow()

            self._soon(self.lag, hear)

    async def follow(self) -> None:
        """Do what the feed does between two waits."""
        try:
            if self._session is None or self.world.clock.now >= self._resync_due:
                await self.resynchronise()
            else:
                await self.changes._catch_up(cast("Any", self._session))
        except UnavailableError as error:
            self._session = None
            self.changes._note_loss(str(error))

    async def reconnect(self) -> None:
        """Notice that the connection is dead, and make another one."""
        self._session = None
        await self.follow()

    async def resynchronise(self) -> None:
        """Compare all versions, over a new connection if there is none."""
        if self._session is None:
            session = Session(self.database)
            await self.changes._recognise()
            await self.changes._resynchronise(cast("Any", session))
            self._session = session
            self.changes._note_following()
        else:
            await self.changes._resynchronise(cast("Any", self._session))
        self._resync_due = self.world.clock.now + self.settings.resync_interval

    async def heartbeats(self, beats: Sequence[Beat]) -> list[BeatAnswer]:
        """Answer a batch, as the API does."""
        self._refuse()
        try:
            answers = [await answer_beat(cast("Any", self), beat, "registrar") for beat in beats]
        except UnavailableError as error:
            raise RegistryUnavailable(str(error), retry_after=error.retry_after) from error
        for beat, answer in zip(beats, answers, strict=True):
            self.world.answered(beat, answer)
        return answers

    async def poll(self, body: bytes) -> Answer:
        """Answer an Envoy, which is not held."""
        self._refuse()
        return self.discovery.now("v3", self.discovery.read("v3", body), "envoy") or Answer(304)

    def _refuse(self) -> None:
        if not self.up:
            raise RegistryUnavailable("connection refused", perhaps_stored=False)
        if self.frozen:
            raise RegistryUnavailable("timed out")
        if not self.directory.ready:
            raise RegistryUnavailable("503", retry_after=1.0, perhaps_stored=False)

    async def _keep(self) -> None:
        if self.directory.ready and not self.directory.stale:
            self._kept = dict(self.directory.services())

    async def _fall_back(self) -> None:
        if not self.directory.ready and self._kept:
            fresh = {name: Snapshot(name, one.version, one.change, one.endpoints) for name, one in self._kept.items()}
            self.directory.restore("world", fresh)

    async def _stall(self, *, likely: bool = False) -> None:
        seconds = self.stall_for
        if seconds and not self.world.stopped and self.world.random.random() < (0.8 if likely else 0.03):
            self.stall_for = 0.0
            await self.world.stop(self, seconds)

    def _repeat(self, delay: float, every: float, act: Any) -> None:
        async def turn() -> None:
            await act()
            self._soon(every, turn)

        self._soon(delay, turn)

    def _soon(self, delay: float, act: Any) -> None:
        life = self.life

        async def unless_gone() -> None:
            if self.life != life:
                return
            if self.frozen:
                self.world.soon(min(0.5, self.thaws_at - self.world.clock.now), unless_gone)
                return
            await act()

        self.world.soon(delay, unless_gone)


class _Directory(Directory):
    """The real one; only that an answer does not wait for the feed longer than the feed takes at once."""

    def __init__(self, replica: Replica) -> None:
        super().__init__()
        self._replica = replica

    async def reached(self, service: str, change: int, seconds: float) -> bool:
        """Let the feed read what its own process nudged, if it can."""
        if self.get(service).change < change and self._replica.lag is not None:
            await self._replica.follow()
        return self.get(service).change >= change
