"""The silence of an endpoint: who is silent, since when, and until when at the latest."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from unit.registry.making import NOW, endpoint, registration, snapshot

from registry.core.endpoint import Endpoint, Override
from registry.core.expiry_guard import EVERYWHERE, Candidate, Pause, evaluate_guard
from registry.core.lease import Lease
from registry.core.silence import (
    SILENT,
    STATUSES_FOR_PEOPLE,
    Silence,
    is_silent,
    pause_of,
    silence_in_words,
    silence_of,
    status_for_people,
)
from wire.model import Health, Report

HOLD = 900.0
REASON = "2 of 10 of the service lapsed within 60 s, limit 20 %"
DRAIN = Override(weight=None, drain=True, actor="ann", reason="dead", set_at=NOW, expires_at=None)
PAUSE = Pause("shop", "ann", "network work", NOW, NOW + 5_000)
TIMES = st.floats(NOW - 10_000, NOW + 10_000)


def suspect(number: int = 1, since: float = NOW, **fields: Any) -> Endpoint:
    """Return an endpoint that the guard has kept since ``since``."""
    return endpoint(number, suspect_since=since, suspect_reason=REASON, **fields)


def heard(at: float, ttl: float = 20.0) -> Lease:
    """Return the lease that a heartbeat at this time renewed."""
    return Lease(1, at, at + ttl)


def silence(shown: Endpoint, lease: Lease | None, now: float, pause: Pause | None = None) -> Silence:
    """Return the silence of an endpoint that is silent."""
    result = silence_of(shown, lease, now, HOLD, pause)
    assert result is not None
    return result


def test_a_suspect_is_silent() -> None:
    """It tells when it was heard, what it reported, and when the guard lets it go at the latest."""
    result = silence(suspect(since=NOW + 21), heard(NOW), NOW + 104)
    assert result == Silence(NOW + 21, NOW, Report.HEALTHY, NOW + 20 + HOLD, REASON)
    assert result.held_for(NOW + 104) == 83


@pytest.mark.parametrize(
    "shown",
    [
        endpoint(),
        suspect(lapsed_at=NOW),
        suspect(leaving_at=NOW),
        suspect(override=DRAIN),
        suspect(stored=registration("i-1", draining=True)),
    ],
    ids=["renewed", "lapsed", "deregistered", "drained by an operator", "drained by its instance"],
)
def test_no_other_endpoint_is_silent(shown: Endpoint) -> None:
    """An endpoint whose lease is good, or that is on its way out, has the status that Envoy receives."""
    assert silence_of(shown, heard(NOW - 100), NOW, HOLD) is None
    assert status_for_people(shown) == shown.status


@pytest.mark.parametrize("health", list(Report))
def test_people_see_silence_and_envoy_the_old_status(health: Report) -> None:
    """Envoy's answer stays as it was; people see SILENT, whatever was reported last."""
    shown = suspect(stored=registration("i-1", health=health))
    assert (shown.status.value, status_for_people(shown)) == (health.value, SILENT)
    assert silence(shown, None, NOW).last_reported is health


def test_every_status_has_its_name_for_people() -> None:
    """SILENT is the only one that Envoy never receives."""
    assert set(STATUSES_FOR_PEOPLE) == {health.value for health in Health} | {SILENT}


@given(marked=TIMES, renewed=TIMES, ttl=st.floats(1, 86_400), now=TIMES, paused=st.none() | TIMES)
def test_times_are_in_order_whatever_the_clock_does(
    marked: float, renewed: float, ttl: float, now: float, paused: float | None
) -> None:
    """No time of the past lies ahead of the clock, and the end is the guard's, or a pause's that ends later."""
    pause = None if paused is None else replace(PAUSE, until=paused)
    for lease in (None, heard(renewed, ttl)):
        result = silence(suspect(since=marked), lease, now, pause)
        assert result.since <= now
        assert result.held_for(now) >= 0
        assert result.last_heard is None or result.last_heard <= now
        expired_at = lease.expires_at if lease else result.since
        assert result.held_until == max(expired_at + HOLD, paused or 0)
        assert silence_in_words(result, now).startswith("SILENT, ")


