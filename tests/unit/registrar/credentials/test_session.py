"""The rules of a session: its ends by the monotonic clock, and what it needs next."""

from hypothesis import given
from hypothesis import strategies as st

from registrar.credentials.session import MAX_RENEWAL, Step, begin, renew
from registrar.registry_client.login_answer import IssuedToken, LoginAnswer

HOUR = 3600.0
NOW = 50.0


def answer(ends_at: float) -> LoginAnswer:
    """Return a response with two tokens that end then."""
    return LoginAnswer(IssuedToken("hcs_r", ends_at), "aws:1:role/task", IssuedToken("hcs_e", ends_at))


@given(st.floats(-1e12, 1e12), st.floats(0, 1e6))
def test_only_the_life_counts(registry_now: float, now: float) -> None:
    """Wherever the registry's clock is, a session of an hour ends an hour later here."""
    session = begin(answer(registry_now + HOUR), registry_now, now)
    assert abs(session.registrar.ends_at - now - HOUR) < 1
    assert abs(session.renew_at(0.5) - now - HOUR / 2) < 1


@given(st.floats(), st.floats(-1e12, 1e12), st.floats(0, 1e6))
def test_a_session_lives_a_minute_to_twelve_hours(ends_at: float, registry_now: float, now: float) -> None:
    """No number in a response makes a registrar log in without a pause, or never again."""
    session = begin(answer(ends_at), registry_now, now)
    assert 59 <= session.registrar.ends_at - now <= MAX_RENEWAL + 1


def test_it_is_renewed_until_twelve_hours_after_the_login() -> None:
    """Then a login is tried first, and the renewal remains for the time in which none is possible."""
    session = begin(answer(HOUR), 0, NOW)
    now, steps = NOW, []
    while session.next_step(now) is Step.RENEW:
        steps.append(now)
        now = session.renew_at(0.5)
        session = renew(session, answer(HOUR), 0, now)
    assert session.next_step(now) is Step.LOGIN_OR_RENEW
    assert NOW + MAX_RENEWAL - 2 * HOUR <= now <= NOW + MAX_RENEWAL
    assert session.begun_at == NOW


def test_an_ended_session_is_not_renewed() -> None:
    """The registry would refuse it."""
    session = begin(answer(HOUR), 0, NOW)
    assert session.next_step(NOW + HOUR) is Step.LOGIN


def test_a_renewal_without_a_principal_keeps_it() -> None:
    """The name is for people."""
    session = begin(answer(HOUR), 0, NOW)
    assert renew(session, LoginAnswer(IssuedToken("hcs_2", HOUR)), 0, NOW).principal == "aws:1:role/task"


def test_tokens_hide_themselves() -> None:
    """No repr has one."""
    session = begin(answer(HOUR), 0, NOW)
    assert "hcs_" not in f"{session!r} {answer(HOUR)!r} {session.registrar}"
