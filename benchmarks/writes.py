"""Writes that arrive beside what is measured: heartbeats and changes, each a request of its own, from one process.

Run as ``python -m benchmarks.writes PORT SERVICE HEARTBEATS CHANGES``, after ``prepare``. It writes until SIGTERM; then
it tells how many a second were stored.
"""

import asyncio
import contextlib
import itertools
import json
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import uvloop
from harness.process import end, eventually, running
from harness.registry import Registry
from msgspec import Struct

from benchmarks.client import Client, request
from benchmarks.stage import address, registration, seed

_LEASES = 4_000
_OTHERS = 100
"""Services that the leases are spread over."""
_CHANGED = 10
"""Services that the changes go to in turn; the polled one is the first of them."""
_CONNECTIONS = 32
_TICK = 0.001
_READY = "ready"


class Writes(Struct, frozen=True):
    """How many of each arrive in a second."""

    heartbeats: float = 2_000
    changes: float = 50

    def __str__(self) -> str:
        return f"{self.heartbeats:,.0f} heartbeats/s and {self.changes:,.0f} changes/s"


class Stored(Struct):
    """What was stored in a second, once it is over."""

    heartbeats: float = 0.0
    changes: float = 0.0


def prepare(registry: Registry, service: str) -> None:
    """Register the endpoints of other services that renew, and those that change."""
    places = [(_other(number), number) for number in range(_LEASES)] + _changeable(service)
    for name in {name for name, _ in places}:
        seed(registry, name, [_number(number) for owner, number in places if owner == name])


@contextlib.contextmanager
def writing(port: int, service: str, directory: Path, writes: Writes) -> Iterator[Stored]:
    """Write for the length of the block, also to the polled ``service``; what was stored is known after it.

    Raises:
        RuntimeError: a write was refused.
    """
    stored = Stored()
    log = directory / f"writes-{time.monotonic_ns()}.log"
    told = [str(port), service, str(writes.heartbeats), str(writes.changes)]
    with running([sys.executable, "-m", "benchmarks.writes", *told], log=log) as process:
        eventually(lambda: process.poll() is not None or _READY in log.read_text(), within=60, said=log.read_text)
        yield stored
        if end(process) != 0:
            raise RuntimeError(f"the writes failed: {log.read_text()[-2000:]}")
    found = msgspec.json.decode(log.read_text().splitlines()[-1], type=Stored)
    stored.heartbeats, stored.changes = found.heartbeats, found.changes


class _Writer:
    """Sends what is due, each on a connection that is free; what finds none is late, and later not sent."""

    def __init__(self, clients: list[Client]) -> None:
        self.stored = 0
        self._free = clients
        self._failed: BaseException | None = None

    async def write(self, requests: Iterator[bytes], rate: float) -> None:
        """Send ``rate`` requests a second on average until cancelled.

        Raises:
            RuntimeError: one was refused.
        """
        due = time.monotonic()
        while True:
            # At random, as of those that know nothing of each other: in bursts, each would queue behind the others.
            due += random.expovariate(rate)
            while time.monotonic() < due or not self._free:
                await asyncio.sleep(_TICK)
                if self._failed is not None:
                    raise self._failed
            client = self._free.pop()
            client.send(next(requests)).add_done_callback(self._returning(client))

    def _returning(self, client: Client) -> Callable[["asyncio.Future[tuple[int, bytes]]"], None]:
        def done(answer: "asyncio.Future[tuple[int, bytes]]") -> None:
            self._free.append(client)
            if answer.cancelled():
                return
            self._failed = answer.exception()
            if self._failed is None and answer.result()[0] != 200:
                self._failed = RuntimeError(f"refused: {answer.result()}")
            self.stored += 1

        return done


async def _main(port: int, service: str, writes: Writes) -> None:
    clients = [await Client.connect(port) for _ in range(_CONNECTIONS)]
    beats, changes = _Writer(clients[2:]), _Writer(clients[:2])
    tasks = asyncio.gather(beats.write(_beats(), writes.heartbeats), changes.write(_changes(service), writes.changes))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, tasks.cancel)
    begun = time.monotonic()
    sys.stdout.write(_READY + "\n")
    sys.stdout.flush()
    with contextlib.suppress(asyncio.CancelledError):
        await tasks
    seconds = time.monotonic() - begun
    found = Stored(round(beats.stored / seconds, 1), round(changes.stored / seconds, 1))
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")


def _beats() -> Iterator[bytes]:
    """Yield the renewal of each lease in turn, for ever."""
    return itertools.cycle([_put(_other(number), number) for number in range(_LEASES)])


def _changes(service: str) -> Iterator[bytes]:
    """Yield changes of what Envoy sees, in turn to each service that is changed."""
    for number, (name, place) in enumerate(itertools.cycle(_changeable(service))):
        yield _put(name, place, weight=number // _CHANGED % 100 + 1)


def _changeable(service: str) -> list[tuple[str, int]]:
    names = [service, *(_other(number) for number in range(1, _CHANGED))]
    return [(name, _LEASES + number) for number, name in enumerate(names)]


def _put(service: str, number: int, **more: object) -> bytes:
    body = json.dumps(registration(_number(number)) | more).encode()
    return request("PUT", f"/v1/services/{service}/endpoints/{address(_number(number))}", body)


def _number(number: int) -> int:
    # Apart from those that the benchmark itself registers.
    return 1 << 20 | number


def _other(number: int) -> str:
    return f"other-{number % _OTHERS}"


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), sys.argv[2], Writes(float(sys.argv[3]), float(sys.argv[4]))))
