"""A client that polls under made-up node ids, and another client whose answers are timed meanwhile."""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

_CONNECTIONS = 4
_PAUSE = 0.02


def flood(url: str, polls: int, *, names: int, version_info: str = "", first: int = 0) -> None:
    """Poll once under each of ``polls`` node ids, over a few connections.

    Args:
        url: of the registry.
        polls: how many.
        names: services that each poll asks for; nobody registered them.
        version_info: what each poll brings.
        first: number of the first node id.
    """
    numbers = range(first, first + polls)
    shares = [numbers[share::_CONNECTIONS] for share in range(_CONNECTIONS)]
    threads = [threading.Thread(target=_poll, args=(url, share, names, version_info)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _poll(url: str, numbers: Sequence[int], names: int, version_info: str) -> None:
    with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)) as connection:
        for number in numbers:
            body = {
                "version_info": version_info,
                "node": {"id": f"made-up-{number}", "cluster": "flood"},
                "resource_names": [f"n-{name}" for name in range(names)],
            }
            connection.request("POST", "/v3/discovery:endpoints", json.dumps(body, separators=(",", ":")))
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status


class Times:
    """Seconds that each answer of a probe took."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    def p99(self) -> float:
        """Return the milliseconds within which 99 % were answered."""
        ordered = sorted(self.taken)
        return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]

    def worst(self) -> float:
        """Return the milliseconds that the slowest answer took."""
        return 1000 * max(self.taken)


@contextlib.contextmanager
def probe(url: str, path: str = "/livez", registration: object = None) -> Iterator[Times]:
    """Ask for ``path``, or register at it, again and again, in a thread, until the end of the block."""
    method, body = ("GET", None) if registration is None else ("PUT", json.dumps(registration))
    times = Times()
    over = threading.Event()

    def ask() -> None:
        with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)) as connection:
            while not over.wait(_PAUSE):
                begun = time.perf_counter()
                connection.request(method, path, body)
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 200, answer.status
                times.taken.append(time.perf_counter() - begun)

    thread = threading.Thread(target=ask, name="probe", daemon=True)
    thread.start()
    try:
        yield times
    finally:
        over.set()
        thread.join(60)
