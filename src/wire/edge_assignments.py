"""The JSON documents between a registrar's edge and the registry: one question for everything that its Envoys hold.

An edge is the discovery cache of the Envoys beside a registrar. Tokens are the registry's own ``version_info``, as a
poll of Envoy brings them, so that an Envoy may poll the edge and the registry in turn.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

EDGE_PATH = "/v1/edge/assignments"
"""The path that an edge posts its questions to."""
MAX_EDGE_NAMES = 1_000
"""Names of one question; for more of them an edge asks several."""
MAX_EDGE_TAKEN = 2 * MAX_EDGE_NAMES
"""Versions that Envoys have taken, of one question; the next one, which builds on it, has more."""
MAX_TOKEN = 1024
"""Characters of a token, the ones of Envoys among them: what is longer is none of a registry's."""
MAX_EDGE_HOLD = 10.0
"""Seconds for which a question is held at most."""

ResourceName = Annotated[str, Meta(max_length=1024)]
Token = Annotated[str, Meta(max_length=MAX_TOKEN, description="A version_info of the registry; empty: none is held.")]
TypeUrl = Annotated[str, Meta(max_length=255)]
NodeText = Annotated[str, Meta(max_length=1024)]
_Age = Annotated[float, Meta(ge=0, le=1e9)]


class TakenVersion(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """The version of one name that an Envoy has taken, by its last poll."""

    node: Annotated[NodeText, Meta(description="The id of the Envoy's node.")]
    service: Annotated[ResourceName, Meta(description="The name that it polls for; `*`: all clusters or listeners.")]
    version: Annotated[Token, Meta(description="The version_info of its last poll; empty: it brought none.")]
    type: Annotated[TypeUrl, Meta(description="The type URL that it polls for; empty: endpoints.")] = ""
    cluster: Annotated[NodeText | None, Meta(description="Of its node; left out: that of the question.")] = None
    zone: Annotated[NodeText | None, Meta(description="Of its node; left out: that of the question.")] = None
    envoy: Annotated[str, Meta(max_length=64, description="The version of Envoy.")] = ""
    address: Annotated[str, Meta(max_length=64, description="By its X-Forwarded-For; empty: the sender's.")] = ""
    offered: Annotated[Token, Meta(description="The version_info of the last 200; empty after a 304.")] = ""
    refusals: Annotated[int, Meta(ge=0, le=2**53, description="Polls in a row without the version offered.")] = 0
    refused_ago: Annotated[_Age | None, Meta(description="Seconds since the first of these.")] = None
    started_ago: Annotated[_Age | None, Meta(description="Seconds since its last poll without a version.")] = None
    pause: Annotated[_Age | None, Meta(description="Usual seconds between an answer and its next poll.")] = None


class EdgeQuestion(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """Everything that an edge holds; it is answered when something of it is older than the registry's.

    Names of ``resources`` are asked for the node of the question. ``taken`` has all Envoys that poll the edge, those
    whose polls are held among them; they are subscribers as if they polled the registry.

    A question is whole, or builds on the one before (``after``): then it has only what is new or has changed since, and
    the registry answers 412 where it does not remember that one. A question that is held ends with 304 when another one
    builds on it, so that an edge may tell at any time what its Envoys have taken.
    """

    node: Annotated[NodeText, Meta(description="The id of the node of the Envoy beside.")] = ""
    cluster: Annotated[NodeText, Meta(description="The `cluster` of that node.")] = ""
    zone: Annotated[NodeText, Meta(description="The zone of that node.")] = ""
    edge: Annotated[str, Meta(max_length=255, description="The registrar's instance; empty: the node's id.")] = ""
    held: Annotated[dict[ResourceName, Token], Meta(description="By service, the token of its assignment.")] = {}
    resources: Annotated[
        dict[TypeUrl, dict[ResourceName, Token]],
        Meta(description="By type URL of clusters, listeners and routes, and by name, the token that is held."),
    ] = {}
    taken: list[TakenVersion] = []
    id: Annotated[
        str,
        Meta(max_length=64, description="A name of this question that nobody can guess, on which the next one builds."),
    ] = ""
    after: Annotated[str, Meta(max_length=64, description="The `id` of the question that this one builds on.")] = ""


class EdgeAssignment(Struct, frozen=True, omit_defaults=True):
    """The newest assignment of a service."""

    version_info: str
    assignment: Annotated[
        msgspec.Raw, Meta(description="The ClusterLoadAssignment of a v3 poll, byte for byte; none: never registered.")
    ] = msgspec.field(default_factory=msgspec.Raw)


class EdgeResources(Struct, frozen=True):
    """The newest resources of a name, as a v3 poll for it is answered."""

    version_info: str
    resources: Annotated[list[msgspec.Raw], Meta(description="The resources, byte for byte; none: never defined.")]


class EdgeAnswer(Struct, frozen=True, omit_defaults=True):
    """Everything of a question that the edge does not hold, and nothing else.

    A name that may not be discovered is named in ``refused`` and answered as a poll: at first without resources, and
    later not at all.
    """

    assignments: dict[str, EdgeAssignment] = {}
    resources: Annotated[dict[str, dict[str, EdgeResources]], Meta(description="By type URL and name.")] = {}
    refused: Annotated[
        list[str],
        Meta(description="Names that the sender may not discover; other types' than endpoints as `<type URL>/<name>`."),
    ] = []


def refusal_name(type_url: str, name: str) -> str:
    """Return how ``refused`` names something: a route may have the name of a service, and only one be refused.

    Args:
        type_url: empty for endpoints.
        name: the name that is polled for.
    """
    return f"{type_url}/{name}" if type_url else name
