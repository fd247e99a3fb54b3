"""Roll-outs with a real PostgreSQL: advanced by what made-up Envoys show, in any process, each by itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from typing import Any

import pytest
from harness.mesh_revisions import store_resources
from harness.xds_messages import DiscoveryRequest, DiscoveryResponse
from msgspec.structs import replace
from prometheus_client import REGISTRY
from sqlalchemy import text

from meshconfig import phases
from meshconfig.phases import Phase
from meshconfig.resource import NodeResources, make_resource
from registry.background.mesh_feed import MeshFeed
from registry.cache.mesh_cache import MeshCache
from registry.core.clock import Clock
from registry.core.mesh import in_share, show_version
from registry.core.processes import ProcessReport, SilentProcess
from registry.core.rollout import NodeRollout, Pause
from registry.core.stream_subscriber import SeenRow, StreamRow
from registry.core.subscriber import Subscribers
from registry.core.subscriber_status import SubscriberReport
from registry.errors import InvalidError, UnavailableError
from registry.rollout import switching
from registry.rollout.rollouts import Rollouts
from registry.rollout.sightings import Sightings, StreamSightings
from registry.store import mesh as store
from registry.store import mesh_subscribers, rollouts
from registry.store.database import Database
from registry.store.stream_subscribers import store_streams, streams_of_clusters
from registry.xds.grpc.mesh import MeshSource
from registry.xds.grpc.observer import NoGuard
from registry.xds.grpc.response import ResponseTails
from registry.xds.grpc.sotw import SotwStream
from registry.xds.grpc.stream import Discoverable
from registry.xds.grpc.streams import Streams
from registry.xds.mesh import MeshResources
from registry.xds.resource_cache import ServedType
from registry.xds.resources import CLUSTERS, MESH_TYPES, ROUTES, TYPES
from registry.xds.version_info import format_version_info
from wire.discovery_poll import WILDCARD
from wire.node import Node


def resources(*names: str, kind: str = "STRICT_DNS", body: str = "") -> NodeResources:
    """Return clusters of these names, and routes that lead to each."""
    clusters = {name: make_resource("clusters", {"name": name, "type": kind, "alt_stat_name": body}) for name in names}
    routes = make_resource("routes", {"name": "default", "virtual_hosts": list(names), "vhds": body}, uses=names)
    return {"clusters": clusters, "routes": {"default": routes}, "listeners": {}}


class Processes:
    """The registry processes as a test says."""

    def __init__(self, own: str, others: tuple[str, ...] = ()) -> None:
        self.process_id = own
        self.others = others
        self.gone: list[SilentProcess] = []

    def all(self) -> list[ProcessReport]:
        """Return those that live."""
        return [ProcessReport(name, name, 0.0) for name in (self.process_id, *self.others)]

    def silent(self) -> list[SilentProcess]:
        """Return those that have gone."""
        return self.gone


class Process:
    """One registry process as far as roll-outs go."""

    def __init__(self, database: Database, name: str = "p1", others: tuple[str, ...] = ()) -> None:
        self.database = database
        self.mesh = MeshCache()
        self.feed = MeshFeed(database, self.mesh)
        self.subscribers = {each.name: Subscribers() for each in TYPES}
        self.processes = Processes(name, others)
        self.resources = {each.name: MeshResources(each, self.mesh) for each in MESH_TYPES}
        self.streams = Streams([ServedType(each, self.resources[each.name]) for each in MESH_TYPES], Clock())
        self.sightings = Sightings(
            database,
            Clock(),
            self.subscribers,
            self.processes,
            self._endpoints,
            StreamSightings(self.streams, self.resources, self._rows),
        )
        self.leads = True
        self.asked: list[list[str]] = []
        """The node.clusters of which the streams of others were asked for, by statement."""
        self.rollouts = Rollouts(
            database, self.sightings, lambda: self.leads, lambda: self.feed.change, self.feed.nudge
        )

    async def _endpoints(self, _service: str) -> AsyncIterator[SubscriberReport]:
        """Yield nothing: these Envoys have no EDS clusters."""
        none: tuple[SubscriberReport, ...] = ()
        for report in none:
            yield report

    async def _rows(self, clusters: Collection[str]) -> list[SeenRow]:
        """Return nothing, as above."""
        self.asked.append(sorted(clusters))
        return []

    async def start(self, watching_for: float = 100.0) -> None:
        """Read everything, and begin to tell of subscribers."""
        await self.feed.load()
        await self.tell()
        assert self.sightings._watching_since is not None
        self.sightings._watching_since -= watching_for
        self.sightings._watch_told_at = 0.0
        await self.tell()

    async def tell(self) -> None:
        """Tell the others."""
        await self.sightings.tell(self.mesh.database_id)

    async def look(self, seconds: float = 0.5) -> list[NodeRollout]:
        """Let some seconds pass, look once, and return the roll-outs that are under way."""
        if self.rollouts._looked_at is not None:
            monotonic, database = self.rollouts._looked_at
            self.rollouts._looked_at = (monotonic - seconds, database - seconds)
        await self.rollouts.advance()
        await self.feed.refresh()
        return await self.under_way()

    async def under_way(self) -> list[NodeRollout]:
        """Return the roll-outs that are under way."""
        async with self.database.session() as connection:
            return await rollouts.read(connection)

    def poll(self, cluster: str, node_id: str = "e1", *, shows: bool = True) -> None:
        """Let an Envoy poll for its clusters and routes, with what it is served or without any version."""
        now = time.monotonic()
        node = Node(node_id, cluster, "", "1.40.0")
        for resource_type, names in ((CLUSTERS, WILDCARD), (ROUTES, ("default",))):
            served = self.mesh.find("clusters" if resource_type is CLUSTERS else "routes", node)
            assert served is not None
            version = served.version if resource_type is CLUSTERS else served.resources["default"].version
            text = format_version_info(self.mesh.database_id, names, (version,), resource_type)
            subscription = self.subscribers[resource_type.name].find(node, "10.0.0.1", names, "v3", now)
            subscription.poll(text if shows else "", now)
            subscription.answer(304, "", now)

    def names(self, cluster: str, node_id: str = "e1") -> tuple[list[str], str]:
        """Return the clusters that an Envoy is served, and the version of its routes."""
        node = Node(node_id, cluster)
        clusters, tables = self.mesh.find("clusters", node), self.mesh.find("routes", node)
        assert clusters is not None
        assert tables is not None
        return sorted(clusters.resources), show_version(tables.resources["default"].version)


class StreamingEnvoy:
    """An Envoy of the service web that has its clusters over a stream to a process."""

    def __init__(self, process: Process) -> None:
        source = MeshSource(CLUSTERS, process.mesh)
        self._url = CLUSTERS.type_urls["v3"]
        shared = Discoverable(lambda _client: {self._url: source}, ResponseTails("registry-1"))
        observer = process.streams.observer("StreamAggregatedResources", "10.0.0.1", time.monotonic())
        self.stream = SotwStream(shared, NoGuard(), observer, lambda: None)
        self._ask(node={"id": "e1", "cluster": "web", "user_agent_name": "envoy"})

    async def take(self, words: str = "") -> bool:
        """Acknowledge the answer that is there, or reject it with words; return whether there was one."""
        # The watch of a change calls back in a later turn of the loop.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        parts = self.stream.next(time.monotonic())
        if parts is None:
            return False
        nonce = DiscoveryResponse.FromString(b"".join(parts)).nonce
        self._ask(response_nonce=nonce, **({"error_detail": {"message": words.encode()}} if words else {}))
        return True

    def _ask(self, **fields: Any) -> None:
        self.stream.receive(DiscoveryRequest(type_url=self._url, **fields).SerializeToString(), time.monotonic())


@pytest.fixture
async def database(migrated: str) -> AsyncIterator[Database]:
    """A database with the schema and without a mesh configuration."""
    connected = Database(migrated, connections=6, timeout=5)
    yield connected
    await connected.close()


@pytest.fixture
async def process(database: Database) -> Process:
    """A process that leads and has watched for long, and two node.clusters of revision 1."""
    await store_resources(database, {"web": resources("user"), "api": resources("user")})
    started = Process(database)
    await started.start()
    return started


async def history(database: Database, node: str) -> list[tuple[str, str]]:
    """Return the events of a node.cluster."""
    async with database.session() as connection:
        rows = await connection.execute(
            text("SELECT kind, reason FROM events WHERE service = :service ORDER BY id"), {"service": node}
        )
        return [(row.kind, row.reason) for row in rows]


async def test_a_revision_goes_through_its_phases_as_its_envoy_follows(process: Process) -> None:
    """Clusters of both, then the new routes, then the new clusters; the versions grow, and each step is an event."""
    process.poll("web")
    await store_resources(process.database, {"web": resources("cart"), "api": resources("user")})
    (first,) = await process.look()
    assert process.names("web") == (["cart", "user"], "1.1")
    assert first.state is not None
    assert (first.key, first.state.rollout.phase, first.state.lagging) == (("web", 0.0), Phase.ADD, 1)
    assert "e1 at 10.0.0.1 has not shown the new clusters" in first.state.reason
    process.poll("web")
    await process.look()
    (second,) = await process.look(phases.SETTLE)
    assert process.names("web") == (["cart", "user"], "2.2")
    assert second.state is not None
    assert (second.state.rollout.phase, second.state.phases) == (Phase.SWITCH, (Phase.ADD, Phase.SWITCH, Phase.DONE))
    process.poll("web")
    await process.look()
    assert await process.look(phases.SETTLE) == []
    assert process.names("web") == (["cart"], "2.2")
    assert process.names("api") == (["user"], "1.1")
    assert [kind for kind, _ in await history(process.database, "web")] == ["mesh_switched", "mesh_rolled_out"]


async def test_nothing_is_asked_while_nothing_is_rolled_out(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a roll-out none is looked for until the feed hears of a change, or for 5 s; a new lead looks at once."""
    asked: list[str] = []
    read = rollouts.read

    async def counted(*given: Any) -> list[NodeRollout]:
        # A step reads those of some node.clusters once more.
        asked.extend(["look"] * (len(given) == 1))
        return await read(*given)

    async def looks(number: int) -> int:
        asked.clear()
        for _ in range(number):
            await process.rollouts.advance()
        return len(asked)

    monkeypatch.setattr(rollouts, "read", counted)
    assert await looks(3) == 1
    await store_resources(process.database, {"web": resources("cart"), "api": resources("user")})
    assert await looks(2) == 0
    await process.feed.refresh()
    assert await looks(2) == 2
    assert await process.under_way() == []
    assert await looks(3) == 1
    process.leads = False
    await looks(1)
    process.leads = True
    assert await looks(2) == 1
    assert process.rollouts._idle is not None
    change, looked_at = process.rollouts._idle
    process.rollouts._idle = (change, looked_at - 5.0)
    assert await looks(2) == 1


