"""The http check: a request whose answer has an expected status.

Spoken over a plain socket: a client library would cost more memory than the rest of the sidecar's checks, and
its pooled connections would hide that nobody accepts new ones.
"""

import asyncio
import re
from http import HTTPStatus
from typing import Annotated, Self

from msgspec import Meta, field

from registrar.checks.check import Check, Options, Target
from registrar.result import Outcome, Result
from wire.address import format_endpoint

_LARGEST_HEAD = 16 * 1024
_BODY_FOR_PEOPLE = 512
_BODY_PATIENCE = 0.1
_RANGE = re.compile(r"(?P<low>[0-9]{3})(?:-(?P<high>[0-9]{3}))?")
_PRINTABLE = r"^[\x20-\x7e]*$(?!\n)"


class StatusRange:
    """The statuses from ``low`` to ``high``, both included."""

    __slots__ = ("high", "low")

    def __init__(self, low: int, high: int) -> None:
        self.low = low
        self.high = high

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read ``200-299`` or ``204``.

        Raises:
            ValueError: no range between 100 and 599.
        """
        match = _RANGE.fullmatch(str(value))
        if match is None:
            raise ValueError(f"{value!r} is no status range; write it like 200-299 or 204")
        low, high = int(match["low"]), int(match["high"] or match["low"])
        if not 100 <= low <= high <= 599:
            raise ValueError(f"{value!r} is not within 100-599")
        return cls(low, high)

    def __contains__(self, status: int) -> bool:
        return self.low <= status <= self.high

    def __str__(self) -> str:
        return f"{self.low}-{self.high}"


class HttpOptions(Options, frozen=True, tag="http"):
    """Ask for a path, and expect a status."""

    path: Annotated[
        str,
        Meta(
            pattern=r"^/[!-~]*$(?!\n)",
            description="Path of the http check, like /healthz. Let it answer for what this instance can "
            "serve by itself: a shared database in it takes every instance out at once. Without "
            "this the check is tcp, which does not notice an app that accepts and hangs.",
        ),
    ]
    method: Annotated[str, Meta(pattern=r"^[A-Z]{1,16}$(?!\n)", description="The request's method.")] = "GET"
    headers: Annotated[
        dict[
            Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]{1,64}$(?!\n)")],
            Annotated[str, Meta(pattern=_PRINTABLE)],
        ],
        Meta(description="Headers to send besides Host, User-Agent and Connection; Host may be replaced."),
    ] = field(default_factory=dict)
    expect_status: Annotated[
        tuple[StatusRange, ...],
        Meta(min_length=1, description="Statuses that pass, like 200-299 or 204; all others fail."),
    ] = (StatusRange(200, 299),)

    def check(self, target: Target) -> Check:
        """Return the check of this type for ``target``."""
        return HttpCheck(self, target)


class HttpCheck:
    """Sends one request over its own connection.

    An answer with ``x-envoy-degraded`` is DEGRADED, as in Envoy's own health checks.
    """

    def __init__(self, options: HttpOptions, target: Target) -> None:
        self._target = target
        self._request = _request(options, target)
        self._expected = options.expect_status

    async def probe(self) -> Result:
        """Judge the first final answer; anything that is not HTTP raises ValueError."""
        reader, writer = await asyncio.open_connection(self._target.address, self._target.port, limit=_LARGEST_HEAD)
        try:
            writer.write(self._request)
            await writer.drain()
            status, names = await _final_head(reader)
            return await self._judge(status, names, reader)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise ValueError("the answer's head never ended") from error
        finally:
            writer.close()

    async def _judge(self, status: int, names: set[str], reader: asyncio.StreamReader) -> Result:
        if not any(status in expected for expected in self._expected):
            return Result(Outcome.FAILED, f"{_phrase(status)} {await _body(reader)}")
        if "x-envoy-degraded" in names:
            return Result(Outcome.DEGRADED, f"{_phrase(status)} x-envoy-degraded")
        return Result(Outcome.PASSED, _phrase(status))


def _request(options: HttpOptions, target: Target) -> bytes:
    headers = {
        "host": format_endpoint(target.address, target.port),
        "user-agent": "headcount-registrar",
        "connection": "close",
        **{name.lower(): value for name, value in options.headers.items()},
    }
    lines = [f"{options.method} {options.path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


async def _final_head(reader: asyncio.StreamReader) -> tuple[int, set[str]]:
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise ValueError(f"not an HTTP answer: {first[:100]}")
        # 100 Continue and 103 Early Hints come before the answer.
        if int(rest[:3]) >= 200:
            return int(rest[:3]), {line.partition(":")[0].strip().lower() for line in lines}


async def _body(reader: asyncio.StreamReader) -> str:
    """Return the start of a failed answer's body, as long as it comes at once."""
    try:
        async with asyncio.timeout(_BODY_PATIENCE):
            return (await reader.read(_BODY_FOR_PEOPLE)).decode(errors="replace")
    except TimeoutError:
        return ""


def _phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
