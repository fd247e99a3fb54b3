"""Gauges of services: one series for each service that has a value now, of so many services at most."""

from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

from registry.metrics import MAX_SERVICE_SERIES, ServiceGauge


@pytest.fixture
def gauge() -> Iterator[ServiceGauge]:
    """A gauge of its own."""
    made = ServiceGauge("registry_test_services", "For a test.")
    yield made
    REGISTRY.unregister(made)


def series(gauge: ServiceGauge) -> dict[str, float]:
    """Return the values by service."""
    (family,) = gauge.collect()
    return {sample.labels["service"]: sample.value for sample in family.samples}


def test_a_series_ends_with_its_value(gauge: ServiceGauge) -> None:
    """A service whose endpoints came back would otherwise be silent in Prometheus for ever."""
    gauge.set({"shop": 3, "cart": 1})
    assert series(gauge) == {"shop": 3, "cart": 1}
    gauge.set({"cart": 2})
    assert series(gauge) == {"cart": 2}
    gauge.set({})
    assert series(gauge) == {}


def test_series_are_bounded(gauge: ServiceGauge) -> None:
    """Of too many services those with the largest values are named."""
    gauge.set({f"service-{number}": number for number in range(10 * MAX_SERVICE_SERIES)})
    assert len(series(gauge)) == MAX_SERVICE_SERIES
    assert min(series(gauge).values()) == 9 * MAX_SERVICE_SERIES
