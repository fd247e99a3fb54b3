"""Sample app that the demo registers: ``python -m registry_demo.app --listen 127.0.0.1:8080 --name a``.

It stops as an app behind a load balancer must: it finishes the requests that it has begun to answer.
"""

import argparse
import asyncio
import contextlib
import random
import signal

WORK_TIME = 0.005
"""Seconds that a request takes, so that a kill also meets requests that are under way."""


class SampleApp:
    """A small HTTP/1.1 server with keep-alive: GET /work answers its name, GET /healthz answers 200.

    Args:
        name: its name.
        zone: where it runs.
        errors: the part of GET /work that is answered with 503, at random.
    """

    def __init__(self, name: str, zone: str, errors: float = 0.0) -> None:
        self._name = name
        self._zone = zone
        self._errors = errors
        self._stopping = False
        # Connections that wait for their next request; they are closed at once when the app stops.
        self._idle: set[asyncio.StreamWriter] = set()
        # The task of every open connection.
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, host: str, port: int, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set, then finish the requests that were begun."""
        server = await asyncio.start_server(self._accept, host, port)
        await stop.wait()
        self._stopping = True
        server.close()
        for writer in self._idle:
            writer.close()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio starts a task for each connection
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while not self._stopping:
                await self._answer(reader, writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._idle.add(writer)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        finally:
            self._idle.discard(writer)
        status, body = await self._route(head.split(b"\r\n", 1)[0].decode("latin-1"))
        connection = "close" if self._stopping else "keep-alive"
        writer.write(
            f"HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\n"
            f"connection: {connection}\r\nx-zone: {self._zone}\r\nx-app: {self._name}\r\n\r\n{body}".encode()
        )
        await writer.drain()

    async def _route(self, request_line: str) -> tuple[str, str]:
        method, _, target = request_line.partition(" ")
        path = target.split(" ")[0].split("?")[0]
        if method != "GET":
            return "405 Method Not Allowed", ""
        if path == "/healthz":
            return "200 OK", "ok\n"
        if path == "/work":
            await asyncio.sleep(WORK_TIME)
            if random.random() < self._errors:  # noqa: S311  # no secret
                return "503 Service Unavailable", ""
            return "200 OK", f"{self._name}\n"
        return "404 Not Found", ""


async def _run(listen: str, name: str, zone: str, errors: float) -> None:
    # Any address may be listened on, also 0.0.0.0 in a container, which no endpoint could have.
    host, _, port = listen.rpartition(":")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await SampleApp(name, zone, errors).serve(host.strip("[]"), int(port), stop)


def main() -> None:
    """Run the app until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True, help="ip:port")
    parser.add_argument("--name", required=True)
    parser.add_argument("--zone", default="")
    parser.add_argument("--errors", type=float, default=0.0, help="the part of requests to answer with 503")
    given = parser.parse_args()
    asyncio.run(_run(given.listen, given.name, given.zone, given.errors))


if __name__ == "__main__":
    main()
