"""The registry's own state in one document, for the console and for `registryctl check`."""

import asyncio
import os
import time
from importlib.metadata import version

from fastapi import APIRouter, Response
from msgspec.structs import replace

from registry.cooperative import cooperatively
from registry.core.lease import sweep_overdue
from registry.core.processes import is_overdue
from registry.errors import UnavailableError
from registry.http.parameters import AnyReplica
from registry.http.status_view import (
    DatabaseState,
    FailureState,
    LeasesState,
    LimitsState,
    PeerState,
    ProcessReportState,
    ProcessState,
    SnapshotState,
    StateView,
    SweeperState,
    SweepRefusalState,
    TallyState,
)
from registry.http.views import answers, json
from registry.process import RegistryProcess
from registry.store.cluster_status import ClusterStatus, RegistryBackend, read_cluster_status
from registry.store.migration import newest_revision
from wire.address import format_endpoint

router = APIRouter(tags=["operations"])

_MAX_NAMED = 20
"""Endpoints that are named where many may be in question."""
_PATIENCE = 2.0
"""Seconds to wait for PostgreSQL; whoever asks does so because something is wrong, and must not wait for long."""


@router.get(
    "/v1/state",
    operation_id="get_state",
    responses=answers(StateView, "How this process stands, and what PostgreSQL tells of the whole.", None),
)
async def get_state(process: AnyReplica) -> Response:
    """Return the registry's own state. Answers 200 also when it is not ready, or PostgreSQL away: that is the state."""
    return json(await state_of(process))


async def state_of(process: RegistryProcess) -> StateView:
    """Return the registry's own state, within two seconds whatever PostgreSQL does."""
    condition: ClusterStatus | None = None
    detail = "answers"
    try:
        async with asyncio.timeout(_PATIENCE), process.history_turns:
            condition = await read_cluster_status(process.database)
        process.change_feed.swept.observe(condition.swept, time.monotonic())
    except UnavailableError as error:
        detail = str(error)
    except TimeoutError:
        detail = f"PostgreSQL did not answer within {_PATIENCE:g} s"
    return _view(process, condition, detail, await _limits(process))


def _view(process: RegistryProcess, found: ClusterStatus | None, detail: str, limits: LimitsState) -> StateView:
    followers = None if found is None else [_peer(one) for one in found.followers]
    return StateView(
        at=time.time(),
        database_id=process.cache.database_id,
        process=ProcessState(version("headcount"), os.getpid(), process.started_at, process.cache.closing),
        snapshot=_snapshot(process),
        database=_database(found, detail),
        sweeper=_sweeper(process, found),
        replicas=followers or None,
        processes=_processes(process),
        leases=None if found is None else _leases(found),
        limits=limits,
    )


async def _limits(process: RegistryProcess) -> LimitsState:
    limits = process.admission.limits
    misplaced = [
        (snapshot.service, address_port)
        async for snapshot in cooperatively(process.cache.services().values())
        for address_port in snapshot.misplaced(limits.networks.allows)
    ]
    return LimitsState(
        services=process.cache.service_count(),
        max_services=limits.services,
        endpoints=process.cache.endpoint_count(),
        max_endpoints=limits.endpoints,
        misplaced=[f"{service} {format_endpoint(*address_port)}" for service, address_port in misplaced[:_MAX_NAMED]],
        misplaced_count=len(misplaced),
    )


def _snapshot(process: RegistryProcess) -> SnapshotState:
    cache, disk_snapshot = process.cache, process.disk_snapshot
    snapshots = cache.services().values()
    read = cache.ready and not cache.stale
    return SnapshotState(
        ready=cache.ready,
        stale=cache.stale,
        read_ago=asyncio.get_running_loop().time() - cache.synchronised_at if read else None,
        read_every=process.settings.resync_interval,
        services=len(snapshots),
        endpoints=sum(len(snapshot.endpoints) for snapshot in snapshots),
        quarantined=sum(len(snapshot.quarantined) for snapshot in snapshots),
        suspects=sum(snapshot.suspects for snapshot in snapshots),
        archive_ago=None if disk_snapshot.written_at is None else time.monotonic() - disk_snapshot.written_at,
        archive_current=disk_snapshot.holds(cache),
    )


def _database(found: ClusterStatus | None, detail: str) -> DatabaseState:
    if found is None:
        return DatabaseState(answers=False, detail=detail, schema_expected=newest_revision())
    return DatabaseState(
        answers=True,
        detail=detail if found.writable else "answers, and refuses writes: it is a standby, or set to read only",
        writable=found.writable,
        server=found.server,
        schema=found.schema,
        schema_expected=newest_revision(),
        clock_ahead=found.ahead,
        took=found.took,
    )


def _sweeper(process: RegistryProcess, found: ClusterStatus | None) -> SweeperState:
    leads = process.sweeper.leads
    known = SweeperState(
        leads=leads,
        every=process.settings.sweep_interval,
        refused=_sweep_refusals(process) if leads else None,
        leases_replaced=process.sweeper.leases_replaced,
        history_cut_ago=process.sweeper.history_cut_ago(),
    )
    if found is None:
        return known
    leader = None if found.leader is None else _peer(found.leader)
    now, settings = time.monotonic(), process.settings
    swept_ago = process.change_feed.swept.ago(now)
    overdue = sweep_overdue(swept_ago, now - process.started, settings.sweep_interval, settings.resync_interval)
    return replace(known, swept_ago=swept_ago, overdue=overdue, leader=leader)


def _sweep_refusals(process: RegistryProcess) -> list[SweepRefusalState]:
    now = time.monotonic()
    return [
        SweepRefusalState(one.task.service, one.task.action, one.task.endpoint, one.reason, now - one.since)
        for one in process.sweeper.refusals
    ]


def _peer(one: RegistryBackend) -> PeerState:
    return PeerState(one.address, one.since)


def _processes(process: RegistryProcess) -> list[ProcessReportState]:
    lease = process.settings.lease_ttl
    return [
        ProcessReportState(
            one.name,
            one.started_at,
            [
                FailureState(
                    failure.ability, failure.seconds, failure.total, is_overdue(failure, lease), failure.reason
                )
                for failure in one.failures
            ],
        )
        for one in process.reports.all()
    ]


def _leases(found: ClusterStatus) -> LeasesState:
    latest = [TallyState(one.service, one.leases, one.late, one.expired) for one in found.latest]
    return LeasesState(found.leases, found.late, found.expired, latest, found.missing)
