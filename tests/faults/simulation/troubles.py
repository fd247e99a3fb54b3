"""What goes wrong, and what people do: each kind is a method, and a history draws a few kinds."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg
from faults.simulation.dns import FOREIGN, NOBODY, UNUSABLE
from faults.simulation.postgres import REFUSED_OF_SERVICE, Numbers, Refusal
from faults.simulation.registrar import Registrar
from faults.simulation.replica import Replica
from faults.simulation.rules import FAILURE_FORGOTTEN, HANDOVER, REFUSAL_RETRIED, SLACK, TTL
from faults.simulation.violation import Violation

from registry.auth.principal import Principal
from registry.core.endpoint import Key, Override
from registry.core.expiry_guard import EVERYWHERE, SERVICE_SHARE
from registry.errors import RegistryError
from wire.address import parse_endpoint
from wire.model import Report

if TYPE_CHECKING:
    from faults.simulation.world import World

_ANN = Principal("ann")
_OF_REMOVAL = ("services_with_departed", "ended_overrides")
_STATEMENTS = (
    "all_leases",
    "read_clock",
    "credit_all",
    "expired_leases",
    "in_force",
    "last_sweep",
    "try_lead",
    "service_versions",
    "count_endpoints",
    "prune",
    "steps",
    "store_sweep_time",
    *_OF_REMOVAL,
)
"""What a sweep and the feed ask, one of which PostgreSQL may refuse."""
_IN_A_SWEEP = (
    "last_sweep",
    "expired_leases",
    "count_endpoints",
    "count_endpoints",
    "in_force",
    "change_service",
    "change_unroutable",
    "services_with_departed",
)
"""Statements of a sweep after which something may happen: mostly between what is judged and what is done about it."""
_ERRORS = (
    asyncpg.InsufficientPrivilegeError("permission denied"),
    asyncpg.SequenceGeneratorLimitExceededError("nextval: reached maximum value of sequence"),
)
"""Errors that are no outage, and are said of no row in particular."""
_LOSSES = ("do_health", "do_newcomer", "do_founding", "do_replacement", "do_drain")
"""What a fail-over is to lose."""
_SETTLED = 8.0
"""Seconds between two changes of the database's clock: the fault model has no two at a time."""


