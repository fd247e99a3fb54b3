"""Write the dashboards: `python deploy/grafana/generate.py`; with --check, say whether they are what this says.

Each is a list of rows after the four golden signals, each row a list of panels, each panel a few expressions. What
Grafana wants besides (places, ids, data source) is the same for all and is filled in here.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
_WIDTH = 24
_HEIGHT = 8
_SOURCE = {"type": "prometheus", "uid": "${source}"}


@dataclass(frozen=True)
class Panel:
    """A graph, a number or a table of expressions, each with its legend."""

    title: str
    says: str
    series: dict[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    no_value: str = ""


@dataclass(frozen=True)
class Dashboard:
    """A file: rows by their titles; ``variables`` are labels to choose by, each with the metric that has them."""

    name: str
    title: str
    rows: dict[str, list[Panel]]
    variables: dict[str, str] = field(default_factory=dict)


def quantile(rank: float, metric: str, *by: str, matching: str = "") -> str:
    """Return the expression of a quantile of a histogram, without the NaN of a histogram that has no samples."""
    labels = ", ".join(("le", *by))
    return f"histogram_quantile({rank}, sum by ({labels}) (rate({metric}_bucket{matching}[$__rate_interval]))) >= 0"


def rate(metric: str, *by: str, matching: str = "") -> str:
    """Return the expression of a counter's rate, summed by labels."""
    summed = f"sum by ({', '.join(by)})" if by else "sum"
    return f"{summed} (rate({metric}{matching}[$__rate_interval]))"


REGISTRY = Dashboard(
    "registry",
    "Headcount: registry",
    {
        "Latency": [
            Panel(
                "Propagation",
                "From the change of an endpoint to the response that brings it to each Envoy, or its acknowledgement.",
                {
                    "median, {{way}}": quantile(0.5, "registry_propagation_seconds", "way"),
                    "99 %, {{way}}": quantile(0.99, "registry_propagation_seconds", "way"),
                },
                "s",
            ),
            Panel(
                "Commits",
                "Wait of heartbeats and changes for PostgreSQL.",
                {"99 %, {{kind}}": quantile(0.99, "registry_commit_seconds", "kind")},
                "s",
            ),
            Panel(
                "Requests, 99 %",
                "All except polls and streams.",
                {"{{method}} {{route}}": quantile(0.99, "registry_http_request_seconds", "method", "route")},
                "s",
            ),
        ],
        "Traffic": [
            Panel(
                "Polls",
                "Responses to Envoys by status.",
                {"{{api}} {{code}}": rate("registry_polls_total", "api", "code")},
            ),
            Panel(
                "Streams",
                "Open gRPC streams by client.",
                {"{{client}}": "sum by (client) (registry_xds_streams)"},
            ),
            Panel(
                "Answers over streams",
                "By resource type.",
                {"{{type}} {{variant}}": rate("registry_xds_answers_total", "type", "variant")},
            ),
            Panel("Heartbeats", "By outcome.", {"{{outcome}}": rate("registry_heartbeats_total", "outcome")}),
            Panel(
                "Changes",
                "Services whose changes each process read.",
                {"{{instance}}": rate("registry_feed_steps_total", "instance")},
            ),
        ],
        "Errors": [
            Panel(
                "Not answered",
                "Polls without a snapshot, heartbeats that could not be stored, defects.",
                {
                    "polls 503": rate("registry_polls_total", matching='{code="503"}'),
                    "heartbeats": rate("registry_heartbeats_total", matching='{outcome="failed"}'),
                    "requests {{code}}": rate("registry_http_requests_total", "code", matching='{code=~"5.."}'),
                },
            ),
            Panel("Refused", "4xx by status.", {"{{code}}": rate("registry_requests_refused_total", "code")}),
            Panel(
                "Subscribers that do not keep up",
                "/v1/subscribers names them.",
                {"{{state}}": 'sum by (state) (registry_subscribers{state!="current"})'},
            ),
            Panel(
                "Rejected over streams",
                "NACKs, and answers without ACK or NACK; registryctl subscribers --state rejected has the words.",
                {
                    "rejected {{type}}": rate("registry_xds_nacks_total", "type"),
                    "not acknowledged": rate("registry_xds_unacknowledged_total"),
                    "oversized {{type}}": rate("registry_xds_oversized_total", "type"),
                },
            ),
            Panel(
                "PostgreSQL lost",
                "Losses of a process's change feed.",
                {"{{instance}}": "sum by (instance) (increase(registry_feed_lost_total[$__rate_interval]))"},
            ),
        ],
        "Saturation": [
            Panel(
                "Held polls",
                "At REGISTRY_MAX_HELD_POLLS further polls get their response at once.",
                {"{{instance}}": "sum by (instance) (registry_polls_held)"},
            ),
            Panel(
                "Processor",
                "Cores that each process, or its workers together, uses.",
                {"{{instance}}": rate("process_cpu_seconds_total", "instance", matching='{job="headcount-registry"}')},
            ),
            Panel(
                "Memory",
                "Resident.",
                {"{{instance}}": 'process_resident_memory_bytes{job="headcount-registry"}'},
                "bytes",
            ),
            Panel(
                "Items a commit",
                "Group commit: more under load, by design.",
                {"median, {{kind}}": quantile(0.5, "registry_commit_items", "kind")},
            ),
        ],
        "What is registered": [
            Panel(
                "Endpoints",
                "By status; SILENT ones have an expired lease and are sent requests.",
                {"{{status}}": "max by (status) (registry_endpoints)"},
            ),
            Panel(
                "Services",
                "Services with endpoints, or with some within the event retention.",
                {"services": "max(registry_services)"},
                kind="stat",
            ),
            Panel(
                "Guard and quarantine",
                "Silent endpoints that the expiry guard keeps, and quarantined rows.",
                {"suspects": "max(registry_suspects)", "quarantined": "max(registry_quarantined)"},
            ),
            Panel(
                "Silent endpoints",
                "Endpoints with an expired lease that are kept in rotation. Requests to the dead ones fail.",
                {"{{service}}": "max by (service) (registry_silent_endpoints)"},
            ),
            Panel(
                "Kept for",
                "Time for which the longest kept of them has been kept.",
                {"{{service}}": "max by (service) (registry_silent_seconds)"},
                "s",
            ),
            Panel(
                "Expiry",
                "Sweeps a second, expired leases, and seconds credited for outages of the registry.",
                {
                    "sweeps": rate("registry_sweeps_total"),
                    "lapsed": rate("registry_leases_lapsed_total"),
                    "credited": rate("registry_credited_seconds_total"),
                },
            ),
        ],
        "Processes": [
            Panel("Leader", "The process that sweeps.", {"{{instance}}": "registry_sweep_leader"}),
            Panel(
                "Snapshot from disk",
                "1 while PostgreSQL was never read since the start.",
                {"{{instance}}": "registry_snapshot_stale"},
            ),
            Panel(
                "Error of the clock",
                "Possible error of the propagation times.",
                {"{{instance}}": "registry_clock_error_seconds"},
                "s",
            ),
            Panel("Versions", "What runs.", {"{{version}}": "count by (version) (registry_build_info)"}, kind="stat"),
        ],
    },
)

