"""The prober of a process, in virtual time and on a network that the test makes up."""

import asyncio
from array import array
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest
from unit.registry.making import endpoint, registration

from registry.background import prober as module
from registry.background.prober import PROBE_INTERVAL, Prober
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.endpoint import Endpoint
from registry.core.endpoint_networks import EndpointNetworks
from registry.core.evidence import Statement
from registry.core.lease import Leases
from registry.core.probing import BASE_LINE_INTERVAL, MUTE_SECONDS
from registry.core.snapshot import SnapshotDelta
from registry.errors import UnavailableError
from wire.tcp_probe import Outcome

_SINCE_2000 = 946_684_800


class Rig:
    """A prober, the endpoints that it knows, and what becomes of its connections.

    Attributes:
        network: what a connection to an address shows; a future never ends.
        tried: every connection attempt, with its time.
        stored: the statements that PostgreSQL has; an error is raised instead.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 10_000.0
        self.cache = SnapshotCache()
        self.network: Callable[[str], Outcome | None] = lambda _: "connected"
        self.tried: list[tuple[float, str]] = []
        self.stored: list[Statement] | UnavailableError = []
        self.writes = 0
        self._change = 0
        patch.setattr(module, "time", self)
        patch.setattr(module, "uniform", lambda least, _: least)
        patch.setattr(module, "replace_statements", self._replace)
        networks = EndpointNetworks([ip_network("10.0.0.0/16")], loopback=False)
        database: Any = None
        self.prober = Prober("a", database, self.cache, networks, self._connect, lambda _: "10.9.0.1")

    def monotonic(self) -> float:
        """Return the virtual time, as the module ``time`` does."""
        return self.now

    def show(self, *endpoints: Endpoint) -> None:
        """List endpoints of one service, all of which have just renewed their leases."""
        self._change += 1
        self.cache.apply([SnapshotDelta("shop", self._change, self._change, listed=endpoints, whole=True)])
        self.renew(*endpoints)

    def renew(self, *endpoints: Endpoint) -> None:
        """Read leases that were renewed just now."""
        self.cache.mark_ready(self.now)
        self.cache.clock.set(self.now, self.now, self.now)
        renewed = array("q", [int((self.now - _SINCE_2000) * 1e6)] * len(endpoints))
        self.cache.read_leases(Leases(array("q", [each.id for each in endpoints]), renewed, renewed), self.now)

    async def run(self, seconds: float) -> None:
        """Let the jobs of the prober run for so long."""
        for number in range(round(seconds / PROBE_INTERVAL)):
            self.now += PROBE_INTERVAL
            await self.prober.step()
            if number % 10 == 0:
                await self.prober.scan()
                await self.prober.publish()
            for _ in range(4):
                await asyncio.sleep(0)

    def attempts(self) -> Counter[str]:
        """Return how often each address was tried."""
        return Counter(address for _, address in self.tried)

    async def _connect(self, address: str, _port: int) -> Outcome:
        self.tried.append((self.now, address))
        outcome = self.network(address)
        if outcome is None:
            await asyncio.get_running_loop().create_future()
        assert outcome is not None
        return outcome

    async def _replace(self, _database: object, _prober: str, statements: list[Statement], now: float) -> None:
        assert now == self.now
        if isinstance(self.stored, UnavailableError):
            raise self.stored
        self.stored, self.writes = statements, self.writes + 1


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    """A prober of which nothing is known."""
    return Rig(monkeypatch)


def made(number: int, *, metadata: dict[str, Any] | None = None, **changed: Any) -> Endpoint:
    """Return an endpoint on a host of its own."""
    stored = registration(f"i-{number}", metadata=metadata or {}, ttl=20.0)
    return endpoint(number, stored=stored, change=number, **changed)


FOUR = [made(number) for number in range(1, 5)]
SILENT = [made(1, suspect_since=1.0), *FOUR[1:]]


async def test_each_endpoint_is_reached_once_in_five_minutes(rig: Rig) -> None:
    """A new one at once, and then again when its base line is due."""
    rig.show(*FOUR)
    await rig.run(2)
    assert rig.attempts() == {each.address: 1 for each in FOUR}
    assert rig.prober.state.reached == 4
    await rig.run(60)
    assert len(rig.tried) == 4
    rig.now += BASE_LINE_INTERVAL
    await rig.run(3)
    assert rig.attempts() == {each.address: 2 for each in FOUR}


async def test_at_most_twenty_probes_begin_in_a_second(rig: Rig) -> None:
    """However many endpoints are new."""
    rig.show(*[made(number) for number in range(1, 200)])
    await rig.run(5)
    for begin, _ in rig.tried:
        assert sum(begin <= at < begin + 0.99 for at, _ in rig.tried) <= 20
    assert len(rig.tried) > 80


async def test_an_endpoint_that_does_not_answer_delays_no_other(rig: Rig) -> None:
    """Its connection is a task of its own."""
    rig.show(*FOUR)
    rig.network = lambda address: None if address == FOUR[0].address else "connected"
    await rig.run(2)
    assert rig.prober.state.reached == 3
    await rig.prober.stop()


async def test_nothing_is_probed_that_may_not_be(rig: Rig) -> None:
    """Neither what opted out, nor what is outside of the networks, nor what is not healthy; not even as a suspect."""
    opted = [made(1, metadata={"probe": False}), made(2, metadata={"probe": "False"})]
    outside = [made(3, address="10.1.0.1"), made(4, address="fd00::1"), made(5, address="127.0.0.1")]
    silent = [made(6, metadata={"probe": False}, suspect_since=1.0), made(7, address="10.1.0.2", suspect_since=1.0)]
    leaving = [made(8, lapsed_at=1.0), made(9, leaving_at=1.0)]
    rig.show(*opted, *outside, *silent, *leaving, made(10, metadata={"probe": True}), made(11, metadata={"probe": 0}))
    await rig.run(5)
    assert rig.attempts().keys() == {made(10).address, made(11).address}


async def test_a_refusing_suspect_is_told_of(rig: Rig) -> None:
    """With the base line of before, and two controls that renew."""
    rig.show(*FOUR)
    await rig.run(2)
    reached, dead = rig.now, SILENT[0].address
    rig.network = lambda address: "refused" if address == dead else "connected"
    rig.show(*SILENT)
    await rig.run(6)
    assert isinstance(rig.stored, list)
    (statement,) = rig.stored
    assert (statement.prober, statement.address, statement.kind, statement.attempts) == ("a", "10.9.0.1", "refused", 3)
    assert (statement.endpoint_id, statement.incarnation) == (1, SILENT[0].registration.incarnation)
    assert statement.reached_at is not None
    assert reached - 2 <= statement.reached_at <= reached
    writes = rig.writes
    await rig.run(2)
    assert rig.writes == writes
    rig.show(*FOUR)
    await rig.run(2)
    assert rig.stored == []
    assert rig.prober.state.suspects == 0


async def test_a_living_suspect_is_told_of(rig: Rig) -> None:
    """Also where there are no controls, and where it was never reached before."""
    rig.show(SILENT[0])
    await rig.run(2)
    assert isinstance(rig.stored, list)
    assert [statement.kind for statement in rig.stored] == ["connected"]


@pytest.mark.parametrize("others", [0, 1])
async def test_too_few_controls_are_no_say(rig: Rig, others: int) -> None:
    """The suspect refuses, and whether this process can connect anywhere is not known."""
    rig.show(*FOUR[: others + 1])
    await rig.run(2)
    rig.network = lambda address: "refused" if address == SILENT[0].address else "connected"
    rig.show(*SILENT[: others + 1])
    await rig.run(15)
    assert rig.stored == []


async def test_a_failed_control_mutes(rig: Rig) -> None:
    """Whatever became of the network is not the suspect's death; half a minute later it may speak again."""
    rig.show(*FOUR)
    await rig.run(2)
    rig.network = lambda _: "refused"
    rig.show(*SILENT)
    await rig.run(2)
    assert rig.prober.state.muted_seconds > MUTE_SECONDS - 3
    tried = rig.attempts()[SILENT[0].address]
    rig.network = lambda address: "refused" if address == SILENT[0].address else "connected"
    await rig.run(MUTE_SECONDS - 5)
    assert rig.attempts()[SILENT[0].address] == tried
    assert rig.stored == []
    rig.renew(*SILENT)
    await rig.run(12)
    assert isinstance(rig.stored, list)
    assert [statement.kind for statement in rig.stored] == ["refused"]


