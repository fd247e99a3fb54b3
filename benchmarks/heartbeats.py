"""Heartbeats: leases that are renewed durably, singly and in batches, beside what else could store them."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import asyncpg
import uvloop
from harness.registry import Registry
from msgspec import Struct

from benchmarks import wrk
from benchmarks.peers import etcd, one_transaction
from benchmarks.plan import Plan
from benchmarks.population import Population, populate
from benchmarks.report import Part, Table
from benchmarks.rounds import interleaved
from benchmarks.stage import Stage, address, registration, stage

OURS = "registry"
BARE = "bare asyncpg, 1,000 rows an UPDATE"
_MANY, _FEW = 100_000, 10_000
_BATCH = 50
_BARRED = 64
"""Connections at which etcd is the bar; with more it is only shown."""
_COLUMNS = {"rate": "heartbeats/s", "p50": "p50 ms", "p99": "p99 ms", "cpu": "server's CPU µs a heartbeat"}
_BARE_BATCH = 1_000
_FLUSH = 1.5
"""Seconds until PostgreSQL's processes have told what they counted."""
_LEAST_RENEWED = 0.95

_RENEW = """
UPDATE leases SET renewed_at = now(), expires_at = now() + make_interval(secs => ttl)
FROM unnest($1::bigint[]) AS told(id) WHERE endpoint_id = told.id
"""
_STORE = """
SELECT pg_current_wal_lsn() - '0/0'::pg_lsn AS wal, pg_total_relation_size('leases') AS size,
  n_tup_upd AS updates, n_tup_hot_upd AS hot
FROM pg_stat_user_tables WHERE relname = 'leases'
"""


class Case(Struct, frozen=True):
    """How heartbeats are sent."""

    connections: int = 64
    batch: int = 1

    def __str__(self) -> str:
        how = "single, full body" if self.batch == 1 else f"{self.batch} a request"
        return f"{how}, {self.connections} connections"


def run(part: Part, plan: Plan) -> None:
    """Compare with each peer that is there, then vary our own side, then look at the table."""
    version = wrk.installed()
    if version is None:
        part.leave_out("all of heartbeats", wrk.MISSING)
        return
    part.machine.versions["wrk"] = version
    part.note(
        "A heartbeat is counted when its answer came, and every answer came after the commit, with "
        "`synchronous_commit` on. HTTP, the load (wrk) and PostgreSQL share the cores. Each thread of the load goes "
        f"through its own leases, in random order; {_MANY:,} leases unless a title says otherwise. The bare UPDATE is "
        f"one connection without any server, and renews {_BARE_BATCH:,} random leases at a time."
    )
    with stage() as found:
        population = Population(_MANY)
        populate(found, population)
        lines = {size: renewals(found.directory, population, size) for size in (1, _BATCH)}
        with found.registry(workers=2) as two:
            _single(part, plan, found, two, lines[1])
            _batched(part, plan, found, two, lines[_BATCH])
            _vary(part, plan, Load(two, lines), f"{_MANY:,} leases, 2 processes")
            _look_at_table(part, plan, found, Load(two, lines))
        with found.registry() as one:
            _vary(part, plan, Load(one, lines), f"{_MANY:,} leases, 1 process")
        few = Population(_FEW)
        populate(found, few)
        lines = {size: renewals(found.directory, few, size) for size in (1, _BATCH)}
        with found.registry(workers=2) as two:
            _vary(part, plan, Load(two, lines), f"{_FEW:,} leases, 2 processes")