_REGISTRARS = '{job="registrars", service=~"$service"}'
_OF_SERVICE = '{service=~"$service"}'
REGISTRARS = Dashboard(
    "registrars",
    "Headcount: registrars",
    {
        "Latency": [
            Panel(
                "Last stored heartbeat",
                "Seconds ago. At the lease's TTL the endpoints expire.",
                {
                    "median": f"quantile(0.5, registrar_last_acknowledged_seconds{_OF_SERVICE})",
                    "oldest": f"max(registrar_last_acknowledged_seconds{_OF_SERVICE})",
                },
                "s",
            ),
        ],
        "Traffic": [
            Panel(
                "Heartbeats",
                "Requests sent.",
                {"sent": rate("registrar_heartbeats_sent_total", matching=_OF_SERVICE)},
            ),
            Panel(
                "Checks",
                "By outcome.",
                {"{{outcome}}": rate("registrar_checks_total", "outcome", matching=_OF_SERVICE)},
            ),
        ],
        "Errors": [
            Panel(
                "Heartbeats that failed",
                "Requests without a usable response.",
                {"failed": rate("registrar_heartbeats_failed_total", matching=_OF_SERVICE)},
            ),
            Panel(
                "Digests of traffic",
                "failed: Envoy was not read, or the registry did not take it.",
                {"{{result}}": rate("registrar_traffic_digests_total", "result", matching=_OF_SERVICE)},
            ),
            Panel(
                "Changes of state",
                "By the new one.",
                {"{{state}}": rate("registrar_transitions_total", "state", matching=_OF_SERVICE)},
            ),
            Panel(
                "Flaps held back",
                "Recoveries that flap damping delays.",
                {"{{service}}": rate("registrar_suppressed_flaps_total", "service", matching=_OF_SERVICE)},
            ),
            Panel(
                "Not in order",
                "Fenced: a newer instance owns the endpoint. Unaccepted: no registration since the start.",
                {
                    "fenced": f"sum(registrar_fenced{_OF_SERVICE})",
                    "unaccepted": f"count(registrar_healthy{_OF_SERVICE} == 0)",
                    "reloads rejected": 'sum(registrar_reloads_total{service=~"$service", result="rejected"})',
                },
            ),
        ],
        "Saturation": [
            Panel(
                "Processor",
                "The largest, in cores.",
                {"most": f"max({rate('process_cpu_seconds_total', 'instance', matching=_REGISTRARS)})"},
            ),
            Panel(
                "Memory",
                "The largest.",
                {"most": 'max(process_resident_memory_bytes{job="registrars", service=~"$service"})'},
                "bytes",
            ),
        ],
        "Fleet": [
            Panel(
                "Endpoints",
                "By the state that their registrars publish.",
                {"{{state}}": f"sum by (state) (registrar_endpoint_state{_OF_SERVICE})"},
            ),
            Panel(
                "On the way out",
                "Registrars that drain.",
                {"{{state}}": 'sum by (state) (registrar_drain_state{service=~"$service", state!="serving"})'},
            ),
            Panel(
                "Youngest",
                "Seconds since its start.",
                {"up": f"min(registrar_uptime_seconds{_OF_SERVICE})"},
                "s",
                "stat",
            ),
            Panel("Versions", "What runs.", {"{{version}}": "count by (version) (registrar_build_info)"}, kind="stat"),
        ],
    },
    {"service": "registrar_healthy"},
)

