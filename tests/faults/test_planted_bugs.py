"""The simulation finds bugs: each of these is planted, and an invariant breaks within a few histories."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from faults.simulation.replica import Replica
from faults.simulation.stage import stage
from faults.simulation.store import Store
from faults.simulation.violation import Violation
from faults.simulation.world import World
from msgspec.structs import replace

from registrar.endpoint.lease import LeaseState, RefusalEffect
from registrar.registry_client.registries import Registries
from registry.background import sweeper
from registry.background.process_reports import ProcessReports
from registry.background.sweeper import Sweeper
from registry.core import lease as leases_rules
from registry.core.changeset import Changeset
from registry.core.endpoint_change import EndpointChange
from registry.core.expiry_guard import GuardDecision, evaluate_guard
from registry.core.fencing import Fences
from registry.core.lease import removable
from registry.store import change_feed as feed
from registry.store import changeset_writer, leases
from registry.store.service_locks import StoredVersion
from registry.usecases import operator_deregistration as expulsion
from registry.usecases import registration as registrations
from registry.xds import discovery, version_info
from registry.xds.version_info import Comparison

Plant = Callable[[pytest.MonkeyPatch], None]

_HISTORIES = 150
"""At most so many are played until the bug is found; most are found in the first ones."""


def no_credit(patch: pytest.MonkeyPatch) -> None:
    """Our outage is taken for theirs."""
    patch.setattr(sweeper, "credit", lambda *_: 0.0)


def credit_up_to_the_clock(patch: pytest.MonkeyPatch) -> None:
    """A process that was stopped before it gives credit counts the stop as swept."""
    # The next leader would doubt leases that expired so long ago.
    only_the_leader_knows_what_was_refused(patch)
    known = leases.credit_all

    async def credit_all(link: Any, last: float, now: float) -> None:
        await known(link, last, now)
        await leases.store_sweep_time(link, (await leases.last_sweep(link))[0])

    patch.setattr(leases, "credit_all", credit_all)


def no_fencing(patch: pytest.MonkeyPatch) -> None:
    """Neither tombstones nor incarnations refuse anybody."""
    patch.setattr(Fences, "check_registration", lambda *_: None)


def no_surrender(patch: pytest.MonkeyPatch) -> None:
    """A registrar that was fenced exceeds who fenced it."""

    def refused(self: LeaseState, problem: Any) -> RefusalEffect:
        self.problem = problem
        if problem.status == 409 and problem.incarnation is not None:
            self.incarnation = max(self.incarnation, problem.incarnation) + 1
            return RefusalEffect.RAISED
        return RefusalEffect.REFUSED

    patch.setattr(LeaseState, "refused", refused)


def two_owners(patch: pytest.MonkeyPatch) -> None:
    """An address stays with its older owner under another service's name."""
    patch.setattr(Changeset, "_evict_elsewhere", lambda *_: None)


def guard_without_limit(patch: pytest.MonkeyPatch) -> None:
    """Everybody whose lease expired lapses."""
    patch.setattr(sweeper, "evaluate_guard", lambda found, *_: GuardDecision(list(found), []))


def guard_without_end(patch: pytest.MonkeyPatch) -> None:
    """Suspects are held for ever."""

    def judge_without_end(
        found: Any, live: Any, lately: Any, pauses: Any, now: float, _hold: float, last: Any
    ) -> GuardDecision:
        return evaluate_guard(found, live, lately, pauses, now, math.inf, last)

    patch.setattr(sweeper, "evaluate_guard", judge_without_end)


def operators_without_limit(patch: pytest.MonkeyPatch) -> None:
    """A script may deregister whatever it names."""
    patch.setattr(expulsion, "removals_allowed", lambda live, _lately: live)


def removal_in_one_phase(patch: pytest.MonkeyPatch) -> None:
    """Who left is left out at once."""
    patch.setattr(sweeper, "removable", lambda found, now, _delay, hold: removable(found, now, 0.0, hold))
    known = leases.services_with_departed
    patch.setattr(leases, "services_with_departed", lambda link, now, _delay: known(link, now, 0.0))


def no_last_hold(patch: pytest.MonkeyPatch) -> None:
    """The last endpoints of a service are left out as soon as any others."""
    patch.setattr(sweeper, "removable", lambda found, now, delay, _hold: removable(found, now, delay, 0.0))


