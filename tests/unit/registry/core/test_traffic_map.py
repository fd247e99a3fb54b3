"""The state of a pair, and which pairs a map shows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from registry.cooperative import at_once
from registry.core.traffic_map import MAX_MAP_SERVICES, MapSelection, rank, select_in_steps, state_of


class Figures(Struct, frozen=True):
    """The figures of a pair."""

    caller: str
    callee: str
    requests_per_second: float = 1.0
    success: float | None = 1.0
    location: str = ""


def by_rank(pairs: list[Figures]) -> list[Figures]:
    """Return pairs as a map takes them."""
    return sorted(pairs, key=rank)


def select(pairs: list[Figures], limit: int = MAX_MAP_SERVICES) -> MapSelection[Figures]:
    """Return the pairs of a map, at once."""
    return at_once(select_in_steps(pairs, limit))


_PAIRS = st.lists(
    st.builds(
        Figures,
        st.sampled_from("abcdefgh"),
        st.sampled_from("abcdefgh"),
        st.floats(0, 1e6),
        st.none() | st.floats(0, 1),
    ),
    unique_by=lambda pair: (pair.caller, pair.callee),
)


@pytest.mark.parametrize(
    ("success", "state"),
    [
        (None, "no traffic"),
        (1.0, "healthy"),
        (0.9901, "healthy"),
        (0.99, "degraded"),
        (0.951, "degraded"),
        (0.95, "unhealthy"),
        (0.0, "unhealthy"),
    ],
)
def test_state_of_a_pair(success: float | None, state: str) -> None:
    """Degraded from 1 % of failures, unhealthy from 5 %; without requests neither good nor bad."""
    assert state_of(success) == state


def test_pairs_that_fail_come_before_busy_ones() -> None:
    """By the failures a second that users see, then by requests; one without traffic is last."""
    busy, calm = Figures("a", "b", 900.0), Figures("a", "c", 1.0)
    bad, worse, little = Figures("a", "d", 10.0, 0.5), Figures("a", "e", 100.0, 0.9), Figures("a", "f", 0.1, 0.0)
    ill, silent = Figures("a", "g", 1000.0, 0.98), Figures("a", "h", 0.0, None)
    assert by_rank([silent, calm, busy, ill, little, bad, worse]) == [
        worse,
        bad,
        little,
        ill,
        busy,
        calm,
        silent,
    ]


def test_a_map_has_sixty_services_and_says_what_it_leaves_out() -> None:
    """The one that fails is shown, however quiet it is; and so is each pair between services that are shown."""
    star = [Figures("edge", f"s{number:03}", 1000.0 - number) for number in range(100)]
    among = Figures("s001", "s002", 0.001)
    failing = Figures("quiet", "sick", 0.01, 0.5)
    selection = select(by_rank([*star, among, failing]))
    assert selection.pairs[0] == failing
    assert among in selection.pairs
    assert (selection.services, selection.services_left_out) == (60, 43)
    assert len(selection.pairs) + selection.pairs_left_out == 102


def test_a_map_of_zones_has_as_few_nodes() -> None:
    """A caller in thirty zones is thirty nodes; the callee is one."""
    pairs = [Figures("edge", f"s{number % 2}", location=f"z{number:03}") for number in range(80)]
    selection = select(by_rank(pairs))
    assert (selection.services, selection.services_left_out, len(selection.pairs)) == (60, 22, 58)


@given(_PAIRS, st.integers(1, 9))
def test_a_selection_is_within_its_limit(pairs: list[Figures], limit: int) -> None:
    """No pair is shown twice or counted twice, and the numbers add up."""
    selection = select(by_rank(pairs), limit)
    services = {name for pair in selection.pairs for name in (pair.caller, pair.callee)}
    everyone = {name for pair in pairs for name in (pair.caller, pair.callee)}
    assert selection.services == len(services) <= limit
    assert selection.services_left_out == len(everyone) - len(services)
    assert selection.pairs_left_out == len(pairs) - len(selection.pairs)
    assert set(selection.pairs) <= set(pairs)
