"""The same contract through every door."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.postgres import Postgres
from harness.registry import Registry, registry

DOORS = ["fast", "plain", "route"]


@pytest.fixture(scope="session", params=DOORS)
def each_door(request: pytest.FixtureRequest, server: Postgres, workplace: Path) -> Iterator[Registry]:
    """A registry that answers by one of the doors; a test that asks for it runs with each."""
    settings = {"removal_delay": "1s", "max_body": 131_072, "door": request.param, "hosts": "registry.example.com"}
    with registry(server.create_database(), workplace, **settings) as found:
        assert "does not fit" not in found.log.read_text()
        yield found
