"""Which registrars are asked to probe which endpoints of their service, and when."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from unit.registry.making import NOW, endpoint, registration

from registry.core.endpoint import Endpoint
from registry.core.probe_requests import MIN_INTERVAL, PROBERS, REPEAT_INTERVAL, ProbeRequests, assign
from wire.probe_request import MAX_BASE_LINES, MAX_SUSPECTS, ProbeSuspect


def member(number: int, *, prober: bool = True, incarnation: int = 1, **fields: Any) -> Endpoint:
    """Return an endpoint whose registrar may be asked."""
    metadata = {"prober": "on"} if prober else {}
    stored = registration(f"i-{number}", incarnation, metadata=metadata)
    return endpoint(number, stored=stored, **fields)


def silent(number: int, **fields: Any) -> Endpoint:
    """Return a suspect."""
    return member(number, suspect_since=NOW, **fields)


def choose(suspect: Endpoint, own_address: str) -> Sequence[str]:
    """Choose two controls, whatever the suspect."""
    return ["10.9.9.1:80", "10.9.9.2:80"]


def asked(requests: ProbeRequests) -> dict[str, list[str]]:
    """Return the suspects by the address of the prober that is to be asked for them."""
    return {key[1]: [each.endpoint for each in request.suspects] for key, request in requests.pending.items()}


@given(st.sets(st.integers(1, 120), max_size=60), st.sets(st.integers(1, 120), max_size=60))
def test_every_endpoint_has_its_probers_on_other_hosts(targets: set[int], probers: set[int]) -> None:
    """Up to five of them, each on a host of its own, and as many as there are if there are fewer."""
    assigned = assign(map(member, targets), map(member, probers))
    counts = Counter(target.id for listed in assigned.values() for target in listed)
    for target in targets:
        assert counts[target] == min(PROBERS, len(probers - {target}))
    for (_, address, _), listed in assigned.items():
        assert address not in {target.address for target in listed}
        assert len({target.id for target in listed}) == len(listed)


@given(st.sets(st.integers(1, 80), min_size=2, max_size=40), st.data())
def test_an_endpoint_that_goes_changes_few_others(numbers: set[int], data: st.DataObject) -> None:
    """Its place is taken by the next on the ring; all else stays, and so do the base lines."""
    gone = data.draw(st.sampled_from(sorted(numbers)))
    rest = numbers - {gone}
    before = assign(map(member, rest), map(member, numbers))
    after = assign(map(member, rest), map(member, rest))
    for key, listed in after.items():
        lost = {target.id for target in before.get(key, [])} - {target.id for target in listed}
        assert lost == set()
    pairs = sum(map(len, after.values())) - sum(len(listed) for key, listed in before.items() if key in after)
    assert 0 <= pairs <= len(before.get(member(gone).key, []))


def test_forty_percent_that_fall_silent_leave_a_prober_to_nearly_each() -> None:
    """Every prober that is left has had the suspects on its base line before."""
    everybody = [member(number) for number in range(1, 101)]
    base_lines = {key: {target.id for target in listed} for key, listed in assign(everybody, everybody).items()}
    requests = ProbeRequests()
    listed = [silent(number) if number <= 40 else member(number) for number in range(1, 101)]
    requests.plan_suspects("shop", listed, choose)
    by_name = {each.name: each.id for each in listed}
    alive = {each.address: each.key for each in listed if each.alive}
    named = asked(requests)
    assert named.keys() <= alive.keys()
    for address, suspects in named.items():
        assert {by_name[name] for name in suspects} <= base_lines[alive[address]]
        assert len(suspects) <= MAX_SUSPECTS
    assert len({name for suspects in named.values() for name in suspects}) >= 38


def test_base_lines_are_asked_for_once_in_a_while() -> None:
    """The next heartbeat takes the request along; an endpoint that changes is asked for sooner."""
    requests = ProbeRequests()
    listed = [member(1), member(2), member(3, prober=False)]
    requests.plan_base_lines("shop", listed, 0.0)
    first = requests.take(listed[0].key, 0.0)
    assert first is not None
    assert sorted(target.endpoint for target in first.base_lines) == [listed[1].name, listed[2].name]
    assert requests.take(listed[0].key, 0.0) is None
    assert requests.take(listed[2].key, 0.0) is None
    requests.plan_base_lines("shop", listed, REPEAT_INTERVAL - 1)
    assert listed[0].key not in requests.pending
    changed = [listed[0], member(2, incarnation=2), listed[2]]
    requests.plan_base_lines("shop", changed, MIN_INTERVAL - 1)
    assert listed[0].key not in requests.pending
    requests.plan_base_lines("shop", changed, MIN_INTERVAL)
    again = requests.take(listed[0].key, MIN_INTERVAL)
    assert again is not None
    assert {target.incarnation for target in again.base_lines} == {1, 2}
    requests.plan_base_lines("shop", changed, MIN_INTERVAL + REPEAT_INTERVAL)
    assert requests.take(listed[0].key, MIN_INTERVAL + REPEAT_INTERVAL) is not None


def test_a_request_is_bounded() -> None:
    """One registrar of a large service is not asked for all of it."""
    requests = ProbeRequests()
    listed = [member(number, prober=number == 1) for number in range(1, 200)]
    requests.plan_base_lines("shop", listed, 0.0)
    request = requests.take(listed[0].key, 0.0)
    assert request is not None
    assert len(request.base_lines) == MAX_BASE_LINES
    requests.plan_suspects("shop", [listed[0], *(silent(number, prober=False) for number in range(2, 200))], choose)
    request = requests.take(listed[0].key, 0.0)
    assert request is not None
    assert len(request.suspects) == MAX_SUSPECTS


def test_suspects_come_first_and_leave_when_they_are_none() -> None:
    """What no heartbeat has taken along is dropped; the base line is asked for later."""
    requests = ProbeRequests()
    requests.plan_base_lines("shop", [member(1), member(2)], 0.0)
    requests.plan_suspects("shop", [member(1), silent(2)], choose)
    request = requests.take(member(1).key, 0.0)
    assert request is not None
    assert request.suspects == [ProbeSuspect(member(2).name, 1, ("10.9.9.1:80", "10.9.9.2:80"))]
    assert request.base_lines == []
    requests.plan_suspects("shop", [member(1), silent(2)], choose)
    assert requests.services_with_suspects == ["shop"]
    requests.clear_suspects("shop")
    assert member(1).key not in requests.pending
    requests.plan_base_lines("shop", [member(1), member(2)], 1.0)
    assert requests.take(member(1).key, 1.0) is not None


def test_nobody_is_asked_who_did_not_say_yes_or_for_whom_says_no() -> None:
    """`prober: on` is a registrar's yes, and `probe: false` a server's no; a suspect's own registrar is not asked."""
    requests = ProbeRequests()
    closed = replace(silent(3), registration=registration("i-3", metadata={"probe": False}))
    requests.plan_suspects("shop", [member(1, prober=False), silent(2), closed], choose)
    requests.plan_base_lines("shop", [member(1, prober=False), silent(2), closed], 0.0)
    assert [key for key in requests.pending if requests.pending[key].suspects] == []
    odd = replace(member(1), registration=registration("i-1", metadata={"prober": True}))
    requests.plan_base_lines("shop", [odd, member(2, prober=False)], 0.0)
    assert odd.key not in requests.pending


def test_what_is_gone_is_forgotten() -> None:
    """Probers and services that are not listed any more leave nothing behind."""
    requests = ProbeRequests()
    requests.plan_base_lines("shop", [member(1), member(2)], 0.0)
    requests.take(member(1).key, 0.0)
    requests.plan_suspects("shop", [member(1), silent(2)], choose)
    requests.keep_services([])
    assert (requests.pending, requests._probers, requests._offered, requests._asked_for_suspects) == ({}, {}, {}, {})