async def test_the_streams_of_others_are_read_by_one_statement(process: Process) -> None:
    """Each look at 500 node.clusters took as many, while polls waited; those that await no endpoints need none."""
    await process.sightings.observe({"web": {"user", "cart"}, "api": set(), "shop": {"user"}})
    await process.sightings.observe({"api": set()})
    assert process.asked == [["shop", "web"]]


async def test_the_streams_of_some_node_clusters_are_found(database: Database) -> None:
    """Those of this process are not among them, and each row says which node.cluster it is of."""
    row = StreamRow("p2", 1, "p2", "e1", "10.0.0.1", "sotw", "web", "", "envoy 1.40.0", 0.0, ["user"])
    others = [replace(row, stream=2, cluster="api"), replace(row, stream=3, cluster="shop")]
    await store_streams(database, [row, *others, replace(row, process_id="p1")])
    seen = await streams_of_clusters(database, "p1", ["web", "api"])
    assert sorted(each.row.cluster for each in seen) == ["api", "web"]
    assert await streams_of_clusters(database, "p1", []) == []


async def test_a_stuck_envoy_holds_back_its_own_service_alone(process: Process) -> None:
    """The other one is rolled out; after the deadline the stuck one is left behind, which is said."""
    process.poll("web", shows=False)
    await store_resources(process.database, {"web": resources("cart"), "api": resources("cart")})
    for _ in range(3):
        await process.look(phases.SETTLE)
    assert process.names("api") == (["cart"], "2.2")
    for _ in range(10):
        assert [row.key for row in await process.look(5)] == [("web", 0.0)]
    for _ in range(2):
        await process.look(5)
    assert process.names("web")[0] == ["cart", "user"]
    (row,) = await process.under_way()
    assert row.state is not None
    assert (row.state.rollout.phase, [each.node_id for each in row.state.left_behind]) == (Phase.SWITCH, ["e1"])
    ((kind, reason), *_) = await history(process.database, "web")
    assert (kind, "1 have not followed" in reason) == ("mesh_switched", True)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["own stream", "stream of another process"])
