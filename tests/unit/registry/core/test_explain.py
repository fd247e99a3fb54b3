"""Each state and circumstance of an endpoint, said in words."""

from typing import Any

import pytest
from msgspec.structs import replace
from unit.registry.making import NOW, endpoint, registration

from registry.core.endpoint import Endpoint, Override
from registry.core.expiry_guard import Pause
from registry.core.explain import Circumstances, explain
from registry.core.lease import Lease
from wire.model import Report

LATER = NOW + 100
USUAL = "a failing check, a drain, a deregistration, or silence for the length of its lease"
MEND = "its registrar reporting HEALTHY: look at the check, at the app, then at the registrar's log"
FINAL = "a newer incarnation that registers; a drain is final for this one"
BACK = "taking the override back (DELETE .../override)"
HELD = Lease(1, LATER - 3.2, LATER + 16.8)
IN_TIME = "its lease has 16.8s left; last heard of 3.2s ago"
DRAIN = Override(weight=None, drain=True, actor="ann", reason="slow disk", set_at=NOW, expires_at=LATER + 600)
WEIGHT = Override(weight=5, drain=False, actor="ann", reason="", set_at=NOW, expires_at=None)
PAUSE = Pause("shop", "ann", "network work", NOW, LATER + 90)


def row(reported: dict[str, Any] | None = None, **fields: Any) -> Endpoint:
    """Return an endpoint whose instance says this."""
    return endpoint(1, stored=registration("i-1", **(reported or {})), **fields)


def around(**fields: Any) -> Circumstances:
    """Return circumstances in which all is well."""
    usual = Circumstances(now=LATER, lease=HELD, pause=None, has_routable=True, removal_delay=10.0, last_hold=900.0)
    return replace(usual, **fields)


STATES = {
    "healthy": (row(), True, "its registrar reports HEALTHY", [USUAL]),
    "degraded": (
        row({"health": Report.DEGRADED, "detail": "slow"}),
        True,
        "its registrar reports DEGRADED (slow)",
        [USUAL],
    ),
    "unhealthy": (
        row({"health": Report.UNHEALTHY, "detail": "GET /: 503"}),
        False,
        "its registrar reports UNHEALTHY (GET /: 503)",
        [MEND],
    ),
    "drained by its instance": (
        row({"draining": True}),
        False,
        "its instance, or somebody on its behalf, drained incarnation 1 of i-1",
        [FINAL],
    ),
    "drained by an operator": (row(override=DRAIN), False, "an operator drained it: slow disk", [BACK]),
    "drained by an operator without a word": (
        row(override=replace(DRAIN, reason="")),
        False,
        "an operator drained it: no reason given",
        [BACK],
    ),
    "drained by both": (
        row({"draining": True}, override=DRAIN),
        False,
        "its instance, or somebody on its behalf, drained incarnation 1 of i-1",
        [FINAL],
    ),
    "drained and unhealthy": (
        row({"draining": True, "health": Report.UNHEALTHY}),
        False,
        "its instance, or somebody on its behalf, drained incarnation 1 of i-1",
        [FINAL],
    ),
    "another weight": (row(override=WEIGHT), True, "its registrar reports HEALTHY", [USUAL]),
}


@pytest.mark.parametrize(("endpoint_row", "served", "because", "changes"), STATES.values(), ids=STATES)
def test_the_deciding_reason_comes_first(
    endpoint_row: Endpoint, served: bool, because: str, changes: list[str]
) -> None:
    """It names what publishes the endpoint as it is, and what would change exactly that."""
    explanation = explain(endpoint_row, around())
    assert (explanation.served, explanation.because[0], explanation.would_change) == (served, because, changes)
    assert explanation.because[1] == IN_TIME


LAPSED = row(lapsed_at=NOW + 95, unroutable_at=NOW + 95)
LEFT = row(leaving_at=NOW + 95, unroutable_at=NOW + 95)


@pytest.mark.parametrize(
    ("endpoint_row", "circumstances", "because", "changes"),
    [
        pytest.param(
            LAPSED,
            {},
            ["no heartbeat of i-1 came within its lease of 20s"],
            ["a heartbeat of its instance", "it is left out of the answers in 5s"],
            id="lapsed beside better ones",
        ),
        pytest.param(
            LAPSED,
            {"has_routable": False},
            ["no heartbeat of i-1 came within its lease of 20s"],
            [
                "a heartbeat of its instance",
                "it is left out of the answers in 14m55s, since the service has nothing better",
            ],
            id="lapsed, and the last",
        ),
        pytest.param(
            LAPSED,
            {"now": LATER + 100},
            ["no heartbeat of i-1 came within its lease of 20s"],
            ["a heartbeat of its instance", "it is left out of the answers in 0s"],
            id="lapsed, and overdue",
        ),
        pytest.param(
            LEFT,
            {"has_routable": False},
            ["it was deregistered and is published as DRAINING until it is left out"],
            ["it is left out of the answers in 5s", "a newer incarnation that registers brings it back"],
            id="deregistered, the last",
        ),
        pytest.param(
            row({"health": Report.UNHEALTHY}, leaving_at=NOW + 95, unroutable_at=NOW + 10),
            {},
            ["it was deregistered and is published as UNHEALTHY until it is left out"],
            ["it is left out of the answers in 0s", "a newer incarnation that registers brings it back"],
            id="deregistered while unhealthy",
        ),
    ],
)
def test_who_has_no_lease_is_told_when_it_goes(
    endpoint_row: Endpoint, circumstances: dict[str, Any], because: list[str], changes: list[str]
) -> None:
    """An endpoint that lapsed or left has none on purpose, so only its removal is mentioned."""
    explanation = explain(endpoint_row, around(lease=None, **circumstances))
    assert (explanation.served, explanation.because, explanation.would_change) == (False, because, changes)


