"""How often one peer may do something."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.core import peer_limit
from registry.core.peer_limit import PeerLimit
from registry.errors import LimitError


def allowed(limit: PeerLimit, address: str, now: float) -> bool:
    """Return whether one more is within the limit."""
    try:
        limit.check(address, now)
    except LimitError:
        return False
    return True


def test_a_burst_and_then_a_rate() -> None:
    """Ten at once, five a second after that; the error says when the next one may come."""
    limit = PeerLimit("logins", rate=5, burst=10)
    assert [allowed(limit, "10.0.0.5", 0.0) for _ in range(12)] == [True] * 10 + [False] * 2
    with pytest.raises(LimitError, match=r"more than 5 logins a second come from 10\.0\.0\.5") as caught:
        limit.check("10.0.0.5", 0.0)
    assert caught.value.retry_after == pytest.approx(0.2)
    assert allowed(limit, "10.0.0.6", 0.0)
    assert [allowed(limit, "10.0.0.5", 0.2) for _ in range(2)] == [True, False]
    assert [allowed(limit, "10.0.0.5", 60.0) for _ in range(12)] == [True] * 10 + [False] * 2


@given(
    st.lists(st.floats(min_value=0, max_value=1.0), min_size=1, max_size=120),
    st.sampled_from([0.5, 5.0, 100.0]),
    st.integers(min_value=1, max_value=20),
)
def test_no_window_has_more_than_its_share(pauses: list[float], rate: float, burst: int) -> None:
    """Between any two requests that were allowed there are at most the burst and what the rate gives in that time."""
    limit = PeerLimit("logins", rate, burst)
    now, times = 1e6, []
    for pause in pauses:
        now += pause
        if allowed(limit, "10.0.0.5", now):
            times.append(now)
    for first, begin in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + (times[last] - begin) * rate + 1e-3


@given(st.integers(min_value=1, max_value=10), st.floats(min_value=0, max_value=1e9))
def test_a_peer_that_keeps_to_the_rate_is_never_refused(burst: int, begin: float) -> None:
    """However long the process runs already."""
    limit = PeerLimit("logins", rate=5, burst=burst)
    assert all(allowed(limit, "10.0.0.5", begin + number * 0.2001) for number in range(50))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.9.0.1", "local", ""])
def test_loopback_and_proxies_have_no_limit(address: str) -> None:
    """Behind a proxy there are many; what comes by a Unix socket has no address."""
    limit = PeerLimit("logins", rate=1, burst=1, exempt=[ipaddress.ip_network("10.9.0.0/16")])
    assert all(allowed(limit, address, 0.0) for _ in range(5))


def test_an_ipv6_site_is_one_peer() -> None:
    """A machine has more addresses of its site than anybody can count."""
    limit = PeerLimit("logins", rate=1, burst=1)
    assert allowed(limit, "2001:db8::1", 0.0)
    assert not allowed(limit, "2001:db8::ffff", 0.0)
    assert allowed(limit, "2001:db8:0:1::1", 0.0)
    assert allowed(limit, "::ffff:10.0.0.5", 0.0)
    assert not allowed(limit, "10.0.0.5", 0.0)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers whose burst is whole again are forgotten first."""
    monkeypatch.setattr(peer_limit, "MAX_KEYS", 3)
    limit = PeerLimit("logins", rate=1, burst=1)
    assert all(allowed(limit, f"10.0.0.{number}", number * 0.6) for number in range(20))
    assert len(limit._limits._whole_at) <= 3
    assert allowed(limit, "10.1.0.0", 100.0)
    assert not allowed(limit, "10.1.0.0", 100.0)
    assert all(allowed(limit, f"10.2.0.{number}", 100.0) for number in range(20))
    assert len(limit._limits._whole_at) <= 3
