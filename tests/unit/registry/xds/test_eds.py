"""Assignments as Envoy accepts them, in JSON."""

import json
from typing import Any

from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from unit.registry.making import endpoint, registration, snapshot

from registry.core.endpoint import Endpoint, Override
from registry.core.snapshot import Snapshot, SnapshotDelta
from registry.xds.discovery_response import DiscoveryResponse, encode_response
from registry.xds.eds import TYPE_URL, Assignment, fragment, resource
from registry.xds.resources import ENDPOINTS, Api, RestPath
from wire.model import Registration, Report

texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=6)
metadata = st.dictionaries(
    texts | st.sampled_from(["canary", "revision", "instance_id"]),
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(-1e9, 1e9)
    | texts
    | st.lists(st.integers(0, 9), max_size=2),
    max_size=4,
)
stored = st.builds(
    registration,
    texts.filter(bool),
    health=st.sampled_from(Report),
    draining=st.booleans(),
    region=st.sampled_from(["", "eu", 'a"b']),
    zone=st.sampled_from(["", "eu-1", "ü"]),
    weight=st.none() | st.integers(1, 10_000),
    canary=st.booleans(),
    revision=texts,
    metadata=metadata,
)
weights = st.none() | st.builds(
    Override, st.none() | st.integers(1, 10_000), st.booleans(), texts, texts, st.just(0.0), st.none()
)
populations = st.lists(st.tuples(stored, weights), max_size=8).map(
    lambda pairs: [
        endpoint(number, stored=stored, override=override) for number, (stored, override) in enumerate(pairs, 1)
    ]
)


def answer(api: Api, content: Snapshot, database_id: str) -> DiscoveryResponse:
    """Return the response to a request for this service alone."""
    return Assignment(content.version, content, database_id).response(RestPath(ENDPOINTS, api))


def parsed(content: Snapshot) -> dict[str, Any]:
    """Return the assignment as an Envoy reads it."""
    assignment: dict[str, Any] = json.loads(resource("v3", content))
    return assignment


@examples(100)
@given(populations)
def test_every_endpoint_is_in_the_assignment_once(rows: list[Endpoint]) -> None:
    """With its address, status and weight, in the one entry of its locality."""
    assignment = parsed(snapshot(*rows))
    assert (assignment["@type"], assignment["cluster_name"]) == (TYPE_URL["v3"], "shop")
    localities = assignment["endpoints"]
    places = [(entry["locality"].get("region", ""), entry["locality"].get("zone", "")) for entry in localities]
    assert len(set(places)) == len(places)
    assert set(places) == {(entry.registration.region, entry.registration.zone) for entry in rows}
    members = {
        member["endpoint"]["address"]["socket_address"]["address"]: (place, member)
        for place, locality in zip(places, localities, strict=True)
        for member in locality["lb_endpoints"]
    }
    assert sum(len(entry["lb_endpoints"]) for entry in localities) == len(rows) == len(members)
    for entry in rows:
        place, member = members[entry.address]
        assert place == (entry.registration.region, entry.registration.zone)
        assert member["endpoint"]["address"]["socket_address"]["port_value"] == entry.port
        assert member["health_status"] == entry.status.value
        assert member.get("load_balancing_weight") == entry.weight


@examples(100)
@given(populations)
def test_weights_add_up(rows: list[Endpoint]) -> None:
    """A locality weighs what its endpoints weigh, one without a weight counts as 1, and nothing weighs 0."""
    for locality in parsed(snapshot(*rows))["endpoints"]:
        weights = [member.get("load_balancing_weight", 1) for member in locality["lb_endpoints"]]
        assert all(weight >= 1 for weight in weights)
        assert locality["load_balancing_weight"] == sum(weights)
        assert "priority" not in locality


@examples(100)
@given(populations)
def test_subset_metadata_is_flat(rows: list[Endpoint]) -> None:
    """Scalars reach Envoy's subset load balancer, what is nested or null does not, and three keys are ours."""
    members = {
        member["endpoint"]["address"]["socket_address"]["address"]: member["metadata"]["filter_metadata"]["envoy.lb"]
        for locality in parsed(snapshot(*rows))["endpoints"]
        for member in locality["lb_endpoints"]
    }
    for row in rows:
        reg = row.registration
        own = {"canary": reg.canary, "revision": reg.revision, "instance_id": reg.instance_id}
        free = {key: value for key, value in reg.metadata.items() if not isinstance(value, list | dict | None)}
        assert members[row.address] == free | own


