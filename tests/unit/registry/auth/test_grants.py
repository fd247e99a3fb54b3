"""Grants and the decision: what covers what, and the words of a refusal."""

import ipaddress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from registry.auth.decision import Request, decide
from registry.auth.grants import Grant, check_grants, check_networks, reach_of
from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.subject import ANONYMOUS, Subject, rejected, undetermined
from registry.auth.verbs import Verb
from registry.errors import InvalidError, RegistryError
from wire.address import parse_ip

NAMES = st.text("abc-", min_size=1, max_size=4)
PATTERNS = st.one_of(NAMES, NAMES.map(lambda name: f"{name}*"), st.just("*"))
GRANTS = st.builds(
    Grant,
    st.lists(st.sampled_from(Verb), min_size=1, max_size=3).map(tuple),
    st.lists(PATTERNS, min_size=1, max_size=3).map(tuple),
    st.lists(st.sampled_from(["peer", "10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"]), max_size=2).map(tuple),
    st.sampled_from(["any", "session"]),
)
REQUESTS = st.builds(
    Request,
    st.sampled_from(Verb),
    st.one_of(st.just(""), NAMES),
    st.sampled_from(["", "10.1.2.3:80", "10.9.9.9:80", "[2001:db8::1]:80"]),
    st.sampled_from([None, "task", "ecs/task", "other"]),
)


def subject(*grants: Grant, session: str = "") -> Subject:
    """Return a subject with these grants."""
    return Subject("token:t", "machine", grants, session_name=session)


@pytest.mark.parametrize(
    ("patterns", "service", "covered"),
    [
        (["shop"], "shop", True),
        (["shop"], "shop-2", False),
        (["shop-*"], "shop-2", True),
        (["shop-*"], "shop", False),
        (["*"], "anything", True),
        (["a", "b*"], "bc", True),
        ([], "a", False),
    ],
)
def test_names_are_exact_or_prefixes(patterns: list[str], service: str, covered: bool) -> None:
    """A star stands at the end alone, and what is before it is a prefix."""
    assert reach_of(frozenset(patterns)).covers(service) is covered


@given(st.lists(GRANTS, max_size=4), GRANTS, REQUESTS, st.sampled_from(["10.1.2.3", "10.9.9.9", "local"]))
def test_more_grants_never_allow_less(grants: list[Grant], another: Grant, asked: Request, peer: str) -> None:
    """What some grants allow is allowed with one more, wherever it stands."""
    if decide(subject(*grants, session="task"), peer, asked) is None:
        assert decide(subject(*grants, another, session="task"), peer, asked) is None
        assert decide(subject(another, *grants, session="task"), peer, asked) is None


@given(st.lists(GRANTS, max_size=4), REQUESTS, st.sampled_from(["10.1.2.3", "10.9.9.9", "local"]))
def test_nothing_is_allowed_that_no_grant_names(grants: list[Grant], asked: Request, peer: str) -> None:
    """A request that is allowed has a grant with its verb, its service, its address and its instance."""
    if decide(subject(*grants, session="task"), peer, asked) is not None:
        return
    fitting = [grant for grant in grants if asked.verb in grant.verbs]
    if asked.service:
        fitting = [grant for grant in fitting if reach_of(frozenset(grant.services)).covers(asked.service)]
    if asked.verb is Verb.REGISTER and asked.endpoint and asked.service:
        address = asked.endpoint.rpartition(":")[0].strip("[]")
        fitting = [grant for grant in fitting if grant.allows_address(address, peer)]
        fitting = [grant for grant in fitting if grant.allows_instance(asked.instance_id, "task")]
    assert fitting


@given(
    st.lists(GRANTS, max_size=4),
    st.sampled_from([{}, {"problem": "it was revoked"}, {"problem": "nothing was read", "unknown": True}]),
    REQUESTS,
    st.sampled_from(["10.1.2.3", "10.9.9.9", "local"]),
)
def test_the_policy_enforces_the_decision(
    grants: list[Grant], problem: dict[str, Any], asked: Request, peer: str
) -> None:
    """It is quicker where nothing but a service is concerned, and allows no more and no less; whatever the problem."""
    asking = Subject("token:t", "machine", grants, session_name="task", **problem)
    allowed = True
    try:
        Policy("on").allow(
            Principal(peer, subject=asking), asked.verb, asked.service, asked.endpoint, asked.instance_id
        )
    except RegistryError:
        allowed = False
    assert allowed is (decide(asking, peer, asked) is None)


@given(GRANTS, st.one_of(st.text(), st.from_regex("[\\[:][0-9a-f:.\\[\\]%]*")), st.text(), st.text(max_size=9))
@example(Grant((Verb.REGISTER,), addresses=("peer",)), "[::1", "shop", "10.0.0.1")
def test_no_text_is_beyond_the_decision(grant: Grant, endpoint: str, service: str, peer: str) -> None:
    """An endpoint that is none is refused where a grant is bound to addresses, and nothing is raised."""
    asked = Request(Verb.REGISTER, service, endpoint, endpoint)
    refusal = decide(subject(grant, session="task"), peer, asked)
    if grant.addresses and endpoint.startswith("["):
        assert refusal is None or refusal.reason


