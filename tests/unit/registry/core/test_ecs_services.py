"""Which ECS services are asked for, what their desired counts are, and when they are an expected number."""

from collections.abc import Mapping
from typing import Any

import pytest
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from unit.registry.making import NOW, endpoint, registration

from registry.core.ecs_services import (
    CLUSTER_PAUSE,
    MAX_AGE,
    MAX_SERVICES,
    REPEAT_INTERVAL,
    EcsService,
    EcsServices,
    desired_of,
    endpoints_per_task,
)
from registry.core.ecs_tasks import Cluster
from registry.core.endpoint import Endpoint
from registry.core.presence import Presence, presence_of, tally
from registry.core.snapshot import Snapshot, SnapshotDelta

REGION = "eu-west-1"
ARN = f"arn:aws:ecs:{REGION}:111122223333:cluster/prod"
PROD = Cluster(ARN, REGION)
SHOP, CART = EcsService(ARN, "shop"), EcsService(ARN, "cart")


def of_task(number: int, task: str, service: EcsService | None = SHOP, **fields: Any) -> Endpoint:
    """Return an endpoint of a task of an ECS service; of None: of no ECS service."""
    metadata = {} if service is None else {"ecs_cluster": service.cluster, "ecs_service": service.name}
    return endpoint(number, stored=registration(task, metadata=metadata), **fields)


def presence(rows: list[Endpoint], desired: Mapping[EcsService, int], operator: int | None = None) -> Presence:
    """Return the strength of a service with these rows, listed or lost."""
    lost = [row for row in rows if row.lost_at is not None]
    return presence_of(tally(row for row in rows if row.lost_at is None), lost, operator, NOW, desired)


def lost(row: Endpoint) -> Endpoint:
    """Return the row after its loss."""
    return replace(row, lapsed_at=NOW, removed_at=NOW, lost_at=NOW)


def watching(*services: EcsService) -> EcsServices:
    """Return these ECS services, none of them asked for."""
    asked = EcsServices("")
    asked.watch(services)
    return asked


def test_the_desired_count_is_expected() -> None:
    """Four of six tasks are there; nobody else has set a number."""
    rows = [of_task(number, f"t{number}") for number in range(1, 5)]
    strength = presence(rows, {SHOP: 6})
    assert (strength.present, strength.expected, strength.source, strength.missing) == (4, 6, "ecs", 2)


def test_operators_and_registrations_come_first() -> None:
    """ECS is only used where nobody has set a number."""
    rows = [of_task(1, "t1")]
    assert presence(rows, {SHOP: 6}, operator=3).source == "operator"
    said = replace(rows[0], registration=replace(rows[0].registration, expected=2))
    assert presence([said], {SHOP: 6}).source == "registration"


def test_several_ecs_services_are_summed() -> None:
    """A service may be moved from one ECS service to another, task by task; without one of the counts none counts."""
    rows = [of_task(1, "t1"), of_task(2, "t2", CART)]
    assert presence(rows, {SHOP: 3, CART: 2}).expected == 5
    assert presence(rows, {SHOP: 3}).source == "observed"


def test_an_endpoint_of_no_ecs_service_is_not_known_to_ecs() -> None:
    """A machine beside the tasks, or an earlier registrar; a draining one does not count."""
    rows = [of_task(1, "t1"), of_task(2, "vm", None)]
    assert presence(rows, {SHOP: 6}).source == "observed"
    assert presence([rows[0], lost(rows[1])], {SHOP: 6}).source == "observed"
    assert presence([rows[0], replace(rows[1], leaving_at=NOW)], {SHOP: 6}).expected == 6


def test_the_number_outlives_the_last_endpoint() -> None:
    """When every task is lost, ECS still wants as many; one ECS service lost as a whole counts beside another."""
    assert presence([lost(of_task(1, "t1"))], {SHOP: 6}).missing == 6
    assert presence([lost(of_task(1, "t1")), of_task(2, "t2", CART)], {SHOP: 6, CART: 2}).missing == 7
    assert presence([], {SHOP: 6}) == Presence(0, 0, "observed", [])


def test_several_ports_of_a_task_are_several_endpoints() -> None:
    """Most tasks decide; a task that has lost a port is missed with it."""
    rows = [of_task(1, "t1"), of_task(2, "t1"), of_task(3, "t2"), of_task(4, "t2"), of_task(5, "t3")]
    assert endpoints_per_task(rows) == {SHOP: 2}
    assert presence(rows, {SHOP: 3}).missing == 1
    assert endpoints_per_task(rows[2:]) == {SHOP: 2}
    named = registration("mine", metadata={"ecs_cluster": ARN, "ecs_service": "shop", "ecs_task": "t9"})
    assert endpoints_per_task([endpoint(1, stored=named), of_task(2, "t9")]) == {SHOP: 2}


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from([SHOP, CART, None]), st.booleans()), max_size=8))
@examples(200)
def test_ecs_counts_exactly_where_it_knows_every_endpoint(rows: list[tuple[int, EcsService | None, bool]]) -> None:
    """Whatever is listed and lost; without counts the number is the one of before."""
    made = [of_task(number, f"t{task}", service) for number, (task, service, _) in enumerate(rows, start=1)]
    made = [lost(row) if gone else row for row, (_, _, gone) in zip(made, rows, strict=True)]
    strength = presence(made, {SHOP: 2, CART: 3})
    assert (strength.source == "ecs") == (bool(rows) and all(service is not None for _, service, _ in rows))
    assert presence(made, {}).source == "observed"


