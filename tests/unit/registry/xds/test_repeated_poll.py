"""A poll that is read by what the poll before it was: the same request as when it is read anew."""

import json
from typing import Any

from harness.examples import examples
from hypothesis import assume, example, given
from hypothesis import strategies as st

from registry.auth.principal import Principal
from registry.errors import RegistryError
from registry.xds.discovery_request import DiscoveryRequest, read_request
from registry.xds.repeated_poll import FIRST_PART, LAST_PART, RepeatedPoll, pieces, remember
from registry.xds.resources import CLUSTERS, ENDPOINTS, RestPath
from wire.node import read_node

PRINCIPAL = Principal("192.0.2.1")
PATHS = [RestPath(ENDPOINTS, "v3"), RestPath(ENDPOINTS, "v2"), RestPath(CLUSTERS, "v3")]
EXTENSION = {"name": "envoy.x", "category": "y"}
IDS = st.sampled_from(["a", "b", 'a","extensions":[', "ü", "a" * 600])


def body(version: str | None, node_id: str, extensions: int, name: str | None, path: RestPath, end: str = "") -> bytes:
    """Return a poll as Envoy writes it."""
    request: dict[str, Any] = {} if version is None else {"version_info": version}
    request["node"] = {"id": node_id, "cluster": "c", "extensions": [EXTENSION] * extensions}
    request |= {} if name is None else {"resource_names": [name]}
    request["type_url"] = path.type_url
    return json.dumps(request, separators=(",", ":"), ensure_ascii=False).encode() + end.encode()


BODIES = st.builds(
    body,
    st.sampled_from([None, "", "db:1", "db:2", '","node":{']),
    IDS,
    st.sampled_from([0, 1, 2, 300]),
    st.sampled_from(["shop", "cart", '"},"resource_names":["shop', None]),
    st.sampled_from(PATHS),
    st.sampled_from(["", "\n"]),
)


def read(path: RestPath, parts: list[bytes]) -> DiscoveryRequest | None:
    """Return what a poll says without a look at another one; None for one that is refused."""
    try:
        request = read_request(path, *parts)
    except RegistryError:
        return None
    request.node = read_node(*parts)
    request.principal = PRINCIPAL
    return request


@examples(400)
@given(first=BODIES, second=BODIES, repeats=st.booleans(), path=st.sampled_from(PATHS), cut=st.integers(0, 40_000))
@example(first=(long := body("db:1", "a", 300, "shop", PATHS[0])), second=long, repeats=True, path=PATHS[0], cut=0)
@example(first=(short := body(None, "a", 1, "shop", PATHS[0])), second=short[-50:], repeats=False, path=PATHS[0], cut=0)
def test_a_poll_that_says_the_same_is_the_same_request(
    first: bytes, second: bytes, repeats: bool, path: RestPath, cut: int
) -> None:
    """And every other one is not taken for it, in one piece or in several."""
    parts = pieces([memoryview(first)])
    request = read(path, [bytes(part) for part in parts])
    assume(request is not None)
    assert request is not None
    kept = remember(path, request, parts)
    if kept is None:
        return
    second = first if repeats else second
    cut = min(max(cut, FIRST_PART), len(second) - LAST_PART)
    split = [second[:cut], second[cut:]] if cut >= FIRST_PART else [second]
    for received in ([memoryview(second)], split):
        if kept.is_same(path, received):
            assert kept.request(PRINCIPAL) == read(path, [second])
        assert not kept.is_same(RestPath(path.type, path.api), received)
    assert not repeats or kept.is_same(path, [memoryview(second)])


def test_an_envoys_poll_is_remembered() -> None:
    """Otherwise nothing is gained."""
    for path, name in ((PATHS[0], "shop"), (PATHS[2], None)):
        parts = pieces([memoryview(body("db:1", "a", 300, name, path))])
        request = read(path, [bytes(part) for part in parts])
        assert request is not None
        assert isinstance(remember(path, request, parts), RepeatedPoll)


def test_a_short_poll_that_overlaps_itself_is_another_one() -> None:
    """A body that begins and ends alike, but is shorter than both together, says something else."""
    path = PATHS[0]
    whole = body(None, "a", 0, "shop", path)
    request = read(path, [whole])
    assert request is not None
    kept = RepeatedPoll(path, whole[:20], whole[10:], 20, 10 - len(whole), ("shop",), "", request.node)
    assert not kept.is_same(path, [whole])
    assert kept.is_same(path, [whole[:20] + whole[10:]])
