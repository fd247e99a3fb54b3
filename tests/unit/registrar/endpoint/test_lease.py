"""The effect of grants and refusals on the lease of an endpoint."""

from harness.fake_registry import fenced

from registrar.endpoint.lease import LeaseState, RefusalEffect
from wire.model import Grant, Health, Registration
from wire.problem import Problem

GRANT = Grant("shop", "127.0.0.1:1", Health.HEALTHY, 1, 20.0, 5.0, 12.0)


def granted(*, draining: bool = False) -> LeaseState:
    """Return a lease that was granted at second 7."""
    lease = LeaseState("i-1", 100)
    lease.granted(Registration("i-1", 100, draining=draining), GRANT, 7.0)
    return lease


def test_a_clock_that_went_back_costs_one_refusal() -> None:
    """A start that is behind its own earlier one takes the known incarnation plus one."""
    lease = LeaseState("i-1", 100)
    assert lease.refused(fenced("i-1", 5000)) is RefusalEffect.RAISED
    assert lease.incarnation == 5001


def test_the_incarnation_is_raised_once_only() -> None:
    """A second refusal means that another process of the same instance is raising too: give in."""
    lease = LeaseState("i-1", 100)
    lease.refused(fenced("i-1", 5000))
    assert lease.refused(fenced("i-1", 6000)) is RefusalEffect.FENCED
    assert lease.fenced


def test_an_accepted_process_is_fenced_and_never_raises() -> None:
    """Fault 21: of two processes with one instance id only the newer goes on."""
    lease = granted()
    assert lease.refused(fenced("i-1", 5000)) is RefusalEffect.FENCED
    assert lease.incarnation == 100


def test_an_accepted_process_is_fenced_by_another_owner() -> None:
    """Fault 20: who had the address and lost it stops publishing it."""
    assert granted().refused(fenced("i-2", 5)) is RefusalEffect.FENCED


def test_an_address_of_another_instance_is_asked_for_again() -> None:
    """Its owner may be dead: before it ever was ours, a foreign owner is no reason to stop."""
    lease = LeaseState("i-1", 100)
    assert lease.refused(fenced("i-2", 5000)) is RefusalEffect.REFUSED
    assert (lease.fenced, lease.incarnation) == (False, 100)


def test_a_conflict_without_an_owner_fences() -> None:
    """A 409 that names nobody leaves nothing to exceed."""
    assert LeaseState("i-1", 100).refused(fenced()) is RefusalEffect.FENCED


def test_other_problems_change_nothing() -> None:
    """Poison and overload are for the next heartbeat to mend."""
    lease = granted()
    assert lease.refused(Problem("bad", 422, "weight")) is RefusalEffect.REFUSED
    assert not lease.fenced


def test_a_drain_is_acknowledged_by_the_answer_to_a_draining_heartbeat() -> None:
    """The answer to an older heartbeat without the drain does not start the wait."""
    assert granted().drained_at is None
    assert granted(draining=True).drained_at == 7.0
