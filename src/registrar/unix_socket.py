"""A unix socket to listen on, in place of the one that a killed process left."""

import contextlib
import errno
import os
import socket
import stat
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
    """Remove the socket that a killed process left; a socket that still accepts makes ``bind`` fail.

    Raises:
        OSError: something else than a socket is there, which is left alone; or the socket is not this user's.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # The queue of a process that hangs may be full; waiting for it would stop this one as well.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            _remove_socket(path)
        except PermissionError:
            raise OSError(
                errno.EADDRINUSE, "a socket of another user is there; remove it if no program listens there"
            ) from None
        except OSError:
            return


def _remove_socket(path: str) -> None:
    """Remove a socket; it may be gone by now.

    Raises:
        OSError: it is none, as Linux refuses connections to files and directories too.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116 - as above
            raise OSError(errno.ENOTSOCK, "what is there is no socket, and is not removed")
        os.unlink(path)  # noqa: PTH108 - as above
