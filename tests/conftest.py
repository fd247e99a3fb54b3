"""Fixtures that every kind of test shares."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.examples import MAX_QUICK_EXAMPLES, QUICK
from harness.postgres import Postgres, postgres
from harness.registry import Registry, registry
from hypothesis import settings

pytest_plugins = ["harness.forked_tests"]


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for logs and data of the whole run."""
    return tmp_path_factory.mktemp("headcount")


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """A real PostgreSQL server."""
    with postgres() as postgresql:
        yield postgresql


@pytest.fixture
def database(server: Postgres) -> str:
    """The URL of a database of this test's own, which has the schema already."""
    return server.migrated_database()


@pytest.fixture
def migrated(server: Postgres) -> str:
    """The same, for tests whose own ``database`` is a connection to it."""
    return server.migrated_database()


@pytest.fixture
def empty_database(server: Postgres) -> str:
    """The URL of a database of this test's own in which nothing is."""
    return server.create_database()


@pytest.fixture(scope="module")
def shared_registry(server: Postgres, workplace: Path) -> Iterator[Registry]:
    """A registry that the tests of a file share; each uses a service name of its own.

    It ends with its file: to start one takes 0.7 s of processor time, and to keep one for a run of many minutes more.
    """
    with registry(server.migrated_database(), workplace, removal_delay="1s", max_body=131_072) as process:
        yield process


@pytest.fixture
def service() -> str:
    """The name of a service that nobody else uses."""
    return f"service-{uuid.uuid4().hex[:12]}"


def pytest_report_header() -> list[str]:
    """Say at the top of a run where the database comes from, and how hard property tests try."""
    quick = settings.get_current_profile_name() == QUICK
    examples = f"at most {MAX_QUICK_EXAMPLES} each; make properties tries all"
    return [
        "database: REGISTRY_TEST_DATABASE_URL, else a container, else the embedded PostgreSQL",
        f"examples of property tests: {examples if quick else 'all'}",
    ]
