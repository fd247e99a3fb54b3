"""Reading discovery requests, by the cut and by the parser."""

import json
from typing import Any

import pytest
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidError, UnreadableError
from registry.xds.discovery_request import DiscoveryRequest, read_request
from registry.xds.resources import ENDPOINTS, RestPath
from wire.discovery_poll import parse, read_ends

TYPE_URL = ENDPOINTS.type_urls
V2, V3 = RestPath(ENDPOINTS, "v2"), RestPath(ENDPOINTS, "v3")
paths = st.sampled_from([V2, V3])
texts = st.text(max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    "version_info",
    "node",
    "resource_names",
    "type_url",
    "versionInfo",
    "resourceNames",
    "typeUrl",
    "response_nonce",
]
NODE = {"id": "n", "cluster": "c", "extensions": [{"name": "envoy.x", "category": "y"}]}


def compact(document: object) -> bytes:
    """Return JSON as Envoy writes it: no spaces, text as UTF-8."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


@examples(250)
@given(
    paths,
    st.none() | texts,
    st.dictionaries(texts, json_values, max_size=4),
    st.lists(texts.filter(bool), max_size=3),
    st.none() | st.sampled_from(list(TYPE_URL.values())),
    st.sampled_from(["", "\n", " \r\n"]),
)
def test_both_ways_read_the_same(
    path: RestPath, version: str | None, node: dict[str, Any], names: list[str], type_url: str | None, end: str
) -> None:
    """Whenever the cut understands a request in Envoy's form, the parser reads the same from it."""
    request: dict[str, Any] = {} if version is None else {"version_info": version}
    request |= {"node": node}
    request |= {"resource_names": names} if names else {}
    request |= {} if type_url is None else {"type_url": type_url}
    body = compact(request) + end.encode()
    cut = read_ends(path, body)
    if cut is not None:
        assert cut == parse(path, body)
    if type_url in (None, path.type_url):
        assert read_request(path, body) == DiscoveryRequest(*parse(path, body))


@pytest.mark.parametrize("version", [None, "", "ab12cd34:7"])
@pytest.mark.parametrize("typed", [True, False])
def test_what_envoy_sends_is_cut(version: str | None, typed: bool) -> None:
    """The way that saves parsing 77 kB is the one that is taken."""
    request: dict[str, Any] = {} if version is None else {"version_info": version}
    request |= {"node": NODE, "resource_names": ["shop"]} | ({"type_url": TYPE_URL["v3"]} if typed else {})
    assert read_ends(V3, compact(request)) == (("shop",), version or "")


@pytest.mark.parametrize(
    "body",
    [
        b'{"version_info":"1","node":{},"resource_names":["a","b"]}',
        b'{"version_info":"\\u0031","node":{},"resource_names":["a"]}',
        b'{"version_info":"1","node":{},"resource_names":["\\u0061"]}',
        b'{"version_info": "1", "node": {}, "resource_names": ["a"]}',
        b'{"resource_names":["a"],"version_info":"1","node":{}}',
        b'{"node":{},"version_info":"1","resource_names":["a"]}',
        b'{"versionInfo":"1","node":{},"resourceNames":["a"]}',
        b'{"version_info":"1","node":{"x":{},"resource_names":["b"]},"resource_names":["a"]}',
    ],
)
def test_other_forms_are_parsed(body: bytes) -> None:
    """Several names, escapes, spaces, another order, camel case: slower, and the same."""
    poll = read_request(V3, body)
    assert (poll.names[0], poll.version_info) == ("a", "1")


def test_a_name_asked_twice_is_answered_once() -> None:
    """In the order of their first mention."""
    body = compact({"resource_names": ["b", "a", "b"]})
    assert read_request(V3, body).names == ("b", "a")


def test_the_type_must_be_that_of_the_path() -> None:
    """A listener's or the other API's request is a mistake in the bootstrap, and told so."""
    body = compact({"node": NODE, "resource_names": ["a"], "type_url": TYPE_URL["v2"]})
    assert read_request(V2, body).names == ("a",)
    with pytest.raises(InvalidError, match="this path serves") as caught:
        read_request(V3, body)
    assert caught.value.pointer == "$.type_url"


@pytest.mark.parametrize(
    ("names", "message"),
    [(["x"] * 2 + [str(n) for n in range(10_000)], "more than 10000"), (["x" * 1025], "longer than 1024")],
)
def test_requests_are_bounded(names: list[str], message: str) -> None:
    """Nobody makes this process remember a million names."""
    with pytest.raises(InvalidError, match=message) as caught:
        read_request(V3, compact({"resource_names": names}))
    assert caught.value.pointer == "$.resource_names"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b'{"resource_names":"a"}', b'{"version_info":1}', b"\xff", b"[" * 100_000]
)
def test_what_is_no_request_is_unreadable(body: bytes) -> None:
    """Broken JSON, wrong types and endless nesting end in one error."""
    with pytest.raises(UnreadableError, match="no DiscoveryRequest"):
        read_request(V3, body)


@examples(250)
@given(paths, st.dictionaries(st.sampled_from(FIELDS) | texts, json_values | st.lists(texts), max_size=6))
def test_any_json_object_is_read_or_refused(path: RestPath, document: dict[str, Any]) -> None:
    """Nothing else comes out of whatever a subscriber sends."""
    try:
        poll = read_request(path, compact(document))
    except (UnreadableError, InvalidError):
        return
    assert all(isinstance(name, str) for name in poll.names)


@examples(250)
@given(
    paths, st.binary(max_size=60), st.sampled_from([b"", b'{"node":{', b'{"version_info":"']), st.binary(max_size=20)
)
def test_any_bytes_are_read_or_refused(path: RestPath, middle: bytes, head: bytes, name: bytes) -> None:
    """Also those that look like Envoy's at both ends."""
    try:
        request = read_request(path, head + middle + b'},"resource_names":["' + name + b'"]}')
    except (UnreadableError, InvalidError):
        return
    assert all(isinstance(each, str) for each in request.names)
