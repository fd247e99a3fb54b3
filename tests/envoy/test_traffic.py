"""Digests of a real Envoy, from its admin interface by the registrar to the registry's figures."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness.callees import Callee, Callees, failing_callees
from harness.no_tls import NO_TLS
from harness.process import eventually, free_port
from harness.registrar import registrar
from harness.registry import Registry

from registrar.envoy_admin.address import EnvoyAdminAddress
from registrar.envoy_admin.client import EnvoyAdminClient
from registrar.traffic.envoy import Envoy
from registry.core.latency_buckets import quantiles

pytestmark = [pytest.mark.envoy]

ODD = "outbound|80|v1|pay.ments"
DOTS = "dots.and-more.v1"
REASONS = {
    "times-out": {"timeouts": 10},
    "refuses": {"connect_failures": 10},
    "no-endpoints": {"none_healthy": 10},
    "none-healthy": {"none_healthy": 10},
    "breaker": {"overflows": 8},
    "rejects": {"retries": 20},
    "grpc-refuses": {"connect_failures": 10},
}


def odd_callees(workplace: Path, app: int) -> list[Callee]:
    """Return callees whose clusters have names with dots and bars; one gets its endpoints by another name."""
    where = {"socket_address": {"address": "127.0.0.1", "port_value": app}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": where}}]}]
    resource = {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": "payments",
        "endpoints": endpoints,
    }
    file = workplace / "payments.json"
    file.write_text(json.dumps({"resources": [resource]}))
    source = {"resource_api_version": "V3", "path_config_source": {"path": str(file)}}
    by_name: dict[str, Any] = {
        "type": "EDS",
        "eds_cluster_config": {"service_name": "payments", "eds_config": source},
    }
    ok = {"prefix_rewrite": "/200/"}
    static = {"load_assignment": {"endpoints": endpoints}}
    return [
        Callee(ODD, 10, 10, 0, 1.0, by_name, ok),
        Callee(DOTS, 10, 10, 0, 1.0, static, ok),
        # Nothing that a service of the registry may be called: it is left out.
        Callee("no|service", 10, 10, 0, None, static, ok),
    ]


def reporting(workplace: Path, url: str, service: str, admin: int | str, **settings: str) -> Any:
    """Run a registrar beside an Envoy."""
    address = admin if isinstance(admin, str) else f"http://127.0.0.1:{admin}"
    env = {"REGISTRAR_ENVOY_ADMIN": address, "REGISTRAR_TRAFFIC_INTERVAL": "1s"}
    return registrar(workplace, url, service, f"127.0.0.1:{free_port()}", env=env, admin_listen="off", **settings)


def document(registry: Registry, caller: str) -> dict[str, Any]:
    """Return the figures of a caller in the last hour."""
    found: dict[str, Any] = registry.client.get("/v1/traffic", params={"caller": caller, "window": "1h"}).json()
    return found


def requests(registry: Registry, caller: str) -> dict[str, int]:
    """Return the requests of a caller by callee."""
    return {pair["callee"]: pair["requests"] for pair in document(registry, caller)["pairs"]}


@pytest.fixture(scope="module")
def caller() -> str:
    """The service that calls."""
    return f"caller-{free_port()}"


@pytest.fixture(scope="module")
def envoy(workplace: Path, caller: str) -> Iterator[Callees]:
    """An Envoy with a callee for each way to fail, and some with odd names."""
    with failing_callees(workplace, caller=caller, more=lambda app: odd_callees(workplace, app)) as found:
        yield found


@pytest.fixture(scope="module")
def pairs(envoy: Callees, workplace: Path, shared_registry: Registry, caller: str) -> dict[str, dict[str, Any]]:
    """The figures after ten requests to each callee."""
    envoy.call(envoy.callees[0], 3)  # before the first reading: they count for nobody
    with reporting(workplace, shared_registry.url, caller, envoy.admin):
        eventually(lambda: caller in document(shared_registry, caller)["reporting"], within=20)
        for callee in envoy.callees:
            envoy.call(callee)
        completed = {callee.name: callee.completed for callee in envoy.callees if callee.completed}
        completed["payments"] = completed.pop(ODD)
        del completed["no|service"]
        eventually(
            lambda: {name: count for name, count in requests(shared_registry, caller).items() if count} == completed,
            within=20,
            said=lambda: str(requests(shared_registry, caller)),
        )
        # Envoy merges its histograms each five seconds.
        eventually(lambda: by_callee(shared_registry, caller)["well"]["p50_ms"] is not None, within=20)
        return by_callee(shared_registry, caller)


def by_callee(registry: Registry, caller: str) -> dict[str, dict[str, Any]]:
    """Return the pairs of a caller by callee."""
    return {pair["callee"]: pair for pair in document(registry, caller)["pairs"]}


def test_each_way_to_fail_is_counted_as_callers_saw_it(envoy: Callees, pairs: dict[str, dict[str, Any]]) -> None:
    """Each row of the table of what Envoy's counters mean: requests, failures, success and reason, exactly."""
    for callee in envoy.callees:
        if callee.name in (ODD, "no|service"):
            continue
        pair = pairs.get(callee.name, {"requests": 0, "success": None})
        assert (pair["requests"], pair["success"]) == (callee.completed, callee.success), callee.name
        reasons = {name: count for name, count in pair.get("reasons", {}).items() if count}
        assert reasons == REASONS.get(callee.name, {}), callee.name
    assert pairs["grpc-refuses"]["failures"] == 10
    # The slowest requests leave no latency: their time-outs are shown beside it.
    assert pairs["times-out"]["p99_ms"] is None
    assert (pairs["none-healthy"]["healthy"], pairs["none-healthy"]["total"]) == (0, 1)
    assert (pairs["well"]["healthy"], pairs["well"]["total"]) == (1, 1)
    assert pairs["well"]["location"] == ""


