"""Which worker counts as hung, in made-up time."""

import os

import pytest

from registry.worker_watchdog import (
    Condition,
    WorkerWatchdog,
    condition_of,
    read_signs,
    show_life,
    waited_for_processor,
)

TIMEOUT = 30.0
SLEEPING = Condition("S", traced=False, waited=0.0)


class Machine:
    """A supervisor that looks once a second, and its workers, each of which shows a sign of life unless it hangs."""

    def __init__(self, *workers: int) -> None:
        self.watchdog = WorkerWatchdog(TIMEOUT)
        self.now = 1_000.0
        self.watchdog.pass_time(self.now)
        self.workers = set(workers)
        self.hanging: set[int] = set()
        self.conditions: dict[int, Condition] = {}
        self.missing = 0
        self.stopping = False
        self.killed: list[int] = []
        for pid in workers:
            self.start(pid)

    def start(self, pid: int, *, serves: bool = True) -> None:
        """Start a worker, which serves at once."""
        self.workers.add(pid)
        self.watchdog.started(pid)
        if serves:
            self.watchdog.heard(pid, 0.0, serves=True)

    def end(self, pid: int) -> bool:
        """End a worker."""
        self.workers.remove(pid)
        return self.watchdog.ended(pid)

    def run(self, seconds: float, *, step: float = 1.0) -> list[int]:
        """Let time pass, and return who is killed meanwhile."""
        before = len(self.killed)
        for _ in range(round(seconds / step)):
            self.now += step
            self.watchdog.pass_time(self.now)
            for pid in self.workers - self.hanging:
                self.watchdog.heard(pid, self.conditions.get(pid, SLEEPING).waited, serves=True)
            hung = self.watchdog.find_hung(
                lambda pid: self.conditions.get(pid, SLEEPING), missing=self.missing, stopping=self.stopping
            )
            if hung is not None:
                self.killed.append(hung.pid)
        return self.killed[before:]


def test_a_silent_worker_is_killed_once_after_the_timeout() -> None:
    """Not before, and the others never; its end tells that it hung."""
    machine = Machine(1, 2)
    machine.hanging = {2}
    assert machine.run(TIMEOUT) == []
    assert machine.run(2) == [2]
    assert machine.run(1_000) == []
    assert machine.end(2)
    machine.start(3)
    assert machine.run(1_000) == []
    assert not machine.end(1)


def test_a_supervisor_that_was_stopped_kills_nobody() -> None:
    """Nor one on a machine that slept, or whose clock jumps: what counts is the time that it looked on."""
    machine = Machine(1, 2)
    machine.hanging = {1, 2}
    # The first looks come before the workers run again.
    assert machine.run(10 * 3_600, step=3_600) == []
    assert machine.run(-500, step=-1.0) == []
    machine.hanging = set()
    assert machine.run(1_000) == []


def test_a_worker_that_waits_for_a_processor_is_not_silent() -> None:
    """As at load 50: it has had no turn. With a few turns that it does not use it is killed, later."""
    machine = Machine(1, 2)
    machine.hanging = {1}
    for second in range(290):
        machine.conditions[1] = Condition("R", traced=False, waited=second * 0.9)
        assert machine.run(1) == []
    machine.conditions[1] = Condition("R", traced=False, waited=261.0)
    assert machine.run(5) == [1]


def test_a_worker_under_a_debugger_is_left_alone() -> None:
    """It has the whole time again once the debugger has gone."""
    machine = Machine(1, 2)
    machine.hanging, machine.conditions = {1}, {1: Condition("t", traced=True, waited=0.0)}
    assert machine.run(3_600) == []
    machine.conditions = {}
    assert machine.run(TIMEOUT - 1) == []
    assert machine.run(35) == [1]


def test_one_is_killed_at_a_time() -> None:
    """All of them are silent where something is wrong with the machine: the next goes when a replacement serves."""
    machine = Machine(1, 2, 3)
    machine.hanging = {1, 2, 3}
    assert machine.run(3_600) == [1]
    machine.missing = 1
    machine.end(1)
    assert machine.run(3_600) == []
    machine.missing = 0
    machine.start(4, serves=False)
    machine.hanging.add(4)
    # It does not come to serve, and is killed for that in the end; the old ones are still the most that there is.
    assert machine.run(299) == []
    machine.hanging.remove(4)
    assert machine.run(3) == [2]


def test_where_no_replacement_comes_the_next_goes_while_another_serves() -> None:
    """Its connections are better off at the one that serves; the last one is never killed."""
    machine = Machine(1, 2, 3)
    machine.hanging = {1, 2}
    assert machine.run(35) == [1]
    machine.end(1)
    machine.missing = 1
    assert machine.run(50) == []
    assert machine.run(20) == [2]
    machine.end(2)
    machine.missing = 2
    machine.hanging.add(3)
    assert machine.run(3_600) == []


def test_a_worker_may_take_long_to_start_but_not_for_ever() -> None:
    """It imports the program, and reads all endpoints."""
    machine = Machine(1)
    machine.start(2, serves=False)
    machine.hanging = {2}
    assert machine.run(290) == []
    assert machine.run(20) == [2]


def test_at_a_stop_hanging_workers_are_killed_soon_and_together() -> None:
    """After the same time as all others have to stop in order: a third of the timeout."""
    machine = Machine(1, 2, 3)
    machine.hanging = {1, 2}
    assert machine.run(20) == []
    machine.stopping = True
    assert machine.run(TIMEOUT / 3) == []
    assert sorted(machine.run(3)) == [1, 2]


def test_at_a_stop_a_worker_has_no_credit_for_what_it_waited_before() -> None:
    """In an endless loop on a busy machine it had waited for a processor for most of the time."""
    machine = Machine(1, 2)
    machine.hanging = {1}
    machine.conditions[1] = Condition("R", traced=False, waited=25.0)
    assert machine.run(28) == []
    machine.stopping = True
    assert machine.run(TIMEOUT / 3) == []
    assert machine.run(3) == [1]


def test_signs_of_life_are_read_whole_and_lost_when_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker never waits for a parent that was stopped."""
    read, write = os.pipe()
    for descriptor in (read, write):
        os.set_blocking(descriptor, False)
    for _ in range(20_000):
        show_life(write, serves=False)
    signs = list(read_signs(read))
    assert set(signs) == {(os.getpid(), False)}
    assert 100 < len(signs) < 20_000
    monkeypatch.setattr(os, "getpid", lambda: 2**22)
    show_life(write, serves=True)
    assert list(read_signs(read)) == [(2**22, True)]
    os.close(read)
    show_life(write, serves=True)
    os.close(write)


def test_a_process_that_has_gone_is_no_fault() -> None:
    """Nothing is known of it; of this one it is known that it runs."""
    assert condition_of(2**22 + 1) == Condition("?", traced=False, waited=0.0)
    state, traced, waited = condition_of(os.getpid())
    assert (state, traced) == ("R", False)
    assert 0 < waited <= waited_for_processor(os.getpid())
