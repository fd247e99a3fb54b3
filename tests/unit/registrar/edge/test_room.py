"""The room of an edge: nodes that have stopped give way, and an edge without room says so."""

import asyncio

import pytest

from registrar.edge.askers import MAX_ASKERS
from registrar.edge.edge import Edge
from registrar.edge.entry import Source
from registrar.edge.held_polls import Answer
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


async def test_names_are_forgotten_fifteen_minutes_after_the_last_poll() -> None:
    """But not while a poll for them is held, and not earlier, whether a registry answers or not."""
    edge = make()
    now = asyncio.get_running_loop().time()
    answers: list[Answer] = []
    hang_up = edge.poll(ENDPOINTS, ("held",), "", Node("envoy", "web"), 30.0, answers.append)
    edge.poll(ENDPOINTS, ("idle",), "", Node("envoy", "web"), 30.0, answers.append)()
    edge.forget_idle(now + 899.0)
    assert sorted(entry.name for entry in edge.entries.values()) == ["held", "idle"]
    edge.forget_idle(now + 86_400.0)
    assert [entry.name for entry in edge.entries.values()] == ["held"]
    hang_up()
    edge.forget_idle(now + 86_400.0)
    assert not edge.entries


async def test_days_without_a_registry_withdraw_nothing() -> None:
    """What was confirmed days ago is given to an Envoy that starts, and its age is told."""
    edge = make()
    node, answers = Node("envoy", "web"), list[Answer]()
    edge.poll(ENDPOINTS, ("shop",), "", node, 30.0, answers.append)()
    (entry,) = edge.entries.values()
    now = asyncio.get_running_loop().time()
    entry.take("db:5", b"{}", Source.REGISTRY)
    entry.confirm(now - 3 * 86_400.0, 1.0)
    edge.forget_idle(now)
    edge.poll(ENDPOINTS, ("shop",), "", node, 30.0, answers.append)
    assert answers == [Answer(200, "db:5", [b"{}"])]
    assert edge.age(now) == pytest.approx(3 * 86_400.0)
