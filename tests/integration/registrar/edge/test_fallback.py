"""A static server that names hosts while no registry answers."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from harness.fake_app import FakeApp
from harness.fake_registry import FakeRegistry
from integration.registrar.edge.world import HOSTS, addresses, world

from registrar.config.fallback_url import FallbackUrl
from registrar.edge import fallback as fallback_module
from registrar.edge.fallback import Fallback
from registrar.edge.token import is_own


def _answer(status: int, body: bytes = b"") -> bytes:
    head = f"HTTP/1.1 {status} Said\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _object(*hosts: str, service: str = "shop", copies: int = 1) -> bytes:
    members = [
        {"endpoint": {"address": {"socket_address": {"address": host.split(":")[0], "port_value": 80}}}}
        for host in hosts
    ]
    kind = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    assignment = {"@type": kind, "cluster_name": service, "endpoints": [{"lb_endpoints": members}]}
    resources = [assignment] * copies
    return json.dumps({"version_info": "db000001:900", "resources": resources, "type_url": kind}).encode()


@pytest.fixture
async def static() -> AsyncIterator[FakeApp]:
    """A static server with the object of each service, of an older moment."""
    async with FakeApp(_answer(200, _object("10.9.9.9:80"))) as running:
        yield running


async def test_hosts_from_a_fallback_until_a_registry_answers(
    registry: FakeRegistry, static: FakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their token is no registry's, so that whatever a registry says replaces them; they are never written to disk."""
    monkeypatch.setattr(fallback_module, "_AFTER", 0.5)
    registry.silent = True
    fallback = Fallback(FallbackUrl(f"http://127.0.0.1:{static.port}/{{service}}.json"))
    directory = tmp_path / "edge"
    async with world(registry, tmp_path / "edge.sock", directory, fallback=fallback) as edge:
        first = await edge.poll()
        token = first.json()["version_info"]
        assert (is_own(token), addresses(first)) == (True, ["10.9.9.9:80"])
        held = asyncio.create_task(edge.poll(version=token, hold=20))
        await registry.assign("shop", "db000001:5", *HOSTS)
        assert not list(directory.glob("shop"))
        registry.silent = False
        answer = await held
        assert (answer.json()["version_info"], addresses(answer)) == ("db000001:5", list(HOSTS))
        # An Envoy that has hosts of a registry gets none of a fallback.
        assert await edge.version(version="db000001:5", hold=0.2) == ""
    await fallback.close()


async def test_an_object_that_did_not_change_is_not_sent_again(static: FakeApp) -> None:
    """By its ETag, as S3 gives one."""
    static.answer = (static.answer or b"").replace(b"content-length", b'etag: "v1"\r\ncontent-length')
    fallback = Fallback(FallbackUrl(f"http://127.0.0.1:{static.port}/{{service}}.json"))
    assert await fallback.get("shop")
    static.answer = b"HTTP/1.1 304 Not Modified\r\n\r\n"
    assert await fallback.get("shop") is None
    assert fallback.problem is None
    assert ['if-none-match: "v1"' in request for request in static.requests] == [False, True]
    await fallback.close()


USELESS = {
    "404": (_answer(404), "404 Said"),
    "a redirect": (_answer(302), "redirects are not followed"),
    "an empty object": (_answer(200, b"{}"), "resources"),
    "HTML": (_answer(200, b"<!doctype html><title>Sign in</title>"), "JSON"),
    "ten megabytes": (_answer(200, b" " * 10_000_000), "bytes"),
    "another service's": (_answer(200, _object("10.9.9.9:80", service="user")), "assignment of 'user'"),
    "no endpoints": (_answer(200, _object()), "no endpoints"),
    "two assignments": (_answer(200, _object("10.9.9.9:80", copies=2)), "2 resources"),
    "a cluster": (_answer(200, b'{"resources":[{"@type":"c.Cluster","name":"shop"}]}'), "c.Cluster"),
    "no HTTP": (b"SSH-2.0\r\n", ""),
}


@pytest.mark.parametrize(("answer", "problem"), USELESS.values(), ids=USELESS)
async def test_a_fallback_that_has_nothing(answer: bytes, problem: str) -> None:
    """Its reason is kept for `registrar status`."""
    async with FakeApp(answer) as server:
        fallback = Fallback(FallbackUrl(f"http://127.0.0.1:{server.port}/{{service}}.json"))
        assert await fallback.get("shop") is None
        assert fallback.problem
        assert problem in fallback.problem
        await fallback.close()


async def test_a_fallback_that_sends_byte_by_byte(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left alone after the time of one request, and costs the next service nothing."""
    monkeypatch.setattr(fallback_module, "_TIMEOUT", 0.3)

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        answer = _answer(200, _object("10.9.9.9:80"))
        with contextlib.suppress(ConnectionError):
            for byte in answer if b"slow" in head else ():
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.01)
            writer.write(answer)
        writer.close()

    async with await asyncio.start_server(trickle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        fallback = Fallback(FallbackUrl(f"http://127.0.0.1:{port}/{{service}}.json"))
        assert await fallback.get("slow") is None
        # One that can be had hides no other one's reason, and the log does not say the same again.
        assert await fallback.get("shop")
        assert await fallback.get("slow") is None
        assert [record.message for record in caplog.records] == ["edge_fallback_failed"]
        assert "Timeout" in str(fallback.problem)
        fallback.forget("slow")
        assert str(fallback.problem) == "None"
        await fallback.close()


def test_the_name_is_quoted() -> None:
    """A service is part of one segment of the path, whatever is in its name."""
    assert FallbackUrl.parse("https://host/a/{service}.json").of("a/b c") == "https://host/a/a%2Fb%20c.json"
