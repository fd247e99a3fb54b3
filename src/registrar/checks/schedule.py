"""When a check is made: one task for each, at its interval, for as long as the process lives."""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable
from typing import Never

import structlog

from registrar import jitter
from registrar.checks.check import Check, Options
from registrar.checks.result import Outcome, Result

# Between the first checks, until they have a verdict: an endpoint that was listed before the registrar's restart has
# to be back before its lease is over, and an app that is ready does not wait for a long interval.
STARTING_INTERVAL = 1.0

# The registrar, or its machine, lacks what a check needs. That is evidence for nothing about the app.
_OWN_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger()


async def repeat(
    check: Check, options: Options, observe: Callable[[Result], None], starting: Callable[[], bool]
) -> Never:
    """Probe from now on, and tell ``observe`` each result.

    The interval runs from start to start: a hanging app is found within unhealthy_threshold intervals and
    one timeout, because the timeouts between them cost no extra.

    Args:
        check: is asked.
        options: how often, among others.
        observe: hears the results.
        starting: whether they are still waited for; the interval is 1 s at most then, and the check at work for at
            most half of the time.
    """
    loop = asyncio.get_running_loop()
    pause = min(options.interval, STARTING_INTERVAL) if starting() else options.interval
    await asyncio.sleep(jitter.phase(pause * options.jitter))
    while True:
        began = loop.time()
        observe(await probe_once(check, options))
        now = loop.time()
        pause = max(STARTING_INTERVAL, 2 * (now - began)) if starting() else options.interval
        # A process that was frozen continues from now instead of catching up.
        await asyncio.sleep(began + jitter.at_most(min(pause, options.interval), options.jitter) - now)


async def probe_once(check: Check, options: Options) -> Result:
    """Return what one probe finds; it ends in time, and its errors are results."""
    result = await _probe(check, options)
    if result.outcome in (Outcome.DEGRADED, Outcome.FAILED) and options.failure_note:
        return result.with_note(options.failure_note)
    return result


async def _probe(check: Check, options: Options) -> Result:
    try:
        async with asyncio.timeout(options.probe_timeout):
            return await check.probe()
    except TimeoutError:
        return Result(options.unanswered, f"no answer within {options.probe_timeout:g}s")
    except OSError as error:
        if error.errno in _OWN_SHORTAGE and not isinstance(error, ssl.SSLError | socket.gaierror):
            return Result(Outcome.UNKNOWN, f"the registrar itself cannot check: {_words(error)}")
        return Result(options.unanswered, _words(error))
    except ValueError as error:
        return Result(Outcome.FAILED, str(error))
    except Exception as error:
        # One broken check must not take the endpoints of the others with it.
        log.exception("check_internal_error", check=type(check).__name__)
        return Result(Outcome.FAILED, f"the check itself broke: {error!r}")


def _words(error: OSError) -> str:
    """Return the system's words, which people know: asyncio calls a refused connection a failed call."""
    known = os.strerror(error.errno) if error.errno and error.errno > 0 else ""
    # An error of TLS or of names has a number of its own, that the system gives another meaning.
    if isinstance(error, ssl.SSLError | socket.gaierror) or not known:
        return str(error)
    return f"{error.filename}: {known}" if error.filename else known
