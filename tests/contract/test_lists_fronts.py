"""Lists get the same answer from every front: by GET and HEAD, held already or not, compressed or not."""

import gzip
import http.client
import json

import pytest
from harness.process import eventually
from harness.registry import Registry

LISTS = [
    "/v1/services?prefix={service}",
    "/v1/services/{service}",
    "/v1/services/{service}/endpoints",
    "/v1/prometheus/targets?service={service}",
]


def ask(found: Registry, method: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Send one request as it stands, and return the whole answer."""
    connection = http.client.HTTPConnection("127.0.0.1", found.port, timeout=30)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("path", LISTS)
def test_a_list_is_answered_as_http_has_it(each_front: Registry, service: str, path: str) -> None:
    """HEAD has the headers of GET, a client that holds the list gets 304, one that takes gzip gets that."""
    for number in range(8):
        each_front.register(service, f"10.0.0.{number + 1}:80", ttl=600)
    url = path.format(service=service)

    def is_answered() -> bool:
        """Ask several times; the leases may be read in between, which changes the list of endpoints."""
        status, headers, body = ask(each_front, "GET", url)
        assert list(headers) == ["date", "etag", "vary", "content-length", "content-type", "x-request-id"]
        assert (status, headers["content-length"], headers["vary"]) == (200, str(len(body)), "accept-encoding")
        json.loads(body)
        etag = headers["etag"]
        status, brief, nothing = ask(each_front, "HEAD", url)
        assert (status, list(brief), nothing) == (200, list(headers), b"")
        status, unchanged, nothing = ask(each_front, "GET", url, if_none_match=etag)
        assert (status, nothing) in ((304, b""), (200, nothing))
        assert ask(each_front, "GET", url, if_none_match='"other"')[0] == 200
        _, packed, compressed = ask(each_front, "GET", url, accept_encoding="br, gzip")
        large = len(body) >= 1400
        assert packed.get("content-encoding") == ("gzip" if large else None)
        return (status, unchanged["etag"], packed["etag"]) == (304, etag, etag) and body == (
            gzip.decompress(compressed) if large else compressed
        )

    eventually(is_answered)
