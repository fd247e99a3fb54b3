"""The statement that counts refusals that were only noted, from the audit."""

from collections.abc import Collection

from msgspec import Struct
from sqlalchemy import text

from registry.store.database import Database
from registry.store.tables import audit
from registry.store.times import epoch

# The part of a principal behind "as" is what it calls itself.
_COUNT = text(
    "SELECT split_part(principal, ' as ', 1) AS name, verb, sum(count) AS total, count(DISTINCT peer) AS peers,"  # noqa: S608  # constants
    f" max(peer) AS peer, max({epoch(audit.c.at)}) AS last FROM audit"
    " WHERE decision = 'would_refuse' AND at > now() - make_interval(secs => :within) AND verb = ANY(:verbs)"
    " GROUP BY 1, 2 ORDER BY total DESC, name, verb LIMIT :limit"
)


class WouldRefuse(Struct, frozen=True):
    """Requests of one principal for one verb that were allowed, and that would be refused if access were on.

    Attributes:
        principal: as far as it is proven.
        verb: what it asked for.
        count: how often.
        peers: the number of addresses that they came from.
        peer: one of them.
        last_at: when the last minute with one of them began, in seconds since 1970.
    """

    principal: str
    verb: str
    count: int
    peers: int
    peer: str
    last_at: float


async def count_would_refuse(
    database: Database, verbs: Collection[str], *, within: float, limit: int
) -> list[WouldRefuse]:
    """Return who would have been refused in the last ``within`` seconds, the most frequent first.

    Raises:
        UnavailableError: PostgreSQL is away.
    """
    async with database.session() as connection:
        rows = await connection.execute(_COUNT, {"verbs": sorted(verbs), "within": within, "limit": limit})
        return [WouldRefuse(row.name, row.verb, int(row.total), row.peers, row.peer, float(row.last)) for row in rows]
