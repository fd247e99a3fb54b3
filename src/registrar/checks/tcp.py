"""The tcp check: the app accepts connections, and sends an expected text."""

import asyncio
from typing import Annotated

from msgspec import Meta

from registrar.checks.check import Check, CheckTarget
from registrar.checks.network import NetworkOptions, connect
from registrar.checks.result import Outcome, Result

_MAX_ANSWER_BYTES = 64 * 1024
"""Bytes in which the expected text has to be."""
_MAX_SHOWN_BYTES = 200
"""Bytes of a text that a result shows."""


class TcpOptions(NetworkOptions, frozen=True, tag="tcp"):
    """Options of the tcp check: a text to send and a text to expect, both optional."""

    send: Annotated[
        str,
        Meta(description='Text to send once connected, like "PING\\r\\n". Unset: nothing is sent.'),
    ] = ""
    expect: Annotated[
        str,
        Meta(
            description="Text that must be in the first 64 KiB of what the app says. Unset: a connection is "
            "enough, which an app that accepts and hangs has as well."
        ),
    ] = ""

    def check(self, target: CheckTarget) -> Check:
        """Return the check of this type for ``target``."""
        return TcpCheck(self, target)


class TcpCheck:
    """Opens a connection and, where something is expected, reads until that came."""

    def __init__(self, options: TcpOptions, target: CheckTarget) -> None:
        self._address, self._port = options.address_port(target)
        self._send = options.send.encode()
        self._expect = options.expect.encode()

    async def probe(self) -> Result:
        """Pass as soon as the connection stands, or the expected text is there."""
        reader, writer = await connect(self._address, self._port)
        try:
            if self._send:
                writer.write(self._send)
                await writer.drain()
            return await self._listen(reader) if self._expect else Result(Outcome.PASSED, "connected")
        finally:
            writer.close()

    async def _listen(self, reader: asyncio.StreamReader) -> Result:
        answer = bytearray()
        while self._expect not in answer:
            piece = await reader.read(_MAX_ANSWER_BYTES - len(answer))
            if not piece:
                return Result(Outcome.FAILED, f"expected {_shown(self._expect)}, got {_shown(answer)}")
            answer += piece
        return Result(Outcome.PASSED, f"said {_shown(self._expect)}")


def _shown(text: bytes | bytearray) -> str:
    return repr(text[:_MAX_SHOWN_BYTES].decode(errors="replace"))
