"""What keeps a registrar from working here: every part of it asked once, the way the registrar would."""

from collections.abc import AsyncIterator, Mapping, Sequence

from registrar.checks.check import CheckTarget, Options
from registrar.checks.network import NetworkOptions
from registrar.checks.push import PushOptions
from registrar.checks.result import Outcome
from registrar.checks.schedule import probe_once
from registrar.checks.threshold import OnFail
from registrar.config.settings import Service, Settings
from registrar.diagnostic import Diagnostic, Section, Severity
from registrar.endpoint.endpoints import identity_sources, with_task_defaults
from registrar.errors import ConfigurationError, IdentityError
from registrar.identity.resolver import Explanation, Identity, explain, resolve_identity
from registrar.identity.source import Location
from registrar.identity.spec import EndpointSpec
from registrar.registry_client.registry_probe import probe_registry
from wire.address import format_endpoint

_SEVERITIES = {
    Outcome.PASSED: Severity.OK,
    Outcome.DEGRADED: Severity.WARN,
    Outcome.FAILED: Severity.FAIL,
}
_MEND_NETWORK = (
    "start the app and let it listen on the address that is advertised, not on 127.0.0.1 alone; then ask it "
    "yourself from another machine"
)
_MEND_OTHER = "what it says comes from what it asks: mend that, or correct the check's settings"
# Shows how an address would be found where no endpoint was configured.
_ANY = EndpointSpec.parse(":8080")


class Doctor:
    """Examines one machine or task.

    Args:
        settings: what was configured, or as much of it as can be used.
        faults: what cannot be used of it.
        environ: the process's environment.
    """

    def __init__(self, settings: Settings, faults: Sequence[str], environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._faults = faults
        self._asked = identity_sources(settings, environ, patience=0)

    async def examine(self) -> AsyncIterator[Section]:
        """Yield each subject as soon as it is examined."""
        yield _configuration(self._settings, self._faults)
        try:
            identity = await resolve_identity(self._asked)
            yield _instance(identity)
        except IdentityError as error:
            identity = Identity("", 1)
            yield Section("Instance", [Diagnostic(Severity.FAIL, error.fault, error.fix)])
        for service in self._settings.services or (None,):
            told = await self._explain(service)
            yield _address(service, told)
            location = next((one.location for one in told if one.chosen), None)
            if service is not None and location is not None:
                yield await _checks(service, location, identity)
        for url in self._settings.registry_url.urls:
            yield Section(f"Registry {url}", await probe_registry(url))

    async def _explain(self, service: Service | None) -> list[Explanation]:
        if service is None:
            return await explain(self._asked, _ANY)
        return await explain(self._asked, service.endpoint, service.container)


def _configuration(settings: Settings, faults: Sequence[str]) -> Section:
    found = [Diagnostic(Severity.FAIL, fault, _mend(fault)) for fault in faults]
    if not found:
        names = ", ".join(f"{one.service or '(named by the task)'} {one.endpoint}" for one in settings.services)
        found = [Diagnostic(Severity.OK, f"valid, for {names}; `registrar validate` shows all of it")]
    return Section("Settings", found)


def _mend(fault: str) -> str:
    place, _, _ = fault.partition(":")
    if place.startswith("no service"):
        return "export REGISTRAR_SERVICE=shop REGISTRAR_ENDPOINT=:8080, or name a YAML file with REGISTRAR_CONFIG"
    if fault.startswith("REGISTRAR_REGISTRY_URL: not set"):
        return "export REGISTRAR_REGISTRY_URL=http://<a registry>:8080; `registry serve` starts one"
    return f"correct {place}; docs/reference/settings.md lists every setting with its form"


def _instance(identity: Identity) -> Section:
    zone = f"region {identity.region or 'unknown'}, zone {identity.zone or 'unknown'}"
    found = [Diagnostic(Severity.OK, f"instance id {identity.instance_id}, {zone}")]
    if not identity.zone:
        found.append(
            Diagnostic(
                Severity.NOTE,
                "without a zone Envoy cannot prefer endpoints that are near",
                "set REGISTRAR_REGION and REGISTRAR_ZONE",
            )
        )
    return Section("Instance", found)


def _address(service: Service | None, told: Sequence[Explanation]) -> Section:
    title = f"Address of {service.service or 'the service'} {service.endpoint}" if service else "Address of :8080"
    found = [_explained(one) for one in told]
    if not any(one.chosen for one in told):
        mend = next((one.fix for one in told if one.fix), "")
        found.append(
            Diagnostic(
                Severity.FAIL,
                "no address that other machines could reach was found",
                mend or "name it, like REGISTRAR_ENDPOINT=10.0.0.5:8080",
            )
        )
    return Section(title, found)


def _explained(one: Explanation) -> Diagnostic:
    asked = f" [{one.asked}]" if one.asked else ""
    said = f"{one.source}{asked}: {one.answered}"
    if one.chosen and one.location is not None:
        return Diagnostic(Severity.OK, f"{said} → {_text(one.location)}, which is advertised", one.fix)
    if one.refused:
        return Diagnostic(Severity.FAIL, said, one.fix)
    also = f" → {_text(one.location)}" if one.location is not None else ""
    return Diagnostic(Severity.NOTE, f"{said}{also}", one.fix)


def _text(location: Location) -> str:
    return format_endpoint(location.address, location.port)


async def _checks(service: Service, location: Location, identity: Identity) -> Section:
    try:
        service = with_task_defaults(service, identity)
    except ConfigurationError as error:
        return Section("Checks", [Diagnostic(Severity.FAIL, fault, _mend(fault)) for fault in error.faults])
    target = CheckTarget(location.address, location.port, service.service)
    found = [await _checked(options, target) for options in service.checks]
    return Section(f"Checks of {service.service} at {_text(location)}, once each", found)


async def _checked(options: Options, target: CheckTarget) -> Diagnostic:
    kind = options.__struct_config__.tag
    if isinstance(options, PushOptions):
        return Diagnostic(Severity.NOTE, f"{kind}: not asked: the app pushes its state to a running registrar")
    result = await probe_once(options.check(target), options)
    severity = _SEVERITIES.get(result.outcome, Severity.NOTE)
    if severity is not Severity.FAIL:
        return Diagnostic(severity, f"{kind}: {result.outcome}: {result.detail}")
    if options.on_fail is not OnFail.UNHEALTHY:
        # It takes nothing out of rotation.
        severity = Severity.WARN
    mend = _MEND_NETWORK if isinstance(options, NetworkOptions) else _MEND_OTHER
    return Diagnostic(severity, f"{kind}: {result.outcome}: {result.detail}", mend)
