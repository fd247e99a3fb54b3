"""The gRPC listener of a registry on real sockets: streams beside polls, bad clients, limits, TLS, and its end."""

import asyncio
import contextlib
import re
import resource
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from harness.no_tls import NO_TLS
from harness.postgres import Postgres
from harness.probing import Authority
from harness.process import eventually, free_port
from harness.registry import Registry, forked_registry, registry
from harness.stream_client import ADS, StreamClient, stream_client
from harness.xds_messages import ClusterLoadAssignment

from registry.http2.call import Status

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


@pytest.fixture(scope="module")
def serving(server: Postgres, workplace: Path) -> Iterator[tuple[Registry, int]]:
    """A registry with streams, and the port of them."""
    port = free_port()
    with registry(server.migrated_database(), workplace, xds_listen=f"127.0.0.1:{port}", xds_max_streams=300) as found:
        yield found, port


def addresses(message: bytes) -> list[str]:
    """Return the addresses in an assignment that came as the bytes of an Any's value."""
    assignment = ClusterLoadAssignment.FromString(message)
    return [
        member.endpoint.address.socket_address.address
        for locality in assignment.endpoints
        for member in locality.lb_endpoints
    ]


def metric(found: Registry, name: str) -> float:
    """Return the sum of the series of a metric."""
    text = found.client.get("/metrics").text
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


async def test_a_stream_follows_and_ends(serving: tuple[Registry, int], service: str) -> None:
    """A change comes over the stream; a client that leaves is counted, and nothing of it stays."""
    found, port = serving
    found.register(service, "10.0.0.1:80", ttl=600)
    async with stream_client(port) as client:
        first = await client.follow(service)
        assert addresses(first.resources[0].value) == ["10.0.0.1"]
        found.register(service, "10.0.0.2:80", ttl=600)
        assert addresses((await client.answer()).resources[0].value) == ["10.0.0.1", "10.0.0.2"]
        assert metric(found, "registry_xds_connections") == 1
    eventually(lambda: metric(found, "registry_xds_connections") == 0)
    assert 'registry_xds_ended_total{why="client"}' in found.client.get("/metrics").text


@pytest.mark.parametrize(
    ("why", "sent"),
    [
        ("flood", PREFACE + (bytes((0, 0, 8, 6, 0, 0, 0, 0, 0)) + bytes(8)) * 8_000),
        ("flood", PREFACE + (bytes((0, 0, 4, 8, 0, 0, 0, 0, 0)) + bytes((0, 0, 0, 1))) * 8_000),
        ("oversized", PREFACE + bytes((0, 62, 128, 1, 0, 0, 0, 0, 1)) + bytes(16_000)
         + (bytes((0, 62, 128, 9, 0, 0, 0, 0, 1)) + bytes(16_000)) * 6),
        ("protocol_error", PREFACE + bytes((255, 255, 255, 0, 0, 0, 0, 0, 1)) + bytes(100_000)),
        ("protocol_error", b"\x16\x03\x01\x02\x00" + bytes(600)),
    ],
    ids=["pings", "window_updates", "endless_headers", "a_lying_length", "another_protocol"],
)  # fmt: skip
async def test_a_bad_client_hurts_nobody(serving: tuple[Registry, int], service: str, why: str, sent: bytes) -> None:
    """Its connection ends; streams and polls of others go on."""
    found, port = serving
    found.register(service, "10.0.0.1:80", ttl=600)
    ended = f'registry_xds_ended_total{{why="{why}"}}'
    before = metric(found, re.escape(ended))
    async with stream_client(port) as good:
        await good.follow(service)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        async with asyncio.timeout(20):
            try:
                while await reader.read(65_536):
                    pass
            except ConnectionError:
                pass
        writer.close()
        found.register(service, "10.0.0.2:80", ttl=600)
        assert len(addresses((await good.answer()).resources[0].value)) == 2
        assert found.poll(service).status_code == 200
    eventually(lambda: metric(found, re.escape(ended)) == before + 1)


async def test_a_request_of_10_mib_is_refused_with_words(serving: tuple[Registry, int]) -> None:
    """The client reads why before its connection ends, although it is still sending."""
    _, port = serving
    async with stream_client(port) as client:
        await client.open()
        sending = asyncio.create_task(client.send(bytes(10 * 2**20)))
        status = await client.end()
        assert status is not None
        assert status[0] == Status.RESOURCE_EXHAUSTED
        assert "10485760 bytes" in status[1]
        await client.close_of_server()
        sending.cancel()


