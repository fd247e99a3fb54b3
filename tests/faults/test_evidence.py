"""Probers in every kind of trouble, in virtual time: who lapses by evidence, and that no invariant is broken."""

from collections.abc import Callable, Iterator, Sequence

import pytest
from faults.simulation.network import Network
from faults.simulation.registrar import App, Registrar
from faults.simulation.stage import Stage, stage
from faults.simulation.world import World

from registry.core.evidence import Statement
from wire.tcp_probe import Outcome

FLEET = {"shop": 10, "cart": 10}
SILENT = 4
"""Instances of the shop that fall silent at once."""
GUARDED = 2
"""Those of them that the guard lets lapse without any evidence."""
LEASE = 20.0


@pytest.fixture(scope="module")
def built() -> Iterator[Stage]:
    """The seams of the simulation."""
    with stage() as prepared:
        yield prepared


class Story:
    """Two registries that probe, twenty instances, and four of them that fall silent at once."""

    def __init__(self, built: Stage, seed: int = 1) -> None:
        self.network = Network()
        self.world = World(built, seed, network=self.network, fleet=FLEET)
        self.silent = [registrar for registrar in self.world.registrars if registrar.key[0] == "shop"][:SILENT]

    async def begin(self) -> None:
        """Let everybody be registered and reached."""
        await self.world.run(30)
        assert self.network.tried >= 2 * sum(FLEET.values())

    def fall_silent(self, app: App) -> None:
        """Cut registrars off; the end of their apps or hosts may be the reason."""
        for registrar in self.silent:
            registrar.app = app
            registrar.change(cut=True)

    @property
    def lapsed(self) -> list[Registrar]:
        """Those that are published as TIMEOUT, or have been left out."""
        tables = self.world.postgres.tables
        routable = {row.key for row in tables.listed() if tables.joined(row).routable}
        return [registrar for registrar in self.world.registrars if registrar.key not in routable]

    async def play(self, app: App, middlebox: Callable[[str, str], Outcome | None] | None = None) -> int:
        """Return how many of them have lapsed ten seconds after their leases."""
        await self.begin()
        if middlebox is not None:
            self.network.middleboxes.append(middlebox)
        self.fall_silent(app)
        await self.world.run(LEASE + 10)
        assert set(self.lapsed) <= set(self.silent)
        return len(self.lapsed)

    async def return_all(self) -> None:
        """Let all of them be heard again, and be routable, whatever was thought of them."""
        for registrar in self.silent:
            registrar.app = "up"
            registrar.change(cut=False)
        await self.world.run(30)
        assert self.lapsed == []

    @property
    def hosts(self) -> set[str]:
        """The addresses of the silent."""
        return {registrar.key[1] for registrar in self.silent}

    def say(self, *probers: Statement) -> None:
        """Let registrars make statements about all suspects, now and for the next seconds."""

        async def again() -> None:
            tables, now = self.world.postgres.tables, self.world.postgres.now
            for told in probers:
                about = [row for row in tables.listed() if row.suspect_since is not None]
                tables.statements[told.prober] = tuple(
                    Statement(
                        told.prober,
                        told.address,
                        told.kind,
                        now,
                        row.id,
                        row.registration.incarnation,
                        now - 60,
                        3,
                        told.registrar_of,
                    )
                    for row in about
                )
            self.world.soon(0.5, again)

        self.world.soon(0.0, again)


def registrar_says(name: str, address: str, kind: str, service: str = "shop") -> Statement:
    """Return what a registrar says of every suspect."""
    return Statement(name, address, kind, 0.0, 0, 0, registrar_of=service)  # type: ignore[arg-type]  # a kind


def blocks(
    outcome: Outcome, hosts: Sequence[str] | set[str] | None, source: str = ""
) -> Callable[[str, str], Outcome | None]:
    """Return a middlebox in front of some hosts, or of all, for one prober or for all."""

    def decide(prober: str, host: str) -> Outcome | None:
        return outcome if source in ("", prober) and (hosts is None or host in hosts) else None

    return decide


async def test_dead_apps_on_living_hosts_are_out_at_once(built: Stage) -> None:
    """All four, by two processes that are refused; the guard alone would hold two of them."""
    story = Story(built)
    assert await story.play("down") == SILENT
    await story.return_all()


async def test_living_apps_of_silent_registrars_stay(built: Stage) -> None:
    """A partition of registry and hosts from nobody but the registrars: they can be connected to, and are held."""
    story = Story(built)
    assert await story.play("up") == GUARDED
    await story.world.run(20)
    assert len(story.lapsed) == GUARDED
    await story.return_all()


@pytest.mark.parametrize("outcome", ["timed_out", "nothing"])
async def test_what_does_not_answer_is_held(built: Stage, outcome: Outcome) -> None:
    """A firewall that drops, a full table of connections, a full backlog, no IPv6: silence proves nothing."""
    story = Story(built)
    assert await story.play("up", blocks(outcome, story.hosts)) == GUARDED
    await story.return_all()


async def test_hosts_that_are_gone_need_a_registrar(built: Stage) -> None:
    """Two processes that time out prove nothing; with a registrar on another host two fifths may go."""
    story = Story(built)
    assert await story.play("host_gone") == GUARDED
    story.say(registrar_says("r", "10.0.0.9", "unreachable"))
    await story.world.run(5)
    assert len(story.lapsed) == SILENT


