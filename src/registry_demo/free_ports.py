"""Search for free ports of the loopback interface."""

import random
import socket

# Below 32768, where Linux begins to take the ports of outgoing connections: between this search and the start
# of the process, the demo's own traffic could otherwise take the port that was found.
_RANGE = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Return ``count`` different ports that nothing listens on.

    Raises:
        OSError: there are not so many.
    """
    ports: list[int] = []
    for port in random.sample(_RANGE, len(_RANGE)):
        if _is_free(port):
            ports.append(port)
        if len(ports) == count:
            return ports
    raise OSError("no free port between 20000 and 32000 on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
