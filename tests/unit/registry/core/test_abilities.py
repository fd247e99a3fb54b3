"""The abilities that a process reports to lack, and the credit for that, in virtual time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.core.abilities import MIN_FAILURE_DURATION, Abilities, Ability, Failure
from registry.core.processes import (
    MAX_CREDITED_LEASES,
    PROCESS_TIMEOUT,
    CreditForFailures,
    LivingProcesses,
    ProcessReport,
    StoredReport,
    is_overdue,
)

LEASE = 20.0
TICK = 1.0
WORKING = ProcessReport("b", "two:1", 0.0)

runs = st.lists(st.tuples(st.sampled_from(["works", "fails", "both", "nothing"]), st.integers(1, 60)), max_size=20)
attempts = runs.map(lambda drawn: [what for what, seconds in drawn for _ in range(seconds)])


def report(ability: Ability, now: float) -> ProcessReport:
    """Return the report of a process with one ability."""
    failure = ability.failure(now)
    return ProcessReport("a", "one:1", 0.0, () if failure is None else (failure,))


def attempt(ability: Ability, what: str, now: float) -> None:
    """Let attempts be made at a moment."""
    if what in ("fails", "both"):
        ability.failed("refused", now)
    if what in ("works", "both"):
        ability.worked(now)


def test_what_works_has_no_failure() -> None:
    """No attempt, or only ones that worked."""
    ability = Ability("renew", LEASE)
    assert ability.failure(0.0) is None
    ability.worked(1.0)
    assert ability.failure(1.0) is None
    assert Abilities(LEASE).failures(5.0) == []


def test_a_failure_lasts_until_it_works_again() -> None:
    """It counts from its first attempt, is total while nothing works, and is over with the first success."""
    ability = Ability("renew", LEASE)
    ability.worked(0.0)
    for second in range(1, 10):
        ability.failed(f"for the {second}. time", float(second))
    assert ability.failure(9.5) == Failure("renew", 8.5, total=True, reason="for the 9. time")
    ability.worked(12.0)
    assert ability.failure(12.0) is None


def test_one_success_among_failures_ends_nothing_but_is_told() -> None:
    """A process that fails half of the time has a failure, and is not wholly cut off either."""
    ability = Ability("accept", LEASE)
    for half in range(20):
        attempt(ability, "fails" if half % 2 else "works", half / 2)
    failure = ability.failure(10.0)
    assert failure is not None
    assert not failure.total
    ability.worked(10.0)
    assert ability.failure(9.4 + MIN_FAILURE_DURATION) is not None
    assert ability.failure(9.5 + MIN_FAILURE_DURATION) is None


def test_a_failure_that_nobody_tries_again_is_forgotten() -> None:
    """Otherwise a lone one, whose client is gone, would keep dead endpoints for ever."""
    ability = Ability("change", LEASE)
    ability.failed("refused", 0.0)
    assert ability.failure(LEASE / 2 - 0.1) is not None
    assert ability.failure(LEASE / 2) is None


def test_rows_that_are_refused_are_a_failure_where_nothing_else_works() -> None:
    """One row that a constraint refuses is its own trouble; all of them are as bad as a lost right."""
    ability = Ability("renew", LEASE)
    ability.worked(0.0)
    for second in range(1, 10):
        ability.refused("a constraint", float(second))
        assert ability.failure(float(second)) is None
    ability.refused("a constraint", LEASE / 2)
    failure = ability.failure(LEASE / 2)
    assert failure is not None
    assert failure.total


@given(attempts)
def test_failing_again_and_again_does_not_begin_anew(history: list[str]) -> None:
    """Between two calm lease times the seconds of a failure never fall."""
    ability = Ability("renew", LEASE)
    last, calm_since = 0.0, 0.0
    for tick, what in enumerate(history):
        now = tick * TICK
        attempt(ability, what, now)
        failure = ability.failure(now)
        if failure is None:
            if now - calm_since >= LEASE:
                last = 0.0
            continue
        assert failure.seconds >= last
        last, calm_since = failure.seconds, now


@given(attempts)
def test_beside_a_process_that_works_a_failure_credits_two_leases(history: list[str]) -> None:
    """However it fails, nobody is credited for more between two lease times in which it worked."""
    ability, rule = Ability("accept", LEASE), CreditForFailures(LEASE)
    credited, well = 0.0, 0.0
    for tick, what in enumerate(history):
        now = tick * TICK
        attempt(ability, what, now)
        reports = [report(ability, now), WORKING]
        credited += TICK if rule.reason(reports, now) else 0.0
        well = 0.0 if reports[0].failures else well + TICK
        if well >= LEASE:
            credited = 0.0
        assert credited <= MAX_CREDITED_LEASES * LEASE + TICK


@given(st.lists(st.tuples(st.integers(1, 80), st.sampled_from(["accept", "renew", "change"])), max_size=30))
def test_a_process_that_is_started_again_and_again_does_not_stop_expiry(lives: list[tuple[int, str]]) -> None:
    """Each start has a name of its own and fails at once; the bound is for all of them together."""
    rule = CreditForFailures(LEASE)
    now, credited = 0.0, 0
    for number, (seconds, name) in enumerate(lives):
        for second in range(seconds):
            failure = Failure(name, float(second), total=True, reason="")  # type: ignore[arg-type]  # a sample of them
            reports = [ProcessReport(f"life-{number}", "one:1", now, (failure,)), WORKING]
            if rule.reason(reports, now) is None:
                # Expiry goes on for the whole life: leases that nobody renews are over.
                credited = credited if second <= MAX_CREDITED_LEASES * LEASE else 0
            else:
                credited += 1
            assert credited <= MAX_CREDITED_LEASES * LEASE * len(reports) + 1
            now += 1.0


@given(st.integers(1, 5), st.integers(1, 500))
def test_while_no_process_takes_heartbeats_leases_are_credited(processes: int, seconds: int) -> None:
    """However long it takes: silence proves nothing then."""
    rule = CreditForFailures(LEASE)
    for second in range(0, seconds, 7):
        failure = Failure("accept" if second % 2 else "renew", float(second), total=True, reason="no descriptors")
        reports = [ProcessReport(str(number), f"p:{number}", 0.0, (failure,)) for number in range(processes)]
        assert "no descriptors" in (rule.reason(reports, float(second)) or "")


@given(st.integers(0, 500))
def test_changes_that_fail_while_renewals_work_never_hold_expiry_for_good(seconds: int) -> None:
    """One service whose changes PostgreSQL refuses must not stop expiry everywhere."""
    rule = CreditForFailures(LEASE)
    reports = [ProcessReport("a", "one:1", 0.0, (Failure("change", float(seconds), total=True, reason="refused"),))]
    assert (rule.reason(reports, float(seconds)) is None) == (seconds > MAX_CREDITED_LEASES * LEASE)


def test_when_nothing_fails_nothing_is_credited_and_no_one_is_overdue() -> None:
    """Neither with one process, nor with several, nor with none."""
    rule = CreditForFailures(LEASE)
    for reports in ([], [WORKING], [WORKING, ProcessReport("c", "three:1", 0.0)]):
        assert rule.reason(reports, 0.0) is None
    assert is_overdue(Failure("renew", 2 * LEASE + 0.1, total=True, reason=""), LEASE)
    assert not is_overdue(Failure("renew", 2 * LEASE, total=True, reason=""), LEASE)


def test_processes_live_while_their_reports_come() -> None:
    """By this process's own clock: PostgreSQL's may jump, and what counts is that a report is another one."""
    living = LivingProcesses()
    own = ProcessReport("own", "own:1", 0.0)
    failure = Failure("accept", 3.0, total=True, reason="")
    other = ProcessReport("other", "other:1", 0.0, (failure,))
    living.observe([StoredReport(own, 100.0, 0.0), StoredReport(other, 100.0, 2.0)], 50.0)
    assert [process.name for process in living.reports(own, 50.0)] == ["own:1", "other:1"]
    assert living.reports(own, 51.0)[1].failures[0].seconds == 6.0
    # Its clock is 300 s ahead from now on: a new report all the same.
    living.observe([StoredReport(other, 403.0, 0.0)], 53.0)
    living.observe([StoredReport(other, 403.0, 9.0)], 62.0)
    assert len(living.reports(own, 53.0 + PROCESS_TIMEOUT)) == 2
    assert len(living.reports(own, 53.1 + PROCESS_TIMEOUT)) == 1
    # An old report that is seen for the first time does not count as one of now.
    fresh = LivingProcesses()
    fresh.observe([StoredReport(other, 403.0, PROCESS_TIMEOUT + 1)], 0.0)
    assert fresh.reports(own, 0.0) == [own]
    # One that PostgreSQL has deleted is gone.
    living.observe([], 54.0)
    assert living.reports(own, 54.0) == [own]


OWN = ProcessReport("own", "a:1", 0.0)
PEER = ProcessReport("peer", "b:7", 0.0)


def silent(living: LivingProcesses, now: float) -> list[tuple[str, float]]:
    """Return the names of silent processes, and for how long they are."""
    return [(process.name, process.seconds) for process in living.silent(OWN, now)]


def read_until(living: LivingProcesses, begin: float, end: float, *reports: StoredReport) -> None:
    """Read the same reports once a second."""
    at = begin
    while at <= end:
        living.observe(reports, at)
        at += 1.0


def test_a_process_whose_reports_stop_is_missed() -> None:
    """After ten seconds, by this process's clock; one that says that it stops is not, and one that is back is not."""
    living = LivingProcesses()
    read_until(living, 100.0, 110.0, StoredReport(PEER, 1_000.0, 0.0))
    assert silent(living, 110.0) == []
    read_until(living, 111.0, 140.0, StoredReport(PEER, 1_000.0, 0.0))
    assert silent(living, 140.0) == [("b:7", 40.0)]
    living.observe([StoredReport(PEER, 1_041.0, 0.0)], 141.0)
    assert silent(living, 141.0) == []
    read_until(living, 142.0, 160.0)
    assert silent(living, 160.0) == []


