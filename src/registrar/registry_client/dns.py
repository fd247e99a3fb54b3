"""Lookup of host names by the system's resolver, in a thread that no exit waits for."""

import socket

from registrar.thread_call import call_in_thread


async def resolve(host: str) -> list[str]:
    """Return the addresses of ``host``, each once, in the resolver's order.

    Raises:
        OSError: the name has no address, or no resolver answered.
    """

    def look_up() -> list[str]:
        entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(socket_address[0]) for *_, socket_address in entries))

    try:
        return await call_in_thread(look_up)
    except UnicodeError as error:
        raise OSError(f"{host!r} is no host name") from error
