"""File descriptors: every connection needs one, those to PostgreSQL included."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger()

MAX_DESCRIPTORS = 65_536
"""Descriptors that a process asks for, if its hard limit allows as many."""
_UNLIMITED = 2**31
"""The limit where there is none, or where it cannot be read."""
RESERVE = 256
"""Descriptors that held polls leave to heartbeats, people and PostgreSQL."""
MAX_HELD_ERRANDS = 2000
"""Requests for errands that a process holds at most; beyond it registrars are told to ask again later."""


@contextmanager
def raised_descriptor_limit() -> Iterator[int]:
    """Raise the soft limit of descriptors until the end of the block, and yield it.

    Programs that are started before or after the block get the earlier limit: some of them use ``select()``, which
    fails for descriptors beyond 1,023. Nothing in a registry process does (uvloop, asyncpg and Python's own subprocess
    and multiprocessing use epoll and poll).
    """
    before: tuple[int, int] | None = None
    try:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            before = (soft, hard)
    except OSError as error:
        # A filter of system calls, such as systemd's ~@resources, may forbid this; then the unit's limit stays.
        log.warning("descriptor_limit_kept", error=str(error), limit=descriptor_limit())
    try:
        yield descriptor_limit()
    finally:
        if before is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


def descriptor_limit() -> int:
    """Return the limit of descriptors as it is now; an operator may change it while the process runs (prlimit)."""
    try:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    except OSError:
        return _UNLIMITED
    return _UNLIMITED if soft == resource.RLIM_INFINITY else soft


def cap_streams(wanted: int, limit: int) -> int:
    """Return how many streams a process may have, so that the reserve stays free, or else three quarters.

    Streams stay, whoever else needs a descriptor, while held polls end.

    Args:
        wanted: REGISTRY_XDS_MAX_STREAMS.
        limit: the limit of descriptors.
    """
    capped = min(wanted, max(limit // 4, limit - RESERVE))
    if capped < wanted:
        log.warning("few_descriptors", descriptor_limit=limit, max_streams=capped, instead_of=wanted)
    return capped


def cap_held_polls(wanted: int, limit: int) -> int:
    """Return how many polls a process may hold, so that the reserve stays free.

    Args:
        wanted: REGISTRY_MAX_HELD_POLLS.
        limit: the limit of descriptors.
    """
    capped = max(0, min(wanted, limit - RESERVE))
    if capped < wanted:
        log.warning("few_descriptors", descriptor_limit=limit, max_held_polls=capped, instead_of=wanted)
    return capped


def cap_held_errands(held_polls: int, limit: int) -> int:
    """Return how many requests for errands a process may hold, beside the polls that it may hold.

    They are no polls, and take from the reserve where the polls leave nothing, but never more than half of it.

    Args:
        held_polls: the polls that the process may hold.
        limit: the limit of descriptors.
    """
    return max(0, min(MAX_HELD_ERRANDS, limit - RESERVE // 2 - held_polls))
