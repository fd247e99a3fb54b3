"""Streams as others look at them, in any state that a test wants."""

from collections.abc import Collection, Iterable, Mapping

from registry.http2.call import StatusError
from registry.xds.grpc.observer import ObservedStream, Record, Rejection
from registry.xds.resources import ENDPOINTS, ResourceType
from wire.node import Node


class RecordedType(Record):
    """The state of one type, which a test sets."""

    type: ResourceType = ENDPOINTS
    names: Collection[str] = ()
    wildcard = False
    answers = 1
    sent_at = 0.0
    unanswered: Mapping[str, str] = {}
    """The versions of the answer in flight."""
    waiting: Collection[str] = ()

    def __init__(self, accepted: Mapping[str, str]) -> None:
        self.names = list(accepted)
        self.held_versions = dict(accepted)
        self.rejections: Mapping[str, Rejection] = {}
        self.refusals: Mapping[str, str] = {}
        self.too_large: Collection[str] = ()

    @property
    def held(self) -> Collection[str]:
        """The names of which it has accepted a version."""
        return [name for name, version in self.held_versions.items() if version]

    @property
    def unheld(self) -> Collection[str]:
        """The names of which it has accepted none."""
        return [name for name in self.names if not self.held_versions.get(name)]

    @property
    def troubled(self) -> Collection[str]:
        """The names in trouble."""
        return {*self.rejections, *self.refusals, *self.too_large}

    def accepted(self, name: str) -> str:
        """Return what was acknowledged."""
        return self.held_versions.get(name, "")

    def offered(self, name: str) -> str:
        """Return what was sent."""
        return self.unanswered.get(name, self.accepted(name))

    def rejection(self, name: str) -> Rejection | None:
        """Return the rejection of a name."""
        return self.rejections.get(name)

    def refusal(self, name: str) -> str:
        """Return the refusal of a name."""
        return self.refusals.get(name, "")

    def oversized(self, name: str) -> bool:
        """Return whether a name is too large."""
        return name in self.too_large


class ShownStream(ObservedStream):
    """A stream of one client."""

    node: Node = Node()
    user_agent: str = ""
    delta: bool = False
    records: Iterable[Record] = ()

    def __init__(self, node: Node, user_agent: str, *, delta: bool = False, records: Iterable[Record]) -> None:
        self.node = node
        self.user_agent = user_agent
        self.delta = delta
        self.records = list(records)
        self.error: StatusError | None = None
        """What ended it."""

    def end(self, error: StatusError) -> None:
        """Note what ends it."""
        self.error = error