class Load:
    """A registry, and the requests that renew all its leases; by how many heartbeats each carries."""

    def __init__(self, found: Registry, lines: dict[int, Path]) -> None:
        self.registry = found
        self.lines = lines

    def beat(self, case: Case, seconds: float) -> wrk.Measured:
        """Send heartbeats.

        Raises:
            RuntimeError: they did something else than renew, so the figures would be those of something else.
        """
        before, begun = self._renewed(), time.monotonic()
        method = "PUT" if case.batch == 1 else "POST"
        beats = wrk.Beats(self.lines[case.batch], method, case.connections, seconds)
        measured = wrk.beat(self.registry.url, [self.registry.process.pid], beats)
        renewed = self._renewed() - before
        if measured is None or renewed < _LEAST_RENEWED * measured.rate * case.batch * max(1, round(seconds)):
            raise RuntimeError(f"{renewed:.0f} leases were renewed in {time.monotonic() - begun:.1f} s: {measured}")
        rate, each = measured.rate * case.batch, measured.cpu / case.batch
        return wrk.Measured(rate, measured.p50, measured.p99, each)

    def _renewed(self) -> float:
        text = self.registry.client.get("/metrics").text
        name = 'registry_heartbeats_total{outcome="renewed"} '
        return sum(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))


def _single(part: Part, plan: Plan, found: Stage, registry: Registry, lines: Path) -> None:
    ours = Load(registry, {1: lines})
    with contextlib.ExitStack() as running:
        plain = running.enter_context(one_transaction.one_transaction(found.directory, found.database, 2))
        why = etcd.missing()
        store = None if why else running.enter_context(etcd.etcd(found.directory, _body(0).encode()))
        if why:
            part.leave_out(etcd.NAME, why)
        else:
            part.machine.versions["etcd"] = etcd.version()
        for connections in (_BARRED, 512):
            case = Case(connections)
            table = part.table(f"{case}, 2 processes", **_COLUMNS)
            plan.doing(f"heartbeats: {case}")
            for side in interleaved([OURS, one_transaction.NAME, *([etcd.NAME] if store else [])], plan.rounds(3)):
                if side == OURS:
                    measured = ours.beat(case, plan.seconds(2))
                elif store and side == etcd.NAME:
                    measured = etcd.beat(store, connections, plan.seconds(2))
                else:
                    beats = wrk.Beats(lines, "PUT", connections, plan.seconds(2))
                    measured = answered(wrk.beat(plain.url(""), plain.pids, beats))
                _add(table, side, measured)
            _compare(part, table, case)


def _compare(part: Part, table: Table, case: Case) -> None:
    bounds = [(one_transaction.NAME, 5.0, 10.0)]
    if case.connections == _BARRED:
        bounds.append((etcd.NAME, 0.8, 1.5))
    for peer, least, goal in bounds:
        subject = f"heartbeats/s against {peer}: {case}"
        part.ratio(subject, table.values(OURS, "rate"), table.values(peer, "rate"), at_least=least, goal=goal)


def answered(measured: wrk.Measured | None) -> wrk.Measured:
    """Return what was measured.

    Raises:
        RuntimeError: no request was answered.
    """
    if measured is None:
        raise RuntimeError("no request was answered")
    return measured


def _add(table: Table, row: str, measured: wrk.Measured) -> None:
    told = {"rate": measured.rate, "p50": measured.p50, "p99": measured.p99, "cpu": measured.cpu}
    table.add(row, **{name: value for name, value in told.items() if value == value})  # noqa: PLR0124  # not a number


def _batched(part: Part, plan: Plan, found: Stage, registry: Registry, lines: Path) -> None:
    ours, case = Load(registry, {_BATCH: lines}), Case(batch=_BATCH)
    table = part.table(f"{case}, 2 processes", **_COLUMNS)
    plan.doing(f"heartbeats: {case}")
    for side in interleaved([OURS, BARE], plan.rounds(3)):
        if side == OURS:
            _add(table, OURS, ours.beat(case, plan.seconds(2)))
        else:
            rate, p50, p99 = uvloop.run(_bare(found.database, plan.seconds(2)))
            table.add(BARE, rate=rate, p50=p50, p99=p99)
    ours_rate, bare_rate = table.values(OURS, "rate"), table.values(BARE, "rate")
    part.ratio(f"heartbeats/s against {BARE}: {case}", ours_rate, bare_rate, at_least=0.3, goal=0.6)