def test_a_lease_that_is_missing_or_over_is_told() -> None:
    """It is why the endpoint goes next, though it is still served."""
    assert explain(row(), around(lease=None)).because == [
        "its registrar reports HEALTHY",
        "it holds no lease any more",
    ]
    over = around(lease=Lease(1, LATER - 21.5, LATER - 1.5))
    assert explain(row(), over).because[1] == "its lease expired 1.5s ago; last heard of 21.5s ago"


def test_a_lease_of_the_future_is_told_without_nonsense() -> None:
    """A clock that was set back since the renewal: heard of just now, not in minus so many seconds."""
    ahead = around(lease=Lease(1, LATER + 5, LATER + 25))
    assert explain(row(), ahead).because[1] == "its lease has 25s left; last heard of 0s ago"


def test_a_suspect_is_told_why_it_is_kept() -> None:
    """It is served although nobody hears of it, by the guard's word."""
    suspect = row(suspect_since=LATER - 9, suspect_reason="2 of 10 of the service lapsed within 60 s")
    explanation = explain(suspect, around(lease=Lease(1, LATER - 30, LATER - 10)))
    assert explanation.served
    words = "SILENT, last reported HEALTHY 30s ago, kept by the guard until 14:03 UTC at the latest"
    assert explanation.because == [
        f"{words} (2 of 10 of the service lapsed within 60 s)",
        "its lease expired 10s ago; last heard of 30s ago",
    ]
    assert explanation.would_change == [
        "a heartbeat of i-1; the guard lets it lapse at 14:03 UTC at the latest",
        "look at its host. Is it dead? Deregister the endpoint; until then Envoys send it requests, which fail",
        "does the app still serve? Then its registrar, or its way to the registry, is at fault: mend that",
        "are hosts cut off that still serve? Pause expiry, so that none lapses before the network is mended",
    ]


def test_the_advice_about_a_suspect_fits_what_it_reported() -> None:
    """Of one that was unhealthy before nothing is said of requests that fail: it gets none. A drain comes first."""
    suspect = row({"health": Report.UNHEALTHY}, suspect_since=NOW, suspect_reason="x")
    explanation = explain(suspect, around(lease=None))
    assert explanation.because[0].startswith("SILENT, for 1m40s, last reported UNHEALTHY")
    assert "fail" not in " ".join(explanation.would_change)
    drained = row(suspect_since=NOW, suspect_reason="x", override=DRAIN)
    assert explain(drained, around()).because[0] == "an operator drained it: slow disk"


@pytest.mark.parametrize(
    ("lease", "fields", "said"),
    [
        (
            HELD,
            {},
            "its lease had 16.8s left when PostgreSQL was last read, 5m ago; heartbeats since then are not known",
        ),
        (Lease(1, NOW, NOW + 20), {}, "its lease was over when PostgreSQL was last read, 5m ago; heartbeats since"),
        (None, {}, "its lease is not known: this process has not read it from PostgreSQL"),
        (HELD, {"lapsed_at": NOW}, "it had no lease when PostgreSQL was last read"),
        (HELD, {"leaving_at": NOW}, "it had no lease when PostgreSQL was last read"),
    ],
)
def test_a_lease_from_memory_is_told_as_it_was_read(lease: Lease | None, fields: dict[str, Any], said: str) -> None:
    """While PostgreSQL is away the lease in memory grows old; to call it expired would call every endpoint dead."""
    explanation = explain(row(**fields), around(now=LATER + 300, lease=lease, read_ago=300.0))
    assert explanation.because[1].startswith(said)


def test_a_pause_is_told_with_its_end() -> None:
    """The actor, the time left and the reason are named; the time left is never negative."""
    said = "expiry is paused by ann for another 1m30s: network work"
    assert explain(row(), around(pause=PAUSE)).because[-1] == said
    over = explain(row(), around(pause=replace(PAUSE, until=LATER - 5))).because[-1]
    assert over == "expiry is paused by ann for another 0s: network work"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (DRAIN, "ann overrides drain, for another 10m: slow disk"),
        (WEIGHT, "ann overrides weight 5: no reason given"),
        (replace(WEIGHT, canary=False), "ann overrides weight 5 and no canary: no reason given"),
        (replace(DRAIN, weight=1, expires_at=None), "ann overrides drain and weight 1: slow disk"),
        (replace(WEIGHT, expires_at=LATER - 1), "ann overrides weight 5, for another 0s: no reason given"),
    ],
)
def test_an_override_is_told_with_its_end(override: Override, said: str) -> None:
    """The parts, the actor, the reason and the time left are named."""
    assert explain(row(override=override), around()).because[-1] == said
