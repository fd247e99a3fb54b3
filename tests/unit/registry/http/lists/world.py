"""A catalogue in memory whose every state can be made: with other clocks, leases, pauses, losses and databases."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec.structs import replace
from unit.registry.making import endpoint, leases, registration

from registry.auth.grants import EVERYTHING
from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.clock import Clock
from registry.core.ecs_services import EcsService
from registry.core.endpoint import Endpoint, Override
from registry.core.expiry_guard import EVERYWHERE, Pause
from registry.core.lease import Leases
from registry.core.presence import MAX_LOST_AGE
from registry.core.snapshot import SnapshotDelta
from registry.http.lists.document import Document
from registry.http.lists.lists import Lists
from registry.http.lists.requests import EndpointsRequest, ListRequest, ServiceRequest, ServicesRequest
from registry.http.parameters import read_cursor, read_endpoint_cursor, write_cursor
from registry.http.views.endpoints import EndpointList, endpoint_view
from registry.http.views.services import ServiceList, service_detail_view, service_view
from registry.usecases.catalog import Catalog
from registry.usecases.silence import Silences

ANYBODY = Principal("10.0.0.9")
START = 1_000_000.0
NAMES = ["cart", "shop", "shop-eu"]
ECS = EcsService("cluster", "shop")
Draw = Callable[..., Any]


class SetClock(Clock):
    """A clock that stands still."""

    def __init__(self) -> None:
        super().__init__()
        self.time = START

    def now(self) -> float:
        """Return the time that it was set to."""
        return self.time


class World:
    """A catalogue, its lists, and what they have to be."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.cache = SnapshotCache()
        self.clock = self.cache.clock = SetClock()
        self.cache.set_database("one")
        self.cache.mark_ready(0.0)
        self.silences = Silences(self.cache, 600.0)
        self.catalog = Catalog(policy or Policy(), self.cache, self.silences)
        self.lists = Lists(self.catalog)
        self._changes: dict[tuple[str, str], int] = {}

    def change(self, service: str, *listed: Endpoint, lost: tuple[Endpoint, ...] = (), **more: Any) -> None:
        """Change a service by one; a database gives no number twice, also after it forgot a service."""
        counted = (self.cache.database_id, service)
        change = self._changes[counted] = self._changes.get(counted, 0) + 1
        self.cache.apply([SnapshotDelta(service, change, change, listed=listed, lost=lost, **more)])

    def get(self, request: ListRequest, principal: Principal = ANYBODY) -> Document:
        """Return a list at once."""
        document = self.lists.known(principal, request)
        assert document is not None
        return document

    def expected(self, request: ListRequest, covers: Any = EVERYTHING.covers) -> bytes:
        """Return a list, made of nothing that is kept."""
        cache = self.cache
        now, desired = self.clock.time, cache.desired_counts
        if isinstance(request, ServiceRequest):
            snapshot = cache.get(request.service)
            return msgspec.json.encode(service_detail_view(snapshot, snapshot.presence(now, desired)))
        if isinstance(request, ServicesRequest):
            after = read_cursor(request.cursor) if request.cursor else ""
            names = [name for name in sorted(cache.services()) if name.startswith(request.prefix) and name > after]
            snapshots = [cache.get(name) for name in names if covers(name)]
            views = [service_view(each, each.presence(now, desired)) for each in snapshots[: request.limit]]
            return msgspec.json.encode(
                ServiceList(views, write_cursor(views[-1].name) if len(snapshots) > request.limit else None)
            )
        assert isinstance(request, EndpointsRequest)
        snapshot = cache.get(request.service)
        after_id = read_endpoint_cursor(request.cursor)
        fitting = [each for each in snapshot.ordered() if each.id > after_id and request.wanted.fits(each)]
        page = fitting[: request.limit]
        listed = [endpoint_view(each, cache.leases.get(each.id), self.silences.of(each)) for each in page]
        following = write_cursor(str(page[-1].id)) if len(fitting) > request.limit else None
        return msgspec.json.encode(EndpointList(request.service, snapshot.version, listed, following))


TIMES = st.sampled_from([START - 5, START, START + 5, START + 60])
METADATA = st.dictionaries(
    st.sampled_from(["stage", "lease_renewed_at", "lease_expires_at", "silence", "ü"]),
    st.sampled_from(
        [None, "blue", '","lease_renewed_at":null,"lease_expires_at":null,"', '"silence":null}', 7, {"a": None}]
    ),
)
OVERRIDES = st.none() | st.builds(
    Override,
    weight=st.none() | st.just(5),
    drain=st.booleans(),
    actor=st.just("ann"),
    reason=st.sampled_from(["", '"silence":null}']),
    set_at=st.just(START),
    expires_at=st.none() | TIMES,
)


@st.composite
def endpoints(draw: st.DrawFn, service: str) -> Endpoint:
    """Return an endpoint in some state."""
    number = draw(st.integers(1, 4))
    stored = registration(f"i-{number}", metadata=draw(METADATA), zone=draw(st.sampled_from(["a", "b"])))
    suspect = draw(st.none() | TIMES)
    return endpoint(number, service, stored, suspect_since=suspect, override=draw(OVERRIDES))


def put(world: World, draw: Draw) -> None:
    """Register an endpoint, or change it."""
    service = draw(st.sampled_from(NAMES))
    world.change(service, draw(endpoints(service)))


def lose(world: World, draw: Draw) -> None:
    """Lose an endpoint, now or nearly a day ago."""
    service = draw(st.sampled_from(NAMES))
    listed = world.cache.get(service).ordered()
    lost_at = draw(st.sampled_from([START, START + 5 - MAX_LOST_AGE, START - 5 - MAX_LOST_AGE]))
    rows = tuple(replace(each, lost_at=lost_at, removed_at=lost_at) for each in listed[:1])
    world.change(service, lost=rows, removed=[((each.address, each.port), each.id) for each in rows])


def read_leases(world: World, draw: Draw) -> None:
    """Read other leases."""
    held = draw(st.dictionaries(st.integers(1, 4), TIMES))
    rows = [(number, renewed, renewed + 20) for number, renewed in held.items()]
    world.cache.read_leases(leases(*rows) if rows else Leases.none(), 0.0)


def pause(world: World, draw: Draw) -> None:
    """Read other pauses."""
    scopes = draw(st.lists(st.sampled_from([EVERYWHERE, "shop"]), max_size=1))
    world.cache.read_pauses({scope: Pause(scope, "ann", "", START, draw(TIMES) + 5000) for scope in scopes})


def order_tasks(world: World, draw: Draw) -> None:
    """Read another number of tasks."""
    counts: Mapping[EcsService, int] = draw(st.dictionaries(st.just(ECS), st.integers(1, 2)))
    world.cache.read_desired_counts(counts)


def set_clock(world: World, draw: Draw) -> None:
    """Set the database's clock."""
    world.clock.time = draw(st.sampled_from([START - 10, START, START + 10, START + 100]))


def replace_database(world: World, draw: Draw) -> None:
    """Follow another database, perhaps."""
    world.cache.set_database(draw(st.sampled_from(["one", "two"])))
    world.cache.mark_ready(0.0)


def drop(world: World, draw: Draw) -> None:
    """Forget a service."""
    world.cache.drop(draw(st.sampled_from(NAMES)))


STEPS = st.sampled_from(
    [*[put] * 5, *[lose] * 2, *[read_leases] * 3, *[set_clock] * 3, pause, order_tasks, replace_database, drop]
)