def test_nothing_is_said_of_silence_that_could_not_be_heard() -> None:
    """While PostgreSQL is away, and for ten seconds after that, all others seem silent; the same after a freeze."""
    living = LivingProcesses()
    read_until(living, 100.0, 105.0, StoredReport(PEER, 1_000.0, 0.0))
    assert silent(living, 170.0) == []
    read_until(living, 170.0, 179.0, StoredReport(PEER, 1_000.0, 0.0))
    assert silent(living, 179.0) == []
    read_until(living, 180.0, 181.0, StoredReport(PEER, 1_000.0, 0.0))
    assert silent(living, 181.0) == [("b:7", 81.0)]


@pytest.mark.parametrize(
    ("host", "started_at", "missed"), [("b", 1_003.0, False), ("b", 900.0, True), ("c", 1_003.0, True)]
)
def test_a_process_that_was_replaced_is_not_missed(host: str, started_at: float, missed: bool) -> None:
    """Another one of its host has started since: a supervisor has seen to it. Elsewhere it may be a deploy."""
    living = LivingProcesses()
    successor = ProcessReport("next", f"{host}:8", started_at)
    for second in range(40):
        reports = [StoredReport(PEER, 1_000.0, 0.0), StoredReport(successor, 1_003.0 + second, 0.0)]
        living.observe(reports, 100.0 + second)
    assert (silent(living, 140.0) != []) is missed
