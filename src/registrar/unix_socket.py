"""A unix socket to listen on, in place of the one that a killed process left."""

import os
import socket
from pathlib import Path

# Read and write for the owner and its group: an app that pushes its state, and Envoy, may run as other users.
_SOCKET_MODE = 0o660


def unix_socket(path: Path, backlog: int) -> socket.socket:
    """Return a socket that listens at a path.

    Raises:
        OSError: it cannot, or another process listens there.
    """
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(str(path))
        channel.bind(str(path))
        os.chmod(str(path), _SOCKET_MODE)  # noqa: PTH101 - a socket, not a file
        channel.listen(backlog)
    except OSError:
        channel.close()
        raise
    return channel


def _remove_stale(path: str) -> None:
    """Remove the socket that a killed process left; a socket that still accepts makes ``bind`` fail."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)  # noqa: PTH108 - as above
        except OSError:
            return
