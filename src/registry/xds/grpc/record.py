"""The memory of a stream for one type: what its client asks for, was sent, and said of that."""

from collections.abc import Collection, Iterable, Mapping

from registry.xds.grpc.observer import Rejection
from registry.xds.grpc.response import WholeResponse
from registry.xds.grpc.source import EncodedResource, Source
from registry.xds.resource_cache import StandingWatch
from registry.xds.resources import ENDPOINTS, ResourceType
from registry.xds.version_info import format_version

MAX_FORM = 1024
"""Bytes that are kept of an ACK: its type and the names of some 30 resources."""


class TypeRecord:
    """One type on one stream; a `registry.xds.grpc.observer.Record`.

    Attributes:
        source: where its resources come from.
        type: its type, of the source.
        names: the names that the client has subscribed to, without ``*``, in the order of its last request.
        wildcard: whether it has subscribed to all resources of its node.
        has_named: whether it has ever named anything, after which a request without names asks for nothing.
        brought: the version_info of its first request: what it holds from an earlier stream.
        brought_versions: of the incremental variant, the version of each name that the client holds from an earlier
            stream, until it is sent another.
        dirty: subscribed names that may have something to send.
        dirty_all: whether all of them may have.
        answer_due: whether an answer is owed even if there is nothing to send.
        uses_clusters: whether its resources name clusters, which have to be there before: listeners and routes do.
        unsure: whether this process could not say, so that there is nothing to do before the next change.
        sent: the version of each name that the client was sent last, or has brought; without those it has rejected.
        kept: the same as resources, of full sets.
        answers: how many answers were sent.
        nonce: of the last one; empty before it.
        whole_number: the number of the last whole response that was sent, of those that streams share.
        acknowledged_form: what an ACK of the client has between its version and its nonce; empty: not known, or too
            long to be kept.
        is_ordinary: whether refused, missing, rejected, alone, holds_nothing, brought_versions, too_large are known to
            be empty, which saves looking at each for each push.
        expected_ack: the ACK of the answer in flight, if its bytes are known; empty: they are not.
        in_flight: the names of the last answer while it is neither accepted nor rejected, with the version that each
            replaces; None: it is.
        answer_size: how many resources the last answer had.
        sent_at: when the last answer was sent, monotonic.
        refused: why the client may not discover a name, by name; ``*`` if it may not discover its node's resources.
        removals_due: whether clusters are to be removed, once listeners and routes that may use them are accepted.
        rejected: the version of each name that the client has rejected, until it accepts another.
        rejections: the newest rejection of each name, until the client accepts another version of it.
        alone: names that go into answers of their own, because one of them made the client reject an answer of many.
        missing: names that the client was told do not exist.
        holds_nothing: names of which the client holds nothing, or an assignment without endpoints, for sure: it brought
            no version of the type, and was sent nothing else.
        too_large: the versions by name that are too large for this client.
        watch: calls back at changes; None before the first request.
    """

    __slots__ = (
        "acknowledged_form",
        "alone",
        "answer_due",
        "answer_size",
        "answers",
        "brought",
        "brought_versions",
        "dirty",
        "dirty_all",
        "expected_ack",
        "has_named",
        "holds_nothing",
        "in_flight",
        "is_ordinary",
        "kept",
        "missing",
        "names",
        "nonce",
        "refused",
        "rejected",
        "rejections",
        "removals_due",
        "sent",
        "sent_at",
        "source",
        "too_large",
        "type",
        "unsure",
        "uses_clusters",
        "watch",
        "whole_number",
        "wildcard",
    )

    def __init__(self, source: Source) -> None:
        self.source = source
        self.type: ResourceType = source.type
        self.uses_clusters = source.type.order > ENDPOINTS.order
        self.names: dict[str, None] = {}
        self.wildcard = False
        self.has_named = False
        self.brought = ""
        self.brought_versions: dict[str, str] = {}
        self.dirty: dict[str, None] = {}
        self.dirty_all = False
        self.answer_due = False
        self.unsure = False
        self.sent: dict[str, str] = {}
        self.kept: dict[str, EncodedResource] = {}
        self.answers = 0
        self.nonce = ""
        self.whole_number = 0
        self.is_ordinary = False
        self.acknowledged_form = b""
        self.expected_ack = b""
        self.in_flight: dict[str, str] | None = None
        self.answer_size = 0
        self.sent_at = 0.0
        self.refused: dict[str, str] = {}
        self.removals_due = False
        self.rejected: dict[str, str] = {}
        self.rejections: dict[str, Rejection] = {}
        self.alone: set[str] = set()
        self.missing: set[str] = set()
        self.holds_nothing: set[str] = set()
        self.too_large: dict[str, str] = {}
        self.watch: StandingWatch | None = None

    @property
    def has_work(self) -> bool:
        """Whether there may be something to send."""
        return bool(self.dirty or self.dirty_all or self.answer_due) and not self.unsure

    @property
    def plain_change(self) -> str | None:
        """The one name that may have changed, if nothing else is to be considered; None: there is."""
        if len(self.dirty) != 1 or self.dirty_all or self.answer_due or self.unsure:
            return None
        (name,) = self.dirty
        if not self.is_ordinary:
            special = (
                self.refused,
                self.missing,
                self.rejected,
                self.alone,
                self.holds_nothing,
                self.brought_versions,
                self.too_large,
            )
            self.is_ordinary = not any(special)
            if any(name in names for names in special):
                return None
        return name

    @property
    def held(self) -> Collection[str]:
        """The names of which the client holds a version for sure."""
        if not self.in_flight:
            return self.sent.keys()
        replaced = {name for name, version in self.in_flight.items() if version}
        return (self.sent.keys() - self.in_flight.keys()) | replaced

    @property
    def unheld(self) -> Collection[str]:
        """The names that are asked for, and of which the client holds no version for sure."""
        return self.names.keys() - self.held

    @property
    def unanswered(self) -> Collection[str]:
        """The names of the answer that is in flight."""
        return () if self.in_flight is None else self.in_flight.keys()

    @property
    def waiting(self) -> Collection[str]:
        """The names that may have something to send, and wait for their turn."""
        return (*self.names, *self.sent) if self.dirty_all else self.dirty.keys()

    @property
    def troubled(self) -> Collection[str]:
        """The names with a rejection, a refusal, or a newest version that is too large."""
        return (*self.rejections, *self.refused, *self.too_large)

    def accepted(self, name: str) -> str:
        """Return the version of a name that the client holds for sure; empty: none."""
        if self.in_flight is not None and name in self.in_flight:
            return self.in_flight[name]
        if name in self.missing and name not in self.dirty:
            # It knows that there is nothing.
            return format_version(self.source.database_id, 0)
        return self.sent.get(name, "")

    def offered(self, name: str) -> str:
        """Return the version of a name that was sent last; empty: none."""
        if self.in_flight is None and name in self.rejections:
            return self.rejections[name].versions.get(name, "")
        return self.sent.get(name, "")

    def rejection(self, name: str) -> Rejection | None:
        """Return the newest rejection of a name, until the client accepts another version of it."""
        return self.rejections.get(name)

    def refusal(self, name: str) -> str:
        """Return why the client may not discover a name; empty: it may."""
        return self.refused.get(name) or self.refused.get("*", "")

    def oversized(self, name: str) -> bool:
        """Return whether the newest version of a name is too large for the client."""
        return name in self.too_large

    def note_whole(self, whole: WholeResponse) -> None:
        """Note that an answer is sent which other streams send, too."""
        self.answers += 1
        self.nonce, self.whole_number = whole.nonce, whole.number
        form = self.acknowledged_form
        self.expected_ack = whole.accepted_version + form + whole.accepted_nonce if form else b""

    def settle(self) -> dict[str, str]:
        """Return the answer in flight as ``in_flight`` has it: it is in flight no longer."""
        in_flight, self.in_flight, self.expected_ack = self.in_flight, None, b""
        return in_flight or {}

    def note_form(self, ack: bytes, version: bytes, nonce: bytes) -> None:
        """Remember the form of an ACK, if it begins with its version and ends with its nonce."""
        length = len(ack) - len(version) - len(nonce)
        if 0 < length <= MAX_FORM and ack.startswith(version) and ack.endswith(nonce):
            self.acknowledged_form = ack[len(version) : len(version) + length]

    def forget_form(self) -> None:
        """Forget the form of ACKs, because the next one will name other resources."""
        self.acknowledged_form = self.expected_ack = b""

    def note_accepted(self, names: Iterable[str]) -> None:
        """Forget what the client has rejected of these names, because it has accepted another version."""
        for name in names:
            self.rejected.pop(name, None)
            self.rejections.pop(name, None)

    def take_back(self, in_flight: Mapping[str, str]) -> None:
        """Take it that the client holds what it had before an answer."""
        self.missing.difference_update([name for name in in_flight if name not in self.sent])
        for name, previous in in_flight.items():
            self.sent.pop(name, None)
            if previous:
                self.sent[name] = previous

    def note_missing(self, names: Iterable[str]) -> None:
        """Note that the answer in flight says of these names that they do not exist."""
        self.missing.update(names)
        if self.in_flight is not None:
            for name in names:
                self.in_flight.setdefault(name, "")

    def forget(self, name: str, *, keep: bool = False) -> None:
        """Forget a name that the client has unsubscribed from: asked for again, it is sent again.

        Args:
            name: the name.
            keep: whether it still has the resource, because it asks for all.
        """
        self.refused.pop(name, None)
        self.missing.discard(name)
        self.holds_nothing.discard(name)
        if keep:
            return
        self.dirty.pop(name, None)
        self.sent.pop(name, None)
        self.brought_versions.pop(name, None)
        self.kept.pop(name, None)
        self.rejected.pop(name, None)
        self.rejections.pop(name, None)
        self.too_large.pop(name, None)
        self.alone.discard(name)
        if self.in_flight is not None:
            self.in_flight.pop(name, None)
