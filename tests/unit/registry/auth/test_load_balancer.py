"""Statements of a load balancer: bent in every way they prove nobody, and what is kept of them is bounded."""

import json

from harness.load_balancer import ANN, ARN, CLIENT_ID, ISSUER, signed_part
from hypothesis import given
from hypothesis import strategies as st

from registry.auth.access_table import AccessTable
from registry.auth.credential import Identity
from registry.auth.grants import Grant
from registry.auth.load_balancer import (
    MAX_STATEMENT_AGE,
    LoadBalancer,
    check_header,
    keep,
    person_of,
    read_statement,
)
from registry.auth.load_balancer_keys import key_base
from registry.auth.oidc import CLOCK_SKEW, BadIdTokenError
from registry.auth.verbs import Verb

NOW = 1_000_000.0
OURS = LoadBalancer(ARN, CLIENT_ID, ISSUER)
KEY_ID = "01234567-89ab-cdef-0123-456789abcdef"
HEADER = {"alg": "ES256", "kid": KEY_ID, "iss": ISSUER, "client": CLIENT_ID, "signer": ARN, "exp": NOW + 120}
SIGNATURE = "A" * 86 + "=="

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


@given(value=st.binary(max_size=200) | st.text(alphabet="aZ09-_=.{}", max_size=200).map(str.encode))
def test_whatever_is_sent_is_a_statement_or_none(value: bytes) -> None:
    """No bytes make any other error."""
    try:
        read_statement(value)
    except BadIdTokenError:
        return
    assert value.count(b".") == 2


@given(field=st.sampled_from(sorted(HEADER)), value=_json)
def test_each_field_of_the_header_has_to_be_right(field: str, value: object) -> None:
    """Whatever another value is, it is refused, and never a defect."""
    statement = read_statement(f"{signed_part(HEADER | {field: value}, ANN)}.{SIGNATURE}".encode())
    # Of times and keys there are several that are right.
    right = value == HEADER[field]
    if field == "exp":
        right = type(value) in (int, float) and NOW - CLOCK_SKEW < value < 1e12  # type: ignore[operator]  # a number
    try:
        check_header(statement, OURS, NOW)
    except BadIdTokenError:
        assert not right
    else:
        assert right
        assert person_of(statement, OURS, NOW).expires_at <= NOW + MAX_STATEMENT_AGE


@given(claims=st.dictionaries(st.sampled_from(["email", "email_verified", "exp", "iat", "nbf", "iss"]), _json))
def test_whatever_is_claimed_is_a_person_or_none(claims: dict[str, object]) -> None:
    """No claims of a provider make any other error."""
    statement = read_statement(f"{signed_part(HEADER, claims)}.{SIGNATURE}".encode())
    try:
        person = person_of(statement, OURS, NOW)
    except BadIdTokenError:
        return
    assert "@" in person.email
    assert NOW < person.expires_at <= HEADER["exp"] + CLOCK_SKEW  # type: ignore[operator]  # a number


def test_keys_are_asked_for_where_our_load_balancer_is() -> None:
    """Never where a token says."""
    assert key_base(ARN) == "https://public-keys.auth.elb.eu-west-1.amazonaws.com"
    gov = "arn:aws-us-gov:elasticloadbalancing:us-gov-west-1:111122223333:loadbalancer/app/a/0123456789abcdef"
    assert key_base(gov) == "https://s3-us-gov-west-1.amazonaws.com/aws-elb-public-keys-prod-us-gov-west-1"


def test_the_oldest_is_dropped_beyond_the_limit() -> None:
    """One that is kept again is the newest."""
    kept: dict[str, int] = {}
    for name in ("a", "b", "a", "c"):
        keep(kept, name, 1, 2)
    assert list(kept) == ["a", "c"]


def test_a_person_ends_with_the_statement_and_with_the_identity() -> None:
    """A stream that was begun by it is looked at again then."""
    table = AccessTable()
    assert table.subject_of_person("ann@example.org", NOW + 60).unknown
    identity = Identity("staff", "oidc", "*@example.org", "operator", (Grant((Verb.READ,), ("shop",)),))
    table.replace([], [identity], ())
    subject = table.subject_of_person("ann@example.org", NOW + 60)
    assert (subject.name, subject.owner) == ("oidc:ann@example.org", "identity:staff")
    assert table.subject_of_person("ann@example.org", NOW + 60) is subject
    table.expire(NOW + 59)
    ended = subject.ended
    table.expire(NOW + 61)
    assert (ended, subject.ended) == (False, True)
    later = table.subject_of_person("ann@example.org", NOW + 120)
    table.replace([], [], ())
    assert later.ended
    nobody = table.subject_of_person("ann@example.org", NOW + 120)
    assert (nobody.name, nobody.grants) == ("oidc:ann@example.org", ())


def test_a_statement_shows_nothing_of_itself() -> None:
    """It is a credential."""
    statement = read_statement(f"{signed_part(HEADER, ANN)}.{SIGNATURE}".encode())
    assert "ann" not in repr(statement)
    assert json.dumps(dict(statement.claims)) == json.dumps(ANN)
