"""Tables that several owners share, and budgets of requests."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from registry.core.shared_table import FairBudget, SharedTable, most_dropped


def table(limit: int) -> SharedTable[str, int]:
    """Return a table of numbers, the smallest of which go first."""
    return SharedTable(limit, lambda number: number)


def test_a_flood_costs_its_sender_alone() -> None:
    """Whether it invents entries of one caller, or callers with an entry each."""
    for invented in ("one", ""):
        shared = table(100)
        for number in range(20):
            shared.add(f"good-{number}", 0, ("token:good", "shop"))
        for number in range(1_000):
            caller = invented or f"caller-{number}"
            shared.add(f"flood-{number}", 1_000, ("token:bad", caller))
        kept = [key for key, _ in shared.items()]
        assert sum(key.startswith("good") for key in kept) == 20
        assert len(kept) <= 100
        assert {principal for principal, _ in shared.dropped} == {"token:bad"}


def test_within_one_principal_each_caller_has_its_part() -> None:
    """As where all registrars share a token, or access is off behind a load balancer."""
    shared = table(100)
    for number in range(90):
        shared.add(f"gateway-{number}", number, ("", "gateway"))
    for number in range(40):
        shared.add(f"shop-{number}", 0, ("", "shop"))
    kept = [key for key, _ in shared.items()]
    assert sum(key.startswith("shop") for key in kept) == 40
    # The least busy ones of the gateway went.
    assert "gateway-0" not in kept
    assert "gateway-89" in kept
    assert most_dropped(shared.dropped, 3) == [(("", "gateway"), 30)]


def test_entries_that_were_discarded_or_are_old_make_room() -> None:
    """Also while somebody goes through the table."""
    shared = table(10)
    for number in range(10):
        shared.add(str(number), number, ("p", "c"))
    for key, number in shared.items():
        assert shared.get(key) == number
        shared.discard(key)
        shared.discard(key)
    assert len(shared) == 0
    shared.add("new", 1, ("p", "c"))
    assert list(shared.forget_in_steps(lambda number: number == 1)) == [None]
    assert (len(shared), shared.get("new"), shared.dropped) == (0, None, {})


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 150), st.integers(1, 25), st.integers(1, 200), st.randoms(use_true_random=False))
def test_many_owners_lose_their_least_busy_entries(owners: int, each: int, further: int, random: Random) -> None:
    """Nothing is dropped that is busier than what its owner keeps, and few entries are compared at once."""
    steps: list[list[int]] = []
    shared: SharedTable[tuple[int, int], int] = SharedTable(
        owners * each,
        lambda rank: steps[-1].append(rank) or rank,  # type: ignore[func-returns-value]
    )
    entries = {(owner, number): random.randrange(1_000) for owner in range(owners) for number in range(each)}
    for key, rank in entries.items():
        shared.add(key, rank, ("p", str(key[0])))
    for number in range(further):
        steps.append([])
        shared.add((-1, number), 1_000, ("q", str(number)))
    assert max(map(len, steps)) < 64 + each
    assert len(shared) <= owners * each
    kept = dict(shared.items())
    for owner in range(owners):
        own = [(rank, (owner, number) in kept) for (of, number), rank in entries.items() if of == owner]
        left = [rank for rank, is_kept in own if is_kept]
        assert max((rank for rank, is_kept in own if not is_kept), default=0) <= min(left, default=1_000)


def test_two_hundred_and_fifty_callers_keep_their_busy_pairs() -> None:
    """Those were added first, as where idle pairs come later; callers lose the idlest quarter in turn."""
    shared: SharedTable[tuple[int, int], int] = SharedTable(5_000, lambda busyness: busyness)
    for number in range(20):
        for caller in range(250):
            shared.add((caller, number), 20 - number, ("p", str(caller)))

    def lost() -> list[set[int]]:
        return [{number for number in range(20) if shared.get((caller, number)) is None} for caller in range(250)]

    shared.add((-1, 0), 1_000, ("q", "0"))
    assert sorted(map(len, lost()))[-5:] == [0, 1, 5, 5, 5]
    assert shared.dropped.keys() == {("p", str(caller)) for caller, each in enumerate(lost()) if each}
    for number in range(1, 1_250):
        shared.add((-1, number), 1_000, ("q", str(number)))
    assert all(gone == set(range(20 - len(gone), 20)) for gone in lost())
    assert sum(len(gone) == 5 for gone in lost()) > 240


def test_a_large_table_drops_in_bounded_work() -> None:
    """Of very many entries of one owner some are compared, other ones the next time."""
    compared: list[int] = []
    shared: SharedTable[int, int] = SharedTable(10_000, lambda number: compared.append(number) or number)  # type: ignore[func-returns-value]
    for number in range(12_000):
        shared.add(number, number, ("p", "c"))
    drops = sum(shared.dropped.values())
    assert drops >= 2_000
    assert len(compared) <= 5 * drops
    assert len(set(compared)) > 5_000


def test_what_is_brought_at_once_makes_room_a_few_times() -> None:
    """The rest is left out and counted; the next time it has its turn, and others have room as before."""
    shared: SharedTable[int, int] = SharedTable(1_000, lambda number: number)
    for number in range(1_000):
        shared.add(number, number, ("p", "c"))
    admitted: list[int] = []
    for beginning in (1_000, 1_200):
        shared.begin()
        for number in range(beginning, beginning + 200):
            if shared.admits(("q", "d")):
                shared.add(number, number, ("q", "d"))
                admitted.append(number)
    assert admitted == [*range(1_000, 1_032), *range(1_200, 1_232)]
    assert shared.dropped == {("q", "d"): 2 * 168, ("p", "c"): 64}


def test_sizes_are_those_of_what_is_there() -> None:
    """Also when entries of an owner go while others of it come; the largest loses."""
    shared: SharedTable[int, int] = SharedTable(40, lambda number: number)
    for number in range(20):
        shared.add(number, number, ("p", "c"))
        if number % 3 == 0:
            shared.discard(number)
    for number in range(100, 128):
        shared.add(number, number, ("q", "d"))
    assert (len(shared), shared.dropped) == (39, {("q", "d"): 2})
    for number in range(200):
        shared.discard(number)
    shared.add(1, 1, ("p", "c"))
    assert [key for key, _ in shared.items()] == [1]


def test_those_that_are_compared_are_spread_over_a_large_table() -> None:
    """A thousand busy entries that were added first are not compared with each other alone."""
    shared: SharedTable[int, int] = SharedTable(5_000, lambda busyness: busyness)
    for number in range(6_000):
        shared.add(number, number < 1_000, ("p", "c"))
    assert all(shared.get(number) is not None for number in range(1_000))
    assert len(shared) <= 5_000


def test_beyond_the_budget_everybody_still_has_a_part() -> None:
    """The one that floods is refused, the others are not, and the next slot is a new one."""
    budget = FairBudget(100)
    assert all(budget.spend("flood", 1) for _ in range(100))
    assert not budget.spend("flood", 1)
    assert all(budget.spend("good", 1) for _ in range(50))
    assert not budget.spend("good", 1)
    assert not budget.spend("flood", 1)
    assert budget.spend("flood", 2)
