"""The limits that operators set: how long messages may be, how long connections live, how many streams there are."""

from msgspec import Struct

from registry.http2.call import Status, StatusError


class Limits(Struct, frozen=True):
    """Limits of each connection.

    Attributes:
        max_message: bytes of a message of a client; a longer one ends its connection.
        max_age: seconds after which a connection ends, give or take a fifth; 0: it stays.
    """

    max_message: int
    max_age: float


class StreamCount:
    """The streams of all connections of a process, and whether it takes new ones.

    Args:
        most: streams that there may be.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.open = 0
        """Streams that there are. Written by take() and give()."""
        self.stopping = False
        """Whether the process takes no new stream, because it stops. Written by the listener."""

    def take(self) -> None:
        """Count a stream.

        Raises:
            StatusError: there may not be another one.
        """
        if self.stopping:
            raise StatusError(Status.UNAVAILABLE, "this process of the registry stops; another one takes the stream")
        if self.open >= self.most:
            raise StatusError(
                Status.UNAVAILABLE,
                f"this process serves {self.open} streams and takes at most {self.most} (REGISTRY_XDS_MAX_STREAMS, "
                "fewer where it has few file descriptors); another one takes the stream",
            )
        self.open += 1

    def give(self) -> None:
        """Count a stream no longer."""
        self.open -= 1
