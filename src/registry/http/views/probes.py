"""The JSON documents of results of probes."""

from typing import Annotated

from msgspec import Meta, Struct


class ProbesCounted(Struct, frozen=True):
    """The number of results of probes that say something."""

    counted: Annotated[
        int,
        Meta(description="Those about a suspect of the service and its incarnation, on another host than the prober."),
    ]
