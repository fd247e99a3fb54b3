"""The JSON documents between registrar and registry.

A registrar sends the full state of its endpoints with each heartbeat, so that a registry that lost everything is
rebuilt within one interval. The registry refuses unknown fields, so that a typo is found at once; a newer registrar
therefore sends a newer field only when it is in use (``omit_defaults``). Responses may have more fields than
a registrar reads.
"""

import enum
import math
import re
from typing import Annotated, Any

from msgspec import Meta, Struct

from wire.probe_request import ProbeRequest
from wire.problem import Problem

# The look-ahead at the end of both patterns is there because Python's $ also matches in front of a final newline.
PRINTABLE_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]*$(?!\n)"
"""Text without control characters (C0, DEL, C1): they forge log lines, and PostgreSQL refuses NUL in JSON."""
SERVICE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:@~-]{0,254}$(?!\n)"

Name = Annotated[str, Meta(min_length=1, max_length=255, pattern=PRINTABLE_PATTERN)]
Label = Annotated[str, Meta(max_length=255, pattern=PRINTABLE_PATTERN)]
Text = Annotated[str, Meta(max_length=1024, pattern=PRINTABLE_PATTERN)]
ServiceName = Annotated[
    str,
    Meta(
        max_length=255,
        pattern=SERVICE_PATTERN,
        description="The name that Envoy's EDS cluster asks for.",
        examples=["shop"],
    ),
]
MAX_EXPECTED = 200_000
"""Largest number of endpoints that a service may be expected to have."""
Expected = Annotated[
    int, Meta(ge=0, le=MAX_EXPECTED, description="How many endpoints the service should have, this one included.")
]
MAX_WEIGHT = 10_000
"""Largest weight of an endpoint."""
Weight = Annotated[int, Meta(ge=1, le=MAX_WEIGHT, description="Load balancing weight; unset counts as 1.")]
Incarnation = Annotated[
    int,
    Meta(
        ge=1,
        le=2**53,
        description="Grows with each start of the instance; heartbeats of an older incarnation are refused.",
    ),
]
Seconds = Annotated[float, Meta(ge=1, le=86_400)]

_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MAX_METADATA_DEPTH = 4
"""Levels of nesting."""
_MAX_METADATA_VALUES = 64
"""Values on all levels."""
_MAX_METADATA_TEXT = 1024
"""Characters of a key or a text."""
_MAX_METADATA_NUMBER = 2**53
"""Largest magnitude of a number; JSON readers that use doubles round beyond it."""


class Health(enum.StrEnum):
    """The health status that is published for an endpoint, in Envoy's terms."""

    HEALTHY = "HEALTHY"
    DEGRADED = "DEGRADED"
    UNHEALTHY = "UNHEALTHY"
    DRAINING = "DRAINING"
    TIMEOUT = "TIMEOUT"


class Report(enum.StrEnum):
    """The health that a registrar may report; only the registry publishes the other values of ``Health``."""

    HEALTHY = "HEALTHY"
    DEGRADED = "DEGRADED"
    UNHEALTHY = "UNHEALTHY"


class Registration(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True, gc=False):
    """The full state of one endpoint, as its instance wants it published."""

    instance_id: Annotated[Name, Meta(description="The task or machine that owns the endpoint.")]
    incarnation: Incarnation
    health: Report = Report.HEALTHY
    draining: Annotated[bool, Meta(description="Final for this incarnation.")] = False
    revision: Annotated[Label, Meta(description="The application's build.")] = ""
    region: Label = ""
    zone: Label = ""
    canary: bool = False
    weight: Weight | None = None
    repository: Label | None = None
    metadata: Annotated[
        dict[str, Any],
        Meta(description="Free JSON; its scalar values reach Envoy as envoy.lb metadata for subsets."),
    ] = {}
    detail: Annotated[Text, Meta(description="Result of the last check, for people.")] = ""
    ttl: Annotated[Seconds | None, Meta(description="Lease in seconds; unset means the registry's default.")] = None
    expected: Expected | None = None

    def __post_init__(self) -> None:
        if self.metadata:
            check_metadata(self.metadata)

    def __eq__(self, other: object) -> bool:
        equal = Struct.__eq__(self, other) is True
        return equal and isinstance(other, Registration) and same_json(self.metadata, other.metadata)

    __hash__ = None  # type: ignore[assignment]  # metadata has none


class Heartbeat(Struct, forbid_unknown_fields=True, frozen=True):
    """The full state of one endpoint in a batch of heartbeats."""

    service: ServiceName
    endpoint: Annotated[str, Meta(max_length=64, description="ip:port; IPv6 in brackets")]
    registration: Registration


