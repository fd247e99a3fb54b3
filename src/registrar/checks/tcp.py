"""The tcp check: somebody accepts connections."""

import asyncio

from registrar.checks.check import Check, Options, Target
from registrar.result import Outcome, Result


class TcpOptions(Options, frozen=True, tag="tcp"):
    """Connect and hang up."""

    def check(self, target: Target) -> Check:
        """Return the check of this type for ``target``."""
        return TcpCheck(target)


class TcpCheck:
    """Opens a connection; what is behind it may still hang, which only an http check sees."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def probe(self) -> Result:
        """Pass as soon as the connection stands."""
        _, writer = await asyncio.open_connection(self._target.address, self._target.port)
        writer.close()
        return Result(Outcome.PASSED, "connected")
