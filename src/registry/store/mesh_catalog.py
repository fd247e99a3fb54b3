"""The statements on the last known metadata of services, by which gateways select them while they have no endpoint."""

from collections.abc import Collection, Mapping

import msgspec
from sqlalchemy import ARRAY, Text, bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from meshconfig.catalog import Metadata
from registry.cooperative import cooperatively
from registry.store.database import Database
from registry.store.tables import mesh_catalog

_ROWS_PER_STATEMENT = 500
"""Rows that one transaction writes."""

_decode = msgspec.json.Decoder(dict[str, tuple[str, ...]]).decode
_DIGESTS = select(mesh_catalog.c.service, func.encode(func.sha256(mesh_catalog.c.metadata), "hex").label("digest"))


async def read_digests(connection: AsyncConnection) -> dict[str, str]:
    """Return the digests of all rows, by their service."""
    return {row.service: row.digest async for row in cooperatively(await connection.execute(_DIGESTS))}


async def read(connection: AsyncConnection, names: Collection[str]) -> tuple[dict[str, Metadata], list[str]]:
    """Return the last known metadata of services, and the names of those whose row somebody has spoilt."""
    parameter = bindparam("names", list(names), ARRAY(Text))
    query = select(mesh_catalog.c.service, mesh_catalog.c.metadata).where(mesh_catalog.c.service == func.any(parameter))
    readable: dict[str, Metadata] = {}
    spoilt = []
    async for row in cooperatively(await connection.execute(query)):
        try:
            readable[row.service] = _decode(row.metadata)
        except (msgspec.DecodeError, UnicodeDecodeError):
            spoilt.append(row.service)
    return readable, spoilt


async def write(database: Database, rows: Mapping[str, bytes]) -> None:
    """Store the metadata of services, in place of what was stored of them.

    Raises:
        UnavailableError: not all of it could be stored.
    """
    values = [{"service": service, "metadata": metadata} for service, metadata in sorted(rows.items())]
    statement = upsert(mesh_catalog)
    statement = statement.on_conflict_do_update(
        index_elements=["service"], set_={"metadata": statement.excluded.metadata}
    )
    for begin in range(0, len(values), _ROWS_PER_STATEMENT):
        async with database.transaction() as connection:
            await connection.execute(statement, values[begin : begin + _ROWS_PER_STATEMENT])


async def remove(connection: AsyncConnection, service: str) -> bool:
    """Delete the metadata of a service; return whether there was any."""
    return bool((await connection.execute(delete(mesh_catalog).where(mesh_catalog.c.service == service))).rowcount)
