"""Stream of events as they happen, which goes on across lost connections."""

import time
from collections.abc import Callable, Iterator

import httpx
from msgspec import Raw

from registryctl.client import ApiClient, Params, reason_of
from registryctl.errors import CtlError

READ_TIMEOUT = 40.0
"""Seconds without a byte after which a stream is dead; the registry sends something every 15."""

MIN_RETRY_INTERVAL = 0.5
"""Seconds before the first attempt to connect again."""
MAX_RETRY_INTERVAL = 5.0
"""Seconds between two attempts to connect again, at most; the interval doubles until then."""

_BEGINNING = "0-0"
"""The event id before all others."""


class Stream:
    """Events as they happen, each once.

    Args:
        client: where to ask.
        params: the filters; with ``since`` the events since then come first.
        lost: called with the reason when the connection is lost.
        back: called when there is a connection again.
    """

    def __init__(
        self,
        client: ApiClient,
        params: Params,
        *,
        lost: Callable[[str], None],
        back: Callable[[], None],
    ) -> None:
        self._client = client
        self._params = dict(params)
        self._lost = lost
        self._back = back
        # The id of the event after which the next connection goes on; empty: with the next event that happens.
        self._last = _BEGINNING if params.get("since") is not None else ""

    def events(self) -> Iterator[Raw]:
        """Yield events until interrupted.

        Raises:
            CtlError: the first connection is refused; later ones are tried again for ever.
        """
        response = self._open()
        interval = MIN_RETRY_INTERVAL
        while True:
            try:
                for event in self._read(response):
                    interval = MIN_RETRY_INTERVAL
                    yield event
                reason = "the registry ended the stream"
            except httpx.TransportError as error:
                reason = reason_of(error)
            self._lost(reason)
            response, interval = self._open_again(interval)
            self._back()

    def _open(self) -> httpx.Response:
        headers = {"accept": "text/event-stream"} | ({"last-event-id": self._last} if self._last else {})
        response = self._client.stream("/v1/events", self._params, headers, READ_TIMEOUT)
        if not self._last:
            # Should it break before the first event, it goes on from this moment and misses none.
            self._params["since"] = int(self._client.now)
            self._last = _BEGINNING
        return response

    def _open_again(self, interval: float) -> tuple[httpx.Response, float]:
        while True:
            time.sleep(interval)
            interval = min(2 * interval, MAX_RETRY_INTERVAL)
            try:
                return self._open(), interval
            except CtlError as error:
                if not error.is_temporary:
                    raise

    def _read(self, response: httpx.Response) -> Iterator[Raw]:
        data: list[str] = []
        try:
            for line in response.iter_lines():
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
            response.close()
