"""Envoys, registry processes and their PostgreSQL in virtual time, for histories of roll-outs."""

import heapq
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from msgspec.structs import replace

from meshconfig import phases
from meshconfig.phases import Phase, Rollout, Sighting, Subscriber, Versions, View
from meshconfig.resource import NodeResources, Resource

MAX_HOLD = 29.75
LOOK_INTERVAL, PUBLISH_INTERVAL = 0.5, 1.0
OFFERED_AGAIN_AFTER = 300.0
MAX_FOLLOWING = 30.0
"""Seconds for which an Envoy may be silent and still lose nothing."""

Subscription = tuple[str, str, str]
"""The name of an Envoy, a kind, and a name."""


class Clock:
    """Virtual time, and the database's clock, which can be set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.offset = 1_000_000.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something in so many seconds."""
        self._count += 1
        heapq.heappush(self._events, (self.now + seconds, self._count, action))

    def run(self, until: float, check: Callable[[], None]) -> None:
        """Let time pass; check after each event."""
        while self._events and self._events[0][0] <= until:
            self.now, _, action = heapq.heappop(self._events)
            action()
            check()
        self.now = until


@dataclass
class Record:
    """What a process remembers of a subscription; times are monotonic."""

    version: int | None
    polled_at: float
    seen_at: float
    held: int = 0
    pause: float | None = None
    started_at: float | None = None
    offered: int | None = None
    refused: int | None = None
    refused_at: float = 0.0

    def told(self, offset: float) -> Sighting:
        """Return it by the database's clock."""
        began = None if self.started_at is None else self.started_at + offset
        times = (self.polled_at + offset, self.seen_at + offset)
        return Sighting(self.version, *times, self.held > 0, self.pause, began, self.refused)


@dataclass
class Process:
    """One registry process."""

    up: bool = True
    started: float = -1000.0
    generation: int = 0
    records: dict[Subscription, Record] = field(default_factory=dict)
    held: list[Callable[[], None]] = field(default_factory=list)
    """Polls to look at again when something changes."""


