"""Our HPACK reader against the encoder of the hpack package."""

import contextlib

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrar.checks.hpack import Hpack

names = st.sampled_from([":status", "grpc-status", "grpc-message", "content-type", "server", "x-a"])
values = st.text(st.characters(max_codepoint=255), max_size=80) | st.sampled_from(["0", "200", "404", "gzip, deflate"])
blocks = st.lists(st.lists(st.tuples(names, values), max_size=12), max_size=4)


@given(blocks, st.booleans(), st.integers(0, 4096))
def test_what_another_encoder_writes_is_read(fields: list[list[tuple[str, str]]], huffman: bool, size: int) -> None:
    """Static and dynamic tables, Huffman codes and resizes, over the blocks of one connection."""
    encoder, decoder = hpack.Encoder(), Hpack()
    for block in fields:
        encoder.header_table_size = size
        raw = [(name.encode(), value.encode("latin-1")) for name, value in block]
        assert decoder.decode(encoder.encode(raw, huffman=huffman)) == block


@given(st.binary(max_size=200))
def test_anything_else_is_an_error_and_no_crash(block: bytes) -> None:
    """A block that is none raises ValueError, in bounded memory."""
    with contextlib.suppress(ValueError):
        assert all(isinstance(text, str) for field in Hpack().decode(block) for text in field)


@pytest.mark.parametrize("block", [b"\x80", b"\xff\xff\xff\xff\xff\xff\x0f", b"\x3f\xe2\x1f", b"\x00\x05ab"])
def test_broken_blocks(block: bytes) -> None:
    """Entry 0, a number without an end, a table larger than allowed, and a text that breaks off."""
    with pytest.raises(ValueError, match="HPACK"):
        Hpack().decode(block)


def test_the_table_forgets_what_no_longer_fits() -> None:
    """Two entries of 4,000 bytes do not fit into 4,096: the older one cannot be named any more."""
    decoder = Hpack()
    entry = b"\x40\x01a\x7f\xa1\x1e" + b"x" * 4000
    assert len(decoder.decode(entry + entry + b"\xbe")) == 3
    with pytest.raises(ValueError, match="no entry 63"):
        decoder.decode(b"\xbf")
