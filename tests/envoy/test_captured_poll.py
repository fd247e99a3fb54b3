"""The poll that the benchmarks send, against the one that a real Envoy sends."""

import json
from typing import Any

import pytest

from benchmarks.envoy_poll import SERVICE, capture, poll_body

pytestmark = pytest.mark.envoy


def _shape(body: bytes) -> tuple[list[str], list[str], set[str], int]:
    """Return the keys of a poll and of its node, the extensions, and the length without Envoy's own id."""
    poll: dict[str, Any] = json.loads(body)
    node = poll["node"]
    extensions = {f"{one['category']}/{one['name']}" for one in node["extensions"]}
    return list(poll), list(node), extensions, len(body) - len(node["id"])


def test_the_captured_poll_is_what_envoy_sends() -> None:
    """The first poll, and one that brings a version, have the form, extensions and length of a real one's."""
    first, later = capture()
    assert _shape(poll_body(SERVICE)) == _shape(first)
    assert _shape(poll_body(SERVICE, json.loads(later)["version_info"])) == _shape(later)
    assert len(first) > 70_000
