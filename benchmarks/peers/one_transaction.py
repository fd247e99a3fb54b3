"""A plain FastAPI route with a pydantic body that renews each lease in a transaction of its own: what one writes first.

Run as ``python -m benchmarks.peers.one_transaction PORT DATABASE_URL``. It renews the registry's own leases, in the
registry's own table.
"""

import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal

import asyncpg
from fastapi import FastAPI, HTTPException
from harness.process import eventually, free_port, running
from pydantic import BaseModel, Field

from benchmarks.peers.plain_route import serve
from benchmarks.peers.side import Side, end_of, listens

NAME = "FastAPI, one transaction each"
_POOL = 10

_RENEW = """
UPDATE leases SET renewed_at = now(), expires_at = now() + make_interval(secs => leases.ttl) FROM endpoints
WHERE endpoints.service = $1 AND endpoints.address = $2::text::inet AND endpoints.port = $3 AND removed_at IS NULL
  AND leases.endpoint_id = endpoints.id AND leases.incarnation = $4
RETURNING leases.ttl
"""


class RegistrationModel(BaseModel):
    """The full document that a registrar sends."""

    instance_id: str = Field(min_length=1, max_length=255)
    incarnation: int = Field(ge=1)
    health: Literal["HEALTHY", "DEGRADED", "UNHEALTHY"] = "HEALTHY"
    draining: bool = False
    revision: str = ""
    region: str = ""
    zone: str = ""
    canary: bool = False
    weight: int | None = Field(None, ge=1, le=10_000)
    repository: str | None = None
    metadata: dict[str, Any] = {}
    detail: str = ""
    ttl: float | None = None


def build_app(database_url: str) -> FastAPI:
    """Return the application."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with asyncpg.create_pool(database_url, min_size=_POOL, max_size=_POOL) as pool:
            app.state.pool = pool
            yield

    app = FastAPI(lifespan=lifespan)

    @app.put("/v1/services/{service}/endpoints/{endpoint}")
    async def register(service: str, endpoint: str, told: RegistrationModel) -> dict[str, Any]:
        address, _, port = endpoint.rpartition(":")
        ttl = await app.state.pool.fetchval(_RENEW, service, address, int(port), told.incarnation)
        if ttl is None:
            raise HTTPException(404)
        return {"service": service, "endpoint": endpoint, "status": told.health, "ttl": ttl, "interval": ttl / 4}

    return app


@contextlib.contextmanager
def one_transaction(directory: Path, database_url: str, workers: int) -> Iterator[Side]:
    """Run the route in so many processes."""
    port = free_port()
    log = directory / f"one-transaction-{port}.log"
    command = [sys.executable, "-m", "benchmarks.peers.one_transaction", str(port), database_url]
    with contextlib.ExitStack() as processes:
        pids = [processes.enter_context(running(command, log=log)).pid for _ in range(workers)]
        eventually(lambda: log.read_text().count("serving") == workers and listens(port), said=lambda: end_of(log))
        yield Side(NAME, port, pids)


if __name__ == "__main__":
    serve(int(sys.argv[1]), build_app(sys.argv[2]))
