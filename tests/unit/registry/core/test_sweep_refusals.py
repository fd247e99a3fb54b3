"""Refused changes of sweeps: remembered, retried in a bounded share of the time, and forgotten when done."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.core.sweep_refusals import MAX_RETRY_INTERVAL, MAX_RETRY_ROUND, RETRY_SHARE, Refusals, Task

A, B, C = (Task(name, "expiry") for name in "abc")


def test_a_refusal_is_news_once_for_each_reason() -> None:
    """The same reason again is none; its beginning stays."""
    refusals = Refusals()
    assert refusals.refuse(A, "a CHECK", 1.0, 2.0)
    assert not refusals.refuse(A, "a CHECK", 5.0, 6.0)
    assert refusals.refuse(A, "a trigger", 7.0, 8.0)
    (refusal,) = refusals
    assert (refusal.since, refusal.tried_at, refusal.reason, len(refusals)) == (1.0, 8.0, "a trigger", 1)
    assert (A in refusals, B in refusals, refusals.services) == (True, False, frozenset({"a"}))


def test_what_is_done_or_not_to_be_done_any_more_is_forgotten() -> None:
    """By its acceptance, or by a sweep that did not want it."""
    refusals = Refusals()
    for task in (A, B, C):
        refusals.refuse(task, "x", 0.0, 0.0)
    assert refusals.accept(A)
    assert not refusals.accept(A)
    refusals.end_sweep({B}, 1.0)
    assert [refusal.task for refusal in refusals] == [B]


def test_new_tasks_are_tried_first_then_the_longest_untried() -> None:
    """So that each refused one has its turn, however short a round is."""
    refusals = Refusals()
    refusals.refuse(A, "x", 0.0, 9.0)
    refusals.refuse(B, "x", 0.0, 3.0)
    assert refusals.ordered([A, B, C]) == [C, B, A]


def test_a_round_ends_and_the_next_one_comes() -> None:
    """A task that was never refused is always due, whatever the refused ones cost."""
    refusals = Refusals()
    refusals.refuse(A, "x", 0.0, 1.0)
    assert refusals.is_due(A, 1.0)
    refusals.refuse(A, "x", 1.0, 1.0 + MAX_RETRY_ROUND)
    assert (refusals.is_due(A, 2.0), refusals.is_due(B, 2.0)) == (False, True)
    refusals.end_sweep({A}, 2.0)
    pause = MAX_RETRY_ROUND * (1 / RETRY_SHARE - 1)
    assert not refusals.is_due(A, 2.0 + pause - 0.01)
    assert refusals.is_due(A, 2.0 + pause + 0.01)


@given(st.lists(st.floats(0.001, 20), min_size=1, max_size=60), st.integers(1, 8))
def test_tries_take_a_bounded_share_of_the_time(costs: list[float], services: int) -> None:
    """And every refused task is tried within a bounded number of sweeps."""
    refusals, now, spent = Refusals(), 0.0, 0.0
    tasks = [Task(f"s{number}", "expiry") for number in range(services)]
    for task in tasks:
        refusals.refuse(task, "x", now, now)
    longest = 0.0
    for cost in costs:
        for task in refusals.ordered(tasks):
            if refusals.is_due(task, now):
                refusals.refuse(task, "x", now, now + cost)
                now, spent, longest = now + cost, spent + cost, max(longest, cost)
        refusals.end_sweep(tasks, now)
        now += 1.0
    # A try may take longer than a round, and a pause is bounded: so much is over at most.
    over = sum(max(0.0, cost + MAX_RETRY_ROUND - MAX_RETRY_INTERVAL / (1 / RETRY_SHARE - 1)) for cost in costs)
    assert spent <= RETRY_SHARE * now + MAX_RETRY_ROUND + longest + over


@pytest.mark.parametrize("spent", [0.0, 1.0, 1000.0])
def test_no_pause_is_longer_than_the_longest(spent: float) -> None:
    """Whatever the tries took."""
    refusals = Refusals()
    refusals.refuse(A, "x", 0.0, 0.0)
    refusals.refuse(A, "x", 0.0, spent)
    refusals.end_sweep({A}, spent)
    assert refusals.is_due(A, spent + MAX_RETRY_INTERVAL)
