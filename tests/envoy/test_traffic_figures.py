"""What dashboards and alerts say of callees that fail in every way, with a real Envoy and a real Prometheus."""

import concurrent.futures
import json
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness.callees import Callee, Callees, failing_callees
from harness.process import eventually, free_port
from harness.prometheus import Prometheus, program, prometheus, scrape_parameters_of_envoys
from harness.registrar import registrar
from harness.registry import Registry
from harness.tapped_envoy import app

pytestmark = [pytest.mark.envoy, pytest.mark.slow]

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
# The windows of the rules, in a test that lasts seconds.
_WINDOW = "6s"
_LOAD = 14.0

ALERTS = {
    "well": set(),
    "rejects": {"RequestsFail"},
    "times-out": {"RequestsFail", "RequestsTimeOut"},
    "refuses": {"RequestsFail"},
    "no-endpoints": {"RequestsFail", "NoHealthyEndpoint", "ServiceWithoutEndpoints"},
    "none-healthy": {"RequestsFail", "NoHealthyEndpoint", "ServiceWithoutEndpoints"},
    "breaker": {"RequestsFail", "RequestsTurnedAway"},
    "gave-up": set(),
    "grpc-status": {"RequestsFail"},
    "grpc-refuses": {"RequestsFail"},
}
REASONS = {
    "rejects": {"other"},
    "times-out": {"timeout"},
    "refuses": {"connect_failure"},
    "no-endpoints": {"none_healthy"},
    "none-healthy": {"none_healthy"},
    "breaker": {"overflow"},
    "grpc-status": {"other"},
    "grpc-refuses": {"connect_failure"},
}
FROM_REGISTRY = ["service-from-registry", "services-from-registry", "envoys-from-registry"]


@pytest.fixture(scope="module")
def envoy(workplace: Path) -> Iterator[Callees]:
    """An Envoy with a callee for each way to fail."""
    program("prometheus")
    with failing_callees(workplace) as found:
        yield found


@pytest.fixture(scope="module")
def counted(envoy: Callees) -> dict[str, int]:
    """What Envoy's counters are after ten requests to each callee."""
    for callee in envoy.callees:
        envoy.call(callee)
    time.sleep(0.6)  # for the answers that nobody waits for
    return envoy.stats()


def shortened(text: str) -> str:
    """Return rules with windows and delays that fit a test of seconds."""
    return re.sub(r"for: \w+", "for: 1s", re.sub(r"\[\d+m\]", f"[{_WINDOW}]", text))


@pytest.fixture(scope="module")
def seen(envoy: Callees, counted: dict[str, int], shared_registry: Registry, workplace: Path) -> Iterator[Prometheus]:
    """A Prometheus that has scraped the Envoy while requests went to every callee, and has the rules and the alerts."""
    directory = workplace / "figures"
    directory.mkdir()
    for name in ("rules.yaml", "alerts.yaml"):
        (directory / name).write_text(shortened((DEPLOY / "prometheus" / name).read_text()))
    configuration: dict[str, Any] = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml", "alerts.yaml"],
        "scrape_configs": [
            {
                "job_name": "envoys",
                "metrics_path": "/stats/prometheus",
                "params": scrape_parameters_of_envoys(),
                "static_configs": [{"targets": [f"127.0.0.1:{envoy.metrics}"], "labels": {"service": "caller"}}],
            },
            {
                "job_name": "headcount-registry",
                "static_configs": [{"targets": [shared_registry.url.removeprefix("http://")]}],
            },
        ],
    }
    admin = f"127.0.0.1:{free_port()}"
    configuration["scrape_configs"].append(
        {"job_name": "registrars", "static_configs": [{"targets": [admin], "labels": {"service": "caller"}}]}
    )
    reads = {"REGISTRAR_ENVOY_ADMIN": f"http://127.0.0.1:{envoy.admin}", "REGISTRAR_TRAFFIC_INTERVAL": "1s"}
    with (
        app() as port,
        registrar(directory, shared_registry.url, "caller", f"127.0.0.1:{port}", env=reads, admin_listen=admin),
        prometheus(directory, yaml.safe_dump(configuration)) as found,
    ):
        eventually(lambda: found.query("envoy_server_live") != [], within=20)
        reporting = "/v1/traffic?caller=caller"
        eventually(lambda: "caller" in shared_registry.client.get(reporting).json()["reporting"], within=20)
        ends = time.monotonic() + _LOAD
        with concurrent.futures.ThreadPoolExecutor(len(envoy.callees)) as pool:
            list(pool.map(lambda callee: keep_calling(envoy, callee, until=ends), envoy.callees))
        # However long the tests take, they see what was there then.
        found.moment = time.time()
        yield found


def keep_calling(envoy: Callees, callee: Callee, until: float) -> None:
    """Send more than one request a second to a callee."""
    while time.monotonic() < until:
        envoy.call(callee, 10 if callee.concurrent else 1)
        time.sleep(0.2)


def test_envoy_counts_what_the_rules_take_it_to_count(envoy: Callees, counted: dict[str, int]) -> None:
    """Attempts are no requests: 30 for 10 with two retries, 0 where no endpoint was reached."""
    for callee in envoy.callees:
        found = tuple(counted.get(f"{callee.name}.upstream_rq_{name}", 0) for name in ("total", "completed", "5xx"))
        assert found == (callee.attempts, callee.completed, callee.server_errors), callee.name
    assert counted["grpc-status.grpc.14"] == 10
    assert counted["grpc-refuses.grpc.14"] == counted["grpc-refuses.upstream_rq_503"] == 10


