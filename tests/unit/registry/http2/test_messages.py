"""Messages of gRPC in the data of a stream."""

import pytest
from harness.http2_memory import frame
from hypothesis import given
from hypothesis import strategies as st

from registry.http2.call import StatusError
from registry.http2.messages import MessageReader, OversizedMessageError


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(1, 50), max_size=40))
def test_messages_are_whole_however_they_are_cut(messages: list[bytes], cuts: list[int]) -> None:
    """The messages come out as they went in, and nothing is held afterwards."""
    data = b"".join(map(frame, messages))
    reader, seen = MessageReader(40), []
    for cut in cuts:
        seen += list(reader.feed(data[:cut])) if data else []
        data = data[cut:]
    seen += list(reader.feed(data)) if data else []
    assert seen == messages
    assert reader.held == 0


def test_the_announcement_of_a_long_message_is_refused() -> None:
    """One byte more than allowed is refused before it comes."""
    reader = MessageReader(10)
    assert list(reader.feed(frame(bytes(10)))) == [bytes(10)]
    with pytest.raises(OversizedMessageError, match="11 bytes"):
        list(reader.feed(frame(bytes(11))[:5]))


def test_messages_in_front_of_a_compressed_one_come() -> None:
    """What is before the message that is refused has come, also in one piece with it."""
    messages = MessageReader(10).feed(frame(b"good") + frame(b"bad", flag=1))
    assert next(messages) == b"good"
    with pytest.raises(StatusError, match="compressed"):
        next(messages)