async def test_a_late_endpoint_is_no_control(rig: Rig) -> None:
    """What died together with the suspects has a lease for some seconds still."""
    rig.show(*FOUR)
    await rig.run(2)
    rig.network = lambda _: "refused"
    rig.show(*SILENT)
    rig.renew()
    await rig.run(6)
    assert rig.prober.state.muted_seconds == 0
    assert rig.attempts()[SILENT[1].address] == 1


async def test_a_new_incarnation_has_no_base_line(rig: Rig) -> None:
    """It is reached anew while it is healthy; silent before that, nothing is said of it."""
    rig.show(*FOUR)
    await rig.run(2)
    rig.network = lambda address: "refused" if address == SILENT[0].address else "connected"
    newer = endpoint(1, stored=registration("i-1", incarnation=99, ttl=20.0), change=1, suspect_since=1.0)
    rig.show(newer, *FOUR[1:])
    await rig.run(15)
    assert rig.stored == []


async def test_what_cannot_be_stored_is_stored_later(rig: Rig) -> None:
    """And fails nothing meanwhile; the state says why."""
    rig.stored = UnavailableError("away", cause="the disk is full")
    rig.show(SILENT[0])
    await rig.run(2)
    assert rig.prober.state.failure == "the disk is full"
    rig.stored = []
    await rig.run(2)
    assert rig.prober.state.failure == ""
    assert len(rig.stored) == 1