# One pair of a calling service and the cluster that it calls. The series named PAIR:… come from
# deploy/prometheus/rules.yaml, which is where requests, failures and success are defined.
_PAIR = ("service", "envoy_cluster_name")
_PAIR_LEGEND = "{{service}} → {{envoy_cluster_name}}"
_REQUESTS = "caller_callee:envoy_requests:rate2m"
_FAILURES = "caller_callee:envoy_failures:rate2m"
_SUCCESS = "caller_callee:envoy_success:ratio2m"
_TIMEOUTS = "caller_callee:envoy_timeouts:rate2m"
_NO_TRAFFIC = "no traffic"
_TO = '{envoy_cluster_name=~"$envoy_cluster_name"}'
_TRAFFIC = '{envoy_cluster_name!~"registry(/edge|/direct)?|envoy-admin"}'
_UP = "envoy_cluster_upstream_"
SERVICE = Dashboard(
    "service",
    "Headcount: one service, as its callers' Envoys see it",
    {
        "Latency": [
            Panel(
                "Time to the answer",
                "Of all callers, in whole milliseconds. A request that timed out leaves no sample here.",
                {
                    f"{name}": quantile(rank, f"{_UP}rq_time", matching=_TO)
                    for name, rank in (("median", 0.5), ("95 %", 0.95), ("99 %", 0.99))
                },
                "ms",
            ),
            Panel(
                "Time-outs by caller",
                "Requests a second that timed out: the slowest ones, which the latencies beside this do not contain.",
                {"{{service}}": f"{_TIMEOUTS}{_TO}"},
                "reqps",
            ),
            Panel(
                "99 % by caller", "", {"{{service}}": quantile(0.99, f"{_UP}rq_time", "service", matching=_TO)}, "ms"
            ),
        ],
        "Traffic": [
            Panel(
                "Requests by caller", "Completed, retries not counted.", {"{{service}}": f"{_REQUESTS}{_TO}"}, "reqps"
            ),
            Panel(
                "Answers by class",
                "5xx includes Envoy's own 503 and 504.",
                {"{{envoy_response_code_class}}xx": rate(f"{_UP}rq_xx", "envoy_response_code_class", matching=_TO)},
                "reqps",
            ),
            Panel(
                "Attempts",
                "Attempts at an endpoint, each retry counted. More attempts than completed requests: retries, or "
                "callers that gave up, whose requests are never completed. Fewer: requests that reached no endpoint.",
                {
                    "attempts": rate(f"{_UP}rq_total", matching=_TO),
                    "completed": rate(f"{_UP}rq_completed", matching=_TO),
                },
                "reqps",
            ),
        ],
        "Errors": [
            Panel(
                "Success by caller",
                "The share of completed requests that did not fail.",
                {"{{service}}": f"{_SUCCESS}{_TO}"},
                "percentunit",
                no_value=_NO_TRAFFIC,
            ),
            Panel(
                "Failures by caller",
                "5xx responses, or gRPC statuses of a failure of the service.",
                {"{{service}}": f"{_FAILURES}{_TO}"},
                "reqps",
            ),
            Panel(
                "What failed",
                "Connections, timeouts, resets, requests without a healthy endpoint, retries.",
                {
                    "connect": rate(f"{_UP}cx_connect_fail", matching=_TO),
                    "time-out": rate(f"{_UP}rq_timeout", matching=_TO),
                    "time-out of one try": rate(f"{_UP}rq_per_try_timeout", matching=_TO),
                    "reset": rate(f"{_UP}rq_rx_reset", matching=_TO),
                    "none healthy": rate(f"{_UP}cx_none_healthy", matching=_TO),
                    "retried": rate(f"{_UP}rq_retry", matching=_TO),
                },
            ),
            Panel(
                "Panic",
                "Requests that were balanced over unhealthy endpoints too, because too few are healthy.",
                {"{{service}}": rate("envoy_cluster_lb_healthy_panic", "service", matching=_TO)},
            ),
            Panel(
                "Answers of the registry",
                "rejected: the Envoy goes on with what it had.",
                {
                    "taken": rate("envoy_cluster_update_success", matching=_TO),
                    "rejected": rate("envoy_cluster_update_rejected", matching=_TO),
                    "failed": rate("envoy_cluster_update_failure", matching=_TO),
                },
            ),
        ],
        "Saturation": [
            Panel(
                "Requests under way",
                "",
                {"active": f"sum({_UP}rq_active{_TO})", "waiting": f"sum({_UP}rq_pending_active{_TO})"},
            ),
            Panel("Connections", "", {"{{service}}": f"sum by (service) ({_UP}cx_active{_TO})"}),
            Panel(
                "Circuit breakers",
                "Requests that a circuit breaker refused, and open breakers.",
                {
                    "overflow": rate(f"{_UP}rq_pending_overflow", matching=_TO),
                    "open": f"sum(envoy_cluster_circuit_breakers_default_rq_open{_TO})",
                },
            ),
        ],
        "Endpoints": [
            Panel(
                "What Envoys hold",
                "The least and the most of all callers: when they differ for long, one caller is behind.",
                {
                    "healthy, least": f"min(envoy_cluster_membership_healthy{_TO})",
                    "healthy, most": f"max(envoy_cluster_membership_healthy{_TO})",
                    "all, most": f"max(envoy_cluster_membership_total{_TO})",
                    "degraded, most": f"max(envoy_cluster_membership_degraded{_TO})",
                },
            ),
            Panel(
                "Changes",
                "Of the endpoints that an Envoy holds.",
                {"{{service}}": rate("envoy_cluster_membership_change", "service", matching=_TO)},
            ),
        ],
    },
    {"envoy_cluster_name": "envoy_cluster_membership_total"},
)

