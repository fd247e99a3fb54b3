"""GOAWAY frames, taken out of what h2 reads as a client: it reads nothing behind one, while real clients have to."""

from typing import NamedTuple

GOAWAY = 7
"""The type of the frame."""


class Goaway(NamedTuple):
    """A GOAWAY frame."""

    last_stream_id: int
    error_code: int
    reason: bytes


class FrameSplitter:
    """Splits what a client receives.

    Attributes:
        frames: type, flags and length of each frame that has come whole.
        goaways: the GOAWAY frames among them.
    """

    def __init__(self) -> None:
        self.frames: list[tuple[int, int, int]] = []
        self.goaways: list[Goaway] = []
        self._buffer = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Return the whole frames that have come but for GOAWAY."""
        self._buffer += data
        readable = b""
        while len(self._buffer) >= 9:
            length = int.from_bytes(self._buffer[:3], "big")
            kind, frame = self._buffer[3], bytes(self._buffer[: 9 + length])
            if len(frame) < 9 + length:
                break
            self.frames.append((kind, frame[4], length))
            if kind == GOAWAY:
                last, code = int.from_bytes(frame[9:13], "big"), int.from_bytes(frame[13:17], "big")
                self.goaways.append(Goaway(last, code, frame[17:]))
            else:
                readable += frame
            del self._buffer[: 9 + length]
        return readable
