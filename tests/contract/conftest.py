"""The same contract through every HTTP front."""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness.event_log import was_logged
from harness.postgres import Postgres
from harness.registry import Registry, registry

FRONTS = ["fast", "plain", "route"]


@pytest.fixture(scope="module")
def front(server: Postgres, workplace: Path) -> Iterator[Callable[[str], Registry]]:
    """Return the registry that answers by one of the HTTP fronts; it is started when a test first asks for it."""
    with ExitStack() as stack:

        @functools.cache
        def start(door: str) -> Registry:
            settings = {"removal_delay": "1s", "max_body": 131_072, "door": door, "hosts": "registry.example.com"}
            process = stack.enter_context(registry(server.migrated_database(), workplace, **settings))
            for event in ("protocol_unfit", "acceptor_unfit"):
                assert not was_logged(event, process.log)
            return process

        yield start


@pytest.fixture(params=FRONTS)
def each_front(request: pytest.FixtureRequest, front: Callable[[str], Registry]) -> Registry:
    """A registry that answers by one of the HTTP fronts; a test that asks for it runs with each."""
    return front(request.param)
