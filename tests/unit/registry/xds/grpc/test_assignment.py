"""Assignments in protobuf: the same as in JSON, read with messages that are not the registry's own."""

import json
import random
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from harness.examples import examples
from harness.xds_messages import ClusterLoadAssignment, DiscoveryResponse
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from structlog.testing import capture_logs
from unit.registry.making import endpoint, registration, snapshot
from unit.registry.xds.test_eds import populations

from registry.cache.snapshot_cache import SnapshotCache
from registry.core.endpoint import Endpoint
from registry.core.snapshot import Snapshot, SnapshotDelta
from registry.errors import UnavailableError
from registry.xds.eds import resource
from registry.xds.grpc.assignment import AssignmentSource, Variant
from registry.xds.grpc.source import EncodedResource
from wire.model import Report
from wire.node import ANONYMOUS

VARIANTS: tuple[Variant, ...] = ("envoy", "grpc")
_STATUSES = ("UNKNOWN", "HEALTHY", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED")
"""Envoy's `HealthStatus` by number."""


def a_cache(*snapshots: Snapshot) -> SnapshotCache:
    """Return a cache that is ready with these snapshots."""
    cache = SnapshotCache()
    cache.restore("db", {each.service: each for each in snapshots})
    return cache


def encoded(content: Snapshot, variant: Variant = "envoy") -> EncodedResource:
    """Return the assignment of a snapshot."""
    found = AssignmentSource(a_cache(content), variant).find(ANONYMOUS, content.service)
    assert found is not None
    return found


def read(content: EncodedResource) -> dict[str, Any]:
    """Return an assignment as JSON, as a client reads it out of an answer."""
    (packed,) = DiscoveryResponse.FromString(content.entry).resources
    document: dict[str, Any] = MessageToDict(
        ClusterLoadAssignment.FromString(packed.value), preserving_proto_field_name=True
    )
    return {"@type": packed.type_url, **document}


def as_written(document: dict[str, Any]) -> dict[str, Any]:
    """Return what the JSON of EDS says, in the form of ``read``."""
    for locality in document["endpoints"]:
        for member in locality["lb_endpoints"]:
            member["health_status"] = _STATUSES.index(member["health_status"])
            fields = member["metadata"]["filter_metadata"]
            fields["envoy.lb"] = {
                name: float(value) if isinstance(value, int) and not isinstance(value, bool) else value
                for name, value in fields["envoy.lb"].items()
            }
            member["metadata"]["filter_metadata"] = [{"key": "envoy.lb", "value": fields["envoy.lb"]}]
    return document if document["endpoints"] else {key: document[key] for key in ("@type", "cluster_name")}


@examples(100)
@given(populations)
def test_protobuf_says_what_json_says(rows: list[Endpoint]) -> None:
    """Both encodings have the same endpoints, localities, weights, statuses and metadata."""
    content = snapshot(*rows)
    assert read(encoded(content)) == as_written(json.loads(resource("v3", content)))


@examples(100)
@given(populations, st.lists(st.tuples(st.integers(1, 8), st.sampled_from(Report)), max_size=6))
def test_a_change_is_encoded_as_the_whole_would_be(rows: list[Endpoint], changes: list[tuple[int, Report]]) -> None:
    """Fragments of the last encoding are put where they belong, in both variants."""
    listed = snapshot(*rows)
    for version, (number, health) in enumerate(changes, 2):
        delta = SnapshotDelta("shop", version, version)
        before = next((each for each in listed.endpoints.values() if each.id == number), None)
        if before is None:
            delta.listed.append(endpoint(number, stored=registration(health=health)))
        elif health is Report.UNHEALTHY:
            delta.removed.append(((before.address, before.port), number))
        else:
            delta.listed.append(replace(before, registration=registration(health=health)))
        listed = listed.advance(delta)
        whole = snapshot(*listed.endpoints.values(), version=version)
        for variant in VARIANTS[version % 3 == 0 :]:
            assert encoded(listed, variant).entry == encoded(whole, variant).entry


def test_a_snapshot_is_encoded_once() -> None:
    """A thousand streams send the same bytes."""
    cache = a_cache(snapshot(endpoint(1)))
    source = AssignmentSource(cache, "envoy")
    assert source.find(ANONYMOUS, "shop") is source.find(ANONYMOUS, "shop")
    assert source.find(ANONYMOUS, "shop") is not AssignmentSource(cache, "grpc").find(ANONYMOUS, "shop")


def test_no_snapshot_is_kept_for_its_bytes() -> None:
    """Whichever variant is encoded when: an encoding keeps endpoints, and no snapshot before."""
    listed = snapshot(endpoint(1))
    for version in range(2, 30):
        encoded(listed, random.choice(VARIANTS))
        changed = replace(endpoint(1), registration=registration("i-1", weight=version))
        listed = listed.advance(SnapshotDelta("shop", version, version, listed=[changed]))
    assert set(listed.streamed_before) == {"envoy", "grpc"}
    assert listed.streamed == {}


def test_grpc_gets_what_it_uses() -> None:
    """Healthy endpoints, and no metadata."""
    reports = (Report.HEALTHY, Report.DEGRADED, Report.UNHEALTHY)
    rows = [
        endpoint(number, stored=registration(f"i-{number}", health=health, zone="eu-1", metadata={"a": "b"}))
        for number, health in enumerate(reports, 1)
    ]
    ((locality,),) = [read(encoded(snapshot(*rows), "grpc"))["endpoints"]]
    assert locality == {
        "locality": {"zone": "eu-1"},
        "load_balancing_weight": 1,
        "lb_endpoints": [
            {
                "endpoint": {"address": {"socket_address": {"address": rows[0].address, "port_value": 80}}},
                "health_status": 1,
            }
        ],
    }


def test_versions_are_those_of_the_database() -> None:
    """Equal on all replicas; of another database they are others, also for the same snapshot."""
    content = snapshot(endpoint(1), version=7)
    assert encoded(content).version == "db:7"
    other = SnapshotCache()
    other.restore("other", {"shop": content})
    found = AssignmentSource(other, "envoy").find(ANONYMOUS, "shop")
    assert found is not None
    assert found.version == "other:7"


def test_unknown_and_unsure_are_two_things() -> None:
    """A process that has read nothing says nothing."""
    source = AssignmentSource(SnapshotCache(), "envoy")
    with pytest.raises(UnavailableError):
        source.find(ANONYMOUS, "shop")
    source = AssignmentSource(a_cache(), "envoy")
    assert source.find(ANONYMOUS, "shop") is None
    assert read(source.absent("shop"))["cluster_name"] == "shop"
    assert source.absent("shop").version == "db:0"
    cache = a_cache()
    cache.doubt("shop")
    with pytest.raises(UnavailableError):
        AssignmentSource(cache, "envoy").find(ANONYMOUS, "shop")


@pytest.mark.parametrize(
    ("held", "behind"), [("db:8", True), ("db:7", False), ("other:8", False), ("db:99999999999", False), ("", False)]
)
def test_a_newer_version_is_claimed(held: str, *, behind: bool) -> None:
    """The change feed looks for it; a version that no lost commit explains is not waited for."""
    cache = a_cache(snapshot(endpoint(1), version=7))
    assert AssignmentSource(cache, "envoy").is_behind(ANONYMOUS, "shop", held) is behind
    assert cache.take_claims() == ({"shop": 8} if behind else {})


def test_an_assignment_that_cannot_be_encoded_is_unsure() -> None:
    """A row was written past the API; others of the stream go on, and each version is logged once for all streams."""
    row = endpoint(1, stored=registration(region="\ud800"))
    cache = a_cache(snapshot(row), snapshot(endpoint(2, service="good"), service="good"))
    source = AssignmentSource(cache, "envoy")
    with capture_logs() as logged:
        for version in (1, 2):
            for _ in range(3):
                with pytest.raises(UnavailableError, match="shop cannot be encoded"):
                    source.find(ANONYMOUS, "shop")
            assert [each["event"] for each in logged] == ["assignment_not_encoded"] * version
            cache.apply([SnapshotDelta("shop", version + 1, version + 1, listed=[row])])
    assert source.find(ANONYMOUS, "good") is not None
