"""The evidence about suspects, gathered for a sweep and for people: statements of probers, and the platform's word.

Evidence only ever adds to what the guard lets lapse. So whatever fails here means that there is no evidence: it is
logged once, and fails no sweep.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping

import structlog

from registry.cache.snapshot_cache import SnapshotCache
from registry.core.endpoint import Endpoint
from registry.core.evidence import Evidence, PlatformWord, Statement, Suspect, judge
from registry.core.expiry_guard import Candidate
from registry.errors import UnavailableError
from registry.store.database import Database
from registry.store.probe_statements import read_statements

log = structlog.get_logger()

_READ_TIMEOUT = 0.5
"""Seconds to wait for the statements, so that a lock on their table does not make sweeps late."""
_PAUSE = 10.0
"""Seconds for which the statements are not read after they could not be."""

PlatformSource = Callable[[Endpoint], PlatformWord | None]
"""Returns the platform's word about a suspect, from memory."""


class EvidenceReader:
    """Reads the evidence about suspects.

    Args:
        database: where the statements of probers are.
        cache: where the endpoints are.
        platform: returns the platform's word about an endpoint; None where no platform is asked.
    """

    def __init__(self, database: Database, cache: SnapshotCache, platform: PlatformSource | None = None) -> None:
        self._database = database
        self._cache = cache
        self._platform = platform
        self.failure = ""
        """Why the statements could not be read last; empty: they could."""
        # Monotonic time until which the statements are not read.
        self._paused_until = float("-inf")

    async def of(self, candidates: Collection[Candidate], now: float) -> Mapping[int, Evidence]:
        """Return the evidence about candidates, by endpoint id; never raises.

        Args:
            candidates: endpoints whose leases have expired.
            now: PostgreSQL's time.
        """
        statements: defaultdict[int, list[Statement]] = defaultdict(list)
        for statement in await self._read([candidate.endpoint_id for candidate in candidates]):
            statements[statement.endpoint_id].append(statement)
        return {
            candidate.endpoint_id: judge(
                _suspect(candidate), statements[candidate.endpoint_id], now, self._word(candidate)
            )
            for candidate in candidates
        }

    def _word(self, candidate: Candidate) -> PlatformWord | None:
        if self._platform is None:
            return None
        endpoint = self._cache.find((candidate.service, candidate.address, candidate.port))
        return None if endpoint is None or endpoint.id != candidate.endpoint_id else self._platform(endpoint)

    async def _read(self, endpoint_ids: Collection[int]) -> list[Statement]:
        if not endpoint_ids or time.monotonic() < self._paused_until:
            return []
        try:
            async with asyncio.timeout(_READ_TIMEOUT):
                statements = await read_statements(self._database, endpoint_ids)
        except UnavailableError as error:
            self._note_failure(error.cause or str(error))
        except TimeoutError:
            self._note_failure(f"PostgreSQL did not answer within {_READ_TIMEOUT:g} s")
        except Exception as error:  # noqa: BLE001  # a row that no driver can read, or a defect: no evidence
            self._note_failure(repr(error))
        else:
            if self.failure:
                log.info("evidence_read_again")
            self.failure = ""
            return statements
        return []

    def _note_failure(self, reason: str) -> None:
        if reason != self.failure:
            log.warning("evidence_not_read", reason=reason)
        self.failure = reason
        self._paused_until = time.monotonic() + _PAUSE


def _suspect(candidate: Candidate) -> Suspect:
    return Suspect(
        candidate.endpoint_id,
        candidate.service,
        candidate.address,
        candidate.port,
        candidate.incarnation,
        candidate.expired_at,
    )
