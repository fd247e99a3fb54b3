"""An entry of the edge: the newest answer for one name, its source, and the Envoys that poll for it."""

import enum

from registrar.edge.polled_types import ENDPOINTS, PolledType
from registrar.edge.subscription import Subscription
from wire.edge_assignments import refusal_name
from wire.node import Node

Key = tuple[str, str, str, str]
"""Kind, name, and for resources of one node its id and cluster; those are empty otherwise."""


class Source(enum.StrEnum):
    """Where the content of an entry came from."""

    NOWHERE = "nowhere"
    """There is none."""
    REGISTRY = "registry"
    DISK = "disk"
    FALLBACK = "fallback"


def key_of(polled: PolledType, name: str, node: Node) -> Key:
    """Return the key of what a node polls for."""
    return (polled.kind, name, node.id, node.cluster) if polled.of_node else (polled.kind, name, "", "")


class Entry:
    """The newest content of one name. Times are those of the loop.

    Attributes:
        key: what it is of.
        polled: the type of its resources.
        name: the name that is polled for.
        token: the registry's token of the content; empty while there is none.
        resources: the resources in JSON, one behind the other; empty where the registry has none.
        source: where they came from.
        received: the wall clock's time at which the registry said so, in seconds.
        answered_at: when the registry last said that this is its newest content, or gave it; before the start for what
            came from disk, by the wall clock's difference.
        confirmations: how often the registry did since the start.
        ask_anew: whether the next question has to leave its token out, because an Envoy brings another database's.
        refused: whether the registry said that this process may not discover the name.
        loaded: whether the disk was looked at.
        learnt_at: when it was first polled for.
        polled_at: when it was last polled for.
        subscriptions: the Envoys that poll for it, by node id, cluster and address.
        unsaved: whether the registry gave content that is not on disk.
    """

    __slots__ = (
        "answered_at",
        "ask_anew",
        "confirmations",
        "key",
        "learnt_at",
        "loaded",
        "name",
        "polled",
        "polled_at",
        "received",
        "refused",
        "resources",
        "source",
        "subscriptions",
        "token",
        "unsaved",
    )

    def __init__(self, polled: PolledType, name: str, node: Node, now: float) -> None:
        self.key = key_of(polled, name, node)
        self.polled = polled
        self.name = name
        self.token = ""
        self.resources = b""
        self.source = Source.NOWHERE
        self.received = 0.0
        self.answered_at: float | None = None
        self.confirmations = 0
        self.ask_anew = False
        self.refused = False
        self.loaded = False
        self.learnt_at = self.polled_at = now
        self.unsaved = False
        self.subscriptions: dict[tuple[str, str, str], Subscription] = {}

    @property
    def trusted(self) -> bool:
        """Whether the registry gave the content to this process, or confirmed it since the start."""
        return self.confirmations > 0

    @property
    def held(self) -> str:
        """The token to ask the registry with; what came from a fallback counts as nothing.

        A name that is refused is asked for with what there is: without a token its refusal would not be held.
        """
        if not self.refused and (self.ask_anew or self.source is Source.FALLBACK):
            return ""
        return self.token

    @property
    def refusal_name(self) -> str:
        """The name by which the registry refuses it."""
        return refusal_name("" if self.polled is ENDPOINTS else self.polled.type_url, self.name)

    def confirm(self, now: float, wall: float) -> None:
        """Note that the registry has nothing newer."""
        self.confirmations += 1
        self.ask_anew = False
        self.answered_at, self.received = now, wall

    def take(self, token: str, resources: bytes, source: Source) -> None:
        """Replace the content."""
        if source is Source.REGISTRY and (token, resources) != (self.token, self.resources):
            # That the registry has nothing does not replace what it had: an Envoy may need that once more.
            self.unsaved = bool(resources)
        self.token, self.resources, self.source = token, resources, source
