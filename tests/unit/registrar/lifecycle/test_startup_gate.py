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


@given(
    st.lists(
        st.tuples(st.floats(0, 60), st.none() | st.floats(0, 300), st.floats(0, 60)),
        min_size=1,
    )
)
def test_healthy_is_for_good(steps: list[tuple[float, float | None, float]]) -> None:
    """Whatever happens later, who was healthy stays so."""
    latch, now, was = StartupGate(0), 0.0, False
    for pause, registered, wait in steps:
        now += pause
        healthy = latch.healthy(now, registered, wait)
        assert healthy or not was
        was = healthy
