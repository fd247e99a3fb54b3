"""Polls in a row and their times, as plain as a client can be, so that its own time hardly counts."""

import contextlib
import http.client
import json
import threading
import time
from typing import Self
from urllib.parse import urlsplit

_BLOCKS = 3
_BLOCK = 600
_PAUSE = 0.002


class Polls:
    """Polls of one service: their statuses, and how long they took, in three blocks."""

    def __init__(self) -> None:
        self.statuses: set[int] = set()
        self.blocks: list[list[float]] = []

    def p99(self) -> float:
        """Return the milliseconds within which 99 % were answered: the middle one of the blocks' figures.

        One hiccup of a shared machine spoils one block and not the figure.
        """
        each = sorted(sorted(block)[int(len(block) * 0.99)] for block in self.blocks)
        return 1000 * each[len(each) // 2]


def polled(url: str, service: str) -> Polls:
    """Send polls one after another."""
    polls = Polls()
    body = json.dumps({"node": {"id": "t", "cluster": "t"}, "resource_names": [service]})
    with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)) as connection:
        for _ in range(_BLOCKS):
            polls.blocks.append([_poll(connection, body, polls.statuses) for _ in range(_BLOCK)])
    return polls


def _poll(connection: http.client.HTTPConnection, body: str, statuses: set[int]) -> float:
    time.sleep(_PAUSE)
    begun = time.perf_counter()
    connection.request("POST", "/v3/discovery:endpoints", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    statuses.add(answer.status)
    return time.perf_counter() - begun


class Writer:
    """Registers one endpoint after another in a thread, and remembers which were acknowledged, and how each went."""

    def __init__(self, url: str, service: str, pause: float = 0.0) -> None:
        self.acknowledged: list[str] = []
        self.refused: list[tuple[int, str]] = []
        self.slowest = 0.0
        self._url = url
        self._service = service
        self._pause = pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join(15)

    def _run(self) -> None:
        with contextlib.closing(http.client.HTTPConnection(urlsplit(self._url).netloc, timeout=15)) as connection:
            number = 0
            while not self._over.wait(self._pause):
                number += 1
                begun = time.perf_counter()
                try:
                    self._write(connection, number)
                except OSError:
                    # The registry itself is away: nothing was acknowledged.
                    connection.close()
                self.slowest = max(self.slowest, time.perf_counter() - begun)

    def _write(self, connection: http.client.HTTPConnection, number: int) -> None:
        endpoint = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:80"
        body = json.dumps({"instance_id": f"i-{number}", "incarnation": 1, "ttl": 600})
        path = f"/v1/services/{self._service}/endpoints/{endpoint}"
        connection.request("PUT", path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        if answer.status == 200:
            self.acknowledged.append(endpoint)
        else:
            self.refused.append((answer.status, answer.headers.get("retry-after", "")))
