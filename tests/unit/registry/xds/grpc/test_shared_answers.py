"""The answer to a change that many streams send as it is, and its ACK, which is known by its bytes."""

from typing import Any

import pytest
from harness.xds_messages import DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse
from harness.xds_world import EDS, Talk, World

from registry.http2.sender import MAX_FRAMED
from registry.xds.grpc.delta import DeltaStream
from registry.xds.grpc.sotw import SotwStream
from registry.xds.grpc.stream import Stream

WAYS = pytest.mark.parametrize("kind", [SotwStream, DeltaStream])


class Client:
    """A client of one service, on bytes: it acknowledges what it is sent."""

    def __init__(self, world: World, kind: type[Stream], *names: str) -> None:
        self.talk = Talk(world, kind)
        self.names = names
        self.kind = kind
        self.last = b""
        self.say()

    def say(self, *, names: tuple[str, ...] = (), **fields: Any) -> bool:
        """Send a request; return whether the stream may have something to send then."""
        if self.kind is SotwStream:
            request = DiscoveryRequest(type_url=EDS, resource_names=names or self.names, **fields)
        else:
            subscribed = names or ((), self.names)[not self.last]
            request = DeltaDiscoveryRequest(type_url=EDS, resource_names_subscribe=subscribed, **fields)
        return self.talk.stream.receive(request.SerializeToString(), self.talk.now)

    def hear(self) -> bytes | None:
        """Return the next answer as it is."""
        parts = self.talk.stream.next(self.talk.now)
        if parts is None:
            return None
        self.last = parts[0] if len(parts) == 1 else b"".join(parts)
        return self.last

    def accept(self, **fields: Any) -> bool:
        """Accept the last answer."""
        if self.kind is SotwStream:
            fields["version_info"] = DiscoveryResponse.FromString(self.last).version_info
        return self.say(response_nonce=self.nonce, **fields)

    @property
    def nonce(self) -> str:
        """The nonce of the last answer."""
        kind = DiscoveryResponse if self.kind is SotwStream else DeltaDiscoveryResponse
        nonce: str = kind.FromString(self.last).nonce
        return nonce


def crowd(kind: type[Stream], *names: str) -> tuple[World, list[Client]]:
    """Return a world, and three streams to it that have acknowledged what there is."""
    world = World()
    world.eds.put("a", "b")
    clients = [Client(world, kind, *names) for _ in range(3)]
    for client in clients:
        while client.hear():
            client.accept()
    return world, clients


@WAYS
def test_streams_share_the_answer_to_a_change(kind: type[Stream]) -> None:
    """From the second stream on it is one object; its ACK is known, and nothing is to be sent behind it."""
    world, (first, second, third) = crowd(kind, "a")
    world.eds.put("a")
    assert all(client.hear() for client in (first, second, third))
    assert second.last is third.last
    assert first.accept(), "this one was read"
    for client in (second, third):
        assert not client.accept()
        assert client.talk.heard.events[-1] == ("acknowledged", "endpoints", {"a": "db:1"})
        assert client.hear() is None


@WAYS
def test_an_ack_is_known_while_its_answer_is_in_flight(kind: type[Stream]) -> None:
    """The same bytes once more are read, and so are those with an error."""
    world, (_, second, third) = crowd(kind, "a")
    world.eds.put("a")
    for client in (_, second, third):
        client.hear()
    assert not second.accept()
    assert second.accept(), "the answer is not in flight any more"
    assert third.accept(error_detail={"code": 3, "message": b"no"})
    assert third.talk.heard.events[-1][0] == "rejected"


@WAYS
def test_an_ack_with_other_names_is_read(kind: type[Stream]) -> None:
    """What the client asks for now is answered, and the form of its ACKs is learnt anew."""
    world, clients = crowd(kind, "a")
    world.eds.put("a")
    for client in clients:
        client.hear()
    last = clients[-1]
    assert last.accept(names=("a", "b"))
    assert last.hear(), "of the name that was added"
    last.names = ("a", "b")
    last.accept()
    other = Client(world, kind, "b")
    other.hear()
    other.accept()
    world.eds.put("b")
    other.hear()
    last.hear()
    assert not last.accept()
    assert last.hear() is None


@WAYS
def test_changes_behind_an_ack_are_sent(kind: type[Stream]) -> None:
    """An ACK that is known says that there is something to send, if there is."""
    world, (first, second, _) = crowd(kind, "a")
    world.eds.put("a")
    first.hear()
    second.hear()
    world.eds.put("a")
    assert second.hear() is None, "one answer is in flight"
    assert second.accept()
    assert second.hear()


@WAYS
def test_an_answer_that_comes_again_has_another_nonce(kind: type[Stream]) -> None:
    """A name that is asked for once more gets what was sent before, in an answer of its own."""
    world, (first, second, _) = crowd(kind, "a")
    world.eds.put("a")
    first.hear()
    second.hear()
    shared = second.nonce
    second.accept()
    second.say(names=("a",), response_nonce=shared)
    assert second.hear()
    assert second.nonce != shared


@WAYS
def test_large_answers_and_empty_messages_are_not_taken_for_others(kind: type[Stream]) -> None:
    """An answer above what is put into frames as a whole is not shared; an empty message is no ACK."""
    world, clients = crowd(kind, "a")
    world.eds.size["a"] = MAX_FRAMED
    world.eds.put("a")
    for client in clients:
        client.hear()
    assert clients[1].last is not clients[2].last
    assert clients[2].accept()
    before = len(clients[2].talk.heard.events)
    if kind is SotwStream:
        with pytest.raises(Exception, match="no type_url"):
            clients[2].talk.stream.receive(b"", 0.0)
    assert len(clients[2].talk.heard.events) == before
