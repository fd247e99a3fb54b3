"""For those who run the registry: liveness, readiness, metrics and version."""

import asyncio
import platform
import time
from importlib.metadata import version as distribution_version
from typing import Annotated

from fastapi import APIRouter, Query, Response

from registry.core.abilities import Abilities, AbilityName, Failure
from registry.core.lease import sweep_overdue
from registry.http.parameters import AnyReplica
from registry.http.views import Part, Readiness, Version, answers, json
from registry.metrics_exposition import CONTENT_TYPE, expose
from registry.process import RegistryProcess
from registry.store.migration import newest_revision

router = APIRouter(tags=["operations"])

VERBS: dict[AbilityName, str] = {
    "accept": "accept connections",
    "renew": "renew leases",
    "change": "store changes",
}
"""What a process that lacks an ability cannot do, in words."""

_STALE_AFTER = 5
"""Resync intervals without a complete reading after which a snapshot counts as old."""


@router.get(
    "/livez",
    operation_id="get_liveness",
    responses={200: {"description": "The process answers.", "content": {"text/plain": {"example": "ok\n"}}}},
    response_class=Response,
)
async def get_liveness() -> Response:
    """Tell that the process answers. Asks nothing of PostgreSQL: restarting us would not mend that."""
    return Response("ok\n", media_type="text/plain")


@router.get(
    "/readyz",
    operation_id="get_readiness",
    responses=answers(
        Readiness,
        "This process can answer discovery.",
        {"ready": True, "parts": [{"name": "snapshot", "ok": True, "detail": "read 0.4 s ago"}]},
    )
    | {503: {"description": "Not yet.", "content": {"application/json": {}}}},
)
async def get_readiness(
    process: AnyReplica,
    verbose: Annotated[str | None, Query(description="Any value, or none: tell of each part.")] = None,
) -> Response:
    """Tell whether discovery can be answered. Stays ready on a good snapshot while PostgreSQL is away."""
    ready = process.cache.ready and not process.cache.closing
    parts = parts_of(process) if verbose is not None else []
    return json(Readiness(ready, parts), 200 if ready else 503, {} if ready else {"retry-after": "1"})


@router.get(
    "/metrics",
    operation_id="get_metrics",
    responses={200: {"description": "Prometheus' text format.", "content": {"text/plain": {}}}},
    response_class=Response,
)
async def get_metrics() -> Response:
    """Return the counters of all worker processes."""
    return Response(expose(), media_type=CONTENT_TYPE)


@router.get(
    "/version",
    operation_id="get_version",
    responses=answers(
        Version,
        "What runs here.",
        {"name": "headcount", "version": "0.1.0", "python": "3.13.1", "schema": "0001"},
    ),
)
async def get_version() -> Response:
    """Return the versions of program, Python and schema."""
    return json(Version("headcount", distribution_version("headcount"), platform.python_version(), newest_revision()))


def parts_of(process: RegistryProcess) -> list[Part]:
    """Return whether each part of this process does its work."""
    cache = process.cache
    age = asyncio.get_running_loop().time() - cache.synchronised_at
    fresh = cache.ready and not cache.stale and age < _STALE_AFTER * process.settings.resync_interval
    said = f"read {age:.1f} s ago, {len(cache.services())} services" if cache.ready else "never read"
    if cache.stale:
        said = f"from disk, stale: PostgreSQL was not read since the start; {len(cache.services())} services"
    return [
        Part("snapshot", cache.ready, said),
        _postgresql(process, fresh=fresh),
        _sweeper(process, fresh=fresh),
        _heartbeats(process.abilities),
    ]


def _postgresql(process: RegistryProcess, *, fresh: bool) -> Part:
    if not fresh:
        return Part(
            "postgresql", ok=False, detail=f"{process.change_feed.loss or 'away'}; discovery goes on from memory"
        )
    if process.change_feed.read_only:
        return Part("postgresql", ok=False, detail="answers, and refuses writes: it is a standby, or set to read only")
    return Part("postgresql", ok=True, detail="answers")


def _sweeper(process: RegistryProcess, *, fresh: bool) -> Part:
    """Return whether somebody sweeps; to hold the lead is no evidence of it.

    Args:
        process: this process.
        fresh: whether that was just now; otherwise nothing is known of others.
    """
    if not fresh:
        return Part("sweeper", ok=False, detail="not known: PostgreSQL, which says when somebody swept, was not read")
    settings = process.settings
    running = time.monotonic() - process.started
    swept_ago = process.change_feed.swept.ago(time.monotonic())
    if sweep_overdue(swept_ago, running, settings.sweep_interval, settings.resync_interval):
        silence = running if swept_ago is None else swept_ago
        return Part("sweeper", ok=False, detail=f"nobody has swept for {silence:.0f} s: nothing expires")
    who = "this process sweeps" if process.sweeper.leads else "another process sweeps"
    return Part("sweeper", ok=True, detail=who)


def _heartbeats(abilities: Abilities) -> Part:
    """Return whether heartbeats get through: their connections, the renewals and the changes that they are."""
    failures = abilities.failures(time.monotonic())
    said = "; ".join(_failing(failure) for failure in failures)
    return Part("heartbeats", ok=not failures, detail=said or "taken")


def _failing(failure: Failure) -> str:
    extent = "" if failure.total else " each time"
    return f"cannot {VERBS[failure.ability]}{extent}, for {failure.seconds:.0f} s: {failure.reason}"
