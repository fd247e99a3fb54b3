"""The times of a connection, whatever happens to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.http2.lifetime import (
    AGE_SPREAD,
    IDLE_TIMEOUT,
    KEEPALIVE_INTERVAL,
    KEEPALIVE_TIMEOUT,
    PREFACE_TIMEOUT,
    STALL_TIMEOUT,
    Lifetime,
    Verdict,
)

EVENTS = st.lists(
    st.tuples(
        st.floats(0, 40), st.sampled_from(["hear", "pause", "resume", "begin_message", "end_message", "nothing"])
    ),
    max_size=30,
)


@given(EVENTS)
def test_a_silent_connection_ends_in_time(events: list[tuple[float, str]]) -> None:
    """Whatever happened before, a client that is silent from now on is gone after thirty seconds and some."""
    now = 100.0
    life = Lifetime(now, 0.0)
    life.begun, life.idle_since = True, None
    for seconds, event in events:
        now += seconds
        if event == "hear":
            life.hear(now)
        elif event == "pause":
            life.paused_since = now
        elif event == "resume":
            life.paused_since = None
            life.hear(now)
        elif event == "begin_message":
            life.incomplete_since = now
        elif event == "end_message":
            life.incomplete_since = None
    silent_since = now
    for _ in range(10):
        verdict = life.check(now)
        if verdict is not None and verdict.action == "end":
            break
        if verdict is not None:
            assert verdict == Verdict("ping", "keepalive")
            life.ping(now)
        at = life.next_check(now)
        assert at > now
        now = at
    else:
        pytest.fail("it never ends")
    assert now - silent_since <= max(KEEPALIVE_INTERVAL + KEEPALIVE_TIMEOUT, STALL_TIMEOUT) + 0.001


def test_a_client_that_is_heard_stays() -> None:
    """One byte in twenty seconds is enough, and an answer to a PING is one."""
    life = Lifetime(0.0, 0.0)
    life.begun, life.idle_since = True, None
    now = 0.0
    for _ in range(100):
        verdict = life.check(now)
        if verdict is not None:
            assert verdict.action == "ping"
            life.ping(now)
            life.hear(now + 5)
        now = life.next_check(now)
    assert now > 1_000


@given(st.floats(1, 86_400))
def test_ages_are_spread(age: float) -> None:
    """Connections of one moment end between four and six fifths of the age."""
    life = Lifetime(0.0, age)
    assert life.age_at is not None
    assert age * (1 - AGE_SPREAD) <= life.age_at <= age * (1 + AGE_SPREAD)
    life.begun, life.idle_since = True, None
    life.hear(life.age_at)
    assert life.check(life.age_at) == Verdict("drain", "max_age")


def test_a_certificate_ends_a_connection_before_its_age() -> None:
    """The earlier one counts; without an age the certificate alone does."""
    assert Lifetime(0.0, 1_000.0, 10.0).age_at == 10.0
    assert Lifetime(0.0, 0.0, 10.0).age_at == 10.0
    assert Lifetime(0.0, 0.0).age_at is None


def test_connections_that_nobody_uses_end() -> None:
    """Ten seconds without a preface, five minutes without a stream."""
    life = Lifetime(0.0, 0.0)
    assert life.check(PREFACE_TIMEOUT - 1) is None
    assert life.check(PREFACE_TIMEOUT) == Verdict("end", "idle")
    life.begun = True
    life.hear(IDLE_TIMEOUT)
    assert life.check(IDLE_TIMEOUT - 1) is None
    assert life.check(IDLE_TIMEOUT) == Verdict("drain", "idle")