async def _bare(url: str, seconds: float) -> tuple[float, float, float]:
    """Renew random leases over one connection; return renewals a second, p50 and p99 of a batch in milliseconds."""
    connection = await asyncpg.connect(url)
    try:
        ids = [row[0] for row in await connection.fetch("SELECT endpoint_id FROM leases")]
        renew = await connection.prepare(_RENEW)
        took = []
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            told = sorted(random.sample(ids, _BARE_BATCH))
            at = time.perf_counter()
            await renew.fetch(told)
            took.append((time.perf_counter() - at) * 1000)
        # Without the time in which the load was drawn.
        return (
            len(took) * _BARE_BATCH / sum(took) * 1000,
            sorted(took)[len(took) // 2],
            sorted(took)[-1 - len(took) // 100],
        )
    finally:
        await connection.close()
        await asyncio.sleep(0)


def _vary(part: Part, plan: Plan, load: Load, title: str) -> None:
    table = part.table(title, **_COLUMNS)
    plan.doing(f"heartbeats: {title}")
    for case in interleaved([Case(), Case(512), Case(batch=_BATCH)], plan.rounds(2)):
        _add(table, str(case), load.beat(case, plan.seconds(2)))


def _look_at_table(part: Part, plan: Plan, found: Stage, load: Load) -> None:
    """Renew for a minute, and see what it leaves in PostgreSQL."""
    seconds = 5.0 if plan.quick else 60.0
    plan.doing(f"heartbeats: {seconds:.0f} s of them, and what they leave")
    found.server.execute("CHECKPOINT", url=found.database)
    before = _store(found)
    measured = load.beat(Case(), seconds)
    time.sleep(_FLUSH)
    after = _store(found)
    updates = after.updates - before.updates
    table = part.table(
        f"The table of leases after {seconds:.0f} s of heartbeats",
        rate="heartbeats/s",
        wal="WAL bytes a heartbeat",
        hot="HOT %",
        before="MiB before",
        after="MiB after",
    )
    table.add(
        f"{_MANY:,} leases",
        rate=measured.rate,
        wal=(after.wal - before.wal) / updates,
        hot=(after.hot - before.hot) / updates * 100,
        before=before.size / 2**20,
        after=after.size / 2**20,
    )
    part.note(
        "WAL is all that PostgreSQL wrote meanwhile, from a checkpoint on: the first change of each page after it "
        "writes the whole page."
    )
    part.bar("HOT share of renewals", table.values(f"{_MANY:,} leases", "hot"), "%", at_least=95)
    growth = [after.size / before.size]
    part.bar(f"size of the table after {seconds:.0f} s of heartbeats", growth, "x", at_most=1.2)


class _Store(Struct, frozen=True):
    """What PostgreSQL counted."""

    wal: float
    size: int
    updates: int
    hot: int


def _store(found: Stage) -> _Store:
    (row,) = found.server.execute(_STORE, url=found.database)
    return _Store(float(row["wal"]), row["size"], row["updates"], row["hot"])


def renewals(directory: Path, population: Population, batch: int) -> Path:
    """Write the requests that renew every lease once, in random order."""
    numbers = list(range(population.begin, population.begin + population.count))
    random.Random(1).shuffle(numbers)  # noqa: S311  # an order, not a secret
    path = directory / f"beats-{population.prefix}{population.count}-{batch}"
    with path.open("w") as out:
        out.writelines(f"{line}\n" for line in _requests(population, numbers, batch))
    return path


def _requests(population: Population, numbers: Sequence[int], batch: int) -> Iterator[str]:
    if batch == 1:
        yield from (f"{population.path(number)}\t{_body(number)}" for number in numbers)
        return
    for at in range(0, len(numbers), batch):
        beats = [
            {"service": population.service(number), "endpoint": address(number), "registration": registration(number)}
            for number in numbers[at : at + batch]
        ]
        yield "/v1/heartbeats\t" + json.dumps({"heartbeats": beats})


def _body(number: int) -> str:
    return json.dumps(registration(number))
