"""What tables say of a service."""

from registryctl.tables import strength


def test_a_number_of_ecs_is_named() -> None:
    """Other numbers are not explained in the list; a registry of an earlier version names no source."""
    service = {"present": 4, "expected": 6, "lost_count": 0}
    assert strength(service) == "4 of 6 present"
    assert strength(service | {"expected_source": "ecs"}) == "4 of 6 present (expected by ECS)"
    assert strength(service | {"expected_source": "ecs", "lost_count": 2}) == "4 of 6 present (expected by ECS, 2 lost)"
