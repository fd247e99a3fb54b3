"""A log whose reader is slow, or gone."""

import itertools
import json
import os
from collections.abc import Iterator

import pytest

from wire import log_stream
from wire.log_stream import LogStream


class Reader:
    """A reader that takes so many bytes of the next lines, and may be gone."""

    def __init__(self) -> None:
        self.room = 0
        self.gone = False
        self.taken = b""

    def __call__(self, data: bytes) -> int:
        """Take what there is room for."""
        if self.gone:
            raise BrokenPipeError
        if self.room == 0:
            raise BlockingIOError
        part = data[: self.room]
        self.room -= len(part)
        self.taken += part
        return len(part)


def test_lines_wait_for_the_reader_in_their_order() -> None:
    """Also one of which it took a part."""
    reader = Reader()
    stream = LogStream(reader)
    for number in range(3):
        stream.write(f"line {number}\n")
    reader.room = 9
    stream.flush()
    assert reader.taken == b"line 0\nli"
    reader.room = 100
    stream.write("line 3\n")
    assert reader.taken == b"line 0\nline 1\nline 2\nline 3\n"
    assert reader.room == 100 - 19


def test_what_is_too_much_is_lost_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says how many were lost, once the reader reads again."""
    monkeypatch.setattr(log_stream, "_MAX_WAITING", 40)
    reader = Reader()
    stream = LogStream(reader)
    for number in range(10):
        stream.write(f"line {number}\n")
    reader.room = 10_000
    for _ in range(2):
        stream.flush()
    *lines, lost = reader.taken.splitlines()
    assert lines == [f"line {number}".encode() for number in range(5)]
    told = json.loads(lost)
    assert (told["event"], told["level"], told["lines"]) == ("log_lines_lost", "warning", 5)
    reader.taken = b""
    stream.write("line 11\n")
    assert reader.taken == b"line 11\n"


def test_a_reader_that_is_gone_is_no_fault() -> None:
    """Nothing is kept for it; one that comes later is told."""
    reader = Reader()
    stream = LogStream(reader)
    stream.write("kept\n")
    reader.gone = True
    stream.write("line\n")
    reader.gone, reader.room = False, 1_000
    stream.flush()
    assert reader.taken == b""
    stream.write("line 3\n")
    line, lost = reader.taken.splitlines()
    assert line == b"line 3"
    assert json.loads(lost)["lines"] == 2


def test_a_line_that_is_written_in_parts_is_one() -> None:
    """As Python writes a traceback; without an end it is written when it is long, or when somebody asks for it."""
    reader = Reader()
    reader.room = 1_000_000
    stream = LogStream(reader)
    stream.write("Error: ")
    assert reader.taken == b""
    stream.write("umlauts ä\n next")
    assert reader.taken == "Error: umlauts ä\n".encode()
    stream.flush()
    assert reader.taken.endswith(b"\n next")
    stream.write("x" * 100_000)
    assert reader.taken.endswith(b"x" * 100_000)
    with pytest.raises(TypeError):
        # By this libraries tell a stream of text from one of bytes.
        stream.write(b"bytes")  # type: ignore[arg-type]


def test_the_end_of_a_process_waits_for_a_slow_reader() -> None:
    """Until it has read all."""
    reader = Reader()
    tries = itertools.count()

    def slowly(data: bytes) -> int:
        reader.room = 10 * (next(tries) % 2)
        return reader(data)

    stream = LogStream(slowly)
    lines = "".join(f"line {number}\n" for number in range(5))
    stream.write(lines)
    stream.drain(60)
    assert reader.taken == lines.encode()


def test_the_end_of_a_process_does_not_wait_for_ever() -> None:
    """What the reader has not taken by then is lost and counted, on a line of its own."""
    reader = Reader()
    stream = LogStream(reader)
    for number in range(3):
        stream.write(f"line {number}\n")
    reader.room = 3
    stream.drain(0.05)
    reader.room = 1_000
    stream.flush()
    cut, lost = reader.taken.splitlines()
    assert cut == b"lin"
    assert json.loads(lost)["lines"] == 3


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe."""
    ends = os.pipe()
    yield ends
    for descriptor in ends:
        os.close(descriptor)


def test_the_flags_of_a_pipe_that_others_share_stay(pipe: tuple[int, int]) -> None:
    """It is opened once more: a program that shares it would get errors that it does not expect."""
    read, write = pipe
    stream = log_stream.stream_of(write)
    assert stream is not None
    for _ in range(1_000):
        stream.write("x" * 99 + "\n")
    assert os.get_blocking(write)
    assert len(os.read(read, 1_000_000)) >= 4_096
