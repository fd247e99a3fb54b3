"""The edge over real HTTP, at a registry that does as it is told."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from harness.fake_registry import FakeRegistry
from integration.registrar.edge.world import ENDPOINTS, HOSTS, World, addresses, another_way, world

from registrar.edge.disk_cache import DiskCache, Record, UnreadableNowError
from registrar.edge.entry import Key
from registrar.edge.server import MAX_CONNECTIONS
from registrar.edge.token import NOTHING
from wire.edge_assignments import MAX_EDGE_NAMES
from wire.problem import Problem


@pytest.fixture
async def edge(registry: FakeRegistry, tmp_path: Path) -> AsyncIterator[World]:
    """An edge without a disk, whose registry knows one service."""
    await registry.assign("shop", "db000001:5", *HOSTS)
    async with world(registry, tmp_path / "edge.sock") as running:
        yield running


async def until(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


async def test_an_envoy_gets_the_registrys_answer_and_its_changes(edge: World) -> None:
    """The token and the assignment are the registry's own; a poll that is current is held until they change."""
    first = await edge.poll()
    assert first.status_code == 200
    assert (first.json()["version_info"], addresses(first)) == ("db000001:5", list(HOSTS))
    held = asyncio.create_task(edge.poll(version="db000001:5"))
    await until(lambda: len(edge.edge.held_polls) == 1)
    await edge.registry.assign("shop", "db000001:6", HOSTS[0])
    second = await held
    assert (second.json()["version_info"], addresses(second)) == ("db000001:6", [HOSTS[0]])
    assert await edge.version(version="db000001:6", hold=0.1) == ""


async def test_one_question_for_all_names(edge: World) -> None:
    """Names are learnt from polls; what Envoys took is reported."""
    await edge.registry.assign("user", "db000001:9", *HOSTS)
    assert await edge.version("shop") == "db000001:5"
    assert await edge.version("user") == "db000001:9"
    polls = [asyncio.create_task(edge.version(*each)) for each in (("shop", "db000001:5"), ("user", "db000001:9"))]
    questions = edge.registry.questions
    tokens = {"shop": "db000001:5", "user": "db000001:9"}
    await until(lambda: edge.registry.held_by_edge == tokens)

    def taken() -> dict[str, str]:
        return {each.service: each.version for question in questions for each in question.taken}

    await until(lambda: taken() == tokens)
    whole = [question for question in questions if not question.after]
    assert [(question.node, question.cluster, question.zone, question.edge) for question in whole] == [
        ("envoy-1", "web", "za", "task-1")
    ]
    # The others have what is new, and no more.
    assert [question.held for question in questions if question.after and "shop" in question.held] == [
        {"shop": "db000001:5"}
    ]
    await edge.registry.assign("user", "db000001:10", HOSTS[1])
    assert await polls[1] == "db000001:10"
    assert not polls[0].done()
    polls[0].cancel()


@pytest.mark.parametrize(
    ("brought", "answered"), [("db000001:4", "db000001:5"), ("db000001:6", ""), ("old:9", "db000001:5")]
)
async def test_never_older(edge: World, brought: str, answered: str) -> None:
    """A newer number is not taken back, and another database's is answered once the registry was asked anew."""
    assert await edge.version() == "db000001:5"
    assert await edge.version(version=brought, hold=1.0) == answered


async def test_another_databases_token_while_the_registry_is_away(edge: World) -> None:
    """Nobody can tell which of the two is newer, so the Envoy keeps what it has."""
    assert await edge.version() == "db000001:5"
    edge.registry.silent = True
    await edge.registry.assign("other", "db000001:1")
    assert await edge.version(version="new:2", hold=0.5) == ""


async def test_what_was_never_registered_is_told_from_doubt(edge: World) -> None:
    """The first is answered as the registry does, the second without a version of the registry after two seconds."""
    await edge.registry.assign("never", "db000001:0")
    never = await edge.poll("never")
    assert (never.json()["version_info"], never.json()["resources"]) == ("db000001:0", [])
    doubt = await edge.poll("doubt")
    assert (doubt.json()["version_info"], doubt.json()["resources"]) == (NOTHING, [])
    held = asyncio.create_task(edge.version("doubt", NOTHING))
    await until(lambda: len(edge.edge.held_polls) == 1)
    await edge.registry.assign("doubt", "db000001:1", *HOSTS)
    assert await held == "db000001:1"
    assert await edge.version("doubt", "db000001:0") == "db000001:1"