class Registry:
    """Processes that share a database, for one node.cluster."""

    def __init__(self, clock: Clock, dice: random.Random, served: NodeResources, *, naive: bool = False) -> None:
        self.clock, self.dice, self.naive = clock, dice, naive
        self.served = self.wanted = served
        self.rollout = Rollout()
        self.version = 1
        self.versions = Versions(1, 1, dict.fromkeys(served["routes"], 1))
        self.processes = [Process(), Process()]
        self.told: dict[tuple[int, Subscription], Sighting] = {}
        self.leader = 0
        self.looked_at: tuple[float, float] | None = None
        self.stepped_at = -1000.0
        clock.later(LOOK_INTERVAL, self.look)
        clock.later(PUBLISH_INTERVAL, self.publish)

    def apply(self, wanted: NodeResources) -> None:
        """Want something else."""
        self.wanted = wanted
        if self.naive:
            self._serve(wanted, Rollout())
        else:
            self._serve(*phases.begin(self.served, wanted, self.rollout, self.clock.now + self.clock.offset))

    def look(self) -> None:
        """Let the leader look, as it does twice a second."""
        self.clock.later(LOOK_INTERVAL, self.look)
        if not self.processes[self.leader].up:
            up = [number for number, process in enumerate(self.processes) if process.up]
            if not up:
                return
            self.leader, self.looked_at = up[0], None
        if self.rollout.phase is Phase.DONE:
            self.looked_at = None
            return
        outlook = phases.advance(self.served, self.wanted, self.rollout, self.versions, self._view())
        if outlook.resources is None:
            self.rollout = outlook.rollout
        else:
            self._serve(outlook.resources, outlook.rollout)

    def publish(self) -> None:
        """Let all processes tell the others what they have seen."""
        self.clock.later(PUBLISH_INTERVAL, self.publish)
        for number, process in enumerate(self.processes):
            if process.up:
                for key, record in process.records.items():
                    self.told[number, key] = record.told(self.clock.offset)

    def kill(self, number: int) -> None:
        """Kill a process: what it knew and did not tell is lost, and its polls are cut off."""
        process = self.processes[number]
        for key in process.records:
            if (number, key) in self.told:
                self.told[number, key] = replace(self.told[number, key], held=False)
        held, process.held = process.held, []
        process.up, process.records, process.generation = False, {}, process.generation + 1
        for again in held:
            again()

    def start(self, number: int) -> None:
        """Start a process again."""
        process = self.processes[number]
        if not process.up:
            process.up, process.started = True, self.clock.now

    def set_clock(self, seconds: float) -> None:
        """Set the database's clock."""
        self.clock.offset += seconds
        self.stepped_at = self.clock.now

    def held_version(self, kind: str, name: str) -> int:
        """Return the version at which something is served."""
        if kind == "endpoints":
            return 7
        return self.versions.clusters if kind == "clusters" else self.versions.routes.get(name, 0)

    def _serve(self, resources: NodeResources, rollout: Rollout) -> None:
        before, self.served, self.rollout = self.served, resources, rollout
        self.version += 1
        if before["clusters"] != resources["clusters"]:
            self.versions = replace(self.versions, clusters=self.version)
        if before["routes"] != resources["routes"]:
            self.versions = replace(self.versions, routes=dict.fromkeys(resources["routes"], self.version))
        for process in self.processes:
            held, process.held = process.held, []
            for again in held:
                again()

    def _view(self) -> View:
        now, offset = self.clock.now, self.clock.offset
        seen: dict[Subscription, list[Sighting]] = {}
        for (number, key), sighting in self.told.items():
            if number != self.leader:
                seen.setdefault(key, []).append(sighting)
            elif key not in self.processes[self.leader].records:
                seen.setdefault(key, []).append(replace(sighting, held=False))
        for key, record in self.processes[self.leader].records.items():
            seen.setdefault(key, []).append(record.told(offset))
        nodes: dict[str, dict[tuple[str, str], Sighting]] = {}
        for (node, kind, name), sightings in seen.items():
            newest = phases.newest(sightings, now + offset)
            if newest is not None:
                nodes.setdefault(node, {})[kind, name] = newest
        subscribers = [
            Subscriber(
                node,
                "10.0.0.1",
                kinds.get(("clusters", "")),
                None,
                {name: each for (kind, name), each in kinds.items() if kind == "routes"},
                {name: each for (kind, name), each in kinds.items() if kind == "endpoints"},
            )
            for node, kinds in nodes.items()
        ]
        last, self.looked_at = self.looked_at, (now, offset)
        elapsed, step = (0.0, 0.0) if last is None else (now - last[0], offset - last[1])
        watched = all(process.up and now - process.started > phases.GONE_AFTER for process in self.processes)
        stepped = now - self.stepped_at <= phases.GONE_AFTER
        return View(subscribers, now + offset, elapsed, step, watched and not stepped, stepped)


