"""What ended workers have counted, in one file of each kind."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

from registry import worker_metrics
from registry.worker_metrics import add_up_ended, settled

KINDS = ("counter", "histogram", "gauge_mostrecent", "gauge_livemax")


def count(directory: Path, pid: int, value: float, at: float) -> None:
    """Write a value of each kind, as a worker of that id does."""
    for kind in KINDS:
        name = f"{kind}_a"
        file = MmapedDict(str(directory / f"{kind}_{pid}.db"))  # type: ignore[no-untyped-call]
        sample = f"{name}_bucket" if kind == "histogram" else name
        labels = (("le", "1.0"),) if kind == "histogram" else ()
        names, values = [each for each, _ in labels], [each for _, each in labels]
        file.write_value(mmap_key(name, sample, names, values, "A number."), value, at)  # type: ignore[no-untyped-call]
        file.close()  # type: ignore[no-untyped-call]


def scrape(directory: Path) -> dict[str, float]:
    """Return the value of each series."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(directory))  # type: ignore[no-untyped-call]
    lines = generate_latest(registry).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_sums_are_the_same_before_and_after_workers_are_added_up(tmp_path: Path) -> None:
    """Of any number of ended workers; what they said of themselves ends, and what lives is not touched."""
    for pid in range(1, 8):
        count(tmp_path, pid, 10.0 + pid, at=100.0 - pid)
        before = scrape(tmp_path)
        add_up_ended(tmp_path, {1, pid})
        assert scrape(tmp_path) == before
    add_up_ended(tmp_path, {7})
    assert scrape(tmp_path) == before | {"gauge_livemax_a": 17.0}
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {f"{kind}_7.db" for kind in KINDS} | {f"{kind}_ended.db" for kind in KINDS[:3]} | {"lock"}
    assert before["counter_a"] == sum(10.0 + pid for pid in range(1, 8))


def test_a_scrape_that_does_not_end_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may be stopped in the middle of one; the parent of workers has more to do, and nothing is lost."""
    monkeypatch.setattr(worker_metrics, "_LONGEST_SCRAPE", 0.05)
    count(tmp_path, 1, 10.0, at=1.0)
    before = scrape(tmp_path)
    with settled(tmp_path), pytest.raises(TimeoutError, match=r"has not ended for 0\.05 s"):
        add_up_ended(tmp_path, set())
    assert scrape(tmp_path) == before
    add_up_ended(tmp_path, set())
    assert (tmp_path / "counter_ended.db").exists()
