"""Following the history: server-sent events that go on, across lost connections, where they were left."""

import time
from collections.abc import Callable, Iterator

import httpx
from msgspec import Raw

from registryctl.client import Client, Params, told
from registryctl.errors import UnreachableError

_SILENCE = 40.0
"""Seconds without a byte after which a stream is dead; the registry says something every 15."""

_SHORTEST_PAUSE = 0.5
_LONGEST_PAUSE = 5.0
_BEGINNING = "0-0"


class Stream:
    """Events as they happen, each once.

    Args:
        client: where to ask.
        params: the filters; with ``since`` what has happened since then comes first.
        lost: told when the connection is lost, and why.
        back: told when it is there again.
    """

    def __init__(
        self,
        client: Client,
        params: Params,
        *,
        lost: Callable[[str], None],
        back: Callable[[], None],
    ) -> None:
        self._client = client
        self._params = dict(params)
        self._lost = lost
        self._back = back
        self._last = _BEGINNING if params.get("since") is not None else ""

    def events(self) -> Iterator[Raw]:
        """Yield events until interrupted.

        Raises:
            CtlError: the first connection is refused; later ones are tried again for ever.
        """
        answer = self._open()
        pause = _SHORTEST_PAUSE
        while True:
            try:
                for event in self._read(answer):
                    pause = _SHORTEST_PAUSE
                    yield event
                reason = "the registry ended the stream"
            except httpx.TransportError as error:
                reason = told(error)
            self._lost(reason)
            answer, pause = self._again(pause)
            self._back()

    def _open(self) -> httpx.Response:
        headers = {"accept": "text/event-stream"} | ({"last-event-id": self._last} if self._last else {})
        answer = self._client.stream("/v1/events", self._params, headers, _SILENCE)
        if not self._last:
            # Should it break before the first event, it goes on from this moment and misses none.
            self._params["since"] = int(self._client.now)
            self._last = _BEGINNING
        return answer

    def _again(self, pause: float) -> tuple[httpx.Response, float]:
        while True:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                return self._open(), pause
            except UnreachableError:
                continue

    def _read(self, answer: httpx.Response) -> Iterator[Raw]:
        data: list[str] = []
        try:
            for line in answer.iter_lines():
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if name == "data":
                    data.append(value)
                elif name == "id":
                    self._last = value
                elif not line and data:
                    yield Raw("\n".join(data).encode())
                    data = []
        finally:
            answer.close()
