"""Prometheus' text format, written by hand: its library is as large as all that it would count here."""

import platform
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from msgspec import Struct

from registrar.admin.status import RegistrarStatus
from registrar.checks.result import Outcome
from registrar.checks.threshold import State

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
DRAIN_STATES = ("serving", "draining", "drained", "refused")
Sample = tuple[Mapping[str, str], float]


class Metric(Struct, frozen=True):
    """One metric: its name, type and labels, and what it counts."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str


# The port tells endpoints of one process apart. Its address is in the target's own label, and would make a new series
# of each that comes and goes.
_ENDPOINT = ("service", "port")
CHECKS = Metric(
    "registrar_checks_total", "counter", (*_ENDPOINT, "check", "type", "outcome"), "Checks made, by what they found."
)
TRANSITIONS = Metric(
    "registrar_transitions_total", "counter", (*_ENDPOINT, "state"), "Changes of an endpoint's state, by the new one."
)
STATE = Metric("registrar_endpoint_state", "gauge", (*_ENDPOINT, "state"), "1 for the state that an endpoint is in.")
SUPPRESSED = Metric("registrar_suppressed_flaps_total", "counter", _ENDPOINT, "Recoveries that flap damping held back.")
FENCED = Metric(
    "registrar_fenced", "gauge", _ENDPOINT, "1 when somebody newer owns the endpoint and this process is silent."
)
SENT = Metric("registrar_heartbeats_sent_total", "counter", (), "Requests with heartbeats that left.")
FAILED = Metric("registrar_heartbeats_failed_total", "counter", (), "Requests with heartbeats without a usable answer.")
SINCE = Metric(
    "registrar_last_acknowledged_seconds",
    "gauge",
    (),
    "Seconds since a heartbeat was last stored; missing before the first.",
)
DRAIN = Metric("registrar_drain_state", "gauge", ("state",), "1 for where the process is on its way out.")
RELOADS = Metric("registrar_reloads_total", "counter", ("result",), "SIGHUPs, by what became of them.")
HEALTHY = Metric("registrar_healthy", "gauge", (), "1 when `registrar healthcheck` passes; it never falls again.")
UP = Metric("registrar_uptime_seconds", "gauge", (), "Seconds since the start.")
BUILD = Metric("registrar_build_info", "gauge", ("version", "python"), "1, with what runs here as labels.")
CPU = Metric("process_cpu_seconds_total", "counter", (), "Seconds of processor time, of user and system.")
MEMORY = Metric("process_resident_memory_bytes", "gauge", (), "Resident memory; missing without /proc.")
METRICS = (
    CHECKS,
    TRANSITIONS,
    STATE,
    SUPPRESSED,
    FENCED,
    SENT,
    FAILED,
    SINCE,
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
    """Return ``status`` as metrics."""
    return "".join(line for metric, samples in _samples(status) for line in _lines(metric, samples))


def _samples(status: RegistrarStatus) -> Iterator[tuple[Metric, Sequence[Sample]]]:
    yield from _of_endpoints(status)
    yield SENT, [({}, status.registry.sent)]
    yield FAILED, [({}, status.registry.failed)]
    since = status.registry.seconds_since_acknowledged
    yield SINCE, [] if since is None else [({}, since)]
    yield DRAIN, [({"state": state}, state == status.drain) for state in DRAIN_STATES]
    yield RELOADS, [({"result": name}, getattr(status.reloads, name)) for name in ("applied", "rejected")]
    yield HEALTHY, [({}, status.healthy)]
    yield UP, [({}, status.seconds_up)]
    yield BUILD, [(_build(), 1)]
    yield CPU, [({}, time.process_time())]
    yield MEMORY, _resident()


@cache
def _build() -> Mapping[str, str]:
    # A megabyte that who is never scraped need not have.
    from importlib.metadata import version  # noqa: PLC0415

    return {"version": version("headcount"), "python": platform.python_version()}


def _resident() -> Sequence[Sample]:
    try:
        pages = int(_STATM.read_text("ascii").split()[1])
    except OSError:
        return []
    return [({}, pages * resource.getpagesize())]


def _of_endpoints(status: RegistrarStatus) -> Iterator[tuple[Metric, Sequence[Sample]]]:
    owned = [({"service": one.service, "port": one.endpoint.rpartition(":")[2]}, one) for one in status.endpoints]
    yield (
        CHECKS,
        [
            (names | {"check": str(index), "type": check.type, "outcome": outcome}, check.counts.get(outcome, 0))
            for names, one in owned
            for index, check in enumerate(one.checks)
            for outcome in Outcome
        ],
    )
    yield (
        TRANSITIONS,
        [(names | {"state": state}, one.transitions.get(state, 0)) for names, one in owned for state in State],
    )
    yield STATE, [(names | {"state": state}, state == one.state) for names, one in owned for state in State]
    yield SUPPRESSED, [(names, one.suppressed) for names, one in owned]
    yield FENCED, [(names, one.fenced) for names, one in owned]


def _lines(metric: Metric, samples: Sequence[Sample]) -> Iterator[str]:
    if not samples:
        return
    yield f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.type}\n"
    for labels, value in samples:
        told = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
        where = f"{{{told}}}" if told else ""
        yield f"{metric.name}{where} {_number(value)}\n"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(round(value, 3))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