async def test_a_process_that_knows_nothing_probes_nothing(rig: Rig) -> None:
    """Before it has read PostgreSQL, and while it serves the snapshot on disk."""
    await rig.run(1)
    rig.show(*FOUR)
    rig.cache._stale = True
    await rig.run(2)
    assert rig.tried == []


async def test_suspects_do_not_end_base_lines(rig: Rig) -> None:
    """Of thousands of suspects and many new endpoints, both get their turn."""
    suspects = [made(number, suspect_since=1.0) for number in range(1, 200)]
    rig.show(*suspects, *[made(number) for number in range(200, 240)])
    await rig.run(10)
    assert rig.prober.state.reached == 40
    tried = rig.attempts()
    assert sum(tried[each.address] for each in suspects) > 100


async def test_suspects_whose_attempts_never_agree_do_not_keep_out_others(rig: Rig) -> None:
    """Forty hosts that refuse and time out in turn, and one that always refuses."""
    flapping = [made(number) for number in range(1, 41)]
    dead, living = made(50), [made(60), made(61)]
    rig.show(*flapping, dead, *living)
    await rig.run(5)
    names = {each.address for each in flapping}
    turns: Counter[str] = Counter()

    def network(address: str) -> Outcome:
        turns[address] += 1
        if address in names:
            return "refused" if turns[address] % 2 else "timed_out"
        return "refused" if address == dead.address else "connected"

    rig.network = network
    rig.show(*[made(number, suspect_since=1.0) for number in range(1, 41)], made(50, suspect_since=1.0), *living)
    for _ in range(20):
        rig.renew(*living)
        await rig.run(5)
    assert isinstance(rig.stored, list)
    assert [(statement.endpoint_id, statement.kind) for statement in rig.stored] == [(50, "refused")]
