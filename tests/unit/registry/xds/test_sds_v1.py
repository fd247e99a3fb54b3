"""The v1 answers of the drop-in contracts."""

import json
from typing import Any

import pytest
from unit.registry.making import NOW, endpoint, leases, registration

from registry.cache.snapshot_cache import SnapshotCache
from registry.core.endpoint import Endpoint
from registry.core.shares import Share, Shares
from registry.core.snapshot import SnapshotDelta
from registry.xds.sds_v1 import HostsV1
from wire.model import Report


def known(*endpoints: Endpoint, change: int = 1) -> SnapshotCache:
    """Return a directory of one service."""
    cache = SnapshotCache()
    cache.apply([SnapshotDelta("shop", change, change, listed=endpoints)])
    return cache


def hosts(cache: SnapshotCache, service: str = "shop") -> list[dict[str, Any]]:
    """Return the hosts that a v1 client reads."""
    listed: list[dict[str, Any]] = json.loads(HostsV1(cache, "test").of_service(service))["hosts"]
    return listed


def test_a_host_says_what_both_registries_said() -> None:
    """Each of their clients finds its keys, and ignores the other's."""
    stored = registration(
        "i-1", revision="abc", repository="shop-repo", zone="a", region="eu", canary=True, weight=7, metadata={"k": "v"}
    )
    cache = known(endpoint(1, stored=stored))
    cache.read_leases(leases((1, 1_700_000_000.9, 1_700_000_020.9)), NOW)
    answer = json.loads(HostsV1(cache, "test").of_service("shop"))
    assert (answer["service"], answer["env"]) == ("shop", "test")
    assert answer["hosts"] == [
        {
            "service": "shop",
            "ip_address": "10.0.0.2",
            "service_repo_name": "shop-repo",
            "port": 80,
            "revision": "abc",
            "last_check_in": "2023-11-14 22:13:20+00:00",
            "expire_time": 1_700_000_020,
            "tags": {
                "k": "v",
                "az": "a",
                "region": "eu",
                "instance_id": "i-1",
                "canary": True,
                "load_balancing_weight": 7,
            },
        }
    ]


def test_a_host_that_no_reading_of_the_leases_has_seen_counts_from_its_change() -> None:
    """Its lease began with it."""
    (host,) = hosts(known(endpoint(1)))
    assert (host["last_check_in"], host["expire_time"]) == ("1970-01-12 13:46:40+00:00", int(NOW) + 20)


def test_who_may_not_receive_traffic_is_not_listed() -> None:
    """v1 has no health field."""
    registrations = [
        registration("i-2", health=Report.UNHEALTHY),
        registration("i-3", draining=True),
        registration("i-4", health=Report.DEGRADED),
    ]
    listed = known(
        *(endpoint(number, stored=stored) for number, stored in enumerate(registrations, 2)), endpoint(5, lapsed_at=NOW)
    )
    assert [host["tags"]["instance_id"] for host in hosts(listed)] == ["i-4"]


@pytest.mark.parametrize(("weight", "shown"), [(None, None), (1, 1), (100, 100), (10_000, 100)])
def test_a_weight_is_what_v1_allows(weight: int | None, shown: int | None) -> None:
    """Envoy's v1 schema rejects a whole answer with a weight above 100, wherever it comes from."""
    stored = registration("i-1", weight=weight, metadata={"load_balancing_weight": 900})
    (host,) = hosts(known(endpoint(1, stored=stored)))
    assert host["tags"].get("load_balancing_weight") == shown


def test_an_unknown_service_has_no_hosts() -> None:
    """It is an answer and no error."""
    assert json.loads(HostsV1(SnapshotCache(), "test").of_service('no"body')) == {
        "service": 'no"body',
        "env": "test",
        "hosts": [],
    }


def test_an_answer_is_encoded_once_for_each_reading() -> None:
    """A poll costs a look-up; new check-in times and changes encode anew."""
    cache = known(endpoint(1))
    answers = HostsV1(cache, "test")
    first = answers.of_service("shop")
    assert answers.of_service("shop") is first
    cache.read_leases(leases((1, NOW + 5, NOW + 25)), NOW)
    second = answers.of_service("shop")
    assert json.loads(second)["hosts"][0]["expire_time"] == int(NOW) + 25
    cache.apply([SnapshotDelta("shop", 1, 2, listed=[endpoint(1, stored=registration("i-1", repository="r"))])])
    assert json.loads(answers.of_service("shop"))["hosts"][0]["service_repo_name"] == "r"


def test_hosts_of_a_repository_come_from_all_services() -> None:
    """Clients of cookpad's registry ask by the name of the source repository."""
    cache = SnapshotCache()
    cache.apply(
        SnapshotDelta(name, 1, 1, listed=[endpoint(number, name, registration(f"i-{number}", repository=source))])
        for number, (name, source) in enumerate(
            [("shop", "mono"), ("cart", "mono"), ("pay", "other"), ("job", None)], 1
        )
    )
    answer = json.loads(HostsV1(cache, "test").of_repository("mono", lambda _: True))
    assert answer["service_repo_name"] == "mono"
    assert sorted(host["service"] for host in answer["hosts"]) == ["cart", "shop"]


def test_a_repository_that_has_a_part_of_a_group_is_never_left_without_hosts() -> None:
    """Its hosts divide the shares of their service among themselves, as if there were no others."""
    stored = [registration(f"i-{number}", revision="a", repository="mono") for number in range(1, 31)]
    others = [endpoint(number, stored=each) for number, each in enumerate(stored, 1)]
    canary = endpoint(31, stored=registration("i-31", revision="b", repository="fork"))
    cache = SnapshotCache()
    shares = Shares((Share("revision=b", 99),), "ann", "", NOW)
    cache.apply([SnapshotDelta("shop", 1, 1, listed=[*others, canary], shares=shares)])
    weights = {host["tags"]["instance_id"]: host["tags"]["load_balancing_weight"] for host in hosts(cache)}
    assert (weights.pop("i-31"), list(weights.values())) == (100, [1, 1])
    answer = json.loads(HostsV1(cache, "test").of_repository("mono", lambda _: True))
    assert {host["tags"]["load_balancing_weight"] for host in answer["hosts"]} == {100}
    assert len(answer["hosts"]) == 30
