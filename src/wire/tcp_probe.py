"""A TCP probe: one connection attempt that tells a host that refuses from a network that does.

A reset during the handshake comes from the host itself (or from a firewall that forges one). An ICMP error, which Linux
reports by the same ``ECONNREFUSED``, comes from anything on the way. ``IP_RECVERR`` keeps ICMP errors in a queue of the
socket (Linux, ip(7) and ipv6(7)), so a refusal counts only while that queue is empty.
"""

import asyncio
import errno
import select
import socket
from typing import Literal

Outcome = Literal["connected", "refused", "timed_out", "nothing"]
"""What an attempt shows; ``nothing``: anything but the other three, such as no route or no descriptor."""

PROBE_TIMEOUT = 1.0
"""Seconds for an attempt."""
_MAX_LATENESS = 0.5
"""Seconds by which a time-out may be late; a process that was stopped for longer did not wait, and saw nothing."""

# Of <linux/in.h> and <linux/in6.h>; the socket module has no names for them.
_IP_RECVERR = 11
_IPV6_RECVERR = 25


async def probe(address: str, port: int, seconds: float = PROBE_TIMEOUT) -> Outcome:
    """Try to connect once, from a new source port, and close the connection without having sent a byte.

    The connection is closed in the regular way and not reset: the server reads the end of an empty connection, and the
    prober, as the side that closes first, keeps what is left of it (TIME_WAIT).
    """
    try:
        with _socket(address) as attempt:
            return await _connect(attempt, address, port, seconds)
    except OSError:
        # No descriptor, no memory, or no such family on this machine.
        return "nothing"


def source_address(address: str) -> str | None:
    """Return the address from which this machine connects to another one; None: it has no route to it.

    Connecting a datagram socket sends nothing.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as unsent:
            unsent.connect((address, 9))
            return str(unsent.getsockname()[0])
    except OSError:
        return None


def _socket(address: str) -> socket.socket:
    ipv6 = ":" in address
    attempt = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        attempt.setblocking(False)
        if ipv6:
            attempt.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
        else:
            attempt.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    except BaseException:
        attempt.close()
        raise
    return attempt


async def _connect(attempt: socket.socket, address: str, port: int, seconds: float) -> Outcome:
    loop = asyncio.get_running_loop()
    began = loop.time()
    error = attempt.connect_ex((address, port))
    if error == errno.EINPROGRESS:
        if not await _writable(attempt, seconds):
            return "timed_out" if loop.time() - began < seconds + _MAX_LATENESS else "nothing"
        error = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return _outcome(attempt, error)


async def _writable(attempt: socket.socket, seconds: float) -> bool:
    loop = asyncio.get_running_loop()
    writable = loop.create_future()
    loop.add_writer(attempt, _finish, writable)
    try:
        async with asyncio.timeout(seconds):
            await writable
    except TimeoutError:
        # A busy loop may have seen the end of the wait before the answer, which came in time.
        return _is_ready(attempt)
    finally:
        loop.remove_writer(attempt)
    return True


def _finish(writable: "asyncio.Future[None]") -> None:
    if not writable.done():
        writable.set_result(None)


def _is_ready(attempt: socket.socket) -> bool:
    poll = select.poll()
    poll.register(attempt, select.POLLOUT)
    return bool(poll.poll(0))


def _outcome(attempt: socket.socket, error: int) -> Outcome:
    if error == errno.ECONNREFUSED:
        return "nothing" if _has_icmp_error(attempt) else "refused"
    if error or _connected_to_itself(attempt):
        return "nothing"
    return "connected"


def _has_icmp_error(attempt: socket.socket) -> bool:
    try:
        attempt.recvmsg(1, 512, socket.MSG_ERRQUEUE)
    except BlockingIOError:
        return False
    return True


def _connected_to_itself(attempt: socket.socket) -> bool:
    """Return whether both ends are one socket: the port was free and became the source port (RFC 793, figure 8)."""
    return bool(attempt.getsockname() == attempt.getpeername())
