"""What a unit test may not do: open a socket, start a process, ask PostgreSQL.

Python reports these acts as audit events, whichever library they come from. asyncio's own pair of sockets is not among
them: it is neither bound nor connected.
"""

import sys
import threading
from collections.abc import Generator
from typing import Any

import pytest

FORBIDDEN = {
    "socket.bind": "it binds a socket",
    "socket.connect": "it connects a socket",
    "socket.getaddrinfo": "it resolves a name",
    "socket.gethostbyname": "it resolves a name",
    "socket.sendmsg": "it sends a datagram",
    "socket.sendto": "it sends a datagram",
    "subprocess.Popen": "it starts a process",
    "os.fork": "it starts a process",
    "os.forkpty": "it starts a process",
    "os.posix_spawn": "it starts a process",
    "os.system": "it starts a process",
}
POSTGRESQL = {"server", "database", "shared_registry"}
"""Fixtures of tests/conftest.py behind which a PostgreSQL is started."""


class NotAUnitTestError(AssertionError):
    """Raised within the call that a unit test may not make."""


class _Watch:
    """Audit events of the unit test that runs.

    Attributes:
        acts: what the test did, in order; None between tests. Kept beside the exception, which code may catch.
        others: threads that were there before the test, such as a fixture of another folder left.
    """

    def __init__(self) -> None:
        self.acts: list[str] | None = None
        self.others: set[int] = set()

    def __call__(self, event: str, _: tuple[Any, ...]) -> None:
        if self.acts is None or event not in FORBIDDEN or threading.get_ident() in self.others:
            return
        self.acts.append(f"{FORBIDDEN[event]} ({event})")
        raise NotAUnitTestError(self.acts[-1])


_watch = _Watch()
sys.addaudithook(_watch)


def _belongs(item: pytest.Item, acts: list[str]) -> str:
    return (
        f"{item.nodeid} is not a unit test: {acts[0]}. Move it to tests/integration, "
        "or to tests/contract if it holds the HTTP API to its promise."
    )


def _watched(item: pytest.Item) -> Generator[None, object, object]:
    _watch.others = {thread.ident or 0 for thread in threading.enumerate()} - {threading.get_ident()}
    acts: list[str] = []
    _watch.acts = acts
    try:
        return (yield)
    finally:
        _watch.acts = None
        if acts:
            pytest.fail(_belongs(item, acts), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that asks for PostgreSQL, or whose fixtures do what it may not do."""
    asked = POSTGRESQL & set(getattr(item, "fixturenames", ()))
    if asked:
        pytest.fail(_belongs(item, [f"it asks for PostgreSQL (fixture {min(asked)})"]), pytrace=False)
    return (yield from _watched(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that does what it may not do."""
    return (yield from _watched(item))
