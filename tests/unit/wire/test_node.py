"""Reading who polls, from the head of the body or from the whole."""

import json
from typing import Any

import pytest
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st

from wire import node
from wire.node import ANONYMOUS, Node, read_node

# As Envoy 1.40 wrote it.
HEAD = (
    b'{"id":"i-1","cluster":"web","metadata":{"stage":"blue"},"locality":{"region":"r","zone":"za"},'
    b'"user_agent_name":"envoy","user_agent_build_version":{"version":{"major_number":1,"minor_number":40},'
    b'"metadata":{"build.type":"RELEASE"}},"extensions":[{"name":"envoy.x","category":"y"}]}'
)
ENVOY = Node("i-1", "web", "za", "1.40.0")


@pytest.mark.parametrize("version_info", [b"", b'"version_info":"db:7",'])
def test_the_head_of_an_envoys_poll_is_enough(version_info: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Id, cluster, zone and Envoy's version are found without reading what follows."""
    monkeypatch.setattr(node, "_decode_request", None)
    body = b"{" + version_info + b'"node":' + HEAD + b',"resource_names":["shop"]}'
    assert read_node(body) == ENVOY


@pytest.mark.parametrize("size", [1, 7, 100, 6000])
def test_the_body_may_come_in_pieces(size: int) -> None:
    """However a body was cut on its way, it says the same."""
    head = HEAD.replace(b'"stage"', b'"%b"' % (b"x" * 3000))
    body = b'{"node":' + head.replace(b'"category":"y"', b'"category":"%b"' % (b"y" * 5000)) + b"}"
    assert read_node(*(body[start : start + size] for start in range(0, len(body), size))) == ENVOY


def test_the_same_head_is_read_once() -> None:
    """Polls of one Envoy differ in version and name only: who it is, is known."""
    bodies = [b'{"version_info":"db:%d","node":%b,"resource_names":["shop-%d"]}' % (n, HEAD, n) for n in range(3)]
    assert len({id(read_node(body)) for body in bodies}) == 1


texts = st.text(max_size=12)
keys = texts | st.just("extensions")
deep = st.recursive(texts | st.integers(), lambda inner: st.dictionaries(keys, inner), max_leaves=5)


@examples(300)
@given(
    texts,
    texts,
    texts,
    st.dictionaries(keys, deep | st.lists(deep, max_size=2), max_size=3),
    st.permutations(["id", "cluster", "metadata", "locality"]),
    st.booleans(),
)
def test_any_order_and_spacing_is_read(
    name: str, cluster: str, zone: str, metadata: Any, order: list[str], spaced: bool
) -> None:
    """Whatever the order before the extensions, and whatever stands in the metadata, the node is the same."""
    fields = {"id": name, "cluster": cluster, "metadata": metadata, "locality": {"zone": zone}, "extensions": [{}]}
    request = {"node": {field: fields[field] for field in [*order, "extensions"]}, "resource_names": ["shop"]}
    body = json.dumps(request, separators=None if spaced else (",", ":"), ensure_ascii=False).encode()
    node = read_node(body)
    assert [node.id, node.cluster, node.zone] == [
        "".join(letter for letter in text if letter.isprintable()) for text in (name, cluster, zone)
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"node":null}',
        b'{"node":{"id":5}}',
        b'{"node":{',
        b'{"node":[],"resource_names":["shop"]}',
        b'{"node":{"locality":{"zone":7},"extensions":[]}}',
    ],
)
def test_a_node_of_another_shape_is_nobody(body: bytes) -> None:
    """It is for people to read, so what cannot be read is left out and never an error."""
    assert read_node(body) == ANONYMOUS


def test_long_texts_are_cut_and_control_characters_left_out() -> None:
    """What a subscriber says of itself is kept in memory, in PostgreSQL and shown to people."""
    fields = {"id": "x" * 10_000, "cluster": "a\0b\n\x1b[2J"}
    node = read_node(json.dumps({"node": fields}).encode())
    assert (len(node.id), node.cluster) == (255, "ab[2J")