def test_success_is_what_callers_saw(envoy: Callees, seen: Prometheus) -> None:
    """In every state; where no request was completed there is no figure, rather than 100 %."""
    found = {
        result["metric"]["envoy_cluster_name"]: float(result["value"][1])
        for result in seen.evaluate("caller_callee:envoy_success:ratio2m")
    }
    expected = {callee.name: callee.success for callee in envoy.callees if callee.success is not None}
    assert found == {
        name: pytest.approx(value, abs=0.1 if name == "breaker" else 1e-9) for name, value in expected.items()
    }


def test_the_registry_tells_what_envoys_tell(envoy: Callees, seen: Prometheus) -> None:
    """By digests of the registrar beside the Envoy: the same success in every state, and one reason a failure."""
    found = {
        result["metric"]["callee"]: float(result["value"][1])
        for result in seen.evaluate("caller_callee:headcount_success:ratio2m")
    }
    expected = {callee.name: callee.success for callee in envoy.callees if callee.success is not None}
    assert found == {
        name: pytest.approx(value, abs=0.1 if name == "breaker" else 1e-9) for name, value in expected.items()
    }
    reasons: dict[str, set[str]] = {}
    for result in seen.evaluate('headcount_traffic_failures_total{caller="caller"} > 0'):
        reasons.setdefault(result["metric"]["callee"], set()).add(result["metric"]["reason"])
    assert reasons == REASONS


def test_the_rate_of_requests_goes_on_in_an_outage(envoy: Callees, seen: Prometheus) -> None:
    """The callee that nobody reaches has requests; the one whose callers gave up has none that were completed."""
    found = {
        result["metric"]["envoy_cluster_name"]: float(result["value"][1])
        for result in seen.evaluate("caller_callee:envoy_requests:rate2m")
    }
    assert found.keys() == {callee.name for callee in envoy.callees}
    assert found.pop("gave-up") == 0
    assert min(found.values()) > 1


def test_each_state_has_its_alerts_and_no_other(envoy: Callees, seen: Prometheus) -> None:
    """The page names what is wrong with the pair."""
    found: dict[str, set[str]] = {callee.name: set() for callee in envoy.callees}
    for callee in ("callee", "envoy_cluster_name"):
        for result in seen.evaluate(f'ALERTS{{alertstate="firing", {callee}!=""}}'):
            found[result["metric"][callee]].add(result["metric"]["alertname"].removeprefix("Headcount"))
    assert found == ALERTS


def panels(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the title and each expression of a dashboard's panels, with Grafana's variables filled in."""
    for panel in json.loads(path.read_text())["panels"]:
        for target in panel.get("targets", []):
            filled = target["expr"].replace("$__rate_interval", _WINDOW)
            yield panel["title"], re.sub(r"\$(service|envoy_cluster_name|callee)", ".*", filled)


def figures(results: list[dict[str, Any]]) -> Iterator[float]:
    """Yield the value of each series."""
    for result in results:
        yield float(result["value"][1])


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_no_panel_shows_what_is_no_figure(path: Path, seen: Prometheus) -> None:
    """No infinity, no NaN and no negative number; no share above one."""
    for title, expression in panels(path):
        for value in figures(seen.evaluate(expression)):
            assert math.isfinite(value), f"{title}: {value} by {expression}"
            assert value >= -1e-9, f"{title}: {value} by {expression}"
            if "Success" in title:
                assert value <= 1, f"{title}: {value} by {expression}"


@pytest.mark.parametrize("name", ["service", "services", "envoys", "registrars", *FROM_REGISTRY])
def test_each_panel_shows_something(name: str, seen: Prometheus) -> None:
    """Updates are counted for clusters that poll, which these do not; digests are taken, and the registrar is well."""
    silent = [
        title
        for title, expression in panels(DEPLOY / "grafana" / f"{name}.json")
        if not re.search("_update_|outcome!=|registrar_healthy.* == 0", expression) and not seen.evaluate(expression)
    ]
    assert silent == []


def test_each_alert_can_be_evaluated(seen: Prometheus) -> None:
    """None divides by nothing, and none breaks over the series that a real Envoy has."""
    groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"]
    for rule in [rule for group in groups for rule in group["rules"]]:
        for value in figures(seen.evaluate(shortened(rule["expr"]))):
            assert math.isfinite(value), f"{rule['alert']}: {value}"


def every_expression() -> Iterator[str]:
    """Yield each expression of the dashboards, the rules and the alerts."""
    for path in DASHBOARDS:
        for _, expression in panels(path):
            yield expression
    for name in ("rules.yaml", "alerts.yaml"):
        for group in yaml.safe_load((DEPLOY / "prometheus" / name).read_text())["groups"]:
            for rule in group["rules"]:
                yield rule["expr"]


def test_nothing_divides_by_attempts() -> None:
    """upstream_rq_total may be shown; a share of it is wrong in every outage."""
    assert [text for text in every_expression() if re.search(r"/[^/]*upstream_rq_total", text)] == []
