"""What ended workers have counted, in one file of each kind."""

import fcntl
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
    with settled(directory):
        MultiProcessCollector(registry, str(directory))  # type: ignore[no-untyped-call]
        lines = generate_latest(registry).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_sums_are_the_same_before_and_after_workers_are_added_up(tmp_path: Path) -> None:
    """Of any number of ended workers; what they said of themselves ends, and what lives is not touched."""
    for pid in range(1, 8):
        count(tmp_path, pid, 10.0 + pid, at=100.0 - pid)
        before = scrape(tmp_path)
        add_up_ended(tmp_path, {1, pid}, {})
        assert scrape(tmp_path) == before
    add_up_ended(tmp_path, {7}, {})
    assert scrape(tmp_path) == before | {"gauge_livemax_a": 17.0}
    assert scrape(tmp_path)["counter_a"] == before["counter_a"]
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {f"{kind}_7.db" for kind in KINDS} | {f"{kind}_ended.db" for kind in KINDS[:3]} | {"lock"}
    assert before["counter_a"] == sum(10.0 + pid for pid in range(1, 8))


def test_a_scrape_that_does_not_end_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may be stopped in the middle of one; the parent of workers has more to do, and nothing is lost."""
    monkeypatch.setattr(worker_metrics, "_LONGEST_SCRAPE", 0.05)
    count(tmp_path, 1, 10.0, at=1.0)
    before = scrape(tmp_path)
    with settled(tmp_path), pytest.raises(TimeoutError, match=r"for more than 0\.05 s"):
        add_up_ended(tmp_path, set(), {})
    assert scrape(tmp_path) == before
    add_up_ended(tmp_path, set(), {})
    assert (tmp_path / "counter_ended.db").exists()


class Killed(Exception):  # noqa: N818  # it stands for SIGKILL
    """The process ended in the middle."""


@pytest.mark.parametrize("killed_by", [scrape, lambda directory: add_up_ended(directory, {3}, {})])
def test_whatever_it_was_killed_at_nothing_counts_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_by: Callable[[Path], object]
) -> None:
    """It is killed before each of its steps in turn; a scrape, or the next worker that ends, finishes what it began."""
    steps = 0
    for survived in itertools.count():
        directory = tmp_path / str(survived)
        directory.mkdir()
        for pid in (1, 2, 3):
            count(directory, pid, 10.0 * pid, at=1.0)
        add_up_ended(directory, {2, 3}, {})
        before = scrape(directory)
        with monkeypatch.context() as patched:
            left = iter(range(survived))
            for step in ("replace", "unlink", "write_text"):
                patched.setattr(Path, step, _dies_when_spent(getattr(Path, step), left))
            try:
                add_up_ended(directory, {3}, {})
                finished = True
            except Killed:
                finished = False
        killed_by(directory)
        # What a worker said of itself ends with it, whether or not the rest of its numbers was added up.
        assert scrape(directory) | {"gauge_livemax_a": 30.0} == before | {"gauge_livemax_a": 30.0}
        if finished:
            steps = survived
            break
    assert steps >= 8


def _dies_when_spent(step: Callable[..., Any], left: Iterator[int]) -> Callable[..., Any]:
    def stepped(*args: Any, **options: Any) -> Any:
        if next(left, None) is None:
            raise Killed
        return step(*args, **options)

    return stepped


def test_the_ends_of_workers_are_set_and_not_added(tmp_path: Path) -> None:
    """The parent knows them all: counted again after a kill, they are the same."""
    count(tmp_path, 1, 10.0, at=1.0)
    for ends in ({"died": 1, "hung": 0}, {"died": 1, "hung": 2}, {"died": 1, "hung": 2}):
        add_up_ended(tmp_path, {2}, ends)
    found = scrape(tmp_path)
    assert found['registry_workers_ended_total{reason="died"}'] == 1.0
    assert found['registry_workers_ended_total{reason="hung"}'] == 2.0


def test_a_scrape_does_not_wait_for_what_adds_up_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That may be stopped, and scrapes are answered in the event loop of a worker."""
    monkeypatch.setattr(worker_metrics, "_LONGEST_ADDITION", 0.05)
    with (tmp_path / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TimeoutError), settled(tmp_path):
            pass


def test_what_killed_programs_have_left_is_removed(tmp_path: Path) -> None:
    """A directory that is in use has a lock; one that was just made may have none yet."""
    left, used, other = (tmp_path / name for name in ("headcount-metrics-1", "headcount-metrics-2", "metrics"))
    for directory in (left, used, other):
        directory.mkdir()
        (directory / "counter_1.db").touch()
    (tmp_path / "headcount-metrics-link").symlink_to(other)
    now = left.stat().st_mtime
    worker_metrics.remove_leftovers(tmp_path, now + 1)
    assert left.exists()
    with worker_metrics._locked(str(used)):
        worker_metrics.remove_leftovers(tmp_path, now + 3_600)
        assert [each.exists() for each in (left, used, other / "counter_1.db")] == [False, True, True]
    worker_metrics.remove_leftovers(tmp_path, now + 3_600)
    assert not used.exists()


def test_a_directory_that_cannot_be_looked_at_ends_no_start(tmp_path: Path) -> None:
    """Whoever needs it says so; a name that is too long stands for one whose parent is closed to this user."""
    worker_metrics.remove_leftovers(tmp_path / ("a" * 300), 0.0)