SERVICES = Dashboard(
    "services",
    "Headcount: service by service",
    {
        "Who calls whom": [
            Panel(
                "Requests a second",
                "Caller and callee. Completed requests, retries not counted.",
                {"": _REQUESTS},
                "reqps",
                "table",
            ),
            Panel(
                "Success",
                "The share of completed requests that did not fail. A pair without traffic has no row.",
                {"": _SUCCESS},
                "percentunit",
                "table",
                _NO_TRAFFIC,
            ),
            Panel(
                "Healthy endpoints, the least that a caller holds",
                "",
                {"": "min by (service, envoy_cluster_name) (envoy_cluster_membership_healthy)"},
                "short",
                "table",
            ),
        ],
        "How long it takes": [
            Panel("99 % of answers within", "", {"": quantile(0.99, f"{_UP}rq_time", *_PAIR)}, "ms", "table"),
            Panel(
                "Time-outs a second",
                "The latencies do not include requests that timed out: read both together.",
                {"": f"{_TIMEOUTS} > 0"},
                "reqps",
                "table",
                "none",
            ),
        ],
        "Over time": [
            Panel("Requests", "", {_PAIR_LEGEND: _REQUESTS}, "reqps"),
            Panel("Failures", "", {_PAIR_LEGEND: _FAILURES}, "reqps"),
            Panel(
                "Answers of the registry that were rejected",
                "",
                {_PAIR_LEGEND: rate("envoy_cluster_update_rejected", *_PAIR)},
            ),
        ],
    },
)

