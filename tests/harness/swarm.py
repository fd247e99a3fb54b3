"""Thousands of registrars that start in the same moment, without their processes."""

import asyncio
import json
import random
import time
from dataclasses import dataclass

_SPREAD = 0.2


@dataclass
class Result:
    """What became of a swarm."""

    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0


def swarm(port: int, service: str, count: int, within: float = 30.0) -> Result:
    """Register ``count`` endpoints at once, each over a connection of its own, until each is accepted."""
    return asyncio.run(_swarm(port, service, count, within))


async def _swarm(port: int, service: str, count: int, within: float) -> Result:
    result = Result()
    begun = time.monotonic()
    members = [asyncio.create_task(_member(port, service, number, result)) for number in range(count)]
    _, late = await asyncio.wait(members, timeout=within)
    for member in late:
        member.cancel()
    await asyncio.gather(*members, return_exceptions=True)
    result.seconds = time.monotonic() - begun
    return result


async def _member(port: int, service: str, number: int, result: Result) -> None:
    endpoint = f"10.1.{number >> 8}.{number & 255}:80"
    registration = {"instance_id": f"i-{number}", "incarnation": 1}
    beat = {"service": service, "endpoint": endpoint, "registration": registration}
    body = json.dumps({"heartbeats": [beat]}).encode()
    while True:
        pause = 1.0
        try:
            status, pause = await _post(port, body)
        except (OSError, asyncio.IncompleteReadError):
            status = 0
        if status == 200:
            result.accepted += 1
            return
        result.refused += 1
        await asyncio.sleep(pause * random.uniform(1, 1 + _SPREAD))


async def _post(port: int, body: bytes) -> tuple[int, float]:
    """Send one heartbeat; return its own status and the seconds after which to come back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = (
            f"POST /v1/heartbeats HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        )
        writer.write(head.encode() + b"\r\n\r\n" + body)
        await writer.drain()
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines if ": " in line)
        answer = json.loads(await reader.readexactly(int(headers["content-length"])))
        status = int(first.split(" ")[1])
        if status != 200:
            return status, float(headers.get("retry-after", "1"))
        problem = answer["results"][0].get("problem")
        return (problem["status"], problem.get("retry_after") or 1.0) if problem else (200, 0.0)
    finally:
        writer.close()
