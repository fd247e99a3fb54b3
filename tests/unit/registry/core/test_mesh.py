"""Versions of the mesh configuration, and shares of node ids."""

from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st

from registry.core.mesh import in_share, revision_of, show_version, step_of, version_of

numbers = st.integers(0, 2**31)


@examples(200)
@given(numbers, numbers, numbers, numbers)
def test_versions_have_the_order_of_revisions_and_then_of_steps(a: int, b: int, c: int, d: int) -> None:
    """And each tells its revision and its step."""
    version = version_of(a, b)
    assert (revision_of(version), step_of(version)) == (a, b)
    assert (version < version_of(c, d)) == ((a, b) < (c, d))
    assert show_version(version) == f"{a}.{b}"


@examples(100)
@given(st.text(), st.floats(0, 100), st.floats(0, 100))
def test_a_larger_share_contains_each_smaller_one(node_id: str, a: float, b: float) -> None:
    """All are in the whole, and none in nothing."""
    small, large = sorted((a, b))
    assert in_share(node_id, large) or not in_share(node_id, small)
    assert in_share(node_id, 100)
    assert not in_share(node_id, 0)


def test_a_share_is_about_as_large_as_it_says() -> None:
    """Of 10,000 node ids, ten per cent are 1,000, give or take."""
    inside = sum(in_share(f"i-{number:05}", 10) for number in range(10_000))
    assert 900 < inside < 1_100