ENVOYS = Dashboard(
    "envoys",
    "Headcount: all Envoys",
    {
        "Latency": [
            Panel(
                "99 % of answers by caller",
                "Of all callees, in whole milliseconds. A request that timed out leaves no sample here.",
                {"{{service}}": quantile(0.99, f"{_UP}rq_time", "service", matching=_TRAFFIC)},
                "ms",
            ),
            Panel(
                "Time-outs by caller",
                "Requests a second that timed out: the slowest ones, which the latencies beside this do not contain.",
                {"{{service}}": f"sum by (service) ({_TIMEOUTS})"},
                "reqps",
            ),
        ],
        "Traffic": [
            Panel(
                "Requests by caller",
                "Completed requests to all callees, retries not counted.",
                {"{{service}}": f"sum by (service) ({_REQUESTS})"},
                "reqps",
            ),
            Panel(
                "Requests by callee",
                "Completed requests of all callers, retries not counted.",
                {"{{envoy_cluster_name}}": f"sum by (envoy_cluster_name) ({_REQUESTS})"},
                "reqps",
            ),
            Panel(
                "Polls of the registry",
                "Attempts to update the endpoints of a cluster.",
                {"{{service}}": rate("envoy_cluster_update_attempt", "service")},
            ),
        ],
        "Errors": [
            Panel(
                "Success by caller",
                "The share of completed requests to all callees that did not fail.",
                {"{{service}}": (f"1 - sum by (service) ({_FAILURES}) / (sum by (service) ({_REQUESTS}) > 0)")},
                "percentunit",
                no_value=_NO_TRAFFIC,
            ),
            Panel(
                "Refused without an attempt",
                "Requests that found no healthy endpoint, or that a circuit breaker refused.",
                {
                    "{{service}}, none healthy": rate(f"{_UP}cx_none_healthy", "service", matching=_TRAFFIC),
                    "{{service}}, overflow": rate(f"{_UP}rq_pending_overflow", "service", matching=_TRAFFIC),
                },
                "reqps",
            ),
            Panel(
                "Panic",
                "Requests that were balanced over unhealthy endpoints too, because too few are healthy.",
                {"{{service}}": rate("envoy_cluster_lb_healthy_panic", "service", matching=_TRAFFIC)},
            ),
            Panel(
                "Polls without an update",
                "failed: no usable answer. rejected: the Envoy goes on with what it had.",
                {
                    "{{instance}}, failed": f"{rate('envoy_cluster_update_failure', 'instance')} > 0",
                    "{{instance}}, rejected": f"{rate('envoy_cluster_update_rejected', 'instance')} > 0",
                },
                no_value="none",
            ),
        ],
        "Saturation": [
            Panel("Live", "Envoys that serve, by service.", {"{{service}}": "sum by (service) (envoy_server_live)"}),
            Panel(
                "Memory, the largest", "", {"{{service}}": "max by (service) (envoy_server_memory_allocated)"}, "bytes"
            ),
            Panel(
                "Connections, the most",
                "To listeners of one Envoy.",
                {"{{service}}": "max by (service) (envoy_server_total_connections)"},
            ),
            Panel(
                "Youngest", "Seconds since its start.", {"{{service}}": "min by (service) (envoy_server_uptime)"}, "s"
            ),
            Panel(
                "Clusters without a healthy endpoint",
                "",
                {"{{service}}": "count by (service) (envoy_cluster_membership_healthy == 0)"},
                no_value="none",
            ),
        ],
    },
)