async def test_several_names_in_one_poll(edge: World) -> None:
    """As the registry answers them."""
    await edge.registry.assign("user", "db000001:9", *HOSTS)
    response = await edge.poll(resource_names=["shop", "user"])
    version = response.json()["version_info"]
    assert version.startswith("db000001:5.9@")
    assert [resource["cluster_name"] for resource in response.json()["resources"]] == ["shop", "user"]
    assert (await edge.poll(version=version, hold=0.1, resource_names=["shop", "user"])).status_code == 304


async def test_from_disk_while_every_registry_is_away(
    registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an edge held is served by the next one, and replaced as soon as a registry answers."""
    # More names than files are kept of names that are not polled for: a start removes none of them.
    monkeypatch.setattr("registrar.edge.disk_cache._MAX_FILES", 0)
    directory = tmp_path / "state" / "edge"
    await registry.assign("shop", "db000001:5", *HOSTS)
    async with world(registry, tmp_path / "one.sock", directory) as edge:
        assert await edge.version() == "db000001:5"
        await until((directory / "shop").exists)
    async with world(registry, tmp_path / "two.sock", directory, "http://127.0.0.1:1") as edge:
        response = await edge.poll()
        assert (response.json()["version_info"], addresses(response)) == ("db000001:5", list(HOSTS))
        (entry,) = edge.edge.entries.values()
        assert (entry.source, edge.edge.refused) == ("disk", False)
        assert (await edge.client.get("/livez")).status_code == 200
        # An Envoy that has something newer keeps it.
        assert await edge.version(version="db000001:6", hold=0.3) == ""
    await registry.assign("shop", "db000001:7", HOSTS[0])
    async with world(registry, tmp_path / "three.sock", directory) as edge:
        # The registry answers in time, so that no Envoy starts with hosts of last week.
        assert await edge.version() == "db000001:7"
        await until(lambda: b"db000001:7" in (directory / "shop").read_bytes())


@pytest.mark.parametrize(("ahead", "least", "most"), [(86_400.0, 0.0, 60.0), (-86_400.0, 86_000.0, 87_000.0)])
async def test_a_clock_that_was_moved_between_writes(
    registry: FakeRegistry, tmp_path: Path, ahead: float, least: float, most: float
) -> None:
    """What was written a day ahead of the clock is not younger than now; nothing is withdrawn."""
    directory = tmp_path / "edge"
    written = time.time() + ahead
    content = b'{"cluster_name":"shop","endpoints":[{"lb_endpoints":[]}]}'
    assert DiskCache(directory).write(Record(("endpoints", "shop", "", ""), "db000001:5", written, content))
    os.utime(directory / "shop", (written, written))
    async with world(registry, tmp_path / "edge.sock", directory, "http://127.0.0.1:1") as edge:
        assert await edge.version() == "db000001:5"
        age = edge.edge.age(asyncio.get_running_loop().time())
        assert age is not None
        assert least <= age < most
        (entry,) = edge.edge.entries.values()
        assert entry.received <= time.time()


async def test_files_are_read_once_there_are_descriptors(
    registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An Envoy that polls meanwhile gets the content of the disk when it can be read."""
    directory = tmp_path / "edge"
    DiskCache(directory).write(Record(("endpoints", "shop", "", ""), "db000001:5", 1.0, b"{}"))
    scarce, read = [True], DiskCache.read

    def sometimes(disk: DiskCache, key: Key) -> Record | None:
        if scarce[0]:
            raise UnreadableNowError(24, "Too many open files")
        return read(disk, key)

    monkeypatch.setattr(DiskCache, "read", sometimes)
    async with world(registry, tmp_path / "edge.sock", directory, "http://127.0.0.1:1") as edge:
        polled = asyncio.create_task(edge.version(hold=20.0))
        await until(lambda: edge.edge.entries)
        await asyncio.sleep(0.1)
        scarce[0] = False
        assert await polled == "db000001:5"


async def test_a_thousand_and_one_names_of_one_envoy(
    registry: FakeRegistry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are asked for by two questions, and the log tells an outage of both once."""
    names = [f"s{number}" for number in range(MAX_EDGE_NAMES + 1)]
    for name in names:
        await registry.assign(name, "db000001:5", HOSTS[0])
    async with world(registry, tmp_path / "edge.sock") as edge:
        async with asyncio.timeout(30):
            # On a busy machine the answers come after the two seconds that a poll waits for them.
            while not (resources := (await edge.poll(resource_names=names, hold=20)).json()["resources"]):
                pass
        assert [each["cluster_name"] for each in resources] == names
        assert len(edge.edge.askers) == 2
        caplog.set_level("INFO")
        registry.silent = True
        for name in (names[0], names[-1]):
            await registry.assign(name, "db000001:6", HOSTS[0])
        await until(lambda: all(asker.away for asker in edge.edge.askers._askers))
        registry.silent = False
        await until(lambda: "edge_registry_back" in caplog.text)
        events = [record.message for record in caplog.records if record.message.startswith("edge_")]
        assert events == ["edge_registry_away", "edge_registry_back"]


@pytest.mark.parametrize("status", [401, 403, 404, 409])
async def test_a_refused_edge_sends_its_envoys_to_the_registry(edge: World, status: int) -> None:
    """Its probe fails, no poll is held, and an Envoy that starts is told to ask elsewhere."""
    assert await edge.version() == "db000001:5"
    assert (await edge.client.get("/livez")).status_code == 200
    held = asyncio.create_task(edge.poll(version="db000001:5", hold=10))
    await until(lambda: len(edge.edge.held_polls) == 1)
    edge.registry.refuse_edges = Problem("Refused", status, "not you")
    assert (await edge.poll("other")).status_code == 503
    assert (await held).status_code == 304
    assert (await edge.client.get("/livez")).status_code == 503
    assert (await edge.poll(version="db000001:5", hold=10)).status_code == 304


async def test_an_answer_that_is_too_long_sends_envoys_to_the_registry(
    edge: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be as long the next time, and Envoys ask for one service at a time."""
    monkeypatch.setattr("registrar.registry_client.client._MAX_EDGE_BYTES", 5_000)
    monkeypatch.setattr("registrar.edge.asker._TOO_LONG_PAUSE", 0.5)
    assert await edge.version() == "db000001:5"
    await edge.registry.assign("large", "db000001:5", *(f"10.0.{n}.1:80" for n in range(200)))
    assert (await edge.poll("large")).status_code == 503
    assert (await edge.client.get("/livez")).status_code == 503
    assert edge.edge.askers.away == "the answer is longer than 5000 bytes"
    await edge.registry.assign("large", "db000001:6", *HOSTS)
    await until(lambda: not edge.edge.refused)
    assert await edge.version("large") == "db000001:6"


@pytest.mark.parametrize("envoys", ["one with more clusters than a question has room for", "two"])
async def test_an_answer_that_is_too_long_beside_others_that_are_not(
    edge: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, envoys: str
) -> None:
    """An Envoy that starts would wait for its names for ever; and the answer is not fetched again every few seconds."""
    monkeypatch.setattr("registrar.registry_client.client._MAX_EDGE_BYTES", 5_000)
    monkeypatch.setattr("registrar.edge.asker._REFUSED_PAUSE", 0.01)
    node = {"id": "envoy-2" if envoys == "two" else "envoy-1", "cluster": "web"}
    if envoys != "two":
        monkeypatch.setattr("registrar.edge.asker.MAX_EDGE_NAMES", 1)
    assert await edge.version() == "db000001:5"
    held = asyncio.create_task(edge.poll(version="db000001:5", hold=10))
    await until(lambda: len(edge.edge.held_polls) == 1)
    await edge.registry.assign("large", "db000001:5", *(f"10.0.{n}.1:80" for n in range(200)))
    assert (await edge.poll("large", node=node)).status_code == 503
    assert (await held).status_code == 304
    assert (await edge.client.get("/livez")).status_code == 503
    assert edge.edge.askers.away == "the answer is longer than 5000 bytes"
    assert len(edge.edge.askers) == 2
    (refused,) = [record for record in caplog.records if record.message == "edge_refused"]
    assert "have fewer clusters or endpoints in one Envoy" in str(vars(refused))
    # What is answered is kept up to date beside it.
    await edge.registry.assign("shop", "db000001:6", *HOSTS)
    await until(lambda: edge.edge.entries[next(iter(edge.edge.entries))].token == "db000001:6")
    assert (await edge.client.get("/livez")).status_code == 503
    assert sum("large" in question.held for question in edge.registry.questions) == 1


async def test_limits(edge: World) -> None:
    """A body, a page of another site, an unknown route and what is no poll are refused; the edge lives on."""
    client = edge.client
    assert (await client.post(ENDPOINTS, content=b"x" * 1_100_000)).status_code == 413
    assert (await client.post(ENDPOINTS, content=b"{")).status_code == 400
    assert (await client.post(ENDPOINTS, content=b"")).status_code == 400
    assert (await client.post(ENDPOINTS, json={"type_url": "other"})).status_code == 422
    assert (await client.post(ENDPOINTS, json={}, headers={"origin": "http://evil"})).status_code == 403
    assert (await client.get(ENDPOINTS)).status_code == 405
    assert (await client.post("/v2/discovery:endpoints", json={})).status_code == 404
    assert await edge.version() == "db000001:5"


async def test_connections_are_bounded(edge: World, tmp_path: Path) -> None:
    """Where all of them hold a poll, the longest held one ends for a further connection, or an idle one does."""
    held = [asyncio.create_task(edge.poll(version="db000001:5", hold=30)) for _ in range(MAX_CONNECTIONS)]
    await until(lambda: len(edge.edge.held_polls) == MAX_CONNECTIONS)
    assert await edge.version() == "db000001:5"
    ended, _ = await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result().status_code for task in ended] == [304]
    left = [task for task in held if task not in ended]
    further = asyncio.create_task(edge.poll(version="db000001:5", hold=30))
    await until(lambda: len(edge.edge.held_polls) == MAX_CONNECTIONS)
    assert not any(task.done() for task in left)
    await edge.registry.assign("shop", "db000001:6", *HOSTS)
    responses = await asyncio.gather(*left, further)
    assert {response.json()["version_info"] for response in responses} == {"db000001:6"}


async def test_a_probes_connection_gives_way_last(edge: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Envoy would take an edge for dead that closes it as the next probe is sent."""
    monkeypatch.setattr("registrar.edge.server.MAX_CONNECTIONS", 3)
    assert (await edge.client.get("/livez")).status_code == 200
    (probing,) = edge.server.connections
    envoys = [another_way(edge) for _ in range(3)]
    async with contextlib.AsyncExitStack() as stack:
        for envoy in envoys:
            await stack.enter_async_context(envoy.client)
        held = []
        for envoy in envoys:
            held.append(asyncio.create_task(envoy.poll(version="db000001:5", hold=20)))
            most = min(len(held), 2)
            await until(lambda most=most: len(edge.edge.held_polls) == most)  # type: ignore[misc]
        ended, left = await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result().status_code for task in ended] == [304]
        assert probing in edge.server.connections
        await edge.registry.assign("shop", "db000001:6", *HOSTS)
        await asyncio.wait(left)


async def test_no_connection_of_a_starting_envoy_gives_way(edge: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has nothing yet; where all do, a further connection is closed, and is tried again."""
    monkeypatch.setattr("registrar.edge.server.MAX_CONNECTIONS", 2)
    starting = [asyncio.create_task(edge.poll(name)) for name in ("doubt", "doubt-too")]
    await until(lambda: len(edge.edge.held_polls) == 2)
    with pytest.raises(httpx.TransportError):
        await edge.poll()
    assert {response.status_code for response in await asyncio.gather(*starting)} == {200}
    assert await edge.version() == "db000001:5"


async def test_requests_that_never_end_keep_no_envoy_away(edge: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take all connections, byte by byte, and are closed in their turn."""
    monkeypatch.setattr("registrar.edge.server.MAX_CONNECTIONS", 2)
    monkeypatch.setattr("registrar.edge.server._REQUEST_TIMEOUT", 0.5)
    head = f"POST {ENDPOINTS} HTTP/1.1\r\nhost: edge\r\ncontent-length: 100\r\n\r\n".encode()
    for _ in range(2):
        reader, writer = await asyncio.open_unix_connection(edge.server.address.path)
        writer.write(head)
        dripping = asyncio.create_task(_drip(writer))
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(20):
                assert await reader.read() == b""
        dripping.cancel()
        writer.close()
    assert await edge.version() == "db000001:5"


async def _drip(writer: asyncio.StreamWriter) -> None:
    while not writer.is_closing():
        writer.write(b"x")
        await asyncio.sleep(0.1)


async def test_two_clusters_of_a_service(edge: World) -> None:
    """Two polls for one name are answered alike, by one question."""
    both = [asyncio.create_task(edge.version(version="db000001:4")) for _ in range(2)]
    assert await asyncio.gather(*both) == ["db000001:5"] * 2
    held = [asyncio.create_task(edge.version(version="db000001:5")) for _ in range(2)]
    await until(lambda: len(edge.edge.held_polls) == 2)
    await edge.registry.assign("shop", "db000001:6", HOSTS[0])
    assert await asyncio.gather(*held) == ["db000001:6"] * 2
    assert len(edge.edge.entries) == 1


async def test_a_service_of_ten_thousand(registry: FakeRegistry, tmp_path: Path) -> None:
    """It comes compressed, and is on disk as it was."""
    hosts = [f"10.{number >> 8}.{number & 255}.1:8080" for number in range(10_000)]
    await registry.assign("big", "db000001:5", *hosts)
    async with world(registry, tmp_path / "edge.sock", tmp_path / "edge") as edge:
        assert addresses(await edge.poll("big", hold=20)) == hosts
        await until((tmp_path / "edge" / "big").exists)
    async with world(registry, tmp_path / "two.sock", tmp_path / "edge", "http://127.0.0.1:1") as edge:
        assert addresses(await edge.poll("big", hold=20)) == hosts


async def test_one_refused_name_of_several(edge: World) -> None:
    """The question is held as before, and what is held of a name is confirmed no longer once it is refused."""
    edge.registry.forbidden = {"secret"}
    await edge.registry.assign("secret", "db000001:7", *HOSTS)
    assert await edge.version() == "db000001:5"
    assert (await edge.poll("secret")).json()["resources"] == []
    await until(lambda: edge.registry.held_by_edge == {"shop": "db000001:5", "secret": "db000001:0"})
    asked = len(edge.registry.questions)
    await asyncio.sleep(0.5)
    assert len(edge.registry.questions) - asked <= 3
    assert not edge.edge.refused
    edge.registry.forbidden = {"shop"}
    assert await edge.version("doubt", hold=0.1) in {"", NOTHING}
    entries = {entry.name: entry for entry in edge.edge.entries.values()}
    await until(lambda: entries["shop"].refused and entries["secret"].token == "db000001:7")
    confirmed = entries["shop"].confirmations
    await edge.registry.assign("secret", "db000001:8", *HOSTS)
    await until(lambda: entries["secret"].token == "db000001:8")
    assert entries["shop"].confirmations == confirmed
    edge.registry.forbidden = set()
    await edge.registry.assign("shop", "db000001:6", *HOSTS)
    assert await edge.version("doubt-too", hold=0.1) in {"", NOTHING}
    await until(lambda: entries["shop"].token == "db000001:6")


async def test_more_envoys_than_one_question_has_room_for(edge: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they have taken comes in several questions, since the registry refuses a larger one."""
    monkeypatch.setattr("registrar.edge.asker.MAX_EDGE_TAKEN", 3)
    nodes = {f"envoy-{number}" for number in range(8)}
    await asyncio.gather(*(edge.poll(node={"id": node, "cluster": "web"}) for node in nodes))
    questions = edge.registry.questions
    await until(lambda: {each.node for question in questions for each in question.taken} == nodes)
    assert max(len(question.taken) for question in questions) <= 3


async def test_nothing_is_kept_of_envoys_that_hang_up(edge: World) -> None:
    """However often they do."""
    for _ in range(20):
        with pytest.raises(httpx.ReadTimeout):
            await edge.client.post(
                ENDPOINTS,
                json={"version_info": "db000001:5", "resource_names": ["shop"]},
                headers={"x-envoy-expected-rq-timeout-ms": "30000"},
                timeout=0.02,
            )
    await until(lambda: len(edge.edge.held_polls) == 0)
    await until(lambda: not edge.server.connections)


async def test_a_refused_node_leaves_the_others_alone(edge: World) -> None:
    """The edge is refused where all its nodes are, and a name that two of them poll for is asked for by the other."""
    other = {"id": "envoy-2", "cluster": "web"}
    await edge.registry.assign("user", "db000001:9", *HOSTS)
    assert await edge.version() == "db000001:5"
    assert (await edge.poll("user", node=other)).status_code == 200
    edge.registry.refuse_nodes = {"envoy-1"}
    assert await edge.version("doubt", hold=0.1) == NOTHING
    entries = {entry.name: entry for entry in edge.edge.entries.values()}
    await until(lambda: edge.edge.askers.is_refused(entries["shop"]))
    assert not edge.edge.refused
    assert not edge.edge.askers.is_refused(entries["user"])
    assert (await edge.client.get("/livez")).status_code == 200
    await edge.registry.assign("shop", "db000001:6", HOSTS[0])
    response = await edge.poll(version="db000001:5", node=other)
    assert response.json()["version_info"] == "db000001:6"
