"""The room of an edge: nodes that have stopped give way, and an edge without room says so."""

import asyncio

import pytest

from registrar.edge.edge import MAX_ASKERS, Answer, Edge
from registrar.edge.polled_types import CLUSTERS, ENDPOINTS
from registrar.registry_client.client import RegistryClient
from registrar.registry_client.registries import RegistryUrls
from wire.node import Node


def start(edge: Edge, number: int) -> tuple[list[Answer], object]:
    """Poll as an Envoy that starts; return its answers so far, and what ends its connection."""
    answers: list[Answer] = []
    hang_up = edge.poll(CLUSTERS, ("*",), "", Node(f"envoy-{number}", "web"), 30.0, answers.append)
    return answers, hang_up


def is_full(edge: Edge) -> bool:
    """Return whether it turns polls away; a call, since mypy takes an attribute to stay as it was."""
    return edge.full


def make() -> Edge:
    """Return an edge that does not run: it asks nothing."""
    return Edge("task-1", RegistryClient(RegistryUrls("http://127.0.0.1:1"), 3.0))


async def test_an_envoy_that_starts_again_and_again_is_served() -> None:
    """Under another id each time; those of before give way once they have not polled for a while."""
    edge = make()
    for number in range(3 * MAX_ASKERS):
        answers, hang_up = start(edge, number)
        assert answers == []
        assert callable(hang_up)
        hang_up()
        for entry in edge.entries.values():
            entry.polled_at -= 14.0
    assert not edge.full
    assert len(edge.entries) <= MAX_ASKERS


async def test_a_full_edge_says_so_until_there_is_room() -> None:
    """Nodes whose polls are held give no room, however long ago they polled."""
    edge = make()
    hang_ups = [start(edge, number)[1] for number in range(MAX_ASKERS)]
    assert is_full(edge) is False
    for entry in edge.entries.values():
        entry.polled_at -= 100.0
    assert start(edge, MAX_ASKERS)[0] == [Answer(503)]
    assert is_full(edge) is True
    for hang_up in hang_ups:
        assert callable(hang_up)
        hang_up()
    for entry in edge.entries.values():
        entry.polled_at -= 1_000.0
    edge.forget_idle(asyncio.get_running_loop().time())
    assert is_full(edge) is False
    assert start(edge, MAX_ASKERS)[0] == []


async def test_a_name_too_many_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are bounded as nodes are."""
    monkeypatch.setattr("registrar.edge.edge.MAX_NAMES", 2)
    edge = make()
    answers: list[Answer] = []
    edge.poll(ENDPOINTS, ("a", "b", "c"), "", Node("envoy", "web"), 30.0, answers.append)
    assert answers == [Answer(503)]
    assert edge.full
