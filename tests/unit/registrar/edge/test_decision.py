"""What polls are answered: the rules, in virtual time."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrar.edge.decision import (
    FALLBACK_TIMEOUT,
    NOTHING_TIMEOUT,
    TRUST_TIMEOUT,
    Poll,
    Situation,
    Verdict,
    decide,
)
from registrar.edge.entry import Entry, Source
from registrar.edge.polled_types import CLUSTERS, ENDPOINTS
from registrar.edge.token import NOTHING, fallback_token
from wire.node import Node

NODE = Node("envoy-1", "web")
HOLD = 30.0


def entry(token: str = "", source: Source = Source.REGISTRY, confirmations: int = 0) -> Entry:
    """Return an entry with that content, if there is a token."""
    made = Entry(ENDPOINTS, "shop", NODE, 0.0)
    if token:
        made.take(token, b"{}", source)
    made.confirmations = confirmations
    return made


def poll(brought: str = "", confirmations: int = 0, *, stepped: bool = False) -> Poll:
    """Return a poll that came at 0."""
    return Poll(("shop",), brought, 0.0, HOLD, (confirmations,), stepped)


def course(asked: Poll, held: Entry, situation: Situation = Situation()) -> tuple[Verdict, float]:  # noqa: B008
    """Return the answer if nothing changes, and when it is given."""
    now = 0.0
    for _ in range(10):
        verdict, again = decide(asked, [held], situation, now)
        if verdict is not Verdict.WAIT:
            return verdict, now
        assert again > now
        now = again
    raise AssertionError("never answered")


AWAY, REFUSED, FALLBACK = Situation(away=True), Situation(refused=True), Situation(fallback=True)


@pytest.mark.parametrize(
    ("brought", "held", "situation", "verdict", "at"),
    [
        # An Envoy that starts gets what the registry confirmed at once, and what is on disk when none answers soon.
        ("", entry("db:5", confirmations=1), Situation(), Verdict.CONTENT, 0.0),
        ("", entry("db:5", Source.DISK), Situation(), Verdict.CONTENT, TRUST_TIMEOUT),
        ("", entry("db:5", Source.DISK), AWAY, Verdict.CONTENT, 0.0),
        ("", entry(fallback_token(b"x"), Source.FALLBACK), Situation(), Verdict.CONTENT, 0.0),
        ("", entry(), Situation(), Verdict.NOTHING, NOTHING_TIMEOUT),
        ("", entry(), AWAY, Verdict.NOTHING, NOTHING_TIMEOUT),
        ("", entry(), FALLBACK, Verdict.NOTHING, FALLBACK_TIMEOUT),
        ("", entry(), REFUSED, Verdict.UNAVAILABLE, 0.0),
        # One that was given nothing, or what a fallback had, waits for what a registry says.
        (NOTHING, entry(), Situation(), Verdict.UNCHANGED, HOLD),
        (NOTHING, entry("db:5", confirmations=1), Situation(), Verdict.CONTENT, 0.0),
        (fallback_token(b"x"), entry("db:5", confirmations=1), Situation(), Verdict.CONTENT, 0.0),
        (fallback_token(b"x"), entry(fallback_token(b"x"), Source.FALLBACK), AWAY, Verdict.UNCHANGED, HOLD),
        # What it brings is compared: never older.
        ("db:4", entry("db:5", Source.DISK), Situation(), Verdict.CONTENT, 0.0),
        ("db:5", entry("db:5", confirmations=1), Situation(), Verdict.UNCHANGED, HOLD),
        ("db:6", entry("db:5", confirmations=1), Situation(), Verdict.UNCHANGED, HOLD),
        ("db:6", entry("db:5", Source.DISK), AWAY, Verdict.UNCHANGED, HOLD),
        ("db:5", entry(), Situation(), Verdict.UNCHANGED, HOLD),
        ("db:5", entry(fallback_token(b"x"), Source.FALLBACK), AWAY, Verdict.UNCHANGED, HOLD),
        # Of another database: only when the registry has answered since.
        ("other:9", entry("db:5", Source.DISK), Situation(), Verdict.UNCHANGED, HOLD),
        ("other:9", entry("db:5", confirmations=1), Situation(), Verdict.CONTENT, 0.0),
        # A refused edge holds nobody: Envoys have to go elsewhere.
        ("db:5", entry("db:5", confirmations=1), REFUSED, Verdict.UNCHANGED, 0.0),
    ],
)
def test_answers(brought: str, held: Entry, situation: Situation, verdict: Verdict, at: float) -> None:
    """Each case of the rules, as long as nothing changes."""
    assert course(poll(brought), held, situation) == (verdict, at)


def test_another_databases_token_waits_for_the_next_answer() -> None:
    """That the registry answered before the poll says nothing: it may have been replaced since."""
    held = entry("db:5", confirmations=3)
    asked = poll("other:9", confirmations=3)
    assert course(asked, held) == (Verdict.UNCHANGED, HOLD)
    held.confirm(1.0, 1.0)
    assert course(asked, held) == (Verdict.CONTENT, 0.0)


def test_a_starting_envoy_without_clusters_waits() -> None:
    """Without clusters or routes it would open ports that answer 404."""
    held = Entry(CLUSTERS, "*", NODE, 0.0)
    asked = Poll(("*",), "", 0.0, HOLD, (0,), stepped=True)
    assert course(asked, held) == (Verdict.UNAVAILABLE, HOLD)


BROUGHT = st.sampled_from(["", NOTHING, fallback_token(b"x"), "db:3", "db:5", "db:7", "other:1", "file"])
HELD = st.sampled_from(
    [
        entry(token, source, confirmations)
        for (token, source), confirmations in itertools.product(
            [
                ("", Source.NOWHERE),
                ("db:5", Source.REGISTRY),
                ("db:5", Source.DISK),
                ("db:0", Source.REGISTRY),
                (fallback_token(b"x"), Source.FALLBACK),
            ],
            [0, 1],
        )
    ]
)
SITUATIONS = st.builds(Situation, away=st.booleans(), refused=st.booleans(), fallback=st.booleans())


@given(BROUGHT, HELD, SITUATIONS)
def test_whatever_comes(brought: str, held: Entry, situation: Situation) -> None:
    """Every poll is answered in its time; nothing is taken from an Envoy that has hosts; nothing older is given."""
    verdict, at = course(poll(brought), held, situation)
    assert 0 <= at <= HOLD
    if verdict is Verdict.NOTHING:
        assert not brought
        assert not held.token
    if verdict is Verdict.CONTENT:
        assert held.token
        assert brought not in ("db:5", "db:7")
    if brought.startswith("db:"):
        assert verdict in (Verdict.UNCHANGED, Verdict.CONTENT)
        assert held.source is not Source.FALLBACK or verdict is Verdict.UNCHANGED
    if not brought:
        assert verdict is not Verdict.UNCHANGED
