"""The modes of access: `audit` refuses nothing and names exactly what `on` refuses."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.auth.decision import Held, Refusal
from registry.auth.grants import Grant
from registry.auth.policy import Mode, Policy
from registry.auth.principal import Principal
from registry.auth.subject import Subject, rejected, undetermined
from registry.auth.verbs import Verb
from registry.errors import NotOwnerError, RegistryError

Noted = list[tuple[Refusal, bool]]
"""What a policy has told its observer: refusals, and whether each was enforced."""

services = st.sampled_from(["shop", "shop-1", "web", ""])
grants = st.builds(
    Grant,
    st.lists(st.sampled_from(Verb), min_size=1, max_size=3).map(tuple),
    st.lists(st.sampled_from(["shop", "shop*", "web", "*"]), min_size=1, max_size=2).map(tuple),
    st.sampled_from([(), ("peer",), ("10.0.0.0/24",), ("10.0.1.7",)]),
    st.sampled_from(["any", "session"]),
)
subjects = st.one_of(
    st.builds(
        lambda held, session: Subject("token:ci", "machine", held, owner="token:ci", session_name=session),
        st.lists(grants, max_size=4),
        st.sampled_from(["", "t1"]),
    ),
    st.sampled_from([Subject(), rejected("the token ci was revoked"), undetermined()]),
)
principals = st.builds(lambda subject, address: Principal(address, subject=subject), subjects, st.just("10.0.0.7"))
questions = st.tuples(
    st.sampled_from([verb for verb in Verb if verb is not Verb.ADMIN]),
    services,
    st.sampled_from(["", "10.0.0.7:80", "10.0.1.7:80", "10.0.9.9:80"]),
    st.sampled_from([None, "a/t1", "t1", "other"]),
)


def note(noted: Noted, _principal: Principal, refusal: Refusal, enforced: bool) -> None:
    """Note what a policy tells its observer."""
    noted.append((refusal, enforced))


def asked(
    mode: Mode, verbs: list[Verb], principal: Principal, questions: list[tuple[Verb, str, str, str | None]]
) -> tuple[list[bool], Noted]:
    """Return which of some questions a policy allows, and what it noted."""
    noted: Noted = []
    policy = Policy(mode, verbs, partial(note, noted))
    allowed = []
    for verb, service, endpoint, instance in questions:
        try:
            policy.allow(principal, verb, service, endpoint, instance)
        except RegistryError:
            allowed.append(False)
        else:
            allowed.append(True)
    return allowed, noted


@given(principals, st.lists(questions, max_size=20))
def test_audit_refuses_nothing_and_names_what_on_refuses(
    principal: Principal, questions: list[tuple[Verb, str, str, str | None]]
) -> None:
    """The refusals of both modes are the same, in the same order; in one they are enforced, in the other not."""
    enforced, refused = asked("on", [], principal, questions)
    noted, would_refuse = asked("audit", [], principal, questions)
    assert all(noted)
    assert [refusal for refusal, _ in would_refuse] == [refusal for refusal, _ in refused]
    assert [each for _, each in would_refuse] == [False] * len(would_refuse)
    assert enforced.count(False) == len(refused)
    allowed, silent = asked("off", [], principal, questions)
    assert (all(allowed), silent) == (True, [])


@given(principals, st.lists(questions, max_size=20), st.lists(st.sampled_from(Verb), max_size=4))
def test_verbs_that_wait_are_noted_and_the_others_are_refused(
    principal: Principal, questions: list[tuple[Verb, str, str, str | None]], waiting: list[Verb]
) -> None:
    """With REGISTRY_AUTH_AUDIT_VERBS each refusal is enforced unless its verb waits; none is lost."""
    _, refused = asked("on", [], principal, questions)
    _, mixed = asked("on", waiting, principal, questions)
    assert [refusal for refusal, _ in mixed] == [refusal for refusal, _ in refused]
    assert all(enforced == (refusal.request.verb not in waiting) for refusal, enforced in mixed)


@given(
    principals,
    services,
    st.sampled_from(["", "token:ci", "token:other"]),
    st.booleans(),
    st.sampled_from([None, "a/t2", "thief"]),
)
def test_owners_are_checked_alike(
    principal: Principal, service: str, owner: str, lapsed: bool, instance_id: str | None
) -> None:
    """An endpoint of another owner is refused where access is on, noted in `audit`, and nothing where it is off."""
    outcomes: dict[Mode, tuple[bool, int]] = {}
    modes: tuple[Mode, ...] = ("on", "audit", "off")
    for mode in modes:
        noted: Noted = []
        policy = Policy(mode, (), partial(note, noted))
        try:
            held = Held(service, "10.0.1.7:80", "10.0.1.7", "a/t2", owner, not lapsed)
            policy.check_owner(principal, held, service, instance_id)
        except RegistryError:
            outcomes[mode] = (False, len(noted))
        else:
            outcomes[mode] = (True, len(noted))
    refused = 0 if outcomes["on"][0] else 1
    assert outcomes == {"on": (not refused, refused), "audit": (True, refused), "off": (True, 0)}


@pytest.mark.parametrize(
    ("address", "instance_id", "alive", "allowed"),
    [
        ("10.0.1.7", "i-1", True, True),
        ("10.0.1.7", "thief", True, False),
        ("10.0.1.7", None, True, False),
        ("10.0.1.7", "thief", False, True),
        ("10.0.0.7", "thief", True, True),
    ],
)
def test_an_endpoint_without_an_owner_is_left_to_its_instance(
    address: str, instance_id: str | None, alive: bool, allowed: bool
) -> None:
    """Nobody else takes it between the moment that access is introduced and its registrar's next heartbeat."""
    subject = Subject("token:ci", "machine", owner="token:ci")
    held = Held("shop", f"{address}:80", address, "i-1", "", alive)
    try:
        Policy("on").check_owner(Principal("10.0.0.7", subject=subject), held, "shop", instance_id)
    except NotOwnerError:
        assert not allowed
    else:
        assert allowed


def test_loopback_proves_nothing_to_another_service() -> None:
    """One's own address may be taken from any service; loopback, which all programs have, from the same one alone."""
    subject = Subject("token:ci", "machine", owner="token:ci")
    outcomes = {}
    for address in ("10.0.0.7", "127.0.0.1", "::1"):
        held = Held("shop", "x", address, "i-1", "token:other", alive=True)
        for service in ("shop", "web"):
            try:
                Policy("on").check_owner(Principal(address, subject=subject), held, service, "i-2")
            except NotOwnerError:
                outcomes[address, service] = False
            else:
                outcomes[address, service] = True
    refused = {question for question, allowed in outcomes.items() if not allowed}
    assert refused == {("127.0.0.1", "web"), ("::1", "web")}


@given(principals, st.lists(services, max_size=6))
def test_lists_show_what_may_be_read(principal: Principal, names: list[str]) -> None:
    """A list has a service exactly if its own page would be shown; in `audit` and `off` it has all."""
    policy = Policy("on")
    known = [name for name in names if name]
    listed = list(policy.readable(principal, known))
    assert listed == [name for name in known if policy.can(principal, Verb.READ, name)]
    assert [name for name in known if policy.reach(principal, Verb.READ).covers(name)] == listed
    modes: tuple[Mode, ...] = ("audit", "off")
    for mode in modes:
        assert list(Policy(mode).readable(principal, known)) == known
