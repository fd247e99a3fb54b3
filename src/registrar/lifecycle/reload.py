"""New settings for a running process: all of them, or none."""

from collections.abc import Callable, Sequence

import structlog
from msgspec import Struct, structs

from registrar.admin.status import ReloadStatus
from registrar.config.conversion import render
from registrar.config.settings import Service, Settings
from registrar.duration import Duration
from registrar.endpoint.endpoint import Endpoint
from registrar.endpoint.endpoints import build_endpoint
from registrar.endpoint.monitor import Monitor
from registrar.endpoint.monitors import Monitors
from registrar.errors import ConfigurationError
from registrar.identity.resolver import restarted
from registrar.identity.source import Source

# What is part of every connection or of every registration that was ever made.
_AT_START_ONLY = ("registry_url", "instance_id", "region", "zone")

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger()


class ReloadPlan(Struct, frozen=True):
    """What new settings change.

    Attributes:
        settings: the new ones.
        added: endpoints that are new.
        removed: endpoints that are no longer there, to be drained.
        changed: endpoints whose checks are others, with their successors.
        kept: endpoints that go on as they are, with their settings.
    """

    settings: Settings
    added: Sequence[Endpoint]
    removed: Sequence[Monitor]
    changed: Sequence[tuple[Monitor, Endpoint]]
    kept: Sequence[tuple[Monitor, Service]]

    def apply(self, monitors: Monitors) -> list[Endpoint]:
        """Change everything at once and return the endpoints that are to be drained."""
        for monitor, service in self.kept:
            monitor.endpoint.service = service
        for monitor, endpoint in self.changed:
            monitors.replace(monitor, endpoint)
        for monitor in self.removed:
            monitors.remove(monitor)
        for endpoint in self.added:
            monitors.add(endpoint)
        return [monitor.sent for monitor in self.removed]


class Reloader:
    """Reads the settings again and says what is to change.

    Args:
        load: reads them.
        asked: the sources of addresses.

    Attributes:
        asked: as given.
    """

    def __init__(self, load: Callable[[], Settings], asked: Sequence[Source]) -> None:
        self._load = load
        self.asked = asked
        self._applied = self._rejected = 0
        self._fault: str | None = None

    @property
    def reloads(self) -> ReloadStatus:
        """What became of the SIGHUPs so far."""
        return ReloadStatus(self._applied, self._rejected, self._fault)

    async def plan(self, current: Settings, monitors: Monitors) -> ReloadPlan | None:
        """Return what to change, or None when the new settings cannot be used: the old ones stay then."""
        try:
            plan = await self._plan(self._load(), monitors)
        except ConfigurationError as error:
            self._rejected += 1
            self._fault = str(error)
            log.error("reload_rejected", faults=error.faults)  # noqa: TRY400 - the faults say it all
            return None
        self._applied += 1
        self._fault = None
        fixed = [name for name in _AT_START_ONLY if _shown(current, name) != _shown(plan.settings, name)]
        if fixed:
            log.warning("reload_needs_restart", settings=fixed)
        return plan

    async def move(self, current: Settings, monitor: Monitor) -> ReloadPlan | None:
        """Return what to change for an endpoint that is elsewhere now, or None while nobody knows where.

        Only that one is looked for: what somebody is just editing is not read, and the others are none of it.
        """
        old = monitor.endpoint
        try:
            new = await build_endpoint(old.service, restarted(old.identity), self.asked)
        except ConfigurationError as error:
            log.warning("endpoint_lost", service=old.service.service, endpoint=old.name, faults=error.faults)
            return None
        if new.name == old.name:
            return None
        return ReloadPlan(current, added=[new], removed=[monitor], changed=[], kept=[])

    async def _plan(self, settings: Settings, monitors: Monitors) -> ReloadPlan:
        # A newer incarnation: what drained in this process cannot come back as the old one. Whose it is was found
        # out at the start; a source that happens to be silent now must not make it another instance's.
        identity = restarted(next(iter(monitors)).endpoint.identity)
        wanted = [await build_endpoint(service, identity, self.asked) for service in settings.services]
        known = {_key(monitor.endpoint): monitor for monitor in monitors}
        names = {_key(endpoint) for endpoint in wanted}
        added, changed, kept = [], [], []
        for endpoint in wanted:
            monitor = known.get(_key(endpoint))
            if monitor is None:
                added.append(endpoint)
            elif _checked_alike(monitor.endpoint.service, endpoint.service):
                kept.append((monitor, endpoint.service))
            else:
                changed.append((monitor, await build_endpoint(_without_grace(endpoint.service), identity, self.asked)))
        removed = [monitor for key, monitor in known.items() if key not in names]
        return ReloadPlan(settings, added, removed, changed, kept)


def _key(endpoint: Endpoint) -> tuple[str, str]:
    return endpoint.service.service, endpoint.name


def _checked_alike(one: Service, other: Service) -> bool:
    # As text: not all of the options' types compare themselves.
    return render(_without_grace(one).checks) == render(_without_grace(other).checks)


def _without_grace(service: Service) -> Service:
    """Return the service as it is checked when its app has been running for long already."""
    checks = tuple(structs.replace(check, startup_grace=Duration(0)) for check in service.checks)
    return structs.replace(service, checks=checks)


def _shown(settings: Settings, name: str) -> str:
    return str(getattr(settings, name))
