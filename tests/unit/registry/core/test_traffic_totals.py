"""The failed requests of a digest by reason."""

from hypothesis import given
from hypothesis import strategies as st

from registry.core.traffic_totals import FAILURE_REASONS, add_failures
from wire.traffic_digest import EdgeCounts

_COUNTS = st.integers(0, 1000)


def failures_by_reason(counts: EdgeCounts) -> list[int]:
    """Return the failures of an edge in the order of reasons."""
    totals = [0] * len(FAILURE_REASONS)
    add_failures(totals, counts)
    return totals


def by_reason(**counts: int) -> dict[str, int]:
    """Return the failures of an edge by reason, without those that are none."""
    reasons = failures_by_reason(EdgeCounts(completed=10, **counts))
    return {name: count for name, count in zip(FAILURE_REASONS, reasons, strict=True) if count}


def test_each_failed_request_has_one_reason() -> None:
    """Attempts of retries are not counted as requests, nor is what a retry has healed."""
    assert by_reason(failures=10, timeouts=10) == {"timeout": 10}
    assert by_reason(failures=10, none_healthy=30) == {"none_healthy": 10}
    assert by_reason(failures=8, overflows=8) == {"overflow": 8}
    assert by_reason(failures=3, connect_failures=9, retries=6) == {"connect_failure": 3}
    assert by_reason(failures=10, retries=20) == {"other": 10}
    assert by_reason(failures=10, timeouts=2, none_healthy=3) == {"timeout": 2, "none_healthy": 3, "other": 5}
    assert by_reason(connect_failures=5, retries=5) == {}


@given(_COUNTS, _COUNTS, _COUNTS, _COUNTS, _COUNTS)
def test_reasons_add_up_to_the_failures(
    failures: int, timeouts: int, none_healthy: int, overflows: int, connect: int
) -> None:
    """Whatever else is counted, none is negative and none is lost."""
    counts = EdgeCounts(
        failures=failures,
        timeouts=timeouts,
        none_healthy=none_healthy,
        overflows=overflows,
        connect_failures=connect,
    )
    reasons = failures_by_reason(counts)
    assert min(reasons) >= 0
    assert sum(reasons) == failures