@examples(60)
@given(populations, st.randoms())
def test_the_bytes_do_not_depend_on_the_order_of_arrival(rows: list[Endpoint], random: Any) -> None:
    """Equal versions are equal bytes in every process."""
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert resource("v3", snapshot(*rows)) == resource("v3", snapshot(*shuffled))


@examples(60)
@given(populations)
def test_v2_and_v3_differ_in_their_type_alone(rows: list[Endpoint]) -> None:
    """The rest is encoded once for both."""
    both = snapshot(*rows)
    v2, v3 = resource("v2", both), resource("v3", both)
    assert v2.replace(TYPE_URL["v2"].encode(), TYPE_URL["v3"].encode(), 1) == v3


def test_a_snapshot_is_encoded_once() -> None:
    """A poll is answered with bytes that are there."""
    once = snapshot(endpoint(1))
    assert answer("v3", once, "database") is answer("v3", once, "database")


def test_an_answer_is_of_one_database() -> None:
    """Another database's version of the same number is not mixed up with it."""
    once = snapshot(endpoint(1))
    assert answer("v3", once, "one").version_info == "one:1"
    assert answer("v3", once, "other").version_info == "other:1"
    assert json.loads(answer("v3", once, "other").body)["version_info"] == "other:1"


def test_what_changed_is_encoded_anew() -> None:
    """The others keep their bytes, and their place."""
    before = snapshot(endpoint(1), endpoint(2))
    first = answer("v3", before, "database").body
    changed = replace(endpoint(1), registration=registration("i-1", health=Report.UNHEALTHY))
    second = answer("v3", before.advance(SnapshotDelta("shop", 2, 2, listed=[changed])), "database").body
    as_before = first.replace(b"database:1", b"database:2").replace(b"HEALTHY", b"UNHEALTHY", 1)
    assert second == as_before


def test_the_answer_to_one_name_is_a_response_of_one() -> None:
    """Made in one piece, and the same bytes."""
    shop = snapshot(endpoint(1), endpoint(2), version=7)
    assert answer("v2", shop, "database").body == encode_response(TYPE_URL["v2"], "database:7", [resource("v2", shop)])


def test_nobody_is_an_empty_assignment() -> None:
    """A service that is known and has no endpoint says so."""
    assert parsed(snapshot(version=3)) == {"@type": TYPE_URL["v3"], "cluster_name": "shop", "endpoints": []}


def test_an_ipv6_address_stands_without_brackets() -> None:
    """They belong to its text with a port."""
    row = replace(endpoint(1), address="2001:db8::5")
    (locality,) = parsed(snapshot(row))["endpoints"]
    assert locality["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["address"] == "2001:db8::5"


def test_a_response_carries_its_resources() -> None:
    """Version and type beside them, and nothing at all for what is not known."""
    body = encode_response(
        TYPE_URL["v2"], '7"x', [resource("v2", snapshot(endpoint(1))), resource("v2", snapshot(service="cart"))]
    )
    answer = json.loads(body)
    assert (answer["version_info"], answer["type_url"]) == ('7"x', TYPE_URL["v2"])
    assert [assignment["cluster_name"] for assignment in answer["resources"]] == ["shop", "cart"]
    assert json.loads(encode_response(TYPE_URL["v3"], "7", []))["resources"] == []


@examples(100)
@given(stored, stored)
def test_what_is_not_visible_changes_no_byte(shown: Registration, other: Registration) -> None:
    """A version may stand exactly while an endpoint's fragment and locality do."""
    first, second = endpoint(1, stored=shown), endpoint(1, stored=other)
    if first.visible == second.visible:
        assert fragment(first) == fragment(second)
    elif shown.metadata == other.metadata == {}:
        assert (fragment(first), shown.region, shown.zone) != (fragment(second), other.region, other.zone)
