"""The same contract through every HTTP front."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.event_log import was_logged
from harness.postgres import Postgres
from harness.registry import Registry, registry

FRONTS = ["fast", "plain", "route"]


@contextlib.contextmanager
def _answering(door: str, server: Postgres, workplace: Path) -> Iterator[Registry]:
    settings = {"removal_delay": "1s", "max_body": 131_072, "door": door, "hosts": "registry.example.com"}
    with registry(server.migrated_database(), workplace, **settings) as process:
        for event in ("protocol_unfit", "acceptor_unfit"):
            assert not was_logged(event, process.log)
        yield process


@pytest.fixture(scope="module", params=FRONTS)
def each_front(request: pytest.FixtureRequest, server: Postgres, workplace: Path) -> Iterator[Registry]:
    """A registry that answers by one of the HTTP fronts; a test that asks for it runs with each.

    pytest runs all tests of a file with one of them before it starts the next, so that one lives at a time.
    """
    with _answering(request.param, server, workplace) as process:
        yield process
