"""Blocking calls in daemon threads, which never delay the exit of the process."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def call_in_thread(work: Callable[[], T]) -> T:
    """Call ``work`` in a new daemon thread and return its result.

    The loop's default executor does not do: asyncio.run waits for its threads at the end, so that a call that hangs
    would delay a stop, which has a deadline.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]  # without an error there is a result

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except Exception as raised:  # noqa: BLE001  # it is raised in the caller
            error = raised
        # The loop may be closed by now; then nothing awaits the result.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="blocking call", daemon=True).start()
    return await outcome
