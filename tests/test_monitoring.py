"""Dashboards and alerts against what there is: the metrics of the code, and those of a real Envoy."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness.app import app
from harness.envoy import envoy
from harness.process import eventually
from harness.prometheus import promtool, scrape_parameters_of_envoys
from harness.registry import Registry
from prometheus_client.metrics import MetricWrapperBase

from registrar.admin.metrics_text import METRICS
from registry import metrics
from registry.background.traffic_metrics import FAMILIES
from registry.core.verdict.registrars import MAX_SUSPECT_TIME

ROOT = Path(__file__).parents[1]
DASHBOARDS = sorted((ROOT / "deploy" / "grafana").glob("*.json"))
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
RECORDING = ALERTS.with_name("rules.yaml")
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
RECORDED = [rule for group in yaml.safe_load(RECORDING.read_text())["groups"] for rule in group["rules"]]

_NAME = re.compile(r"(?<![:\w])(?:registry|registrar|envoy|process|headcount)_[a-z0-9_]+\b")
_RECORDED_NAME = re.compile(r"\bcaller_callee:\w+:\w+")
# A rule of the user's own makes these.
_OBJECTIVE = "callee:headcount_objective_p99:milliseconds"
# Labels that look like metrics.
_LABELS = {"envoy_cluster_name", "envoy_response_code_class"}
_SUFFIXES = ("", "_total", "_bucket", "_sum", "_count")


def expressions(path: Path) -> Iterator[str]:
    """Yield each expression of a dashboard, those of its variables too."""
    document = json.loads(path.read_text())
    for panel in document["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))
    for variable in document["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


def named(texts: Iterator[str] | list[str]) -> set[str]:
    """Return the metrics that expressions name."""
    return {name for text in texts for name in _NAME.findall(text)} - _LABELS


def ours() -> set[str]:
    """Return the series that registry and registrar have."""
    found = {metric.name for metric in METRICS}
    found |= {f"{family.name}{suffix}" for family in FAMILIES for suffix in _SUFFIXES}
    for collector in vars(metrics).values():
        if isinstance(collector, MetricWrapperBase):
            (metric,) = collector.describe()
            found |= {f"{metric.name}{suffix}" for suffix in _SUFFIXES}
        elif isinstance(collector, metrics.ServiceGauge):
            found |= {metric.name for metric in collector.collect()}
    return found


def every_name() -> set[str]:
    """Return all metrics that dashboards and alerts name."""
    return named(every_expression())


def every_expression() -> list[str]:
    """Return all expressions of dashboards, alerts and recording rules."""
    shown = [text for path in DASHBOARDS for text in expressions(path)]
    return shown + [rule["expr"] for rule in RULES + RECORDED]


def test_recorded_series_that_dashboards_and_alerts_name_exist() -> None:
    """Each is recorded by a rule, and each rule is of use to something."""
    found = {name for text in every_expression() for name in _RECORDED_NAME.findall(text)}
    assert found == {rule["record"] for rule in RECORDED}


def test_metrics_of_ours_that_dashboards_and_alerts_name_exist() -> None:
    """A metric that was renamed would leave a panel empty and an alert silent, and nobody would notice."""
    wanted = {name for name in every_name() if not name.startswith("envoy_")}
    assert len(wanted) > 30
    assert wanted - ours() == set()


@pytest.mark.envoy
def test_metrics_of_envoy_that_dashboards_and_alerts_name_exist(
    shared_registry: Registry, workplace: Path, service: str
) -> None:
    """A real Envoy that has carried a request has every one of them, by the filter of the scrape configuration."""
    # The counters of gRPC statuses begin with the first such status; tests/envoy/test_traffic_figures.py makes one.
    wanted = {name for name in every_name() if name.startswith("envoy_") and not name.startswith("envoy_cluster_grpc_")}
    assert len(wanted) > 20
    parameters = scrape_parameters_of_envoys()
    with app(workplace) as served:
        shared_registry.register(service, served.endpoint)
        with envoy(workplace, [shared_registry.port], [service]) as found:
            eventually(lambda: found.get() != "", within=10)
            eventually(
                lambda: wanted <= series(found.stats(parameters)),
                within=15,
                said=lambda: f"lacking: {wanted - series(found.stats(parameters))}",
            )
            kept = series(found.stats(parameters))
        # What nothing reads is not scraped: the sum of a histogram comes with its buckets.
        assert {name for name in kept - wanted if not name.endswith(("_sum", "_count"))} == set()


def series(text: str) -> set[str]:
    """Return the names of the series in Prometheus' text format."""
    return set(re.findall(r"^([a-z_0-9]+)[{ ]", text, re.MULTILINE))


