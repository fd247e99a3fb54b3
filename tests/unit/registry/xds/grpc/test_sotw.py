"""The state of the world on a stream, rule by rule."""

import pytest
from harness.xds_world import CDS, EDS, LDS, RDS, Talk, World

WORDS = {"code": 3, "message": "malformed IP address"}


def test_the_node_comes_once() -> None:
    """Rule 1: later requests have no node, and one that repeats it is not read again."""
    world = World()
    world.eds.put("a", "b")
    talk = Talk(world)
    talk.ask(names=["a"])
    assert talk.stream.node.id == "envoy-1"
    talk.ask(names=["a", "b"])
    talk.ask(names=["a", "b"], node={"id": "other"})
    assert talk.stream.node.id == "envoy-1"
    answer = talk.hear()
    assert answer is not None
    assert answer.resources == {"a": 1, "b": 1}


@pytest.mark.parametrize("type_url", [EDS, CDS, LDS, RDS])
def test_the_first_request_is_answered_at_once(type_url: str) -> None:
    """Rule 2: also when there is nothing."""
    talk = Talk(World())
    talk.ask(type_url, [] if type_url in (CDS, LDS) else ["a"])
    answer = talk.hear()
    assert answer is not None
    assert answer.type_url == type_url
    assert answer.nonce
    assert talk.hear() is None