async def test_the_platform_knows(built: Stage) -> None:
    """Its word needs no prober, and has no limit; the last endpoint is still listed."""
    story = Story(built)
    story.silent = [registrar for registrar in story.world.registrars if registrar.key[0] == "shop"]
    story.world.witness.shares.gone |= {registrar.instance_id for registrar in story.silent}
    assert await story.play("host_gone") == len(story.silent)
    assert len(story.world.postgres.tables.listed("shop")) == len(story.silent)


async def test_a_firewall_that_resets_costs_half_of_a_service(built: Stage) -> None:
    """The limit that the docs name: all ten are silent and live, and both probers are refused by all of them."""
    story = Story(built)
    story.silent = [registrar for registrar in story.world.registrars if registrar.key[0] == "shop"]
    assert await story.play("up", blocks("refused", story.hosts)) == len(story.silent) // 2
    await story.return_all()


async def test_one_prober_that_connects_beats_all(built: Stage) -> None:
    """The other one is behind a firewall that resets."""
    story = Story(built)
    assert await story.play("up", blocks("refused", story.hosts, "10.9.0.0")) == GUARDED


@pytest.mark.parametrize("outcome", ["timed_out", "refused", "nothing"])
async def test_probers_whose_own_network_is_dead_say_nothing(built: Stage, outcome: Outcome) -> None:
    """A dead proxy for what leaves the registries: the controls fail, too."""
    story = Story(built)
    assert await story.play("down", blocks(outcome, None)) == GUARDED


async def test_one_prober_whose_own_network_is_dead_says_nothing(built: Stage) -> None:
    """The other one alone is weak evidence: two fifths of the service."""
    story = Story(built)
    assert await story.play("down", blocks("refused", None, "10.9.0.0")) == SILENT
    story = Story(built)
    story.silent = [registrar for registrar in story.world.registrars if registrar.key[0] == "shop"][:8]
    assert await story.play("down", blocks("refused", None, "10.9.0.0")) == SILENT


async def test_a_security_group_alone_takes_nobody_out(built: Stage) -> None:
    """Two fifths of the hosts refuse the probers and go on sending heartbeats: nobody judges them."""
    story = Story(built)
    await story.begin()
    story.network.middleboxes.append(blocks("refused", story.hosts))
    await story.world.run(120)
    assert story.lapsed == []


async def test_an_address_that_another_app_has_is_held(built: Stage) -> None:
    """One that listens: it can be connected to. One that does not is a host that refuses."""
    story = Story(built)
    assert await story.play("host_gone", blocks("connected", story.hosts)) == GUARDED
    story = Story(built)
    assert await story.play("host_gone", blocks("refused", story.hosts)) == SILENT


async def test_overlapping_networks_are_never_reached(built: Stage) -> None:
    """From the registries these addresses have always led to other hosts, which refuse: there is no base line."""
    story = Story(built)
    story.network.middleboxes.append(blocks("refused", story.hosts))
    assert await story.play("up") == GUARDED


async def test_new_probers_have_no_say(built: Stage) -> None:
    """Both registries start after the deaths, and reach only what lives."""
    story = Story(built)
    await story.begin()
    story.world.bounds.interrupt(1.0)
    for replica in story.world.replicas:
        replica.kill()
    story.fall_silent("down")
    for replica in story.world.replicas:
        replica.start()
    await story.world.run(LEASE + 10)
    assert len(story.lapsed) == GUARDED


@pytest.mark.parametrize("liars", [1, 2, 3])
@pytest.mark.parametrize("kind", ["refused", "unreachable"])
async def test_registrars_that_lie_take_nobody_out(built: Stage, liars: int, kind: str) -> None:
    """While the processes connect, or see nothing at all; nor does a connection that they make up hold for ever."""
    for middlebox in (None, blocks("nothing", None)):
        story = Story(built)
        story.say(*[registrar_says(f"liar-{number}", f"10.0.0.{number + 5}", kind) for number in range(liars)])
        assert await story.play("up", middlebox) == GUARDED


async def test_registrars_that_lie_hold_the_dead_no_longer_than_the_guard(built: Stage) -> None:
    """They say that they connect: the dead are held as without any evidence, and not for ever."""
    story = Story(built)
    story.say(registrar_says("liar", "10.0.0.9", "connected"))
    assert await story.play("down") == GUARDED
    await story.world.run(65)
    assert len(story.lapsed) == SILENT


async def test_registrars_of_another_service_have_no_say(built: Stage) -> None:
    """Whatever they say, and from wherever."""
    story = Story(built)
    story.say(registrar_says("r", "10.0.0.19", "unreachable", "cart"))
    assert await story.play("host_gone") == GUARDED


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["registrar_kill", "partition", "clock_jump", "replica_kill", "fail_over", "health"])
async def test_probers_break_no_history(built: Stage, seed: int, kind: str) -> None:
    """With everything else that may go wrong, and apps that live or die with their registrars."""
    world = World(built, seed, [kind, "registrar_kill"], network=Network())

    async def change() -> None:
        for registrar in world.registrars:
            if not registrar.well:
                registrar.app = world.random.choice(["up", "down", "host_gone"])
        world.soon(1.0, change)

    world.soon(20.0, change)
    await world.play()