@given(age=st.floats(0, 3 * HOLD), now=TIMES, others=st.integers(0, 20))
def test_the_end_is_the_one_at_which_the_guard_lets_go(age: float, now: float, others: int) -> None:
    """From ``held_until`` on the guard lets it lapse whatever else lapsed, and never before when its limit is used."""
    expired_at = now - age
    result = silence(suspect(since=expired_at), Lease(1, expired_at - 20, expired_at), now)
    candidate = Candidate(1, "shop", expired_at, suspect=True)
    decision = evaluate_guard([candidate], {"shop": 1 + others}, {"shop": 30}, {}, now, HOLD)
    assert bool(decision.lapse) is (now - expired_at >= HOLD)
    # The two sides of the comparison round differently.
    assert bool(decision.lapse) is (now >= result.held_until) or abs(now - result.held_until) < 1e-6


def test_a_clock_that_was_set_back() -> None:
    """The mark lies ahead of the clock then; the expiry of the lease, which was moved along, is since when."""
    result = silence(suspect(since=NOW + 3600), Lease(1, NOW - 30, NOW - 10), NOW)
    assert (result.since, result.last_heard, result.held_until) == (NOW - 10, NOW - 30, NOW - 10 + HOLD)
    assert silence(suspect(since=NOW + 3600), None, NOW).since == NOW


def test_a_lease_that_the_sweeper_granted_is_no_heartbeat() -> None:
    """A heartbeat takes the mark away, so a lease that is newer than the mark replaces a lost row."""
    result = silence(suspect(since=NOW), heard(NOW + 60), NOW + 70)
    assert (result.last_heard, result.held_until) == (None, NOW + 80 + HOLD)


def test_a_process_from_disk_knows_no_lease() -> None:
    """It says for how long the endpoint has been kept, and not when it was heard."""
    result = silence(suspect(since=NOW), None, NOW + 104)
    assert (result.last_heard, result.held_until) == (None, NOW + HOLD)
    assert silence_in_words(result, NOW + 104).startswith("SILENT, for 1m44s, last reported HEALTHY, kept by the guard")


def test_the_words() -> None:
    """They name the last report, the end, and the limit; another day has its date."""
    result = silence(suspect(since=NOW + 21), heard(NOW), NOW + 104)
    assert silence_in_words(result, NOW + 104) == (
        f"SILENT, last reported HEALTHY 1m44s ago, kept by the guard until 14:02 UTC at the latest ({REASON})"
    )
    paused = silence(suspect(since=NOW + 21), heard(NOW), NOW + 104, replace(PAUSE, until=NOW + 86_400))
    assert "until 1970-01-13 13:46 UTC" in silence_in_words(paused, NOW + 104)
    assert "was to lapse at 14:02 UTC: nobody sweeps" in silence_in_words(result, NOW + 1000)


def test_a_pause_of_the_service_or_of_all_counts() -> None:
    """The pause of the service is the one that is named, as the guard has it."""
    everywhere = replace(PAUSE, scope=EVERYWHERE)
    assert pause_of("shop", {EVERYWHERE: everywhere, "shop": PAUSE}) is PAUSE
    assert pause_of("cart", {EVERYWHERE: everywhere, "shop": PAUSE}) is everywhere
    assert pause_of("cart", {"shop": PAUSE}) is None


def test_a_service_counts_silent_endpoints_once() -> None:
    """For people they are SILENT and nothing else; for Envoy they are routable as before."""
    degraded = suspect(4, stored=registration("i-4", health=Report.DEGRADED))
    shown = snapshot(endpoint(1), suspect(2), suspect(3, override=DRAIN), degraded)
    assert shown.counts_for_people == {"HEALTHY": 1, "DRAINING": 1, "SILENT": 2}
    assert shown.counts == {"HEALTHY": 2, "DRAINING": 1, "DEGRADED": 1}
    assert (shown.routable, len(shown.silent), sum(shown.counts_for_people.values())) == (3, 2, 4)
    assert all(map(is_silent, shown.silent))
