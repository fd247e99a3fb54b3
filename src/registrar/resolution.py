"""Names to addresses, without ever holding up an exit."""

import asyncio
import contextlib
import socket
import threading


async def resolve(host: str) -> list[str]:
    """Return the addresses of ``host``, each once, in the resolver's order.

    On a thread of its own: a lookup cannot be given up, and the loop's executor would be waited for when the
    process ends, although a stop has a deadline.

    Raises:
        OSError: the name has no address, or no resolver answered.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            _tell(loop, answer, error)
        except UnicodeError:
            _tell(loop, answer, OSError(f"{host!r} is no host name"))
        else:
            _tell(loop, answer, list(dict.fromkeys(str(where[4][0]) for where in found)))

    threading.Thread(target=look_up, name="resolve", daemon=True).start()
    return await answer


def _tell(loop: asyncio.AbstractEventLoop, answer: asyncio.Future[list[str]], result: list[str] | OSError) -> None:
    # A loop that is closed by now has nobody left who waits.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_settle, answer, result)


def _settle(answer: asyncio.Future[list[str]], result: list[str] | OSError) -> None:
    if answer.done():
        return
    if isinstance(result, OSError):
        answer.set_exception(result)
    else:
        answer.set_result(result)
