"""Renewals that are decided by what is remembered: a lease is renewed exactly if the decision allows it now."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any, cast

import pytest
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from unit.registry.making import endpoint, registration

from registry.auth.decision import Refusal, Request, decide
from registry.auth.grants import Grant
from registry.auth.policy import Mode, Policy
from registry.auth.principal import Principal
from registry.auth.subject import ANONYMOUS, Subject, rejected, undetermined
from registry.auth.verbs import Verb
from registry.cache.heartbeat_cache import HeartbeatCache
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.abilities import Abilities
from registry.core.endpoint import Endpoint
from registry.core.probe_requests import ProbeRequests
from registry.core.snapshot import SnapshotDelta
from registry.http.v1.heartbeats import read_batch, read_single
from registry.settings import load_settings
from registry.usecases.heartbeat import Heartbeats
from registry.usecases.registration import Registrations

SERVICES = ("shop", "web")
INSTANCES = ("a/t1", "a/t2")
OWNER = "token:ci"

grants = st.builds(
    Grant,
    st.sampled_from([(Verb.REGISTER,), (Verb.REGISTER, Verb.DISCOVER), (Verb.DISCOVER,)]),
    st.sampled_from([("shop",), ("sh*",), ("*",), ("web", "shop")]),
    st.sampled_from([(), ("peer",), ("10.0.0.0/31",), ("10.0.0.2",)]),
    st.sampled_from(["any", "session"]),
)
subjects = st.one_of(
    st.builds(
        lambda held, session: Subject(OWNER, "machine", held, owner=OWNER, session_name=session),
        st.lists(grants, max_size=2),
        st.sampled_from(["", "t1", "t2"]),
    ),
    st.sampled_from([ANONYMOUS, rejected("the token ci was revoked"), undetermined()]),
)
principals = st.builds(
    lambda subject, address: Principal(address, subject=subject), subjects, st.sampled_from(["10.0.0.2", "10.0.0.3"])
)
heartbeats_of = st.lists(
    st.tuples(st.sampled_from(SERVICES), st.sampled_from([1, 2]), st.sampled_from(INSTANCES)), min_size=1, max_size=3
)
steps = st.lists(
    st.tuples(st.sampled_from([0, 0, 1, 2]), heartbeats_of, st.booleans(), st.booleans()), min_size=1, max_size=25
)
"""The number of the sender, what it renews, whether in one batch, and whether the endpoint changes before."""


class Leases(Registrations):
    """Registrations whose leases are renewed in memory."""

    renewed: Sequence[Endpoint] = ()

    def renew(self, endpoints: Sequence[Endpoint]) -> "asyncio.Future[list[bool]]":
        """Keep what is to be renewed."""
        self.renewed = endpoints
        return cast("asyncio.Future[list[bool]]", object())


class Rig:
    """The heartbeats of one process, with a policy that notes what it refuses, and endpoints of one owner."""

    def __init__(self, mode: Mode, policy: type[Policy] = Policy) -> None:
        self.noted: list[Refusal] = []
        judge = policy(mode, (), lambda _principal, refusal, _enforced: self.noted.append(refusal))
        self.cache = SnapshotCache()
        unused: Any = None
        self.leases = Leases(judge, unused, self.cache, unused, Abilities(20.0), unused, unused)
        self.heartbeats = Heartbeats(
            judge,
            self.leases,
            self.cache,
            HeartbeatCache(self.cache),
            HeartbeatCache(self.cache),
            load_settings(),
            ProbeRequests(),
        )
        self.change = 0
        self.cache.mark_ready(0.0)

    def add(self, service: str, number: int, instance_id: str) -> None:
        """List an endpoint of this instance, as the next change of its service."""
        self.change += 1
        listed = endpoint(
            SERVICES.index(service) * 10 + number,
            service,
            registration(instance_id),
            address=f"10.0.0.{number + 1}",
            owner=OWNER,
            change=self.change,
        )
        self.cache.apply([SnapshotDelta(service, self.change, self.change, listed=[listed])])

    def send(self, principal: Principal, sent: Sequence[tuple[str, int, str]], *, batch: bool) -> list[bool]:
        """Send heartbeats; return whether the lease of each was renewed."""
        said = [(service, f"10.0.0.{number + 1}:80", state_of(instance)) for service, number, instance in sent]
        if batch:
            listed = [{"service": service, "endpoint": name, "registration": state} for service, name, state in said]
            return self._renew(
                read_batch(self.heartbeats, principal, json.dumps({"heartbeats": listed}).encode()), sent
            )
        outcomes: list[bool] = []
        for (service, name, state), each in zip(said, sent, strict=True):
            url = f"/v1/services/{service}/endpoints/{name}".encode()
            request = read_single(self.heartbeats, principal, url, json.dumps(state).encode())
            outcomes += self._renew(request, [each])
        return outcomes

    def _renew(self, request: Any, sent: Sequence[object]) -> list[bool]:
        self.leases.renewed = ()
        begun = request.renew() is not None
        assert len(self.leases.renewed) == (len(sent) if begun else 0)
        return [begun] * len(sent)


def state_of(instance_id: str) -> dict[str, Any]:
    """Return what a heartbeat of an instance says."""
    return {"instance_id": instance_id, "incarnation": 1, "ttl": 20.0}


def refusals_of(principal: Principal, sent: Sequence[tuple[str, int, str]]) -> list[bool]:
    """Return for each heartbeat whether the decision refuses it."""
    asked = [Request(Verb.REGISTER, service, f"10.0.0.{number + 1}:80", instance) for service, number, instance in sent]
    return [decide(principal.subject, principal.address, request) is not None for request in asked]


@given(st.lists(principals, min_size=3, max_size=3), steps)
@examples(300)
def test_a_lease_is_renewed_exactly_if_the_decision_allows_it(senders: list[Principal], steps: list[Any]) -> None:
    """Whoever has sent the same words before, from wherever; also in a batch, and after the endpoint has changed."""
    rig = Rig("on")
    holders: dict[tuple[str, int], str] = {}
    for number, sent, batch, changes in steps:
        for service, port, instance in sent:
            if changes or (service, port) not in holders:
                holders[service, port] = instance
                rig.add(service, port, instance)
        refused = refusals_of(senders[number], sent)
        new = [holders[service, port] != instance for service, port, instance in sent]
        renewed = rig.send(senders[number], sent, batch=batch)
        expected = [not (refuses or says) for refuses, says in zip(refused, new, strict=True)]
        assert renewed == ([all(expected)] * len(sent) if batch else expected)
    assert not rig.noted, "what is refused is registered, which notes it"


@given(st.lists(principals, min_size=3, max_size=3), steps)
@examples(100)
def test_audit_notes_each_heartbeat_that_would_be_refused(senders: list[Principal], steps: list[Any]) -> None:
    """However often the same words came before: the console counts what `on` would refuse."""
    rig = Rig("audit")
    for number, sent, batch, _ in steps:
        for service, port, instance in sent:
            rig.add(service, port, instance)
        each = list({(service, port): (service, port, instance) for service, port, instance in sent}.values())
        for again in range(2):
            rig.noted.clear()
            assert all(rig.send(senders[number], each, batch=batch)), again
            noted = [refusal for refusal in rig.noted if refusal.cause != "owned"]
            assert len(noted) == sum(refusals_of(senders[number], each))


def sender(address: str = "10.0.0.2", session: str = "t1", problem: str = "", **bounds: Any) -> Principal:
    """Return a sender that may register, within these bounds."""
    grant = Grant((Verb.REGISTER,), **bounds)
    subject = Subject(OWNER, "machine", [grant], owner=OWNER, session_name=session, problem=problem)
    return Principal(address, subject=subject)


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize(
    ("allowed", "refused"),
    [
        (sender(), sender(services=("web",))),
        (sender(instance="session"), sender(instance="session", session="t2")),
        (sender(addresses=("peer",)), sender(addresses=("peer",), address="10.0.0.3")),
        (sender(), sender(problem="the token ci was revoked")),
        (sender(), Principal("10.0.0.2")),
    ],
)
def test_what_one_sender_may_renew_is_decided_anew_for_another(
    allowed: Principal, refused: Principal, batch: bool
) -> None:
    """Each fact that a decision depends on makes another sender, however often the words came before."""
    rig = Rig("on")
    rig.add("shop", 1, "a/t1")
    sent = [("shop", 1, "a/t1")]
    outcomes = [rig.send(who, sent, batch=batch) for who in (allowed, allowed, refused, refused, allowed)]
    assert outcomes == [[True], [True], [False], [False], [True]]


@pytest.mark.parametrize("mode", ["on", "audit"])
@pytest.mark.parametrize("batch", [False, True])
def test_a_heartbeat_that_repeats_itself_is_decided_once(batch: bool, mode: Mode) -> None:
    """Also over another connection, and with the next session of the same sender."""
    decisions = []

    class Counting(Policy):
        def refusal(self, principal: Principal, *asked: Any) -> Refusal | None:
            decisions.append(asked)
            return super().refusal(principal, *asked)

    rig = Rig(mode, Counting)
    rig.add("shop", 1, "a/t1")
    sent = [("shop", 1, "a/t1")]
    assert rig.send(sender(), sent, batch=batch) == [True]
    assert decisions
    decisions.clear()
    assert rig.send(sender(), sent, batch=batch) == [True]
    assert not decisions


@pytest.mark.parametrize("batch", [False, True])
def test_a_heartbeat_that_would_be_refused_is_not_read_again(batch: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has credentials when audit begins: what is noted each time is decoded once."""
    rig = Rig("audit")
    rig.add("shop", 1, "a/t1")
    sent = [("shop", 1, "a/t1")]
    assert rig.send(sender(services=("web",)), sent, batch=batch) == [True]
    monkeypatch.setattr(rig.heartbeats, "unchanged", None)
    assert rig.send(sender(services=("web",)), sent, batch=batch) == [True]
    assert [refusal.cause for refusal in rig.noted] == ["forbidden"] * 2
