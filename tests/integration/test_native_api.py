"""The native API, through a real registry process on a real PostgreSQL."""

from harness.registry import Registry


def test_registering_twice_changes_nothing(shared_registry: Registry, service: str) -> None:
    """A second identical registration renews the lease and leaves the version alone."""
    first = shared_registry.register(service, "10.0.0.1:80").json()
    second = shared_registry.register(service, "10.0.0.1:80").json()
    assert first == second
    assert first["version"] == 1
    assert (first["ttl"], first["interval"], first["drain_wait"]) == (20.0, 5.0, 12.0)
