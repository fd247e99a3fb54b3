"""Incarnations of one endpoint: maintenance, restarts in place, drains, and what is sent meanwhile."""

from hypothesis import given
from hypothesis import strategies as st

from registrar.checks.ecs import EcsOptions
from registrar.checks.file import FileOptions
from registrar.checks.result import Outcome, Result
from registrar.checks.tcp import TcpOptions
from registrar.checks.threshold import State
from registrar.config.settings import Service
from registrar.endpoint.endpoint import Endpoint
from registrar.heartbeat.response import apply_result
from registrar.identity.resolver import Identity
from registrar.identity.source import Location
from registrar.identity.spec import EndpointSpec
from wire.model import Grant, Health, HeartbeatResult, Report
from wire.problem import Problem

TCP, FILE, ECS = 0, 1, 2
PASSED, FAILED = Result(Outcome.PASSED, "connected"), Result(Outcome.FAILED, "refused")
ABSENT, PRESENT = Result(Outcome.PASSED, "no file"), Result(Outcome.MAINTENANCE, "disk swap")


def life(name: str) -> Result:
    """Return what the ecs check says of one start of the container."""
    return Result(Outcome.PASSED, "container is HEALTHY", name)


def new() -> Endpoint:
    """Return an endpoint with a tcp, a file and an ecs check."""
    checks = (TcpOptions(), FileOptions(path="/run/maintenance"), EcsOptions(container="app"))
    settings = Service(service="shop", endpoint=EndpointSpec.parse(":8080"), checks=checks)
    return Endpoint(settings, Location("10.0.0.5", 8080), Identity("i-1", 100), 0)


def see(it: Endpoint, *results: tuple[int, Result], now: float = 1) -> bool:
    """Give results; tell whether any of them changed what is sent."""
    # Each of them, also after the first change.
    changes = [it.observe(check, result, now) for check, result in results]
    return any(changes)


def healthy() -> Endpoint:
    """Return an endpoint that passed everything twice and whose registration was granted."""
    it = new()
    see(it, *[(TCP, PASSED), (FILE, ABSENT), (ECS, life("one"))] * 2)
    grant(it)
    return it


def grant(it: Endpoint) -> None:
    """Grant what it sends now."""
    beat = it.heartbeat()
    assert beat is not None
    answer = HeartbeatResult(
        beat.service, beat.endpoint, Grant(beat.service, beat.endpoint, Health.HEALTHY, 1, 20, 5, 12)
    )
    apply_result(it, beat, answer, 1)


def sent(it: Endpoint) -> tuple[int, Report, bool] | None:
    """Return incarnation, health and drain of the next heartbeat."""
    beat = it.heartbeat()
    if beat is None:
        return None
    return beat.registration.incarnation, beat.registration.health, beat.registration.draining


def test_a_check_is_starting_until_its_verdict_or_the_end_of_its_grace() -> None:
    """Each for itself, in each incarnation, and never while it drains: nobody waits for its verdict then."""
    it = new()
    see(it, *[(TCP, PASSED)] * 2)
    assert [it.starting(check, 1) for check in (TCP, FILE, ECS)] == [False, True, True]
    assert not it.starting(FILE, 120)
    see(it, *[(FILE, ABSENT), (ECS, life("one"))] * 2)
    assert not any(it.starting(check, 1) for check in (TCP, FILE, ECS))
    see(it, (ECS, life("two")))
    assert it.starting(TCP, 1)
    it.drain()
    assert not it.starting(TCP, 1)


def test_a_maintenance_file_drains_at_its_first_sight() -> None:
    """The endpoint goes on being registered, DRAINING, with the file's words, whatever other checks find."""
    it = healthy()
    assert see(it, (FILE, PRESENT))
    assert (it.state, sent(it), it.detail) == (State.DRAINING, (100, Report.HEALTHY, True), "disk swap")
    assert not see(it, *[(TCP, FAILED)] * 9)
    assert sent(it) == (100, Report.HEALTHY, True)


def test_after_maintenance_a_new_incarnation_begins_behind_the_startup_gate() -> None:
    """The old one goes on draining until every check of the new one has its verdict."""
    it = healthy()
    see(it, (FILE, PRESENT))
    grant(it)
    see(it, (FILE, ABSENT))
    assert (it.state, sent(it)) == (State.STARTING, (100, Report.HEALTHY, True))
    see(it, (FILE, ABSENT), (TCP, PASSED), (TCP, PASSED), (ECS, life("one")))
    assert sent(it) == (100, Report.HEALTHY, True)
    assert see(it, (ECS, life("one")))
    assert (it.state, sent(it)) == (State.HEALTHY, (101, Report.HEALTHY, False))
    assert not it.drain_settled.is_set()
    assert (it.lease.accepted, it.lease.perhaps_stored) == (False, True)


def test_a_look_that_failed_does_not_end_maintenance() -> None:
    """Unknown is no evidence that the file is gone."""
    it = healthy()
    see(it, (FILE, PRESENT), (FILE, Result(Outcome.UNKNOWN, "no permission")))
    assert it.state is State.DRAINING


def test_a_file_that_is_there_from_the_start_keeps_the_endpoint_unpublished() -> None:
    """Nothing is sent until it is gone and the checks have passed."""
    it = new()
    see(it, (FILE, PRESENT), *[(TCP, PASSED), (ECS, life("one"))] * 3)
    assert sent(it) is None
    see(it, *[(FILE, ABSENT), (TCP, PASSED), (ECS, life("one"))] * 2)
    assert sent(it) == (100, Report.HEALTHY, False)


