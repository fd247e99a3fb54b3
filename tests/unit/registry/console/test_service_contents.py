"""All endpoints of a service as its page shows them are sorted again when they have changed, and only then."""

from unit.registry.making import NOW, endpoint

from registry.console.service_contents import LocalityCounts, ServiceContents
from registry.core.snapshot import Snapshot, SnapshotDelta


def snapshot_of(service: str, change: int, size: int) -> Snapshot:
    """Return a service with endpoints, every third of which has timed out."""
    listed = [endpoint(number, service, lapsed_at=NOW if number % 3 == 0 else None) for number in range(size)]
    return Snapshot(service).advance(SnapshotDelta(service, change, change, listed=listed, whole=True))


def test_contents_are_those_of_the_snapshot() -> None:
    """The same ones for the same snapshot; others after a change, and for another service."""
    contents, first = ServiceContents(), snapshot_of("shop", 1, 6)
    shown = contents.of(first)
    assert sorted(each.name for each in shown.endpoints) == sorted(each.name for each in first.endpoints.values())
    ((_, counts),) = shown.localities.items()
    assert counts == LocalityCounts(all=6, routable=4, silent=0)
    assert contents.of(first) is shown
    assert len(contents.of(snapshot_of("shop", 2, 7)).endpoints) == 7
    assert len(contents.of(snapshot_of("cart", 1, 2)).endpoints) == 2


def test_few_services_are_kept() -> None:
    """Each has a snapshot, which would otherwise be freed; the one that was shown longest ago is dropped."""
    contents, first = ServiceContents(), snapshot_of("s-0", 1, 1)
    shown = contents.of(first)
    for number in range(1, 8):
        contents.of(snapshot_of(f"s-{number}", 1, 1))
    assert contents.of(first) is shown
    for number in range(8, 16):
        contents.of(snapshot_of(f"s-{number}", 1, 1))
    assert contents.of(first) is not shown
    assert len(contents._kept) == 8