# The same from the registry, to which registrars report what their Envoys count. No Envoy has to be scraped for it, a
# pair has 30 series however many Envoys it has, and the callee is the service rather than Envoy's cluster.
_DIGEST_REQUESTS = "caller_callee:headcount_requests:rate2m"
_DIGEST_FAILURES = "caller_callee:headcount_failures:rate2m"
_DIGEST_SUCCESS = "caller_callee:headcount_success:ratio2m"
_DIGEST_TIMEOUTS = "caller_callee:headcount_timeouts:rate2m"
_DIGEST_LATENCY = "headcount_traffic_milliseconds"
_DIGEST_REASONS = "headcount_traffic_failures_total"
_DIGEST_PAIR_LEGEND = "{{caller}} → {{callee}}"
_CALLED = '{callee=~"$callee"}'
_NO_SAMPLE = "A request that timed out, or that reached no endpoint, leaves no sample here."
SERVICE_FROM_REGISTRY = Dashboard(
    "service-from-registry",
    "Headcount: one service, from the registry",
    {
        "Latency": [
            Panel(
                "Time to the answer",
                f"Of all callers. {_NO_SAMPLE}",
                {
                    name: quantile(rank, _DIGEST_LATENCY, matching=_CALLED)
                    for name, rank in (("median", 0.5), ("95 %", 0.95), ("99 %", 0.99))
                },
                "ms",
            ),
            Panel(
                "Time-outs by caller",
                "Requests a second that timed out: the slowest ones, which the latencies beside this do not contain.",
                {"{{caller}}": f"{_DIGEST_TIMEOUTS}{_CALLED}"},
                "reqps",
            ),
            Panel(
                "99 % by caller", "", {"{{caller}}": quantile(0.99, _DIGEST_LATENCY, "caller", matching=_CALLED)}, "ms"
            ),
        ],
        "Traffic": [
            Panel(
                "Requests by caller",
                "Completed, retries not counted.",
                {"{{caller}}": f"{_DIGEST_REQUESTS}{_CALLED}"},
                "reqps",
            ),
        ],
        "Errors": [
            Panel(
                "Success by caller",
                "The share of completed requests that did not fail.",
                {"{{caller}}": f"{_DIGEST_SUCCESS}{_CALLED}"},
                "percentunit",
                no_value=_NO_TRAFFIC,
            ),
            Panel(
                "Failures by caller",
                "5xx responses, or gRPC statuses of a failure of the service.",
                {"{{caller}}": f"{_DIGEST_FAILURES}{_CALLED}"},
                "reqps",
            ),
            Panel("What failed", "By reason.", {"{{reason}}": rate(_DIGEST_REASONS, "reason", matching=_CALLED)}),
        ],
    },
    {"callee": "headcount_traffic_requests_total"},
)

SERVICES_FROM_REGISTRY = Dashboard(
    "services-from-registry",
    "Headcount: service by service, from the registry",
    {
        "Who calls whom": [
            Panel(
                "Requests a second",
                "Caller and callee. Completed requests, retries not counted.",
                {"": _DIGEST_REQUESTS},
                "reqps",
                "table",
            ),
            Panel(
                "Success",
                "The share of completed requests that did not fail. A pair without traffic has no row.",
                {"": _DIGEST_SUCCESS},
                "percentunit",
                "table",
                _NO_TRAFFIC,
            ),
        ],
        "How long it takes": [
            Panel(
                "99 % of answers within", "", {"": quantile(0.99, _DIGEST_LATENCY, "caller", "callee")}, "ms", "table"
            ),
            Panel(
                "Time-outs a second",
                "The latencies do not include requests that timed out: read both together.",
                {"": f"{_DIGEST_TIMEOUTS} > 0"},
                "reqps",
                "table",
                "none",
            ),
        ],
        "Over time": [
            Panel("Requests", "", {_DIGEST_PAIR_LEGEND: _DIGEST_REQUESTS}, "reqps"),
            Panel("Failures", "", {_DIGEST_PAIR_LEGEND: _DIGEST_FAILURES}, "reqps"),
        ],
    },
)