def test_names_with_dots_and_bars_are_told_apart(pairs: dict[str, dict[str, Any]]) -> None:
    """The callee is the name by which Envoy asks for endpoints, else that of the cluster, if a service may have it."""
    assert pairs["payments"]["requests"] == pairs[DOTS]["requests"] == 10
    assert not {ODD, "no|service"} & pairs.keys()


def test_routes_have_figures(pairs: dict[str, dict[str, Any]], shared_registry: Registry, caller: str) -> None:
    """By their stat_prefix, which may have dots."""
    assert pairs
    answer = shared_registry.client.get("/v1/traffic/routes", params={"callee": "rejects", "caller": caller}).json()
    (route,) = answer["routes"]
    assert (route["route"], route["requests"], route["success"]) == ("all.of-it", 10, 0.0)


async def test_quantiles_are_those_of_envoy(envoy: Callees) -> None:
    """Within 10 % or 1 ms of the percentiles that Envoy's own admin interface shows, for every callee."""
    slow = next(callee for callee in envoy.callees if callee.name == "rejects")
    envoy.call(slow, 40)
    admin = f"http://127.0.0.1:{envoy.admin}"
    target = f"{admin}/stats?format=json&usedonly&filter=^cluster\\..*upstream_rq_time$"
    before = httpx.get(target, trust_env=False, verify=NO_TLS).text
    eventually(lambda: httpx.get(target, trust_env=False, verify=NO_TLS).text != before, within=20, every=0.2)
    reader = Envoy(EnvoyAdminClient(EnvoyAdminAddress.parse(admin)))
    await reader.look()
    reading = await reader.read()
    shown = httpx.get(target, trust_env=False, verify=NO_TLS).json()["stats"][-1]["histograms"]
    places = [shown["supported_quantiles"].index(part) for part in (50.0, 95.0, 99.0)]
    compared = 0
    for histogram in shown["computed_quantiles"]:
        name = histogram["name"].removeprefix("cluster.").removesuffix(".upstream_rq_time")
        counts = reading.latencies.get(name)
        exact = [histogram["values"][place]["cumulative"] for place in places]
        if counts is None or None in exact:
            continue
        for ours, theirs in zip(quantiles(counts, (0.5, 0.95, 0.99)), exact, strict=True):
            assert ours == pytest.approx(theirs, rel=0.1, abs=1.0), name
            compared += 1
    assert compared >= 15


@pytest.mark.proof
def test_two_envoys_of_one_service_with_two_hundred_clusters(
    workplace: Path, shared_registry: Registry, service: str
) -> None:
    """Each is read by the registrar beside it, and their requests are added up."""
    names = [f"callee-{number}.of|{service}" for number in range(200)]

    def many(app: int) -> list[Callee]:
        where = {"socket_address": {"address": "127.0.0.1", "port_value": app}}
        resource = {"load_assignment": {"endpoints": [{"lb_endpoints": [{"endpoint": {"address": where}}]}]}}
        return [Callee(name.replace("|", "-"), 10, 10, 0, 1.0, resource, {"prefix_rewrite": "/200/"}) for name in names]

    with (
        failing_callees(workplace, caller=service, node="one", more=many) as one,
        failing_callees(workplace, caller=service, node="two", more=many) as two,
        reporting(workplace, shared_registry.url, service, one.admin),
        reporting(workplace, shared_registry.url, service, two.admin),
    ):
        both = {service: {"reported": 2, "expected": 2}}
        eventually(lambda: document(shared_registry, service)["reporting"] == both, within=30)
        for envoy in (one, two):
            for callee in envoy.callees[-200:]:
                envoy.call(callee, 1)
            envoy.call(envoy.callees[1], 5)
        wanted = {callee.name: 2 for callee in one.callees[-200:]} | {"rejects": 10}
        # A digest has two hundred callees, the busiest ones: those with one request share its end.
        eventually(
            lambda: {name: count for name, count in requests(shared_registry, service).items() if count} == wanted,
            within=60,
            said=lambda: str(len(requests(shared_registry, service))),
        )
        assert document(shared_registry, service)["reporting"] == both


@pytest.mark.proof
def test_an_envoy_that_restarts_loses_nothing_that_was_read(
    workplace: Path, shared_registry: Registry, service: str
) -> None:
    """Its counters begin at 0; meanwhile the admin interface is gone, and heartbeats go on."""
    ports = free_port(), free_port(), free_port()
    with reporting(workplace, shared_registry.url, service, ports[0]) as beside:
        with failing_callees(workplace, caller=service, ports=ports) as envoy:
            eventually(lambda: service in document(shared_registry, service)["reporting"], within=30)
            envoy.call(envoy.callees[0])
            eventually(lambda: requests(shared_registry, service).get("well") == 10, within=30)
        eventually(lambda: beside.said("envoy_not_read"), within=30)
        with failing_callees(workplace, caller=service, ports=ports) as envoy:
            envoy.call(envoy.callees[0])
            eventually(
                lambda: requests(shared_registry, service).get("well") == 20,
                within=30,
                said=lambda: str(requests(shared_registry, service)),
            )
        assert beside.process.poll() is None
