"""The results of a registrar's probes, as it sends them to the registry."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from wire.model import Incarnation, Name, ServiceName
from wire.probe_request import MAX_SUSPECTS

EndpointText = Annotated[str, Meta(max_length=64, description="ip:port; IPv6 in brackets")]
_Age = Annotated[float, Meta(ge=0, le=86_400)]


class ProbeResult(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """The result of the attempts at one suspect. Times are durations, since clocks differ."""

    endpoint: EndpointText
    incarnation: Incarnation
    outcome: Annotated[
        Literal["refused", "unreachable", "connected"],
        Meta(
            description="`refused`: three resets in a row, at least 1 s apart. `unreachable`: three time-outs in 5 s "
            "or more. `connected`: the last attempt connected. Anything else is not sent."
        ),
    ]
    attempts: Annotated[int, Meta(ge=1, le=100)]
    ago: Annotated[_Age, Meta(description="Seconds since the last attempt.")]
    reached_ago: Annotated[
        _Age | None, Meta(description="Seconds since the registrar last connected to it while it was healthy.")
    ] = None


class ProbeReport(Struct, forbid_unknown_fields=True, frozen=True):
    """The results of the probes for one endpoint of a registrar, which names the service and the prober."""

    service: ServiceName
    endpoint: Annotated[EndpointText, Meta(description="The registrar's own endpoint, whose grant had the request.")]
    instance_id: Annotated[Name, Meta(description="The instance that owns it.")]
    results: Annotated[list[ProbeResult], Meta(min_length=1, max_length=MAX_SUSPECTS)]
