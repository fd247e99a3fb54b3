"""Requests through an Envoy at a steady rate, of which three in ten are POSTs, and what became of them."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Load:
    """Requests that are sent at a steady rate, however slow the answers are.

    Attributes:
        lost: the failed requests by method.
        sent: all requests by method.
        outcomes: whether each request was answered with 200, by its number.
        reasons: statuses and errors of the failed ones.
    """

    port: int
    lost: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    outcomes: dict[int, bool] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def run(self, rate: float, seconds: float, *, posts: bool = True) -> None:
        """Send for some seconds; answers are waited for by ``finish``."""
        clock = asyncio.get_running_loop().time
        begins, first = clock(), len(self.outcomes)
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, begins + number / rate - clock()))
            method = "POST" if posts and number % 10 in (2, 5, 8) else "GET"
            self.outcomes[first + number] = False
            self.tasks.append(asyncio.create_task(self.request(method, first + number)))

    async def finish(self) -> None:
        """Wait for all answers."""
        await asyncio.gather(*self.tasks)

    async def request(self, method: str, number: int) -> None:
        """Send one request, and note what became of it."""
        self.sent[method] += 1
        try:
            status = await asyncio.wait_for(self._status(method, number), 20)
        except (OSError, EOFError, TimeoutError) as error:
            status = type(error).__name__
        self.outcomes[number] = status == "200"
        if status != "200":
            self.lost[method] += 1
            self.reasons[f"{method} {status}"] += 1

    async def _status(self, method: str, number: int) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            head = (
                f"{method} /work HTTP/1.1\r\nhost: shop\r\nx-id: {number}\r\ncontent-length: 0\r\nconnection: close\r\n"
            )
            writer.write(f"{head}\r\n".encode())
            return (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode()
        finally:
            writer.close()