def test_the_dashboards_are_what_their_source_says() -> None:
    """`python deploy/grafana/generate.py` would change nothing."""
    script = ROOT / "deploy" / "grafana" / "generate.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_expressions_of_dashboards_can_be_read(path: Path, tmp_path: Path) -> None:
    """Prometheus itself reads each expression, with Grafana's variables filled in."""
    rules: list[dict[str, Any]] = []
    for number, text in enumerate(expressions(path)):
        if not text.startswith("label_values("):
            filled = re.sub(r"\$(service|envoy_cluster_name|callee)", ".*", text.replace("$__rate_interval", "1m"))
            assert "$" not in filled
            rules.append({"record": f"panel_{number}", "expr": filled})
    assert len(rules) >= 5
    written = tmp_path / "rules.yaml"
    written.write_text(yaml.safe_dump({"groups": [{"name": path.stem, "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(written))


def test_promtool_finds_no_fault_in_the_alerts() -> None:
    """Every alert and every recording rule is one that Prometheus loads."""
    assert f"{len(RECORDED)} rules found" in promtool("check", "rules", str(RECORDING))
    assert f"{len(RULES)} rules found" in promtool("check", "rules", str(ALERTS))


def test_each_alert_fires_when_it_should_and_not_otherwise() -> None:
    """By the tests beside the alerts: in one it fires, and on the calm system none does."""
    path = ALERTS.with_name("alerts.test.yaml")
    tests = yaml.safe_load(path.read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
    quiet = {case["alertname"] for test in tests for case in test["alert_rule_test"] if not case["exp_alerts"]}
    assert fired == quiet == {rule["alert"] for rule in RULES}
    assert "SUCCESS" in promtool("test", "rules", str(path))


def test_no_alert_counts_in_fractions() -> None:
    """`increase` makes 7.332 of seven endpoints; a number in a text is whole, a share in percent, or a duration."""
    values = {
        name: re.findall(r"\{\{ *\$value *\|? *(.*?) *\}\}", rule["annotations"]["summary"])
        for rule in RULES
        if "$value" in rule["annotations"]["summary"]
        for name in [rule["alert"]]
    }
    assert len(values) > 10
    allowed = {'printf "%.0f"', "humanizePercentage", "humanizeDuration"}
    assert {name: formats for name, formats in values.items() if not formats or not allowed.issuperset(formats)} == {}
    counts = {rule["alert"] for rule in RULES if 'printf "%.0f"' in values.get(rule["alert"], [])}
    counted = {rule["alert"]: rule["expr"] for rule in RULES if rule["alert"] in counts and "increase(" in rule["expr"]}
    # Compared before it is rounded, a value between 0 and a half would fire as none.
    assert {name for name, text in counted.items() if not text.startswith("round(")} == set()


def test_the_alert_for_silence_agrees_with_check() -> None:
    """It pages when `registryctl check` fails, and the guard's alert is there as soon as it warns."""
    alerts = {rule["alert"]: rule for rule in RULES}
    assert alerts["HeadcountEndpointsSilent"]["expr"].endswith(f"(registry_silent_seconds) > {MAX_SUSPECT_TIME:g}")
    assert alerts["HeadcountEndpointsSilent"]["labels"]["severity"] == "page"
    assert "for" not in alerts["HeadcountEndpointsSilent"]
    assert "for" not in alerts["HeadcountGuardActive"]


def test_the_example_of_a_configuration_is_one() -> None:
    """Prometheus would start with it."""
    assert "SUCCESS" in promtool("check", "config", str(ALERTS.with_name("prometheus.yaml")))


def test_each_alert_is_explained() -> None:
    """docs/monitoring.md has a heading for each alert and no other, with its meaning, its causes and what to do."""
    page = (ROOT / "docs" / "monitoring.md").read_text()
    parts = dict(re.findall(r"^### (Headcount\w+)$\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL))
    assert parts.keys() == {rule["alert"] for rule in RULES}
    for name, text in parts.items():
        for said in ("**Means**", "**Causes**", "**Do**"):
            assert said in text, f"{name} lacks {said}"