ENVOYS_FROM_REGISTRY = Dashboard(
    "envoys-from-registry",
    "Headcount: all Envoys, from the registry",
    {
        "Latency": [
            Panel(
                "99 % of answers by caller",
                f"Of all callees. {_NO_SAMPLE}",
                {"{{caller}}": quantile(0.99, _DIGEST_LATENCY, "caller")},
                "ms",
            ),
            Panel(
                "Time-outs by caller",
                "Requests a second that timed out: the slowest ones, which the latencies beside this do not contain.",
                {"{{caller}}": f"sum by (caller) ({_DIGEST_TIMEOUTS})"},
                "reqps",
            ),
        ],
        "Traffic": [
            Panel(
                "Requests by caller",
                "Completed requests to all callees, retries not counted.",
                {"{{caller}}": f"sum by (caller) ({_DIGEST_REQUESTS})"},
                "reqps",
            ),
            Panel(
                "Requests by callee",
                "Completed requests of all callers, retries not counted.",
                {"{{callee}}": f"sum by (callee) ({_DIGEST_REQUESTS})"},
                "reqps",
            ),
            Panel(
                "Requests by region and zone",
                "Of the callers' Envoys.",
                {"{{location}}": rate("headcount_traffic_requests_total", "location")},
                "reqps",
            ),
        ],
        "Errors": [
            Panel(
                "Success by caller",
                "The share of completed requests to all callees that did not fail.",
                {
                    "{{caller}}": (
                        f"1 - sum by (caller) ({_DIGEST_FAILURES}) / (sum by (caller) ({_DIGEST_REQUESTS}) > 0)"
                    )
                },
                "percentunit",
                no_value=_NO_TRAFFIC,
            ),
            Panel("What failed", "By reason.", {"{{reason}}": rate(_DIGEST_REASONS, "reason")}, "reqps"),
            Panel(
                "Digests that were not taken",
                "refused: the registrar's log has the reason.",
                {"{{outcome}}": rate("registry_traffic_digests_total", "outcome", matching='{outcome!="taken"}')},
                no_value="none",
            ),
        ],
        "Saturation": [
            Panel(
                "Digests taken",
                "One for each Envoy every ten seconds.",
                {"{{instance}}": rate("registry_traffic_digests_total", "instance", matching='{outcome="taken"}')},
            ),
            Panel(
                "Pairs",
                "Beyond REGISTRY_TRAFFIC_PAIRS the callers with the most lose their least busy ones.",
                {
                    "{{instance}}, pairs": "max by (instance) (registry_traffic_pairs)",
                    "{{instance}}, forgotten": rate("registry_traffic_dropped_total", "instance"),
                },
            ),
        ],
    },
)

DASHBOARDS = (
    REGISTRY,
    REGISTRARS,
    SERVICE,
    SERVICES,
    ENVOYS,
    SERVICE_FROM_REGISTRY,
    SERVICES_FROM_REGISTRY,
    ENVOYS_FROM_REGISTRY,
)


def document(dashboard: Dashboard) -> dict[str, Any]:
    """Return what Grafana imports."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in dashboard.rows.items():
        panels.append(
            {"type": "row", "title": title, "collapsed": False, "gridPos": {"h": 1, "w": _WIDTH, "x": 0, "y": top}}
        )
        width = _WIDTH // len(row)
        panels += [
            _panel(one, {"h": _HEIGHT, "w": width, "x": width * place, "y": top + 1}) for place, one in enumerate(row)
        ]
        top += _HEIGHT + 1
    return {
        "uid": f"headcount-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["headcount"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [_data_source(), *(_variable(*one) for one in dashboard.variables.items())]},
        "links": [{"type": "dashboards", "tags": ["headcount"], "title": "Headcount", "asDropdown": True}],
        "panels": [panel | {"id": number} for number, panel in enumerate(panels, start=1)],
    }


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    table = panel.kind == "table"
    targets = [
        {"refId": chr(ord("A") + number), "expr": expression, "legendFormat": legend, "datasource": _SOURCE}
        | ({"format": "table", "instant": True} if table else {})
        for number, (legend, expression) in enumerate(panel.series.items())
    ]
    made: dict[str, Any] = {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "gridPos": place,
        "datasource": _SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {},
    }
    if panel.no_value:
        made["fieldConfig"]["defaults"]["noValue"] = panel.no_value
    if table:
        made["transformations"] = [{"id": "organize", "options": {"excludeByName": {"Time": True}}}]
    return made


def _data_source() -> dict[str, Any]:
    return {"name": "source", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _variable(label: str, metric: str) -> dict[str, Any]:
    return {
        "name": label,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": f"label_values({metric}, {label})", "refId": label},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "sort": 1,
    }


def files() -> dict[Path, str]:
    """Return the text of each file."""
    return {
        HERE / f"{one.name}.json": json.dumps(document(one), indent=2, ensure_ascii=False) + "\n" for one in DASHBOARDS
    }


def main(arguments: list[str]) -> int:
    """Write the files, or compare them; return the exit status."""
    drifted = [path for path, text in files().items() if not path.is_file() or path.read_text() != text]
    if arguments == ["--check"]:
        for path in drifted:
            print(f"{path} is not what generate.py says; run it and commit the file", file=sys.stderr)
        return bool(drifted)
    for path in drifted:
        path.write_text(files()[path])
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
