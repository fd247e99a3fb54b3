"""What a publication says that failed."""

from registryctl.mesh.publishing import failure_lines


def test_objects_that_fail_for_one_reason_are_one_line() -> None:
    """Without credentials all fail for the same one, and there may be thousands of them."""
    routes = {f"routes/svc-{number:03d}": "no credentials" for number in range(500)}
    assert failure_lines({"manifest.json": "full", **routes}) == [
        "manifest.json: full",
        "routes/svc-000, routes/svc-001, routes/svc-002 and 497 more: no credentials",
    ]
    assert failure_lines({}) == []
