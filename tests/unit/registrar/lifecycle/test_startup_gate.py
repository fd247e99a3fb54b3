"""The latch of the health check, in virtual time."""

from hypothesis import given
from hypothesis import strategies as st

from registrar.lifecycle.startup_gate import StartupGate


def test_healthy_a_drain_wait_after_the_first_registration() -> None:
    """Envoys need that long to hear of it."""
    latch = StartupGate(0)
    assert not latch.healthy(5, None, 12)
    assert not latch.healthy(6, 5, 12)
    assert latch.healthy(17, 5, 12)


def test_healthy_after_two_minutes_without_any_registry() -> None:
    """A registry that is away must not make ECS replace the fleet."""
    latch = StartupGate(0)
    assert not latch.healthy(119, None, 12)
    assert latch.healthy(120, None, 12)


def test_not_healthy_while_the_app_fails_its_checks() -> None:
    """A deployment of a broken app must not stop the tasks that work, registered or not."""
    latch = StartupGate(0)
    assert not latch.healthy(17, 5, 12, app_ready=False)
    assert not latch.healthy(500, 5, 12, app_ready=False)
    assert latch.healthy(501, 5, 12)
    assert latch.healthy(502, 5, 12, app_ready=False), "it is healthy for good"


def test_not_healthy_while_a_registry_refuses() -> None:
    """A wrong secret must not stop the tasks that have the right one; a registry that is away stops nobody."""
    latch = StartupGate(0)
    assert not latch.healthy(500, None, 12, refused=True)
    assert latch.healthy(501, None, 12), "it no longer answers"


def test_a_refusal_of_one_endpoint_does_not_undo_the_registration_of_another() -> None:
    """What is registered and was waited for is healthy."""
    assert StartupGate(0).healthy(17, 5, 12, refused=True)


@given(
    st.lists(
        st.tuples(st.floats(0, 60), st.none() | st.floats(0, 300), st.floats(0, 60), st.booleans(), st.booleans()),
        min_size=1,
    )
)
def test_healthy_is_for_good(steps: list[tuple[float, float | None, float, bool, bool]]) -> None:
    """Whatever happens later, who was healthy stays so."""
    latch, now, was = StartupGate(0), 0.0, False
    for pause, registered, wait, app_ready, refused in steps:
        now += pause
        healthy = latch.healthy(now, registered, wait, app_ready=app_ready, refused=refused)
        assert healthy or not was
        was = healthy
