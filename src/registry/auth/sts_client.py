"""The client of AWS STS: sends the requests that the registry built, to the registry's own endpoint alone."""

import asyncio
import socket
import ssl
from contextlib import suppress
from functools import partial
from threading import Thread

import httpx

from registry.auth.aws_login import BODY, BadLoginError, SignedRequest
from registry.auth.sts_answer import (
    MAX_ANSWER_BYTES,
    AwsCaller,
    BadAnswerError,
    error_code,
    is_unavailable,
    read_answer,
)
from registry.errors import UnavailableError
from wire.aws_partition import partition_of

STS_TIMEOUT = 3.0
"""Seconds for a whole login at STS: the wait for a connection, name resolution, TLS and the answer."""
MAX_CONNECTIONS = 16
"""Requests to STS at once."""
MAX_WAITING = 256
"""Logins that wait for STS at once. More are refused without waiting, so that an outage of STS holds no more."""
RETRY_AFTER = 5.0
"""Seconds after which a login that met an outage may be sent again, signed anew."""
_IDLE_TIMEOUT = 5.0
"""Seconds that an idle connection is kept; STS closes its own after some more."""


class StsClient:
    """Asks AWS STS who signed a request. It follows no redirect, keeps no cookie and reads no proxy setting.

    Args:
        endpoint: the URL of STS, for instance of a VPC endpoint; the public one of the signed region when it is None.
        timeout: seconds for a whole login.
    """

    def __init__(self, endpoint: str | None = None, timeout: float = STS_TIMEOUT) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        # Logins that wait for a connection or for an answer.
        self._waiting = 0
        # The look-ups of names that are under way, by name. A resolver without a server takes long to give up.
        self._lookups: dict[str, asyncio.Future[None]] = {}
        # The transport, not a client: a client adds headers, keeps cookies and decompresses.
        self._transport = httpx.AsyncHTTPTransport(
            verify=ssl.create_default_context(),
            trust_env=False,
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=_IDLE_TIMEOUT),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def caller_of(self, request: SignedRequest) -> AwsCaller:
        """Return the role's session that signed a request.

        Raises:
            BadLoginError: STS refuses the request, or names something else than a role's session.
            UnavailableError: STS did not decide.
        """
        if self._waiting >= MAX_WAITING:
            raise _unavailable(f"{self._waiting} logins wait for AWS STS already")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._timeout), self._slots:
                status, body = await self._exchange(request)
        except TimeoutError as error:
            raise _unavailable(f"AWS STS did not answer within {self._timeout:g} s") from error
        except BadAnswerError as error:
            raise _unavailable(str(error)) from error
        except (OSError, httpx.TransportError) as error:
            raise _unavailable(f"AWS STS cannot be reached: {type(error).__name__}", repr(error)) from error
        finally:
            self._waiting -= 1
        return _caller(request, status, body)

    async def _exchange(self, request: SignedRequest) -> tuple[int, bytes]:
        url = httpx.URL(self._endpoint or f"https://{request.host}").copy_with(raw_path=b"/")
        await self._resolve(url.host)
        # The signed host stays the header, wherever the request is sent.
        message = httpx.Request("POST", url, headers=[*request.headers, ("accept-encoding", "identity")], content=BODY)
        response = await self._transport.handle_async_request(message)
        try:
            body = bytearray()
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > MAX_ANSWER_BYTES:
                    raise BadAnswerError(f"the answer of AWS STS exceeds {MAX_ANSWER_BYTES:,} bytes")
        finally:
            await response.aclose()
        return response.status_code, bytes(body)

    async def _resolve(self, host: str) -> None:
        """Wait until a name can be resolved.

        The transport resolves in the loop's threads, which are few and shared with all else that blocks. While no name
        server answers, each login would hold one of them for longer than its own time.
        """
        lookup = self._lookups.get(host)
        if lookup is None:
            loop = asyncio.get_running_loop()
            lookup = self._lookups[host] = loop.create_future()
            lookup.add_done_callback(partial(self._forget_lookup, host))
            # A daemon, because a process that stops does not wait for a name server.
            Thread(target=_look_up, args=(host, loop, lookup), name="sts-name", daemon=True).start()
        await asyncio.shield(lookup)

    def _forget_lookup(self, host: str, lookup: asyncio.Future[None]) -> None:
        del self._lookups[host]
        # Nobody may wait for it any more; an exception that nobody asks for is logged otherwise.
        lookup.exception()


def _look_up(host: str, loop: asyncio.AbstractEventLoop, lookup: asyncio.Future[None]) -> None:
    try:
        socket.getaddrinfo(host, None)
        conclude = partial(lookup.set_result, None)
    except (OSError, UnicodeError) as error:
        conclude = partial(lookup.set_exception, OSError(f"the name {host} cannot be resolved: {error}"))
    # The loop is closed when the process stops meanwhile.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(conclude)


def _caller(request: SignedRequest, status: int, body: bytes) -> AwsCaller:
    if status != 200:
        answer = f"{status} {error_code(body)}".rstrip()
        if is_unavailable(status, body):
            raise _unavailable(f"AWS STS answered {answer}")
        raise BadLoginError(f"AWS STS refused the login with {answer}")
    partition = partition_of(request.region)
    try:
        return read_answer(body, partition.name if partition else "")
    except BadAnswerError as error:
        raise _unavailable(str(error)) from error


def _unavailable(message: str, cause: str = "") -> UnavailableError:
    said = f"{message}; sign a new login and send it again. Sessions go on, and can be renewed"
    return UnavailableError(said, RETRY_AFTER, cause=cause or message)
