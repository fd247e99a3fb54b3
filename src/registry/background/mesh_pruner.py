"""Deletes old revisions of the mesh configuration; the process that sweeps does so for all."""

from collections.abc import Callable

import structlog

from registry.errors import UnavailableError
from registry.settings import Settings
from registry.store import mesh_pruning
from registry.store.database import Database

log = structlog.get_logger()

PRUNE_INTERVAL = 300.0
"""Seconds between two deletions of old revisions."""


class MeshPruner:
    """Deletes revisions that are neither new enough nor needed.

    Args:
        database: where they are.
        settings: how long they are kept, and how many at least.
        leads: returns whether this process is the one that deletes for all.
    """

    def __init__(self, database: Database, settings: Settings, leads: Callable[[], bool]) -> None:
        self._database = database
        self._settings = settings
        self._leads = leads

    async def prune(self) -> None:
        """Delete what is old, if this process leads."""
        if not self._leads():
            return
        try:
            deleted = await mesh_pruning.prune(
                self._database, age=self._settings.mesh_retention, kept=self._settings.mesh_min_revisions
            )
        except UnavailableError as error:
            log.warning("mesh_not_pruned", reason=error.cause)
            return
        if deleted:
            log.info("mesh_revisions_pruned", revisions=deleted)
