"""An errand: a question of an operator to one Envoy, which the registrar beside it takes and answers.

The verbs are a closed list, each with typed arguments. No path and no body of the asker reaches Envoy: the registrar
makes each request to the admin interface itself, from these values.
"""

import re
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from wire.model import PRINTABLE_PATTERN, SERVICE_PATTERN, Label

MAX_HOLD = 25.0
"""Seconds that a registry holds a registrar's request for its next errand; load balancers cut at 60 s."""
MAX_RESULT_BYTES = 256 * 1024
"""Bytes of a result."""
MAX_ENDPOINTS = 64
"""Endpoints that a registrar names when it asks for its next errand."""
MAX_LOGGERS = 20
"""Loggers whose level one errand sets."""
MAX_LEVEL_SECONDS = 1800
"""Seconds after which a log level goes back at the latest."""
MAX_TAP_SECONDS = 60
"""Seconds of a tap."""
MAX_TRACES = 50
"""Requests that one tap returns."""
MAX_SAMPLED_PERCENT = 10.0
"""Percent of the requests that a tap looks at unless it was asked for all: each costs Envoy more."""

OPTIONAL_SERVICE_PATTERN = f"(?:^$(?!\\n))|(?:{SERVICE_PATTERN})"
"""The name of a service, or nothing."""

Level = Literal["trace", "debug", "info", "warning", "error", "critical", "off"]
"""The levels of Envoy's loggers."""
Section = Literal["bootstrap", "listeners", "clusters", "routes", "endpoints"]
"""The parts of Envoy's configuration that may be looked at; secrets are none of them."""
Mode = Literal["none", "read", "debug"]
"""The errands that a registrar takes: none, those that only read, or all."""
Grouping = Literal["path", "method"]
"""The names of a request by which ``top`` adds up."""

_Seconds = Annotated[int, Meta(ge=1, le=MAX_TAP_SECONDS)]
_Logger = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,63}$(?!\n)")]
_Shown = Annotated[str, Meta(max_length=512, pattern=PRINTABLE_PATTERN)]
"""A value that Envoy or a client made: registrars make it printable and cut it."""


class Clusters(Struct, frozen=True, forbid_unknown_fields=True, tag_field="verb", tag="clusters", omit_defaults=True):
    """Look at the endpoints that an Envoy holds of one cluster, or at the list of its clusters."""

    cluster: Annotated[
        Label, Meta(description="The cluster, by its name or its EDS service name. Empty: a list of all.")
    ] = ""


class Config(Struct, frozen=True, forbid_unknown_fields=True, tag_field="verb", tag="config", omit_defaults=True):
    """Look at a section of an Envoy's configuration, without what is secret in it."""

    section: Section = "clusters"
    name: Annotated[Label, Meta(description="The only resource of the section to show, by its name. Empty: all.")] = ""


class LogLevel(Struct, frozen=True, forbid_unknown_fields=True, tag_field="verb", tag="log-level", omit_defaults=True):
    """Set the level of some of an Envoy's loggers for a while; it goes back by itself."""

    loggers: Annotated[
        dict[_Logger, Level], Meta(min_length=1, max_length=MAX_LOGGERS, description="The level of each logger.")
    ]
    seconds: Annotated[int, Meta(ge=1, le=MAX_LEVEL_SECONDS, description="After which the level goes back.")] = 600


