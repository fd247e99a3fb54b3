"""The same contract through every HTTP front."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.event_log import was_logged
from harness.postgres import Postgres
from harness.registry import Registry, registry

FRONTS = ["fast", "plain", "route"]


@pytest.fixture(scope="session", params=FRONTS)
def each_front(request: pytest.FixtureRequest, server: Postgres, workplace: Path) -> Iterator[Registry]:
    """A registry that answers by one of the HTTP fronts; a test that asks for it runs with each."""
    settings = {"removal_delay": "1s", "max_body": 131_072, "door": request.param, "hosts": "registry.example.com"}
    with registry(server.create_database(), workplace, **settings) as process:
        for event in ("protocol_unfit", "acceptor_unfit"):
            assert not was_logged(event, process.log)
        yield process
