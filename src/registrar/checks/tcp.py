"""The tcp check: somebody accepts connections, and says what is expected."""

import asyncio
from typing import Annotated

from msgspec import Meta

from registrar.checks.check import Check, CheckTarget
from registrar.checks.network import NetworkOptions, connect
from registrar.checks.result import Outcome, Result

_LARGEST_ANSWER = 64 * 1024
_FOR_PEOPLE = 200


class TcpOptions(NetworkOptions, frozen=True, tag="tcp"):
    """Connect, and hang up or talk first."""

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
        self._place = options.place(target)
        self._send = options.send.encode()
        self._expect = options.expect.encode()

    async def probe(self) -> Result:
        """Pass as soon as the connection stands, or the expected text is there."""
        reader, writer = await connect(self._place, _LARGEST_ANSWER)
        try:
            if self._send:
                writer.write(self._send)
                await writer.drain()
            return await self._listen(reader) if self._expect else Result(Outcome.PASSED, "connected")
        finally:
            writer.close()

    async def _listen(self, reader: asyncio.StreamReader) -> Result:
        said = bytearray()
        while self._expect not in said:
            piece = await reader.read(_LARGEST_ANSWER - len(said))
            if not piece:
                words = said[:_FOR_PEOPLE].decode(errors="replace")
                return Result(Outcome.FAILED, f"expected {_shown(self._expect)}, got {words!r}")
            said += piece
        return Result(Outcome.PASSED, f"said {_shown(self._expect)}")


def _shown(text: bytes) -> str:
    return repr(text[:_FOR_PEOPLE].decode(errors="replace"))