class Troubles:
    """Draws kinds of trouble by the history's dice; what has an end ends by itself, or at the history's."""

    def __init__(self, world: "World", kinds: Sequence[str] = ()) -> None:
        self._world = world
        self._random = world.random
        known = sorted(name for name in vars(Troubles) if name.startswith("do_"))
        drawn = self._random.sample(known, self._random.choice([1, 2, 3, 5, len(known)]))
        self._kinds = [f"do_{kind}" for kind in kinds] or drawn
        self._active = False
        self._started = 0
        self._moved_at = 0.0

    def begin(self) -> None:
        """Let the first one come."""
        self._active = True
        self._world.say(f"trouble: {', '.join(kind.removeprefix('do_') for kind in self._kinds)}")
        self._world.soon(self._random.uniform(0.5, 5), self._next)

    async def end(self) -> None:
        """Mend everything that can be mended; the dead stay dead."""
        world = self._world
        world.say("all trouble ends")
        self._active = False
        world.late = 0.0
        self._restore()
        world.postgres.unwritable = False
        world.postgres.fsync = 0.0
        world.postgres.refusals.clear()
        world.postgres.refused_services.clear()
        world.dns.addresses = world.addresses
        for replica in world.replicas:
            self._mend(replica)
        for registrar in world.registrars:
            registrar.change(frozen=False, cut=False)
        await self._operate(lambda replica: self._store.resume(replica.database, EVERYWHERE))

    async def _next(self) -> None:
        if not self._active:
            return
        await getattr(self, self._random.choice(self._kinds))()
        self._world.soon(self._random.expovariate(1 / 7), self._next)

    async def do_outage(self) -> None:
        """PostgreSQL is away for a while, and loses nothing."""
        seconds = self._random.choice([1.0, 2.5, 8.0, 40.0])
        self._world.say(f"PostgreSQL is away for {seconds} s")
        self._world.bounds.interrupt(seconds)
        self._world.postgres.crash()
        self._later(seconds, self._restore)

    async def do_full_disk(self) -> None:
        """PostgreSQL answers reads only."""
        seconds = self._random.choice([2.0, 15.0, 40.0])
        self._world.say(f"PostgreSQL is not writable for {seconds} s")
        self._world.bounds.interrupt(seconds)
        self._world.postgres.unwritable = True
        self._later(seconds, partial(setattr, self._world.postgres, "unwritable", False))

    async def do_clock_jump(self) -> None:
        """The database's clock is set."""
        seconds = self._random.choice([-300.0, 300.0, -15.0, 15.0, -1.5, 1.5])
        if not self._may_move():
            return
        self._world.say(f"the clock of PostgreSQL jumps by {seconds} s")
        self._moved(seconds)
        self._world.postgres.offset += seconds
        if abs(seconds) < SLACK:
            self._world.bounds.interrupt(abs(seconds))

    async def do_fail_over(self) -> None:
        """A standby takes over that has not heard of the last commits, perhaps with another clock."""
        world = self._world
        lost, offset = self._random.choice([0.0, 0.5, 3.0]), self._random.choice([0.0, 0.0, 300.0, -300.0])
        at_once = self._random.random() < 0.5
        if not self._may_move():
            return
        # What is lost should be something.
        for _ in range(self._random.choice([0, 1, 3])):
            await getattr(self, self._random.choice(_LOSSES))()
        await world.run(self._random.uniform(0.1, 1.0))
        world.say(f"fail-over: {lost} s lost, clock {offset:+} s, {'' if at_once else 'not '}seen at once")
        self._moved(offset)
        world.postgres.promote(lost, offset)
        world.witness.failed_over(world.postgres.tables)
        for service in world.witness.editions.services():
            numbers = world.postgres.tables.services.get(service, Numbers())
            world.witness.editions.lose(service, numbers.version, numbers.change)
        if at_once:
            for replica in world.replicas:
                if replica.working:
                    await replica.reconnect()

    async def do_replica_kill(self) -> None:
        """A registry process is killed, and started again from its disk."""
        replica, seconds = self._random.choice(self._world.replicas), self._random.choice([0.5, 5.0, 30.0])
        if replica.up:
            self._world.say(f"{replica.name} is killed, for {seconds} s")
            self._world.bounds.interrupt(seconds)
            replica.kill()
            self._later(seconds, partial(self._mend, replica))

    async def do_replicas_kill(self) -> None:
        """All registry processes are killed at once."""
        seconds = self._random.choice([2.0, 20.0, 60.0])
        self._world.say(f"all replicas are killed, for {seconds} s")
        self._world.bounds.interrupt(seconds)
        for replica in self._world.replicas:
            if replica.up:
                replica.kill()
                self._later(seconds + self._random.uniform(0, 2), partial(self._mend, replica))

    async def do_replica_freeze(self) -> None:
        """A registry process is stopped, and goes on later."""
        replica, seconds = self._random.choice(self._world.replicas), self._random.choice([2.0, 10.0, 60.0])
        if not replica.up:
            return
        self._world.say(f"{replica.name} freezes for {seconds} s")
        self._world.bounds.interrupt(seconds)
        replica.freeze(seconds)

    async def do_stalled_sweep(self) -> None:
        """A process is stopped between two statements of a sweep."""
        replica = self._random.choice(self._world.replicas)
        replica.stall_for = self._random.choice([1.0, 4.0, 4.0, 45.0])
        replica.stall_after = self._random.choice(_IN_A_SWEEP)

    async def do_wall_clock(self) -> None:
        """The wall clock of the registries' machine is set by an hour."""
        seconds = self._random.choice([-3600.0, 3600.0])
        for replica in self._world.replicas:
            replica.wall_ahead += seconds

    async def do_clock_step_in_sweep(self) -> None:
        """The database's clock is set between two statements of a sweep, which may stop there as well."""
        seconds = self._random.choice([-300.0, 300.0, -15.0, 15.0])
        held_up, statement = self._random.choice([0.0, 0.0, 1.0, 4.0]), self._random.choice(_IN_A_SWEEP)
        for replica in self._world.replicas:
            replica.stall_after, replica.step_by, replica.stall_for = statement, seconds, held_up

    def step(self, replica: Replica) -> None:
        """Set the database's clock in the middle of a sweep."""
        seconds, replica.step_by = replica.step_by, 0.0
        if self._may_move():
            self._world.say(f"the clock of PostgreSQL jumps by {seconds} s in the middle of a sweep of {replica.name}")
            self._moved(seconds)
            self._world.postgres.offset += seconds

    async def do_refused_service(self) -> None:
        """PostgreSQL refuses to store what becomes of one service, and stores all else."""
        service, what = self._random.choice(("cart", "shop")), self._random.choice(REFUSED_OF_SERVICE)
        seconds, refused = self._random.choice([3.0, 30.0, 70.0]), self._world.postgres.refused_services
        if refused:
            return
        self._world.say(f"PostgreSQL refuses {what} of {service} for {seconds} s")
        refused[service] = what
        self._world.witness.refused_services.add(service)
        self._world.bounds.disturb_service(service, seconds + REFUSAL_RETRIED)
        self._later(seconds, partial(refused.pop, service, None))

    async def do_refused_statement(self) -> None:
        """PostgreSQL refuses one statement of sweeps or of the feed, to one process or to all of them."""
        name, error = self._random.choice(_STATEMENTS), self._random.choice(_ERRORS)
        seconds = self._random.choice([3.0, 15.0, 40.0])
        replica = self._random.choice([None, *self._world.replicas])
        self._world.say(f"PostgreSQL refuses {name} to {replica.name if replica else 'all'} for {seconds} s")
        if name in _OF_REMOVAL:
            self._world.bounds.disturb_removal(seconds + REFUSAL_RETRIED)
        else:
            self._world.bounds.interrupt(seconds)
        self._refuse(Refusal(error, frozenset((name,)), replica and replica.database), seconds)

    async def do_refused_heartbeats(self) -> None:
        """PostgreSQL refuses the heartbeats of one process, or of all, and nothing else."""
        seconds, error = self._random.choice([15.0, 50.0, 90.0]), self._random.choice(_ERRORS)
        barred = self._random.choice([self._world.replicas[:1], self._world.replicas])
        names = frozenset(self._random.choice([("renew",), ("renew", "change_at_addresses")]))
        if not self._may_shut():
            return
        self._world.say(f"PostgreSQL refuses {sorted(names)} to {[one.name for one in barred]} for {seconds} s")
        self._shut(barred, "barred_since", seconds)
        for replica in barred:
            self._refuse(Refusal(error, names, replica.database), seconds)

    async def do_no_descriptors(self) -> None:
        """One process, or all of them, accept no connection, and go on answering the polls that they hold."""
        seconds = self._random.choice([15.0, 50.0, 90.0])
        deaf = self._random.choice([self._world.replicas[:1], self._world.replicas])
        if not self._may_shut():
            return
        self._world.say(f"{[one.name for one in deaf]} have no descriptor left for {seconds} s")
        self._shut(deaf, "deaf_since", seconds)

    def _may_shut(self) -> bool:
        """Tell whether no process fails, and earlier failures are so long ago that they count no more."""
        return self._world.clock.now > self._world.witness.shut_until + TTL or not self._world.witness.shut_until

    def _shut(self, replicas: Sequence[Replica], name: str, seconds: float) -> None:
        """Let processes store no heartbeat for a while.

        Leases are credited meanwhile: for two lease times in all where others work, but not in one piece. A process
        counts as failing only while somebody tries it.
        """
        self._world.bounds.disturb(seconds + FAILURE_FORGOTTEN + HANDOVER)
        self._world.witness.shut_until = self._world.clock.now + seconds + FAILURE_FORGOTTEN
        for replica in replicas:
            setattr(replica, name, self._world.clock.now)
            self._later(seconds, partial(setattr, replica, name, None))

    def _refuse(self, refusal: Refusal, seconds: float) -> None:
        refusals = self._world.postgres.refusals
        refusals.append(refusal)
        self._later(seconds, lambda: refusals.remove(refusal) if refusal in refusals else None)

    async def do_dns(self) -> None:
        """Resolvers name addresses without a registry, a part of the registries, or do not answer."""
        world, seconds = self._world, self._random.choice([10.0, 45.0, 100.0])
        told: list[str] | None = self._random.choice(
            [None, [NOBODY], [FOREIGN], [UNUSABLE], [NOBODY, *world.addresses], world.addresses[:1]]
        )
        if world.dns.addresses != world.addresses:
            return
        world.say(f"DNS tells {told} for {seconds} s")
        world.dns.addresses = told
        self._later(seconds, partial(setattr, world.dns, "addresses", world.addresses))

    async def do_slow_disk(self) -> None:
        """Each commit of a sweep takes long."""
        seconds, self._world.postgres.fsync = self._random.choice([40.0, 80.0]), self._random.choice([2.5, 4.0])
        self._world.say(f"the disk of PostgreSQL takes {self._world.postgres.fsync} s a commit for {seconds} s")
        self._world.bounds.slow_down(self._world.postgres.fsync, seconds)
        self._later(seconds, partial(setattr, self._world.postgres, "fsync", 0.0))

    async def do_lost_lease(self) -> None:
        """The row of a lease is gone, as after a restore that was not whole."""
        tables = self._world.postgres.tables
        if tables.leases:
            number = self._random.choice(sorted(tables.leases))
            self._world.say(f"the lease of {tables.endpoints[number].key} is gone")
            self._world.witness.robbed(tables.endpoints[number])
            del tables.leases[number]

    async def do_replica_cut(self) -> None:
        """A registry process cannot reach PostgreSQL."""
        replica, seconds = self._random.choice(self._world.replicas), self._random.choice([3.0, 30.0])
        self._world.say(f"{replica.name} is cut off from PostgreSQL for {seconds} s")
        self._world.bounds.interrupt(seconds)
        replica.cut_off(True)
        self._later(seconds, partial(replica.cut_off, False))

    async def do_lost_answers(self) -> None:
        """The answers to some commits are lost."""
        for replica in self._world.replicas:
            replica.database.mute = self._random.choice([1, 2, 4])
        self._world.bounds.disturb(HANDOVER)
        self._world.say("answers to commits get lost")

    async def do_lost_notifications(self) -> None:
        """Notifications of a process are late, or lost."""
        replica = self._random.choice(self._world.replicas)
        replica.lag = self._random.choice([None, 0.05, 1.0, 4.0])
        self._world.say(f"{replica.name} hears of changes after {replica.lag} s")

    async def do_late_heartbeats(self) -> None:
        """Heartbeats arrive when nobody waits for them any more."""
        self._world.late = self._random.choice([0.0, 0.1, 0.3])
        self._world.say(f"{self._world.late:.0%} of the heartbeats arrive late")

    async def do_registrar_kill(self) -> None:
        """A registrar is killed; perhaps it starts again, as a newer incarnation."""
        registrar = self._registrar()
        if registrar is None:
            return
        registrar.change(alive=False)
        self._world.say(f"{registrar.name} is killed")
        if self._random.random() < 0.6:
            again = partial(self._world.start, registrar.key[1:], registrar.instance_id, registrar.key[0])
            self._later(self._random.choice([0.5, 8.0, 40.0]), again)

    async def do_registrar_freeze(self) -> None:
        """A registrar is stopped, and goes on later."""
        registrar, seconds = self._registrar(), self._random.choice([3.0, 10.0, 18.0, 60.0])
        if registrar is not None:
            self._world.say(f"{registrar.name} freezes for {seconds} s")
            registrar.change(frozen=True)
            self._later(seconds, partial(registrar.change, frozen=False))

    async def do_partition(self) -> None:
        """A part of the registrars is cut off."""
        share, seconds = self._random.choice([0.3, 0.6, 1.0]), self._random.choice([4.0, 30.0, 100.0])
        lost = [one for one in self._world.registrars if one.alive and self._random.random() < share]
        self._world.say(f"{len(lost)} registrars are cut off for {seconds} s")
        for registrar in lost:
            registrar.change(cut=True)
            self._later(seconds, partial(registrar.change, cut=False))

    async def do_clone(self) -> None:
        """A second process starts with the instance id of one that runs."""
        registrar = self._registrar()
        if registrar is not None:
            self._world.start(registrar.key[1:], registrar.instance_id, registrar.key[0])

    async def do_replacement(self) -> None:
        """Another instance is given an address, perhaps for another service."""
        registrar = self._registrar()
        if registrar is not None:
            instance_id = f"{registrar.instance_id}+{self._next_number()}"
            self._world.start(registrar.key[1:], instance_id, self._random.choice(("cart", "shop")))

    async def do_newcomer(self) -> None:
        """An instance at a new address."""
        number = self._next_number()
        self._world.start((f"10.0.1.{number}", 80), f"n-{number}", self._random.choice(("cart", "shop")))

    async def do_founding(self) -> None:
        """A service is new, with two instances."""
        service = f"late-{self._next_number()}"
        for number in (1, 2):
            self._world.start((f"10.0.2.{self._started}", number), f"{service}-{number}", service)
        self._world.subscribe(service)

    async def do_health(self) -> None:
        """A check changes its mind."""
        registrar = self._registrar()
        if registrar is not None:
            health = self._random.choice([Report.HEALTHY, Report.UNHEALTHY, Report.DEGRADED])
            self._world.say(f"{registrar.name} is {health.value}")
            registrar.report(health)

    async def do_drain(self) -> None:
        """A registrar is told to stop."""
        registrar = self._registrar()
        if registrar is not None:
            self._world.say(f"{registrar.name} drains")
            registrar.drain()

    async def do_operator(self) -> None:
        """An operator sets, takes back, drains, deregisters, pauses or resumes."""
        registrar = self._registrar()
        if registrar is None:
            return
        acts: dict[str, Callable[[Replica], Awaitable[Any]]] = {
            "overrides": partial(self._override, registrar),
            "takes back": lambda replica: replica.registrations.clear_override(_ANN, registrar.key),
            "drains": lambda replica: replica.registrations.drain(_ANN, registrar.key, None, None),
            "deregisters": lambda replica: replica.operator_deregistration.endpoint(
                _ANN, registrar.key, "by chance", force=True
            ),
            "pauses": self._pause,
            "resumes": lambda replica: self._store.resume(replica.database, EVERYWHERE),
        }
        name = self._random.choice(list(acts))
        if name in ("drains", "deregisters"):
            self._world.witness.operated.add(registrar.key)
        self._world.say(f"an operator {name}: {registrar.key}")
        await self._operate(acts[name])

    async def do_script(self) -> None:
        """A script of an operator deregisters a whole service: at once or one by one, by force or not."""
        replica, service = self._random.choice(self._world.replicas), self._random.choice(("cart", "shop"))
        force, at_once = self._random.random() < 0.2, self._random.random() < 0.5
        tables = self._world.postgres.tables
        keys = [row.key for row in tables.listed(service)]
        routable = {row.key for row in tables.listed(service) if tables.joined(row).routable}
        if not replica.working:
            return
        self._world.say(f"a script deregisters {service}: {'at once' if at_once else 'one by one'}, force {force}")
        self._world.witness.operated.update(keys)
        gone: set[Key] = set()
        one_by_one = [partial(replica.operator_deregistration.endpoint, _ANN, key) for key in keys]
        acts: Sequence[Callable[..., Awaitable[Any]]] = (
            [partial(replica.operator_deregistration.service, _ANN, service)] if at_once else one_by_one
        )
        for act in acts:
            try:
                told = await act("by chance", force=force)
            except (RegistryError, asyncpg.PostgresError) as error:
                self._world.say(f"    refused: {error}")
            else:
                gone.update((service, *parse_endpoint(name)) for name in told.endpoints)
        most = max(1, int(SERVICE_SHARE * len(routable)))
        if not force and len(gone & routable) > most:
            raise Violation(f"guard: a script deregistered {len(gone & routable)} of {len(routable)} of {service}")

    async def _operate(self, act: Callable[[Replica], Awaitable[Any]]) -> None:
        replica = self._random.choice(self._world.replicas)
        if not replica.working:
            return
        try:
            await act(replica)
        except (RegistryError, asyncpg.PostgresError) as error:
            self._world.say(f"    refused: {error}")

    async def _override(self, registrar: Registrar, replica: Replica) -> None:
        weight, drain, canary = self._random.choice([(5, False, None), (None, True, None), (7, True, False)])
        seconds = self._random.choice([None, 5.0, 30.0])

        def judge(_before: Override | None, now: float) -> Override:
            ends = None if seconds is None else now + seconds
            return Override(weight, drain, "ann", "by chance", now, ends, canary=canary)

        await replica.registrations.override(_ANN, registrar.key, judge)

    async def _pause(self, replica: Replica) -> None:
        seconds = self._random.choice([5.0, 40.0])
        # A clock that is set back makes it longer.
        self._world.bounds.disturb(seconds + HANDOVER)
        await self._store.pause(replica.database, EVERYWHERE, actor="ann", reason="work", seconds=seconds)

    @property
    def _store(self) -> Any:
        return self._world.store

    def _may_move(self) -> bool:
        """Tell whether the last change of the clock was seen by a sweep: of two in between, one is not credited."""
        now = self._world.clock.now
        return now - self._moved_at > _SETTLED and now > self._world.bounds.calm_since

    def _moved(self, seconds: float) -> None:
        """Sweeps credit a jump with the next one; a pause lasts longer by what the clock was set back."""
        self._moved_at = self._world.clock.now
        self._world.bounds.disturb(HANDOVER)
        self._world.witness.shares.reset()
        if seconds < 0 and self._world.postgres.tables.pauses:
            self._world.bounds.disturb(-seconds + 40.0)

    def _registrar(self) -> Registrar | None:
        living = [one for one in self._world.registrars if one.alive and not one.endpoint.lease.fenced]
        return self._random.choice(living) if living else None

    def _next_number(self) -> int:
        self._started += 1
        return self._started

    def _restore(self) -> None:
        self._world.postgres.away = False

    def _mend(self, replica: Replica) -> None:
        replica.cut_off(False)
        replica.lag, replica.database.mute, replica.stall_after = 0.05, 0, ""
        replica.deaf_since = replica.barred_since = None
        if not replica.up:
            self._world.say(f"{replica.name} starts")
            replica.start()
        replica.thaws_at = 0.0

    def _later(self, seconds: float, act: Callable[[], object]) -> None:
        async def then() -> None:
            act()

        self._world.soon(seconds, then)