class Requests(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The requests that a tap looks at."""

    seconds: Annotated[_Seconds, Meta(description="How long to look.")] = 30
    status: Annotated[
        str, Meta(pattern=r"^([1-5](xx|[0-9]{2}))?$(?!\n)", description="`5xx`, or one like `503`. Empty: any.")
    ] = ""
    method: Annotated[str, Meta(pattern=r"^[A-Z]{0,16}$(?!\n)", description="Empty: any.")] = ""
    path: Annotated[
        str,
        Meta(
            pattern=r"^(/[!-~]{0,255})?$(?!\n)",
            description="What the path begins with, in ASCII. Empty: any.",
        ),
    ] = ""
    caller: Annotated[
        str,
        Meta(
            max_length=255,
            pattern=OPTIONAL_SERVICE_PATTERN,
            description="The service whose requests to this one are looked at: the Envoys of the caller are asked, and "
            "look at what they send. Empty: the Envoys of the service itself are asked.",
        ),
    ] = ""
    config_id: Annotated[
        Label, Meta(description="The tap filter, by its `config_id`. Empty: the one that fits the question.")
    ] = ""
    percent: Annotated[float, Meta(gt=0, le=100, description="Percent of the requests that are looked at.")] = 1.0
    all_requests: Annotated[
        bool, Meta(description=f"Allows more than {MAX_SAMPLED_PERCENT:g} %, which every request pays for.")
    ] = False

    def __post_init__(self) -> None:
        if self.percent > MAX_SAMPLED_PERCENT and not self.all_requests:
            raise ValueError(
                f"percent is {self.percent:g}; more than {MAX_SAMPLED_PERCENT:g} needs all_requests (registryctl: "
                "--all-requests), because a request that is looked at costs Envoy more"
            )


class Tap(Requests, frozen=True, forbid_unknown_fields=True, tag_field="verb", tag="tap", omit_defaults=True):
    """Look at single requests of an Envoy: an allow list of their headers, and no body."""

    max_traces: Annotated[int, Meta(ge=1, le=MAX_TRACES, description="Requests to return.")] = MAX_TRACES


class Top(Requests, frozen=True, forbid_unknown_fields=True, tag_field="verb", tag="top", omit_defaults=True):
    """Add up the requests of an Envoy by method and path; ids in paths are folded."""

    by: Grouping = "path"


Arguments = Clusters | Config | LogLevel | Tap | Top
"""The verbs and their arguments."""
READING = (Clusters, Config)
"""The verbs that change nothing and see no request."""


class Errand(Struct, frozen=True, omit_defaults=True):
    """An errand as a registrar gets it; one that knows the verb not answers so."""

    id: str
    service: str
    """The service whose endpoint the registrar speaks for."""
    endpoint: str
    arguments: Arguments
    seconds: float
    """Seconds that are left for the answer."""
    callee: str = ""
    """The service whose requests are looked at where the registrar's is the caller; else empty."""


class NextErrand(Struct, frozen=True, omit_defaults=True):
    """The answer to a registrar that asks for its next errand."""

    errand: Errand | None = None
    retry_after: Annotated[float, Meta(description="Seconds to wait before the next request; 0: ask at once.")] = 0.0


class HostRow(Struct, frozen=True, omit_defaults=True):
    """An endpoint of a cluster as an Envoy holds it."""

    address: _Shown
    health: _Shown
    """What the registry said (EDS), and what Envoy found out besides, like `ejected`."""
    zone: _Shown = ""
    weight: int = 1
    requests: int = 0
    errors: int = 0
    active: int = 0


class ClusterRow(Struct, frozen=True, omit_defaults=True):
    """A cluster of an Envoy in short."""

    name: _Shown
    service: _Shown = ""
    hosts: int = 0
    healthy: int = 0


class ClustersResult(Struct, frozen=True, omit_defaults=True):
    """The clusters of an Envoy, or the endpoints of one."""

    clusters: list[ClusterRow] = []
    hosts: list[HostRow] = []
    left_out: Annotated[int, Meta(description="Rows that did not fit.")] = 0


class ConfigResult(Struct, frozen=True, omit_defaults=True):
    """A section of an Envoy's configuration, with its secrets cut."""

    section: Section
    resources: list[Any] = []
    cut: Annotated[int, Meta(description="Values that were replaced because they are secret or may be.")] = 0
    left_out: Annotated[int, Meta(description="Resources that did not fit.")] = 0


class LogLevelResult(Struct, frozen=True, omit_defaults=True):
    """The loggers that were set, their levels before, and when these come back."""

    loggers: dict[str, Level]
    before: dict[str, Level]
    seconds: int


class Trace(Struct, frozen=True, omit_defaults=True):
    """A request that a tap saw: nothing of it but these headers leaves the registrar."""

    method: _Shown = ""
    path: Annotated[_Shown, Meta(description="Without the query.")] = ""
    authority: _Shown = ""
    status: _Shown = ""
    request_id: _Shown = ""
    content_type: _Shown = ""
    user_agent: _Shown = ""
    grpc_status: _Shown = ""
    upstream_milliseconds: _Shown = ""


class TapResult(Struct, frozen=True, omit_defaults=True):
    """The requests that a tap saw."""

    config_id: _Shown
    seconds: float
    percent: float
    traces: list[Trace] = []
    left_out: Annotated[int, Meta(description="Requests that did not fit.")] = 0


class TopRow(Struct, frozen=True, omit_defaults=True):
    """The requests of one method and path that a tap saw."""

    method: _Shown
    path: _Shown
    requests: int
    failures: Annotated[int, Meta(description="Those with a 5xx status, or a gRPC status that is one.")] = 0
    p50: Annotated[float | None, Meta(description="Milliseconds of the upstream service.")] = None
    max: Annotated[float | None, Meta(description="Milliseconds of the upstream service.")] = None


class TopResult(Struct, frozen=True, omit_defaults=True):
    """The requests that a tap saw, added up."""

    config_id: _Shown
    seconds: float
    percent: float
    rows: list[TopRow] = []
    left_out: Annotated[int, Meta(description="Rows that did not fit.")] = 0


class ErrandResult(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The answer of a registrar: the result of the errand's verb, or why there is none."""

    outcome: Annotated[
        Literal["done", "refused", "failed"],
        Meta(
            description="`refused`: the registrar does not do this, by its settings or its rules. `failed`: Envoy did "
            "not answer, or could not."
        ),
    ]
    detail: Annotated[str, Meta(max_length=2048, pattern=PRINTABLE_PATTERN, description="For people.")] = ""
    clusters: ClustersResult | None = None
    config: ConfigResult | None = None
    log_level: LogLevelResult | None = None
    tap: TapResult | None = None
    top: TopResult | None = None

    def fits(self, arguments: Arguments) -> bool:
        """Return whether this has the result of that verb, or none where nothing was done, and no other."""
        present = [name for name in RESULTS if getattr(self, name) is not None]
        return present == ([verb_of(arguments).replace("-", "_")] if self.outcome == "done" else [])


RESULTS = tuple(name for name in ErrandResult.__struct_fields__ if name not in ("outcome", "detail"))
"""The fields of an ``ErrandResult`` that are results: one for each verb, by its name."""


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str, length: int = 512) -> str:
    """Return a text without control characters, and cut: terminals and log lines obey them."""
    return _CONTROL.sub("?", text[:length])


def verb_of(arguments: Arguments) -> str:
    """Return the name of the verb, like ``log-level``."""
    return str(arguments.__struct_config__.tag)
