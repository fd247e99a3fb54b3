"""The metrics in Prometheus' text format, without its library, to keep the registrar's memory small."""

import platform
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from msgspec import Struct

from registrar.admin.status import CredentialStatus, EdgeStatus, RegistrarStatus
from registrar.checks.result import Outcome
from registrar.checks.threshold import State
from registrar.credentials.aws_login import FailureKind
from registrar.edge.entry import Source

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
DRAIN_STATES = ("serving", "draining", "drained", "refused")
Sample = tuple[Mapping[str, str], float]


class Metric(Struct, frozen=True):
    """One metric: its name, type, labels and help text."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str


# The port is enough to distinguish the endpoints of one process. The address is the scrape target's label already, and
# would create new series whenever an address changes.
_ENDPOINT = ("service", "port")
CHECKS = Metric(
    "registrar_checks_total", "counter", (*_ENDPOINT, "check", "type", "outcome"), "Finished checks, by outcome."
)
TRANSITIONS = Metric(
    "registrar_transitions_total", "counter", (*_ENDPOINT, "state"), "Changes of an endpoint's state, by the new state."
)
STATE = Metric(
    "registrar_endpoint_state",
    "gauge",
    (*_ENDPOINT, "state"),
    "1 for the current state of the endpoint, 0 for the others.",
)
SUPPRESSED = Metric("registrar_suppressed_flaps_total", "counter", _ENDPOINT, "Recoveries that flap damping delayed.")
FENCED = Metric(
    "registrar_fenced",
    "gauge",
    _ENDPOINT,
    "1 when another owner has the endpoint and this process sends no heartbeats for it.",
)
SENT = Metric("registrar_heartbeats_sent_total", "counter", (), "Heartbeat requests sent.")
FAILED = Metric("registrar_heartbeats_failed_total", "counter", (), "Heartbeat requests without a usable response.")
SINCE = Metric(
    "registrar_last_acknowledged_seconds",
    "gauge",
    (),
    "Seconds since the registry last stored a heartbeat; missing before the first one.",
)
LOGINS = Metric("registrar_logins_total", "counter", ("result",), "Logins and renewals of the session, by result.")
LOGIN_FAILING = Metric(
    "registrar_login_failing",
    "gauge",
    ("failure",),
    "1 for the kind of failure of the newest login or renewal, 0 for the others; missing without a login.",
)
SESSION = Metric(
    "registrar_session_seconds_left",
    "gauge",
    (),
    "Seconds until the session ends, negative after that; missing before the first login.",
)
ENVOY_TOKEN = Metric(
    "registrar_envoy_token_seconds_left",
    "gauge",
    (),
    "Seconds until the token in Envoy's file ends, negative after that; missing without one, or without an end.",
)
ENVOY_TOKEN_FAILED = Metric(
    "registrar_envoy_token_failures_total",
    "counter",
    (),
    "Writes of Envoy's token that failed; missing where this process writes none.",
)
EDGE_AGE = Metric(
    "registrar_edge_age_seconds",
    "gauge",
    (),
    "Seconds since the registry last vouched for the oldest content of the edge; missing without an edge or content.",
)
EDGE_REFUSED = Metric(
    "registrar_edge_refused",
    "gauge",
    (),
    "1 while registries refuse the edge, or an answer is too long for it, and Envoys poll them directly.",
)
EDGE_FULL = Metric(
    "registrar_edge_full",
    "gauge",
    (),
    "1 while the edge has no room for all that is polled for, and Envoys poll the registries directly.",
)
EDGE_NAMES = Metric("registrar_edge_names", "gauge", ("source",), "Names that the edge holds, by where they came from.")
EDGE_POLLS = Metric("registrar_edge_polls_total", "counter", ("status",), "Polls that the edge answered, by status.")
EDGE_QUESTIONS = Metric(
    "registrar_edge_questions_total", "counter", ("result",), "Questions of the edge to registries, by result."
)
EDGE_CONNECTIONS = Metric("registrar_edge_connections", "gauge", (), "Open connections of Envoys to the edge.")
EDGE_BAD_FILES = Metric(
    "registrar_edge_bad_files_total", "counter", (), "Files of the edge that were not what was written."
)
EDGE_WRITES_FAILED = Metric(
    "registrar_edge_write_failures_total", "counter", (), "Writes of the edge's files that failed."
)
DIGESTS = Metric(
    "registrar_traffic_digests_total",
    "counter",
    ("result",),
    "Digests of Envoy's statistics that the registry took, and those that were not read or not taken; missing where "
    "none are sent.",
)
DRAIN = Metric("registrar_drain_state", "gauge", ("state",), "1 for the current state of the drain, 0 for the others.")
RELOADS = Metric("registrar_reloads_total", "counter", ("result",), "Reloads of the settings, by result.")
HEALTHY = Metric("registrar_healthy", "gauge", (), "1 when `registrar healthcheck` passes; it stays 1 from then on.")
UP = Metric("registrar_uptime_seconds", "gauge", (), "Seconds since the start of the process.")
BUILD = Metric(
    "registrar_build_info",
    "gauge",
    ("version", "python"),
    "1, with the versions of the registrar and of Python as labels.",
)
CPU = Metric("process_cpu_seconds_total", "counter", (), "User and system CPU time in seconds.")
MEMORY = Metric("process_resident_memory_bytes", "gauge", (), "Resident memory in bytes; missing without /proc.")
METRICS = (
    CHECKS,
    TRANSITIONS,
    STATE,
    SUPPRESSED,
    FENCED,
    SENT,
    FAILED,
    SINCE,
    LOGINS,
    LOGIN_FAILING,
    SESSION,
    ENVOY_TOKEN,
    ENVOY_TOKEN_FAILED,
    DIGESTS,
    EDGE_AGE,
    EDGE_REFUSED,
    EDGE_FULL,
    EDGE_NAMES,
    EDGE_POLLS,
    EDGE_QUESTIONS,
    EDGE_CONNECTIONS,
    EDGE_BAD_FILES,
    EDGE_WRITES_FAILED,
    DRAIN,
    RELOADS,
    HEALTHY,
    UP,
    BUILD,
    CPU,
    MEMORY,
)
_STATM = Path("/proc/self/statm")


def expose(status: RegistrarStatus) -> str:
    """Return the metrics of a status document."""
    return "".join(line for metric, samples in _samples(status) for line in _lines(metric, samples))


def _samples(status: RegistrarStatus) -> Iterator[tuple[Metric, Sequence[Sample]]]:
    yield from _of_endpoints(status)
    yield SENT, [({}, status.registry.sent)]
    yield FAILED, [({}, status.registry.failed)]
    yield SINCE, _if_there(status.registry.seconds_since_acknowledged)
    yield from _of_credential(status.credential)
    yield from _of_edge(status.edge)
    traffic = status.traffic
    yield DIGESTS, [({"result": name}, getattr(traffic, name)) for name in ("sent", "failed")] if traffic else []
    yield DRAIN, [({"state": state}, state == status.drain) for state in DRAIN_STATES]
    yield RELOADS, [({"result": name}, getattr(status.reloads, name)) for name in ("applied", "rejected")]
    yield HEALTHY, [({}, status.healthy)]
    yield UP, [({}, status.seconds_up)]
    yield BUILD, [(_build(), 1)]
    yield CPU, [({}, time.process_time())]
    yield MEMORY, _resident()


def _of_credential(credential: CredentialStatus) -> Iterator[tuple[Metric, Sequence[Sample]]]:
    yield LOGINS, [({"result": result}, count) for result, count in credential.attempts.items()]
    kinds = list(FailureKind) if credential.attempts else []
    yield LOGIN_FAILING, [({"failure": kind}, kind == credential.failure) for kind in kinds]
    yield SESSION, _if_there(credential.seconds_left)
    envoy = credential.envoy
    yield ENVOY_TOKEN, _if_there(envoy.seconds_left if envoy else None)
    yield ENVOY_TOKEN_FAILED, _if_there(envoy.failures if envoy else None)


def _of_edge(edge: EdgeStatus | None) -> Iterator[tuple[Metric, Sequence[Sample]]]:
    if edge is None:
        return
    sources = [name.source for name in edge.names]
    yield EDGE_AGE, _if_there(edge.age)
    yield EDGE_REFUSED, [({}, edge.refused)]
    yield EDGE_FULL, [({}, edge.full)]
    yield EDGE_NAMES, [({"source": source}, sources.count(source)) for source in Source]
    yield EDGE_POLLS, [({"status": status}, count) for status, count in edge.polls.items()]
    yield EDGE_QUESTIONS, [({"result": result}, count) for result, count in edge.questions.items()]
    yield EDGE_CONNECTIONS, [({}, edge.connections)]
    yield EDGE_BAD_FILES, [({}, edge.bad_files)]
    yield EDGE_WRITES_FAILED, [({}, edge.write_failures)]


def _if_there(value: float | None) -> Sequence[Sample]:
    return [] if value is None else [({}, value)]


@cache
def _build() -> Mapping[str, str]:
    # Imported at the first scrape: the module costs a megabyte of memory.
    from importlib.metadata import version  # noqa: PLC0415

    return {"version": version("headcount"), "python": platform.python_version()}


def _resident() -> Sequence[Sample]:
    try:
        pages = int(_STATM.read_text("ascii").split()[1])
    except OSError:
        return []
    return [({}, pages * resource.getpagesize())]


def _of_endpoints(status: RegistrarStatus) -> Iterator[tuple[Metric, Sequence[Sample]]]:
    labelled = [
        ({"service": endpoint.service, "port": endpoint.endpoint.rpartition(":")[2]}, endpoint)
        for endpoint in status.endpoints
    ]
    yield (
        CHECKS,
        [
            (names | {"check": str(index), "type": check.type, "outcome": outcome}, check.counts.get(outcome, 0))
            for names, endpoint in labelled
            for index, check in enumerate(endpoint.checks)
            for outcome in Outcome
        ],
    )
    yield (
        TRANSITIONS,
        [
            (names | {"state": state}, endpoint.transitions.get(state, 0))
            for names, endpoint in labelled
            for state in State
        ],
    )
    yield (
        STATE,
        [(names | {"state": state}, state == endpoint.state) for names, endpoint in labelled for state in State],
    )
    yield SUPPRESSED, [(names, endpoint.suppressed) for names, endpoint in labelled]
    yield FENCED, [(names, endpoint.fenced) for names, endpoint in labelled]


def _lines(metric: Metric, samples: Sequence[Sample]) -> Iterator[str]:
    if not samples:
        return
    yield f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.type}\n"
    for labels, value in samples:
        pairs = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
        label_set = f"{{{pairs}}}" if pairs else ""
        yield f"{metric.name}{label_set} {_number(value)}\n"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(round(value, 3))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