async def test_an_acknowledgement_over_a_stream_is_the_proof(process: Process, elsewhere: bool) -> None:
    """Nothing is concluded from what was sent; a rejection has its own words, and its end is that of the stream."""
    holder = process
    if elsewhere:
        holder, process.processes.others = Process(process.database, "p2"), ("p2",)
        await holder.start()
        holder.leads = False
    envoy = StreamingEnvoy(holder)
    assert await envoy.take()
    await holder.tell()
    await store_resources(process.database, {"web": resources("cart"), "api": resources("user")})
    for _ in range(2):
        await holder.feed.refresh()
        (waiting,) = await process.look()
    assert waiting.state is not None
    assert "e1 at 10.0.0.1 has not shown the new clusters" in waiting.state.reason
    assert await envoy.take("unknown cluster type")
    await holder.tell()
    (refused,) = await process.look()
    assert refused.state is not None
    assert (refused.state.rollout.phase, refused.state.refused) == (Phase.ADD, True)
    assert "refuses the new clusters: unknown cluster type" in refused.state.reason
    await store_resources(process.database, {"web": resources("pay"), "api": resources("user")})
    await process.look()
    await holder.feed.refresh()
    assert await envoy.take()
    await holder.tell()
    await process.look()
    await process.look(phases.SETTLE)
    await holder.feed.refresh()
    assert process.names("web")[1] == "3.2", "the new routes, after the clusters were acknowledged"
    envoy.stream.close(time.monotonic())
    await holder.tell()
    (report,) = await process.sightings.subscribers_of("web") if elsewhere else [None]
    assert report is None or not report.held
    assert not holder.sightings._told_streams


