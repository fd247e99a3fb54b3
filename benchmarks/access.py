"""Access: polls and heartbeats of a registry that decides by grants, beside a registry that allows everything."""

from collections.abc import Callable
from functools import partial
from os import getloadavg
from pathlib import Path

from harness.access import bearer, first_token, new_token
from harness.process import eventually
from harness.registry import Registry
from msgspec import Struct

from benchmarks import wrk
from benchmarks.access_memory import run_in_memory
from benchmarks.envoy_poll import poll_body
from benchmarks.heartbeats import renewals
from benchmarks.plan import Plan
from benchmarks.population import Population, populate
from benchmarks.report import Part, Table
from benchmarks.rounds import interleaved
from benchmarks.stage import Stage, stage

ON, OFF = "access on", "access off"
_LEASES = 10_000
_SERVICE = "shop-0"
"""The service that is polled, of ``_ENDPOINTS`` endpoints."""
_BATCH = 50
_ENDPOINTS = 100
_STARTS = 4
"""Pairs of registries that are started."""
_ROUNDS = 3
"""Rounds of each comparison with each pair."""
_AT_LEAST = 0.95
_NO_HOLD = 200
"""A time-out, in milliseconds, that leaves nothing to hold for: an unchanged poll is answered at once."""
_COLUMNS = {"rate": "requests/s", "p50": "p50 ms", "p99": "p99 ms", "cpu": "server's CPU µs a request"}
_GRANTS = [{"verbs": ["discover", "register"], "services": ["shop-*"], "addresses": ["10.0.0.0/8"]}]
_OWN = "UPDATE endpoints SET owner = $1 WHERE service LIKE 'shop-%'"


class Side(Struct, frozen=True):
    """A registry, the endpoints that it renews, and the token that its clients carry; empty: none."""

    name: str
    registry: Registry
    population: Population
    token: str = ""


Measure = Callable[[Side], wrk.Measured | None]
"""Sends one kind of request to a side for a second; None when nothing was answered."""


def run(part: Part, plan: Plan) -> None:
    """Compare polls that are answered, polls that find nothing new, and heartbeats, single and in batches."""
    run_in_memory(part, plan)
    version = wrk.installed()
    if version is None:
        part.leave_out("access over sockets", wrk.MISSING)
        return
    part.machine.versions["wrk"] = version
    part.note(
        "Two registries of one process each on one database. The clients of the one with access carry a token that is "
        "allowed to discover `shop-*` and to register there within 10.0.0.0/8, as a grant for a fleet would be. Both "
        f"have the same {2 * _LEASES:,} endpoints in memory. Those that the clients with the token renew belong to it; "
        "those that the others renew have no owner, as where access was never on. Two processes of one program differ "
        f"by up to a tenth for as long as they run, so both are started {plan.rounds(_STARTS)} times."
    )
    plan.doing("starting PostgreSQL")
    with stage() as environment:
        owned = Population(_LEASES, each=_ENDPOINTS, prefix="shop-")
        free = Population(_LEASES, each=_ENDPOINTS, prefix="open-", begin=_LEASES)
        populate(environment, owned, free)
        with environment.registry(auth="on") as first:
            token = _token(environment, first)
        comparisons = _comparisons(plan, environment.directory, owned, free)
        tables = {kind: part.table(kind, **_COLUMNS) for kind in comparisons}
        for start in range(plan.rounds(_STARTS)):
            with environment.registry() as off, environment.registry(auth="on") as on:
                sides = [Side(OFF, off, free), Side(ON, on, owned, token)]
                for side in sides:
                    _wait_until_read(side)
                for kind, measure in comparisons.items():
                    plan.doing(f"access: start {start + 1}: {kind}")
                    _measure(tables[kind], measure, sides, plan.rounds(_ROUNDS))
    part.note(
        f"At the end the machine's load average was {getloadavg()[0]:.1f}; the load itself makes about 3 of that."
    )
    for kind, table in tables.items():
        _compare(part, table, kind)


def _token(environment: Stage, registry: Registry) -> str:
    """Return a token for the load, and make it the owner of its endpoints, as it would be if it had registered them."""
    admin = first_token(environment.database)
    token: str = new_token(registry, admin, "bench", *_GRANTS, kind="registrar")["token"]
    who = registry.client.get("/v1/whoami", headers=bearer(token)).json()
    environment.server.execute(_OWN, who["owner"], url=environment.database)
    return token


def _wait_until_read(side: Side) -> None:
    """Wait until a registry answers polls of its side with all endpoints."""
    if side.token:
        side.registry.client.headers.update(bearer(side.token))
    eventually(lambda: len(side.registry.statuses(_SERVICE)) == _ENDPOINTS, within=30)


def _comparisons(plan: Plan, directory: Path, *populations: Population) -> dict[str, Measure]:
    """Return what is measured of each side, by its name."""
    polls = f"{_ENDPOINTS} endpoints, 64 connections"
    beats = f"{_LEASES:,} leases, 64 connections"
    lines = {each.prefix: {batch: renewals(directory, each, batch) for batch in (1, _BATCH)} for each in populations}

    def poll(side: Side, *, unchanged: bool) -> wrk.Measured | None:
        version = side.registry.poll(_SERVICE).json()["version_info"] if unchanged else ""
        body = directory / "access-poll.json"
        body.write_bytes(poll_body(_SERVICE, version) if unchanged else poll_body(_SERVICE))
        what = wrk.Flood(body, 64, plan.seconds(1), budget=_NO_HOLD, token=side.token)
        url = f"{side.registry.url}/v3/discovery:endpoints"
        return wrk.flood(url, [side.registry.process.pid], what)

    def beat(side: Side, *, batch: int) -> wrk.Measured | None:
        method = "PUT" if batch == 1 else "POST"
        what = wrk.Beats(lines[side.population.prefix][batch], method, 64, plan.seconds(1), token=side.token)
        return wrk.beat(side.registry.url, [side.registry.process.pid], what)

    return {
        f"polls, 200, {polls}": partial(poll, unchanged=False),
        f"polls, 304, {polls}": partial(poll, unchanged=True),
        f"single heartbeats, full body, {beats}": partial(beat, batch=1),
        f"heartbeats, {_BATCH} a request, {beats}": partial(beat, batch=_BATCH),
    }


def _measure(table: Table, measure: Measure, sides: list[Side], rounds: int) -> None:
    """Measure both sides in turn, after a round that does not count: a process reads all words once."""
    for number, side in enumerate(interleaved(sides, 1 + rounds)):
        measured = measure(side)
        if measured is None:
            raise RuntimeError(f"{side.name} answered nothing")
        if number >= len(sides):
            table.add(side.name, rate=measured.rate, p50=measured.p50, p99=measured.p99, cpu=measured.cpu)


def _compare(part: Part, table: Table, kind: str) -> None:
    """Hold answers a second against the bar, and the CPU of an answer, which other programs disturb less."""
    part.ratio(f"{kind}: on against off", table.values(ON, "rate"), table.values(OFF, "rate"), at_least=_AT_LEAST)
    part.ratio(f"{kind}: CPU, off against on", table.values(OFF, "cpu"), table.values(ON, "cpu"), at_least=_AT_LEAST)