@pytest.mark.parametrize("verb", [Verb.OPERATE, Verb.REGISTER, Verb.CONFIGURE, Verb.ADMIN])
def test_a_change_of_everything_needs_a_grant_for_everything(verb: Verb) -> None:
    """To pause expiry everywhere, a grant for one service is not enough; to read lists it is."""
    scoped = subject(Grant((verb, Verb.READ), ("shop",)))
    assert decide(scoped, "10.0.0.1", Request(verb)) is not None
    assert decide(scoped, "10.0.0.1", Request(Verb.READ)) is None
    assert decide(subject(Grant((verb,))), "10.0.0.1", Request(verb)) is None


@pytest.mark.parametrize(
    ("who", "cause", "says"),
    [
        (ANONYMOUS, "unauthenticated", "the verb read for the service shop needs a credential, and none was sent"),
        (rejected("the token t has expired"), "unauthenticated", "the token t has expired"),
        (undetermined(), "undetermined", "this process has not read the credentials yet"),
        (subject(Grant((Verb.READ,), ("web",))), "forbidden", "no grant of token:t allows the verb read"),
    ],
)
def test_a_refusal_says_why(who: Subject, cause: str, says: str) -> None:
    """No credential, a bad one, none that can be judged yet, and no grant are four different things."""
    refusal = decide(who, "10.0.0.1", Request(Verb.READ, "shop"))
    assert refusal is not None
    assert (refusal.cause, says in refusal.reason) == (cause, True)


@pytest.mark.parametrize(
    ("instance", "session", "allowed"),
    [
        ("task-1", "task-1", True),
        ("ecs/task-1/app", "task-1", True),
        ("task-11", "task-1", False),
        ("task-1", "", False),
        ("", "", False),
    ],
)
def test_an_instance_has_its_session_as_a_whole_part(instance: str, session: str, allowed: bool) -> None:
    """A session named task-1 may not register task-11, and a token without a session registers none."""
    bound = subject(Grant((Verb.REGISTER,), instance="session"), session=session)
    assert (decide(bound, "10.0.0.1", Request(Verb.REGISTER, "shop", "10.0.0.1:80", instance)) is None) is allowed


ADDRESSES = st.one_of(
    st.ip_addresses().map(str),
    st.integers(0, 300).map(lambda number: f"10.0.{number // 256}.{number % 256}"),
    st.sampled_from(["peer", "10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1", "fe80::1%eth0", "0.0.0.0", "10.0.0.01"]),
)
NETWORKS = st.one_of(
    st.just("peer"),
    ADDRESSES.filter(lambda text: text not in ("peer", "fe80::1%eth0", "10.0.0.01")),
    st.builds(
        lambda address, bits: str(ipaddress.ip_network((address, bits), strict=False)),
        st.sampled_from(["10.0.0.0", "10.0.1.7"]),
        st.integers(0, 32),
    ),
    st.sampled_from(["::/0", "2001:db8::/32", "::ffff:0:0/96"]),
)


@given(st.lists(NETWORKS, max_size=4).map(tuple), ADDRESSES, ADDRESSES)
def test_an_address_is_allowed_as_the_standard_library_says(allowed: tuple[str, ...], address: str, peer: str) -> None:
    """Networks are compared by their bytes; the model reads each with the address."""

    def contains(network: str) -> bool:
        try:
            return ipaddress.ip_address(parse_ip(address)) in ipaddress.ip_network(network)
        except ValueError:
            return False

    expected = not allowed or any(
        address == (peer if each == "peer" else each) or (each != "peer" and contains(each)) for each in allowed
    )
    assert Grant((Verb.REGISTER,), ("*",), allowed).allows_address(address, peer) is expected


@pytest.mark.parametrize(
    ("grant", "pointer"),
    [
        (Grant(()), "$.grants[0].verbs"),
        (Grant((Verb.READ,), ()), "$.grants[0].services"),
        (Grant((Verb.READ, Verb.ADMIN), ("shop", "web*")), "$.grants[0].services"),
        (Grant((Verb.READ,), ("sh*p",)), "$.grants[0].services[0]"),
        (Grant((Verb.READ,), ("",)), "$.grants[0].services[0]"),
        (Grant((Verb.READ,), ("a b",)), "$.grants[0].services[0]"),
        (Grant((Verb.REGISTER,), ("*",), ("10.0.0.1/8",)), "$.grants[0].addresses[0]"),
        (Grant((Verb.REGISTER,), ("*",), ("pear",)), "$.grants[0].addresses[0]"),
        (Grant((Verb.READ,), tuple(f"s{number}" for number in range(201))), "$.grants[0].services"),
    ],
)
def test_grants_that_nobody_could_mean_are_refused(grant: Grant, pointer: str) -> None:
    """The place of the mistake is named."""
    with pytest.raises(InvalidError) as caught:
        check_grants([grant])
    assert caught.value.pointer == pointer


def test_networks_are_checked() -> None:
    """A network with bits of a host is a mistake."""
    check_networks(["10.0.0.0/8", "2001:db8::1"])
    with pytest.raises(InvalidError, match="host bits set"):
        check_networks(["10.0.0.1/8"])
