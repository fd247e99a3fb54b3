"""Tokens of the registry, compared as an Envoy's poll brings them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrar.edge.token import MAX_AHEAD, NOTHING, Relation, compare, fallback_token, joined
from registry.core.versions import MAX_VERSIONS_AHEAD
from registry.xds.resources import CLUSTERS, ENDPOINTS
from registry.xds.version_info import Comparison, format_version_info, parse_version_info
from registry.xds.version_info import compare as registrys
from wire.discovery_poll import WILDCARD

NUMBERS = st.integers(0, 10**9)


@pytest.mark.parametrize(
    ("brought", "ours", "relation"),
    [
        ("", "db:5", Relation.NONE),
        (NOTHING, "db:5", Relation.NONE),
        (fallback_token(b"x"), "db:5", Relation.NONE),
        (fallback_token(b"x"), fallback_token(b"x"), Relation.CURRENT),
        (fallback_token(b"x"), fallback_token(b"y"), Relation.NONE),
        ("db:4", "db:5", Relation.OLDER),
        ("db:5", "db:5", Relation.CURRENT),
        ("db:6", "db:5", Relation.CURRENT),
        (f"db:{6 + MAX_AHEAD}", "db:5", Relation.FOREIGN),
        ("other:5", "db:5", Relation.FOREIGN),
        ("db:5", fallback_token(b"x"), Relation.FOREIGN),
        ("what Envoy had from a file", "db:5", Relation.FOREIGN),
        ("db:5", "", Relation.FOREIGN),
        ("db:5", "db:0", Relation.CURRENT),
        ("other:5", "db:0", Relation.FOREIGN),
    ],
)
def test_a_single_name(brought: str, ours: str, relation: Relation) -> None:
    """The same database's numbers are compared, and nothing else is."""
    assert compare(brought, ours, stepped=False) is relation


@pytest.mark.parametrize(
    ("brought", "relation"),
    [
        ("db:7.1@*", Relation.OLDER),
        ("db:6.9@*", Relation.OLDER),
        ("db:8.0@*", Relation.CURRENT),
        ("db:7.2", Relation.FOREIGN),
    ],
)
def test_a_revision_comes_before_its_steps(brought: str, relation: Relation) -> None:
    """What the mesh configuration's versions are compared by."""
    assert compare(brought, "db:7.2@*", stepped=True) is relation


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=4))
def test_the_registry_would_say_the_same(pairs: list[tuple[int, int]]) -> None:
    """For any numbers of any number of names, the edge compares as the registry does."""
    names = [f"service-{number}" for number in range(len(pairs))]
    theirs, ours = ([pair[side] for pair in pairs] for side in (0, 1))
    brought = format_version_info("db", names, theirs, ENDPOINTS)
    held = joined(names, [f"db:{number}" for number in ours])
    assert held == format_version_info("db", names, ours, ENDPOINTS)
    same = {
        Comparison.OLDER: Relation.OLDER,
        Comparison.EQUAL: Relation.CURRENT,
        Comparison.NEWER: Relation.CURRENT,
        Comparison.FOREIGN: Relation.FOREIGN,
    }
    assert compare(brought, held, stepped=False) is same[registrys(theirs, ours)]


@given(NUMBERS, NUMBERS)
def test_so_it_would_of_the_mesh_configuration(theirs: int, ours: int) -> None:
    """Revisions within the registry's own bound are compared alike."""
    brought = format_version_info("db", WILDCARD, [theirs], CLUSTERS)
    held = format_version_info("db", WILDCARD, [ours], CLUSTERS)
    assert parse_version_info("db", WILDCARD, held, CLUSTERS) == [ours]
    older = registrys([theirs], [ours], stepped=True) is Comparison.OLDER
    assert (compare(brought, held, stepped=True) is Relation.OLDER) is older


def test_one_bound_for_both() -> None:
    """How far ahead an Envoy may be is what the registry says."""
    assert MAX_AHEAD == MAX_VERSIONS_AHEAD


def test_names_of_two_databases_have_no_token() -> None:
    """Of such an answer nobody could tell what it has."""
    assert joined(["a", "b"], ["db:1", "other:1"]) == ""
    assert joined(["a", "b"], ["db:1", NOTHING]) == ""
