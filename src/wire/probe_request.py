"""The request of a registry to a registrar to probe endpoints of its service; a grant carries it."""

from typing import Annotated

from msgspec import Meta, Struct

MAX_BASE_LINES = 20
"""Endpoints of a base line in one request at most."""
MAX_SUSPECTS = 10
"""Suspects in one request at most."""


class ProbeTarget(Struct, frozen=True):
    """An endpoint to connect to."""

    endpoint: Annotated[str, Meta(max_length=64, description="ip:port; IPv6 in brackets")]
    incarnation: int


class ProbeSuspect(Struct, frozen=True):
    """A suspect to connect to, and the endpoints by which the registrar checks itself meanwhile."""

    endpoint: Annotated[str, Meta(max_length=64, description="ip:port; IPv6 in brackets")]
    incarnation: int
    controls: Annotated[
        tuple[str, ...],
        Meta(description="Two endpoints that renew now, on other hosts than the suspect's and its own."),
    ]


class ProbeRequest(Struct, frozen=True, omit_defaults=True):
    """Endpoints to probe; a registrar that does not know this field ignores it."""

    base_lines: Annotated[
        list[ProbeTarget],
        Meta(description="Healthy endpoints; only a prober that reached one has a say about it later."),
    ] = []
    suspects: Annotated[list[ProbeSuspect], Meta(description="Suspects; the results go to `POST /v1/probes`.")] = []
