"""The schedule of a check: one task for each check, which probes at its interval."""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable
from typing import Never

from registrar import jitter
from registrar.checks.check import Check, Options
from registrar.checks.result import Outcome, Result
from registrar.event_log import EventLogger

STARTING_INTERVAL = 1.0
"""Seconds between the checks until their first verdict, even if the interval is longer.

After a restart of the registrar the endpoint has to be registered again before its lease expires, and an app that is
ready should not wait for a long interval.
"""

# Errors of a registrar, or a machine, that is short of descriptors or memory; they say nothing about the app.
_OWN_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})

log = EventLogger(__name__)


async def repeat(
    check: Check, options: Options, observe: Callable[[Result], None], starting: Callable[[], bool]
) -> Never:
    """Probe at the interval until cancelled, and call ``observe`` with each result.

    The interval runs from start to start: a hanging app is detected within unhealthy_threshold intervals and one
    timeout, because the timeouts do not add up.

    Args:
        check: the check to probe.
        options: its options, with the interval and the timeout.
        observe: called with each result.
        starting: tells whether the first verdict is pending; until then the interval is 1 s at most, and a slow check
            runs for at most half of the time.
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
    """Probe once and return the result; a timeout and every error become a result."""
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
            return Result(Outcome.UNKNOWN, f"the registrar itself cannot check: {_text(error)}")
        return Result(options.unanswered, _text(error))
    except ValueError as error:
        return Result(Outcome.FAILED, str(error))
    except Exception as error:
        # An error in one check must not stop the others.
        log.exception("check_internal_error", check=type(check).__name__)
        return Result(Outcome.FAILED, f"internal error of the check: {error!r}")


def _text(error: OSError) -> str:
    """Return the text of an error: the system's, as asyncio's says no more than that a call failed."""
    text = os.strerror(error.errno) if error.errno and error.errno > 0 else ""
    # The errno of a TLS or resolver error is not one of the system.
    if isinstance(error, ssl.SSLError | socket.gaierror) or not text:
        return str(error)
    return f"{error.filename}: {text}" if error.filename else text