def drain_not_latched(patch: pytest.MonkeyPatch) -> None:
    """A heartbeat that says nothing of a drain takes it back."""
    known = Changeset._update

    def update(self: Changeset, entry: EndpointChange, told: Any, actor: str, owner: str) -> None:
        known(self, entry, told, actor, owner)
        stored = entry.after.registration
        if stored.draining and not told.draining:
            undrained = replace(entry.after, registration=replace(stored, draining=False))
            self._put(entry, undrained, "health", "planted", actor)

    patch.setattr(Changeset, "_update", update)
    patch.setattr(registrations, "_as_known", lambda _known, told, **_: told)


def version_not_bumped(patch: pytest.MonkeyPatch) -> None:
    """Envoys are not told of a change of status."""

    def count(changed: Any, numbers: Any, _generation: int) -> dict[str, StoredVersion]:
        fresh = {entry.after.service for entry in changed if entry.before is None}
        touched = {entry.after.service for entry in changed}
        told = {
            name: StoredVersion(numbers[name].version + (name in fresh), numbers[name].change + 1) for name in touched
        }
        return {**numbers, **told}

    patch.setattr(changeset_writer, "next_versions", count)


def versions_not_raised(patch: pytest.MonkeyPatch) -> None:
    """Numbers that a fail-over lost are given out again."""

    async def nothing(*_: Any) -> None:
        return

    patch.setattr(feed, "raise_above", nothing)


def fail_overs_not_seen(patch: pytest.MonkeyPatch) -> None:
    """Numbers go on where the new primary's end, as if none had been lost."""
    patch.setattr(Store, "_moved_on", lambda _self, tables, name: tables.services[name])


def services_founded_anew_from_nothing(patch: pytest.MonkeyPatch) -> None:
    """A service that was lost with its founding begins at its first version again."""
    patch.setattr(changeset_writer, "version_before_first", lambda _generation: 0)


def expiry_not_checked_again(patch: pytest.MonkeyPatch) -> None:
    """Who renewed after the sweep had looked lapses all the same."""
    known = sweeper._ServiceDecisions.apply
    patch.setattr(
        sweeper._ServiceDecisions, "apply", lambda self, changeset, _expired: known(self, changeset, self.ids())
    )


def renewal_by_memory(patch: pytest.MonkeyPatch) -> None:
    """A heartbeat that brings news only renews the lease."""
    patch.setattr(registrations, "only_renews", lambda known, _told: known.leaving_at is None)


def older_answers(patch: pytest.MonkeyPatch) -> None:
    """A process that is behind a subscriber gives it what it has."""
    known = version_info.compare

    def compare(theirs: Sequence[int] | None, ours: Sequence[int], *, stepped: bool = False) -> Comparison:
        comparison = known(theirs, ours, stepped=stepped)
        return Comparison.OLDER if comparison is Comparison.NEWER else comparison

    patch.setattr(discovery, "compare", compare)


def dns_is_believed(patch: pytest.MonkeyPatch) -> None:
    """A registrar leaves a registry that answers when DNS names another address, whatever is there."""
    patch.setattr(Registries, "_addresses", lambda self, url: self._resolved.get(url, []))


def failing_processes_are_not_asked(patch: pytest.MonkeyPatch) -> None:
    """Whoever cannot be heard by a process's fault is taken for silent."""
    patch.setattr(ProcessReports, "credit_reason", lambda _: None)


def one_refusal_ends_the_sweep(patch: pytest.MonkeyPatch) -> None:
    """What PostgreSQL refuses of one service stops the sweep, and the next one credits all leases for it."""

    async def attempt(_self: Any, _task: Any, work: Any) -> bool:
        await work()
        return True

    patch.setattr(Sweeper, "_attempt", attempt)


def lapse_at_the_end_of_a_refusal(patch: pytest.MonkeyPatch) -> None:
    """What a sweep was refused, it does as soon as it can; the heartbeats that were refused too come later."""
    patch.setattr(sweeper._ServiceDecisions, "hold_all", lambda *_: None)


def only_the_leader_knows_what_was_refused(patch: pytest.MonkeyPatch) -> None:
    """The next leader takes endpoints whose heartbeats were refused for silent ones."""
    patch.setattr(Sweeper, "_note_inherited", lambda *_: None)


def a_sweep_counts_across_a_step(patch: pytest.MonkeyPatch) -> None:
    """Nobody compares the clocks again before a sweep changes anything and counts."""
    patch.setattr(sweeper, "_refuse_step", lambda *_: None)


def a_sweep_reads_the_clock_again(patch: pytest.MonkeyPatch) -> None:
    """Leases are compared with another time than the clocks were."""
    a_sweep_counts_across_a_step(patch)
    known = leases.expired_leases

    async def expired(link: Any, _now: float) -> Any:
        return await known(link, (await leases.last_sweep(link))[0])

    patch.setattr(leases, "expired_leases", expired)


