"""Many endpoints at once, written by SQL as the registry itself would have left them: 100,000 requests take longer."""

import asyncio

import asyncpg

from benchmarks.stage import Stage, address, registration
from registry.store.migration import migrate

PER_SERVICE = 50
_PATIENCE = 30.0

# The documents of ``registration``, registered in the order of their numbers, a millisecond apart.
_ENDPOINTS = """
INSERT INTO endpoints (service, address, port, instance_id, incarnation, health, draining, revision, region, zone,
  canary, metadata, detail, ttl, registered_at, changed_at, change)
SELECT service, ('10.' || (number >> 16 & 255) || '.' || (number >> 8 & 255) || '.' || (number & 255))::inet, 8080,
  'i-' || lpad(to_hex(number), 17, '0'), $3, 'HEALTHY', false, $4, $5, $5 || chr(97 + number % 3), false,
  '{}', '', $6, at, at, 1
FROM (SELECT $1 || (number / $2) AS service, number, now() - (10000000 - number) * interval '1 ms' AS at
  FROM generate_series($7::int, $7::int + $8::int - 1) AS number) AS told
ORDER BY number
"""
_LEASES = """
INSERT INTO leases (endpoint_id, incarnation, renewed_at, expires_at, ttl, change)
SELECT id, incarnation, now(), now() + make_interval(secs => ttl), ttl, change FROM endpoints
ON CONFLICT DO NOTHING
"""


class Population:
    """Endpoints numbered from ``begin``, ``each`` of them in a service named by ``prefix`` and a number."""

    def __init__(self, count: int, *, each: int = PER_SERVICE, prefix: str = "service-", begin: int = 0) -> None:
        self.count = count
        self.each = each
        self.prefix = prefix
        self.begin = begin

    def service(self, number: int) -> str:
        """Return the service of the endpoint of that number."""
        return f"{self.prefix}{number // self.each}"

    @property
    def services(self) -> list[str]:
        """All services, in their order."""
        return [self.service(number) for number in range(self.begin, self.begin + self.count, self.each)]

    def path(self, number: int) -> str:
        """Return the path of an endpoint."""
        return f"/v1/services/{self.service(number)}/endpoints/{address(number)}"


def populate(found: Stage, *populations: Population) -> None:
    """Make a new database the stage's, with these endpoints and their leases in it."""
    found.database = found.server.create_database()
    asyncio.run(_populate(found.database, populations))


async def _populate(url: str, populations: tuple[Population, ...]) -> None:
    await migrate(url, _PATIENCE)
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            for one in populations:
                await _insert(connection, one)
            await connection.execute(_LEASES)
        await connection.execute("VACUUM (ANALYZE) endpoints, leases, services")
    finally:
        await connection.close()


async def _insert(connection: asyncpg.Connection, one: Population) -> None:
    told = registration(0)
    await connection.executemany(
        "INSERT INTO services (name, version, change) VALUES ($1, 1, 1)", [(name,) for name in one.services]
    )
    await connection.execute(
        _ENDPOINTS,
        one.prefix,
        one.each,
        told["incarnation"],
        told["revision"],
        told["region"],
        float(told["ttl"]),
        one.begin,
        one.count,
    )