async def test_windows_of_one_byte_get_a_small_answer(serving: tuple[Registry, int]) -> None:
    """A client may take its answer byte by byte."""
    _, port = serving
    async with stream_client(port, window=1) as client:
        await client.open()
        await client.subscribe("service-that-nobody-has")
        assert await client.message()


async def test_many_connect_at_once(serving: tuple[Registry, int], service: str) -> None:
    """Each of 200 clients with a node of 30 kB has its first answer, and polls go on meanwhile."""
    found, port = serving
    found.register(service, "10.0.0.1:80", ttl=600)
    clients = await asyncio.gather(*(StreamClient.connect(port) for _ in range(200)))
    answers = await asyncio.gather(*(client.follow(service, node=30_000) for client in clients))
    assert len(answers) == 200
    assert found.poll(service).status_code == 200
    await asyncio.gather(*(client.close() for client in clients))
    eventually(lambda: metric(found, "registry_xds_connections") == 0)


async def test_streams_beyond_the_limit_are_refused(serving: tuple[Registry, int], service: str) -> None:
    """With 300 streams the next one gets UNAVAILABLE, its connection ends, and the others stay."""
    found, port = serving
    found.register(service, "10.0.0.1:80", ttl=600)
    async with stream_client(port) as client:
        await client.follow(service)
        for number in range(3, 601, 2):
            client.h2.send_headers(
                number,
                [
                    (":method", "POST"),
                    (":scheme", "http"),
                    (":path", ADS),
                    (":authority", "registry"),
                    ("content-type", "application/grpc"),
                ],
            )
        await client.settle()
        async with stream_client(port) as late:
            await late.open()
            status = await late.end()
            assert status is not None
            assert status[0] == Status.UNAVAILABLE
            assert "at most 300 (REGISTRY_XDS_MAX_STREAMS" in status[1]
            await late.close_of_server()
        found.register(service, "10.0.0.2:80", ttl=600)
        await client.answer()
    eventually(lambda: metric(found, "registry_xds_connections") == 0)


async def test_other_requests_learn_what_is_served(serving: tuple[Registry, int]) -> None:
    """A browser or curl at the wrong port is told so."""
    _, port = serving
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:
        answer = await client.get(f"http://127.0.0.1:{port}/")
    assert answer.status_code == 400
    assert "REGISTRY_XDS_LISTEN" in answer.text


async def test_a_stop_ends_streams_evenly(database: str, workplace: Path, service: str) -> None:
    """All clients are told at once, and their streams end over the delay with OK; a new one is refused."""
    port, ends = free_port(), []
    listen = f"127.0.0.1:{port}"
    with registry(database, workplace, xds_listen=listen, shutdown_delay="2s") as found:
        found.register(service, "10.0.0.1:80", ttl=600)
        clients = [await StreamClient.connect(port) for _ in range(8)]
        for client in clients:
            await client.follow(service)
        idle = await StreamClient.connect(port)
        await idle.flush()
        found.process.send_signal(signal.SIGTERM)

        async def end(client: StreamClient) -> tuple[int, str] | None:
            status = await client.end()
            ends.append(time.monotonic())
            return status

        ending = [asyncio.create_task(end(client)) for client in clients]
        while not all(client.announced for client in clients):
            await asyncio.sleep(0.01)
        assert len(ends) < len(clients)
        late = await StreamClient.connect(port)
        await late.open()
        status = await late.end()
        assert status is None or status[0] == Status.UNAVAILABLE
        assert await asyncio.gather(*ending) == [(0, "")] * 8
        # The first and the last are seven eighths of the delay apart.
        assert max(ends) - min(ends) > 1
        for client in (*clients, idle, late):
            await client.close()
        assert found.process.wait(20) == 0
        assert "streams_cut" not in found.log.read_text()