MAX_HEARTBEATS = 1000
"""Heartbeats in one request."""

_DEPRECATED_WORDS = {"heartbeats": "beats", "results": "answers"}
"""What the lists of ``POST /v1/heartbeats`` were called before; read and answered for this version alone."""


class HeartbeatBatch(Struct, forbid_unknown_fields=True, frozen=True):
    """The heartbeats of several endpoints in one request."""

    heartbeats: Annotated[list[Heartbeat], Meta(min_length=1, max_length=MAX_HEARTBEATS)]


class DeprecatedHeartbeatBatch(HeartbeatBatch, forbid_unknown_fields=True, frozen=True, rename=_DEPRECATED_WORDS):
    """A ``HeartbeatBatch`` as registrars of the version before send it: the list is called ``beats``."""

    heartbeats: Annotated[list[Heartbeat], Meta(min_length=1, max_length=MAX_HEARTBEATS)]


class Grant(Struct, frozen=True, omit_defaults=True):
    """The result of a stored heartbeat: the lease, and when the next heartbeat is due."""

    service: str
    endpoint: str
    status: Annotated[Health, Meta(description="The health status that is published now.")]
    version: Annotated[int, Meta(description="The version of the service that contains this state.")]
    ttl: Annotated[float, Meta(description="Seconds until the lease expires.")]
    interval: Annotated[float, Meta(description="Seconds until the next heartbeat is wanted.")]
    drain_wait: Annotated[float, Meta(description="Seconds to go on serving after a drain.")]
    probes: Annotated[
        ProbeRequest | None,
        Meta(description="Endpoints of the service to probe; only for registrars with `REGISTRAR_PROBES=on`."),
    ] = None


class HeartbeatResult(Struct, frozen=True, omit_defaults=True):
    """The result of one heartbeat of a batch: a grant or a problem."""

    service: str
    endpoint: str
    grant: Grant | None = None
    problem: Problem | None = None


class HeartbeatResults(Struct, frozen=True):
    """The results of a batch, in the order of its heartbeats."""

    results: list[HeartbeatResult]


class DeprecatedHeartbeatResults(HeartbeatResults, frozen=True, rename=_DEPRECATED_WORDS):
    """A ``HeartbeatResults`` as registries of the version before send it: the list is called ``answers``."""

    results: list[HeartbeatResult]


def check_metadata(metadata: dict[str, Any]) -> None:
    """Refuse free-form JSON that PostgreSQL, Envoy or a log cannot hold.

    Raises:
        ValueError: a value is refused; the message has its key and the reason.
    """
    remaining = _MAX_METADATA_VALUES
    pending: list[tuple[str, Any, int]] = [("metadata", metadata, 0)]
    while pending:
        where, value, depth = pending.pop()
        if isinstance(value, dict | list):
            if depth == _MAX_METADATA_DEPTH:
                raise ValueError(f"{where} is nested deeper than {_MAX_METADATA_DEPTH} levels")
            remaining -= len(value)
            if remaining < 0:
                raise ValueError(f"metadata has more than {_MAX_METADATA_VALUES} values")
            pending.extend(_children(where, value, depth + 1))
        else:
            _check_scalar(where, value)


def same_json(first: object, second: object) -> bool:
    """Return whether two JSON values are equal to Envoy's subsets, which tell true, 1 and 1.0 apart."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same_json(value, second[key]) for key, value in first.items())
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same_json, first, second))
    return type(first) is type(second) and first == second


def _children(where: str, value: dict[str, Any] | list[Any], depth: int) -> list[tuple[str, Any, int]]:
    if isinstance(value, list):
        return [(f"{where}[{index}]", item, depth) for index, item in enumerate(value)]
    for key in value:
        _check_scalar(f"a key of {where}", key)
    return [(f"{where}.{key}", item, depth) for key, item in value.items()]


def _check_scalar(where: str, value: object) -> None:
    if isinstance(value, str):
        if len(value) > _MAX_METADATA_TEXT:
            raise ValueError(f"{where} is longer than {_MAX_METADATA_TEXT} characters")
        if _CONTROL_CHARACTER.search(value):
            raise ValueError(f"{where} has a control character")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is not a finite number")
    elif isinstance(value, int | float) and abs(value) > _MAX_METADATA_NUMBER:
        raise ValueError(f"{where} is larger than 2**53, beyond which JSON readers disagree")