def test_a_container_that_restarted_in_place_starts_again() -> None:
    """The old incarnation is UNHEALTHY at once, and the new one is published behind its thresholds and grace."""
    it = healthy()
    assert see(it, (ECS, life("two")), now=1000)
    assert (it.state, sent(it)) == (State.STARTING, (100, Report.UNHEALTHY, False))
    see(it, *[(TCP, FAILED)] * 9, now=1100)
    assert it.state is State.STARTING
    see(it, *[(TCP, PASSED), (FILE, ABSENT), (ECS, life("two"))] * 2, now=1100)
    assert sent(it) == (101, Report.HEALTHY, False)


def test_a_restart_before_the_first_publication_sends_nothing() -> None:
    """There is nothing of the old incarnation to take back; its passes do not count for the new one."""
    it = new()
    see(it, *[(TCP, PASSED), (FILE, ABSENT)] * 2, (ECS, life("one")), (ECS, life("two")), (ECS, life("two")))
    assert (it.state, sent(it)) == (State.STARTING, None)


def test_a_restart_does_not_undo_the_drain_of_the_process() -> None:
    """After SIGTERM there is no further incarnation, and in maintenance there is none before its end."""
    it = healthy()
    it.drain()
    assert not see(it, *[(ECS, life("two")), (TCP, PASSED), (FILE, ABSENT)] * 3)
    it.restarted(2, "by hand")
    assert sent(it) == (100, Report.HEALTHY, True)
    other = healthy()
    see(other, (FILE, PRESENT), *[(ECS, life("two")), (TCP, PASSED)] * 3)
    assert (other.state, sent(other)) == (State.DRAINING, (100, Report.HEALTHY, True))


def test_sigterm_while_a_new_incarnation_starts_ends_the_old_one() -> None:
    """The registration that is still listed is drained and deregistered under its own incarnation."""
    it = healthy()
    see(it, (ECS, life("two")))
    it.drain()
    assert sent(it) == (100, Report.UNHEALTHY, True)


def test_a_restart_counts_as_flapping() -> None:
    """Damping outlives the incarnation: a container in a crash loop has to pass longer."""
    it = healthy()
    for name in ("two", "three"):
        see(it, *[(ECS, life(name)), (FILE, ABSENT), (TCP, PASSED)] * 2)
    assert sent(it) == (101, Report.UNHEALTHY, False)
    see(it, *[(ECS, life("three")), (FILE, ABSENT), (TCP, PASSED)] * 20)
    assert sent(it) == (102, Report.HEALTHY, False)


def test_a_fenced_endpoint_stays_silent_through_restarts() -> None:
    """Somebody newer owns it: a new incarnation of ours must not take it back."""
    it = healthy()
    it.lease.refused(Problem("fenced", 409, "", owner="i-2", incarnation=5))
    see(it, *[(ECS, life("two")), (FILE, ABSENT), (TCP, PASSED)] * 20)
    assert sent(it) is None


def test_a_late_answer_to_the_old_incarnation_is_not_for_the_new_one() -> None:
    """Neither its grant nor its refusal."""
    it = healthy()
    see(it, (ECS, life("two")))
    late = it.heartbeat()
    assert late is not None
    see(it, *[(ECS, life("two")), (FILE, ABSENT), (TCP, PASSED)] * 2)
    refused = HeartbeatResult(
        late.service, late.endpoint, problem=Problem("fenced", 409, "", owner="i-1", incarnation=7)
    )
    assert apply_result(it, late, refused, 1) is None
    assert (it.lease.fenced, it.lease.accepted, it.lease.incarnation) == (False, False, 101)


def test_a_replacement_goes_on_with_a_drain_and_then_begins_anew() -> None:
    """Settings that are read again during a maintenance do not undo it within the same incarnation."""
    old, it = healthy(), new()
    see(old, (FILE, PRESENT))
    it.inherit(old)
    assert sent(it) == (100, Report.HEALTHY, True)
    see(it, *[(FILE, PRESENT), (TCP, PASSED), (ECS, life("one"))] * 2)
    assert sent(it) == (100, Report.HEALTHY, True)
    see(it, *[(FILE, ABSENT), (TCP, PASSED), (ECS, life("one"))] * 2)
    assert sent(it) == (101, Report.HEALTHY, False)


results = st.builds(
    Result, st.sampled_from([Outcome.PASSED, Outcome.DEGRADED, Outcome.FAILED, Outcome.UNKNOWN]), st.just("")
)
events = st.one_of(
    st.tuples(st.just(TCP), results),
    st.tuples(st.just(FILE), st.sampled_from([PRESENT, ABSENT, ABSENT, Result(Outcome.UNKNOWN, "")])),
    st.tuples(st.just(ECS), st.builds(life, st.sampled_from(["", "one", "two"]))),
    st.sampled_from(["restart", "grant", "drain"]),
)


@given(st.lists(events, max_size=150), st.floats(0, 5))
def test_any_order_of_results_drains_and_restarts(order: list[tuple[int, Result] | str], step: float) -> None:
    """DRAINING is final for an incarnation, incarnations only grow, and a change of what is sent is told."""
    it = new()
    drained: dict[int, Report] = {}
    before, last = sent(it), 0
    stopped = False
    for index, event in enumerate(order):
        changed = False
        if isinstance(event, tuple):
            changed = it.observe(*event, index * step)
        elif event == "restart":
            it.restarted(index * step, "by hand")
        elif event == "drain":
            it.drain()
            stopped = True
        elif it.heartbeat() is not None:
            grant(it)
        now = sent(it)
        assert changed or now == before or not isinstance(event, tuple)
        before = now
        if now is None:
            assert last == 0 or (stopped and not it.lease.may_be_registered)
            continue
        incarnation, health, draining = now
        assert incarnation >= last
        assert not (stopped and not draining)
        last = incarnation
        if incarnation in drained:
            assert (draining, health) == (True, drained[incarnation])
        elif draining:
            drained[incarnation] = health
