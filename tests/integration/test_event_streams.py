"""Readers that follow the history: so many at a time, and one for whom there is no place is told so at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from harness.no_tls import NO_TLS
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

PLACES = 100
HEADERS = {"accept": "text/event-stream"}


@pytest.fixture(scope="module")
def own(server: Postgres, workplace: Path) -> Iterator[Registry]:
    """A registry whose streams are all taken here."""
    with registry(server.migrated_database(), workplace) as found:
        yield found


def test_a_reader_without_a_place_is_refused(own: Registry) -> None:
    """Of many who come at once, as many as there are places are answered 200, the others 503 with Retry-After."""
    limits = httpx.Limits(max_connections=None)
    with (
        ExitStack() as stack,
        httpx.Client(base_url=own.url, timeout=20, trust_env=False, verify=NO_TLS, limits=limits) as client,
    ):

        def follow(_number: int) -> httpx.Response:
            request = client.build_request("GET", "/v1/events", headers=HEADERS)
            return client.send(request, stream=True)

        with ThreadPoolExecutor(PLACES + 30) as pool:
            answers = list(pool.map(follow, range(PLACES + 30)))
        for answer in answers:
            stack.callback(answer.close)
        assert sorted(answer.status_code for answer in answers) == [200] * PLACES + [503] * 30
        refused = next(answer for answer in answers if answer.status_code == 503)
        assert refused.headers["retry-after"] == "10"
        assert "limit 100" in refused.read().decode()
        assert client.get("/v1/events").status_code == 200
    # Who has left makes room.
    eventually(lambda: _status(own) == 200, within=15, every=0.2)


def _status(found: Registry) -> int:
    with found.client.stream("GET", "/v1/events", headers=HEADERS) as answer:
        return answer.status_code


def test_a_stream_that_cannot_begin_takes_no_place(own: Registry) -> None:
    """More questions that make no sense than there are places."""
    for _ in range(PLACES + 5):
        answer = own.client.get("/v1/events", headers=HEADERS | {"last-event-id": "x"})
        assert answer.status_code == 422
    assert _status(own) == 200