async def test_a_stream_that_does_not_change_is_told_of_again(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is old is deleted, and an Envoy that nobody knows of would be left behind without a word."""
    holder = Process(process.database, "p2")
    await holder.start()
    envoy = StreamingEnvoy(holder)
    assert await envoy.take()
    await holder.tell()

    async def told_at() -> float:
        async with process.database.session() as connection:
            return float((await connection.execute(text("SELECT told_at FROM mesh_subscribers"))).scalar_one())

    first = await told_at()
    await holder.tell()
    assert await told_at() == first
    monkeypatch.setattr("registry.rollout.sightings._STREAM_INTERVAL", 1e-6)
    await holder.tell()
    assert await told_at() > first


async def test_a_spoilt_roll_out_holds_back_itself_alone(process: Process) -> None:
    """A row that cannot be read, and a resource whose body is gone, are counted; the other service goes on."""
    await store_resources(process.database, {"web": resources("cart"), "api": resources("cart")})
    async with process.database.transaction() as connection:
        await connection.execute(text("UPDATE mesh_rollout SET state = '[' WHERE node_cluster = 'web'"))
    for _ in range(3):
        rows = await process.look(phases.SETTLE)
    assert [row.key for row in rows] == [("web", 0.0)]
    assert process.rollouts._failures == {("web", 0.0): "its state cannot be read"}
    await store_resources(process.database, {"web": resources("shop"), "api": resources("cart")})
    async with process.database.transaction() as connection:
        await connection.execute(
            text("DELETE FROM mesh_bodies WHERE sha256 IN (SELECT sha256 FROM mesh_served WHERE node_cluster = 'web')")
        )
    await process.look()
    assert list(process.rollouts._failures) == [("web", 0.0)]


async def alter(database: Database, statement: str) -> None:
    """Run a statement, as somebody does in psql."""
    async with database.session() as connection:
        await connection.execute(text(statement))


async def test_an_envoy_whose_report_is_refused_is_left_out_alone(process: Process) -> None:
    """The others are told of, and a roll-out is as careful as where an Envoy was not remembered."""
    await alter(
        process.database, "ALTER TABLE mesh_subscribers ADD CONSTRAINT refused CHECK (node_id <> 'bad') NOT VALID"
    )
    process.poll("web", "bad")
    for node_id in ("e1", "e2"):
        process.poll("web", node_id)
    # The number of a revision that PostgreSQL cannot store is that of no revision.
    absurd = next(each for each in process.subscribers["clusters"] if each.node.id == "e2")
    absurd.poll(f"{process.mesh.database_id}:9999999999999999.1@*", time.monotonic())
    await process.tell()
    async with process.database.session() as connection:
        reports = await mesh_subscribers.reports_of_others(connection, "p2", None)
    assert sorted((report.node_id, report.kind) for report in reports) == [
        ("e1", "clusters"),
        ("e1", "routes"),
        ("e2", "clusters"),
        ("e2", "routes"),
    ]
    process.sightings._watch_told_at = 0.0
    await process.tell()
    async with process.database.session() as connection:
        (watch,) = await mesh_subscribers.read_watches(connection)
    assert watch.overlooked_ago is not None


async def test_a_roll_out_whose_state_is_refused_holds_back_itself_alone(process: Process) -> None:
    """What was seen of the other one is stored, and the failure is counted until PostgreSQL takes it."""
    for cluster in ("web", "api"):
        process.poll(cluster, f"{cluster}-1", shows=False)
    await store_resources(process.database, {"web": resources("cart"), "api": resources("cart")})
    await alter(process.database, "ALTER TABLE mesh_rollout ADD CONSTRAINT no CHECK (node_cluster <> 'web') NOT VALID")
    api, web = await process.look()
    assert api.state is not None
    assert web.state is not None
    assert (api.state.lagging, web.state.lagging) == (1, 0)
    assert list(process.rollouts._failures) == [("web", 0.0)]
    await process.look()
    assert list(process.rollouts._failures) == [("web", 0.0)]
    await alter(process.database, "ALTER TABLE mesh_rollout DROP CONSTRAINT no")
    process.rollouts._known["web", 0.0].noted_at = 0.0
    _, web = await process.look()
    assert web.state is not None
    assert (web.state.lagging, process.rollouts._failures) == (1, {})


@pytest.mark.parametrize("change", ["DELETE FROM mesh_bodies", "UPDATE mesh_bodies SET body = 'x'"])
async def test_what_is_missing_or_spoilt_is_refused_before_anything_is_switched(process: Process, change: str) -> None:
    """The error names the service and what mends it; the bodies that are not whole count as not stored."""
    (cluster,) = resources("cart")["clusters"].values()
    await store_resources(process.database, {"web": resources("cart"), "api": resources("user")})
    async with process.database.transaction() as connection:
        await connection.execute(text(f"{change} WHERE sha256 = '{cluster.sha256}'"))
        assert await store.find_whole(connection, {cluster.sha256}) == set()
    async with process.database.transaction() as connection:
        state = await store.lock(connection)
        before, wanted = await store.read_contents(connection, 1), await store.read_contents(connection, 2)
        with pytest.raises(UnavailableError, match=r"of web are missing.*apply its definitions again"):
            await switching.begin(connection, state, before, wanted)
        await store.add_bodies(connection, [cluster])
        await switching.begin(connection, state, before, wanted)


async def test_another_process_goes_on_where_the_leader_died(process: Process) -> None:
    """It has the state and what the first has told; nobody is awaited again, and nothing is served anew."""
    other = Process(process.database, "p2")
    await other.start()
    other.leads = False
    process.poll("web")
    await process.tell()
    await store_resources(process.database, {"web": resources("cart"), "api": resources("user")})
    await process.look()
    process.poll("web")
    await process.tell()
    await process.look()
    assert await other.look() != []
    other.leads, process.leads = True, False
    other.processes.gone = [SilentProcess("p1", 0.0, 11.0)]
    await other.look()
    await other.look(phases.SETTLE)
    assert other.names("web") == (["cart", "user"], "2.2")
    # The Envoy polls the other process now.
    other.poll("web")
    await other.look()
    assert await other.look(phases.SETTLE) == []
    assert other.names("web") == (["cart"], "2.2")


async def test_two_leaders_make_a_step_once(process: Process) -> None:
    """One that has lost the lead without noticing serves nothing again."""
    other = Process(process.database, "p2")
    await other.start()
    process.poll("web")
    await process.tell()
    await store_resources(process.database, {"web": resources("cart"), "api": resources("user")})
    await process.look()
    process.poll("web")
    await process.tell()
    for each in (process, other):
        await each.look()
    await process.look(phases.SETTLE)
    before = process.names("web")
    await other.look(phases.SETTLE)
    assert other.names("web") == before == (["cart", "user"], "2.2")
    assert [kind for kind, _ in await history(process.database, "web")] == ["mesh_switched"]


async def test_a_process_that_has_not_watched_for_long_does_not_take_silence_for_absence(database: Database) -> None:
    """Nor one beside another that says nothing, such as one of an older version."""
    await store_resources(database, {"web": resources("user")})
    for started in (Process(database), Process(database, "p2", ("p3",))):
        await started.start(1.0 if started.processes.process_id == "p1" else 100.0)
        await store_resources(database, {"web": resources(started.processes.process_id)})
        await started.look()
        (row,) = await started.look(phases.SETTLE)
        assert row.state is not None
        assert (row.state.rollout.phase, "not certain" in row.state.reason) == (Phase.ADD, True)


async def test_what_was_told_is_told_again_when_postgresql_has_lost_it(process: Process) -> None:
    """The tables are unlogged: after a crash of PostgreSQL they are empty, and the Envoys are still there."""
    process.poll("web")
    await process.tell()
    async with process.database.transaction() as connection:
        await connection.execute(text("TRUNCATE mesh_subscribers, mesh_watches"))
    process.sightings._watch_told_at = process.sightings._cleaned_at = -1e9
    await process.tell()
    async with process.database.session() as connection:
        reports = await mesh_subscribers.reports_of_others(connection, "p2", None)
        assert sorted(report.kind for report in reports) == ["clusters", "routes"]
        assert await mesh_subscribers.read_envoys(connection) == {"1.40.0": ["web"]}


def envoy_in(share: float, *, within: bool) -> str:
    """Return a node id that is in a share, or outside of it."""
    return next(name for number in range(1000) if in_share(name := f"e{number}", share) is within)


async def test_a_share_gets_a_revision_early_and_is_promoted(process: Process) -> None:
    """Only its Envoys go through the phases; promoted, the others do, and then all are served the same again."""
    early, late = envoy_in(10, within=True), envoy_in(10, within=False)
    await store_resources(process.database, {"web": resources("cart"), "api": resources("user")}, 10)
    await process.feed.refresh()
    assert (process.names("web", early)[0], process.names("web", late)) == (["cart", "user"], (["user"], "1.1"))
    for name in (early, late):
        process.poll("web", name)
    await process.look()
    await process.look(phases.SETTLE)
    assert process.names("web", early) == (["cart", "user"], "2.2")
    process.poll("web", early)
    await process.look()
    assert await process.look(phases.SETTLE) == []
    assert (process.names("web", early), process.names("web", late)) == ((["cart"], "2.2"), (["user"], "1.1"))
    async with process.database.transaction() as connection:
        state = await store.lock(connection)
        assert await switching.promote(connection, state, 2) == ["web"]
        await store.save(connection, state)
    await process.look()
    assert process.names("web", late)[0] == ["cart", "user"]
    for _ in range(2):
        process.poll("web", late)
        await process.look()
        rows = await process.look(phases.SETTLE)
    assert rows == []
    assert process.names("web", late) == process.names("web", early)
    assert process.names("web", late)[0] == ["cart"]
    node = process.mesh.get("web")
    assert node is not None
    assert node.share == 0


async def test_a_second_share_is_refused(process: Process) -> None:
    """Envoys that moved from one to the other would get routes and clusters of it at once."""
    await store_resources(process.database, {"web": resources("cart"), "api": resources("user")}, 10)
    with pytest.raises(InvalidError, match="served to 10 % of the Envoys of web"):
        await store_resources(process.database, {"web": resources("shop"), "api": resources("user")}, 20)


async def test_a_share_that_is_rolled_back_keeps_its_versions_growing(process: Process) -> None:
    """The others are served the same bytes all the time; their versions are raised to those of the share."""
    early = envoy_in(50, within=True)
    await store_resources(process.database, {"web": resources("cart"), "api": resources("user")}, 50)
    await process.feed.refresh()
    process.poll("web", early)
    await process.look()
    await process.look(phases.SETTLE)
    assert process.names("web", early) == (["cart", "user"], "2.2")
    await store_resources(process.database, {"web": resources("user"), "api": resources("user")})
    await process.feed.refresh()
    assert process.names("web", early) == (["cart", "user"], "3.1")
    process.poll("web", early)
    await process.look()
    assert await process.look(phases.SETTLE) == []
    assert process.names("web", early) == process.names("web", envoy_in(50, within=False)) == (["user"], "3.1")


def paused_seconds() -> float:
    """Return the metric of the oldest pause."""
    return REGISTRY.get_sample_value("registry_mesh_paused_seconds") or 0.0


async def test_a_paused_roll_out_goes_no_further(process: Process) -> None:
    """However much its Envoys show; resumed, it goes on with its whole time."""
    process.poll("web")
    await store_resources(process.database, {"web": resources("cart"), "api": resources("user")})
    await process.look()

    async def order(pause: Pause | None) -> list[str]:
        async with process.database.transaction() as connection:
            await store.lock(connection)
            return await switching.pause(connection, 2, pause)

    assert await order(Pause("ann", "lunch", 1.0)) == ["web"]
    process.poll("web")
    for _ in range(20):
        (row,) = await process.look(5)
    assert row.state is not None
    assert (row.state.paused, row.state.rollout.phase) == (Pause("ann", "lunch", 1.0), Phase.ADD)
    # Paused since 1970.
    assert paused_seconds() > 1e9
    assert await order(None) == ["web"]
    assert await order(None) == []
    await process.look()
    assert paused_seconds() == 0
    (row,) = await process.look(phases.SETTLE)
    assert row.state is not None
    assert row.state.rollout.phase is Phase.SWITCH


async def test_a_refused_revision_stops_until_the_next_one(process: Process) -> None:
    """The routes stay; the next revision, which is taken, is rolled out."""
    process.poll("web")
    await store_resources(process.database, {"web": resources("cart"), "api": resources("user")})
    await process.feed.refresh()
    (subscription,) = process.subscribers["clusters"]
    served: Any = process.mesh.find("clusters", subscription.node)
    subscription.refused_offer = format_version_info(process.mesh.database_id, WILDCARD, (served.version,), CLUSTERS)
    for _ in range(30):
        (row,) = await process.look(5)
    assert row.state is not None
    assert (row.state.refused, row.state.deadline, process.names("web")[1]) == (True, None, "1.1")
    ((kind, reason),) = await history(process.database, "web")
    assert (kind, reason.startswith("revision 2 goes no further: e1 at 10.0.0.1 refuses")) == ("mesh_refused", True), (
        reason
    )
    await store_resources(process.database, {"web": resources("shop"), "api": resources("user")})
    await process.feed.refresh()
    for _ in range(2):
        process.poll("web")
        await process.look()
        rows = await process.look(phases.SETTLE)
    assert (rows, process.names("web")[0]) == ([], ["shop"])
