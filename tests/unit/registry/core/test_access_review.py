"""The rules by which tokens and identities are worth a look."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.auth.credential import Credential, Identity, Source
from registry.auth.grants import Grant
from registry.auth.verbs import Verb
from registry.core.access_review import ending, long_lived, open_to_networks

NOW = 1_763_600_000.0
HOUR = 3600.0
DAY = 24 * HOUR


def token(name: str, *, made: float, ends: float, used: float | None = None, **fields: object) -> Credential:
    """Return a token that was made so many days ago, ends in so many and was last used so many days ago."""
    used_at = None if used is None else NOW - used * DAY
    return Credential(
        f"id-{name}-{ends}",
        b"",
        name,
        "machine",
        NOW + ends * DAY,
        created_at=NOW - made * DAY,
        used_at=used_at,
        **fields,  # type: ignore[arg-type]  # fields by name
    )


@pytest.mark.parametrize(
    ("made", "ends", "used", "reported"),
    [
        (84, 6.9, None, True),
        (82, 7.1, None, False),
        (0.4, 0.1, None, True),
        (0.1, 0.4, None, False),
        (90, -0.5, 0.6, True),
        (90, -0.5, 3, False),
        (90, -0.5, None, False),
        (90, -1.1, 1.2, False),
        (0.6, -0.1, 0.2, False),
    ],
)
def test_a_token_is_reported_before_it_ends_and_after_it_ended_in_use(
    made: float, ends: float, used: float | None, reported: bool
) -> None:
    """Within a week or the last quarter of its time; and for a day afterwards, if somebody still had it."""
    assert bool(ending([token("ci", made=made, ends=ends, used=used)], NOW)) is reported


def test_a_successor_takes_the_place_of_a_token_that_ends() -> None:
    """The newest of a name is looked at; a revoked one is no successor, and is not reported itself."""
    old, new = token("ci", made=89, ends=1), token("ci", made=1, ends=89)
    revoked = token("ci", made=1, ends=89, revoked_at=NOW)
    assert ending([old, new], NOW) == []
    assert ending([old, revoked], NOW) == [old]
    assert ending([token("ci", made=89, ends=1, revoked_at=NOW)], NOW) == []


def test_long_lived_tokens_that_manage_credentials_are_reported() -> None:
    """By their whole time, not by what is left of it; what has ended does no harm any more."""
    admin = (Grant((Verb.READ,)), Grant((Verb.ADMIN,)))
    wide = token("wide", made=25, ends=6, grants=admin)
    others = [
        token("short", made=5, ends=24, grants=admin),
        token("narrow", made=1, ends=300, grants=(Grant((Verb.OPERATE,)),)),
        token("ended", made=60, ends=-1, grants=admin),
        token("revoked", made=1, ends=300, grants=admin, revoked_at=NOW),
    ]
    assert long_lived([*others, wide], NOW) == [wide]


def test_networks_that_manage_credentials_are_reported() -> None:
    """An address is no proof of a person; a role is one of a workload."""
    grants = (Grant((Verb.ADMIN,)),)
    sources: list[tuple[Source, str]] = [("network", "10.0.0.0/8"), ("oidc", "ann@example.org")]
    identities = [Identity(source, source, match, "operator", grants) for source, match in sources]
    assert [identity.name for identity in open_to_networks(identities)] == ["network"]


days = st.floats(-400, 400)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 400), days, st.booleans())), st.floats(0, 400))
def test_whatever_is_reported_is_the_last_of_its_name(
    tokens: list[tuple[str, float, float, bool]], later: float
) -> None:
    """At any time: no token is reported beside one of its name that lasts longer, and none that was revoked."""
    made = [
        token(name, made=age, ends=ends, used=0, revoked_at=NOW if revoked else None)
        for name, age, ends, revoked in tokens
    ]
    for reported in ending(made, NOW + later * DAY):
        assert reported.revoked_at is None
        assert all(
            other.expires_at <= reported.expires_at
            for other in made
            if other.name == reported.name and other.revoked_at is None
        )
