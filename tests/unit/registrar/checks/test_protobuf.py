"""Reading the health service's answer as protobuf does, whatever bytes it has."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrar.checks.grpc import _state
from registrar.checks.protobuf import last_number


def framed(message: str) -> bytes:
    """Return a message, in hexadecimal digits, in its gRPC frame."""
    body = bytes.fromhex(message)
    return b"\0" + len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize(
    ("message", "state"),
    [
        ("", "UNKNOWN"),
        ("0801", "SERVING"),
        ("1201610801", "SERVING"),  # an unknown field in front
        ("08021a0161", "NOT_SERVING"),  # and behind
        ("08020801", "SERVING"),  # the last value counts
        ("088100", "SERVING"),  # a number with more bytes than it needs
        ("0a01610801", "SERVING"),  # the field's number with another type is unknown
        ("0900000000000000000d000000000801", "SERVING"),  # fixed64 and fixed32
        ("1b08021c0801", "SERVING"),  # a group, whose own field 1 is another one
        ("0807", "status 7"),
        ("08ffffffffffffffffff01", "status -1"),
    ],
)
def test_answers_are_read_as_protobuf_reads_them(message: str, state: str) -> None:
    """Each of these is what protobuf's own library says."""
    assert _state(framed(message)) == state


@pytest.mark.parametrize(
    "message",
    ["08", "0881", "1205616263", "09000000", "0d00", "0001", "1b", "1c", "1b24", "0e", "08" + "80" * 10 + "01"],
)
def test_answers_that_are_malformed(message: str) -> None:
    """Truncated, or with what no message has: the server is no health service."""
    with pytest.raises(ValueError, match="not a protobuf message"):
        _state(framed(message))


@given(st.binary(max_size=40))
def test_any_bytes_are_a_number_or_malformed(message: bytes) -> None:
    """Nothing else is raised, and nothing hangs."""
    with contextlib.suppress(ValueError):
        assert -(1 << 31) <= last_number(message, 1) < 1 << 31