@pytest.mark.parametrize(
    ("answer", "desired"),
    [
        ({"status": "ACTIVE", "desiredCount": 6}, 6),
        ({"status": "ACTIVE", "desiredCount": 0}, None),
        ({"status": "DRAINING", "desiredCount": 6}, None),
        ({"status": "INACTIVE", "desiredCount": 6}, None),
        ({"status": "ACTIVE", "desiredCount": "6"}, None),
        ({"status": "ACTIVE"}, None),
        ({}, None),
    ],
)
def test_an_active_service_that_is_not_scaled_to_nothing_counts(answer: dict[str, Any], desired: int | None) -> None:
    """Everything else says nothing."""
    assert desired_of(answer) == desired


@pytest.mark.parametrize(
    "service",
    [
        EcsService(ARN, ""),
        EcsService(ARN, "shop/x"),
        EcsService(ARN, "s" * 256),
        EcsService("prod", "shop"),
        EcsService(ARN.replace("eu-west-1", "evil.example.com"), "shop"),
    ],
)
def test_what_is_no_name_of_ecs_is_not_asked_for(service: EcsService) -> None:
    """Registrars send these texts: they must not choose a host; a short cluster needs the region of the process."""
    assert watching(service).watched == 0
    by_default = EcsServices(REGION)
    by_default.watch([EcsService("prod", "shop")])
    assert by_default.next_request(0.0) == (Cluster("prod", REGION), [EcsService("prod", "shop")])


def test_each_service_is_asked_for_once_in_the_interval() -> None:
    """Ten of a cluster make one request."""
    services = [EcsService(ARN, f"s{number:02}") for number in range(12)]
    asked = watching(*services)
    assert asked.next_request(0.0) == (PROD, services[:MAX_SERVICES])
    asked.answered(services[:MAX_SERVICES], {}, 0.0)
    assert asked.next_request(1.0) == (PROD, services[MAX_SERVICES:])
    asked.answered(services[MAX_SERVICES:], {}, 1.0)
    assert asked.next_request(REPEAT_INTERVAL - 1) is None
    assert asked.next_request(REPEAT_INTERVAL) == (PROD, services[:MAX_SERVICES])


def test_an_answer_counts_until_it_is_too_old() -> None:
    """Errors leave it; an answer without the service ends it at once, and so does the end of its endpoints."""
    asked = watching(SHOP, CART)
    asked.answered([SHOP, CART], {"shop": 6, "cart": 2}, 0.0)
    asked.failed(PROD, [SHOP, CART], "ThrottlingException", REPEAT_INTERVAL)
    assert asked.desired(MAX_AGE) == {SHOP: 6, CART: 2}
    assert asked.desired(MAX_AGE + 1) == {}
    asked.answered([SHOP], {}, 70.0)
    assert asked.desired(71.0) == {CART: 2}
    asked.watch([SHOP])
    assert asked.desired(71.0) == {}


def test_a_service_without_the_right_fails_alone() -> None:
    """The request for both failed; one by one, the other answers, and is asked for with others again."""
    asked = watching(SHOP, CART)
    assert not asked.failed(PROD, [CART, SHOP], "AccessDeniedException", 0.0)
    assert asked.next_request(CLUSTER_PAUSE - 1) is None
    assert asked.next_request(CLUSTER_PAUSE) == (PROD, [CART])
    assert asked.failed(PROD, [CART], "AccessDenied\nException", CLUSTER_PAUSE)
    assert asked.next_request(2 * CLUSTER_PAUSE) == (PROD, [SHOP])
    asked.answered([SHOP], {"shop": 6}, 2 * CLUSTER_PAUSE)
    assert asked.desired(2 * CLUSTER_PAUSE) == {SHOP: 6}
    [failure] = asked.failures
    assert (failure.cluster, failure.reason) == (Cluster("prod/cart", REGION), "AccessDenied Exception")
    again = 2 * CLUSTER_PAUSE + REPEAT_INTERVAL
    assert asked.next_request(again) == (PROD, [SHOP])
    assert not asked.failed(PROD, [CART], "AccessDenied Exception", again)
    asked.answered([CART], {"cart": 1}, again)
    assert asked.failures == []


def test_a_cluster_that_fails_delays_no_other() -> None:
    """Its services wait alone."""
    other = EcsService(ARN.replace("prod", "test"), "shop")
    asked = watching(SHOP, other)
    assert asked.next_request(0.0) == (PROD, [SHOP])
    asked.failed(PROD, [SHOP], "ClusterNotFoundException", 0.0)
    assert asked.next_request(0.0) == (Cluster(other.cluster, REGION), [other])


def test_services_with_a_number_are_not_asked_for() -> None:
    """An operator's number needs no question to ECS; lost endpoints still do."""
    listed = [of_task(1, "t1"), of_task(2, "t2", CART)]

    def missed(**fields: Any) -> set[EcsService]:
        delta = SnapshotDelta("shop", 1, 1, whole=True, **fields)
        return set(Snapshot("shop").advance(delta).missed_ecs_services(NOW))

    assert missed(listed=listed) == {SHOP, CART}
    assert missed(listed=listed[:1], lost=[lost(listed[1])]) == {SHOP, CART}
    assert missed(listed=listed, expected=3) == set()
    assert missed(listed=[*listed, of_task(3, "vm", None)]) == set()
