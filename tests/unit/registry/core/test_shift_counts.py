"""Whose attempts those at an endpoint are that comes, leaves, or is deployed anew at the same address."""

from registry.core.endpoint import Endpoint
from registry.core.endpoint_table import EndpointTable
from registry.core.shift_counts import StepCounts
from registry.core.shift_statistics import Counts
from wire.model import Registration

REST, CANARY = "10.0.0.1:80", "10.0.0.2:80"


def listed(*revisions: str) -> EndpointTable:
    """Return endpoints with these revisions; the empty one is of an endpoint that is not listed."""
    return EndpointTable(
        Endpoint(
            number, "shop", f"10.0.0.{number}", 80, Registration(f"i-{number}", 1, ttl=9.0, revision=name), 0.0, 0.0
        )
        for number, name in enumerate(revisions, 1)
        if name
    )


def test_a_canary_that_dies_and_comes_back_elsewhere_keeps_its_errors() -> None:
    """So one that starts anew after each error is taken back as well."""
    step = StepCounts("revision=b")
    counted = {REST: Counts(100, 1), CANARY: Counts(10, 2)}
    assert step.sums(counted, listed("a", "b")) == (Counts(10, 2), Counts(100, 1))
    assert step.sums(counted, listed("a")) == (Counts(10, 2), Counts(100, 1))
    later = counted | {"10.0.0.3:80": Counts(5, 2)}
    assert step.sums(later, listed("a", "", "b")) == (Counts(15, 4), Counts(100, 1))


def test_a_version_that_is_deployed_in_place_begins_with_none() -> None:
    """What it follows keeps its attempts; and gets them again when the deployment is taken back."""
    step = StepCounts("revision=b")
    step.sums({REST: Counts(1000, 3)}, listed("a"))
    assert step.sums({REST: Counts(1000, 3)}, listed("b")) == (Counts(), Counts(1000, 3))
    assert step.sums({REST: Counts(1010, 9)}, listed("b")) == (Counts(10, 6), Counts(1000, 3))
    assert step.sums({REST: Counts(1030, 9)}, listed("a")) == (Counts(10, 6), Counts(1020, 3))


def test_endpoints_that_were_never_listed_count_for_nobody() -> None:
    """Envoys name what they like; counts that fall are as they are now."""
    step = StepCounts("revision=b")
    assert step.sums({"10.9.9.9:80": Counts(50, 50)}, listed("a", "b")) == (Counts(), Counts())
    step.sums({CANARY: Counts(10, 2)}, listed("a", "b"))
    assert step.sums({CANARY: Counts(4, 1)}, listed("a", "b")) == (Counts(4, 1), Counts())