class Envoy:
    """One Envoy: clusters that warm up, routes, and a subscription for each kind of resource."""

    def __init__(self, name: str, registry: Registry, *, pause: float, hold: bool, late: float) -> None:
        self.name, self.registry, self.pause, self.hold, self.late = name, registry, pause, hold, late
        self.excused = False
        """Whether it was away for longer than anybody waits."""
        self.silent_since = self.silent_until = 0.0
        self.refuses_until = 0.0
        self.life = 0
        self.restart()

    def restart(self) -> None:
        """Start anew, with nothing; requests come when it has everything."""
        self.life += 1
        self.excused = self.serving = False
        self.clusters: dict[str, Resource] = {}
        self.warm: set[str] = set()
        self.warming: dict[str, int] = {}
        self.uses: tuple[str, ...] | None = None
        self._poll("clusters", "", None, self.life, lambda: True)

    def is_whole(self) -> bool:
        """Return whether every cluster that its routes lead to is there and has endpoints."""
        return not self.serving or self.uses is None or set(self.uses) <= self.warm

    def silence(self, seconds: float) -> None:
        """Do nothing for a while."""
        now = self.registry.clock.now
        if now >= self.silent_until:
            self.silent_since = now
        self.silent_until = max(self.silent_until, now + seconds)
        self.excused |= self.silent_until - self.silent_since > MAX_FOLLOWING

    def refuse(self, seconds: float) -> None:
        """Refuse everything new for a while."""
        self.refuses_until = self.registry.clock.now + seconds

    def _poll(self, kind: str, name: str, version: int | None, life: int, wanted: Callable[[], bool]) -> None:
        """Send a poll, unless this is another life or nothing asks for it any more."""
        clock, registry = self.registry.clock, self.registry
        if life != self.life or not wanted():
            return
        again = partial(self._poll, kind, name, version, life, wanted)
        up = [process for process in registry.processes if process.up]
        if clock.now < self.silent_until or not up:
            clock.later(max(self.silent_until - clock.now, self.pause), again)
            return
        process = registry.dice.choice(up)
        key = (self.name, kind, name)
        record = process.records.get(key)
        if record is None:
            record = process.records[key] = Record(version, clock.now, clock.now)
        else:
            record.pause = clock.now - record.seen_at if not record.held else record.pause
        if record.offered is not None and version == record.version and record.offered != version:
            record.refused, record.refused_at = record.offered, clock.now
        record.version, record.polled_at, record.seen_at = version, clock.now, clock.now
        record.offered = None
        if version is None:
            record.started_at = clock.now
        self._answer(process, record, again, clock.now + MAX_HOLD, (kind, name, version, life, wanted))

    def _answer(
        self,
        process: Process,
        record: Record,
        again: Callable[[], None],
        until: float,
        poll: tuple[str, str, int | None, int, Callable[[], bool]],
    ) -> None:
        """Answer a poll now, hold it, or find that the process has died."""
        clock, registry = self.registry.clock, self.registry
        kind, name, version, life, wanted = poll
        generation = process.generation
        newest = registry.held_version(kind, name)
        refused = record.refused if clock.now - record.refused_at < OFFERED_AGAIN_AFTER else None
        if newest not in (version, refused):
            resources: NodeResources = registry.served
            record.offered, record.seen_at = newest, clock.now
            delay = self.late if kind == "endpoints" else 0.002
            clock.later(delay, partial(self._receive, kind, name, newest, resources, version, life, wanted))
        elif not self.hold or clock.now >= until:
            record.seen_at = clock.now
            clock.later(self._gap(), again)
        else:
            record.held += 1
            over = False

            def wake() -> None:
                nonlocal over
                if over:
                    return
                over = True
                record.held -= 1
                if process.generation != generation or not process.up:
                    clock.later(self._gap(), again)
                elif life == self.life and wanted():
                    record.seen_at = clock.now
                    self._answer(process, record, again, until, poll)

            process.held.append(wake)
            clock.later(max(0.0, until - clock.now), wake)

    def _gap(self) -> float:
        return self.pause * self.registry.dice.uniform(1, 2)

    def _receive(
        self,
        kind: str,
        name: str,
        version: int,
        resources: NodeResources,
        before: int | None,
        life: int,
        wanted: Callable[[], bool],
    ) -> None:
        if life != self.life or not wanted():
            return
        accepted: int | None = version
        if kind != "endpoints" and self.registry.clock.now < self.refuses_until:
            accepted = before
        elif kind == "clusters":
            self._take_clusters(resources["clusters"])
        elif kind == "routes":
            self.uses = resources["routes"][name].uses
            self.serving = True
        self.registry.clock.later(self._gap(), partial(self._poll, kind, name, accepted, life, wanted))

    def _take_clusters(self, clusters: Mapping[str, Resource]) -> None:
        first = self.uses is None and not self.clusters
        for name in self.clusters.keys() - clusters.keys():
            del self.clusters[name]
            self.warm.discard(name)
            self.warming.pop(name, None)
        for name, cluster in clusters.items():
            if name not in self.clusters or self.clusters[name].sha256 != cluster.sha256:
                self.clusters[name] = cluster
                self._warm_up(name, cluster)
        if first and not self.warming:
            self._poll("routes", "default", None, self.life, lambda: True)

    def _warm_up(self, name: str, cluster: Resource) -> None:
        clock = self.registry.clock
        token = self.warming[name] = self.warming.get(name, 0) + 1
        life, digest = self.life, cluster.sha256

        def is_wanted() -> bool:
            return life == self.life and name in self.clusters and self.clusters[name].sha256 == digest

        def is_warm() -> None:
            if is_wanted() and self.warming.get(name) == token:
                self.warm.add(name)
                del self.warming[name]
                if self.uses is None and not self.warming:
                    self._poll("routes", "default", None, self.life, lambda: True)

        if cluster.eds_service:
            # The answer to the first poll for its endpoints is what makes it serve.
            clock.later(0.01, partial(self._poll, "endpoints", cluster.eds_service, None, life, is_wanted))
            clock.later(0.01 + self.late, is_warm)
        else:
            clock.later(cluster.settle, is_warm)
