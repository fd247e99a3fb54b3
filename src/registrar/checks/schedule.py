"""When a check is made: one task for each, at its interval, for as long as the process lives."""

import asyncio
import os
from collections.abc import Callable
from typing import Never

import structlog

from registrar import jitter
from registrar.checks.check import Check, Options
from registrar.result import Outcome, Result

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger()


async def repeat(check: Check, options: Options, observe: Callable[[Result], None]) -> Never:
    """Probe from now on, and tell ``observe`` each result.

    The interval runs from start to start: a hanging app is found within unhealthy_threshold intervals and
    one timeout, because the timeouts between them cost no extra.
    """
    loop = asyncio.get_running_loop()
    due = loop.time() + jitter.phase(options.interval * options.jitter)
    while True:
        await asyncio.sleep(due - loop.time())
        # A process that was frozen continues from now instead of catching up.
        due = max(due, loop.time()) + jitter.at_most(options.interval, options.jitter)
        observe(await _once(check, options.patience))


async def _once(check: Check, patience: float) -> Result:
    try:
        async with asyncio.timeout(patience):
            return await check.probe()
    except TimeoutError:
        return Result(Outcome.FAILED, f"no answer within {patience:g}s")
    except OSError as error:
        # asyncio words a refused connection as a failed call; people know the system's words.
        return Result(Outcome.FAILED, os.strerror(error.errno) if error.errno else str(error))
    except ValueError as error:
        return Result(Outcome.FAILED, str(error))
    except Exception as error:
        # One broken check must not take the endpoints of the others with it.
        log.exception("check_broken", check=type(check).__name__)
        return Result(Outcome.FAILED, f"the check itself broke: {error!r}")
