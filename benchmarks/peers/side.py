"""One side of a comparison: a server that answers polls."""

from collections.abc import Callable
from pathlib import Path

import httpx
from msgspec import Struct

_V3 = "/v3/discovery:endpoints"


class Side(Struct, frozen=True):
    """A running server.

    ``path`` tells where it is asked for a service, ``unchanged`` where it is asked when it has to answer 304: one that
    reads no bodies cannot know by itself.
    """

    name: str
    port: int
    pids: list[int]
    path: Callable[[str], str] = lambda _service: _V3
    unchanged: Callable[[str], str] = lambda _service: _V3

    def url(self, path: str) -> str:
        """Return the URL of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def ask(self, path: str, body: bytes) -> httpx.Response:
        """Send one poll, as it is sent later a thousand times."""
        headers = {"content-type": "application/json"}
        return httpx.post(self.url(path), content=body, headers=headers, timeout=10, trust_env=False)


def listens(port: int) -> bool:
    """Tell whether something answers on a port."""
    try:
        httpx.get(f"http://127.0.0.1:{port}/", timeout=5, trust_env=False)
    except httpx.TransportError:
        return False
    return True


def end_of(log: Path) -> str:
    """Return the last that a peer said."""
    return log.read_text()[-2000:]