async def test_workers_serve_streams_by_tls(database: str, tmp_path: Path, service: str) -> None:
    """Every worker serves the address, by HTTP/2 alone, and serves a new certificate soon; clients may have one."""
    authority = Authority(tmp_path)
    pair, port = authority.issue("127.0.0.1"), free_port()
    settings = {"xds_tls_cert_file": pair, "xds_tls_client_ca_file": authority.ca, "xds_listen": f"127.0.0.1:{port}"}
    context = ssl.create_default_context(cafile=authority.ca)
    context.load_cert_chain(authority.issue("spiffe://test/envoy", file="client.pem"))
    context.set_alpn_protocols(["h2"])
    with registry(database, tmp_path, workers=2, **settings) as found:
        found.register(service, "10.0.0.1:80", ttl=600)
        async with stream_client(port, context) as client:
            tls = client.writer.get_extra_info("ssl_object")
            assert tls.selected_alpn_protocol() == "h2"
            first = tls.getpeercert()["serialNumber"]
            assert addresses((await client.follow(service, node=200_000)).resources[0].value) == ["10.0.0.1"]
            authority.issue("127.0.0.1")
            eventually(lambda: found.log.read_text().count('"tls_files_loaded"') == 2, within=15)
            clients = [await StreamClient.connect(port, context) for _ in range(12)]
            for other in clients:
                assert other.writer.get_extra_info("ssl_object").getpeercert()["serialNumber"] != first
                await other.follow(service)
                await other.close()
            found.register(service, "10.0.0.2:80", ttl=600)
            await client.answer()
        # One that is killed takes its streams with it; the one that replaces it serves new ones.
        killed, _ = workers = _serving(found)
        killed.kill()
        eventually(lambda: len(_serving(found)) == 2 and _serving(found) != workers, within=60)
        # Streams are refused as UNAVAILABLE until it has read the database.
        eventually(
            lambda: all(httpx.get(f"{found.url}/readyz", trust_env=False, verify=NO_TLS).is_success for _ in range(20)),
            within=30,
        )
        for _ in range(12):
            async with stream_client(port, context) as client:
                answer = await client.follow(service)
                assert addresses(answer.resources[0].value) == ["10.0.0.1", "10.0.0.2"]
        text = found.client.get("/metrics").text
        assert 'registry_tls_days_until_expiry{certificate="xds"}' in text
        assert found.client.get("/v1/state").json()["tls"]["file"] == str(pair)


def _serving(found: Registry) -> list[psutil.Process]:
    """Return the workers that serve both addresses."""
    workers = psutil.Process(found.process.pid).children()
    with contextlib.suppress(psutil.Error):
        return [worker for worker in workers if len(_listens(worker)) >= 2]
    return []


def _listens(worker: psutil.Process) -> list[Any]:
    return [each for each in worker.net_connections("tcp") if each.status == psutil.CONN_LISTEN]


async def test_streams_alone(database: str, tmp_path: Path) -> None:
    """A process without HTTP serves streams, and stops as others do."""
    port = free_port()
    env = {"REGISTRY_LISTEN": "off", "REGISTRY_XDS_LISTEN": f"127.0.0.1:{port}", "REGISTRY_DATABASE_URL": database}
    env |= {"REGISTRY_DATA_DIR": str(tmp_path)}
    log = tmp_path / "log"
    with forked_registry(env, log) as process:
        eventually(lambda: "change_feed_following" in log.read_text(), within=60, said=log.read_text)
        async with stream_client(port) as client:
            assert addresses((await client.follow("nothing")).resources[0].value) == []
            process.send_signal(signal.SIGTERM)
            assert await client.end() == (0, "")
        assert process.wait(20) == 0


async def test_streams_leave_descriptors_to_others(database: str, workplace: Path, service: str) -> None:
    """With 160 descriptors 40 streams are served; others are refused, and heartbeats go on."""
    port = free_port()
    with registry(database, workplace, xds_listen=f"127.0.0.1:{port}", xds_max_streams=40) as found:
        resource.prlimit(found.process.pid, resource.RLIMIT_NOFILE, (160, 160))
        assert found.register(service, "10.0.0.1:80", ttl=600).status_code == 200
        clients = [await StreamClient.connect(port) for _ in range(60)]
        for client in clients:
            await client.open()
            await client.subscribe(service)
        refused = [client for client in clients[40:] if (await client.end() or (0,))[0] == Status.UNAVAILABLE]
        assert len(refused) == 20
        assert all(client.status is None for client in clients[:40])
        # Clients that only connect, many more than there are descriptors, are closed to make room.
        crowd = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(120)))
        ended = asyncio.gather(*(reader.read() for reader, _ in crowd), return_exceptions=True)
        for number in range(5):
            assert found.register(service, f"10.0.1.{number}:80", ttl=600).status_code == 200
        await clients[0].message()
        async with asyncio.timeout(20):
            while not any(reader.at_eof() for reader, _ in crowd):
                await asyncio.sleep(0.05)
        for _, writer in crowd:
            writer.close()
        await ended
        for client in clients:
            await client.close()


def test_packages_of_streams_are_imported_where_there_are_streams() -> None:
    """A registry without them needs neither h2 nor protobuf."""
    program = "import sys, registry.workers; print([name for name in ('h2', 'google.protobuf') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
