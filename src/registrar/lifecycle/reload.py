"""Reload of the settings while the process runs: all changes are applied, or none."""

from collections.abc import Callable, Sequence

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
from registrar.event_log import EventLogger
from registrar.identity.resolver import restarted
from registrar.identity.source import Source

# Settings that a reload does not change: connections and earlier registrations were made with them.
_AT_START_ONLY = (
    "registry_url",
    "registry_ca_file",
    "registry_cert_file",
    "registry_key_file",
    "login",
    "login_audience",
    "envoy_token_file",
    "probes",
    "envoy_admin",
    "traffic_interval",
    "edge_listen",
    "edge_fallback",
    "state_directory",
    "errands",
    "instance_id",
    "region",
    "zone",
)

log = EventLogger(__name__)


class ReloadPlan(Struct, frozen=True):
    """The changes that new settings make to the endpoints of the process.

    Attributes:
        settings: the new settings.
        added: new endpoints.
        removed: monitors of endpoints that are no longer configured, to be drained.
        changed: monitors of endpoints whose checks changed, each with the endpoint that replaces theirs.
        kept: monitors of endpoints whose checks are unchanged, each with its new settings.
    """

    settings: Settings
    added: Sequence[Endpoint]
    removed: Sequence[Monitor]
    changed: Sequence[tuple[Monitor, Endpoint]]
    kept: Sequence[tuple[Monitor, Service]]

    def apply(self, monitors: Monitors) -> list[Endpoint]:
        """Apply all changes at once and return the endpoints to drain."""
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
    """Reads the settings again and plans the changes.

    Args:
        load: reads the settings.
        sources: the identity sources, in their order.

    Attributes:
        sources: as given.
    """

    def __init__(self, load: Callable[[], Settings], sources: Sequence[Source]) -> None:
        self._load = load
        self.sources = sources
        # Reloads so far, and the error of the newest one; None after a success. Shown by the admin API.
        self._applied = self._rejected = 0
        self._fault: str | None = None

    @property
    def reloads(self) -> ReloadStatus:
        """The reloads so far, and the error of the newest one."""
        return ReloadStatus(self._applied, self._rejected, self._fault)

    async def plan(self, current: Settings, monitors: Monitors) -> ReloadPlan | None:
        """Return the plan of a reload, or None if the new settings are invalid: the old ones stay then."""
        try:
            plan = await self._plan(self._load(), monitors)
        except ConfigurationError as error:
            self._rejected += 1
            self._fault = str(error)
            log.error("reload_rejected", faults=error.faults)  # noqa: TRY400 - a traceback adds nothing to the faults
            return None
        self._applied += 1
        self._fault = None
        fixed = [name for name in _AT_START_ONLY if _shown(current, name) != _shown(plan.settings, name)]
        if fixed:
            log.warning("reload_needs_restart", settings=fixed)
        return plan

    async def move(self, current: Settings, monitor: Monitor) -> ReloadPlan | None:
        """Return the plan for an endpoint whose address changed, or None if the new address is unknown.

        The files are not read: an operator may be editing them, and no other endpoint moved.
        """
        old = monitor.endpoint
        try:
            new = await build_endpoint(old.service, restarted(old.identity), self.sources)
        except ConfigurationError as error:
            log.warning("endpoint_address_unknown", service=old.service.service, endpoint=old.name, faults=error.faults)
            return None
        if new.name == old.name:
            return None
        return ReloadPlan(current, added=[new], removed=[monitor], changed=[], kept=[])

    async def _plan(self, settings: Settings, monitors: Monitors) -> ReloadPlan:
        # A newer incarnation: an endpoint that drained in this process cannot return as the old one. The instance is
        # the one of the start: a source that fails now must not turn it into another instance.
        identity = restarted(next(iter(monitors)).endpoint.identity)
        wanted = [await build_endpoint(service, identity, self.sources) for service in settings.services]
        current = {_key(monitor.endpoint): monitor for monitor in monitors}
        names = {_key(endpoint) for endpoint in wanted}
        added, changed, kept = [], [], []
        for endpoint in wanted:
            monitor = current.get(_key(endpoint))
            if monitor is None:
                added.append(endpoint)
            elif _same_checks(monitor.endpoint.service, endpoint.service):
                kept.append((monitor, endpoint.service))
            else:
                changed.append(
                    (monitor, await build_endpoint(_without_grace(endpoint.service), identity, self.sources))
                )
        removed = [monitor for key, monitor in current.items() if key not in names]
        return ReloadPlan(settings, added, removed, changed, kept)


def _key(endpoint: Endpoint) -> tuple[str, str]:
    return endpoint.service.service, endpoint.name


def _same_checks(old: Service, new: Service) -> bool:
    # Compared as text: not every type of the options defines equality.
    return render(_without_grace(old).checks) == render(_without_grace(new).checks)


def _without_grace(service: Service) -> Service:
    """Return the service without start-up grace, for an app that has been running for a while."""
    checks = tuple(structs.replace(check, startup_grace=Duration(0)) for check in service.checks)
    return structs.replace(service, checks=checks)


def _shown(settings: Settings, name: str) -> str:
    return str(getattr(settings, name))
