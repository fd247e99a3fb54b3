"""Propagation: from a registrar's report, through one registry process, to who polls another one.

The two processes have nothing in common but PostgreSQL, so its commit, its notification and the other process's read
are in each figure.
"""

import asyncio
import itertools
import json
import random
import time
from collections.abc import Sequence

import msgspec
from harness.envoy import envoy
from harness.registry import Registry
from msgspec import Struct

from benchmarks.client import Client, request
from benchmarks.held import waves
from benchmarks.plan import Plan
from benchmarks.report import Part, Table
from benchmarks.rounds import interleaved, percentile
from benchmarks.stage import Stage, address, registration, seed, stage
from registry_demo.connection import Connection
from registry_demo.envoy import find_envoy, read_version

SERVICES = [f"shop-{number}" for number in range(8)]
"""Envoy polls each on its own; one changes again only after Envoy has surely asked for it again: twice its delay."""
_ENDPOINTS = 10
_LOOK = 0.0005
_LONGEST = 5.0
_HELD = 1_000


class Way(Struct, frozen=True):
    """How Envoy is told to poll."""

    name: str
    refresh_delay: str
    request_timeout: str
    turns: int
    """How often each service goes there and back."""
    streams: int = 0
    """The port of the gRPC listener, for an Envoy that gets everything over ADS instead of by polls."""


_WAYS = (
    # What the documentation recommends: each poll is held until there is something to tell.
    Way("long polling, refresh_delay 0.2 s, request_timeout 30 s", "0.2s", "30s", 8),
    # A time-out below the registry's margin of 250 ms leaves nothing to hold for.
    Way("plain polling, refresh_delay 0.2 s", "0.2s", "0.2s", 4),
)


class Lag(Struct, frozen=True):
    """Milliseconds until Envoy used a change: since the report was sent, and since it was accepted."""

    sent: float
    accepted: float


def run(part: Part, plan: Plan) -> None:
    """Measure a real Envoy, and then a thousand held polls."""
    part.note(
        "A registrar's report goes to one registry process, Envoy and the held polls ask another one. Envoy's host set "
        "is read from its admin interface (`/clusters`) about every millisecond. Accepted is the moment when the "
        "registrar has its answer; a change may reach Envoy before that."
    )
    part.note(
        "A change that comes while Envoy pauses between two polls, up to twice its refresh_delay after an answer, "
        "waits for the next poll. With long polling no change comes in that pause here."
    )
    part.machine.versions["Envoy"] = asyncio.run(read_version(find_envoy()))
    with stage() as found, found.registry() as near, found.registry() as far:
        part.machine.versions["PostgreSQL"] = found.version()
        seed_services(near)
        table = measure_envoy(part, plan, found, near, far, _WAYS)
        subject = "a report, from accepted to a real Envoy's host set, long polling"
        part.bar(f"{subject}: p50", table.values(_WAYS[0].name, "accepted50"), "ms", at_most=15, goal=5)
        part.bar(f"{subject}: p99", table.values(_WAYS[0].name, "accepted99"), "ms", at_most=60, goal=20)
        for endpoints in (10, 100):
            _measure_held(part, plan, near, far, endpoints)


def seed_services(registry: Registry) -> None:
    """Register the services of ``measure_envoy()``."""
    for name in SERVICES:
        seed(registry, name, range(_ENDPOINTS))