def slow_writes_are_an_outage(patch: pytest.MonkeyPatch) -> None:
    """The time that a sweep waits for its own write is credited to every lease."""
    known = leases_rules.credit
    patch.setattr(sweeper, "credit", lambda *given: known(*given[:4]))


def no_lease_no_expiry(patch: pytest.MonkeyPatch) -> None:
    """An endpoint whose lease is gone gets no other one."""

    async def nothing(*_: Any) -> dict[str, list[int]]:
        return {}

    patch.setattr(leases, "endpoints_without_lease", nothing)


def jobs_wait_for_a_time_of_day(patch: pytest.MonkeyPatch) -> None:
    """What is periodic waits by the wall clock, as a scheduler with times of day does."""
    patch.setattr(Replica, "job_time", lambda replica: replica.world.clock.now + replica.wall_ahead)


_PLANTED: list[tuple[Plant, str, list[str]]] = [
    (no_credit, "I1", ["outage", "replicas_kill"]),
    (credit_up_to_the_clock, "I1", ["stalled_sweep"]),
    (no_fencing, "no resurrection", ["drain", "late_heartbeats", "replacement"]),
    (no_surrender, "fencing", ["clone"]),
    (two_owners, "one owner", ["replacement"]),
    (guard_without_limit, "guard", ["partition"]),
    (guard_without_end, "I2", ["partition", "registrar_kill"]),
    (operators_without_limit, "guard", ["script"]),
    (removal_in_one_phase, "two phases", ["operator", "replacement"]),
    (no_last_hold, "I3", ["partition"]),
    (drain_not_latched, "no resurrection", ["operator", "drain"]),
    (version_not_bumped, "I4", ["health", "drain"]),
    (versions_not_raised, "I4", ["fail_over", "health"]),
    # Numbers that come twice mislead polls and renewals alike.
    (fail_overs_not_seen, "I[46]", ["fail_over", "health"]),
    (services_founded_anew_from_nothing, "I4", ["fail_over"]),
    (expiry_not_checked_again, "I1", ["registrar_freeze", "stalled_sweep"]),
    (renewal_by_memory, "I6", ["health"]),
    (older_answers, "I4", ["health", "lost_notifications"]),
    (dns_is_believed, "I1", ["dns"]),
    (one_refusal_ends_the_sweep, "I2", ["refused_service", "registrar_kill"]),
    (lapse_at_the_end_of_a_refusal, "I1", ["refused_service", "health"]),
    (only_the_leader_knows_what_was_refused, "I1", ["refused_service", "replicas_kill", "drain"]),
    (a_sweep_counts_across_a_step, "I1", ["clock_step_in_sweep"]),
    (a_sweep_reads_the_clock_again, "I1", ["clock_step_in_sweep"]),
    (jobs_wait_for_a_time_of_day, "I2", ["wall_clock", "registrar_kill"]),
    (slow_writes_are_an_outage, "I2", ["slow_disk", "registrar_kill"]),
    (no_lease_no_expiry, "I2", ["lost_lease", "registrar_kill"]),
    (failing_processes_are_not_asked, "I1", ["no_descriptors"]),
    (failing_processes_are_not_asked, "I1", ["refused_heartbeats"]),
]

_FIRST: dict[Plant, int] = {
    credit_up_to_the_clock: 19,
    no_last_hold: 9,
    versions_not_raised: 31,
    fail_overs_not_seen: 4,
    expiry_not_checked_again: 21,
    one_refusal_ends_the_sweep: 14,
    only_the_leader_knows_what_was_refused: 35,
}
"""The history to begin with, for bugs that the first ones did not find; the others follow until it is found."""


@pytest.mark.parametrize(
    ("plant", "broken", "kinds"),
    [pytest.param(*told, id="-".join((told[0].__name__, *told[2]))) for told in _PLANTED],
)
async def test_a_planted_bug_is_found(plant: Plant, broken: str, kinds: list[str]) -> None:
    """The invariant that it breaks is named, with the number of the history."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Violation, match=f"^{broken}: "):
        await _play(plant, patch, kinds)


async def _play(plant: Plant, patch: pytest.MonkeyPatch, kinds: list[str]) -> None:
    with stage() as built:
        plant(patch)
        try:
            first = _FIRST.get(plant, 0)
            for seed in (*range(first, _HISTORIES), *range(first)):
                await World(built, seed, kinds).play()
        finally:
            # Before the stage is struck: some plants lie on top of it.
            patch.undo()
