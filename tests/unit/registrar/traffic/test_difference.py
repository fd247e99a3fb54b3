"""The difference of two readings."""

from hypothesis import given
from hypothesis import strategies as st

from registrar.traffic.difference import attempts_since, difference
from registrar.traffic.statistics import Reading, Statistic
from registrar.traffic.topology import Cluster, Tries
from wire.traffic_digest import MAX_EDGES, EdgeCounts, EdgeEndpoint, EndpointAttempts, Route, RouteCounts


def reading(rows: dict[str, dict[Statistic, int]], **latencies: dict[int, int]) -> Reading:
    """Return a reading with these numbers."""
    made = Reading()
    for name, numbers in rows.items():
        made.clusters[name] = [numbers.get(place, 0) for place in Statistic]
    made.latencies = dict(latencies)
    return made


def clusters(*names: str) -> list[Cluster]:
    """Return clusters with the names of their services."""
    return [Cluster(name, name, name) for name in names]


counters = st.lists(st.integers(0, 1000), min_size=1, max_size=8)


@given(counters)
def test_differences_add_up_to_what_was_counted(steps: list[int]) -> None:
    """Over any number of readings."""
    total, before, summed = 0, reading({}), 0
    for step in steps:
        total += step
        after = reading({"a": {Statistic.COMPLETED: total}}, a={3: total})
        for edge in difference(before, after, clusters("a"), {}).edges:
            summed += edge.counts.completed
            assert edge.buckets == (3, edge.counts.completed)
        before = after
    assert summed == total


def test_a_counter_that_fell_counts_from_0() -> None:
    """Its cluster was removed and added again."""
    before = reading({"a": {Statistic.COMPLETED: 100, Statistic.RETRIES: 5}}, a={3: 100})
    after = reading({"a": {Statistic.COMPLETED: 7, Statistic.RETRIES: 6}}, a={3: 7})
    (edge,) = difference(before, after, clusters("a"), {}).edges
    assert (edge.counts.completed, edge.counts.retries, edge.buckets) == (7, 1, (3, 7))


def test_silent_callees_are_left_out_and_requests_under_way_are_not_silent() -> None:
    """A callee that hangs completes nothing, and is seen by what is under way."""
    after = reading(
        {"idle": {Statistic.COMPLETED: 5, Statistic.TOTAL: 3}, "hangs": {Statistic.ACTIVE: 4, Statistic.TOTAL: 1}}
    )
    before = reading({"idle": {Statistic.COMPLETED: 5, Statistic.TOTAL: 3}})
    (edge,) = difference(before, after, clusters("idle", "hangs"), {}).edges
    assert (edge.callee, edge.counts) == ("hangs", EdgeCounts(active=4, total=1))


def test_clusters_of_one_service_are_one_callee() -> None:
    """As a service and its versions; responses of Envoy itself to gRPC requests are failures once."""
    rows = {
        "a": {Statistic.COMPLETED: 10, Statistic.SERVER_ERRORS: 4, Statistic.GRPC_FAILURES: 4},
        "b": {Statistic.COMPLETED: 10, Statistic.GRPC_FAILURES: 3},
    }
    both = [Cluster("a", "a", "shop"), Cluster("b", "b", "shop"), Cluster("no|name", "no|name", "no|name")]
    rows["no|name"] = {Statistic.COMPLETED: 1}
    (edge,) = difference(reading({}), reading(rows), both, {}).edges
    assert (edge.callee, edge.counts.completed, edge.counts.failures) == ("shop", 20, 7)


def test_a_callee_has_the_endpoints_of_its_worse_cluster() -> None:
    """Clusters of one service have the same endpoints; one that warms has none yet, and says nothing."""
    states = {"sound": (4, 4), "ejecting": (3, 4), "warming": (0, 0)}
    rows = {
        name: {Statistic.COMPLETED: 1, Statistic.HEALTHY: healthy, Statistic.TOTAL: total}
        for name, (healthy, total) in states.items()
    }
    several = [Cluster(name, name, "shop") for name in states]
    (edge,) = difference(reading({}), reading(rows), several, {}).edges
    assert (edge.counts.completed, edge.counts.healthy, edge.counts.total) == (3, 3, 4)


def test_routes_of_one_name_and_service_are_one() -> None:
    """Two virtual hosts lead to one service, as one with retries and one without."""
    after = reading({})
    after.routes = {("a", "all"): [10, 1, 2], ("b", "all"): [5, 0, 1], ("b", "pay"): [1, 0, 0]}
    after.route_latencies = {("a", "all"): {3: 10}, ("b", "all"): {3: 4, 7: 1}}
    both = [Cluster("a", "a", "shop"), Cluster("b", "b", "shop")]
    counted = difference(reading({}), after, both, {}).routes
    assert counted == (
        Route("shop", "all", RouteCounts(15, 1, 3), (3, 14, 7, 1)),
        Route("shop", "pay", RouteCounts(1, 0, 0), ()),
    )


def test_the_busiest_callees_are_kept() -> None:
    """And it is said how many are not."""
    names = [f"s{number}" for number in range(MAX_EDGES + 10)]
    rows = {name: {Statistic.COMPLETED: 1 + number} for number, name in enumerate(names)}
    counted = difference(reading({}), reading(rows), clusters(*names), {})
    assert (len(counted.edges), counted.omitted) == (MAX_EDGES, 10)
    assert counted.edges[0].callee == names[-1]
    assert "s0" not in {edge.callee for edge in counted.edges}


def test_attempts_at_endpoints_are_counted_since_the_reading_before() -> None:
    """One that came back counts from 0, and an idle one is left out."""
    before = {("shop", "10.0.0.1:80"): Tries(10, 9, 1), ("shop", "10.0.0.2:80"): Tries(50, 50, 0)}
    after = {
        ("shop", "10.0.0.1:80"): Tries(15, 10, 5),
        ("shop", "10.0.0.2:80"): Tries(2, 1, 1),
        ("shop", "10.0.0.3:80"): Tries(0, 0, 0),
    }
    assert attempts_since(before, after) == {
        "shop": (
            EdgeEndpoint("10.0.0.1:80", EndpointAttempts(5, 4)),
            EdgeEndpoint("10.0.0.2:80", EndpointAttempts(2, 1)),
        )
    }