def measure_envoy(part: Part, plan: Plan, found: Stage, near: Registry, far: Registry, ways: Sequence[Way]) -> Table:
    """Measure how long a change at one process takes to a real Envoy that asks the other, in several ways."""
    percentiles = {
        "sent50": "sent → Envoy p50 ms",
        "sent99": "p99 ms",
        "accepted50": "accepted → Envoy p50 ms",
        "accepted99": "p99 ms",
    }
    table = part.table("A real Envoy, from the report to its host set", **percentiles, changes="changes")
    for way in interleaved(ways, plan.rounds(2)):
        # Each service goes there and back, so that every run begins with the same.
        changes = 2 * len(SERVICES) * (1 if plan.quick else way.turns)
        plan.doing(f"propagation: {changes} changes to a real Envoy, {way.name}")
        with envoy(
            found.directory,
            [far.port],
            SERVICES,
            refresh_delay=way.refresh_delay,
            request_timeout=way.request_timeout,
            streams=[way.streams] if way.streams else (),
        ) as watched:
            lags = asyncio.run(lags_of(near.port, watched.admin, changes))
        sent, accepted = [one.sent for one in lags], [one.accepted for one in lags]
        figures = {"sent50": percentile(sent, 0.5), "sent99": percentile(sent, 0.99)}
        figures |= {"accepted50": percentile(accepted, 0.5), "accepted99": percentile(accepted, 0.99)}
        table.add(way.name, **figures, changes=len(lags))
        part.distributions.setdefault(way.name, []).extend(round(lag, 2) for lag in sent)
    return table


async def lags_of(port: int, admin: int, changes: int) -> list[Lag]:
    """Change endpoints at one process, and return how long each change takes to the Envoy of this admin interface."""
    registrar, eyes = await Client.connect(port), Connection(admin)
    lags = []
    try:
        for number, service in zip(range(changes), itertools.cycle(SERVICES), strict=False):
            # A moment that has nothing to do with Envoy's rhythm, by when it polls this service again.
            await asyncio.sleep(random.uniform(0.06, 0.12))  # noqa: S311  # no secret
            health = "HEALTHY" if number // len(SERVICES) % 2 else "UNHEALTHY"
            lags.append(await _lag(registrar, eyes, service, health))
    finally:
        registrar.close()
        eyes.close()
    return lags


async def _lag(registrar: Client, eyes: Connection, service: str, health: str) -> Lag:
    """Report a health, and watch Envoy until it has it.

    Raises:
        TimeoutError: it does not get there.
        RuntimeError: it is there already, or the report is refused.
    """
    body = json.dumps(registration(0) | {"health": health}).encode()
    sign = f"{service}::{address(0)}::health_flags::{'healthy' if health == 'HEALTHY' else '/failed_eds_health'}\n"
    looked = f"/clusters?filter=^{service}$"
    if sign.encode() in (await eyes.get(looked, _LONGEST)).body:
        raise RuntimeError(f"Envoy has it before it was reported: {sign}")
    sent = time.monotonic()
    answer = registrar.send(request("PUT", f"/v1/services/{service}/endpoints/{address(0)}", body))
    async with asyncio.timeout(_LONGEST):
        while sign.encode() not in (await eyes.get(looked, _LONGEST)).body:
            await asyncio.sleep(_LOOK)
        seen = time.monotonic()
        status, text = await answer
    if status != 200:
        raise RuntimeError(f"the report was refused: {status} {text[:500]!r}")
    return Lag(1000 * (seen - sent), 1000 * (seen - registrar.answered))


def _measure_held(part: Part, plan: Plan, near: Registry, far: Registry, endpoints: int) -> None:
    service = f"held-{endpoints}"
    seed(near, service, range(endpoints))
    changes = 4 if plan.quick else 15
    plan.doing(f"propagation: {changes} changes to {_HELD:,} held polls of {endpoints} endpoints")
    table = part.table(
        f"{_HELD:,} held polls of {endpoints} endpoints: from accepted to their answers",
        first="first ms",
        middle="half ms",
        last="last ms",
        sent="sent → last ms",
        size="bytes each",
    )
    for wave in waves(near.port, far.port, service, _HELD, changes):
        table.add(f"{changes} changes", **msgspec.structs.asdict(wave))
    subject = f"{_HELD:,} held polls of {endpoints} endpoints: accepted to the last answer"
    part.bar(subject, table.values(f"{changes} changes", "last"), "ms", at_most=100, goal=40)
